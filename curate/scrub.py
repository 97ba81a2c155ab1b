"""Lets every row through without its personal data and secrets; stays behind: rows that could not be searched (`scrub_failed`).

Searched are the messages of both fields, their `extra`, and every value in `meta`; a `group` that holds a finding becomes a token.
`source`, `line` and `label` stay as they are. `findings.parquet` says where something was found, never what.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from curate.pii import engine, replace, settings
from curate.pii.engine import Finding, carried, find_many, replace_in
from curate.pii.replace import Replacer, group_token
from curate.pii.settings import ScrubParams
from curate.record import FineryError
from curate.stage import Outcome, Stage, drop, main, write_whole

Params = ScrubParams

FINDINGS: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "field": pl.String(),  # messages, messages.extra, rejected, rejected.extra, meta, group
    "turn": pl.UInt32(),  # position of the message; null for meta and group
    "entity": pl.String(),
    "recognizer": pl.String(),
    "score": pl.Float64(),
    "start": pl.Int64(),  # characters, in the text before scrub (of meta and extra: in the one value)
    "end": pl.Int64(),
}
NUMBER_DIGITS = 7  # a number in meta or extra with at least so many characters is searched as text


@dataclass(frozen=True)
class _Slot:
    """A text of a row: `text` is searched, and characters `start` to `end` of it are the row's own (the rest says what they are)."""

    field: str
    turn: int | None
    text: str
    start: int
    end: int


def prepare(params: ScrubParams) -> None:
    """Stops before the first row if the key or the NER model is missing."""
    replace.key(params)
    engine.analyzer(params)


def rows(batch: pl.DataFrame, params: ScrubParams, context: None) -> Outcome:
    """The rows with their findings replaced, the findings table and counts per entity."""
    every = list(batch.iter_rows(named=True))
    known = _searched_texts(every, params)

    def search(text: str) -> tuple[Finding, ...]:
        found = known[text]
        if isinstance(found, Exception):
            raise _Unsearched(type(found).__name__)
        return found

    changed: dict[int, dict[str, Any]] = {}
    failed: dict[int, str] = {}
    table: list[tuple[Any, ...]] = []
    counts: Counter[str] = Counter({"ner": 0, "rows_changed": 0})
    for at, row in enumerate(every):
        try:
            new, found = _scrub_row(row, search, params)
        except _Unsearched as error:
            failed[at] = f"{error} while this row was searched for personal data."
            continue
        if found:
            changed[at] = new
            table += [(row["id"], row["source"], row["line"], *each) for each in found]
            counts.update(f"replaced.{each[2]}" for each in found)
            counts.update(f"rows_changed.{entity}" for entity in {each[2] for each in found})
            counts["rows_changed"] += 1
    counts["ner"] = len(known) if params.ner else 0
    return Outcome(
        _with_changes(batch, changed, failed),
        _failed_rows(batch, failed),
        counts=counts,
        tables={"findings": pl.DataFrame(table, schema=FINDINGS, orient="row")},
    )


def _searched_texts(rows: list[dict[str, Any]], params: ScrubParams) -> dict[str, tuple[Finding, ...] | Exception]:
    """Every distinct text of the rows with its findings, or with what a recognizer raised: any fault, the row goes, with the reason."""
    languages: dict[str | None, dict[str, None]] = {}
    for row in rows:
        texts = languages.setdefault(language_of(row), {})
        texts.update((slot.text, None) for slot in _slots(row))
        if row["group"]:
            texts[row["group"]] = None
    known: dict[str, tuple[Finding, ...] | Exception] = {}
    for language, several in languages.items():
        known.update(zip(several, find_many(list(several), params, language), strict=True))
    return known


def language_of(row: Mapping[str, Any]) -> str | None:
    """The language that `meta` names for a row (`language` or `lang`), if it does."""
    meta = row["meta"]
    if not meta or "lang" not in meta:
        return None
    try:
        value = json.loads(meta)
    except ValueError:
        return None
    named = value.get("language") or value.get("lang") if isinstance(value, dict) else None
    return named if isinstance(named, str) else None


class _Unsearched(FineryError):
    """A recognizer raised: the name of its exception."""


def _with_changes(batch: pl.DataFrame, changed: Mapping[int, Mapping[str, Any]], failed: Mapping[int, str]) -> pl.DataFrame:
    kept = batch.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("at")).filter(~pl.col("at").is_in(list(failed)))
    if not changed:
        return kept.drop("at")
    new = pl.DataFrame([{**row, "at": at} for at, row in changed.items()], schema=kept.schema)
    return pl.concat([kept.filter(~pl.col("at").is_in(list(changed))), new]).sort("at").drop("at")


def _failed_rows(batch: pl.DataFrame, failed: Mapping[int, str]) -> pl.DataFrame:
    return drop(batch[list(failed)].with_columns(pl.Series("why", list(failed.values()), dtype=pl.String)), "scrub_failed", pl.col("why"))


def _scrub_row(
    row: dict[str, Any], search: Callable[[str], tuple[Finding, ...]], params: ScrubParams
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The row as it goes on, and its findings as (field, turn, entity, recognizer, score, start, end)."""
    slots = _slots(row)
    raw = [_clipped(search(slot.text), slot) for slot in slots]
    in_group = search(row["group"]) if row["group"] else ()
    if not any(raw) and not in_group:
        return row, []
    own = [slot.text[slot.start : slot.end] for slot in slots]
    found = carried(own, raw)
    replacer = Replacer(params, own)
    new = iter([replace_in(text, each, replacer) for text, each in zip(own, found, strict=True)])
    scrubbed = _rebuilt(row, lambda _: next(new))
    if in_group:
        scrubbed["group"] = group_token(row["group"], params)
    table = [
        (slot.field, slot.turn, each.entity, each.recognizer, each.score, each.start, each.end)
        for slot, several in zip(slots, found, strict=True)
        for each in several
    ]
    table += [("group", None, each.entity, each.recognizer, each.score, each.start, each.end) for each in in_group]
    return scrubbed, table


def _clipped(found: tuple[Finding, ...], slot: _Slot) -> tuple[Finding, ...]:
    """Findings within the row's own part of the slot, counted from its start."""
    if slot.start == 0 and slot.end == len(slot.text):
        return found
    within = [each for each in found if each.start < slot.end and each.end > slot.start]
    return tuple(
        dataclasses.replace(each, start=max(each.start - slot.start, 0), end=min(each.end, slot.end) - slot.start) for each in within
    )


def _slots(row: dict[str, Any]) -> list[_Slot]:
    slots: list[_Slot] = []

    def visit(slot: _Slot) -> str:
        slots.append(slot)
        return slot.text[slot.start : slot.end]

    _rebuilt(row, visit)
    return slots


def _rebuilt(row: dict[str, Any], visit: Callable[[_Slot], str]) -> dict[str, Any]:
    """The row with `visit` applied to each of its texts, always in the same order: messages, rejected, meta."""
    new = dict(row)
    for field in ("messages", "rejected"):
        if row[field] is not None:
            new[field] = [_message(field, turn, message, visit) for turn, message in enumerate(row[field])]
    new["meta"] = _json("meta", None, row["meta"], visit)
    return new


def _message(field: str, turn: int, message: dict[str, Any], visit: Callable[[_Slot], str]) -> dict[str, Any]:
    content = message["content"]
    return message | {
        "content": content if content is None else visit(_Slot(field, turn, content, 0, len(content))),
        "extra": _json(f"{field}.extra", turn, message["extra"], visit),
    }


def _json(field: str, turn: int | None, text: str | None, visit: Callable[[_Slot], str]) -> str | None:
    """JSON text with `visit` applied to its strings and long numbers; the text as it was if nothing changed."""
    if text is None or text in ("", "{}", "[]", "null"):
        return text
    try:
        value = json.loads(text)
    except ValueError:  # no JSON: searched as plain text
        return visit(_Slot(field, turn, text, 0, len(text)))
    changed = False

    def walk(value: Any, key: str | None) -> Any:
        nonlocal changed
        if isinstance(value, dict):
            return {leaf(name, None): walk(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [walk(each, key) for each in value]
        if isinstance(value, str):
            return leaf(value, key)
        if isinstance(value, int | float) and not isinstance(value, bool) and len(str(value)) >= NUMBER_DIGITS:
            seen = leaf(str(value), key)
            return value if seen == str(value) else seen
        return value

    def leaf(text: str, key: str | None) -> str:
        nonlocal changed
        before, after = ("", "") if key is None else (f'"{key}": "', '"')  # the key is a value's context: {"account_number": "…"}
        new = visit(_Slot(field, turn, before + text + after, len(before), len(before) + len(text)))
        changed = changed or new != text
        return new

    walked = walk(value, None)
    return json.dumps(walked, ensure_ascii=False, separators=(",", ":")) if changed else text


def finish(out: Path, params: ScrubParams, metrics: Mapping[str, Any]) -> None:
    """`notice.json`: what was not searched for, and why. The report shows it."""
    write_whole(out / "notice.json", orjson.dumps(notice(params), option=orjson.OPT_INDENT_2) + b"\n")


def notice(params: ScrubParams) -> dict[str, Any]:
    """Entities that this run could not find: `not_searched` were asked for, `not_asked` were left out of scrub.entities."""
    if not params.enabled:
        return {
            "not_searched": list(settings.ENTITIES),
            "why": "scrub.enabled is false: nothing was searched or replaced.",
            "not_asked": [],
        }
    asked = settings.wanted(params)
    can = _searched(params)
    missing = [each for each in settings.ENTITIES if each in asked and each not in can]
    why = ""
    if missing and params.ner is None:
        why = "These need a language model, and scrub.ner is null. Texts may still hold names of places, firms, and of people in no list."
    elif missing:
        why = "The model in scrub.ner has no label for these."
    return {"not_searched": missing, "why": why, "not_asked": [each for each in settings.ENTITIES if each not in asked]}


def _searched(params: ScrubParams) -> frozenset[str]:
    if params.ner is None:  # known without loading anything
        return settings.wanted(params) - (frozenset(settings.NAMES) - {"PERSON"})
    return engine.analyzer(params).entities


STAGE = Stage("scrub", Params, rows=rows, prepare=prepare, finish=finish)

if __name__ == "__main__":
    main(STAGE)
