"""Duplicates over all stages that look for them: sets by size, the largest, similarities, and what other thresholds would cost."""

from typing import Any

import numpy as np
import polars as pl

from curate.reporting.gather import Stage

FINDERS = ("dedup_exact", "dedup_near", "dedup_semantic")
LARGEST = 10
MEMBERS = 12  # members of a largest set that are named
SIZES = {"2": (2, 2), "3": (3, 3), "4": (4, 4), "5-9": (5, 9), "10-99": (10, 99), "100-999": (100, 999), "1000+": (1000, 1 << 62)}
STEP = 0.05  # between the thresholds that are tried
WHERE = ["source", "line"]
PAIRS = {
    "source": pl.Categorical(), "line": pl.Int64(), "similarity": pl.Float32(), "kept_source": pl.Categorical(), "kept_line": pl.Int64(),
}  # fmt: skip


def numbers(found: dict[str, Stage], sections: dict[str, Any]) -> dict[str, Any]:
    """Sets by size (a set is a kept row and all that fell for it, directly or through a row that fell later), tail, similarity, what-if."""
    fallen = {name: _fallen(found[name]) for name in FINDERS if name in found}
    pairs = _settled(fallen)
    sets = pairs.group_by("kept_source", "kept_line").agg(
        pl.len().alias("dropped"), *((pl.col("stage") == at).sum().alias(name) for at, name in enumerate(FINDERS))
    )
    sets = sets.sort(pl.col("dropped"), pl.col("kept_source").cast(pl.String), pl.col("kept_line"), descending=[True, False, False])
    size = sets["dropped"].to_numpy() + 1
    return {
        "threshold": float(sections.get("dedup_near", {}).get("threshold", 1.0)),
        "sets": sets.height,
        "largest": [_largest(row, pairs) for row in sets.head(LARGEST).to_dicts()],
        "sizes": {name: int(((size >= low) & (size <= high)).sum()) for name, (low, high) in SIZES.items()},
        "rows_by_size": {name: int(size[(size >= low) & (size <= high)].sum()) for name, (low, high) in SIZES.items()},
        "similarity": _similarities(found),
        "what_if": {
            name: what_if(fallen[name], _near(found[name]), float(sections[name]["threshold"]), float(sections[name]["near_miss"]))
            for name in FINDERS[1:]
            if name in found and found[name].has("pairs") and name in sections
        },
    }


def _largest(row: dict[str, Any], pairs: pl.DataFrame) -> dict[str, Any]:
    members = pairs.filter((pl.col("kept_source") == row["kept_source"]) & (pl.col("kept_line") == row["kept_line"]))
    members = members.with_columns(pl.col("source").cast(pl.String))
    named = members.sort("similarity", "source", "line", descending=[True, False, False]).head(MEMBERS)
    return {
        "source": row["kept_source"],
        "line": row["kept_line"],
        "dropped": row["dropped"],
        "stages": {name: row[name] for name in FINDERS if row[name]},
        "members": [
            {"source": source, "line": line, "stage": FINDERS[stage], "similarity": round(similarity, 3)}
            for source, line, stage, similarity in named.select("source", "line", "stage", "similarity").rows()
        ],
    }


def _fallen(stage: Stage) -> pl.DataFrame:
    """PAIRS of the rows that a stage dropped for another, read in batches: no text is held."""
    proof = pl.col("evidence").str
    batches = [
        batch.select(
            pl.col("source").cast(pl.Categorical),
            "line",
            proof.json_path_match("$.similarity").cast(pl.Float32).fill_null(1.0).alias("similarity"),
            proof.json_path_match("$.kept_source").cast(pl.Categorical).alias("kept_source"),
            proof.json_path_match("$.kept_line").cast(pl.Int64).alias("kept_line"),
        ).drop_nulls("kept_source")
        for batch in stage.batches(columns=["source", "line", "evidence"])
    ]
    return pl.concat([pl.DataFrame(schema=PAIRS), *batches])


def _near(stage: Stage) -> pl.DataFrame:
    """PAIRS of rows that stayed although they are like a kept one, without those whose answers differ; and whether it is all of them."""
    table = stage.table("pairs")
    assert table is not None
    stays = ~pl.col("dropped") & ~(pl.col("conflict") if "conflict" in table.columns else pl.lit(False))
    return table.filter(stays).select(pl.col(name).cast(kind) for name, kind in PAIRS.items())


def _settled(fallen: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """All PAIRS with the number of their stage, each with the row that stands for it at the end."""
    whole = pl.DataFrame(schema=PAIRS | {"stage": pl.UInt8()})
    for name, frame in fallen.items():
        later = frame.select(
            pl.col("source").alias("kept_source"),
            pl.col("line").alias("kept_line"),
            pl.col("kept_source").alias("then"),
            pl.col("kept_line").alias("then_line"),
        ).unique(["kept_source", "kept_line"], keep="first", maintain_order=True)
        moved = whole.join(later, on=["kept_source", "kept_line"], how="left", maintain_order="left")
        moved = moved.with_columns(
            pl.coalesce("then", "kept_source").alias("kept_source"), pl.coalesce("then_line", "kept_line").alias("kept_line")
        )
        now = frame.with_columns(pl.lit(FINDERS.index(name), pl.UInt8).alias("stage"))
        whole = pl.concat([moved.select(whole.columns), now.select(whole.columns)])
    return whole


def what_if(fallen: pl.DataFrame, near: pl.DataFrame, threshold: float, near_miss: float) -> dict[str, Any]:
    """Rows that a stage would drop at other thresholds, from the pairs that it checked and stored.

    At each threshold the greedy rule is applied to those pairs anew: a row falls if a row that stays is like it enough. It is an estimate
    but for the present threshold: above it, some of the rows that fell would meet each other, and those pairs are not stored; below it,
    fewer of the pairs there are have been looked at.
    """
    pairs = pl.concat([fallen, near])
    places = pl.concat([pairs.select(WHERE), pairs.select(pl.col("kept_source").alias("source"), pl.col("kept_line").alias("line"))])
    numbered = places.unique(maintain_order=True).with_row_index("at")
    row = pairs.join(numbered, on=WHERE, how="left", maintain_order="left")["at"].to_numpy().astype(np.int64)
    kept = numbered.rename({"source": "kept_source", "line": "kept_line"})
    other = pairs.join(kept, on=["kept_source", "kept_line"], how="left", maintain_order="left")["at"].to_numpy().astype(np.int64)
    similarity = pairs["similarity"].to_numpy()
    tried = sorted({round(near_miss + at * STEP, 4) for at in range(round((1 - near_miss) / STEP))} | {threshold})
    rows = []
    for limit in tried:
        enough = similarity >= limit - 1e-6
        rows.append({"threshold": limit, "dropped": _falls(row[enough], other[enough], numbered.height), "now": limit == threshold})
    return {"rows": rows, "pairs": near.height}


def _falls(row: np.ndarray, other: np.ndarray, count: int) -> int:
    """How many rows fall: a row stays if no row that stays is like it. A row's pairs all lead to better rows, so this ends."""
    unknown, falls, stays = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool), np.ones(count, dtype=bool)
    unknown[row], stays[row] = True, False
    while unknown.any():
        down = np.zeros(count, dtype=bool)
        down[row[stays[other]]] = True
        down &= unknown
        undecided = np.zeros(count, dtype=bool)
        undecided[row[~falls[other]]] = True
        up = unknown & ~undecided
        if not (down | up).any():
            break
        falls, stays, unknown = falls | down, stays | up, unknown & ~down & ~up
    return int(falls.sum())


def _similarities(found: dict[str, Stage]) -> dict[str, int]:
    """Checked pairs of dedup_near by similarity, in steps of 0.02 from the near-miss limit up."""
    table = found["dedup_near"].table("histogram") if "dedup_near" in found else None
    if table is None or not table.height:
        return {}
    steps = table.select((pl.col("from") * 50 + 1e-6).floor().clip(0, 49).cast(pl.Int32).alias("step"), "pairs")
    return {f"{step / 50:.2f}": count for step, count in steps.group_by("step").agg(pl.col("pairs").sum()).sort("step").rows()}
