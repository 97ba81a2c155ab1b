"""Raw files cut into raw rows: (line, JSON bytes) or (line, what is wrong). Never more than a row of text in hand.

A container that breaks in the middle gives the rows before the break, then one row that says where it broke.
"""

import re
from collections.abc import Iterator

import orjson

from curate.streams import Broken, lines, too_large

RawRow = tuple[int, bytes | None, str | None, str | None]  # line, JSON, reason, detail


def jsonl(stream: Iterator[bytes], limit: int) -> Iterator[RawRow]:
    """One object a line; blank lines are passed over."""
    for number, line, problem in lines(stream, limit):
        if problem:
            yield number, None, *problem
        elif line and not line.isspace():
            yield number, line, None, None


def document(stream: Iterator[bytes], limit: int) -> Iterator[RawRow]:
    """The whole file as the text of one row, with line feeds for line ends."""
    whole, problem = b"", None
    try:
        for chunk in stream:
            whole += chunk
            if len(whole) > limit:
                yield 1, None, *too_large(limit)
                return
    except Broken as error:
        problem = error.problem
    try:
        text = whole.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        problem = problem or ("invalid_utf8", f"Byte {error.start + 1} of the file is not UTF-8. Save it as UTF-8.")
    if problem:
        yield 1, None, *problem
    else:
        yield 1, orjson.dumps({"text": text}), None, None


def json_list(stream: Iterator[bytes], limit: int) -> Iterator[RawRow]:
    """The elements of one list, or objects one after the other (a single one, or JSON lines called .json); `line` counts them."""
    scan, at = _Scan(limit), 0
    try:
        for chunk in stream:
            for element in scan.feed(chunk):
                at += 1
                yield _element_row(at, element, limit)
    except Broken as error:
        yield at + 1, None, *error.problem
        return
    last = scan.rest()
    if last != b"" and not scan.cut():
        at += 1
        yield _element_row(at, last, limit)
    if scan.is_list:
        yield at + 1, None, "truncated_file", "The file ends before its list is closed; the rows before this one were read."


def _element_row(at: int, element: bytes | None, limit: int) -> RawRow:
    return (at, None, *too_large(limit)) if element is None else (at, element, None, None)


_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}\[\],]|"', re.DOTALL)  # a string, a bracket, a comma, a string that has not ended yet
_STRING_END = re.compile(rb'(?:[^"\\]++|\\.)*+"', re.DOTALL)
SLACK = 4096  # bytes of white space around an element that its size may seem to have until it is whole


class _Scan:
    """Cuts JSON into elements by brackets alone; whether an element is right is for the parser to say."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.buffer = b""
        self.started = self.in_string = self.skipping = False
        self.is_list = False  # inside a list that was opened and not closed
        self.depth = 0  # of brackets inside the list, or of all where there is none
        self.start = self.at = 0  # in the buffer: where the element starts, and where scanning goes on

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Elements that end in `chunk`; None for one above the limit."""
        self.buffer += chunk
        if not self.started:
            self.buffer = self.buffer.lstrip()
            if not self.buffer:
                return
            self.started, self.is_list = True, self.buffer[:1] == b"["
            self.start = self.at = int(self.is_list)
        if not self.in_string or self._string_ends():
            yield from self._scan()
        self.skipping = self.skipping or len(self.buffer) - self.start > self.limit + SLACK
        keep = self.at if self.skipping else self.start
        self.buffer, self.at, self.start = self.buffer[keep:], self.at - keep, 0

    def _scan(self) -> Iterator[bytes | None]:
        for token in _TOKEN.finditer(self.buffer, self.at):
            mark, self.at = token[0], token.end()
            if mark == b'"':
                self.in_string = True
                break
            if mark in (b"{", b"["):
                self.depth += 1
            elif mark in (b"}", b"]"):
                self.depth -= 1
                if self.depth < 0 and self.is_list:
                    yield from self._element(token.start())
                    self.is_list = False
                self.depth = max(self.depth, 0)
                if self.depth == 0 and not self.is_list and self.start < token.start():
                    yield from self._element(self.at)
            elif mark == b"," and self.depth == 0 and self.is_list:
                yield from self._element(token.start(), between=True)
        self._pass_rest()

    def _string_ends(self) -> bool:
        end = _STRING_END.match(self.buffer, self.at)
        if end:
            self.at, self.in_string = end.end(), False
        else:
            self._pass_rest()
        return end is not None

    def _pass_rest(self) -> None:
        """All is scanned, but for a backslash whose second half comes with the next chunk."""
        tail = self.buffer[self.at :]
        backslashes = len(tail) - len(tail.rstrip(b"\\"))
        self.at = len(self.buffer) - (backslashes % 2 if self.in_string else 0)

    def _element(self, end: int, between: bool = False) -> Iterator[bytes | None]:
        element = self.buffer[self.start : end].strip()
        if self.skipping or len(element) > self.limit:
            yield None
        elif element or between:
            yield element
        self.start, self.skipping = self.at, False

    def rest(self) -> bytes | None:
        """What follows the last whole element; None if it is above the limit."""
        element = self.buffer[self.start :].strip()
        return None if self.skipping or len(element) > self.limit else element

    def cut(self) -> bool:
        """Whether the file ends inside an element of the list."""
        return self.is_list and (self.depth > 0 or self.in_string)
