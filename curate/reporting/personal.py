"""Personal data and secrets: what was replaced (by entity, file and label), what a second search still found, what was not looked for."""

from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate.reporting.gather import NO_LABEL, Stage, most, shortened

NAMED = 50  # files and labels named for each entity
RESIDUAL = 20  # masked places shown of each entity


def numbers(data: Path, found: dict[str, Stage]) -> dict[str, Any]:
    """Counts only. `entities`: values replaced; `residual`: places that the second search of the output came upon."""
    path = data / "scrub" / "notice.json"
    notice: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    counts: dict[str, int] = found["scrub"].metrics.get("counts", {}) if "scrub" in found else {}
    left = {name.removeprefix("residual."): count for name, count in sorted(counts.items()) if name.startswith("residual.")}
    changed = {name.removeprefix("rows_changed."): count for name, count in counts.items() if name.startswith("rows_changed.")}
    searched = "scrub" in found and found["scrub"].has("residual")
    return {
        "entities": _entities(found, changed),
        "residual": left,
        "residual_searched": searched,
        "rows_changed": counts.get("rows_changed", 0),
        **notice,
    }


def _entities(found: dict[str, Stage], changed: dict[str, int]) -> list[dict[str, Any]]:
    if "scrub" not in found or not found["scrub"].has("findings"):
        return []
    findings = found["scrub"].lazy("findings")
    by_source = findings.group_by("entity", "source").len().collect(engine="streaming")
    per_row = findings.group_by("source", "line", "entity").len()
    labelled = per_row.join(found["scrub"].kept("source", "line", "label"), on=["source", "line"], how="left")
    by_label = labelled.group_by("entity", pl.col("label").fill_null(NO_LABEL)).agg(pl.col("len").sum()).collect(engine="streaming")
    result: dict[str, dict[str, dict[str, int]]] = {}
    for side, frame in (("sources", by_source), ("labels", by_label)):
        for entity, name, count in frame.rows():
            result.setdefault(entity, {"sources": {}, "labels": {}})[side][shortened(name)] = count
    return [
        {
            "entity": entity,
            "values": sum(sides["sources"].values()),
            "rows": changed.get(entity, 0),
            "sources": most(sides["sources"], NAMED)[0],
            "other_sources": most(sides["sources"], NAMED)[1],
            "labels": most(sides["labels"], NAMED)[0],
            "other_labels": most(sides["labels"], NAMED)[1],
        }
        for entity, sides in sorted(result.items())
    ]


def shown(found: dict[str, Stage]) -> dict[str, Any]:
    """Masked places that the second search came upon: x for a letter, 0 for a digit."""
    table = found["scrub"].table("residual") if "scrub" in found else None
    if table is None:
        return {"residual": []}
    first = table.sort("entity", "source", "line", "field", "turn").group_by("entity", maintain_order=True).head(RESIDUAL)
    return {"residual": first.select("entity", "source", "line", "field", "turn", pl.col("mask").str.slice(0, 80)).to_dicts()}
