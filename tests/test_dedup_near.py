"""Near-duplicates: the result is the exact greedy, names its evidence, and does not depend on how the input lies."""

import os
import random
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from curate import dedup_near, greedy, record, stage, store
from curate.dedup_near import STAGE, Params, explain
from curate.record import InputError, ParamsError
from curate.shingle import spelled
from tests.alike import Reference, variants
from tests.helpers import ROOT, SHARED, chat, document, dropped, frame, preference, row, run_stage, section, write_input

LONG = "Please send me the bill of last month again, the one with the two credits for the missed engineer on it."
ANSWER = "I have sent it to you a minute ago, look there now please"


def run(rows: list[dict[str, Any]], tmp_path: Path, *overrides: str, workers: int = 1) -> list[dict[str, Any]]:
    write_input(frame(rows), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "out", *overrides, workers=workers)
    return dropped(tmp_path / "out")


def kept_lines(out: Path) -> list[int]:
    return pl.concat([pl.read_parquet(path) for path in sorted((out / "kept").glob("*.parquet"))])["line"].to_list()


def mixed(seed: int, count: int = 600) -> list[dict[str, Any]]:
    """Families of questions and answers, copies, empty rows, labels and synthetic rows."""
    draw = random.Random(seed)
    rows = []
    for at, text in enumerate(variants(count, seed), 1):
        words = text.split(" ")
        cut = max(len(words) // 2, 1)
        turns = (" ".join(words[:cut]), " ".join(words[cut:]) + draw.choice(["", ".", "!"]))
        meta = {"synthetic": {"method": "typos"}} if draw.random() < 0.2 else {}
        messages = chat(*turns)["messages"]
        rows.append(row("chat", messages, label=draw.choice([None, "a", "b"]), meta=meta, line=at))
    return [*rows, *(row("chat", chat("", "")["messages"], line=count + at) for at in range(1, 4))]


def plain_greedy(rows: list[dict[str, Any]], threshold: float, boilerplate: int | None) -> set[int]:
    """Lines that an exact greedy keep-first drops, one row at a time, in the documented order."""
    plain = Reference.of(rows, "both", boilerplate)

    def rank(at: int) -> tuple[Any, ...]:
        answer = rows[at]["messages"][-1]["content"].rstrip()
        cut_off = len(answer.split()) > 10 and not answer.endswith((".", "!"))
        return ("synthetic" in rows[at]["meta"], rows[at]["label"] is None, cut_off, -len(answer), rows[at]["id"], "", rows[at]["line"])

    kept: list[int] = []
    for at in sorted(range(len(rows)), key=rank):
        if not any(plain.duplicates(at, other, threshold, threshold) for other in kept):
            kept.append(at)
    return {rows[at]["line"] for at in set(range(len(rows))) - set(kept)}


@pytest.mark.parametrize(("threshold", "boilerplate"), [(0.8, None), (0.6, None), (0.7, 10)])
def test_drops_are_those_of_an_exact_greedy(threshold: float, boilerplate: int | None, tmp_path: Path) -> None:
    rows = mixed(11)
    settings = [f"threshold={threshold}", "near_miss=0.5", "permutations=128", "recall=0.9999"]
    gone = run(rows, tmp_path, *settings, f"boilerplate={'null' if boilerplate is None else boilerplate}")
    assert {each["line"] for each in gone} == plain_greedy(rows, threshold, boilerplate)
    assert 60 < len(gone) < 500


def test_every_drop_names_a_kept_row_that_is_as_similar_as_it_says(tmp_path: Path) -> None:
    rows = mixed(12)
    gone = run(rows, tmp_path)
    plain = Reference.of(rows)
    kept = set(kept_lines(tmp_path / "out"))
    by_line = {each["line"]: each for each in rows}
    for each in gone:
        proof = each["evidence"]
        assert proof["kept_line"] in kept
        assert proof["kept_id"] == by_line[proof["kept_line"]]["id"]
        assert proof["similarity"] == pytest.approx(plain.similarity(each["line"] - 1, proof["kept_line"] - 1), abs=5e-5)
        assert proof["similarity"] >= 0.8


def test_neither_order_nor_parts_nor_workers_change_what_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mixed(13)
    writer = store.PartWriter(tmp_path / "a" / "kept", store.arrow_schema(record.SCHEMA), part_rows=150)
    writer.write(frame(rows))
    writer.close()
    run_stage(STAGE, tmp_path / "a", tmp_path / "a1", workers=1)
    monkeypatch.setattr(stage, "INLINE_BATCHES", 0)
    run_stage(STAGE, tmp_path / "a", tmp_path / "a2", workers=2)
    for path in sorted((tmp_path / "a1").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "a2" / path.relative_to(tmp_path / "a1")).read_bytes()
    write_input(frame(random.Random(3).sample(rows, len(rows))), tmp_path / "b")
    run_stage(STAGE, tmp_path / "b", tmp_path / "b1")
    tables = [pl.read_parquet(tmp_path / name / "dropped.parquet").sort("line") for name in ("a1", "b1")]
    assert tables[0].equals(tables[1])
    assert pl.read_parquet(tmp_path / "a1" / "pairs.parquet").equals(pl.read_parquet(tmp_path / "b1" / "pairs.parquet"))


@pytest.mark.skipif(not (SHARED / "t0_55k.parquet").exists(), reason="t0_55k.parquet is not at hand")
@pytest.mark.parametrize("as_documents", [False, True])
def test_guarantee_on_real_prompts_by_sparse_matrix(as_documents: bool, tmp_path: Path) -> None:
    """Every drop is as similar to its kept row as said, and at most 0.1 % of kept rows have a kept duplicate.

    FINERY_T0_ROWS sets the size of the sample (55185: all of it, a quarter of an hour).
    """
    size = int(os.environ.get("FINERY_T0_ROWS", "1500"))
    sample = pl.read_parquet(SHARED / "t0_55k.parquet").fill_null("")
    sample = sample.gather_every(max(sample.height // size, 1)).head(size)
    turns = sample.select("prompt", "completion").rows()
    rows = [document(" ".join(each), at) if as_documents else chat(*each, line=at) for at, each in enumerate(turns, 1)]
    gone = run(rows, tmp_path, "boilerplate=null")
    texts = [("", " ".join(each)) if as_documents else each for each in turns]
    found = like_pairs(texts, 0.8)
    for each in gone:
        pair = tuple(sorted((each["line"] - 1, each["evidence"]["kept_line"] - 1)))
        assert found[pair] == pytest.approx(each["evidence"]["similarity"], abs=5e-5)
    kept = set(kept_lines(tmp_path / "out"))
    near = {at for pair in found for at in pair if pair[0] + 1 in kept and pair[1] + 1 in kept}
    assert len(gone) > size / 40
    assert len(near) <= len(kept) / 1000


def like_pairs(texts: list[tuple[str, str]], threshold: float) -> dict[tuple[int, ...], float]:
    """All pairs that are duplicates at the threshold, from products of text by shingle matrices, a block of rows at a time."""
    found: dict[tuple[int, ...], float] = {}
    spelt = [spelled(*each) for each in texts]
    for grain in (0, 1):
        shared, sizes = _products([each[grain] for each in spelt], threshold)
        for a, b, both in shared:
            alike = both / (sizes[a] + sizes[b] - both)
            if alike >= threshold and found.get((a, b), 0.0) < alike:
                answers = [{each for each in spelt[at][grain] if each.startswith("answer")} for at in (a, b)]
                union = answers[0] | answers[1]
                if not union or len(answers[0] & answers[1]) >= threshold * len(union):
                    found[a, b] = alike
    return found


def _products(sets: list[set[str]], threshold: float) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    """(a, b, shared) of pairs a < b that share enough for the threshold, and the size of each set."""
    number: dict[str, int] = {}
    columns = [[number.setdefault(each, len(number)) for each in some] for some in sets]
    sizes = np.array([len(each) for each in columns])
    starts = np.concatenate(([0], np.cumsum(sizes)))
    flat = np.fromiter((at for each in columns for at in each), dtype=np.int64, count=int(starts[-1]))
    matrix = csr_matrix((np.ones(len(flat), dtype=np.int32), flat, starts), shape=(len(sets), max(len(number), 1)))
    pairs: list[tuple[int, int, int]] = []
    for first in range(0, len(sets), 500):
        block = (matrix[first : first + 500] @ matrix.T).tocoo()
        a, b, both = block.row + first, block.col, block.data
        enough = (a < b) & (both >= threshold / (1 + threshold) * (sizes[a] + sizes[b]) - 1e-9)
        pairs += zip(a[enough].tolist(), b[enough].tolist(), both[enough].tolist(), strict=True)
    return pairs, sizes


def adversarial() -> list[str]:
    """Chains whose ends differ, texts of one preamble, the same sentences in another order, and edits of one digit."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(3, 8))) for _ in range(900)]
    chain = [" ".join(words[at : at + 120]) for at in range(0, 61, 4)]
    preamble = " ".join(draw.choices(words, k=300))
    shared = [preamble + " " + " ".join(draw.choices(words, k=30)) for _ in range(60)]
    sentences = [" ".join(draw.choices(words, k=9)) + "." for _ in range(12)]
    permuted = [" ".join(draw.sample(sentences, 12)) for _ in range(30)]
    digits = [f"What is {at} plus {at * 7} times 3?" for at in range(60)]
    long_digits = [" ".join(words[:200]) + f" Invoice {at}." for at in range(40)]
    return [*chain, *shared, *permuted, *digits, *long_digits]


@pytest.mark.parametrize("boilerplate", ["null", "20"])
def test_guarantees_on_an_adversarial_set(boilerplate: str, tmp_path: Path) -> None:
    texts = adversarial()
    rows = [document(text, at) for at, text in enumerate(texts, 1)]
    gone = run(rows, tmp_path, f"boilerplate={boilerplate}", "recall=0.9999", "permutations=128")
    plain = Reference.of(rows, "both", None if boilerplate == "null" else int(boilerplate))
    assert len(gone) > 20
    for each in gone:
        assert plain.similarity(each["line"] - 1, each["evidence"]["kept_line"] - 1) >= 0.8
    kept = kept_lines(tmp_path / "out")
    assert not [(a, b) for a, b in combinations(kept, 2) if plain.duplicates(a - 1, b - 1, 0.8, 0.8)]
    assert not {each["line"] for each in gone} & {each["evidence"]["kept_line"] for each in gone}
    of_one_preamble = [line for line in kept if 17 <= line <= 76]
    assert len(of_one_preamble) == (60 if boilerplate == "20" else 1)


def test_chains_do_not_merge(tmp_path: Path) -> None:
    words = [f"word{at:03d}" for at in range(60)]
    chain = [" ".join(words[at : at + 40]) for at in range(0, 21, 3)]  # each resembles the next, the ends do not resemble each other
    gone = run([chat(text, line=at) for at, text in enumerate(chain, 1)], tmp_path)
    lines = {each["line"] for each in gone}
    assert lines
    assert len(lines) < len(chain) - 1
    assert not lines & {each["evidence"]["kept_line"] for each in gone}


def test_copies_with_one_number_of_their_own_are_copies_though_there_are_many(tmp_path: Path) -> None:
    text = " ".join(variants(3, 8)) + " " + LONG * 3
    rows = [document(f"{text} Ticket {at}.", at) for at in range(1, 200)]
    assert len(run(rows, tmp_path, "boilerplate=20")) == 198


def test_short_questions_and_long_documents(tmp_path: Path) -> None:
    page = " ".join(variants(30, 21))
    rows = [
        chat("Where is my parcel?", "It is at our depot in York."),
        chat("Where is my parcel?", "It is at our depot in York!"),
        chat("Where is my pen?", "It is at our depot in Hull."),
        chat("a", "b"),
        chat("a", "c"),
        chat(page * 3, "Yes."),
        chat(page * 3 + " And thanks.", "Yes."),
    ]
    assert sorted(each["line"] for each in run(rows, tmp_path)) in ([1, 6], [2, 6], [1, 7], [2, 7])


def test_the_same_question_with_another_answer_is_a_conflict_and_stays(tmp_path: Path) -> None:
    rows = [chat(LONG * 3, "Yes, of course."), chat(LONG * 3, "No, never."), chat(LONG * 3 + " Thanks.", "Yes, of course.")]
    gone = run(rows, tmp_path)
    assert [each["line"] for each in gone] in ([1], [3])
    pairs = pl.read_parquet(tmp_path / "out" / "pairs.parquet")
    conflicts = pairs.filter("conflict")
    assert conflicts.height >= 1
    assert (conflicts["answer_similarity"] < 0.8).all()
    assert not conflicts["dropped"].any()
    assert {2} <= set(conflicts["line"].to_list() + conflicts["kept_line"].to_list())
    assert len(run(rows, tmp_path / "prompt", "compare=prompt")) == 2


@pytest.mark.skipif(not (SHARED / "banking77_train.csv").exists(), reason="banking77_train.csv is not at hand")
def test_every_like_pair_of_short_real_questions_is_found(tmp_path: Path) -> None:
    """All pairs of Banking77's train questions at the threshold, by brute force; no two rows merge because they are short."""
    table = pl.read_csv(SHARED / "banking77_train.csv")
    texts = table["text"].to_list()
    rows = [document(text, at) for at, text in enumerate(texts, 1)]
    gone = run(rows, tmp_path)
    found = like_pairs([("", text) for text in texts], 0.8)
    kept = set(kept_lines(tmp_path / "out"))
    left = [pair for pair in found if pair[0] + 1 in kept and pair[1] + 1 in kept]
    assert len(found) > 100
    assert len(left) <= 0.005 * len(found)
    for each in gone:
        pair = tuple(sorted((each["line"] - 1, each["evidence"]["kept_line"] - 1)))
        assert found[pair] == pytest.approx(each["evidence"]["similarity"], abs=5e-5)


def test_rows_without_text_are_never_duplicates(tmp_path: Path) -> None:
    assert run([chat("", ""), chat("", ""), chat(" ", "")], tmp_path) == []


@pytest.mark.parametrize(
    ("better", "worse", "prefer"),
    [
        (row("chat", chat(LONG, ANSWER)["messages"]), row("chat", chat(LONG, ANSWER + "!")["messages"], meta={"synthetic": {}}), "human"),
        (chat(LONG, ANSWER, label="bill"), chat(LONG, ANSWER + "!"), "labelled"),
        (chat(LONG * 3, ANSWER + "."), chat(LONG * 3, ANSWER + " as"), "complete"),
        (chat(LONG, ANSWER + "!"), chat(LONG, ANSWER), "longer"),
    ],
)
def test_the_better_row_stays_wherever_it_stands(better: dict[str, Any], worse: dict[str, Any], prefer: str, tmp_path: Path) -> None:
    for at, rows in enumerate(([better, worse], [worse, better])):
        gone = run(rows, tmp_path / str(at), f"prefer=[{prefer}]")
        assert [each["id"] for each in gone] == [worse["id"]]
        assert gone[0]["evidence"]["label_differs"] == (better["label"] != worse["label"])


def test_the_row_of_the_more_trusted_file_stays(tmp_path: Path) -> None:
    text = "The hub in the hall has lost its light again and nobody in the house knows what to do about that tonight."
    rows = [chat(text, "Restart it now.", source=name, line=at) for at, name in enumerate(("old/a.csv", "new.csv", "other.csv"))]
    rows[1]["messages"][0]["content"] = text.replace("hall", "hull")
    for at, (globs, stays) in enumerate((("[new*, old/*]", "new.csv"), ("[old/*]", "old/a.csv"), ("['o*r.csv']", "other.csv"))):
        write_input(frame(rows), tmp_path / str(at) / "in")
        run_stage(dedup_near.STAGE, tmp_path / str(at) / "in", tmp_path / str(at) / "out", f"sources={globs}", "threshold=0.6")
        kept = pl.read_parquet(tmp_path / str(at) / "out" / "kept" / "*.parquet")["source"].to_list()
        assert kept == [stays]


def test_rows_settled_already_always_stay(tmp_path: Path) -> None:
    write_input(frame([chat(LONG, "Yes."), chat(LONG + "?", "Yes.")]), tmp_path / "settled")
    write_input(frame([chat(LONG + "!", "Yes.", source="new.jsonl"), chat("Something else", source="new.jsonl")]), tmp_path / "new")
    params = section("dedup_near", Params)
    metrics = stage.run(STAGE, tmp_path / "new", tmp_path / "out", params, against=tmp_path / "settled")
    gone = dropped(tmp_path / "out")
    assert metrics["rows_in"] == 2
    assert [each["line"] for each in gone] == [1]
    assert gone[0]["evidence"]["kept_known"] is True


def test_what_is_compared(tmp_path: Path) -> None:
    one, two = chat(LONG, "The first answer is about credits.", system="Be kind."), chat(LONG, "Nothing alike in these words at all!")
    assert run([one, two], tmp_path / "both", "threshold=0.9") == []
    assert len(run([one, two], tmp_path / "prompt", "compare=prompt")) == 1
    assert run([one, two], tmp_path / "answer", "compare=answer") == []


def test_preference_pairs_with_other_worse_answers_are_not_the_same(tmp_path: Path) -> None:
    worse = ("Nobody here can help you with any such thing, ever, whatever you may say.", "Try to switch the cat off and on.")
    rows = [preference(LONG, "Done.", text) | {"line": at} for at, text in enumerate(worse, 1)]
    assert run(rows, tmp_path) == []


def test_a_giant_cluster_costs_a_check_a_row(tmp_path: Path) -> None:
    rows = [chat(LONG * 2 + f" Ticket {at}", "Yes.", line=at) for at in range(1, 3001)]
    gone = run(rows, tmp_path)
    assert len(gone) == 2999
    counts = pl.read_json(tmp_path / "out" / "metrics.json")["counts"].struct.field("checked_pairs")[0]
    assert counts < 3 * len(rows)


def test_pairs_and_histogram_hold_what_was_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = mixed(14)
    gone = run(rows, tmp_path)
    pairs, histogram = (pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("pairs", "histogram"))
    assert pairs["similarity"].min() >= 0.6  # type: ignore[operator]
    assert histogram["pairs"].sum() == pairs.height
    best = pairs.filter("dropped").group_by("line").agg(pl.col("similarity").max())
    assert best.height == len(gone)
    assert (best["similarity"] >= 0.8).all()
    assert (pairs.filter(~pl.col("dropped") & ~pl.col("conflict"))["similarity"] < 0.8).all()
    monkeypatch.setattr(greedy, "MOST_PAIRS", 20)
    run_stage(STAGE, tmp_path / "in", tmp_path / "few")
    some = pl.read_parquet(tmp_path / "few" / "pairs.parquet")
    assert some.height == 20
    assert some.join(pairs, on=["line", "kept_line"], how="semi").height == 20
    assert pl.read_parquet(tmp_path / "few" / "histogram.parquet").equals(histogram)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ParamsError, match=r"near_miss 0\.9 is above threshold 0\.8"):
        section("dedup_near", Params, "near_miss=0.9")
    with pytest.raises(ParamsError, match="threshold"):
        section("dedup_near", Params, "threshold=1.2")
    with pytest.raises(ParamsError, match="raise permutations or threshold"):
        dedup_near.prepare(section("dedup_near", Params, "threshold=0.2", "near_miss=0.1", "permutations=16"))


def test_explain_tells_what_two_rows_share(tmp_path: Path) -> None:
    rows = [chat("abcdefgh", ""), chat("abcdefxy", "")]
    folder = write_input(frame(rows), tmp_path / "in")
    told = explain(folder, rows[0]["id"], rows[1]["id"], section("dedup_near", Params))
    assert told.startswith("similarity 0.3333")
    assert "shingles of 5 characters: 0.3333, 2 shared, 2 and 2 not" in told
    assert '"defgh"' in told
    with pytest.raises(InputError, match="no row has id 'nowhere'"):
        explain(folder, "nowhere", rows[1]["id"], section("dedup_near", Params))
    command = [sys.executable, "-m", "curate.dedup_near", "--explain", str(folder), rows[0]["id"], rows[1]["id"]]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.startswith("similarity 0.3333")
    wrong = subprocess.run(command[:5], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "expected --explain" in wrong.stderr


def test_stored_sketches_find_what_a_second_look_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random.Random(5).sample(mixed(16, 900), 903)
    write_input(frame(rows[:600]), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "settled", "boilerplate=50")
    write_input(frame([each | {"source": "new.jsonl"} for each in rows[600:]]), tmp_path / "new")
    params = section("dedup_near", Params, "boilerplate=50")
    looked_at: list[int] = []
    survey = dedup_near.survey

    def watched(batch: pl.DataFrame, *rest: Any) -> pl.DataFrame:
        looked_at.append(batch.height)
        return survey(batch, *rest)

    monkeypatch.setattr(dedup_near, "survey", watched)
    stage.run(STAGE, tmp_path / "new", tmp_path / "quick", params, against=tmp_path / "settled")
    assert 0 < sum(looked_at) < 228  # of the 228 settled rows only those that share a bucket
    (tmp_path / "settled" / "sketches.parquet").rename(tmp_path / "away.parquet")
    stage.run(STAGE, tmp_path / "new", tmp_path / "slow", section("dedup_near", Params, "boilerplate=null"), against=tmp_path / "settled")
    quick, slow = dropped(tmp_path / "quick"), dropped(tmp_path / "slow")
    known = [each for each in quick if each["evidence"]["kept_known"]]
    assert len(known) > 20
    assert {each["line"] for each in quick} == {each["line"] for each in slow}
    settled = {each["id"] for each in rows[:600]}
    assert {each["evidence"]["kept_id"] for each in known} <= settled


def test_sketches_of_other_rows_are_refused_and_of_other_settings_passed_over(tmp_path: Path) -> None:
    write_input(frame(mixed(17, 100)), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "settled")
    write_input(frame([chat(LONG, "Yes.")]), tmp_path / "new")
    metrics = stage.run(
        STAGE, tmp_path / "new", tmp_path / "a", section("dedup_near", Params, "compare=prompt"), against=tmp_path / "settled"
    )
    assert metrics["kept"] == 1
    path = tmp_path / "settled" / "sketches.parquet"
    pl.read_parquet(path).head(3).write_parquet(path)
    with pytest.raises(InputError, match="has 3 sketches for"):
        stage.run(STAGE, tmp_path / "new", tmp_path / "b", section("dedup_near", Params), against=tmp_path / "settled")
