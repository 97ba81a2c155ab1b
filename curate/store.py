"""Parquet parts in, parquet parts out: in fixed batches, in order, and only ever as a whole.

The bytes written depend on the rows and on `part_rows` alone, not on how the input was cut or how many workers made the rows: row
groups are cut at fixed row and byte counts, and a part holds whole row groups.
"""

import contextlib
import fcntl
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate.memory import Exported
from curate.record import SPLITS, InputError

GROUP_ROWS = 4096  # rows of one row group, which is also one batch of work
GROUP_BYTES = 32 << 20  # a row group closes at this size, so that a batch of long documents fits in memory
PART_ROWS = 250_000
PART_BYTES = 128 << 20  # a part is encoded by a thread of its own: the end of one beside the start of the next
UNDER_WAY = 128 << 20  # bytes of row groups that may wait to be encoded
OUTPUTS = ("kept", "metrics.json", "base.json", "adapter")  # one of these is in every output folder
LOCK = ".under-way"  # in a folder that is being written


@dataclass(frozen=True)
class Part:
    """One parquet file of rows; `split` is empty before the split stage."""

    path: Path
    split: str
    rows: int
    bytes: int  # as columns, before compression


def parts(folder: Path) -> list[Part]:
    """The parts under `folder` (or its `kept/`), in order: train, validation, test where there are splits, then by name.

    Raises InputError if there are none, or one cannot be read.
    """
    root = folder / "kept" if (folder / "kept").is_dir() else folder
    if not root.is_dir():
        raise InputError(f"{folder}: no such folder. Run the stage before this one first (`dvc repro` does).")
    found = [(split, path) for split in ("", *SPLITS) for path in sorted((root / split).glob("*.parquet"))]
    found = [(split, path) for split, path in found if path.name not in ("dropped.parquet",)]
    if not found:
        raise InputError(f"{root}: holds no part-*.parquet. Run the stage before this one first (`dvc repro` does).")
    return [Part(path, split, *_size(path)) for split, path in found]


def _size(path: Path) -> tuple[int, int]:
    """Rows and bytes."""
    try:
        metadata = pq.read_metadata(path)
        return int(metadata.num_rows), sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({error}). Remove it and run the stage that wrote it again.") from None


def batches(folder: Path, columns: list[str] | None = None, skip: int = 0) -> Iterator[pl.DataFrame]:
    """The rows of all parts in batches, with two columns in front: `row` (u32, position in the whole) and `split`. `skip`: without the
    first so many batches."""
    at = 0
    for part in parts(folder):
        with pq.ParquetFile(part.path) as file:
            for group in range(file.num_row_groups):  # on its own: a batch over several would undo their limit in bytes
                rows_of_group = file.metadata.row_group(group).num_rows
                batches_of_group = -(-rows_of_group // GROUP_ROWS)
                if skip >= batches_of_group:
                    at, skip = at + rows_of_group, skip - batches_of_group
                    continue
                for batch in file.iter_batches(GROUP_ROWS, row_groups=[group], columns=columns):
                    if skip:
                        at, skip = at + batch.num_rows, skip - 1
                        continue
                    rows = pl.Series(Exported(batch)).struct.unnest()
                    yield rows.select(
                        pl.int_range(at, at + rows.height, dtype=pl.UInt32).alias("row"), pl.lit(part.split).alias("split"), pl.all()
                    )
                    at += rows.height


def read_rows(folder: Path, split: str | None = None, columns: list[str] | None = None) -> pl.DataFrame:
    """All rows of a folder (or of one split of it) as one frame. For small sets only: stages stream instead."""
    wanted = [part.path for part in parts(folder) if split in (None, part.split)]
    if not wanted:
        raise InputError(f"{folder}: has no split '{split}'. Its parts are {[p.split or p.path.name for p in parts(folder)]}.")
    return pl.concat([pl.read_parquet(path, columns=columns) for path in wanted])


@dataclass
class PartWriter:
    """Writes frames of one schema as `part-00000.parquet`, `part-00001.parquet`, … under `folder`."""

    folder: Path
    schema: pa.Schema
    part_rows: int = PART_ROWS
    _waiting: list[pl.DataFrame] = field(default_factory=list)
    _waiting_rows: int = 0
    _waiting_bytes: int = 0
    _file: "_PartFile | None" = None
    _part: int = 0
    _in_part: int = 0
    _part_bytes: int = 0
    _under_way: deque[tuple[int, Future[None]]] = field(default_factory=deque)  # bytes of groups that are encoded while others are made

    def write(self, rows: pl.DataFrame) -> None:
        """Take `rows`; they reach the disk when a row group is full."""
        self._waiting.append(rows)
        self._waiting_rows += rows.height
        self._waiting_bytes += int(rows.estimated_size())
        if self._waiting_rows >= min(GROUP_ROWS, self.part_rows) or self._waiting_bytes >= GROUP_BYTES:
            self._flush(last=False)

    def close(self) -> None:
        """Write what is waiting. A writer that got no rows leaves one part of no rows, so that the columns are known."""
        self._flush(last=True)
        if self._file is None and self._part == 0:
            self._open()
        self._close_part()
        self._wait(0)

    def _flush(self, last: bool) -> None:
        if not self._waiting:
            return
        rows = pl.concat(self._waiting)
        sizes = np.cumsum(row_bytes(rows))
        start = 0
        while start < rows.height:
            limit = min(GROUP_ROWS, self.part_rows - self._in_part)
            before = int(sizes[start - 1]) if start else 0
            full = int(np.searchsorted(sizes, before + GROUP_BYTES, side="left")) + 1  # the row that reaches the limit is the last
            stop = min(start + limit, full)
            if stop > rows.height and not last:
                break
            stop = min(stop, rows.height)
            self._write_group(rows[start:stop], int(sizes[stop - 1] - before))
            start = stop
        rest = rows[start:]
        self._waiting = [rest] if rest.height else []
        self._waiting_rows = rest.height
        self._waiting_bytes = int(sizes[-1]) - (int(sizes[start - 1]) if start else 0) if rest.height else 0

    def _write_group(self, rows: pl.DataFrame, size: int) -> None:
        if self._file is None:
            self._open()
        assert self._file is not None
        self._wait(UNDER_WAY - size)
        self._under_way.append((size, self._file.write(_as_table(rows, self.schema), rows.height)))
        self._in_part += rows.height
        self._part_bytes += size
        if self._in_part >= self.part_rows or self._part_bytes >= PART_BYTES:
            self._close_part()

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = _PartFile(self.folder / f"part-{self._part:05d}.parquet", self.schema)

    def _wait(self, size: int) -> None:
        """Until at most `size` bytes are under way; raises what went wrong with those that were."""
        under_way = sum(each for each, _ in self._under_way)
        while self._under_way and under_way > size:
            done, future = self._under_way.popleft()
            future.result()
            under_way -= done

    def _close_part(self) -> None:
        if self._file is not None:
            self._under_way.append((1, self._file.close()))
            self._file, self._part, self._in_part, self._part_bytes = None, self._part + 1, 0, 0


class _PartFile:
    """A part that is being written, by a thread of its own: the end of one part is encoded and compressed beside the start of the next."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = pq.ParquetWriter(path, schema, compression="zstd")
        self.thread = ThreadPoolExecutor(1)

    def write(self, table: pa.Table, rows: int) -> Future[None]:
        return self.thread.submit(self.file.write_table, table, max(rows, 1))

    def close(self) -> Future[None]:
        last = self.thread.submit(self.file.close)
        self.thread.shutdown(wait=False)
        return last


def row_bytes(rows: pl.DataFrame) -> np.ndarray:
    """A size for each row in bytes, from its own values alone: text lengths, 8 for every number."""
    return rows.select(size=pl.sum_horizontal([_bytes_of(pl.col(name), kind).fill_null(0) for name, kind in rows.schema.items()]))[
        "size"
    ].to_numpy()


def _bytes_of(column: pl.Expr, kind: pl.DataType) -> pl.Expr:
    if isinstance(kind, pl.String):
        return column.str.len_bytes().cast(pl.Int64)
    if isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct):
        return column.list.eval(pl.element().struct.field("content").str.len_bytes().cast(pl.Int64)).list.sum()
    if isinstance(kind, pl.List):
        return column.list.len().cast(pl.Int64) * 8
    return pl.lit(8, dtype=pl.Int64)


def arrow_schema(schema: Mapping[str, pl.DataType]) -> pa.Schema:
    """The Arrow schema of the parts: what polars gives for `schema`, fixed here so that every part of every stage has it."""
    return pl.DataFrame(schema=dict(schema)).to_arrow().schema


def _as_table(rows: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    table = rows.to_arrow()
    return table if table.schema.equals(schema) else table.cast(schema)  # a cast loads pyarrow.compute, even where it has nothing to do


def write_parquet(rows: pl.DataFrame, path: Path) -> None:
    """One small table (dropped rows, pairs, …) with the same bytes for the same rows."""
    with pq.ParquetWriter(path, arrow_schema(rows.schema), compression="zstd") as file:
        for at in range(0, rows.height, 1 << 16):
            file.write_table(_as_table(rows[at : at + (1 << 16)], file.schema))


def write_ipc(rows: pl.DataFrame, path: Path) -> None:
    """A scratch frame for `map_ipc`."""
    table = rows.to_arrow()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def map_ipc(path: Path) -> pl.DataFrame:
    """A frame over the mapped file: numbers and lists of numbers stay on disk until read, and can be paged out again."""
    with pa.memory_map(str(path)) as file:
        frame = pl.from_arrow(pa.ipc.open_file(file).read_all(), rechunk=False)
    assert isinstance(frame, pl.DataFrame)
    return frame


@contextlib.contextmanager
def whole_folder(out: Path, private: bool = False) -> Iterator[Path]:
    """A scratch folder beside `out` that becomes `out` by rename when the block ends well, and vanishes when it does not.

    A folder that holds something else than an earlier output is refused with InputError: it would be replaced whole. What a killed run
    left behind is removed first; `out` as it was stays until the new one is complete. A lock file tells a run that was killed from one
    that is under way: the system lets go of it with the process.
    """
    _refuse_foreign(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(f".{out.name}.old")
    _clear_leftovers(out, old)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir(mode=0o700 if private else 0o777)
    try:
        with (partial / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield partial
            (partial / LOCK).unlink()
            if out.exists():
                out.rename(old)
            partial.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file. Name a folder for the output.")
    if Path.cwd().resolve().is_relative_to(out.resolve()) or (
        out.exists() and any(out.iterdir()) and not any((out / name).exists() for name in OUTPUTS)
    ):
        raise InputError(f"{out}: holds files that no stage wrote, and the output would replace them all. Name a new or empty folder.")


def _clear_leftovers(out: Path, old: Path) -> None:
    if old.exists() and not out.exists():  # killed between the two renames
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    for partial in out.parent.glob(f".{out.name}.partial-*"):
        if not _under_way(partial):
            shutil.rmtree(partial, ignore_errors=True)


def _under_way(partial: Path) -> bool:
    try:
        with (partial / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def write_whole(path: Path, content: bytes) -> None:
    """One file, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
