"""Exact duplicates: what counts as the same text, which row stays, and what is only reported."""

import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curate import stage
from curate.dedup_exact import STAGE, Params
from tests.helpers import chat, document, dropped, frame, preference, row, run_stage, section, write_input


def run(rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    write_input(frame(rows), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "out")
    return dropped(tmp_path / "out")


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (chat("Hello there", "Hi."), chat("  hello   THERE ", "hi.")),
        (chat("ﬁne", "ok"), chat("fine", "ok")),  # compatibility forms
        (chat("a\n\tb", "c"), chat("a b", "c")),
        (document("A page"), document("a  page\n")),
        (preference("q", "good", "bad"), preference("Q", "Good", "Bad")),
    ],
)
def test_same_after_folding(one: dict[str, Any], two: dict[str, Any], tmp_path: Path) -> None:
    gone = run([one, two], tmp_path)
    assert len(gone) == 1
    assert gone[0]["reason"] == "exact_duplicate"
    assert {gone[0]["line"], gone[0]["evidence"]["kept_line"]} == {1, 2}
    assert gone[0]["evidence"]["similarity"] == 1.0


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (chat("What is 12+35?", "47"), chat("What is 12*35?", "47")),
        (chat("Does it work?", "Yes."), chat("Does it work?", "No.")),
        (chat("ab", "c"), chat("a", "bc")),  # the border between turns counts
        (chat("q", "a", system="Be kind."), chat("q", "a", system="Be rude.")),
        (preference("q", "good", "bad"), preference("q", "good", "worse")),
        (chat("café", "x"), chat("cafe", "x")),
        (row("chat", chat("q", "a")["messages"]), preference("q", "a", "b")),
    ],
)
def test_not_the_same(one: dict[str, Any], two: dict[str, Any], tmp_path: Path) -> None:
    assert run([one, two], tmp_path) == []


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (chat("q", "a", label="x"), chat("Q", "A")),
        (chat("q", "one\n\n\ntwo"), chat("q", "one two")),  # folding hides lost white space
    ],
)
def test_the_better_row_stays_wherever_it_stands(better: dict[str, Any], worse: dict[str, Any], tmp_path: Path) -> None:
    for at, rows in enumerate(([better, worse], [worse, better])):
        assert [each["id"] for each in run(rows, tmp_path / str(at))] == [worse["id"]]


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (chat("Where is it?", "It is here.", line=1), chat("WHERE IS IT?", "IT IS HERE.", line=2), "one case"),
        (chat("Where is it?", "It is here.", line=1), chat("where is it?", "it is here.", line=2), "one case"),
        (chat("Where is it?", "It is here.", line=1), chat("Where  is it?", "It   is here.", line=2), "stray spaces"),
        (chat("Why?", "So:\n  a = 1\n  b = 2", line=1), chat("Why?", "So: a = 1 b = 2", line=2), "more white space"),
        (chat("Why?", "| a   | b |\n| c   | d |", line=1), chat("Why?", "| a | b | | c | d |", line=2), "more white space"),
        (chat("Q", "A", label="x", line=2, source="z.csv"), chat("Q", "A", line=1, source="a.csv"), "a label"),
        (chat("Q", "A", line=2, source="z.csv"), chat("Q", "A", line=1, source="b.csv"), "trusted more"),
    ],
)
def test_what_is_written_well_stays_and_the_evidence_says_why(
    better: dict[str, Any], worse: dict[str, Any], why: str, tmp_path: Path
) -> None:
    for at, rows in enumerate(([better, worse], [worse, better])):
        write_input(frame(rows), tmp_path / str(at) / "in")
        stage.run(STAGE, tmp_path / str(at) / "in", tmp_path / str(at) / "out", section("dedup_exact", Params, "sources=[z*, y*]"))
        [gone] = dropped(tmp_path / str(at) / "out")
        assert gone["line"] == worse["line"] and why in gone["evidence"]["stays_because"] and why in gone["detail"]


def test_identical_rows_leave_the_first_by_file_and_line(tmp_path: Path) -> None:
    rows = [chat("q", "a", source=name, line=line) for name, line in (("b", 1), ("a", 9), ("a", 2))]
    gone = run(rows, tmp_path)
    assert {(each["source"], each["line"]) for each in gone} == {("b", 1), ("a", 9)}
    assert all((each["evidence"]["kept_source"], each["evidence"]["kept_line"]) == ("a", 2) for each in gone)


def test_conflicts_are_listed_and_kept(tmp_path: Path) -> None:
    rows = [chat("Is it on?", "Yes."), chat("is it  on?", "No."), chat("Other", "Yes."), chat("Is it on?", "yes.")]
    gone = run(rows, tmp_path)
    conflicts = pl.read_parquet(tmp_path / "out" / "conflicts.parquet")
    left = {1, 2, 4} - {each["line"] for each in gone}
    assert len(gone) == 1
    assert set(conflicts["line"].to_list()) == left
    assert conflicts["conflict"].n_unique() == 1


def test_rows_without_prompt_are_no_conflict(tmp_path: Path) -> None:
    assert run([document("one"), document("two")], tmp_path) == []
    assert pl.read_parquet(tmp_path / "out" / "conflicts.parquet").height == 0


def test_order_of_the_input_does_not_change_what_goes(tmp_path: Path) -> None:
    draw = random.Random(1)
    rows = [chat(draw.choice("ab "), draw.choice("xyXY"), label=draw.choice([None, "l"]), line=at) for at in range(1, 200)]
    found = []
    for name, some in (("a", rows), ("b", draw.sample(rows, len(rows)))):
        run(some, tmp_path / name)
        found.append(pl.read_parquet(tmp_path / name / "out" / "dropped.parquet").sort("line"))
    assert found[0].equals(found[1])
    assert found[0].height > 150


def test_rows_settled_already_are_compared_with_and_never_dropped(tmp_path: Path) -> None:
    write_input(frame([chat("q", "a"), chat("Q", "A")]), tmp_path / "settled")
    write_input(frame([chat("q ", "a", label="x", source="new"), chat("r", "a", source="new")]), tmp_path / "new")
    stage.run(STAGE, tmp_path / "new", tmp_path / "out", section("dedup_exact", Params), against=tmp_path / "settled")
    gone = dropped(tmp_path / "out")
    assert [(each["source"], each["line"]) for each in gone] == [("new", 1)]
    assert gone[0]["evidence"]["kept_known"] is True
