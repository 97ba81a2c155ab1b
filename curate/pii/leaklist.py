"""The leak list: what was replaced, as keyed hashes, so that an audit can look for it where it must not be.

Compared is the *compact form*: NFKC, lower case, letters and digits alone. `+44 20 7946-0958` and `442079460958` are the same there.
"""

import unicodedata
from pathlib import Path

import polars as pl
import regex

from curate.pii.keys import keyed
from curate.pii.siphash import siphash
from curate.store import write_parquet

LEAKS: dict[str, pl.DataType] = {"entity": pl.String(), "length": pl.UInt16(), "hash": pl.UInt64()}  # length of the compact form, bytes
SHORTEST = 6  # bytes of the compact form
LONGEST = 64  # bytes: of a longer compact form the first 64 are compared, and they need not end with a word
CHECK = b"finery leak list"  # hashed into every list: tells a wrong key from a clean dataset
_OTHER = regex.compile(r"[^\w\n]|_")


def folded(text: str) -> str:
    """The text in which borders are ASCII: NFKC, lower case, and a space for each character that is no letter, digit or line break.

    ASCII text is only lowered: the audit's kernel knows ASCII letters and digits.
    """
    if text.isascii():
        return text.lower()
    return str(_OTHER.sub(" ", unicodedata.normalize("NFKC", text).casefold()))


def compact(value: str) -> bytes:
    """The compact form.

    >>> compact("Anna-Maria  O'Brien"), compact("+44 (0)20 7946 0958")
    (b'annamariaobrien', b'4402079460958')
    """
    return "".join(each for each in folded(value) if not each.isascii() or each.isalnum()).encode()


def listed(entity: str, value: str) -> bytes | None:
    """The compact form if the value belongs on the list, else None.

    Not on it are values under six letters and digits, and single words of letters alone (`Anna`, `swordfish`, `Leeds`): these stand in
    texts for other reasons, and a list that cries wolf is not read. Whole names, addresses, numbers, mails and tokens are.
    """
    short = compact(value)
    if len(short) < SHORTEST or value.strip().isalpha():
        return None
    return short[:LONGEST]


def list_key(secret: bytes) -> bytes:
    """The list's own key, 16 bytes, made from scrub's."""
    return keyed(secret, "leaklist")[:16]


def entries(found: list[tuple[str, str]], key: bytes) -> pl.DataFrame:
    """The list of these (entity, value), sorted, each once, and the check of the key (entity "", length 0)."""
    rows = {(entity, len(short), siphash(key, short)) for entity, value in found if (short := listed(entity, value)) is not None}
    rows.add(("", 0, siphash(key, CHECK)))
    return pl.DataFrame(sorted(rows, key=lambda row: (row[2], row[0])), schema=LEAKS, orient="row")


def unite(path: Path) -> None:
    """Sorts the table that was joined over batches, so that it does not tell where they were cut, nor which row a hash comes from."""
    write_parquet(pl.read_parquet(path).unique().sort("hash", "entity"), path)
