"""Which rows are worth a look, and why: queues made from what the stages and the report wrote.

A flag says why a row is in a queue: `queue` and `kind`, `row` (number), `rank` (higher is shown first), `score` (as its stage gives it, or
null), `detail` (a sentence), `suggestion` (a label, or null), `other` (id of the row beside it, or null), `evidence` (JSON, or null).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from flows.reviewing.rows import NOT_THERE, Rows

FLAG = {
    "queue": pl.String(), "kind": pl.String(), "row": pl.Int64(), "rank": pl.Float64(), "score": pl.Float64(), "detail": pl.String(),
    "suggestion": pl.String(), "other": pl.String(), "evidence": pl.String(),
}  # fmt: skip
NO_LABEL = "label-none"
TITLES = {
    "suspicious": "Suspicious", "near": "Near the threshold", "residual": "Personal data left", "random": "Random sample",
    "all": "All rows", NO_LABEL: "No label", "second": "Second opinion", "differ": "Reviewers differ", "decided": "Decided",
}  # fmt: skip
PEOPLE = ("second", "differ", "decided")  # queues made of decisions
EMPTY = {
    "suspicious": "There is no data/report/suspicious.parquet: the report stage writes it (`dvc repro report`).",
    "near": "No pair stands near a threshold, and no row was flagged.",
    "residual": "Scrub's last look found nothing that it had missed.",
    "second": "Nobody else has decided about a row that is still open to you.",
    "differ": "No two reviewers differ.",
    "decided": "Nothing has been decided yet.",
    "random": "There are no rows.",
    "all": "There are no rows.",
}


@dataclass(frozen=True)
class Queue:
    """A queue: `rows` in order, and for each the flag it stands for (position in the flags, -1: none)."""

    name: str
    title: str
    rows: np.ndarray
    flags: np.ndarray

    def part(self, mask: np.ndarray) -> "Queue":
        """Only the rows where `mask` is true."""
        return Queue(self.name, self.title, self.rows[mask], self.flags[mask])


def plain(name: str, rows: np.ndarray, title: str = "") -> Queue:
    """A queue of rows without flags."""
    return Queue(name, title or TITLES[name], rows, np.full(len(rows), NOT_THERE))


def read_flags(data: Path, rows: Rows, threshold: float) -> pl.DataFrame:
    """All flags of rows that are there, each queue in the order it is shown. `threshold` is that of dedup_near."""
    flags = [_suspicious(data / "report/suspicious.parquet"), _near(data / "dedup_near/pairs.parquet", threshold)]
    flags += [
        _semantic(data / "dedup_semantic/pairs.parquet"),
        _benchmarks(data / "decontaminate"),
        _residual(data / "scrub/residual.parquet"),
    ]
    found = []
    for frame in flags:
        if frame is not None and frame.height:
            placed = frame.with_columns(pl.Series("row", rows.find(frame["id"]))).filter(pl.col("row") != NOT_THERE)
            missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in FLAG.items() if name not in placed.columns]
            found.append(placed.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in FLAG.items()))
    if not found:
        return pl.DataFrame(schema=FLAG)
    return pl.concat(found).sort("queue", "rank", "row", descending=[False, True, False], maintain_order=True)


def _suspicious(path: Path) -> pl.DataFrame | None:
    if not path.exists():
        return None
    wanted = pl.read_parquet(path, columns=["id", "kind", "score", "detail", "suggestion"])
    return wanted.with_columns(pl.lit("suspicious").alias("queue"), pl.col("score").alias("rank"))


def _near(path: Path, threshold: float) -> pl.DataFrame | None:
    """Pairs of dedup_near, those nearest to the threshold first. Of a pair with a dropped row, the kept one is the row to decide about."""
    if not path.exists():
        return None
    pairs = pl.read_parquet(path, columns=["id", "kept_id", "similarity", "dropped", "conflict"])
    percent = (pl.col("similarity") * 100).round(1).cast(pl.String)
    limit = f" % alike, and the threshold is {threshold:.0%}: "
    about = (
        pl.when("dropped").then(pl.lit(limit + "the row beside it was dropped as its near-duplicate."))
        .when("conflict").then(pl.lit(" % alike, but the answers differ: both rows stayed. One of the answers may be wrong."))
        .otherwise(pl.lit(limit + "both rows stayed."))
    )  # fmt: skip
    return pairs.select(
        pl.when("dropped").then("kept_id").otherwise("id").alias("id"),
        pl.when("dropped").then("id").otherwise("kept_id").alias("other"),
        pl.lit("near").alias("queue"),
        pl.when("conflict").then(pl.lit("conflict")).otherwise(pl.lit("near-duplicate")).alias("kind"),
        (1 - (pl.col("similarity") - threshold).abs()).alias("rank"),
        pl.col("similarity").alias("score"),
        (percent + about).alias("detail"),
    )


def _semantic(path: Path) -> pl.DataFrame | None:
    """Pairs of dedup_semantic. Both rows stand before it, so that either can be decided about."""
    if not path.exists():
        return None
    pairs = pl.read_parquet(path, columns=["id", "kept_id", "similarity", "dropped"])
    percent = (pl.col("similarity") * 100).round(1).cast(pl.String)
    fate = pl.when("dropped").then(pl.lit("this row is dropped for it later.")).otherwise(pl.lit("both rows stay."))
    return pairs.select(
        "id",
        pl.col("kept_id").alias("other"),
        pl.lit("near").alias("queue"),
        pl.lit("like in meaning").alias("kind"),
        pl.col("similarity").alias("rank"),
        pl.col("similarity").alias("score"),
        (percent + pl.lit(" % alike in meaning with the row beside it: ") + fate).alias("detail"),
    )


def _benchmarks(folder: Path) -> pl.DataFrame | None:
    """Rows that decontaminate flagged, and those that it drops: these stand here too, so that a wrong drop is seen."""
    frames = [(pl.read_parquet(path), path.stem) for path in (folder / "flagged.parquet", folder / "dropped.parquet") if path.exists()]
    made = [
        frame.select(
            "id",
            pl.lit("near").alias("queue"),
            pl.lit("benchmark").alias("kind"),
            pl.col("evidence").str.json_path_match("$.score").cast(pl.Float64, strict=False).alias("score"),
            pl.col("detail") + (" It is dropped later." if stem == "dropped" else " It stays."),
            "evidence",
        ).with_columns(
            (1 - pl.col("score").fill_null(0.5)).alias("rank") if stem == "dropped" else pl.col("score").fill_null(0.5).alias("rank")
        )
        for frame, stem in frames
    ]
    return pl.concat(made) if made else None


def _residual(path: Path) -> pl.DataFrame | None:
    """What scrub's last look still took for personal data, one flag a row."""
    if not path.exists():
        return None
    found = pl.read_parquet(path, columns=["id", "field", "turn", "entity", "mask"])
    place = pl.col("field") + pl.when(pl.col("turn").is_null()).then(pl.lit("")).otherwise(pl.format(" {}", pl.col("turn") + 1))
    return (
        found.with_columns(pl.format("{} in {}: {}", "entity", place, "mask").alias("detail"))
        .group_by("id", maintain_order=True)
        .agg(
            pl.col("detail").unique(maintain_order=True).head(20).str.join("; "),
            pl.col("entity").first().alias("kind"),
            pl.len().alias("rank"),
        )
        .with_columns(pl.lit("residual").alias("queue"), pl.col("rank").cast(pl.Float64))
    )


def kinds(flags: pl.DataFrame) -> list[tuple[str, str]]:
    """(queue, kind) of all flags, in order; of the suspicious and near ones alone, which have queues of their own."""
    shown = flags.filter(pl.col("queue").is_in(["suspicious", "near"])).select("queue", "kind").unique().sort("queue", "kind")
    return [(queue, kind) for queue, kind in shown.rows()]


def flagged(name: str, flags: pl.DataFrame) -> Queue:
    """The queue `suspicious`, `near`, `residual`, or `suspicious/<kind>`, `near/<kind>`. A row stands in it once, or once for each pair."""
    queue, _, kind = name.partition("/")
    wanted = flags.with_row_index("at").filter(pl.col("queue") == queue, pl.lit(not kind) | (pl.col("kind") == kind))
    wanted = wanted.unique(["row", "other"], keep="first", maintain_order=True)
    title = f"{TITLES[queue]}: {kind.replace('_', ' ')}" if kind else TITLES[queue]
    return Queue(name, title, wanted["row"].to_numpy(), wanted["at"].cast(pl.Int64).to_numpy())
