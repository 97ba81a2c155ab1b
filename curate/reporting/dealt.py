"""Splits: each label in each split, and that nothing which belongs together stands in two of them."""

from typing import Any

import polars as pl

from curate.record import SPLITS
from curate.reporting.gather import MOST, NO_LABEL, Stage, last_records, shortened


def numbers(found: dict[str, Stage]) -> dict[str, Any] | None:
    """Label by split as dealt, and three counts of what crosses: groups of the user, clusters of split, rows with one id."""
    if "split" not in found:
        return None
    counts: dict[str, int] = found["split"].metrics.get("counts", {})
    balance = found["split"].table("balance")
    labels = balance.sort("rows", "label", descending=[True, False]).head(MOST).to_dicts() if balance is not None else []
    return {
        "labels": [each | {"label": NO_LABEL if each["label"] is None else shortened(each["label"])} for each in labels],
        "rows": {split: counts.get(f"rows_{split}", 0) for split in SPLITS},
        "groups": counts.get("groups", 0),
        "largest_group": counts.get("largest_group", 0),
        "rare_labels": counts.get("rare_labels", 0),
        "crossing": {
            "groups": _crossing(last_records(found).kept("group"), "group"),
            "clusters": _clusters(found["split"]),
            "ids": _crossing(last_records(found).kept("id"), "id"),
        },
    }


def _crossing(rows: pl.LazyFrame, column: str) -> int:
    """Values of a column that stand in more than one split."""
    splits = rows.filter(pl.col(column).is_not_null()).group_by(column).agg(pl.col("split").n_unique().alias("splits"))
    return int(splits.filter(pl.col("splits") > 1).select(pl.len()).collect(engine="streaming").item())


def _clusters(stage: Stage) -> int:
    return _crossing(stage.lazy("assignments").select("cluster", "split"), "cluster") if stage.has("assignments") else 0
