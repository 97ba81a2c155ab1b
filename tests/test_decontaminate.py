"""Benchmark items are found in rows in every way they can hide, and nothing else is."""

import itertools
import json
import pickle

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from curate import benchmarks, decontaminate, overlap, record
from curate.matching import matches
from curate.record import InputError, ParamsError
from curate.shingle import shingles
from tests.helpers import SHARED, chat, document, dropped, frame, preference, run_stage, section, write_input

LONG = "A gardener plants 14 rows of tulips with 23 bulbs in each row and then loses 45 bulbs to hungry squirrels. How many bulbs are left?"
SUM = "What is the value of 12 + 35 - 7 when every step is done from left to right?"
ANSWER = (
    "First the gardener has 14 * 23 = 322 bulbs in the ground, and after the squirrels have taken 45 of them there remain "
    "322 - 45 = 277 bulbs in the garden, which is the number asked for."
)
WORDS = ["".join(letters) for letters in itertools.product("bdfgklm", "aeiou", "nprst", "o")]


@pytest.fixture
def sets(tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    items = [
        {"id": "g-1", "question": LONG, "answer": ANSWER},
        {"id": "g-2", "question": SUM, "answer": "40"},
        {"id": "g-3", "question": "Where is my card?", "answer": "card_arrival"},
        {"id": "g-4", "question": "How do I change my PIN?", "answer": "change_pin"},
        {"id": "g-5", "question": "top up", "answer": "top_up"},
    ]
    (folder / "exam.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    return folder


@pytest.fixture
def clean(tmp_path, sets):
    """Runs the stage over rows and gives back {line: evidence} of what it dropped."""

    def go(*rows, overrides=()):
        source = write_input(frame(list(rows)), tmp_path / "in")
        metrics = run_stage(decontaminate.STAGE, source, tmp_path / "out", f"benchmarks={sets}", *overrides)
        assert metrics["rows_in"] == metrics["kept"] + metrics["dropped"] == len(rows)
        return {each["line"]: each["evidence"] | {"reason": each["reason"]} for each in dropped(tmp_path / "out")}

    return go


@pytest.fixture
def flagged(tmp_path):
    """{line: reason} of the rows that the last run flagged."""
    return lambda: dict(pl.read_parquet(tmp_path / "out" / "flagged.parquet").select("line", "reason").rows())


def test_exact_looks_past_case_space_and_punctuation_and_names_the_item(clean):
    found = clean(
        chat("where is  my CARD", "On its way."), chat("Where is my cart?", "In the shop."), chat("Where is my card?", "card_arrival")
    )
    assert set(found) == {1, 3}
    assert (found[1]["set"], found[1]["item"], found[1]["item_id"], found[1]["tier"]) == ("exam.jsonl", 3, "g-3", "exact")
    assert found[1]["overlap"] == "question"
    assert found[3]["overlap"] == "question and answer"
    assert found[1]["span"] == {"field": "messages", "turn": 0, "start": 0, "end": 17}


def test_exact_in_a_later_turn_and_in_a_document(clean):
    found = clean(
        chat("Hello", "Hi, what can I do?", "How do I change my PIN?", "In the app."), document(LONG), chat("top up", "Do it in the app.")
    )
    assert {line: (proof["tier"], proof["item_id"]) for line, proof in found.items()} == {
        1: ("exact", "g-4"),
        2: ("exact", "g-1"),
        3: ("exact", "g-5"),
    }
    assert found[1]["span"]["turn"] == 2


def test_tiny_items_match_only_a_whole_prompt(clean):
    assert (
        clean(
            chat("I want to top up my phone today", "Fine."),
            chat("Hello", "Hi", "top up", "Done."),
            document("How to top up: use the app."),
        )
        == {}
    )


def test_near_is_the_exact_jaccard(clean):
    close = LONG.replace("hungry", "angry")
    found = clean(
        chat(close, "277"), chat(LONG.replace("How many bulbs are left", "Is it spring"), "Yes."), overrides=["coverage=1.0", "run=50"]
    )
    one, two = (shingles(pl.Series([text.lower()])) for text in (close, LONG))
    expected = matches(two, one, 0.1)["similarity"][0]
    assert found[1]["tier"] == "near"
    assert found[1]["score"] == pytest.approx(expected, abs=1e-4)
    assert 2 not in found or found[2]["score"] >= 0.8


def test_an_item_inside_a_long_row_is_found_with_its_span(clean):
    before = "Good evening, my son brought this home from school and we cannot agree on it at all. "
    text = before + LONG.replace("gardener", "GARDENER") + " We would be glad of any help with his homework, thank you very much indeed."
    found = clean(chat(text, "Of course."))
    span, item_span = found[1]["span"], found[1]["item_span"]
    assert found[1]["reason"] == "benchmark_ngram"
    assert text[span["start"] : span["end"]].lower() == LONG[item_span["start"] : item_span["end"]].lower()
    assert span["start"] == len(before)
    assert found[1]["score"] == 1.0


def test_a_short_item_inside_a_message_is_found_whole(clean):
    text = "Sorry to bother you again. How do I change my pin, please?"
    found = clean(chat(text, "In the app."), chat("How do I change my plan and my PIN?", "In the app."))
    assert set(found) == {1}
    assert found[1]["reason"] == "benchmark_contained"
    assert text[found[1]["span"]["start"] : found[1]["span"]["end"]] == "How do I change my pin"


def test_other_numbers_and_operators_are_another_sum(clean):
    assert clean(chat("Tell me 999 * 3 / 41 when every second step is done from right to left?", "Hm."), chat("12+35-7", "40")) == {}


def test_an_answer_alone_is_told_apart(clean):
    found = clean(chat("What did the old book on page nine say?", f"It said this. {ANSWER}"))
    assert found[1]["overlap"] == "answer"
    assert found[1]["item_span"]["field"] == "answer"


def test_a_rejected_answer_counts_too(clean):
    assert clean(preference("Say something.", "No.", ANSWER))[1]["span"]["field"] == "rejected"


def test_coverage_is_by_one_row(clean):
    third = len(LONG) // 3
    assert clean(*(chat(f"One. {LONG[at : at + third]} Two.", "a") for at in (0, third, 2 * third))) == {}


def test_a_message_that_is_half_an_item_is_a_copy_cut_off(clean):
    half = " ".join(LONG.split()[:14])
    found = clean(chat(half, "a"), chat(f"I ask you this: {half} and then?", "a"))
    assert set(found) == {1}
    assert (found[1]["tier"], found[1]["span"]["start"], found[1]["span"]["end"]) == ("ngram", 0, len(half))


def test_a_long_run_is_enough_from_half_of_the_item_on(clean, sets, flagged):
    (sets / "exam.jsonl").write_text(json.dumps({"question": " ".join(WORDS[:100])}))
    part, less = " ".join(WORDS[40:95]), " ".join(WORDS[40:85])
    found = clean(chat(f"well {part} yes", "a"), chat(f"well {less} yes", "a"))
    assert {line: proof["words"] for line, proof in found.items()} == {1: 55}
    assert flagged() == {2: "benchmark_partial"}
    assert clean(chat(f"well {part} yes", "a"), overrides=["run=56"]) == {}
    assert clean(chat(f"well {part} yes", "a"), overrides=["run=null"]) == {}


@pytest.mark.parametrize(
    ("item", "row"),
    [
        ("How much does it cost to top up by card?", "How much does it cost to top up by transfer?"),
        ("What do I need to do to get a refund?", "My PIN is gone. What do I need to do to get it restored?"),
        ("Is there a tracking number for the card you sent me?", "Where is the tracking number for the card you sent me?"),
    ],
)
def test_a_phrase_with_other_words_where_the_item_goes_on_is_only_flagged(clean, sets, flagged, item, row):
    (sets / "exam.jsonl").write_text(json.dumps({"question": item}))
    assert clean(chat(row, "a"), overrides=["threshold=1"]) == {}
    assert flagged() == {1: "benchmark_partial"}


def test_the_template_of_a_set_is_no_items_text(clean, sets):
    form = "Answer the following multiple choice question about the history of art by giving only the letter of the answer you choose"
    items = [{"question": f"{form}: who painted picture number {at} in room {at * 7} of the museum?"} for at in range(20)]
    (sets / "exam.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    fresh = f"{form}: when did the school of Barbizon begin to paint outdoors?"
    assert clean(chat(fresh, "B"), overrides=["threshold=1"]) == {}
    leaked = "Hey. " + items[3]["question"] + " I think it is Monet but nobody here will believe me, and they laugh."
    assert clean(chat(leaked, "B"), overrides=["threshold=1"])[1]["item"] == 4


def test_flag_keeps_the_row_and_lists_it(clean, tmp_path):
    assert clean(chat("Where is my card?", "On its way."), chat("Fine weather", "Yes."), overrides=["policy=flag"]) == {}
    flagged = pl.read_parquet(tmp_path / "out" / "flagged.parquet")
    assert flagged["line"].to_list() == [1]
    assert json.loads(flagged["evidence"][0])["item_id"] == "g-3"


def test_another_problem_in_the_same_words_is_flagged_not_dropped(clean, tmp_path, flagged):
    other = LONG.replace("14", "9").replace("23", "31").replace("45", "8")
    reworded = "A farmer plants 9 rows of tulips with 31 bulbs in each row and then loses 8 bulbs to hungry squirrels. How many are there?"
    assert clean(chat(other, "271"), chat(reworded, "271"), chat(LONG.replace("hungry", "angry"), "277"))[3]["tier"] == "near"
    assert flagged() == {1: "benchmark_masked", 2: "benchmark_masked"}
    proof = json.loads(pl.read_parquet(tmp_path / "out" / "flagged.parquet")["evidence"][0])
    assert (proof["set"], proof["item_id"], proof["overlap"]) == ("exam.jsonl", "g-1", "question")


def test_masked_can_be_switched_off(clean, flagged):
    reworded = "The farmer plants 9 rows of roses with 31 bulbs in each row and then loses 8 bulbs to hungry squirrels. How are they?"
    assert clean(chat(reworded, "a")) == {}
    assert flagged() == {1: "benchmark_masked"}
    assert clean(chat(reworded, "a"), overrides=["masked=null"]) == {}
    assert flagged() == {}


def test_a_form_of_numbers_and_names_is_no_items_text(clean, sets, flagged):
    names = ["Ann", "Bob", "Cy", "Dora", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kim", "Lea"]
    form = "So {} has {} apples and gives {} of them to {} before lunch today"
    items = [{"question": form.format(name, at + 20, at + 3, names[at - 1])} for at, name in enumerate(names)]
    (sets / "exam.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    assert clean(chat(form.format("Zoe", 77, 55, "Yan"), "22"), overrides=["threshold=1"]) == {}
    assert flagged() == {}
    clean(chat(form.format("Zoe", 77, 55, "Yan"), "22"), overrides=["threshold=1", "common=12"])
    assert flagged() == {1: "benchmark_masked"}


@pytest.mark.parametrize(
    ("policies", "lines"),
    [
        ("{}", {1, 2, 3}),
        ("{exam.jsonl: flag}", set()),
        ("{'*.jsonl': {question: flag, answer: drop}}", {2, 3}),
        ("{'exam*': {question: drop, answer: flag}}", {1, 3}),
        ("{'exam*': drop, '*': flag}", {1, 2, 3}),
    ],
)
def test_policies_by_set_and_field(clean, flagged, policies, lines):
    rows = chat(LONG, "I do not know."), chat("Say it.", f"It is this. {ANSWER}"), chat(LONG, ANSWER)
    assert set(clean(*rows, overrides=[f"policies={policies}"])) == lines
    assert set(flagged()) == {1, 2, 3} - lines


def test_question_and_answer_count_together_even_if_the_answer_was_met_better(clean):
    found = clean(chat(f"Tell me: {LONG.replace('A gard', 'The gard')} I cannot do it by myself, and nobody will help.", ANSWER))
    assert found[1]["item_span"]["field"] == "answer"
    assert found[1]["overlap"] == "question and answer"


def test_a_row_that_one_set_flags_and_another_drops_is_dropped_for_the_other(clean, sets):
    (sets / "quiz.jsonl").write_text(json.dumps({"question": "How do I change my PIN?"}))
    found = clean(chat("How do I change my PIN?", "Hm."), overrides=["policies={exam.jsonl: flag}"])
    assert (found[1]["set"], found[1]["items"]) == ("quiz.jsonl", 2)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("policies={exma*: flag}", r"'exma\*' matches no set .* exam\.jsonl"),
        ("policies={exam*: keep}", "policies.exam"),
        ("policies={exam*: {question: drop}}", "answer"),
        ("policies={exam*: {question: drop, anser: flag}}", "anser"),
        ("policy=keep", "policy"),
        ("masked={n: 1, coverage: 0.5}", "masked.n"),
        ("embedding={model: x, threshold: 2, batch_size: 1}", "embedding.threshold"),
    ],
)
def test_impossible_values_are_explained(clean, override, said):
    with pytest.raises(ParamsError, match=said):
        clean(chat("a", "b"), overrides=[override])


def test_embedding_neighbours_are_flagged_and_only_where_nothing_else_was_found(clean, flagged, tmp_path, monkeypatch):
    def by_first_letter(texts, model, batch_size):
        assert (model, batch_size) == ("toy", 4)
        return np.array([[1.0, 0.0] if text.lower().startswith("w") else [0.0, 1.0] for text in texts], dtype=np.float32)

    monkeypatch.setattr(decontaminate, "embed", by_first_letter)
    rows = chat("Where has the plastic gone?", "There."), chat("Where is my card?", "There."), document("What is it?")
    assert set(clean(*rows, overrides=["embedding={model: toy, threshold: 0.9, batch_size: 4}"])) == {2}
    assert flagged() == {1: "benchmark_embedding", 3: "benchmark_embedding"}
    proof = json.loads(pl.read_parquet(tmp_path / "out" / "flagged.parquet")["evidence"][0])
    assert (proof["tier"], proof["score"], proof["span"]["end"]) == ("embedding", 1.0, len("Where has the plastic gone?"))
    assert clean(*rows)[2]["tier"] == "exact"
    assert flagged() == {}


def test_evidence_holds_no_text_of_the_row(clean, tmp_path):
    clean(chat("Where is my card, asks xyzzy", "xyzzy"), chat(LONG + " xyzzy", "xyzzy"))
    assert "xyzzy" not in "".join(pl.read_parquet(tmp_path / "out" / "dropped.parquet")["evidence"].to_list())


def test_a_row_gets_the_same_verdict_whatever_stands_beside_it(sets):
    params = section("decontaminate", decontaminate.Params, f"benchmarks={sets}")
    context = pickle.loads(pickle.dumps(decontaminate.prepare(params)))
    rows = frame([chat(LONG, "277"), chat("Hi", "Hello"), chat("So: how do I change my pin then", "x"), document(ANSWER)])
    rows = rows.with_row_index("row").with_columns(pl.lit("").alias("split"))
    whole = decontaminate.rows(rows, params, context).dropped
    single = pl.concat([decontaminate.rows(rows[at : at + 1], params, context).dropped for at in range(rows.height)])
    assert whole.height == 3
    assert whole.equals(single)


def test_no_benchmarks_is_fine_but_a_missing_folder_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    source = write_input(frame([chat("a question", "b")]), tmp_path / "in")
    metrics = run_stage(decontaminate.STAGE, source, tmp_path / "out", f"benchmarks={tmp_path / 'empty'}")
    assert (metrics["kept"], metrics["counts"]["benchmark_items"]) == (1, 0)
    with pytest.raises(InputError, match="nowhere"):
        run_stage(decontaminate.STAGE, source, tmp_path / "out", f"benchmarks={tmp_path / 'nowhere'}")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"question": "x"}\n{"question": ', "a.jsonl:2"),
        ("a.jsonl", b"[1, 2]\n", "a.jsonl:1"),
        ("a.json", b'{"question": "x"}', "a.json"),
        ("a.json", b"not json", "a.json"),
        ("a.csv", b"text,category\nhi,there,more\n", "a.csv"),
        ("a.csv", b"text\n\xff\xfe\xfa\n", "a.csv"),
        ("a.parquet", b"PAR1", "a.parquet"),
        ("a.xlsx", b"PK", "a.xlsx"),
        ("a.jsonl", b'{"question": ""}\n', "question"),
        ("a.csv", b"", "a.csv"),
    ],
)
def test_a_broken_set_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        benchmarks.read_benchmarks(tmp_path)


def test_every_container_and_shape_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"data": [{"prompt": "p1", "completion": 4}, {"prompt": "", "completion": "lost"}]}))
    (tmp_path / "b.csv").write_text('text,category\n"one, two",x\n')
    (tmp_path / "c.tsv").write_text("question\tanswer\nq\ta\n")
    pl.DataFrame({"premise": ["rain falls"], "hypothesis": ["it is wet"], "score": [3]}).write_parquet(tmp_path / "d.parquet")
    (tmp_path / "e.jsonl").write_text(
        '\n{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}\n'
        '{"conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}\n'
    )
    (tmp_path / "README.md").write_text("notes")
    items = benchmarks.read_benchmarks(tmp_path)
    assert items.select("set", "item", "question", "answer").rows() == [
        ("a.json", 1, "p1", "4"),
        ("b.csv", 1, "one, two", "x"),
        ("c.tsv", 1, "q", "a"),
        ("d.parquet", 1, "rain falls\nit is wet", ""),
        ("e.jsonl", 2, "u", "a"),
        ("e.jsonl", 3, "h", "g"),
    ]


def test_a_run_shorter_than_an_ngram_is_refused():
    with pytest.raises(ParamsError, match="run = 4"):
        section("decontaminate", decontaminate.Params, "run=4")


def near_by_counting(ours: list[str], theirs: list[str]) -> set[int]:
    """1-based rows with Jaccard >= 0.8 to some item, over the 5-grams themselves: all pairs, as a product of two sparse matrices."""
    column: dict[str, int] = {}
    sets = []
    for side in (ours, theirs):
        rows = [sorted({column.setdefault(text[at : at + 5], len(column)) for at in range(max(len(text) - 4, 1))}) for text in side]
        sets.append((np.concatenate(rows), np.cumsum([0, *map(len, rows)])))
    one, two = (sparse.csr_array((np.ones(len(at), np.int32), at, start), (len(start) - 1, len(column))) for at, start in sets)
    both = (one @ two.T).tocoo()
    either = np.diff(sets[0][1])[both.row] + np.diff(sets[1][1])[both.col] - both.data
    return {int(row) + 1 for row in both.row[both.data >= 0.8 * either]}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_every_leak_of_banking77_is_found(tmp_path):
    """The official test split against train: all equal questions and all pairs from 0.8 on, found by comparing sets one by one."""
    train, test = (pl.read_csv(SHARED / f"banking77_{name}.csv", infer_schema=False) for name in ("train", "test"))
    (tmp_path / "sets").mkdir()
    test.write_csv(tmp_path / "sets" / "test.csv")
    rows = frame([chat(text, label, label=label) for text, label in train.rows()])
    params = section("decontaminate", decontaminate.Params, f"benchmarks={tmp_path / 'sets'}")
    outcome = decontaminate.rows(rows.with_row_index("row").with_columns(pl.lit("").alias("split")), params, decontaminate.prepare(params))
    out = {row["line"]: json.loads(row["evidence"]) for row in outcome.dropped.iter_rows(named=True)}
    ours, theirs = (each.select(record.fold(pl.col("text")).alias("f"))["f"].to_list() for each in (train, test))
    known = set(theirs)
    assert {at for at, text in enumerate(ours, 1) if text in known} <= {at for at, proof in out.items() if proof["tier"] == "exact"}
    bare = [{"".join(char for char in text if char.isalnum()) for text in side} for side in (ours, theirs)]
    both = bare[0] & bare[1]
    same = {at for at, text in enumerate(ours, 1) if "".join(char for char in text if char.isalnum()) in both}
    assert same <= set(out)
    assert len(same) == 29
    near = near_by_counting(ours, theirs)
    assert near <= set(out)
    assert len(near) == 112
    assert all(out[at]["set"] == "test.csv" and 1 <= out[at]["item"] <= test.height for at in near)
    assert {overlap.TIERS.index(proof["tier"]) for at, proof in out.items() if at in near} <= {0, 1}
