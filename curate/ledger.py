"""Files of JSON lines that people and programs append to, and git keeps: decisions and approvals.

A line is written by one call under a lock on the file and is on the disk when `append` returns. What a killed writer left of a line was
never confirmed: readers pass over it, and the next writer moves it into `<name>.torn` beside the file.
"""

import datetime
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError

from curate.record import InputError

MOST_BYTES = 4 << 20  # of one line; as `ingest.max_row_bytes` as shipped
NAME_CHARS = 100
Line = TypeVar("Line")
LONGEST = f"{MOST_BYTES >> 20} MiB"


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based line, object) of every line but blank ones. Raises InputError that names file and line."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. An empty one will do: `touch {path}`.") from None
    yield from _parsed(content, path)


def _parsed(content: bytes, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_whole(content).split(b"\n"), 1):
        if not line.strip():
            continue
        if len(line) > MOST_BYTES:
            raise InputError(f"{path}, line {number}: longer than {LONGEST}. Take it out.")
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            marks = line.startswith((b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||"))
            mend = (
                "git left a conflict here: keep the lines of both sides and take its marks out" if marks else "mend the line or take it out"
            )
            raise InputError(f"{path}, line {number}: not JSON ({error}); {mend}.") from None
        if not isinstance(found, dict):
            raise InputError(f"{path}, line {number}: expected an object, found {type(found).__name__}. Mend the line or take it out.")
        yield number, found


def _whole(content: bytes) -> bytes:
    """`content` without a last line that has no end and is not JSON: a writer was killed there."""
    head, _, last = content.rpartition(b"\n")
    return content if _is_json(last) else head


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return not line.strip()
    return True


def append(path: Path, make: Callable[[Iterator[tuple[int, dict[str, Any]]]], dict[str, Any]]) -> None:
    """Append the object that `make` returns for the objects that stand in the file; nobody else writes meanwhile.

    Raises InputError where the file cannot be read or the line would be longer than 4 MiB, and whatever `make` raises; the file is then as
    it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(file.fileno(), path):  # another program, such as git, put a new file in its place
                continue
            file.seek(0)
            content = file.read()
            assert content is not None
            line = orjson.dumps(make(_parsed(content, path))) + b"\n"
            if len(line) > MOST_BYTES:
                raise InputError(f"{path}: a line of {len(line):,} bytes is longer than {LONGEST}. Shorten its text.")
            whole = _whole(content)
            if len(whole) < len(content):
                _set_aside(content[len(whole) :], path.with_name(f"{path.name}.torn"))
                file.truncate(len(whole))
            start = b"\n" if whole and not whole.endswith(b"\n") else b""
            _write(file.fileno(), start + line, len(whole))
            return


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _set_aside(torn: bytes, path: Path) -> None:
    with path.open("ab") as file:
        file.write(torn.lstrip(b"\n") + b"\n")


def _write(handle: int, content: bytes, before: int) -> None:
    """All of `content` on the disk, or the file cut back to its size `before`."""
    try:
        written = 0
        while written < len(content):
            written += os.write(handle, content[written:])
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, before)
        raise


def utc(time: str) -> str:
    """A time of ISO 8601 as it is written in the file. Raises ValueError where it has no offset or is none.

    >>> utc("2026-11-26T10:30:00+01:00")
    '2026-11-26T09:30:00.000000Z'
    """
    try:
        found = datetime.datetime.fromisoformat(time)
    except ValueError:
        raise ValueError(f"time {time[:40]!r} is not ISO 8601, such as 2026-11-26T09:30:00Z") from None
    if found.tzinfo is None:
        raise ValueError(f"time {time!r} has no offset; write UTC, such as 2026-11-26T09:30:00Z")
    return found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now() -> str:
    """This moment, as it is written in the file."""
    return utc(datetime.datetime.now(datetime.UTC).isoformat())


def check_name(reviewer: str) -> None:
    """Raises ValueError for what is no name of a person to stand in a line."""
    if not reviewer.strip() or len(reviewer) > NAME_CHARS or not reviewer.isprintable():
        raise ValueError(f"reviewer must be a name of 1 to {NAME_CHARS} printable characters")


def parse(kind: type[Line], found: Mapping[str, Any]) -> Line:
    """A line as an object of `kind` (a params class). Raises InputError that says what is wrong with it."""
    try:
        return TypeAdapter(kind).validate_json(orjson.dumps(found))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        what = str(first["ctx"]["error"]) if first["type"] == "value_error" else f"{where}: {first['msg']}"
        raise InputError(f"{what}.") from None


def as_json(line: Any) -> dict[str, Any]:
    """The object that stands in the file for a line: without what is null, but for what lies deeper."""
    return {name: value for name, value in asdict(line).items() if value is not None}


def read(kind: type[Line], path: Path) -> list[Line]:
    """All lines in the order of the file; each must have a `time`. Raises InputError that names the file and the line."""
    result: list[Line] = []
    for number, found in lines(path):
        try:
            if not found.get("time"):
                raise InputError("'time' is missing.")
            result.append(parse(kind, found))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error} Mend the line or take it out.") from None
    return result
