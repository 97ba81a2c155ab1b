"""Lets one row of each text through; stays behind: rows with the same text after case and space folding.

The text is prompt, answer and rejected answer together. Rows with the same prompt and another answer are no duplicates: they go on,
and `conflicts.parquet` lists them. Which row of a set stays is said in `_better_first`.
"""

import polars as pl
import xxhash

from curate import record
from curate.params import params_class
from curate.stage import Plan, Stage, main


@params_class
class Params:
    """`params.yaml: dedup_exact`."""

    enabled: bool


NARROW = ("id", "source", "line", "whole", "prompt", "answer_chars", "labelled")


def survey(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    """Ids, 128-bit hashes of the folded whole and prompt, and what `_better_first` compares."""
    flat = record.texts(batch).with_columns(record.fold(pl.col("content")).alias("folded"))
    whole = flat.group_by("at", maintain_order=True).agg(
        pl.concat_str("field", "role", "folded", separator="\x1f").str.join("\x1e").alias("whole")
    )
    sides = record.prompt_and_answer(batch)
    prompts = sides.select(record.fold(pl.col("prompt")).alias("prompt"))["prompt"]
    return batch.select(
        "id",
        "source",
        "line",
        pl.Series("whole", [_hash(text) for text in whole["whole"]], dtype=pl.String),
        pl.Series("prompt", [_hash(text) if text else "" for text in prompts], dtype=pl.String),
        sides["answer"].str.len_chars().alias("answer_chars"),
        pl.col("label").is_not_null().alias("labelled"),
    )


def _hash(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())


def _better_first(narrow: pl.DataFrame) -> pl.DataFrame:
    """Known rows first; then labelled, then longer answers (folding hides lost white space), then by id, file and line."""
    return narrow.sort("known", "labelled", "answer_chars", "id", "source", "line", descending=[True, True, True, False, False, False])


def plan(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    """Drop every row but the best of each text; list prompts that have several answers."""
    first = ["row", "id", "source", "line", "known"]
    ranked = _better_first(narrow.with_row_index("row")).with_columns(pl.col(first).first().over("whole").name.prefix("kept_"))
    again = ranked.filter((pl.col("row") != pl.col("kept_row")) & ~pl.col("known")).sort("row")
    evidence = pl.struct("kept_id", "kept_source", "kept_line", "kept_known", pl.lit(1.0).alias("similarity")).struct.json_encode()
    drop = again.select(
        "row",
        pl.lit("exact_duplicate").alias("reason"),
        pl.format("Same text as {}:{} after folding case and white space.", "kept_source", "kept_line").alias("detail"),
        evidence.alias("evidence"),
    )
    kept = ranked.join(drop, on="row", how="anti").filter(pl.col("prompt") != "")
    conflicts = (
        kept.filter(pl.len().over("prompt") > 1)
        .sort("row")
        .select(pl.col("row").min().over("prompt").alias("conflict"), "id", "source", "line")
        .sort("conflict", "source", "line", maintain_order=True)
    )
    return Plan(drop, counts={"conflicting_rows": conflicts.height}, tables={"conflicts": conflicts})


STAGE = Stage("dedup_exact", Params, survey=survey, plan=plan)

if __name__ == "__main__":
    main(STAGE)
