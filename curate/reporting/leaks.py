"""Leakage: the matrix between splits and benchmarks, and for every benchmark what decontaminate dropped and flagged."""

from pathlib import Path
from typing import Any

import polars as pl

from curate.benchmarks import read_benchmarks
from curate.reporting.gather import Stage

PAIRS = 50  # worst pairs named on the page


def matrix(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """Every cell as leakage counted it."""
    table = found["leakage"].table("matrix") if "leakage" in found else None
    return table.to_dicts() if table is not None else []


def squares(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells as one table for each kind: rows are splits, columns the other splits and the benchmarks."""
    made = []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        of = {(cell["left"], cell["right"]): cell for cell in cells if cell["kind"] == kind}
        lefts, rights = (list(dict.fromkeys(key[side] for key in of)) for side in (0, 1))
        made.append(
            {
                "kind": kind,
                "columns": rights,
                "rows": [{"left": left, "cells": [of.get((left, right)) for right in rights]} for left in lefts],
            }
        )
    return made


def pairs(found: dict[str, Stage]) -> list[dict[str, Any]]:
    """The worst pairs, if any leak."""
    if "leakage" not in found or not found["leakage"].has("pairs"):
        return []
    return (
        found["leakage"]
        .lazy("pairs")
        .sort("similarity", "left_source", "left_line", descending=[True, False, False])
        .head(PAIRS)
        .collect()
        .to_dicts()
    )


def benchmarks(found: dict[str, Stage], folder: Path) -> list[dict[str, Any]]:
    """For every benchmark set: items, items met, rows dropped and flagged, each by how they were found (tier)."""
    if "decontaminate" not in found or not folder.is_dir():
        return []
    items = dict(read_benchmarks(folder).group_by("set").len().rows())
    hits: dict[str, dict[str, Any]] = {
        name: {"set": name, "items": count, "dropped": {}, "flagged": {}, "met": 0} for name, count in sorted(items.items())
    }
    met: dict[str, set[str]] = {}
    for table in ("dropped", "flagged"):
        for batch in found["decontaminate"].batches(table, ["evidence"]):
            proof = pl.col("evidence").str
            read = batch.select(*(proof.json_path_match(f"$.{name}").alias(name) for name in ("set", "item", "tier"))).drop_nulls("set")
            for name, tier, count, several in (
                read.group_by("set", "tier").agg(pl.len(), pl.col("item").unique()).sort("set", "tier").rows()
            ):
                of = hits.setdefault(name, {"set": name, "items": 0, "dropped": {}, "flagged": {}, "met": 0})
                of[table][tier] = of[table].get(tier, 0) + count
                met.setdefault(name, set()).update(several)
    for name, several in met.items():
        hits[name]["met"] = len(several)
    return list(hits.values())
