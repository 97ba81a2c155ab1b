"""Answers of a judge on disk, by what was asked: a run asks nothing that an earlier run asked, and a kill loses at most one batch.

A file of JSON lines, `{"key", "request", "answer", "cut"}`, that only ever grows; in memory are the keys and where their lines begin.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from curate.record import InputError
from curate.stage import write_whole

Entry = dict[str, Any]


class Answers:
    """The answers in `path` and those of `earlier` files (what an earlier run left), which are taken over."""

    def __init__(self, path: Path, earlier: Sequence[Path] = ()) -> None:
        self.path = path
        self.places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        _cut_to_whole_lines(path)
        for offset, entry in _lines(path):
            self.places[entry["key"]] = offset
        for other in earlier:
            if other.is_file():
                self.add([entry for _, entry in _lines(other) if entry["key"] not in self.places])

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def __getitem__(self, key: str) -> Entry:
        with self.path.open("rb") as file:
            return _at(file, self.places[key])

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in a batch, by one write."""
        end = self.path.stat().st_size
        lines = [orjson.dumps(entry) + b"\n" for entry in entries]
        with self.path.open("ab", buffering=0) as file:
            file.write(b"".join(lines))
        for entry, line in zip(entries, lines, strict=True):
            self.places[entry["key"]] = end
            end += len(line)

    def get(self, keys: Sequence[str]) -> Iterator[Entry | None]:
        """The entries of these keys, in this order; None where there is none."""
        with self.path.open("rb") as file:
            for key in keys:
                yield _at(file, self.places[key]) if key in self.places else None

    def write(self, keys: Sequence[str], path: Path) -> None:
        """A file of the entries of these keys alone, each once, in this order."""
        text = io.BytesIO()
        for entry in self.get(list(dict.fromkeys(keys))):
            if entry is not None:
                text.write(orjson.dumps(entry) + b"\n")
        write_whole(path, text.getvalue())


def _at(file: Any, offset: int) -> Entry:
    file.seek(offset)
    entry: Entry = orjson.loads(file.readline())
    return entry


def _lines(path: Path) -> Iterator[tuple[int, Entry]]:
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = orjson.loads(line)
                known = isinstance(entry["key"], str) and isinstance(entry["answer"], str)
            except (orjson.JSONDecodeError, KeyError, TypeError):
                known = False
            if not known:
                raise InputError(
                    f"{path}: line {number} is no answer of a judge. Mend or remove the file: what it holds is asked for again."
                )
            yield offset, entry
            offset += len(line)


def _cut_to_whole_lines(path: Path) -> None:
    """Cuts off what a kill left of a line."""
    with path.open("rb+") as file:
        end = file.seek(0, io.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 16))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
