"""Columns that params name: `label`, `source`, `kind`, or a key of the raw row's other columns (`meta.language`); and dates in them."""

import difflib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl

from curate.record import InputError

OF_RECORD = ("label", "source", "kind")
META = "meta."
SHOWN = 12  # names that a message lists
MILLISECONDS = 1e11  # a larger number is Unix time in milliseconds: in seconds it would be after the year 5000


def check_name(key: str, name: str, allowed: Sequence[str] = OF_RECORD) -> None:
    """Raises ValueError for a name that can be no column."""
    if name not in allowed and not (name.startswith(META) and len(name) > len(META)):
        raise ValueError(f"{key} = {name!r}: expected {', '.join([*allowed, 'meta.<key>'])} (a key of the raw row's other columns)")


def values(batch: pl.DataFrame, names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each named column, as they stand in JSON; None where a row lacks it or it is empty text."""
    metas = _metas(batch) if any(name.startswith(META) for name in names) else []
    found = {name: [_at(meta, name) for meta in metas] if name.startswith(META) else batch[name].to_list() for name in names}
    return {name: [None if value == "" else value for value in each] for name, each in found.items()}


def text(value: Any) -> str | None:
    """A value as a name for it: text as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def keys(batch: pl.DataFrame, names: Sequence[str]) -> pl.Series:
    """For rows that lack one of the named keys of `meta`, the keys that they have: list[str]; for other rows null."""
    wanted = [name for name in names if name.startswith(META)]
    metas = _metas(batch) if wanted else [{}] * batch.height
    lacking = [sorted(meta) if any(_at(meta, name) is None for name in wanted) else None for meta in metas]
    return pl.Series("keys", lacking, dtype=pl.List(pl.String))


def require(key: str, name: str, column: pl.Series, had: pl.Series) -> None:
    """InputError if a key of `meta` stands in no row; it lists those that do (`had`: what `keys` gave)."""
    if not name.startswith(META) or not len(column) or column.null_count() < len(column):
        return
    known = [META + each for each in had.explode(empty_as_null=True).drop_nulls().unique().sort().to_list()]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = ", ".join(known[:SHOWN]) + (" and others" if len(known) > SHOWN else "") if known else "no keys at all"
    raise InputError(f"{key}: no row has {name}.{hint} The rows have {shown}; beside these there are {', '.join(OF_RECORD)}.")


def microseconds(value: Any) -> int | None:
    """The moment that a value tells, in microseconds of Unix time; None if it tells none.

    Text is ISO 8601: a date, a date and time, or a year and month (its first day); without an offset it is UTC. A number is Unix time in
    seconds, above 1e11 in milliseconds.

    >>> microseconds("1970-01-01T00:00:01Z"), microseconds(1), microseconds("1970-01"), microseconds("soon")
    (1000000, 1000000, 0, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return int(value * (1e3 if abs(value) > MILLISECONDS else 1e6)) if abs(value) < MILLISECONDS * 1e3 else None
    written = value.strip()
    try:
        moment = datetime.fromisoformat(f"{written}-01" if len(written) == len("1970-01") and written[4:5] == "-" else written)
    except ValueError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _metas(batch: pl.DataFrame) -> list[dict[str, Any]]:
    return [orjson.loads(meta) if meta else {} for meta in batch["meta"].to_list()]


def _at(meta: dict[str, Any], name: str) -> Any:
    """The value of a key; `meta.a.b` is the key "a.b", else b within a."""
    key = name.removeprefix(META)
    place: Any = meta
    for part in [key] if key in meta else key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place
