"""`make bench` (or `python -m bench [FILE]`): seconds, rows/s and peak memory of every curate stage on one raw file, as a Markdown table.

Each stage runs as the command a user would run, start-up included; memory is the highest sum over the process and its workers, sampled
every 50 ms. Without FILE it takes the public t0_55k.parquet where that is at hand.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from bench.measure import ROOT, measure
from curate.stages import STAGES

STANDARD = ROOT.parent / "shared" / "data" / "t0_55k.parquet"


def main() -> None:
    """Run the stages one after the other and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=STANDARD, help="raw file to curate (default: t0_55k.parquet)")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not options.file.exists():
        raise SystemExit(f"{options.file}: no such file. Name a raw file: python -m bench FILE")
    print(f"{options.file.name}, {options.workers} workers\n")
    print("| stage | rows in | kept | seconds | rows/s | peak MB |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "raw"
        before.mkdir()
        (before / options.file.name).symlink_to(options.file.resolve())
        for stage in STAGES[:-1]:  # format needs a base
            out = Path(scratch) / stage
            run = measure([sys.executable, "-m", f"curate.{stage}", str(before), str(out), "--workers", str(options.workers)])
            if run.error:
                raise SystemExit(f"{stage} failed:\n{run.error}")
            metrics = json.loads((out / "metrics.json").read_text())
            rows = metrics["rows_in"]
            print(
                f"| {stage} | {rows:,} | {metrics['kept']:,} | {run.seconds:.1f} | {rows / run.seconds:,.0f} | {run.peak / 1e6:,.0f} |",
                flush=True,
            )
            before = out


if __name__ == "__main__":
    main()
