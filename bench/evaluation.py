"""`python -m bench.evaluation gsm8k | banking77 | ten_thousand`: public data, from raw file to verdict, with the tiny base.

The official train file is ingested and trained on, the official test file is the hold-out (`ten_thousand`: Banking77 the other way round,
whose train file has 10,003 rows). Nothing is cleaned or deduplicated: the figures are those of the files as they are published, so
the leaks between them show in the score without neighbours. Prints seconds and peak memory of each command, and the figures.

With `--kills 2` the evaluation is then run again into another folder, killed (SIGKILL) so many times spread over its length, and run to
its end: its files must be those of the first run. What lies on disk at each kill is looked for in what the next run leaves.
"""

import argparse
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
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


def run(title: str, command: Sequence[str], overrides: Sequence[str]) -> float:
    """Prints a command's seconds and peak memory and returns the seconds; ends the program where it fails."""
    measured = measure([sys.executable, "-m", *command, *(f"--set={each}" for each in overrides)])
    if measured.error:
        sys.exit(f"{title}: {measured.error}")
    print(f"{title}: {measured.seconds:,.0f} s, {measured.peak / 1e6:,.0f} MB", flush=True)
    return measured.seconds


def prepare(name: str, folder: Path) -> tuple[list[str], tuple[str, ...]]:
    """From raw files to an adapter; returns evaluate's command and overrides."""
    rows, base, formatted, trained = split(name, folder), folder / "base", folder / "format", folder / "train"
    params = (*SETS[name].params, f"format.tokenizer={base / 'tokenizer'}", f"evaluate.reports={folder / 'reports'}")
    run("base", ["train.base", str(rows), str(base)], params)
    run("format", ["curate.format", str(rows), str(formatted)], params)
    run("train", ["train.train", str(formatted), str(base), str(trained)], (*params, "train.patience=null"))
    return ["evaluate.evaluate", str(formatted), str(base), str(trained), str(folder / "evaluate")], params


def killed(command: Sequence[str], params: Sequence[str], kills: int, seconds: float) -> None:
    """Runs evaluate into another folder, kills it, and holds what it leaves against the run that nothing disturbed.

    Exits with what differs. A kill comes every `seconds / (kills + 1)`.
    """
    whole = Path(command[-1])
    out = whole.with_name("evaluate-killed")
    shelf, log = out.with_name(f".{out.name}-answers"), out.with_name("killed.log")
    for folder in (out, shelf):
        shutil.rmtree(folder, ignore_errors=True)
    arguments = [*command[:-1], str(out), *(f"--set={each}" for each in (*params, f"evaluate.reports={out.with_name('reports-killed')}"))]
    held: dict[str, bytes] = {}
    for number in range(kills + 1):
        began = time.monotonic()
        with log.open("wb") as said:
            process = subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stdout=said, stderr=said)
            try:
                code = process.wait(seconds / (kills + 1) if number < kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                code = process.wait()
        spent = time.monotonic() - began
        reused = sum(int(each.replace(",", "")) for each in re.findall(r": ([\d,]+) items are done already", log.read_text()))
        before = sum(each.count(b"\n") for each in held.values())
        print(f"run {number + 1}: {spent:,.0f} s, exit {code}; {reused:,} of {before:,} results on disk were taken up", flush=True)
        if number == kills:
            break
        now = {path.name: path.read_bytes() for path in shelf.glob("*.jsonl")}
        changed = [name for name, lines in held.items() if not now[name].startswith(lines)]
        if out.exists() or changed:
            sys.exit(f"after kill {number + 1}: {'an output is there' if out.exists() else changed[0] + ' was not gone on with'}")
        held = {name: lines[: lines.rfind(b"\n") + 1] for name, lines in now.items()}
    if code:
        sys.exit(log.read_text()[-2000:])
    one, other = (
        {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (whole, out)
    )
    if one != other:
        sys.exit(f"not the same: {', '.join(str(path) for path in one.keys() | other.keys() if one.get(path) != other.get(path))}")
    for path, digest in one.items():
        print(f"the same in both: {path} {digest[:16]}")


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
    parser.add_argument("--tokens", type=int, help="at most this many tokens an answer")
    parser.add_argument("--kills", type=int, default=0, help="run once more, killed this many times, and compare")
    options = parser.parse_args(arguments)
    folder = CACHE / f"evaluation-{options.name}"
    if not (folder / "train" / "adapter").is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        command, params = prepare(options.name, folder)
        (folder / "command.json").write_text(json.dumps([command, params]))
    command, params = json.loads((folder / "command.json").read_text())
    less = [] if options.items is None else [f"evaluate.loss_items={options.items}", f"evaluate.generate_items={options.items}"]
    less += [] if options.tokens is None else [f"evaluate.max_new_tokens={options.tokens}"]
    seconds = run("evaluate", command, [*params, *less])
    print(told(json.loads((folder / "reports" / "evaluation.json").read_text()), SETS[options.name].metric))
    answers = pl.read_parquet(folder / "evaluate" / "items.parquet")["output"].drop_nulls().len()
    by_hand = " ".join(["python", "-m", *command, *(f"--set={each}" for each in params)])
    if options.kills:
        killed(command, [*params, *less], options.kills, seconds)
    print(f"{answers:,} answers. By hand, with `/usr/bin/time -v` before it: {by_hand}")


if __name__ == "__main__":
    main()
