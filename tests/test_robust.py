"""The same items with the question typed badly: what is changed, what is left out, and what the figures say."""

import numpy as np
import polars as pl
import pytest

from curate.template import BUILT_IN, load_template, render
from evaluate import metrics, robust
from evaluate.holdout import Item
from evaluate.robust import Robustness
from tests.test_evaluate import byte_tokenizer

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
NAMES = ("exact_match", "words")


class Named:
    special_tokens_map = SPECIAL


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "plain"])
def test_the_question_is_found_in_every_template(name, tmp_path):
    source = load_template(name, tmp_path)
    (tmp_path / "template.jinja").write_text(source)
    around = robust.marks(tmp_path, Named())
    asked = {"role": "user", "content": "Where is my order 77?"}
    for turns in ([asked], [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}, asked]):
        prompt = render(turns, source, True, SPECIAL)
        place = robust.question(prompt, around, list(SPECIAL.values()))
        assert place is not None and prompt[place[0] : place[1]].strip() == "Where is my order 77?"


def test_a_prompt_that_ends_otherwise_has_no_question(tmp_path):
    around = ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n")
    tool = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"
    assert robust.question(tool, around, ["<|im_start|>", "<|im_end|>"]) is None
    assert robust.question("Q: hi", around, []) is None
    assert robust.question("Q: hi", ("", ""), []) == (0, 5)


def item(at: int, prompt: str, answer: str, group: str = "") -> Item:
    tokenizer = byte_tokenizer()
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(answer, add_special_tokens=False)["input_ids"]
    ids = np.array(before + after, dtype=np.int32)
    return Item(f"id{at}", "s", at + 1, "chat", None, prompt, answer, ids, np.arange(len(ids)) >= len(before), len(before), len(ids), group)


ITEMS = [item(at, f"Where does the parcel number {at} wait for the courier", f"shelf {at}") for at in range(30)] + [item(30, "12 34", "x")]


def made(seed: int = 1, limit: int = 500, kinds: tuple = ("typos", "case")) -> robust.Variants:
    return robust.variants(ITEMS, Robustness(items=31, kinds=kinds), ("", ""), byte_tokenizer(), limit, 8, seed)


def test_only_the_question_changes_and_by_seed_alone():
    found, tokenizer = made(), byte_tokenizer()
    assert found.left_out == {"typos": {"nothing_to_change": 1}, "case": {"nothing_to_change": 1}}
    assert len(found.changed) == 60
    for each in found.changed:
        own = ITEMS[each.item]
        prompt = tokenizer.decode(each.ids[: each.start].tolist())
        assert prompt != own.prompt and each.ids[each.start :].tolist() == own.ids[own.start : own.stop].tolist()
        assert prompt == own.prompt.lower() if each.kind == "case" else abs(len(prompt) - len(own.prompt)) <= 4
    texts = [each.ids.tolist() for each in found.changed if each.kind == "typos"]
    assert texts == [each.ids.tolist() for each in made().changed if each.kind == "typos"]
    assert texts != [each.ids.tolist() for each in made(seed=2).changed if each.kind == "typos"]


def test_what_does_not_fit_the_model_is_counted():
    assert made(limit=20, kinds=("case",)).left_out == {"case": {"longer_than_model": 30, "nothing_to_change": 1}}


def test_figures_are_paired_by_item_and_below_zero_where_the_change_does_harm():
    found = made(kinds=("case",))
    scores = pl.DataFrame(
        [
            {"item": at, "id": f"id{at}", "group": f"id{at}", "system": system, "answer_loss": 1.0 + at / 100, "output": each.answer}
            for system in ("base", "tuned")
            for at, each in enumerate(ITEMS)
        ],
        schema_overrides=metrics.SCORES,
    )
    scores = metrics.with_measures(scores.with_columns(pl.lit(None, pl.String).alias("label")), [each.answer for each in ITEMS], NAMES)
    asked = {
        "base": [{"answer_loss": 1.5 + each.item / 100 + 0.01 * (at % 3), "output": "wrong"} for at, each in enumerate(found.changed)],
        "tuned": [{"answer_loss": 1.1 + each.item / 100 + 0.01 * (at % 3), "output": None} for at, each in enumerate(found.changed)],
    }
    figures = robust.figures(found, asked, scores, [each.answer for each in ITEMS], NAMES, 0, 500)
    base, tuned = (figures["systems"][system]["case"] for system in ("base", "tuned"))
    assert base["loss"]["difference"]["value"] == pytest.approx(-0.51, abs=1e-6) and base["loss"]["verdict"] == "worse"
    assert base["exact_match"]["lost"] == 30 and base["exact_match"]["verdict"] == "worse"
    assert tuned["exact_match"]["difference"]["n"] == 0  # no answers
    assert figures["tuned_against_base"]["case"]["difference"]["value"] == pytest.approx(0.4, abs=1e-6)
