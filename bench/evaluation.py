"""`python -m bench.evaluation gsm8k | banking77 | ten_thousand`: public data, from raw file to verdict, with the tiny base.

The official train file is ingested and trained on, the official test file is the hold-out (`ten_thousand`: Banking77 the other way round,
whose train file has 10,003 rows). Nothing is cleaned or deduplicated: the figures are those of the files as they are published, so
the leaks between them show in the score without neighbours. Prints seconds and peak memory of each command, and the figures.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.measure import ROOT, measure
from curate.record import SCHEMA
from curate.store import PartWriter, arrow_schema, read_rows
from evaluate.holdout import by_hash

SHARED = ROOT.parent / "shared" / "data"
CACHE = ROOT / "bench" / ".data"
VALIDATION = 200  # rows of the train file, by hash: Banking77 is sorted by label
# `auto` is 0.004 for the tiny base, and thousands of steps at that rate end in an adapter that says one token again and again
ALL = ("evaluate.loss_items=null", "evaluate.originals=null", "train.learning_rate=0.001")


@dataclass(frozen=True)
class Set:
    """Files under SHARED, and params beside the shipped ones; `metric` is the task's own."""

    train: str
    test: str
    metric: str
    params: tuple[str, ...]


SETS = {
    "gsm8k": Set(
        "gsm8k_train.jsonl", "gsm8k_test.jsonl", "number_match",
        (*ALL, "evaluate.generate_items=300", "evaluate.max_new_tokens=160", "train.epochs=0.5", "format.loss=last"),
    ),
    "banking77": Set(
        "banking77_train.csv", "banking77_test.csv", "label_accuracy",
        (*ALL, "evaluate.generate_items=1000", "evaluate.max_new_tokens=16", "train.epochs=1"),
    ),
    "ten_thousand": Set(
        "banking77_test.csv", "banking77_train.csv", "label_accuracy",
        (*ALL, "evaluate.generate_items=10000", "evaluate.max_new_tokens=16", "train.epochs=1"),
    ),
}  # fmt: skip


def split(name: str, folder: Path) -> Path:
    """Both files as one folder of splits, as `curate.format` reads it."""
    chosen = SETS[name]
    frames = {}
    for part, file in (("train", chosen.train), ("test", chosen.test)):
        raw = folder / f"raw-{part}"
        raw.mkdir(parents=True)
        shutil.copyfile(SHARED / file, raw / file)
        run(f"ingest {part}", ["curate.ingest", str(raw), str(folder / f"ingest-{part}")], ())
        frames[part] = read_rows(folder / f"ingest-{part}")
    rows = frames["train"]
    held = pl.int_range(rows.height).is_in(sorted(by_hash(rows["id"].to_list(), VALIDATION)))
    frames["validation"], frames["train"] = rows.filter(held), rows.filter(~held)
    for part, rows in frames.items():
        writer = PartWriter(folder / "split" / "kept" / part, arrow_schema(SCHEMA))
        writer.write(rows.select(list(SCHEMA)))
        writer.close()
    return folder / "split"


def run(title: str, command: Sequence[str], overrides: Sequence[str]) -> None:
    """A command with its seconds and peak memory; ends the program where it fails."""
    measured = measure([sys.executable, "-m", *command, *(f"--set={each}" for each in overrides)])
    if measured.error:
        sys.exit(f"{title}: {measured.error}")
    print(f"{title}: {measured.seconds:,.0f} s, {measured.peak / 1e6:,.0f} MB", flush=True)


def prepare(name: str, folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """From raw files to an adapter; returns evaluate's command and overrides."""
    rows, base, formatted, trained = split(name, folder), folder / "base", folder / "format", folder / "train"
    params = (*SETS[name].params, f"format.tokenizer={base / 'tokenizer'}", f"evaluate.reports={folder / 'reports'}")
    run("base", ["train.base", str(rows), str(base)], params)
    run("format", ["curate.format", str(rows), str(formatted)], params)
    run("train", ["train.train", str(formatted), str(base), str(trained)], (*params, "train.patience=null"))
    return ["evaluate.evaluate", str(formatted), str(base), str(trained), str(folder / "evaluate")], params


def told(figures: dict[str, object], metric: str) -> str:
    """The figures as lines of text."""
    found = json.loads(json.dumps(figures))
    lines = [f"{found['items']:,} items. Verdict: {found['verdict']}. {found['reason']}"]
    for system, each in found["systems"].items():
        part = each["metrics"].get(metric, {"value": None, "low": None, "high": None, "n": 0})
        share = "–" if part["value"] is None else f"{part['value']:.1%} ({part['low']:.1%} to {part['high']:.1%}, n = {part['n']:,})"
        lines.append(f"{system}: loss {each['metrics']['loss']['value']:.4f}, {metric} {share}")
    if (new := found["without_neighbours"]) is not None:
        loss = new["metrics"]["loss"]["difference"]
        lines.append(
            f"Without neighbours, {new['items']:,} items: loss lower by {loss['value']:.4f} ({loss['low']:.4f} to {loss['high']:.4f})"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one set and print what came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.evaluation", description=__doc__)
    parser.add_argument("name", choices=SETS)
    parser.add_argument("--items", type=int, help="evaluate this many items only")
    options = parser.parse_args(arguments)
    folder = CACHE / f"evaluation-{options.name}"
    if not (folder / "train" / "adapter").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        command, params = prepare(options.name, folder)
        (folder / "command.json").write_text(json.dumps([command, params]))
    command, params = json.loads((folder / "command.json").read_text())
    less = [] if options.items is None else [f"evaluate.loss_items={options.items}", f"evaluate.generate_items={options.items}"]
    run("evaluate", command, [*params, *less])
    print(told(json.loads((folder / "reports" / "evaluation.json").read_text()), SETS[options.name].metric))
    answers = pl.read_parquet(folder / "evaluate" / "items.parquet")["output"].drop_nulls().len()
    by_hand = " ".join(["python", "-m", *command, *(f"--set={each}" for each in params)])
    print(f"{answers:,} answers. By hand, with `/usr/bin/time -v` before it: {by_hand}")


if __name__ == "__main__":
    main()
