"""Near-duplicates: the result is the exact greedy, names its evidence, and does not depend on how the input lies."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from curate import dedup_near, greedy, minhash, record, stage, store
from curate.dedup_near import STAGE, Params, explain
from curate.preference import compared
from curate.record import InputError, ParamsError
from tests.helpers import ROOT, SHARED, chat, dropped, frame, preference, row, run_stage, section, write_input
from tests.test_minhash import plain_jaccard, sets_of, variants

LONG = "Please send me the bill of last month again, the one with the two credits for the missed engineer on it."


def run(rows: list[dict[str, Any]], tmp_path: Path, *overrides: str, workers: int = 1) -> list[dict[str, Any]]:
    write_input(frame(rows), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "out", *overrides, workers=workers)
    return dropped(tmp_path / "out")


def kept_lines(out: Path) -> list[int]:
    return pl.concat([pl.read_parquet(path) for path in sorted((out / "kept").glob("*.parquet"))])["line"].to_list()


def mixed(seed: int, count: int = 700) -> list[dict[str, Any]]:
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


def plain_greedy(rows: list[dict[str, Any]], threshold: float) -> set[int]:
    """Lines that an exact greedy keep-first drops, one row at a time, in the documented order."""
    sets = sets_of(compared(frame(rows), "both").to_list())

    def rank(at: int) -> tuple[Any, ...]:
        answer = rows[at]["messages"][-1]["content"].rstrip()
        cut_off = len(answer.split()) > 10 and not answer.endswith((".", "!"))
        return ("synthetic" in rows[at]["meta"], rows[at]["label"] is None, cut_off, -len(answer), rows[at]["id"], "", rows[at]["line"])

    kept: list[int] = []
    for at in sorted(range(len(rows)), key=rank):
        if not any(plain_jaccard(sets[at], sets[other]) >= threshold for other in kept):
            kept.append(at)
    return {rows[at]["line"] for at in set(range(len(rows))) - set(kept)}


@pytest.mark.parametrize(("threshold", "rows_at_once"), [(0.8, 1024), (0.8, 13), (0.6, 100)])
def test_drops_are_those_of_an_exact_greedy(threshold: float, rows_at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "ROWS", rows_at_once)
    monkeypatch.setattr(greedy, "EXPANDED", 50)
    rows = mixed(11)
    gone = run(rows, tmp_path, f"threshold={threshold}", "near_miss=0.5")
    assert {each["line"] for each in gone} == plain_greedy(rows, threshold)
    assert 100 < len(gone) < 600


def test_every_drop_names_a_kept_row_that_is_as_similar_as_it_says(tmp_path: Path) -> None:
    rows = mixed(12)
    gone = run(rows, tmp_path)
    sets = dict(zip((each["line"] for each in rows), sets_of(compared(frame(rows), "both").to_list()), strict=True))
    kept = set(kept_lines(tmp_path / "out"))
    by_line = {each["line"]: each for each in rows}
    for each in gone:
        proof = each["evidence"]
        assert proof["kept_line"] in kept
        assert proof["kept_id"] == by_line[proof["kept_line"]]["id"]
        assert proof["similarity"] == pytest.approx(plain_jaccard(sets[each["line"]], sets[proof["kept_line"]]), abs=5e-5)
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
def test_guarantee_on_real_prompts_by_sparse_matrix(tmp_path: Path) -> None:
    """Every drop is as similar to its kept row as said, and at most 0.1 % of kept rows have a kept neighbour at the threshold.

    FINERY_T0_ROWS sets the size of the sample.
    """
    size = int(os.environ.get("FINERY_T0_ROWS", "800"))
    sample = pl.read_parquet(SHARED / "t0_55k.parquet").fill_null("").gather_every(max(55_000 // size, 1)).head(size)
    rows = [chat(*turns, line=at) for at, turns in enumerate(sample.select("prompt", "completion").iter_rows(), 1)]
    gone = run(rows, tmp_path)
    shared, sizes = shared_shingles(compared(frame(rows), "both").to_list())
    union = sizes[:, None] + sizes[None, :] - shared
    similarity = shared / np.maximum(union, 1)
    for each in gone:
        found = similarity[each["line"] - 1, each["evidence"]["kept_line"] - 1]
        assert found >= 0.8
        assert found == pytest.approx(each["evidence"]["similarity"], abs=5e-5)
    kept = np.array(kept_lines(tmp_path / "out")) - 1
    near = np.triu(similarity[np.ix_(kept, kept)] >= 0.8, 1)
    assert len(gone) > size / 40
    assert len(set(np.argwhere(near).ravel().tolist())) <= len(kept) / 1000


def shared_shingles(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """How many 5-grams each two texts share, and how many each has, from a text by 5-gram matrix."""
    number: dict[str, int] = {}
    columns = [[number.setdefault(each, len(number)) for each in some] for some in sets_of(texts)]
    sizes = np.array([len(each) for each in columns])
    starts = np.concatenate(([0], np.cumsum(sizes)))
    flat = np.fromiter((at for each in columns for at in each), dtype=np.int64, count=int(starts[-1]))
    matrix = csr_matrix((np.ones(len(flat), dtype=np.int32), flat, starts), shape=(len(texts), len(number)))
    return (matrix @ matrix.T).toarray(), sizes


def test_chains_do_not_merge(tmp_path: Path) -> None:
    words = [f"word{at:03d}" for at in range(60)]
    chain = [" ".join(words[at : at + 40]) for at in range(0, 21, 3)]  # each resembles the next, the ends do not resemble each other
    gone = run([chat(text, line=at) for at, text in enumerate(chain, 1)], tmp_path)
    lines = {each["line"] for each in gone}
    assert lines
    assert len(lines) < len(chain) - 1
    assert not lines & {each["evidence"]["kept_line"] for each in gone}


def test_short_questions_and_long_documents(tmp_path: Path) -> None:
    page = " ".join(variants(30, 21))
    rows = [
        chat("Where is my parcel?", "Here."),
        chat("Where is my parcel?", "Here!"),
        chat("Where is my pen?", "There."),
        chat("a", "b"),
        chat("a", "c"),
        chat(page * 3, "Yes."),
        chat(page * 3 + " And thanks.", "Yes."),
    ]
    assert sorted(each["line"] for each in run(rows, tmp_path)) in ([1, 6], [2, 6], [1, 7], [2, 7])


def test_rows_without_text_are_never_duplicates(tmp_path: Path) -> None:
    assert run([chat("", ""), chat("", ""), chat(" ", "")], tmp_path) == []


@pytest.mark.parametrize(
    ("better", "worse", "prefer"),
    [
        (row("chat", chat(LONG, "Yes.")["messages"]), row("chat", chat(LONG, "Yes, it is.")["messages"], meta={"synthetic": {}}), "human"),
        (chat(LONG, "Yes.", label="bill"), chat(LONG, "Yes, it is."), "labelled"),
        (
            chat(LONG * 3, "I have sent it to you a minute ago, look there."),
            chat(LONG * 3, "I have sent it to you a minute ago, look there now please and"),
            "complete",
        ),
        (chat(LONG, "Yes, it is."), chat(LONG, "Yes."), "longer"),
    ],
)
def test_the_better_row_stays_wherever_it_stands(better: dict[str, Any], worse: dict[str, Any], prefer: str, tmp_path: Path) -> None:
    for at, rows in enumerate(([better, worse], [worse, better])):
        gone = run(rows, tmp_path / str(at), f"prefer=[{prefer}]")
        assert [each["id"] for each in gone] == [worse["id"]]
        assert gone[0]["evidence"]["label_differs"] == (better["label"] != worse["label"])


def test_rows_settled_already_always_stay(tmp_path: Path) -> None:
    write_input(frame([chat(LONG, "Yes."), chat(LONG, "Yes!")]), tmp_path / "settled")
    write_input(frame([chat(LONG, "Yes, it is.", source="new.jsonl"), chat("Something else", source="new.jsonl")]), tmp_path / "new")
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
    rows = [chat(LONG * 2, f"Ticket {at}", line=at) for at in range(1, 3001)]
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
    assert (pairs.filter(~pl.col("dropped"))["similarity"] < 0.8).all()
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
    told = explain(folder, rows[0]["id"], rows[1]["id"], "both")
    assert told.startswith("similarity 0.3333: 2 shingles shared, 2 and 2 not")
    assert "'defgh'" in told
    with pytest.raises(InputError, match="no row has id 'nowhere'"):
        explain(folder, "nowhere", rows[1]["id"], "both")
    command = [sys.executable, "-m", "curate.dedup_near", "--explain", str(folder), rows[0]["id"], rows[1]["id"]]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.startswith("similarity 0.3333")


def test_sieve_loses_nothing_that_sizes_allow() -> None:
    texts = variants(200, 15)
    made = minhash.shingles(pl.Series(texts))
    sketch = minhash.Sketch.of(made, (18, 5), 128)
    a, b = np.triu_indices(len(texts), 1)
    near = minhash.jaccard(made, a, b) >= 0.8
    passed = minhash.sieve(sketch.bits, sketch.sizes, a, b, 0.8, minhash.least_agreement(0.8, 128))
    assert near.sum() > 50
    assert passed[near].all()
    assert passed.sum() < len(a) / 10
