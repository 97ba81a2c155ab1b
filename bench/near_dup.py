"""`python -m bench.near_dup`: Finery's near-duplicate search against its peers, on the same rows, as a table for docs/benchmarks.md.

What is timed is a whole process, start-up included: read parquet, write parquet of the kept rows (Finery also writes the dropped rows with
their evidence, and checks each exactly). Every tool first runs once, untimed, on a thousand rows: caches of compiled code are then there,
and a tool that does not work here is told without spoiling the rest. After that they take turns, and medians count.
"""

import argparse
import datetime
import itertools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from bench import data, truth
from bench.environments import PEERS, Environment, Peer, prepare, why
from bench.measure import ROOT, Measured, measure
from bench.peers.setting import THRESHOLD, WORDS

PAGE = ROOT / "docs" / "benchmarks.md"
SETS = {"t0": ("t0_55k", None), "500k": ("t0_55k enlarged", 500_000)}
AT_500K = ("finery", "rensa", "datasketch")  # the others take many minutes a run there: name them with --only
FINERY = Peer("finery", "Finery", f"threshold {THRESHOLD}, the rest as in params.yaml, every drop checked")
WARM_ROWS = 1000
LIMIT = 1800  # seconds after which a run is given up


@dataclass
class Result:
    """What one tool did: its runs, and of the last one what it kept; `failure` instead where it did not work."""

    peer: Peer
    runs: list[Measured] = field(default_factory=list)
    kept: np.ndarray | None = None  # one bool a row
    failure: str = ""


def command(peer: Peer, python: Path, inputs: data.Inputs, out: Path) -> list[str]:
    """The command that is timed. Peers write the file `out`, Finery the folder."""
    if peer is FINERY:
        overrides = ["-S", f"dedup_near.threshold={THRESHOLD}"]
        return [str(python), "-m", "curate.dedup_near", str(inputs.finery), str(out), *overrides]
    return [str(python), str(peer.script), str(inputs.peers), str(out)]


def run_once(peer: Peer, python: Path, inputs: data.Inputs, limit: float) -> tuple[Measured, np.ndarray | None]:
    """One run in a scratch folder of its own, so that no tool finds what an earlier run cached; and which rows it kept."""
    with tempfile.TemporaryDirectory(dir=inputs.folder) as scratch:
        out = Path(scratch) / ("out" if peer is FINERY else "out.parquet")
        run = measure(command(peer, python, inputs, out), None if peer is FINERY else apart(scratch), limit)
        if run.error:
            return run, None
        try:
            return run, kept_rows(out, inputs.rows)
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            return Measured(run.seconds, run.peak, f"its output is of no use: {error}"), None


def apart(scratch: str) -> dict[str, str]:
    """Variables that keep a peer to itself: caches in `scratch`, nothing fetched while it is timed."""
    caches = dict.fromkeys(("HF_HOME", "TMPDIR", "XDG_CACHE_HOME", "DATA_JUICER_CACHE_HOME"), scratch)
    return {**caches, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONNOUSERSITE": "1"}


def kept_rows(out: Path, rows: int) -> np.ndarray:
    """Which rows are in a tool's output, by id. Raises ValueError for ids that were not in the input, or more than once."""
    files = sorted((out / "kept").rglob("*.parquet")) if out.is_dir() else [out]
    ids = pl.concat([pl.read_parquet(path, columns=["id"]) for path in files])["id"]
    position = {data.row_id(row): row for row in range(rows)}
    kept = np.zeros(rows, dtype=bool)
    try:
        kept[[position[each] for each in ids]] = True
    except KeyError as error:
        raise ValueError(f"id {error} was not in the input") from None
    if int(kept.sum()) != len(ids):
        raise ValueError("an id occurs more than once")
    return kept


def compete(peers: Sequence[Peer], inputs: data.Inputs, warm: data.Inputs, repeat: int, limit: float) -> list[Result]:
    """Every peer's runs, in turns."""
    results = [Result(peer) for peer in peers]
    pythons: dict[str, Path] = {}
    for result in results:
        name = result.peer.name
        environment = Environment(Path(sys.executable)) if result.peer is FINERY else prepare(result.peer)
        if environment.python is None:
            result.failure = environment.reason
        else:
            pythons[name] = environment.python
            run, _ = run_once(result.peer, environment.python, warm, limit)
            result.failure = f"failed: {why(run.error)}" if run.error else ""
        _say(f"{name}: {result.failure or 'ready'}")
    for turn, result in itertools.product(range(repeat), results):
        if result.failure:
            continue
        run, kept = run_once(result.peer, pythons[result.peer.name], inputs, limit)
        if kept is None:
            result.failure = f"failed: {why(run.error)}"
        else:
            result.runs.append(run)
            result.kept = kept
        _say(f"{result.peer.name}, run {turn + 1} of {repeat}: {result.failure or f'{run.seconds:.2f} s, {run.peak / 1e6:,.0f} MB'}")
    return results


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(results: Sequence[Result], pairs: pl.DataFrame | None) -> str:
    """The results as Markdown. Without true pairs, the columns that need them are left out. Tools that did not work follow as a list."""
    worked = [result for result in results if not result.failure and result.kept is not None]
    own = next((_seconds(result) for result in worked if result.peer is FINERY), None)
    head = ["tool", "seconds (lowest to highest)", "docs/s", "time ÷ Finery's", "peak MB", "rows dropped"]
    judged = [f"pairs ≥ {THRESHOLD} left", "kept rows in such a pair", f"dropped, no kept row ≥ {THRESHOLD}", f"… nor ≥ {truth.FLOOR}"]
    head += judged if pairs is not None else []
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for result in worked:
        assert result.kept is not None
        times, count = [run.seconds for run in result.runs], len(result.kept)
        cells = [
            result.peer.title,
            f"{_seconds(result):.2f} ({min(times):.2f} to {max(times):.2f})",
            f"{count / _seconds(result):,.0f}",
            f"{_seconds(result) / own:.2f}" if own else "–",
            f"{median(run.peak for run in result.runs) / 1e6:,.0f}",
            f"{int((~result.kept).sum()):,}",
        ]
        if pairs is not None:
            found = truth.judge(pairs, result.kept, THRESHOLD)
            cells += [f"{each:,}" for each in (found.left, found.kept_with_twin, found.unfounded, found.unfounded_floor)]
        lines.append(_line(cells))
    failed = [f"- {result.peer.title}: {result.failure}" for result in results if result.failure]
    return "\n".join([*lines, *(["", "Not measured:", "", *failed] if failed else [])])


def _seconds(result: Result) -> float:
    return median(run.seconds for run in result.runs)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section(name: str, results: Sequence[Result], inputs: data.Inputs, pairs: pl.DataFrame | None, repeat: int) -> str:
    """What goes between the markers of docs/benchmarks.md: when and how it was measured, and the table."""
    size = sum(path.stat().st_size for path in inputs.peers.glob("*.parquet"))
    text = int(inputs.texts()["text"].str.len_bytes().sum())
    versions = f"Finery {version()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    told = f"`python -m bench.near_dup --rows {name}`, {datetime.date.today().isoformat()}, {versions}."
    rows = f"{inputs.rows:,} rows, {text / 1e6:,.0f} MB of text ({size / 1e6:,.0f} MB of parquet); medians of {repeat}, in turns."
    true = "" if pairs is None else f" Exact truth over word {WORDS}-grams: {_alike(pairs):,} pairs ≥ {THRESHOLD}."
    settings = [f"- {result.peer.title}: {result.peer.setting}" for result in results if not result.failure]
    return "\n".join([told, rows + true, "", table(results, pairs), "", "Settings:", "", *settings])


def _alike(pairs: pl.DataFrame) -> int:
    return int((pairs["similarity"] >= np.float32(THRESHOLD)).sum())


def version() -> str:
    """Finery's version, and the commit where git can tell it."""
    number = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
    git = shutil.which("git")
    done = subprocess.run([git, "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False) if git else None
    return f"{number} ({done.stdout.strip()})" if done and not done.returncode else number


def write_section(page: Path, name: str, text: str, kind: str = "near_dup") -> None:
    """Replace what stands between the markers of `kind` and `name` on the page. Raises SystemExit if they are not there."""
    start, end = f"<!-- {kind} {name} -->", f"<!-- end {kind} {name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{page}: the markers {start} and {end} are not there. Put them where the table belongs.")
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def inputs_of(name: str) -> data.Inputs:
    """The rows of a set: t0, 500k, or a number of rows of t0 (enlarged beyond its size)."""
    folder, rows = SETS[name] if name in SETS else (f"t0 {name}", int(name))
    texts = data.standard()
    count = rows or len(texts)
    _say(f"{folder}: {count:,} rows")
    return data.make(folder.replace(" ", "-"), data.enlarged(texts, count), count)


def _set_name(text: str) -> str:
    if text not in SETS and not (text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text}: expected {', '.join(SETS)} or a number of rows")
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables and write them into docs/benchmarks.md."""
    names = [FINERY.name, *(peer.name for peer in PEERS)]
    parser = argparse.ArgumentParser(prog="python -m bench.near_dup", description=__doc__)
    parser.add_argument("--rows", nargs="+", type=_set_name, default=["t0", "500k"], metavar="SET", help="t0, 500k, or a number of rows")
    parser.add_argument("--only", metavar="TOOLS", help=f"of {','.join(names)} (default: all; at 500k: {','.join(AT_500K)})")
    parser.add_argument("--repeat", type=int, default=3, help="timed runs of each tool (default: %(default)s)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds after which a run is given up (default: %(default)s)")
    parser.add_argument("--no-truth", action="store_true", help="do not compare with exact truth")
    parser.add_argument(
        "--write", action=argparse.BooleanOptionalAction, help="write docs/benchmarks.md (default: for t0 and 500k without --only)"
    )
    options = parser.parse_args(arguments)
    only = options.only.split(",") if options.only else None
    if only and not set(only) <= set(names):
        parser.error(f"--only {options.only}: expected some of {','.join(names)}")
    if options.repeat < 1:
        parser.error("--repeat: expected 1 or more")
    for name in options.rows:
        chosen = only or (AT_500K if name == "500k" else names)
        inputs, warm = inputs_of(name), inputs_of(str(WARM_ROWS))
        small = inputs.rows <= 100_000  # the exact pairs of more rows take too long, and too much memory
        pairs = truth.cached_pairs(inputs.texts()["text"], inputs.folder / "truth.parquet") if small and not options.no_truth else None
        results = compete([peer for peer in (FINERY, *PEERS) if peer.name in chosen], inputs, warm, options.repeat, options.limit)
        text = section(name, results, inputs, pairs, options.repeat)
        print(f"\n## {name}\n\n{text}\n", flush=True)
        if name in SETS and (options.write if options.write is not None else only is None):
            write_section(PAGE, name, text)
            _say(f"written to {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
