"""The rule of the verdict, line by line, and that the report says it without letting the data speak HTML."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from evaluate import measures, metrics, page, tables
from evaluate.figures import figures_of
from evaluate.holdout import Item, by_hash, partners
from evaluate.statistics import Interval
from evaluate.verdict import Difference, Rule, after, judge, judge_code, word

UP, DOWN, OPEN = Interval(0.5, 0.4, 0.6, 80), Interval(-0.5, -0.6, -0.4, 80), Interval(0.01, -0.1, 0.12, 80)
NONE = Interval(float("nan"), float("nan"), float("nan"), 0)
SAME = Difference(Interval(-0.01, -0.08, 0.06, 80), 1.0, 0.1, "not shown", 3, 4)
FEWER = Difference(Interval(-0.14, -0.23, -0.05, 80), 0.003, 0.1, "worse", 1, 12)
MORE = Difference(Interval(0.14, 0.05, 0.23, 80), 0.003, 0.1, "better", 12, 1)
RULE = Rule("loss", ("exact_match", "label_accuracy"), 0.1, 0.1, "fail")


@pytest.mark.parametrize(
    ("loss", "gain", "control", "matches", "expected", "says"),
    [
        (UP, UP, UP, (SAME,), "better", "own prompt helps"),
        (UP, UP, UP, (MORE,), "better", "fell"),
        (UP, NONE, None, (), "better", "No item has a prompt"),
        (UP, UP, OPEN, (SAME,), "not shown", "learned the style of the answers, and not to answer"),
        (UP, UP, DOWN, (MORE,), "not shown", "behind the prompts of other items"),
        (UP, OPEN, UP, (SAME,), "not shown", "learned the style"),  # the base does worse behind own prompts, the tuned alike
        (UP, UP, Interval(0.049, 0.01, 0.09, 80), (SAME,), "not shown", "10% of the fall"),  # surely there, and next to nothing
        (UP, UP, Interval(0.051, 0.01, 0.09, 80), (SAME,), "better", "own prompt helps"),
        (UP, UP, UP, (SAME, FEWER), "not shown", "12 items lost, 1 gained"),
        (UP, UP, Interval(0.5, 0.4, 0.6, 4), (SAME,), "not shown", "only 4 items"),
        (DOWN, UP, UP, (MORE,), "worse", "rose"),
        (OPEN, UP, UP, (FEWER,), "worse", "12 items lost"),
        (OPEN, UP, UP, (MORE,), "not shown", "holds zero"),
        (Interval(0.5, 0.4, 0.6, 9), UP, UP, (SAME,), "not shown", "Only 9"),
        (Interval(0.5, 0.0, 0.6, 80), UP, UP, (SAME,), "not shown", "holds zero"),
    ],
)
def test_rule(loss, gain, control, matches, expected, says):
    p = 0.001 if loss.low * loss.high > 0 else 0.3
    found = dict(zip(RULE.guards, matches, strict=False)) | {"loss": Difference(loss, p, 0.05, word(loss, p))}
    verdict = judge(found, gain, control, [], RULE)
    assert verdict.word == expected
    assert says in verdict.reason


def test_a_broken_limit_comes_before_everything():
    verdict = judge({"loss": Difference(UP, 0.001, 0.05, "better")}, UP, UP, ["It forgot."], RULE)
    assert (verdict.word, verdict.reason) == ("worse", "It forgot.")


def test_another_primary_decides():
    rule = Rule("exact_match", ("chrf",), 0.1, None, "flag")
    loss = Difference(DOWN, 0.001, 0.05, "worse")
    assert judge({"loss": loss, "exact_match": MORE}, UP, None, [], rule).word == "better"
    chrf = Difference(DOWN, 0.001, 0.05, "worse")
    assert judge({"loss": loss, "exact_match": MORE, "chrf": chrf}, UP, None, [], rule).word == "not shown"
    assert judge({"loss": loss, "exact_match": SAME, "chrf": chrf}, UP, None, [], rule).word == "worse"
    with pytest.raises(ValueError, match="'words' is none of loss"):
        Rule("words", (), None, None, "flag")


def test_a_word_needs_interval_test_and_ten_items():
    assert (word(UP, 0.01), word(UP, 0.06), word(DOWN, 0.01), word(Interval(0.5, 0.4, 0.6, 9), 0.01)) == (
        "better", "not shown", "worse", "not shown",
    )  # fmt: skip


def item(at: int, label: str | None, source: str = "a.csv", prompt: str = "ask", answer: str = "yes") -> Item:
    return Item(
        f"id{at}", source, at + 1, "chat", label, prompt, answer, np.array([1, 2, 3, 4]), np.array([False, False, True, True]), 2, 4
    )


@pytest.mark.parametrize("sizes", [(5, 5, 5), (2, 1), (6, 2, 1), (1, 1, 1, 1), (9,), (3, 3), (50, 1)])
def test_partners_are_a_derangement_that_avoids_the_own_label(sizes):
    items = [item(at, f"label {group}") for group, size in enumerate(sizes) for at in range(100 * group, 100 * group + size)]
    found = partners(items)
    assert sorted(found) == list(range(len(items)))
    assert all(at != other for at, other in enumerate(found))
    same = sum(items[at].label == items[other].label for at, other in enumerate(found))
    assert same == max(0, 2 * max(sizes) - len(items))  # the least there can be


def test_partners_need_prompts():
    assert partners([item(0, "a"), item(1, "b", prompt=""), item(2, "c")]) == [2, None, 0]
    assert partners([item(0, "a"), item(1, "b", prompt="")]) == [None, None]


def test_choice_by_hash_is_stable_when_rows_are_added():
    ids = [f"row {at}" for at in range(200)]
    chosen = {ids[at] for at in by_hash(ids, 20)}
    more = [*ids, "one more"]
    assert len(chosen - {more[at] for at in by_hash(more, 20)}) <= 1
    assert by_hash(ids, None) == set(range(200))


def test_matches_fold_and_know_labels():
    scores = _scores([("a", "Lost_card", "lost_card "), ("b", "lost_card", "please help"), (None, "Yes, done.", "no")])
    assert scores.filter(pl.col("system") == "tuned")["exact_match"].to_list() == [1.0, 0.0, 0.0]
    assert scores.filter(pl.col("system") == "tuned")["label_accuracy"].to_list() == [None, None, None]
    labelled = _scores([("lost_card", "Lost_card", " LOST_card"), ("lost_card", "lost_card", "other")])
    assert labelled.filter(pl.col("system") == "tuned")["label_accuracy"].to_list() == [1.0, 0.0]


def test_token_f1():
    assert measures.token_f1("", "") == 1.0
    assert measures.token_f1("", "a") == 0.0
    assert measures.token_f1("12+35", "99*3") == 0.0
    assert measures.token_f1("a a b", "a b b") == pytest.approx(2 / 3)


def test_slices_are_marked_and_corrected():
    scores = _scores([("big", "yes", "yes")] * 40 + [("small", "yes", "no")] * 5)
    found, left_out = metrics.slices(scores, seed=0, resamples=500)
    by_name = {(each["by"], each["name"]): each for each in found}
    assert not by_name["label", "big"]["few"] and by_name["label", "small"]["few"]
    assert by_name["label", "big"]["n"] == 40
    assert all(each["p_holm"] >= each["p"] for each in found)
    assert left_out == 0


NAMES = ("exact_match", "label_accuracy", "token_f1", "refusal", "words")
HOSTILE = '<script>alert(1)</script></table>{{ 7*7 }}{% raw %}"><img src=x onerror=alert(2)>=cmd|" /C calc"!A0\u202e\x00'


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.text.append(data)


def _scores(rows: list[tuple[str | None, str, str]], source: str = "a.csv") -> pl.DataFrame:
    """Scores of base and tuned; `rows` are (label, answer, what the tuned model says)."""
    found = []
    for system in ("base", "tuned"):
        for at, (label, _, output) in enumerate(rows):
            loss = (2.0 if system == "base" else 1.0) + at % 7 / 10
            entry = {"item": at, "id": f"id{at}", "source": source, "line": at + 1, "kind": "chat", "label": label, "system": system}
            entry |= {"asked": "x", "shots": 0, "tokens": 4, "loss_sum": 4 * loss, "loss": loss, "answer_loss": loss, "other_id": "o"}
            entry |= {
                "other_loss": loss + 1,
                "prompt_gain": 1.0 + at % 3,
                "stop": "end",
                "group": f"id{at}",
                "length": "short",
                "personal": "no",
                "synthetic": "no",
                "likeness": "none",
            }
            entry |= {"output": output if system == "tuned" else "?"}
            found.append(entry)
    return metrics.with_measures(pl.DataFrame(found, schema=metrics.SCORES), [answer for _, answer, _ in rows], NAMES)


def _page(hostile: str) -> str:
    rows = [(hostile, hostile, hostile)] * 12
    scores = _scores(rows, source=hostile)  # type: ignore[arg-type]
    items = [item(at, hostile, hostile, prompt=hostile, answer=hostile) for at in range(12)]
    beside: dict = {"memorisation": {}, "forgetting": None, "preference": None}
    figures = figures_of(scores, [hostile] * 12, NAMES, RULE, beside, seed=0, resamples=200)
    figures |= {"left_out": {}, "base": {"name": hostile, "revision": hostile, "kind": "hub"}, "dataset": None}
    return page.render(metrics.tidy(figures), scores, items)


def test_after_checked_answers_the_metric_of_the_reward_decides():
    exact = {"method": "grpo", "reward": "exact"}
    assert after(exact, RULE).primary == "exact_match"
    assert after(exact, replace(RULE, primary="bleu")).primary == "bleu"
    assert after({"method": "sft", "reward": "exact"}, RULE) == RULE == after({}, RULE)
    rows = [("a", f"reply {at}", f"reply {at}") for at in range(12)]
    beside: dict = {"memorisation": {}, "forgetting": None, "preference": None}
    names = [*NAMES, *({"exact_match"} - set(NAMES))]
    answers = [answer for _, answer, _ in rows]
    found = figures_of(_scores(rows), answers, names, after(exact, RULE), beside, 0, 200, exact)
    assert found["verdict"] == "better" and found["reason"].startswith("The exact_match became better")
    code = {"method": "grpo", "reward": "python"}
    found = figures_of(_scores(rows), answers, names, after(code, RULE), beside, 0, 200, code)
    assert found["verdict"] == "not shown" and "pass@k" in found["reason"]
    assert judge_code(["It forgot."]).word == "worse"


def test_page_shows_wrong_labels_as_often_as_each_system_gave_them():
    systems = {
        "base": {"confusions": [{"label": "a", "said": "b", "count": 3}]},
        "tuned": {"confusions": [{"label": "b", "said": "a", "count": 2}, {"label": "a", "said": "b", "count": 1}]},
    }
    assert tables.wrong_labels({"systems": systems}) == [("b", "a", ["–", "2"]), ("a", "b", ["3", "1"])]
    assert tables.wrong_labels({"systems": {"base": {}, "tuned": {}}}) == []


def test_page_says_the_verdict_first_and_nothing_in_the_data_is_active():
    html, harmless = _page(HOSTILE), _page("harmless")
    tags, expected = Tags(), Tags()
    tags.feed(html)
    expected.feed(harmless)
    assert tags.seen == expected.seen and tags.attributes == expected.attributes
    assert not {"script", "img", "iframe", "link"} & set(tags.seen)
    text = "".join(tags.text)
    assert text.count("{{ 7*7 }}") >= 12 * 4  # prompt, reference and what each said of every item
    assert "<script>alert(1)</script>" in text
    shown = ['class="state"', 'id="intervals"', 'id="figures"', "By label", "side by side"]
    assert sorted(shown, key=html.index) == shown
    assert "\x00" not in html and "\u202e" not in html and not re.search(r"""(src|href)=["']?(https?:)?//""", html)
