"""Rows as the page shows them: texts cut into pieces, each with the reason why it is marked; long texts shortened."""

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

CLIP = 12_000  # characters of one text that are shown at first
BUDGET = 60_000  # characters of one row that are shown at first
MESSAGES = 200  # messages of one row that are shown at first
COMPARED = 4_000_000  # words of one text times words of the other, up to which their differences are looked for in detail

Piece = tuple[str, str]  # text, and "" | "differs" | "span"


def compared(one: str, other: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts with the words that only one of them has marked `differs`.

    >>> compared("my blue card", "my red card")
    ([('my ', ''), ('blue', 'differs'), (' card', '')], [('my ', ''), ('red', 'differs'), (' card', '')])
    """
    left, right = re.findall(r"\s+|\S+", one), re.findall(r"\s+|\S+", other)
    shorter = min(len(left), len(right))
    start = next((at for at in range(shorter) if left[at] != right[at]), shorter)
    end = next((at for at in range(shorter - start) if left[-1 - at] != right[-1 - at]), shorter - start)
    a, b = left[start : len(left) - end], right[start : len(right) - end]
    if len(a) * len(b) > COMPARED:
        steps = [("replace", 0, len(a), 0, len(b))]
    else:
        steps = [tuple(step) for step in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()]  # type: ignore[misc]
    before, after = "".join(left[:start]), "".join(left[len(left) - end :])
    sides = ([(before, "")], [(before, "")])
    for kind, a1, a2, b1, b2 in steps:
        mark = "" if kind == "equal" else "differs"
        sides[0].append(("".join(a[a1:a2]), mark))
        sides[1].append(("".join(b[b1:b2]), mark))
    return _joined([*sides[0], (after, "")]), _joined([*sides[1], (after, "")])


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Without empty pieces, neighbours of one mark made one."""
    full = [piece for piece in pieces if piece[0]]
    return [("".join(text for text, _ in some), mark) for mark, some in itertools.groupby(full, key=lambda piece: piece[1])]


def row(
    record: Mapping[str, Any], full: bool, beside: Mapping[str, Any] | None = None, span: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The texts of a row for the page, with what differs from the row `beside` it, and a benchmark's `span` in it, marked."""
    shown: dict[str, Any] = {name: record[name] for name in ("id", "source", "line", "kind", "label", "group")}
    left = None if full else BUDGET
    for field in ("messages", "rejected"):
        others = list(beside[field] or ()) if beside else None
        shown[field], left = _messages(record[field], left, others, span if span and span.get("field") == field else None)
    meta = record["meta"] if record["meta"] not in (None, "", "{}") else None
    shown["meta"] = _readable(meta)[: None if full else CLIP] if meta else None
    return shown


def _readable(meta: str) -> str:
    try:
        return orjson.dumps(orjson.loads(meta), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return meta


def _messages(
    messages: Sequence[Mapping[str, Any]] | None,
    left: int | None,
    others: Sequence[Mapping[str, Any]] | None,
    span: Mapping[str, Any] | None,
) -> tuple[list[dict[str, Any]] | None, int | None]:
    """The messages of one field, and how many characters may still be shown."""
    if messages is None:
        return None, left
    shown: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        content, extra = message["content"] or "", message["extra"]
        size = len(content) if left is None else min(len(content), CLIP, left)
        if left is not None and (at >= MESSAGES or (left <= 0 and content)):
            shown.append({"role": None, "chars": 0, "pieces": [], "extra": None, "more": len(messages) - at})
            break
        left = None if left is None else left - size
        text = content[:size]
        pieces: list[Piece] = [(text, "")] if text else []
        if others is not None:
            other = (others[at]["content"] or "")[: None if left is None else CLIP] if at < len(others) else ""
            pieces = compared(text, other)[0]
        if span and span.get("turn") == at:
            pieces = _spanned(text, int(span["start"]), int(span["end"]))
        shown.append(
            {"role": message["role"], "chars": len(content), "shown": size, "pieces": pieces, "extra": (extra or "")[:CLIP] or None}
        )
    return shown, left


def _spanned(text: str, start: int, end: int) -> list[Piece]:
    return _joined([(text[:start], ""), (text[start:end], "span"), (text[end:], "")])
