"""Rows of a stage's output by number: a narrow index in memory (about 30 bytes a row), texts read from parquet when they are asked for."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from curate import store
from curate.record import InputError

HELD_BYTES = 96 << 20  # of decoded row groups kept for the next row
NOT_THERE = -1


class Rows:
    """The rows under `folder`, numbered from 0 in the order of its parts.

    `labels` and `sources` are the names that occur, sorted; `label` and `source` hold the position of each row's own (int32), -1 for none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths = [part.path for part in store.parts(folder)]
        self._stamp = _stamp(self._paths)
        self._files = [pq.ParquetFile(path) for path in self._paths]  # held open: a run of the pipeline puts new files in their place
        self._groups = [(at, group) for at, file in enumerate(self._files) for group in range(file.num_row_groups)]
        sizes = [self._files[at].metadata.row_group(group).num_rows for at, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.count = int(self._starts[-1])
        self.labels, self.label = self._codes("label")
        self.sources, self.source = self._codes("source")
        self._index_ids()
        self._held: OrderedDict[int, pl.DataFrame] = OrderedDict()
        self._lock = threading.Lock()

    def _column(self, name: str) -> Iterable[pl.Series]:
        for file in self._files:
            yield pl.Series(name, file.read([name]).column(0), dtype=pl.String)

    def _codes(self, name: str) -> tuple[list[str], np.ndarray]:
        names: set[str] = set()
        for values in self._column(name):
            names.update(values.drop_nulls().unique().to_list())
        listed = sorted(names)
        kind = pl.Enum(listed)
        parts = [values.cast(kind).to_physical().cast(pl.Int32).fill_null(NOT_THERE).to_numpy() for values in self._column(name)]
        return listed, np.concatenate(parts)

    def _index_ids(self) -> None:
        halves = [_halves(values) for values in self._column("id")]
        self._high = np.concatenate([high for high, _ in halves])
        self._low = np.concatenate([low for _, low in halves])
        self._order = np.argsort(self._high, kind="stable").astype(np.int32)
        self._sorted = self._high[self._order]

    @property
    def stale(self) -> bool:
        """Whether the files were replaced since they were opened."""
        return _stamp(self._paths) != self._stamp

    def id(self, row: int) -> str:
        """The id of a row, 32 hex digits."""
        return f"{int(self._high[row]):016x}{int(self._low[row]):016x}"

    def find(self, ids: pl.Series) -> np.ndarray:
        """The first row of each id (int64); -1 where there is none."""
        high, low = _halves(ids)
        if not self.count or not len(high):
            return np.full(len(high), NOT_THERE)
        at = np.minimum(np.searchsorted(self._sorted, high), self.count - 1)
        row = self._order[at].astype(np.int64)
        return np.where((self._high[row] == high) & (self._low[row] == low), row, NOT_THERE)

    def same(self, row_id: str) -> np.ndarray:
        """All rows of an id: the same content can stand in several raw rows."""
        high, low = _halves(pl.Series([row_id]))
        left, right = (np.searchsorted(self._sorted, high[0], side=side) for side in ("left", "right"))
        rows = self._order[left:right]
        found: np.ndarray = rows[self._low[rows] == low[0]]
        return found

    def shuffled(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """`rows` in an order drawn by seed and id: a row keeps its place among the others when some are added."""
        mixed = (self._high[rows] ^ (self._low[rows] + np.uint64(seed % 2**64))) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing
        return rows[np.argsort(mixed ^ (mixed >> np.uint64(32)), kind="stable")]

    def read(self, row: int) -> dict[str, Any]:
        """The record of a row."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._group(group).row(row - int(self._starts[group]), named=True)

    def _group(self, group: int) -> pl.DataFrame:
        with self._lock:
            if group not in self._held:
                at, inner = self._groups[group]
                frame = pl.DataFrame(self._files[at].read_row_group(inner))
                size = frame.estimated_size()
                while self._held and sum(each.estimated_size() for each in self._held.values()) + size > HELD_BYTES:
                    self._held.popitem(last=False)
                self._held[group] = frame
            self._held.move_to_end(group)
            return self._held[group]

    def containing(self, text: str, rows: np.ndarray) -> np.ndarray:
        """Which of `rows` (bool, same length) hold `text` in a message, upper and lower case alike. Reads the row groups of these rows."""
        pattern = "(?i)" + pl.escape_regex(text)
        hit = np.zeros(self.count, dtype=bool)
        for group in np.unique(np.searchsorted(self._starts, rows, side="right") - 1):
            at, inner = self._groups[int(group)]
            with self._lock:
                frame = pl.DataFrame(self._files[at].read_row_group(inner, columns=["messages", "rejected"]))
            for field in ("messages", "rejected"):
                flat = frame.select(pl.int_range(pl.len()).alias("at"), pl.col(field)).filter(pl.col(field).list.len() > 0).explode(field)
                places = flat.filter(pl.col(field).struct.field("content").str.contains(pattern).fill_null(False))["at"]
                hit[places.to_numpy() + self._starts[group]] = True
        found: np.ndarray = hit[rows]
        return found


def _halves(ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Ids as two 64-bit numbers each."""
    high, low = (
        ids.str.slice(start, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy() for start in (0, 16)
    )
    return high, low


def _stamp(paths: list[Path]) -> list[tuple[int, int]]:
    try:
        return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    except FileNotFoundError:
        return []


def read_elsewhere(folder: Path, row_id: str) -> dict[str, Any] | None:
    """A row of another stage's output by its id, or None: for the few rows that are shown beside another one."""
    try:
        paths = [part.path for part in store.parts(folder)]
    except InputError:
        return None
    found = pl.scan_parquet(paths).filter(pl.col("id") == row_id).head(1).collect()
    return found.row(0, named=True) if found.height else None
