"""Tables cut into raw rows: comma- and tab-separated text (RFC 4180), parquet, Arrow."""

import csv
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from curate.containers import RawRow
from curate.streams import Problem, lines, too_large

BATCH_BYTES = 16 << 20  # of columns decoded at once
BATCH_ROWS = 4096


def delimited(stream: Iterator[bytes], limit: int, delimiter: str) -> Iterator[RawRow]:
    """A header and its records; `line` is the line of the file that a record starts on.

    Where the header of a .csv has no comma but semicolons or tabs, these separate. In a .tsv a record that is not quoted by the rules is
    taken as it stands, cut at tabs.
    """
    csv.field_size_limit(max(limit, csv.field_size_limit()))  # the reader's own limit, of 128 KiB, would fail with no way on
    feed = _Feed(lines(stream, limit), limit)
    found = _records(feed, feed.separator(delimiter), delimiter == "\t")
    first = next(found, None)
    if first is None:
        return
    at, names, problem = first
    if problem:
        yield at, None, problem[0], f"In the header: {problem[1]}"
        return
    names = [name.strip() or f"column_{place}" for place, name in enumerate(names, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    for at, cells, problem in found:
        if problem:
            yield at, None, *problem
        elif twice:
            yield at, None, "duplicate_header", f"{len(twice)} name(s) stand more than once in the header; name every column differently."
        elif len(cells) != len(names):
            yield at, None, "wrong_columns", f"The row has {len(cells)} cells, the header {len(names)}."
        else:
            try:
                yield at, orjson.dumps(dict(zip(names, cells, strict=True))), None, None
            except TypeError:  # bytes that were no UTF-8 came through as lone surrogates
                yield at, None, "invalid_utf8", "The row holds bytes that are not UTF-8. Save the file as UTF-8."


class _TooLarge(Exception):
    """A record of many lines went over the limit."""


class _Stop(Exception):
    """The file cannot be read on, or a line of it is too large."""

    def __init__(self, line: int, problem: Problem) -> None:
        super().__init__(line)
        self.line, self.problem = line, problem


class _Feed:
    """Lines for csv.reader, which remembers those of the record at hand so that they can be given again."""

    def __init__(self, source: Iterator[tuple[int, bytes, Problem | None]], limit: int) -> None:
        self.source, self.limit = source, limit
        self.again: deque[tuple[int, bytes]] = deque()
        self.taken: list[tuple[int, bytes]] = []
        self.size = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        number, line = self.again.popleft() if self.again else self._fresh()
        self.taken.append((number, line))
        self.size += len(line) + 1
        if self.size > self.limit + 1:
            raise _TooLarge
        return line.decode("utf-8", "surrogateescape") + "\n"

    def _fresh(self) -> tuple[int, bytes]:
        number, line, problem = next(self.source)
        if problem:
            raise _Stop(number, problem)
        return number, line

    def begin(self) -> None:
        self.taken, self.size = [], 0

    def rewind(self) -> tuple[int, bytes]:
        """The first line of the record; the others will be given again."""
        self.again.extendleft(reversed(self.taken[1:]))
        return self.taken[0]

    def pass_record(self) -> None:
        """Go on to the end of a record that is too large: where its quotes are even in number."""
        quotes = sum(line.count(b'"') for _, line in self.taken)
        while quotes % 2:
            try:
                _, line = self.again.popleft() if self.again else self._fresh()
            except StopIteration:
                return
            quotes += line.count(b'"')

    def separator(self, usual: str) -> str:
        try:
            number, line = self._fresh()
        except (StopIteration, _Stop) as error:
            if isinstance(error, _Stop):
                self.source = iter([(error.line, b"", error.problem)])
            return usual
        self.again.append((number, line))
        other = [each for each in (";", "\t") if usual == "," and "," not in line.decode("utf-8", "replace") and each.encode() in line]
        return other[0] if other else usual


def _records(feed: _Feed, separator: str, loose: bool) -> Iterator[tuple[int, list[str], Problem | None]]:
    """(line it starts on, cells, problem) of every record but blank lines."""
    reader = csv.reader(feed, delimiter=separator, strict=True)
    while True:
        feed.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _TooLarge:
            start = feed.taken[0][0]
            feed.pass_record()
            yield start, [], too_large(feed.limit)
        except _Stop as stop:
            yield feed.taken[0][0] if feed.taken else stop.line, [], stop.problem
        except csv.Error:
            start, line = feed.rewind()
            if loose:
                yield start, line.decode("utf-8", "surrogateescape").rstrip("\r").split(separator), None
            else:
                yield (
                    start,
                    [],
                    ("bad_quotes", "A quote is not closed, or text follows a closing quote. Quote the cell and double quotes in it."),
                )
        else:
            if cells:
                yield feed.taken[0][0], cells, None


def parquet(path: Path, limit: int) -> Iterator[RawRow]:
    """The rows of a parquet file; `line` counts them."""
    path.open("rb").close()  # what the system forbids is an error of the run, not of the data
    done = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            size = sum(file.metadata.row_group(at).total_byte_size for at in range(file.metadata.num_row_groups))
            count = max(1, min(BATCH_ROWS, BATCH_BYTES * max(file.metadata.num_rows, 1) // max(size, 1)))
            for batch in file.iter_batches(count):
                yield from _rows(batch, done, limit)
                done += batch.num_rows
    except (pa.ArrowException, OSError):
        yield _unreadable(done, "parquet")


def arrow(path: Path, limit: int) -> Iterator[RawRow]:
    """The rows of an Arrow file or stream (Feather version 2, `datasets`); `line` counts them."""
    path.open("rb").close()
    done = 0
    try:
        with pa.memory_map(str(path)) as file:
            for batch in _record_batches(file):
                for at in range(0, batch.num_rows, 256):
                    yield from _rows(batch.slice(at, 256), done + at, limit)
                done += batch.num_rows
    except (pa.ArrowException, OSError):
        yield _unreadable(done, "Arrow")


def _record_batches(file: Any) -> Iterator[pa.RecordBatch]:
    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if not is_file:
        yield from pa.ipc.open_stream(file)
        return
    reader = pa.ipc.open_file(file)
    for at in range(reader.num_record_batches):
        yield reader.get_batch(at)


def _unreadable(done: int, kind: str) -> RawRow:
    if done == 0:
        return (
            0,
            None,
            "unreadable_file",
            f"Not a readable {kind} file: damaged, cut short or of another kind. Fetch it again or remove it.",
        )
    return done + 1, None, "unreadable_file", f"The {kind} file is damaged from this row on; the rows before it were read."


def _rows(batch: pa.RecordBatch, done: int, limit: int) -> Iterator[RawRow]:
    names = batch.schema.names
    if len(set(names)) < len(names):
        for at in range(batch.num_rows):
            yield done + at + 1, None, "duplicate_header", "A column name stands more than once; name every column differently."
        return
    classes = _class_names(batch.schema)
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:  # somewhere in the batch: find the rows
        rows = [_one(batch.slice(at, 1)) for at in range(batch.num_rows)]
    for line, row in enumerate(rows, done + 1):
        if row is None:
            yield line, None, "invalid_utf8", "The row holds bytes that are not UTF-8."
            continue
        for name, words in classes.items():
            if isinstance(row[name], int) and 0 <= row[name] < len(words):
                row[name] = words[row[name]]
        try:
            raw = orjson.dumps(row, default=_plain)
        except (TypeError, UnicodeDecodeError):
            yield line, None, "invalid_utf8", "The row holds bytes that are not UTF-8."
            continue
        yield (line, None, *too_large(limit)) if len(raw) > limit else (line, raw, None, None)


def _one(batch: pa.RecordBatch) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = batch.to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return row


def _plain(value: Any) -> str:
    """What JSON has no type for, as text: bytes must be UTF-8; decimals, durations and the like as Python prints them."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _class_names(schema: pa.Schema) -> Mapping[str, list[str]]:
    """The names behind the numbers of `datasets.ClassLabel` columns, which the library stores beside the schema."""
    stored = (schema.metadata or {}).get(b"huggingface")
    if stored is None:
        return {}
    try:
        features = orjson.loads(stored)["info"]["features"]
        return {
            name: feature["names"]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return {}  # metadata of another make: the numbers stay
