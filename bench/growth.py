"""How time and memory of the curate stages grow: `python -m bench.growth ROWS… [--short] [--stages NAME…]`, as Markdown tables.

Rows are those of the near-duplicate benchmark: t0_55k, beyond its size with copies of which a fifth of the words is swapped (about 1 kB a
row). With --short they are drawn from a vocabulary with the frequencies of a language, 17 words and about 100 bytes a row, seeded. Each
stage runs as a command on what the stage before it kept; `ingest` is left out, since the rows are records already.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench import data
from bench.measure import measure

STAGES = ("clean", "dedup_exact", "scrub", "dedup_near", "decontaminate", "split", "leakage")
VOCABULARY, WORDS, AT_ONCE = 20_000, 17, 50_000


def short(rows: int) -> Iterator[str]:
    """Texts of 17 words each, whose frequencies fall with their rank as in a language (Zipf)."""
    draw = np.random.default_rng(data.SEED)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(draw.choice(letters, size=draw.integers(2, 9))) for _ in range(VOCABULARY)], dtype=object)
    share = 1 / np.arange(1, VOCABULARY + 1) ** 0.9
    share /= share.sum()
    for first in range(0, rows, AT_ONCE):
        chosen = words[draw.choice(VOCABULARY, size=(min(AT_ONCE, rows - first), WORDS), p=share)]
        yield from (" ".join(row) for row in chosen)


def inputs(rows: int, is_short: bool) -> Path:
    """The folder of record parts, made on first use."""
    if is_short:
        return data.make(f"short-{rows}", short(rows), rows).finery
    return data.make(f"grown-{rows}", data.enlarged(data.standard(), rows), rows).finery


def main() -> None:
    """One table for each number of rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("rows", nargs="+", type=int, help="numbers of rows, 1 or more")
    parser.add_argument("--short", action="store_true", help="rows of about 100 bytes instead of 1 kB")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    options = parser.parse_args()
    for rows in options.rows:
        before = inputs(rows, options.short)
        print(f"\n{rows:,} rows\n\n| stage | rows in | kept | seconds | rows/s | peak MB |\n|---|---:|---:|---:|---:|---:|")
        with tempfile.TemporaryDirectory() as scratch:
            for stage in options.stages:
                out = Path(scratch) / stage
                run = measure([sys.executable, "-m", f"curate.{stage}", str(before), str(out)])
                if run.error:
                    raise SystemExit(f"{stage} failed:\n{run.error}")
                made = json.loads((out / "metrics.json").read_text())
                figures = f"{made['rows_in']:,} | {made['kept']:,} | {run.seconds:.1f} | {made['rows_in'] / run.seconds:,.0f}"
                print(f"| {stage} | {figures} | {run.peak / 1e6:,.0f} |", flush=True)
                before = out


if __name__ == "__main__":
    main()
