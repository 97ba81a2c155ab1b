"""The tables that `dvc plots` draws, which reads no nested JSON with empty lists: one small CSV file for each plot of dvc.yaml."""

from typing import Any

import polars as pl

from curate.record import SPLITS


def tables(numbers: dict[str, Any]) -> dict[str, pl.DataFrame]:
    """By name: rows after every stage, rows of every label in each split, lengths in tokens, rows dropped at other thresholds. Those that
    these stages made nothing for are left out."""
    made = {
        "stages": [{"stage": step["stage"], "kept": step["kept"], "dropped": step["dropped"]} for step in numbers["waterfall"]],
        "labels": [{"label": label, **{split: splits[split] for split in SPLITS}} for label, splits in numbers["labels"].items()],
        "lengths": _lengths(numbers.get("token_histogram")),
        "thresholds": [
            {"threshold": row["threshold"], "dropped": row["dropped"], "stage": stage}
            for stage, asked in numbers["duplicates"]["what_if"].items()
            for row in asked["rows"]
        ],
    }
    return {name: pl.DataFrame(rows) for name, rows in made.items() if rows}


def _lengths(shape: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not shape:
        return []
    splits = shape["splits"]
    return [
        {"tokens": low} | dict(zip(splits, rows, strict=True)) for low, *rows in zip(shape["edges"][:-1], *splits.values(), strict=True)
    ]
