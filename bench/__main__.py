"""`make bench` (or `python -m bench [FILE]`): seconds, rows/s and peak memory of every curate stage on one raw file, as a Markdown table.

Each stage runs as the command a user would run, start-up included; memory is the highest sum over the process and its workers, sampled
every 50 ms. Without FILE it takes the public t0_55k.parquet where that is at hand.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
STANDARD = ROOT.parent / "shared" / "data" / "t0_55k.parquet"
STAGES = ("ingest", "clean", "dedup_exact", "scrub", "dedup_near", "dedup_semantic", "decontaminate", "split", "augment", "leakage")


def measure(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a command and the highest sum of resident bytes of it and its children. Exits with its error if it fails."""
    start, peak = time.monotonic(), 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, resident(root))
            time.sleep(0.05)
        assert process.stderr is not None
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read()}")
    return time.monotonic() - start, peak


def resident(root: psutil.Process) -> int:
    """Resident bytes of a process and everything below it; processes that end meanwhile count nothing."""
    total = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


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
        for stage in STAGES:
            out = Path(scratch) / stage
            seconds, peak = measure([sys.executable, "-m", f"curate.{stage}", str(before), str(out), "--workers", str(options.workers)])
            metrics = json.loads((out / "metrics.json").read_text())
            rows = metrics["rows_in"]
            print(f"| {stage} | {rows:,} | {metrics['kept']:,} | {seconds:.1f} | {rows / seconds:,.0f} | {peak / 1e6:,.0f} |", flush=True)
            before = out


if __name__ == "__main__":
    main()
