"""`python -m bench.preparation`: rows to token ids with a loss mask on disk, Finery's format stage against TRL's own preparation.

Both get the same rows as chats of one question and one answer, the same tokenizer and the ChatML template, and two processes; TRL as
prompt and completion, with its completion mask. Time is from start to end of the whole command, libraries included, and beside it each
one's work alone: TRL's preparation as it times itself, without its start and its writing; Finery's command less the same command on a
few rows. The ids of every row that both kept must be equal, and so must the mask up to the end token.
"""

import argparse
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import orjson
import polars as pl

from bench.measure import ROOT, Measured, measure
from curate import record, store, template

STANDARD = ROOT.parent / "shared" / "data" / "t0_55k.parquet"
LENGTH = 1024
FEW = 15  # rows of the command that shows what the start takes
TRL = """
import json, sys, time
import datasets, torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer
datasets.disable_progress_bars()
rows, tokenizer, out = sys.argv[1:]
tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer)
data = datasets.Dataset.from_parquet(rows, cache_dir=out + "/cache")
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1))
few = SFTConfig(output_dir=out, report_to=[], bf16=False, use_cpu=True, max_length=LENGTH, dataset_num_proc=2, completion_only_loss=True)
start = time.monotonic()
trainer = SFTTrainer(model, args=few, train_dataset=data, processing_class=tokenizer)
seconds = time.monotonic() - start
trainer.train_dataset.to_parquet(out + "/rows.parquet")
open(out + "/seconds", "w").write(str(seconds))
"""


def main() -> None:
    """Run both, check that they agree, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.preparation", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=STANDARD, help="parquet with columns prompt and completion")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    if not options.file.exists():
        raise SystemExit(f"{options.file}: no such file. Name a parquet file with prompt and completion: python -m bench.preparation FILE")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = _inputs(pl.read_parquet(options.file).head(options.rows), folder)
        runs = [_run(folder / str(at), folder) for at in range(options.repeat)]
        compared, gone = _agree(folder / "0")
    print(table(rows, runs))
    print(f"\n{compared:,} rows compared: equal ids, equal mask up to the end token. TRL left {gone:,} rows out without a word.")


def _inputs(rows: pl.DataFrame, folder: Path) -> int:
    """The rows for each tool, and the tokenizer. Special tokens in the data (answers of t0 end with one) are cut for both alike."""
    from train.tiny import CONTROL, make_tokenizer

    asked, said = ([template.without_control(each, CONTROL) for each in rows[name]] for name in ("prompt", "completion"))
    said = [each.strip() for each in said]  # the template cuts this too
    tokenizer = make_tokenizer([*asked[:3000], *said[:3000]], 2048, LENGTH)
    tokenizer.chat_template = template.load_template("chatml", folder)
    tokenizer.save_pretrained(folder / "tokenizer")
    chats = [[_message("user", question), _message("assistant", answer)] for question, answer in zip(asked, said, strict=True)]
    frame = pl.DataFrame(
        {"id": [f"{at:032x}" for at in range(len(chats))], "messages": chats},
        schema={"id": pl.String, "messages": record.SCHEMA["messages"]},
    ).with_columns(pl.lit("t0").alias("source"), pl.int_range(1, pl.len() + 1).alias("line"), pl.lit("chat").alias("kind"))
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in record.SCHEMA.items() if name not in frame.columns]
    frame = frame.with_columns(missing).select(list(record.SCHEMA))
    for name, part in (("in", frame), ("few", frame.head(FEW))):
        writer = store.PartWriter(folder / name / "kept" / "train", store.arrow_schema(record.SCHEMA))
        writer.write(part)
        writer.close()
    pl.DataFrame(
        {
            "prompt": [[{"role": "user", "content": each}] for each in asked],
            "completion": [[{"role": "assistant", "content": each}] for each in said],
            "at": range(1, len(asked) + 1),
        }
    ).write_parquet(folder / "trl.parquet")
    return len(chats)


def _message(role: str, content: str) -> dict[str, str | None]:
    return {"role": role, "content": content, "extra": None}


@dataclass(frozen=True)
class Run:
    """Both commands, and the seconds of each one's work alone."""

    finery: Measured
    trl: Measured
    finery_alone: float
    trl_alone: float


def _run(out: Path, inputs: Path) -> Run:
    (out / "trl").mkdir(parents=True)
    settings = [f"format.tokenizer={inputs / 'tokenizer'}", f"format.max_length={LENGTH}", "format.over_length=truncate"]
    start, finery = (
        measure(
            [sys.executable, "-m", "curate.format", str(inputs / name), str(out / to), "--workers", "2"]
            + [part for setting in settings for part in ("-S", setting)]
        )
        for name, to in (("few", "few"), ("in", "finery"))
    )
    trl = measure(
        [sys.executable, "-c", TRL.replace("LENGTH", str(LENGTH)), str(inputs / "trl.parquet"), str(inputs / "tokenizer"), str(out / "trl")]
    )
    for run in (start, finery, trl):
        if run.error:
            raise SystemExit(run.error)
    return Run(finery, trl, finery.seconds - start.seconds, float((out / "trl" / "seconds").read_text()))


def _agree(out: Path) -> tuple[int, int]:
    """Rows compared and rows that only Finery has. The two cut long rows differently, so that only rows below the limit are compared."""
    ours = store.read_rows(out / "finery", columns=["line", "input_ids", "labels"])
    theirs = pl.read_parquet(out / "trl" / "rows.parquet", columns=["at", "input_ids", "labels"])
    both = ours.join(theirs, left_on="line", right_on="at", suffix="_trl").filter(pl.col("input_ids_trl").list.len() < LENGTH)
    end = orjson.loads((out / "finery" / "format.json").read_bytes())["end_token_id"]
    for line, ids, labels, other_ids, other_labels in both.select("line", "input_ids", "labels", "input_ids_trl", "labels_trl").iter_rows():
        stop = len(ids) - ids[::-1].index(end)
        if ids != other_ids or labels[:stop] != other_labels[:stop]:
            raise SystemExit(f"row {line}: Finery and TRL differ ({len(ids)} and {len(other_ids)} tokens). This is a fault in one of them.")
    return both.height, ours.join(theirs, left_on="line", right_on="at", how="anti").height


def table(rows: int, runs: list[Run]) -> str:
    """Medians over the runs; ratios are taken within a run."""
    lines = ["| tool | seconds | rows/s | peak MB | times Finery's command | times Finery's work |", "|---|---|---|---|---|---|"]
    for name, seconds, peaks in (
        ("Finery format, 2 workers, whole command", [run.finery.seconds for run in runs], [run.finery.peak for run in runs]),
        ("Finery, its work alone, written", [run.finery_alone for run in runs], [run.finery.peak for run in runs]),
        ("TRL, dataset_num_proc=2, whole command", [run.trl.seconds for run in runs], [run.trl.peak for run in runs]),
        ("TRL, its preparation alone, not written", [run.trl_alone for run in runs], [run.trl.peak for run in runs]),
    ):
        command = statistics.median(each / run.finery.seconds for each, run in zip(seconds, runs, strict=True))
        work = statistics.median(each / run.finery_alone for each, run in zip(seconds, runs, strict=True))
        middle, peak = statistics.median(seconds), statistics.median(peaks) / 1e6
        lines.append(f"| {name} | {middle:.1f} | {rows / middle:,.0f} | {peak:,.0f} | {command:.2f} | {work:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
