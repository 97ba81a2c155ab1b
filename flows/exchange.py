"""Reviewing in another tool: rows of a queue out to Label Studio or Argilla, what people said there back into data/decisions.jsonl.

    python -m flows.exchange out FILE --tool label-studio|argilla [--queue NAME] [--most ROWS]
    python -m flows.exchange in FILE --tool label-studio|argilla [--person THEIRS=NAME]…

`out` writes FILE, and for Label Studio the labelling interface beside it (FILE with .xml). `in` can be repeated: what stands in the
decisions already is passed over. See docs/review.md.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate import decisions
from curate.decisions import Decision
from curate.pii.fresh import finder
from curate.record import FineryError, InputError, ParamsError
from curate.stage import guarded, say, write_whole
from flows.review import settings
from flows.reviewing import foreign
from flows.reviewing.api import Review
from flows.reviewing.foreign import Answer, Task
from flows.reviewing.rows import NOT_THERE

TOOLS = ("label-studio", "argilla")
SHOWN = 10  # answers that could not be taken, named


def tasks(review: Review, name: str, most: int) -> list[Task]:
    """The first `most` rows of a queue, each content once."""
    queue = review.queue(name, review.settings.reviewer)
    found: dict[str, Task] = {}
    for row, flag in zip(queue.rows.tolist(), queue.flags.tolist(), strict=True):
        told = review.flags.row(flag, named=True) if flag != NOT_THERE else {}
        record = review.rows.read(row)
        found.setdefault(record["id"], Task(record, str(told.get("detail") or ""), told.get("suggestion")))
        if len(found) == most:
            break
    return list(found.values())


def write_out(review: Review, options: argparse.Namespace) -> None:
    """FILE, and the interface for Label Studio."""
    made = tasks(review, options.queue, options.most)
    if not made:
        raise InputError(f"the queue '{options.queue}' is empty; nothing was written.")
    as_json = foreign.label_studio_tasks(made) if options.tool == "label-studio" else foreign.argilla_records(made)
    write_whole(options.file, orjson.dumps(as_json, option=orjson.OPT_INDENT_2) + b"\n")
    say(f"exchange: {len(made):,} rows of '{options.queue}' for {options.tool} -> {options.file}")
    if options.tool == "label-studio":
        interface = options.file.with_suffix(".xml")
        pairs = any(each.row["rejected"] for each in made)
        write_whole(interface, foreign.label_studio_interface(review.rows.labels, pairs).encode())
        say(f"exchange: the labelling interface -> {interface}")


@dataclass(frozen=True)
class Taken:
    """What became of the answers: counts, and why those that were refused could not be taken."""

    counts: Counter[str]
    refused: list[str]


def take_in(review: Review, answers: Sequence[Answer], people: dict[str, str], tool: str) -> Taken:
    """Write what is new to the decisions. An answer that cannot be taken keeps none of the others back."""
    counts: Counter[str] = Counter()
    refused: list[str] = []
    for answer in answers:
        try:
            counts[_take(review, answer, people.get(answer.person, answer.person), tool)] += 1
        except FineryError as error:
            refused.append(f"row {answer.id[:32]}, {answer.person}: {error}")
    return Taken(counts, refused)


def _take(review: Review, answer: Answer, reviewer: str, tool: str) -> str:
    number = int(review.rows.find(pl.Series([answer.id]))[0]) if len(answer.id) == 32 else NOT_THERE
    if number == NOT_THERE:
        raise InputError("no row has this id now: an earlier stage dropped it, or its raw row has changed or gone.")
    row = review.rows.read(number)
    if answer.seen != decisions.seen(row):
        raise InputError("the row has another content than the one that went out. Send it out again.")
    made = foreign.decided(answer, row)
    if made is None:
        return "said nothing"
    fields: dict[str, Any] = made | {
        "id": row["id"],
        "source": row["source"],
        "line": row["line"],
        "seen": answer.seen,
        "reviewer": reviewer,
    }
    decision = decisions.parse(fields | {"reason": tool} | ({"time": answer.time} if answer.time else {}))
    if any(_same(each, decision) for each in review.journal.of(row["id"])):
        return "known already"
    decisions.append(review.settings.decisions, decision, finder(row, review.settings.scrub))
    review.journal.refresh()
    return "taken"


def _same(one: Decision, other: Decision) -> bool:
    names = ("reviewer", "action", "label", "messages", "note", "reason", "seen")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def read_in(review: Review, options: argparse.Namespace) -> None:
    """FILE into the decisions; ends with an error that names what could not be taken, once all the rest is."""
    try:
        found = orjson.loads(options.file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{options.file}: no such file.") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{options.file}: not JSON ({error}).") from None
    read = foreign.label_studio_answers if options.tool == "label-studio" else foreign.argilla_answers
    try:
        answers = list(read(found))
    except InputError as error:
        raise InputError(f"{options.file}: {error} Nothing was written.") from None
    taken = take_in(review, answers, dict(options.person), options.tool)
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(taken.counts.items())) or "none taken"
    say(f"exchange: {len(answers):,} answers: {told} -> {review.settings.decisions}")
    if taken.refused:
        more = f"\n  … and {len(taken.refused) - SHOWN:,} more" if len(taken.refused) > SHOWN else ""
        raise InputError(f"{len(taken.refused):,} answers could not be taken:\n  " + "\n  ".join(taken.refused[:SHOWN]) + more)


def _pair(text: str) -> tuple[str, str]:
    theirs, _, name = text.partition("=")
    if not theirs or not name:
        raise argparse.ArgumentTypeError("expected THEIRS=NAME, such as 10=anna")
    return theirs, name


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.exchange", description="Review rows in Label Studio or Argilla.")
    parser.add_argument("way", choices=("out", "in"))
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--tool", choices=TOOLS, required=True)
    parser.add_argument("--queue", default="suspicious", metavar="NAME", help="out: suspicious, near, residual, random, all, label/<label>")
    parser.add_argument("--most", type=int, default=1000, metavar="ROWS", help="out: at most so many rows (default: %(default)s)")
    parser.add_argument(
        "--person", type=_pair, action="append", default=[], metavar="THEIRS=NAME", help="in: who a person of the tool is here"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the stages' outputs (default: %(default)s)"
    )
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="default: DIR/decisions.jsonl")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    options = parser.parse_args(arguments)

    def work() -> None:
        if options.most < 1:
            raise ParamsError("--most: expected 1 or more.")
        review = Review(settings(options.data, options.params, options.decisions))
        (write_out if options.way == "out" else read_in)(review, options)

    guarded("exchange", work)


if __name__ == "__main__":
    main()
