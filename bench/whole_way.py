"""`python -m bench.whole_way`: from the raw file to rows without near-duplicates, Finery against Data-Juicer; for docs/benchmarks.md.

Finery runs as a user runs it: five commands one after the other, start-ups included, from t0_55k as it was published to what
`dedup_near` keeps. Once with the repairs, filters and entities that Data-Juicer's recipe has too, once with everything in params.yaml.
Data-Juicer runs its recipe (bench/peers/recipe_data_juicer.py) as one process with a worker for each core. Every contestant runs once,
untimed, on a thousand rows; then they take turns, and medians count.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import polars as pl

from bench import data
from bench.environments import PEERS, prepare, why
from bench.measure import Measured, measure
from bench.near_dup import LIMIT, PAGE, WARM_ROWS, apart, version, write_section
from bench.peers.setting import THRESHOLD

STAGES = ("ingest", "clean", "dedup_exact", "scrub", "dedup_near")
PEER = next(peer for peer in PEERS if peer.name == "data_juicer")
SCRIPT = PEER.scripts / "recipe_data_juicer.py"
COMPARABLE = (  # what Data-Juicer's recipe does too, and nothing more
    "clean.repairs=[line_ends, encoding, control, invisible, nfc, trailing_space]",
    *(f"clean.{name}=false" for name in ("role_order", "no_preference")),
    *(f"clean.{name}=null" for name in ("refusal_max_words", "answer_copies_prompt", "cut_off_min_words", "languages")),
    "scrub.entities=[EMAIL_ADDRESS, IP_ADDRESS]",
)


@dataclass(frozen=True)
class Way:
    """One contestant; `overrides` are Finery's, and null for Data-Juicer."""

    name: str
    title: str
    setting: str
    overrides: tuple[str, ...] | None


WAYS = (
    Way("peer", PEER.title, "white space, Unicode, e-mail, IP, three filters, MinHash: 8 operators, a process for each core", None),
    Way("comparable", "Finery, the same recipe", "repairs without HTML, lengths and repetition, e-mail and IP, `dedup_near`", COMPARABLE),
    Way("all", "Finery, all of params.yaml", "every repair, filter, entity and secret", ()),
)


@dataclass
class Course:
    """What one contestant did: its runs, Finery's with the seconds of each stage, and the rows it kept; `failure` where it did not work."""

    way: Way
    runs: list[Measured] = field(default_factory=list)
    stages: list[list[float]] = field(default_factory=list)
    kept: int = 0
    failure: str = ""


def finery(raw: Path, scratch: Path, overrides: Sequence[str], limit: float) -> tuple[Measured, list[float], int]:
    """All stages as commands: (seconds together and highest memory of any, seconds of each, rows kept)."""
    before, runs = raw, list[Measured]()
    for stage in STAGES:
        given = [f"--set={each}" for each in (*overrides, f"dedup_near.threshold={THRESHOLD}")]
        run = measure([sys.executable, "-m", f"curate.{stage}", str(before), str(scratch / stage), *given], None, limit)
        runs.append(run)
        if run.error:
            break
        before = scratch / stage
    seconds = [run.seconds for run in runs]
    kept = 0 if runs[-1].error else int(json.loads((before / "metrics.json").read_text())["kept"])
    return Measured(sum(seconds), max(run.peak for run in runs), runs[-1].error), seconds, kept


def run_once(way: Way, python: Path, raw: Path, inputs: data.Inputs, limit: float) -> tuple[Measured, list[float], int]:
    """One run in a scratch folder of its own."""
    with tempfile.TemporaryDirectory(dir=inputs.folder) as scratch:
        if way.overrides is not None:
            return finery(raw, Path(scratch), way.overrides, limit)
        out = Path(scratch) / "out.parquet"
        run = measure([str(python), str(SCRIPT), str(inputs.peers), str(out)], apart(scratch), limit)
        if run.error or not out.exists():
            return Measured(run.seconds, run.peak, run.error or "it wrote nothing"), [], 0
        return run, [], pl.scan_parquet(out).select(pl.len()).collect().item()


def compete(raw: Path, inputs: data.Inputs, warm_raw: Path, warm: data.Inputs, repeat: int, limit: float) -> list[Course]:
    """Every contestant's runs, in turns."""
    courses = [Course(way) for way in WAYS]
    environment = prepare(PEER)
    for course in courses:
        if course.way.overrides is None and environment.python is None:
            course.failure = environment.reason
        else:
            run, _, _ = run_once(course.way, environment.python or Path(sys.executable), warm_raw, warm, limit)
            course.failure = f"failed: {why(run.error)}" if run.error else ""
        _say(f"{course.way.name}: {course.failure or 'ready'}")
    for turn, course in itertools.product(range(repeat), courses):
        if course.failure:
            continue
        run, seconds, course.kept = run_once(course.way, environment.python or Path(sys.executable), raw, inputs, limit)
        if run.error:
            course.failure = f"failed: {why(run.error)}"
        else:
            course.runs.append(run)
            course.stages.append(seconds)
        _say(f"{course.way.name}, run {turn + 1} of {repeat}: {course.failure or f'{run.seconds:.2f} s, {run.peak / 1e6:,.0f} MB'}")
    return courses


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(courses: Sequence[Course], rows: int) -> str:
    """The results as Markdown: totals, then seconds of each stage. Ratios are medians over the turns."""
    peer = next((course for course in courses if course.way.overrides is None and not course.failure), None)
    head = ["tool", "seconds (lowest to highest)", "rows/s", "Data-Juicer's time ÷ its time", "peak MB", "rows kept"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    worked = [course for course in courses if not course.failure]
    for course in worked:
        times = [run.seconds for run in course.runs]
        ratio = median(other.seconds / run.seconds for other, run in zip(peer.runs, course.runs, strict=True)) if peer else None
        cells = [f"{median(times):.1f} ({min(times):.1f} to {max(times):.1f})", f"{rows / median(times):,.0f}"]
        cells += ["–" if ratio is None else f"{ratio:.1f}", f"{median(run.peak for run in course.runs) / 1e6:,.0f}", f"{course.kept:,}"]
        lines.append(_line([course.way.title, *cells]))
    lines += ["", _line(["median seconds of", *STAGES]), _line(["---", *["---:"] * len(STAGES)])]
    for course in worked:
        if course.way.overrides is not None:
            lines.append(_line([course.way.title, *(f"{median(each):.2f}" for each in zip(*course.stages, strict=True))]))
    failed = [f"- {course.way.title}: {course.failure}" for course in courses if course.failure]
    return "\n".join([*lines, *(["", "Not measured:", "", *failed] if failed else [])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section(courses: Sequence[Course], rows: int, repeat: int) -> str:
    """What goes between the markers of docs/benchmarks.md: when and how it was measured, and the tables."""
    told = f"`python -m bench.whole_way`, {datetime.date.today().isoformat()}, Finery {version()}, Python {platform.python_version()}, "
    told += f"{os.cpu_count()} CPUs. {rows:,} rows; medians of {repeat}, in turns."
    settings = [f"- {course.way.title}: {course.way.setting}" for course in courses if not course.failure]
    return "\n".join([told, "", table(courses, rows), "", "Settings:", "", *settings])


def raw_folder(folder: Path, rows: int | None) -> Path:
    """A folder with t0_55k as published, or its first rows."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    there = raw / data.STANDARD.name
    if not there.exists():
        if rows is None:
            there.symlink_to(data.STANDARD.resolve())
        else:
            pl.read_parquet(data.STANDARD, n_rows=rows).write_parquet(there)
    return raw


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write them into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m bench.whole_way", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of each (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds after which a command is given up (default: %(default)s)")
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, default=True, help="write docs/benchmarks.md (default: yes)")
    options = parser.parse_args(arguments)
    if options.repeat < 1:
        parser.error("--repeat: expected 1 or more")
    texts = data.standard()
    inputs = data.make("t0_55k", iter(texts), len(texts))
    warm = data.make(f"t0-{WARM_ROWS}", iter(texts[:WARM_ROWS]), WARM_ROWS)
    courses = compete(raw_folder(inputs.folder, None), inputs, raw_folder(warm.folder, WARM_ROWS), warm, options.repeat, options.limit)
    text = section(courses, inputs.rows, options.repeat)
    print(f"\n{text}\n", flush=True)
    if options.write:
        write_section(PAGE, "t0", text, kind="whole_way")
        _say(f"written to {PAGE.name}")


if __name__ == "__main__":
    main()
