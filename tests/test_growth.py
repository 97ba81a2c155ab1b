"""The growth table: its short rows, and a table over a stage that really runs."""

import sys
from itertools import islice
from pathlib import Path

import pytest

from bench import data, growth


def test_short_rows_are_seeded_differ_and_have_about_a_hundred_bytes() -> None:
    rows = list(growth.short(2000))
    assert rows == list(growth.short(2000))
    assert len(rows) == len(set(rows)) == 2000
    assert {len(row.split()) for row in rows} == {growth.WORDS}
    assert 80 < sum(map(len, rows)) / len(rows) < 120


def test_as_many_rows_as_asked_for_beyond_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "AT_ONCE", 30)
    assert len(list(growth.short(70))) == 70
    assert len(list(islice(growth.short(70), 31))) == 31


def test_a_table_with_one_line_for_each_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = data.make("short-50", growth.short(50), 50, tmp_path)
    monkeypatch.setattr(growth, "inputs", lambda rows, is_short: made.finery)
    monkeypatch.setattr(sys, "argv", ["growth", "50", "--short", "--stages", "dedup_exact", "split"])
    growth.main()
    lines = capsys.readouterr().out.split("\n")
    assert "50 rows" in lines
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(("| dedup_exact", "| split"))]
    assert [each[:3] for each in cells] == [["dedup_exact", "50", "50"], ["split", "50", "50"]]
    assert all(float(each[5].replace(",", "")) > 10 for each in cells)


def test_a_stage_that_fails_stops_the_table_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "inputs", lambda rows, is_short: tmp_path / "nothing")
    monkeypatch.setattr(sys, "argv", ["growth", "5", "--stages", "dedup_exact"])
    with pytest.raises(SystemExit, match=r"dedup_exact failed:[\s\S]*nothing"):
        growth.main()
