"""Lengths of rows in characters and tokens, by split and by label, without holding a number for each row.

Lengths from 1 000 up are counted in classes of three digits (12 345 as 12 300), so that a split has some thousand classes at most;
sums and maxima are exact.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from curate import store
from curate.reporting.gather import NO_LABEL, Stage, shortened

LABELS = 200  # labels whose lengths are told, those with most rows
COLUMNS = 24  # of a histogram


def characters(stage: Stage) -> pl.DataFrame:
    """Classes (split, label, size, rows, sum, max) of the length of all messages of a row together."""
    content = pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars().cast(pl.Int64)).list.sum()
    return _classes(stage, "messages", content.fill_null(0))


def tokens(stage: Stage) -> pl.DataFrame:
    """The same of the formatted rows, in tokens."""
    return _classes(stage, "input_ids", pl.col("input_ids").list.len().cast(pl.Int64))


def _classes(stage: Stage, column: str, length: pl.Expr) -> pl.DataFrame:
    step = pl.lit(10.0).pow((pl.col("n").clip(1).cast(pl.Float64).log10() + 1e-9).floor() - 2).clip(1)
    by = ["split", "label", "size"]
    sums = [pl.col("rows").sum(), pl.col("sum").sum(), pl.col("max").max()]
    held, waiting = pl.DataFrame(), list[pl.DataFrame]()
    for sized in _sized(stage, column, length):
        classed = sized.with_columns(((pl.col("n") / step).floor() * step).cast(pl.Int64).alias("size"))
        waiting.append(
            classed.group_by(by).agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("n").sum().alias("sum"), pl.col("n").max().alias("max"))
        )
        if len(waiting) == 64:
            held, waiting = pl.concat([held, *waiting] if held.height else waiting).group_by(by).agg(sums), []
    every = [held, *waiting] if held.height else waiting
    empty = pl.DataFrame(
        schema={"split": pl.String, "label": pl.String, "size": pl.Int64, "rows": pl.Int64, "sum": pl.Int64, "max": pl.Int64}
    )
    return pl.concat([empty, *every]).group_by(by).agg(sums).sort(by)


def _sized(stage: Stage, column: str, length: pl.Expr) -> Iterator[pl.DataFrame]:
    for batch in store.batches(stage.folder, ["label", column]):
        yield batch.select("split", pl.col("label").fill_null(NO_LABEL), length.alias("n"))


def quantiles(classes: pl.DataFrame) -> dict[str, float]:
    """Count, sum and order statistics of some classes."""
    if not classes.height:
        return {"rows": 0, "sum": 0}
    ordered = classes.group_by("size").agg(pl.col("rows").sum()).sort("size").with_columns(pl.col("rows").cum_sum().alias("upto"))
    rows = int(classes["rows"].sum())
    found: dict[str, float] = {"rows": rows, "sum": int(classes["sum"].sum())}
    for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99)):
        at = min(int(share * rows), rows - 1)
        found[name] = float(ordered.filter(pl.col("upto") > at)["size"][0])
    return found | {"max": float(classes["max"].max())}  # type: ignore[arg-type]


def by_split(classes: pl.DataFrame) -> dict[str, dict[str, float]]:
    """split -> quantiles, in the order of the splits."""
    order = [split for split in ("", "train", "validation", "test") if (classes["split"] == split).any()]
    return {split: quantiles(classes.filter(pl.col("split") == split)) for split in order}


def by_label(classes: pl.DataFrame) -> list[dict[str, Any]]:
    """Quantiles of the labels with most rows."""
    top = (
        classes.group_by("label").agg(pl.col("rows").sum()).sort("rows", "label", descending=[True, False]).head(LABELS)["label"].to_list()
    )
    parts = classes.filter(pl.col("label").is_in(top)).partition_by("label", as_dict=True)
    return [{"label": shortened(label), **quantiles(parts[(label,)])} for label in top]


def histogram(classes: pl.DataFrame) -> dict[str, Any]:
    """One set of columns for all splits, up to the 99th percentile so that one giant does not flatten the rest."""
    if not classes.height:
        return {"edges": [0, 1], "splits": {}, "beyond": 0}
    step = int(-(-max(quantiles(classes)["p99"], 1.0) // COLUMNS))  # whole numbers, so that the edges read well
    inside = classes.filter(pl.col("size") < step * COLUMNS).with_columns((pl.col("size") // step).alias("column"))
    counts = {split: [0] * COLUMNS for split in by_split(classes)}
    for split, column, rows in inside.group_by("split", "column").agg(pl.col("rows").sum()).rows():
        counts[split][column] = rows
    beyond = int(classes["rows"].sum()) - int(inside["rows"].sum())
    return {"edges": [step * at for at in range(COLUMNS + 1)], "splits": counts, "beyond": beyond}
