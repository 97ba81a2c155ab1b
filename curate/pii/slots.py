"""The texts of a row that scrub searches, and the row with them replaced."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curate.pii.engine import Finding

NUMBER_DIGITS = 7  # a number in meta or extra with at least so many characters is searched as text


@dataclass(frozen=True)
class Slot:
    """A text of a row: `text` is searched, and characters `start` to `end` of it are the row's own (the rest says what they are)."""

    field: str  # messages, messages.extra, rejected, rejected.extra, meta
    turn: int | None
    text: str
    start: int
    end: int

    @property
    def own(self) -> str:
        return self.text[self.start : self.end]


def clipped(found: tuple[Finding, ...], slot: Slot) -> tuple[Finding, ...]:
    """Findings within the row's own part of the slot, counted from its start."""
    if slot.start == 0 and slot.end == len(slot.text):
        return found
    within = [each for each in found if each.start < slot.end and each.end > slot.start]
    return tuple(each._replace(start=max(each.start - slot.start, 0), end=min(each.end, slot.end) - slot.start) for each in within)


def slots(row: dict[str, Any]) -> list[Slot]:
    """All texts of a row, in the order of `rebuilt`."""
    found: list[Slot] = []

    def visit(slot: Slot) -> str:
        found.append(slot)
        return slot.own

    rebuilt(row, visit)
    return found


def rebuilt(row: dict[str, Any], visit: Callable[[Slot], str]) -> dict[str, Any]:
    """The row with `visit` applied to each of its texts, always in the same order: messages, rejected, meta."""
    new = dict(row)
    for field in ("messages", "rejected"):
        if row[field] is not None:
            new[field] = [_message(field, turn, message, visit) for turn, message in enumerate(row[field])]
    new["meta"] = _json("meta", None, row["meta"], visit)
    return new


def _message(field: str, turn: int, message: dict[str, Any], visit: Callable[[Slot], str]) -> dict[str, Any]:
    content = message["content"]
    return message | {
        "content": content if content is None else visit(Slot(field, turn, content, 0, len(content))),
        "extra": _json(f"{field}.extra", turn, message["extra"], visit),
    }


def _json(field: str, turn: int | None, text: str | None, visit: Callable[[Slot], str]) -> str | None:
    """JSON text with `visit` applied to its strings and long numbers; the text as it was if nothing changed."""
    if text is None or text in ("", "{}", "[]", "null"):
        return text
    try:
        value = json.loads(text)
    except ValueError:  # no JSON: searched as plain text
        return visit(Slot(field, turn, text, 0, len(text)))
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
        new = visit(Slot(field, turn, before + text + after, len(before), len(before) + len(text)))
        changed = changed or new != text
        return new

    walked = walk(value, None)
    return json.dumps(walked, ensure_ascii=False, separators=(",", ":")) if changed else text


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
