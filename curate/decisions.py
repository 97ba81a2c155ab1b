"""What reviewers decided about rows: data/decisions.jsonl, one JSON object a line, kept by git.

    id         row id, as the row reaches the review stage
    source     raw file of the row, and
    line       its line there: for people who read the file; rows are found by id
    action     keep | drop | relabel | edit | note | undo
    label      relabel: the new label. An edit may carry one too: then it does both
    messages   edit: the whole new conversation, [{role, content, extra}]
    rejected   edit of a preference pair: the worse answer, likewise; null leaves it
    note       any text for other reviewers; a note alone decides nothing
    reviewer   who
    time       when: UTC, ISO 8601, as 2026-11-26T09:30:00.000000Z
    reason     why, or the queue that the row came from
    seen       hash of the content that the reviewer saw (`seen`): a decision about another content is not applied
    undoes     undo: the `key` of an earlier decision of the same reviewer on the same row

Lines can stand in any order (git merges them): `time` says which is newer. Nothing is ever taken out; an undo is a line of its own, and can
itself be undone. The newest decision of each reviewer on a row stands; of those of several reviewers the newest is in force, and that they
differ is told.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson
import xxhash

from curate import ledger, record
from curate.params import params_class
from curate.record import InputError

Action = Literal["keep", "drop", "relabel", "edit", "note", "undo"]
JUDGING = ("keep", "drop", "relabel", "edit")  # actions that say what is to become of a row
_ID = re.compile(r"[0-9a-f]{32}")
Personal = Callable[[Sequence[str]], Sequence[str]]  # texts -> the kinds of personal data that are new in them: `curate.pii.fresh`


@params_class
class Turn:
    """A message of an edit."""

    role: Literal["system", "user", "assistant", "tool", "text"]
    content: str
    extra: str | None = None


@params_class
class Decision:
    """One line of data/decisions.jsonl; see the module's docstring."""

    id: str
    source: str
    line: int
    action: Action
    reviewer: str
    time: str = ""  # empty: `append` puts the time in
    seen: str | None = None
    label: str | None = None
    messages: tuple[Turn, ...] | None = None
    rejected: tuple[Turn, ...] | None = None
    note: str | None = None
    reason: str | None = None
    undoes: str | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"id {self.id[:40]!r} is not 32 hex digits")
        ledger.check_name(self.reviewer)
        for problem in _problems(self):
            raise ValueError(problem)
        if self.time:
            object.__setattr__(self, "time", ledger.utc(self.time))

    @property
    def key(self) -> str:
        """What an undo calls this decision: 16 hex digits of row, action, reviewer and time."""
        return xxhash.xxh3_64_hexdigest(orjson.dumps([self.id, self.action, self.reviewer, self.time]))

    @property
    def verdict(self) -> str:
        """What it says, in one word; a relabel names the label."""
        return f"relabel: {self.label}" if self.action == "relabel" else self.action

    def texts(self) -> list[str]:
        """Everything that the reviewer wrote."""
        turns = [*(self.messages or ()), *(self.rejected or ())]
        own = [text for turn in turns for text in (turn.content, turn.extra)]
        return [text for text in (*own, self.label, self.note, self.reason) if text]


def _problems(decision: Decision) -> Iterable[str]:
    wants = {"relabel": "label", "edit": "messages", "note": "note", "undo": "undoes"}.get(decision.action)
    if wants and not getattr(decision, wants):
        yield f"action {decision.action} needs '{wants}'"
    allowed = {"label": ("relabel", "edit"), "messages": ("edit",), "rejected": ("edit",), "undoes": ("undo",)}
    for name, actions in allowed.items():
        if getattr(decision, name) is not None and decision.action not in actions:
            yield f"'{name}' does not go with action {decision.action}"
    if decision.action != "undo" and not _ID.fullmatch(decision.seen or ""):
        yield "'seen' must be the hash of what the reviewer saw: 32 hex digits (curate.decisions.seen)"
    for turn in decision.messages or ():
        if turn.extra is not None and not _is_json(turn.extra):
            yield "'extra' of a message must be JSON text, or null"
    if decision.messages and not any(turn.content.strip() for turn in decision.messages):
        yield "the edited messages are empty; drop the row instead"


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def seen(row: Mapping[str, Any]) -> str:
    """Hash of what a reviewer sees of a row (record columns): kind, messages, rejected and label, 32 hex digits."""
    return record.content_id(row["kind"], row["messages"], row["rejected"], row["label"])


def parse(found: Mapping[str, Any]) -> Decision:
    """A decision from an object. Raises InputError that says what is wrong with it."""
    return ledger.parse(Decision, found)


def read(path: Path) -> list[Decision]:
    """All decisions in the order of the file. Raises InputError that names the file and the line."""
    found = ledger.read(Decision, path)
    for problem in _dangling(found):
        raise InputError(f"{path}: {problem}")
    return found


def append(path: Path, decision: Decision, personal: Personal) -> Decision:
    """Write one decision at the end of the file, which is made where there is none; returns it as written, with its time.

    `personal` looks for personal data that the row did not hold as the reviewer saw it (`curate.pii.fresh.finder`): the file is in git, and
    must not bring back what scrub took out. Raises InputError where it finds any, or an undo has nothing to undo; nothing is written then.
    """
    found = personal(decision.texts()) if decision.texts() else ()
    if found:
        kinds = ", ".join(found)
        raise InputError(
            f"this {decision.action} holds what scrub takes for {kinds}. Write a placeholder, such as <{found[0]}_1>, instead."
        )
    written: list[Decision] = []

    def make(before: Iterator[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        stamped = decision if decision.time else replace(decision, time=ledger.now())
        if decision.action == "undo":
            for problem in _dangling([*(parse(each) for _, each in before if each.get("id") == decision.id), stamped]):
                raise InputError(problem)
        written.append(stamped)
        return ledger.as_json(stamped)

    ledger.append(path, make)
    return written[0]


def _dangling(decisions: Sequence[Decision]) -> Iterable[str]:
    """What is wrong with undos: each must name an earlier decision of its reviewer on its row."""
    known = {decision.key: decision for decision in decisions}
    for decision in decisions:
        if decision.action == "undo":
            undone = known.get(decision.undoes or "")
            if undone is None or (undone.id, undone.reviewer) != (decision.id, decision.reviewer):
                yield f"an undo of {decision.reviewer} on row {decision.id} names '{decision.undoes}', no decision of theirs on it."
            elif _place(undone) >= _place(decision):
                yield f"an undo of {decision.reviewer} on row {decision.id} is not newer than what it undoes, of {undone.time}."


def _place(decision: Decision) -> tuple[str, str, str]:
    return decision.time, decision.reviewer, decision.key


@dataclass(frozen=True)
class Settled:
    """What is in force for a row: the newest decision, and those of other reviewers that stand and say something else."""

    decision: Decision
    others: tuple[Decision, ...] = ()


def standing(decisions: Iterable[Decision]) -> dict[str, dict[str, Decision]]:
    """id -> reviewer -> their newest decision that is not undone. Notes decide nothing and are left out."""
    undone: set[str] = set()
    found: dict[str, dict[str, Decision]] = {}
    for decision in sorted(decisions, key=_place, reverse=True):  # newest first: an undo that is undone itself undoes nothing
        if decision.key in undone:
            continue
        if decision.action == "undo" and decision.undoes:
            undone.add(decision.undoes)
        elif decision.action in JUDGING:
            found.setdefault(decision.id, {}).setdefault(decision.reviewer, decision)
    return found


def settled(decisions: Iterable[Decision]) -> dict[str, Settled]:
    """id -> the decision in force. Where reviewers differ, the newest is in force and the others are listed beside it."""
    result = {}
    for row, by_reviewer in standing(decisions).items():
        newest, *older = sorted(by_reviewer.values(), key=_place, reverse=True)
        result[row] = Settled(newest, tuple(each for each in older if _content(each) != _content(newest)))
    return result


def _content(decision: Decision) -> tuple[Any, ...]:
    return decision.action, decision.label, decision.messages, decision.rejected


@dataclass(frozen=True)
class Agreement:
    """Two reviewers on the `rows` that both judged. `kappa` is null where chance alone would make them agree on all."""

    one: str
    other: str
    rows: int
    agreed: int
    kappa: float | None


def kappa(decisions: Iterable[Decision]) -> list[Agreement]:
    """Cohen's kappa of every two reviewers with rows in common, by name: (agreed - by chance) / (1 - by chance).

    Categories are the verdicts: keep, drop, edit, and each new label. J. Cohen, "A coefficient of agreement for nominal scales", 1960.
    """
    pairs: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    for by_reviewer in standing(decisions).values():
        for one, other in itertools.combinations(sorted(by_reviewer), 2):
            pairs.setdefault((one, other), Counter())[by_reviewer[one].verdict, by_reviewer[other].verdict] += 1
    return [_agreement(*names, pairs[names]) for names in sorted(pairs)]


def _agreement(one: str, other: str, table: Counter[tuple[str, str]]) -> Agreement:
    rows = table.total()
    agreed = sum(count for (a, b), count in table.items() if a == b)
    first, second = Counter[str](), Counter[str]()
    for (a, b), count in table.items():
        first[a] += count
        second[b] += count
    by_chance = sum(first[each] * second[each] for each in first)  # times rows squared
    alike = by_chance == rows * rows
    return Agreement(one, other, rows, agreed, None if alike else (agreed * rows - by_chance) / (rows * rows - by_chance))
