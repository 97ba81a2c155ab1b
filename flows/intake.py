"""New raw files, curated beside the current dataset: what would they add, and what not, and why.

    python -m flows.intake FILE… [--out DIR] [--accept]

Nothing of the current dataset is touched. DIR (intake/<name of the first file>) gets the same folders as data/, a report of its own and
intake.json. `--accept` then copies the files into data/raw; the next `dvc repro` takes them in.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
from pathlib import Path

from flows.shared import CommandFailed, hide_tracebacks, run_command

# isort: split
import polars as pl
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

STAGES = ("ingest", "clean", "dedup_exact", "scrub", "dedup_near", "review", "dedup_semantic", "decontaminate", "split")
COMPARED = ("dedup_exact", "dedup_near", "dedup_semantic")  # stages that drop what the dataset already has
SETTLED = (*COMPARED, "split")  # stages that look at the rows of the dataset; split puts new rows with those that they resemble
OPTIONS = {
    "review": ("-S", "review.enabled=false"),  # decisions are about rows of the dataset, which are not among the new ones
    "split": ("-S", "split.pin_conflicts=drop"),  # one row that resembles rows of two splits should not stop the others
}
SPLITS = ("train", "validation", "test")
DATA, RAW = Path("data"), Path("data/raw")


class IntakeError(Exception):
    """A mistake that the user can mend."""


@task(cache_policy=NO_CACHE, task_run_name="{stage}")
def run_stage(stage: str, in_dir: Path, out_dir: Path, against: Path | None) -> None:
    """One curate stage on the new rows, compared with the dataset's own where `against` is given."""
    compared: list[str | Path] = ["--against", against] if against else []
    command = [sys.executable, "-m", f"curate.{stage}", in_dir, out_dir, *compared, *OPTIONS.get(stage, ())]
    run_command(stage, command)


@task(cache_policy=NO_CACHE)
def write_report(out: Path) -> None:
    """The curation report of the new rows alone; a truth about planted defects is about the dataset, not about them."""
    run_command("report", [sys.executable, "-m", "curate.report", out, out / "reports", "-S", "report.truth=null"])


@flow(name="finery-intake", validate_parameters=False)
def intake(files: list[Path], out: Path) -> dict[str, object]:
    """Curate `files` under `out` up to the split; returns what intake.json holds."""
    stage_files(files, out / "raw")
    before = out / "raw"
    for stage in STAGES:
        settled = DATA / stage
        against = settled if stage in SETTLED and (settled / "kept").is_dir() else None
        run_stage(stage, before, out / stage, against)
        before = out / stage
    summary = summarise(out)
    (out / "intake.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_report(out)
    return summary


def check_files(files: list[Path]) -> None:
    """Raises IntakeError for files that are missing, given twice or in data/raw already."""
    names = [path.name for path in files]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise IntakeError(f"{', '.join(sorted(twice))}: given twice. Rename one: rows are known by their file's name.")
    for path in files:
        if not path.exists():
            raise IntakeError(f"{path}: no such file.")
        if path.resolve().is_relative_to(RAW.resolve()):
            raise IntakeError(f"{path}: is in {RAW} already; `dvc repro` takes it in.")


def stage_files(files: list[Path], raw: Path) -> None:
    """The new files, and nothing else, under `raw`: as links where the file system has them, else copies."""
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir(parents=True)
    for path in files:
        if path.is_dir():
            shutil.copytree(path, raw / path.name)
            continue
        try:
            os.link(path.resolve(), raw / path.name)
        except OSError:  # another file system
            shutil.copyfile(path, raw / path.name)


def summarise(out: Path) -> dict[str, object]:
    """Counts of what became of the new rows, from the stages' own metrics and dropped rows."""
    metrics = {stage: json.loads((out / stage / "metrics.json").read_text(encoding="utf-8")) for stage in STAGES}
    known = twice = 0
    for stage in COMPARED:
        dropped = pl.read_parquet(out / stage / "dropped.parquet", columns=["evidence"])["evidence"]
        of_dataset: int = dropped.str.json_path_match("$.kept_known").eq("true").to_list().count(True)
        known += of_dataset
        twice += len(dropped) - of_dataset
    others = [stage for stage in STAGES if stage not in COMPARED]
    dropped_by = {stage: metrics[stage]["reasons"] for stage in others if metrics[stage]["reasons"]}
    return {
        "rows": metrics["ingest"]["rows_in"],
        "new": metrics["split"]["kept"],
        "splits": {name: metrics["split"]["counts"].get(f"rows_{name}", 0) for name in SPLITS},
        "already_in_dataset": known,
        "duplicates_among_themselves": twice,
        "leaking": metrics["decontaminate"]["dropped"],
        "dropped": dropped_by,
        "compared_with_dataset": any((DATA / stage / "kept").is_dir() for stage in SETTLED),
    }


def accept(files: list[Path], new_rows: int) -> None:
    """Copy the files into data/raw, each complete or not at all."""
    if not new_rows:
        raise IntakeError("--accept: no row of these files is new, so there is nothing to take in. See the report for where each row went.")
    taken = [path.name for path in files if (RAW / path.name).exists() and not _same(path, RAW / path.name)]
    if taken:
        raise IntakeError(f"--accept: {RAW} holds other files named {', '.join(taken)}. Rename yours and run again.")
    for path in files:
        partial = RAW / f".{path.name}.partial-{os.getpid()}"
        if path.is_dir():
            shutil.copytree(path, partial)
        else:
            shutil.copyfile(path, partial)
        partial.rename(RAW / path.name)


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def show(summary: dict[str, object], out: Path) -> None:
    """The summary for a person."""
    print(f"\n{summary['rows']:>9,} rows read")
    splits = summary["splits"]
    assert isinstance(splits, dict)
    print(f"{summary['new']:>9,} new: they would join the dataset ({', '.join(f'{count:,} {name}' for name, count in splits.items())})")
    print(f"{summary['already_in_dataset']:>9,} in the dataset already (exact or near)")
    print(f"{summary['duplicates_among_themselves']:>9,} duplicates of other new rows")
    dropped = summary["dropped"]
    assert isinstance(dropped, dict)
    for stage, reasons in dropped.items():
        for reason, count in sorted(reasons.items()):
            print(f"{count:>9,} dropped by {stage}: {reason}")
    if not summary["compared_with_dataset"]:
        print("There is no current dataset under data/ to compare with; run `dvc repro` first to see what is already known.")
    print(f"Report: {out / 'reports' / 'curation.html'}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.intake", description="Curate new raw files beside the current dataset.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to lay out the result (default: intake/<first file's name>)")
    parser.add_argument("--accept", action="store_true", help="copy the files into data/raw afterwards")
    options = parser.parse_args()
    hide_tracebacks()
    out = options.out or Path("intake") / options.files[0].name.split(".")[0]
    try:
        if out.resolve() in (DATA.resolve(), Path.cwd()) or DATA.resolve() in out.resolve().parents:
            raise IntakeError(f"--out {out}: lies in the current dataset. Choose a folder outside {DATA}/.")
        check_files(options.files)
        summary = intake(options.files, out)
        show(summary, out)
        if options.accept:
            new = summary["new"]
            assert isinstance(new, int)
            accept(options.files, new)
            print(f"Copied into {RAW}. Next: `dvc repro` (or `make repro`), then `git add {RAW}`.")
        else:
            print("Nothing was changed. Run again with --accept to take the files in.")
    except (IntakeError, CommandFailed) as error:
        raise SystemExit(f"intake: {error}") from None


if __name__ == "__main__":
    main()
