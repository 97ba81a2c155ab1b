"""A sheet for people who do not know which system wrote what, and back: who won, by people alone, and labels to hold a judge against.

`python -m evaluate.blind sheet EVALUATED FORMAT SHEET.csv` writes a row an item with two answers; people write 1, 2 or tie into `winner`.
`python -m evaluate.blind read EVALUATED SHEET.csv LABELS.csv` says who won and writes the labels that `evaluate.judge.labels` takes.

Which answer stands first is drawn by a hash, item by item, and is written nowhere: the code of a row is made of the item, the order and
both answers, so whoever has EVALUATED (data/evaluate) finds the order again, and sees where the answers are no longer those of the sheet.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from curate.record import InputError
from curate.stage import guarded, say
from evaluate import contests, holdout, originals, spreadsheets
from evaluate.contests import TIE, TUNED

COLUMNS = ("code", "request", "answer_1", "answer_2", "winner", "reference")
VERDICTS = {"1": 0, "2": 1, "1.0": 0, "2.0": 1, "tie": None, "=": None, "'=": None}  # 1.0: a spreadsheet's number; '=: harmless()
RESAMPLES, SEED = 10_000, 20261126


@dataclass(frozen=True)
class Contest:
    """An item with the tuned model's answer and another's, which differ; `group` as in items.parquet."""

    id: str
    group: str
    tuned: str
    other: str


def contests_of(evaluated: Path, against: str) -> tuple[list[Contest], int]:
    """The items that both systems answered, in an order by hash, and how many more have the same answer twice.

    Raises InputError if the folder is no evaluation, or the system is not in it.
    """
    path = evaluated / "items.parquet"
    columns = ["item", "id", "group", "system", "output"]
    if not path.is_file() or not set(columns) <= set(pl.read_parquet_schema(path)):
        raise InputError(f"{path}: no answers there. Give the folder that evaluate wrote (data/evaluate).")
    rows = pl.read_parquet(path, columns=columns).filter(pl.col("output").is_not_null())
    others = sorted(set(rows["system"]) - {TUNED})
    if against not in others:
        raise InputError(f"--against {against}: no answers of it in {evaluated}. It has those of {', '.join(others) or 'no other system'}.")
    both = rows.filter(pl.col("system") == TUNED).join(rows.filter(pl.col("system") == against), on="item", suffix="_other")
    once = both.sort("item").unique("id", keep="first").select("id", "group", "output", "output_other")
    found = sorted((Contest(*each) for each in once.iter_rows()), key=lambda each: (holdout.hashed(each.id), each.id))
    found = [each for each in found if not originals.is_hidden(each.tuned) and not originals.is_hidden(each.other)]
    differ = [each for each in found if each.tuned != each.other]
    return differ, len(found) - len(differ)


def code(contest: Contest, against: str, tuned_first: bool) -> str:
    """Of a row. It begins with a letter: no spreadsheet takes it for a number."""
    first, second = (contest.tuned, contest.other) if tuned_first else (contest.other, contest.tuned)
    return contests.answers_hash(contest.id, against, first, second)


def tuned_first(contest: Contest, against: str) -> bool:
    """Which side the tuned model's answer stands on: even odds, and others after another training."""
    return holdout.hashed("\0".join(("side", contest.id, against, contest.tuned, contest.other))) % 2 == 0


def sheet(evaluated: Path, format_dir: Path, path: Path, against: str, most: int) -> int:
    """Writes the sheet; returns how many rows it has. Raises InputError as `contests_of`, or if no two answers differ."""
    found, same = contests_of(evaluated, against)
    items = {item.id: item for item in holdout.read(format_dir, None)[0]}
    missing = [each.id for each in found if each.id not in items]
    if missing:
        raise InputError(f"{format_dir}: has no test row {missing[0]}, which {evaluated} was made of. Give the folder it was made from.")
    if not found:
        raise InputError(
            f"{evaluated}: no item has two different answers of {TUNED} and {against} ({same} have the same): nothing to judge."
        )
    rows = []
    for each in found[:most]:
        first = tuned_first(each, against)
        answers = (each.tuned, each.other) if first else (each.other, each.tuned)
        item = items[each.id]
        rows.append([code(each, against, first), item.prompt, *answers, "", item.answer])
    spreadsheets.write(path, COLUMNS, rows)
    say(f"{path}: {len(rows)} items of {len(found)} whose answers differ ({same} more have the same answer twice).")
    say("Write 1, 2 or tie into the column winner; leave it empty where you cannot tell. Keep the column code as it is.")
    return len(rows)


def read(evaluated: Path, path: Path, against: str) -> tuple[dict[str, str], Counter[str]]:
    """By item id who won (`tuned`, the other system, or `tie`), and counts of rows left empty, and of rows for other answers than these.

    Raises InputError that names the rows at fault.
    """
    sides = {code(each, against, first): (each.id, first) for each in contests_of(evaluated, against)[0] for first in (True, False)}
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    faults = []
    for number, row in spreadsheets.read(path, ("code", "winner")):
        said, row_code = row["winner"].strip().lower(), row["code"].strip()
        if not said:
            counts["empty"] += 1
        elif row_code not in sides:
            counts["unknown"] += 1
        elif said not in VERDICTS:
            faults.append(f"row {number}: winner '{said[:40]}' is none of 1, 2, tie")
        elif sides[row_code][0] in found:
            faults.append(f"row {number}: code {row_code} stands in the sheet twice")
        else:
            (id_, first), won = sides[row_code], VERDICTS[said]
            found[id_] = TIE if won is None else TUNED if (won == 0) == first else against
    contests.refuse(path, faults)
    if not found:
        raise InputError(
            f"{path}: no row counts: {counts['empty']} have no winner, {counts['unknown']} are for other answers than those of {evaluated} "
            f"against {against}. Fill in the column winner, or give the evaluation that the sheet was made from."
        )
    return found, counts


def labels(evaluated: Path, path: Path, out: Path, against: str) -> None:
    """Reads the sheet, writes the labels and says who won."""
    found, counts = read(evaluated, path, against)
    known = {each.id: each for each in contests_of(evaluated, against)[0]}
    contests.write_labels(
        out, ((id_, against, winner, contests.answers_hash(known[id_].tuned, known[id_].other)) for id_, winner in found.items())
    )
    won = contests.win_rate(list(found.values()), against, [known[id_].group for id_ in found], SEED, RESAMPLES)
    rate = won["win_rate"]
    print(
        f"Tuned against {against}, by people: {won['verdict']}. Won {won['wins']}, lost {won['losses']}, ties {won['ties']} "
        f"of {won['items']}: win rate {rate['value']:.1%} (95 % interval {rate['low']:.1%} to {rate['high']:.1%}, "
        f"p = {won['p']:.2g}). Labels: {out}"
    )
    if counts["empty"] or counts["unknown"]:
        say(
            f"{path}: {counts['empty']} rows have no winner, {counts['unknown']} are for other answers than those in {evaluated}: left out."
        )


def main(arguments: list[str] | None = None) -> None:
    """`python -m evaluate.blind sheet|read …`."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluate.blind", description="Have people judge answers without knowing whose they are."
    )
    ways = parser.add_subparsers(dest="way", required=True)
    write, back = ways.add_parser("sheet", help="write a sheet of answers"), ways.add_parser("read", help="read a filled-in sheet")
    for each in (write, back):
        each.add_argument("evaluated", type=Path, metavar="EVALUATED", help="what evaluate wrote (data/evaluate)")
        each.add_argument("--against", default="base", metavar="SYSTEM", help="the system beside tuned (default: %(default)s)")
    write.add_argument("format", type=Path, metavar="FORMAT", help="what the evaluation was made from (data/format)")
    write.add_argument("--items", type=int, default=100, metavar="N", help="rows at most (default: %(default)s)")
    for each in (write, back):
        each.add_argument("sheet", type=Path, metavar="SHEET.csv")
    back.add_argument("labels", type=Path, metavar="LABELS.csv", help="for evaluate.judge.labels")
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.way == "read":
            labels(options.evaluated, options.sheet, options.labels, options.against)
        elif options.items < 1:
            raise InputError("--items: expected 1 or more.")
        elif options.sheet.exists():
            raise InputError(f"{options.sheet}: is there already, and may hold people's work. Move it away or give another name.")
        else:
            sheet(options.evaluated, options.format, options.sheet, options.against, options.items)

    guarded("blind", work)


if __name__ == "__main__":
    main()
