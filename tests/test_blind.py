"""Sheets for people: no system is named, the order is drawn, and what comes back from a spreadsheet is read or refused row by row."""

import csv
import io

import polars as pl
import pytest

from curate.record import InputError
from evaluate import blind, contests, spreadsheets
from tests.test_evaluate import byte_tokenizer, formatted, save_format

COUNT = 40


@pytest.fixture()
def evaluated(tmp_path):
    """Items of which the last two have the same answer from both systems; the tuned model says yes, the base no."""
    tokenizer = byte_tokenizer()
    tests = [formatted((f"=request {at}", "the reference", None), at, tokenizer) | {"id": f"id{at}"} for at in range(COUNT + 2)]
    save_format(tmp_path / "format", tests[:1], tests)
    rows = [
        {"item": at, "id": row["id"], "group": row["id"], "system": system, "output": f"{'same' if at >= COUNT else answer} {at}"}
        for system, answer in (("base", "no"), ("tuned", "yes"), ("few_shot", "maybe"))
        for at, row in enumerate(tests)
    ]
    (tmp_path / "out").mkdir()
    pl.DataFrame(rows).write_parquet(tmp_path / "out" / "items.parquet")
    return tmp_path


def sheet(root, *more):
    blind.main(["sheet", str(root / "out"), str(root / "format"), str(root / "sheet.csv"), *more])
    return [row for _, row in spreadsheets.read(root / "sheet.csv", blind.COLUMNS)]


def filled(root, rows, name="filled.csv", encoding="utf-8-sig", separator=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, blind.COLUMNS, delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    (root / name).write_bytes(text.getvalue().encode(encoding))
    return root / name


def test_nothing_in_the_sheet_says_whose_an_answer_is(evaluated, capsys):
    rows = sheet(evaluated)
    assert len(rows) == COUNT and "2 more have the same answer twice" in capsys.readouterr().err
    raw = (evaluated / "sheet.csv").read_text(encoding="utf-8-sig").lower()
    assert not any(word in raw for word in ("tuned", "base", "few", "system"))
    sides = [row["answer_1"].startswith("yes") for row in rows]
    assert COUNT / 4 < sum(sides) < 3 * COUNT / 4
    assert all({row["answer_1"].split()[0], row["answer_2"].split()[0]} == {"yes", "no"} for row in rows)
    assert rows[0]["request"].startswith("'=request") and rows[0]["reference"] == "the reference" and not rows[0]["winner"]
    assert all(not row["code"].isdigit() for row in rows) and len({row["code"] for row in rows}) == COUNT


@pytest.mark.parametrize(("encoding", "separator"), [("utf-8-sig", ","), ("utf-16", "\t"), ("cp1252", ";")])
def test_who_won_comes_back(evaluated, capsys, encoding, separator):
    rows = sheet(evaluated)
    for at, row in enumerate(rows):  # people like yes, but for four ties and one row left empty
        row["winner"] = "" if at == 7 else " TIE" if at < 4 else "1" if row["answer_1"].startswith("yes") else "2.0"
    path = filled(evaluated, rows, encoding=encoding, separator=separator)
    blind.main(["read", str(evaluated / "out"), str(path), str(evaluated / "labels.csv")])
    out = capsys.readouterr()
    assert "Tuned against base, by people: better. Won 35, lost 0, ties 4 of 39: win rate 94.9%" in out.out
    assert "1 rows have no winner, 0 are for other answers" in out.err
    found = contests.read_labels(evaluated / "labels.csv")
    assert len(found) == 39 and {winner for winner, _ in found.values()} == {"tuned", "tie"}
    (id_, against), (_, answers) = next(iter(found.items()))
    at = pl.read_parquet(evaluated / "out" / "items.parquet").filter((pl.col("id") == id_) & (pl.col("system") == "base"))["item"][0]
    assert against == "base" and answers == contests.answers_hash(f"yes {at}", f"no {at}")


def test_rows_for_other_answers_say_nothing(evaluated, capsys):
    rows = [row | {"winner": "1"} for row in sheet(evaluated)]
    path = filled(evaluated, rows)
    items = pl.read_parquet(evaluated / "out" / "items.parquet")
    changed = (pl.col("system") == "tuned") & (pl.col("item") < 10)  # trained again: ten answers are others
    items = items.with_columns(pl.when(changed).then(pl.lit("new ") + pl.col("output")).otherwise("output").alias("output"))
    items.write_parquet(evaluated / "out" / "items.parquet")
    found, counts = blind.read(evaluated / "out", path, "base")
    assert (len(found), counts["unknown"]) == (30, 10)
    with pytest.raises(InputError, match="no row counts: 0 have no winner, 40 are for other answers"):
        blind.read(evaluated / "out", path, "few_shot")


def test_faults_are_named_by_row(evaluated):
    rows = sheet(evaluated)
    rows[0]["winner"], rows[2]["winner"] = "left", "1"
    path = filled(evaluated, [*rows, rows[2]])
    with pytest.raises(InputError, match=r"row 2: winner 'left' is none of 1, 2, tie\n  row 42: code h\w+ stands in the sheet twice"):
        blind.read(evaluated / "out", path, "base")
    (evaluated / "book.csv").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(InputError, match="is a workbook of a spreadsheet"):
        blind.read(evaluated / "out", evaluated / "book.csv", "base")
    (evaluated / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no column 'code'"):
        blind.read(evaluated / "out", evaluated / "other.csv", "base")


def test_users_mistakes_are_told(evaluated, capsys):
    sheet(evaluated, "--items", "3", "--against", "few_shot")
    for arguments, told in (
        (["sheet", "out", "format", "sheet.csv"], "is there already, and may hold people's work"),
        (["sheet", "out", "format", "new.csv", "--against", "endpoint"], "It has those of base, few_shot"),
        (["sheet", "format", "format", "new.csv"], "Give the folder that evaluate wrote"),
        (["sheet", "out", "format", "new.csv", "--items", "0"], "--items: expected 1 or more"),
    ):
        words = [str(evaluated / each) if each in ("out", "format", "sheet.csv", "new.csv") else each for each in arguments]
        with pytest.raises(SystemExit) as stopped:
            blind.main(words)
        assert stopped.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "\n=1"])
def test_no_cell_is_a_formula(tmp_path, cell):
    spreadsheets.write(tmp_path / "a.csv", ["text"], [[cell]])
    assert spreadsheets.read(tmp_path / "a.csv", ["text"])[0][1]["text"].startswith("'")
