"""What the output may still hold: a second search, by other means than the first.

Plain patterns in polars over whole columns, a few checks in Python on what they let through, and Faker's lists of names: no Presidio, no
phonenumbers, nothing of `patterns.py`. It says "this looks like", and it errs on that side; placeholders, reserved values and `scrub.allow`
do not count. Only masks leave: x for a letter, 0 for a digit.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Set
from functools import lru_cache

import polars as pl
import regex

from curate import record
from curate.pii.faker_names import STARTERS, first_names, last_names
from curate.pii.identity import plain

RESIDUAL: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "field": pl.String(),
    "turn": pl.UInt32(),
    "entity": pl.String(),
    "mask": pl.String(),
}
SAMPLE = 20  # masked places of each entity in residual.parquet
MASK = 60  # characters of a mask
_MAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"
_PHONE = (
    r"\+\d[\d ().-]{7,}\d|\(0?\d{2,5}\)[ -]?\d{3,4}[ -]?\d{3,4}|\b0\d{2,4}[ -]\d{3,4}[ -]\d{3,4}\b|\b[2-9]\d{2}[-.][2-9]\d{2}[-.]\d{4}\b"
)
_TOKEN = r"[A-Za-z0-9_+/=-]{24,200}"
_TOKENS = r"<[A-Z][A-Z_]+_[0-9a-f]{1,8}>"  # placeholders and surrogates that are tokens
_NAME = r"\b\p{Lu}\p{Ll}+(?: \p{Lu}\p{Ll}+)+"
# entity, pattern for polars (its own language: no look-around), check of a match. Where several fit, each says so.
Check = Callable[[str], bool]


def _digits(text: str) -> str:
    return "".join(each for each in text if each.isdigit())


def _mail(text: str) -> bool:
    domain = text.rpartition("@")[2].lower()
    return not (domain in ("example.com", "example.net", "example.org") or domain.endswith((".example", ".invalid", ".test", ".localhost")))


def _card(text: str) -> bool:
    digits = _digits(text)
    if len(set(digits)) < 4 or not regex.match(r"3[47]\d{13}$|3(?:0[0-5]|[68]\d)\d{11}$|(?:4|5[1-5]|6(?:011|5)|2[2-7]|35)\d+$", digits):
        return False
    total = sum(sum(divmod(2 * int(each), 10)) if at % 2 else int(each) for at, each in enumerate(reversed(digits)))
    return 13 <= len(digits) <= 19 and total % 10 == 0


def _iban(text: str) -> bool:
    flat = "".join(each for each in text if each.isalnum()).upper()
    for length in range(min(len(flat), 34), 14, -1):  # the pattern may have taken a word too many
        part = flat[:length]
        if int("".join(str(int(each, 36)) for each in part[4:] + part[:4])) % 97 == 1:
            return True
    return False


def _phone(text: str) -> bool:
    digits = _digits(text)
    if not 9 <= len(digits) <= 15 or digits.startswith("999") or text.startswith("+999"):
        return False
    return not regex.search(
        r"7700900\d{3}$|79460\d{3}$|1632960?\d{3}$|55501\d\d$|3023125\d*$|63998\d{4}$|19900\d{4}$|491570\d{3}$|25550\d{4}$|8465004\d*$",
        digits,
    )


def _ssn(text: str) -> bool:
    return not text.startswith(("000", "666", "9")) and text[4:6] != "00" and text[7:] != "0000"


def _ip(text: str) -> bool:
    parts = [int(each) for each in text.split(".")]
    if max(parts) > 255 or parts[0] in (0, 10, 127, 255) or parts[0] >= 224 or text.startswith(("192.168.", "169.254.")):
        return False
    return not (parts[0] == 172 and 16 <= parts[1] <= 31) and not text.startswith(("192.0.2.", "198.51.100.", "203.0.113."))


def _secret(text: str) -> bool:
    """A token of mixed kinds with much entropy; no hex (commits, checksums), no UUID, no path, no word in camel case."""
    if regex.fullmatch(r"[0-9a-fA-F-]+", text) or text.count("/") > 2 or regex.search(r"[A-Za-z]{12}", text):
        return False
    if not (regex.search(r"[a-z]", text) and regex.search(r"[A-Z]", text) and len(regex.findall(r"\d", text)) >= 3):
        return False
    counts = Counter(text)
    return -sum(each / len(text) * math.log2(each / len(text)) for each in counts.values()) > 3.9


CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("EMAIL_ADDRESS", _MAIL, _mail),
    ("CREDIT_CARD", r"\b\d(?:[ -]?\d){12,18}\b", _card),
    ("IBAN_CODE", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b", _iban),
    ("PHONE_NUMBER", _PHONE, _phone),
    ("US_SSN", r"\b\d{3}-\d{2}-\d{4}\b", _ssn),
    ("IP_ADDRESS", r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\b", _ip),
    ("SECRET", _TOKEN, _secret),
)
# What a text must hold at all. The engine of these patterns is quick on one plain pattern, slow on several with repeats.
_SCREEN = {
    "EMAIL_ADDRESS": r"@[A-Za-z0-9-]",
    "CREDIT_CARD": r"\d[ -]?\d{3}[ -]?\d{4}[ -]?\d",
    "IBAN_CODE": r"[A-Z]{2}\d\d ?[A-Z0-9]{4}",
    "PHONE_NUMBER": r"\d[)( .-]{1,2}\d{3,4}[ -.]?\d{3}|\+\d",
    "US_SSN": r"\d-\d\d-\d",
    "IP_ADDRESS": r"\d\.\d{1,3}\.\d{1,3}\.\d",
    "SECRET": r"\d[A-Za-z0-9_+/=-]{12}|[A-Za-z0-9_+/=-]{12}\d",
}


def residual(kept: pl.DataFrame, allow: Set[str], made: Set[str]) -> tuple[Counter[str], pl.DataFrame]:
    """Counts `residual.<ENTITY>` of the kept rows of a batch, and the first masked places of each entity.

    `allow`: texts in lower case that do not count. `made`: surrogates that were put in.
    """
    texts = _texts(kept)
    fine = "\n".join(sorted(each.casefold() for each in made))
    counts: Counter[str] = Counter()
    places: list[tuple[int, str, int | None, str, str]] = []
    for entity, at, match in _matches(texts):
        folded = match.casefold()
        if folded in allow or folded in fine:
            continue
        counts[f"residual.{entity}"] += 1
        if counts[f"residual.{entity}"] <= SAMPLE:
            row, field, turn = texts.row(at)[:3]
            places.append((row, field, turn, entity, masked(match)))
    found = pl.DataFrame(
        places, schema={"at": pl.UInt32(), **{name: RESIDUAL[name] for name in ("field", "turn", "entity", "mask")}}, orient="row"
    )
    where = kept.select("id", "source", "line").with_row_index("at")
    return counts, found.sort("at", maintain_order=True).join(where, on="at", how="left", maintain_order="left").select(list(RESIDUAL))


def _texts(kept: pl.DataFrame) -> pl.DataFrame:
    """Columns at, field, turn, text: every message, and the `extra` and `meta` that are not empty."""
    flat = record.texts(kept)
    extra = flat.filter(pl.col("extra").is_not_null()).select("at", pl.col("field") + ".extra", "turn", pl.col("extra").alias("text"))
    meta = kept.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("at"),
        pl.lit("meta").alias("field"),
        pl.lit(None, pl.UInt32).alias("turn"),
        pl.col("meta").alias("text"),
    )
    messages = flat.select("at", "field", "turn", pl.col("content").alias("text"))
    every = pl.concat([messages, extra, meta]).filter(pl.col("text").str.len_bytes() > 4)
    held = pl.col("text").str.contains("<", literal=True)
    return every.with_columns(pl.when(held).then(pl.col("text").str.replace_all(_TOKENS, "<>")).otherwise("text").alias("text"))


def _matches(texts: pl.DataFrame) -> Iterator[tuple[str, int, str]]:
    """(entity, position in `texts`, matching text)."""
    numbered = texts.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "text")
    for entity, pattern, check in CHECKS:
        some = numbered.filter(pl.col("text").str.contains(_SCREEN[entity]))
        for row, match in _extracted(some, pattern):
            if check(match):
                yield entity, row, match
    for row, run in _extracted(numbered, _NAME):
        for name in _names(run):
            yield "PERSON", row, name


def _extracted(some: pl.DataFrame, pattern: str) -> Iterator[tuple[int, str]]:
    found = some.select("row", pl.col("text").str.extract_all(pattern)).filter(pl.col("text").list.len() > 0).explode("text")
    yield from found.rows()


@lru_cache(maxsize=1 << 14)
def _names(run: str) -> tuple[str, ...]:
    """Pairs of a listed first and last name in a run of capitalised words."""
    words = run.split(" ")
    return tuple(
        f"{first} {last}"
        for first, last in itertools.pairwise(words)
        if plain(first) in first_names() and plain(last) in last_names() and plain(first) not in STARTERS
    )


def masked(text: str) -> str:
    """The shape of a text: x for a letter, 0 for a digit, at most `MASK` characters.

    >>> masked("Anna-7@example.com")
    'xxxx-0@xxxxxxx.xxx'
    """
    return "".join("0" if each.isdigit() else "x" if each.isalnum() else each if each.isascii() else "?" for each in text[:MASK])


def shortened(table: pl.DataFrame) -> pl.DataFrame:
    """The first `SAMPLE` places of each entity."""
    return table.filter(pl.int_range(pl.len()).over("entity") < SAMPLE)
