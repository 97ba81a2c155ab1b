"""Augmentation: how much of train was made, from what, by which methods, and what it did for each label."""

from typing import Any

import polars as pl

from curate.reporting.gather import MOST, Stage, shortened


def numbers(found: dict[str, Stage]) -> dict[str, Any] | None:
    """Counts of the synthetic rows; None where augment has not run."""
    if "augment" not in found:
        return None
    stage = found["augment"]
    counts: dict[str, int] = stage.metrics.get("counts", {})
    made = stage.lazy("synthetic").select("parent", "label", "method") if stage.has("synthetic") else None
    train = int(stage.kept("label").filter(pl.col("split") == "train").select(pl.len()).collect(engine="streaming").item())
    if made is None:
        return {"enabled": stage.metrics.get("enabled", True), "rows": 0, "train": train, "share": 0.0}
    parents = (
        made.group_by("parent")
        .len()
        .select(pl.len().alias("parents"), pl.col("len").max().alias("most"))
        .collect(engine="streaming")
        .row(0)
    )
    rows = int(made.select(pl.len()).collect(engine="streaming").item())
    methods = made.group_by("method").len().sort("len", "method", descending=[True, False]).collect(engine="streaming").rows()
    return {
        "enabled": stage.metrics.get("enabled", True),
        "rows": rows,
        "train": train,
        "share": round(rows / max(train, 1), 4),
        "parents": parents[0],
        "most_per_parent": parents[1] or 0,
        "methods": dict(methods),
        "not_made": {name.removeprefix("not_made_"): count for name, count in sorted(counts.items()) if name.startswith("not_made_")},
        "labels": _labels(stage, made),
    }


def _labels(stage: Stage, made: pl.LazyFrame) -> list[dict[str, Any]]:
    """Labels that were to be raised: rows of train before and after, wanted and made."""
    wanted = stage.table("wanted")
    if wanted is None:
        return []
    of = dict(made.group_by("label").len().collect(engine="streaming").rows())
    rows = wanted.sort("rows", "label").head(MOST).to_dicts()
    return [
        {
            "label": shortened(row["label"]),
            "before": row["rows"],
            "wanted": row["wanted"],
            "made": of.get(row["label"], 0),
            "after": row["rows"] + of.get(row["label"], 0),
        }
        for row in rows
    ]
