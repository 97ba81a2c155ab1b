"""Where rows and benchmark items have the same words: the spans that decontaminate found, with what stands around them in both texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate import record, store
from curate.benchmarks import read_benchmarks
from curate.reporting.gather import Stage
from curate.stages import STAGES

SHOWN = 6  # places of each set, the least alike first
AROUND, LONGEST = 60, 400  # characters on both sides of a span, and of the span itself


def benchmark_spans(found: dict[str, Stage], folder: Path) -> list[dict[str, Any]]:
    """Some rows of every set with `set`, `item_id`, `source`, `line`, `turn`, `tier`, `overlap`, `score`, `flagged`, and the two texts as
    (before, span, after): `row` and `item`."""
    if "decontaminate" not in found or not folder.is_dir():
        return []
    stage = found["decontaminate"]
    chosen = [row for table in ("dropped", "flagged") for row in _chosen(stage, table)]
    before = next((found[name].folder for name in reversed(STAGES[: STAGES.index("decontaminate")]) if name in found), None)
    if before is None or not chosen:
        return []
    keys = pl.DataFrame({"source": [row["source"] for row in chosen], "line": [row["line"] for row in chosen]}).unique().lazy()
    parts = [
        pl.scan_parquet(part.path).join(keys, on=["source", "line"], how="semi").collect(engine="streaming") for part in store.parts(before)
    ]
    prompts = (record.prompt_and_answer(part)["prompt"] for part in parts)
    texts = {
        (row["source"], row["line"]): row | {"prompt": prompt}
        for part, made in zip(parts, prompts, strict=True)
        for row, prompt in zip(part.iter_rows(named=True), made, strict=True)
    }
    items = {(name, at): {"question": question, "answer": answer} for name, at, _, question, answer in read_benchmarks(folder).rows()}
    return [_place(row, texts, items) for row in sorted(chosen, key=lambda row: (row["set"], row["flagged"], row["score"]))]


def _chosen(stage: Stage, table: str) -> list[dict[str, Any]]:
    best = pl.DataFrame()
    for batch in stage.batches(table, ["source", "line", "evidence"]):
        proof = pl.col("evidence").str
        read = batch.with_columns(
            proof.json_path_match("$.set").alias("set"), proof.json_path_match("$.score").cast(pl.Float64).alias("score")
        )
        joined = pl.concat([best, read.drop_nulls("set")])
        best = joined.sort("set", "score", "source", "line").filter(pl.int_range(pl.len()).over("set") < SHOWN)
    return [orjson.loads(row["evidence"]) | row | {"flagged": table == "flagged"} for row in best.to_dicts()]


def _place(row: dict[str, Any], texts: Mapping[tuple[str, int], dict[str, Any]], items: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    ours, theirs = row["span"], row["item_span"]
    whole = texts.get((row["source"], row["line"]))
    text = "" if whole is None else whole["prompt"] if ours["turn"] is None else whole[ours["field"]][ours["turn"]]["content"] or ""
    item = items.get((row["set"], row["item"]), {}).get(theirs["field"], "")
    kept = ("set", "item", "item_id", "source", "line", "tier", "overlap", "score", "flagged")
    return {name: row[name] for name in kept} | {
        "turn": ours["turn"],
        "row": around(text, ours["start"], ours["end"]),
        "theirs": around(item, theirs["start"], theirs["end"]),
    }


def around(text: str, start: int, end: int) -> tuple[str, str, str]:
    """What stands before a span, the span, and what stands after it, each cut to what is shown.

    >>> around("What is the capital of France, please?", 0, 29)
    ('', 'What is the capital of France', ', please?')
    """
    span = text[start:end]
    before, after = text[max(0, start - AROUND) : start], text[end : end + AROUND]
    return (
        ("…" if start > AROUND else "") + before,
        span if len(span) <= LONGEST else f"{span[:LONGEST]} … ({len(span) - LONGEST:,} more characters)",
        after + ("…" if len(text) > end + AROUND else ""),
    )
