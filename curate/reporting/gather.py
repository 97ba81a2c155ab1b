"""Reads what the stages wrote and counts it: the numbers of the report, without any text of a row.

Everything is computed from narrow columns, part by part; a stage that has not run (as in `flows.intake`, which ends at split) is left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq
import xxhash

from curate import store
from curate.record import SPLITS, InputError
from curate.stages import STAGES

NO_LABEL = "(no label)"
BATCH = 1 << 15  # rows of a table that are read at once
MOST = 2000  # labels, files or sets of which curation.json names each; the rest it counts together


@dataclass(frozen=True)
class Stage:
    """What a stage left in its folder."""

    name: str
    folder: Path
    metrics: dict[str, Any]

    @property
    def dropped(self) -> pl.DataFrame:
        """All dropped rows with their evidence: for small data. The report itself reads them in batches."""
        return pl.read_parquet(self.folder / "dropped.parquet")

    def kept(self, *columns: str) -> pl.LazyFrame:
        """These columns of the rows that went on, unread, with their `split`."""
        frames = [
            pl.scan_parquet(part.path).select(*columns, pl.lit(part.split).alias("split")) for part in store.parts(self.folder) if part.rows
        ]
        if not frames:
            return pl.scan_parquet(store.parts(self.folder)[0].path).select(*columns, pl.lit("").alias("split"))
        return pl.concat(frames)

    def lazy(self, name: str = "dropped") -> pl.LazyFrame:
        """A table of the stage, unread; InputError where it has none."""
        path = self.folder / f"{name}.parquet"
        if not path.exists():
            raise InputError(f"{path}: no such table. Run the stage again (`dvc repro` does).")
        return pl.scan_parquet(path)

    def has(self, name: str) -> bool:
        """Whether the stage wrote a table of this name."""
        return (self.folder / f"{name}.parquet").exists()

    def batches(self, name: str = "dropped", columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """A table of the stage in batches of bounded size, in order; nothing where it wrote none."""
        path = self.folder / f"{name}.parquet"
        if path.exists():
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=columns):
                    yield pl.DataFrame(batch)

    def table(self, name: str) -> pl.DataFrame | None:
        """A small extra table of the stage, or None where it wrote none."""
        path = self.folder / f"{name}.parquet"
        return pl.read_parquet(path) if path.exists() else None


def stages(data: Path) -> dict[str, Stage]:
    """The stages that have run, in order."""
    found = {}
    for name in STAGES:
        folder = data / name
        if (folder / "metrics.json").exists():
            found[name] = Stage(name, folder, orjson.loads((folder / "metrics.json").read_bytes()))
    return found


def last_records(found: dict[str, Stage]) -> Stage:
    """The last stage before format: its rows are the dataset as records."""
    return [stage for name, stage in found.items() if name != "format"][-1]


def synthetic() -> pl.Expr:
    """Whether augment made a row, from its `meta`."""
    return pl.col("meta").str.contains('"synthetic":', literal=True)


def most(counts: dict[str, int], limit: int) -> tuple[dict[str, int], int]:
    """The largest `limit` of some counts, ties by name, and the sum of the others.

    >>> most({"a": 1, "b": 3, "c": 1}, 2)
    ({'b': 3, 'a': 1}, 1)
    """
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:limit]), sum(count for _, count in ordered[limit:])


def shortened(text: str, limit: int = 120) -> str:
    """A name from the data as it is shown and counted: at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def labels_by_split(last: Stage) -> dict[str, dict[str, int]]:
    """label -> split -> rows, the labels with most rows first (at most MOST); `synthetic` is counted beside the splits."""
    of = last.kept("label", "meta").group_by(pl.col("label").fill_null(NO_LABEL), "split", synthetic().alias("made")).len()
    wide = of.collect(engine="streaming")
    per = wide.group_by("label").agg(
        *(pl.col("len").filter(pl.col("split") == split).sum().alias(split) for split in SPLITS),
        pl.col("len").filter("made").sum().alias("synthetic"),
    )
    per = per.with_columns(pl.sum_horizontal(SPLITS).alias("rows")).sort("rows", "label", descending=[True, False]).head(MOST)
    return {shortened(row["label"]): {name: row[name] for name in (*SPLITS, "synthetic")} for row in per.to_dicts()}


def folder_hash(folder: Path) -> dict[str, Any]:
    """xxh3-128 over the names and bytes of the parts of a stage, and their rows: the same data has the same hash anywhere."""
    digest, rows = xxhash.xxh3_128(), 0
    for part in store.parts(folder):
        digest.update(f"{part.split}/{part.path.name}\0".encode())
        with part.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        rows += pq.read_metadata(part.path).num_rows
    return {"hash": digest.hexdigest(), "rows": rows}
