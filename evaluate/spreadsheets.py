"""CSV files that people open, edit and save in a spreadsheet: written so that no cell is run as a formula, read however they were saved."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from curate.record import InputError
from curate.stage import write_whole

FORMULA = tuple("=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}")
CELL = 30_000  # characters; Excel cuts a cell at 32 767 and puts the rest into the rows below
csv.field_size_limit(1 << 24)


def write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A CSV file that Excel and LibreOffice open as UTF-8. A text that would be a formula gets an apostrophe in front.

    Source: OWASP, CSV Injection (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([[harmless(cell) for cell in row] for row in rows])
    write_whole(path, b"\xef\xbb\xbf" + text.getvalue().encode("utf-8", errors="replace"))


def harmless(cell: str) -> str:
    """The text as a cell: never a formula, no control characters, no longer than a cell may be.

    >>> harmless("=HYPERLINK(1)"), harmless("  -5"), harmless("a-5"), harmless("")
    ("'=HYPERLINK(1)", "'  -5", 'a-5', '')
    """
    shown = "".join(
        char if char.isprintable() or char in "\n\t" else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}" for char in cell
    )
    over = len(shown) - CELL
    shown = shown if over <= 0 else f"{shown[:CELL]} [… {over:,} more]"
    return f"'{shown}" if shown.lstrip(" \N{NO-BREAK SPACE}").startswith(FORMULA) or cell[:1] in FORMULA else shown


def read(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows that hold anything, each with its row number in the spreadsheet (the head is row 1), by the head's names in lower case.

    Commas, semicolons or tabs; UTF-8 with or without a byte order mark, UTF-16, or Windows-1252, which is what Excel may save.

    Raises InputError if there is no such file, it is a workbook, or a column of `needed` is missing.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path}: no such file.") from None
    if raw[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise InputError(f"{path}: is a workbook of a spreadsheet. Save it as CSV (UTF-8) and give that file.")
    text = _decoded(raw)
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=False))
    except csv.Error as error:
        raise InputError(f"{path}: not a readable CSV file ({error}). Save it as CSV (UTF-8) again.") from None
    head = [name.strip().lower() for name in lines[0]] if lines else []
    missing = [name for name in needed if name not in head]
    if missing:
        raise InputError(
            f"{path}: has no column '{missing[0]}'. Its first row must name the columns; it reads: {', '.join(head)[:200] or 'nothing'}."
        )
    return [
        (number, dict(zip(head, [*line, *[""] * (len(head) - len(line))], strict=False)))
        for number, line in enumerate(lines[1:], 2)
        if any(cell.strip() for cell in line)
    ]


def _decoded(raw: bytes) -> str:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")
