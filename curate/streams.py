"""Raw files as streams of bytes and of lines: decompressed, without byte order mark, never more than a chunk and a row in hand."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

CHUNK = 1 << 20
Problem = tuple[str, str]  # reason, detail


class Broken(Exception):
    """The file cannot be read further: compressed data that ends early or is damaged, or an encoding that is not UTF-8."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.problem: Problem = (reason, detail)


CUT = Broken("truncated_file", "The compressed file ends early; the rows before this one were read. Fetch the file again.")
DAMAGED = Broken("unreadable_file", "The compressed data is damaged from here on; the rows before this one were read.")


def chunks(path: Path, compression: str) -> Iterator[bytes]:
    """The decompressed bytes without byte order mark. Raises Broken after the last good ones."""
    raw = {"": _plain, "gz": _gunzip, "zst": _unzstd}[compression](path)
    head, broken = b"", None
    try:
        for chunk in raw:
            head += chunk
            if len(head) >= 3:
                break
    except Broken as error:
        broken = error
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise Broken("invalid_utf8", "The file is UTF-16. Save it as UTF-8.")
    if head:
        yield head.removeprefix(b"\xef\xbb\xbf")
    if broken is not None:
        raise broken
    yield from raw


def _plain(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _gunzip(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        while True:
            try:
                chunk = file.read1(CHUNK)  # unlike read, hands over what it has before it fails
            except EOFError:
                raise CUT from None
            except (gzip.BadGzipFile, zlib.error):
                raise DAMAGED from None
            if not chunk:
                return
            yield chunk


def _unzstd(path: Path) -> Iterator[bytes]:
    done = 0
    with path.open("rb") as file, pa.CompressedInputStream(file, "zstd") as stream:
        while True:
            try:
                chunk = stream.read(CHUNK)
            except OSError as error:
                broken = CUT if "Truncated" in str(error) else DAMAGED
                break
            if not chunk:
                return
            done += len(chunk)
            yield chunk
    yield from _last_of_zstd(path, done)
    raise broken


def _last_of_zstd(path: Path, done: int) -> Iterator[bytes]:
    """What a broken file holds beyond `done` bytes: a failing read loses all it had, so these are read one by one."""
    with path.open("rb") as file, pa.CompressedInputStream(file, "zstd") as stream:
        while done > 0:
            done -= len(stream.read(min(done, CHUNK)))
        last = bytearray()
        try:
            while byte := stream.read(1):
                last += byte
        except OSError:
            pass  # the break that the caller reports
        yield bytes(last)


def too_large(limit: int) -> Problem:
    """The problem of a row above `limit` bytes."""
    return "row_too_large", f"The row has more than {limit} bytes (ingest.max_row_bytes)."


def lines(stream: Iterator[bytes], limit: int) -> Iterator[tuple[int, bytes, Problem | None]]:
    """(1-based number, line without its newline, problem). Of a line above `limit` bytes only its number is given."""
    number, rest, skipping = 1, b"", False
    try:
        for chunk in stream:
            pieces = chunk.split(b"\n")
            pieces[0] = rest + pieces[0]
            rest = pieces.pop()
            for piece in pieces:
                if skipping or len(piece) > limit:
                    skipping = False
                    yield number, b"", too_large(limit)
                else:
                    yield number, piece, None
                number += 1
            skipping = skipping or len(rest) > limit
            if skipping:
                rest = b""
    except Broken as error:
        yield number, b"", error.problem
        return
    if skipping:
        yield number, b"", too_large(limit)
    elif rest:
        yield number, rest, None
