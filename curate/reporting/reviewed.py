"""What reviewers decided, and whether it could be applied: from the table that the review stage leaves."""

from typing import Any

import polars as pl

from curate.reporting.gather import Stage

NAMED = 50  # decisions named that were not applied, or about which reviewers differ


def numbers(found: dict[str, Stage]) -> dict[str, Any] | None:
    """Decisions by action and state; None where there are none. Names rows, reviewers and actions, no text of a row."""
    table = found["review"].table("decisions") if "review" in found else None
    if table is None or not table.height:
        return None
    open_ = table.filter((pl.col("state") != "applied") | pl.col("differ").is_not_null()).sort("source", "line", "id", "reviewer")
    return {
        "decisions": table.height,
        "reviewers": int(table["reviewer"].n_unique()),
        "actions": dict(table.group_by("action").len().sort("action").rows()),
        "states": dict(table.group_by("state").len().sort("state").rows()),
        "open": open_.head(NAMED).select("source", "line", "action", "reviewer", "state", "differ").to_dicts(),
        "open_rows": open_.height,
    }
