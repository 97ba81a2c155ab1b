"""What the page asks and is told, as plain objects; nothing here knows of HTTP but the numbers of its answers."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl

from curate import decisions, ledger
from curate.pii.fresh import finder
from curate.pii.settings import ScrubParams
from curate.record import FineryError, InputError
from flows.reviewing import queues, views
from flows.reviewing.journal import Journal, Meanwhile
from flows.reviewing.queues import Queue
from flows.reviewing.rows import NOT_THERE, Rows, read_elsewhere

LATER = ("review", "dedup_semantic", "decontaminate", "split", "leakage", "format")  # stages that may drop a row after the review looked
LABELS = 5000  # offered in the picker and as queues
OPENED = 64  # queues held open at once
Answer = tuple[int, dict[str, Any]]


class NotFound(FineryError):
    """Nothing is there under this name."""


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    data: Path
    decisions: Path
    benchmarks: Path
    reviewer: str
    sample: int
    seed: int
    threshold: float  # of dedup_near
    scrub: ScrubParams


class Review:
    """The rows, queues and decisions of one dataset. Its methods answer the page; they may be called from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rows = Rows(settings.data / "dedup_near")
        self.journal = Journal(settings.decisions, self.rows)
        self.flags = queues.read_flags(settings.data, self.rows, settings.threshold)
        self._later, self._splits = _fates(settings.data, self.rows)
        self._opened: OrderedDict[str, Queue] = OrderedDict()
        self._lock = threading.Lock()
        kinds = queues.kinds(self.flags)
        self._flagged = ("suspicious", "near", "residual", *(f"{queue}/{kind}" for queue, kind in kinds))
        named = [
            each
            for queue in ("suspicious", "near", "residual", "random", "all")
            for each in (queue, *(f"{queue}/{kind}" for of, kind in kinds if of == queue))
        ]
        self._fixed = {name: self._make(name, "") for name in named}
        counts = np.bincount(self.rows.label[self.rows.label >= 0], minlength=len(self.rows.labels))
        self._labels = [(self.rows.labels[at], int(counts[at])) for at in np.argsort(-counts, kind="stable")[:LABELS]]

    # --- queues

    def _make(self, name: str, reviewer: str) -> Queue:
        rows, settings = self.rows, self.settings
        if name == "all":
            return queues.plain(name, np.arange(rows.count))
        if name == "random":
            return queues.plain(name, rows.shuffled(np.arange(rows.count), settings.seed)[: settings.sample])
        if name in queues.PEOPLE:
            return queues.plain(name, self.journal.people(name, reviewer))
        if name == queues.NO_LABEL:
            return queues.plain(name, rows.shuffled(np.flatnonzero(rows.label == NOT_THERE), settings.seed))
        if name.startswith("label/") and name[6:] in rows.labels:
            wanted = np.flatnonzero(rows.label == rows.labels.index(name[6:]))
            return queues.plain(name, rows.shuffled(wanted, settings.seed), f"Label: {name[6:]}")
        if name in self._flagged:
            return queues.flagged(name, self.flags)
        raise NotFound(f"There is no queue '{name[:80]}'.")

    def queue(self, name: str, reviewer: str) -> Queue:
        """A queue by its name, as it stands for a reviewer. Raises NotFound."""
        return self._fixed.get(name) or self._make(name, reviewer)

    def state(self, reviewer: str) -> dict[str, Any]:
        """Queues with their progress, labels' progress, agreement, and what is wrong."""
        self.journal.refresh()
        judged = self.journal.judged(reviewer)
        listed = []
        for name in (*self._fixed, *queues.PEOPLE):
            queue = self.queue(name, reviewer)
            if len(queue.rows) or "/" not in name:
                listed.append({"name": name, "title": queue.title, "count": len(queue.rows), "done": int(judged[queue.rows].sum())})
        by_label = np.bincount(self.rows.label[judged & (self.rows.label >= 0)], minlength=len(self.rows.labels))
        done = dict(zip(self.rows.labels, by_label.tolist(), strict=True))
        none = self.rows.label == NOT_THERE
        if none.any():
            listed.append(
                {
                    "name": queues.NO_LABEL,
                    "title": queues.TITLES[queues.NO_LABEL],
                    "count": int(none.sum()),
                    "done": int((judged & none).sum()),
                }
            )
        latest = self.journal.latest(reviewer)
        return {
            "reviewer": self.settings.reviewer,
            "queues": listed,
            "labels": [[label, count, done[label]] for label, count in self._labels],
            "labels_left_out": len(self.rows.labels) - len(self._labels),
            "sources": self.rows.sources[:LABELS],
            "reviewers": self.journal.reviewers(),
            "agreement": [asdict(each) for each in self.journal.agreement()],
            "decisions": self.journal.count,
            "vanished": self.journal.vanished(),
            "latest": {"id": latest.id, "key": latest.key, "verdict": latest.verdict} if latest else None,
            "stale": self.rows.stale,
            "file": str(self.settings.decisions),
        }

    def open(self, name: str, reviewer: str, label: str, source: str, text: str) -> dict[str, Any]:
        """A queue, filtered: a handle for `item`, its length and the first row that `reviewer` has not decided about."""
        self.journal.refresh()
        queue = self.queue(name, reviewer)
        if label:
            queue = queue.part(self.rows.label[queue.rows] == (self.rows.labels.index(label) if label in self.rows.labels else -2))
        if source:
            fitting = [at for at, each in enumerate(self.rows.sources) if source.casefold() in each.casefold()]
            queue = queue.part(np.isin(self.rows.source[queue.rows], fitting))
        if text and len(queue.rows):
            named = self.rows.find(pl.Series([text.strip().lower()]))[0] if len(text.strip()) == 32 else NOT_THERE
            queue = queue.part(queue.rows == named if named != NOT_THERE else self.rows.containing(text, queue.rows))
        handle = secrets.token_hex(8)
        with self._lock:
            self._opened[handle] = queue
            while len(self._opened) > OPENED:
                self._opened.popitem(last=False)
        empty = "No row of this queue fits the filter." if label or source or text else queues.EMPTY.get(name, "This queue is empty.")
        return {
            "handle": handle,
            "queue": name,
            "title": queue.title,
            "count": len(queue.rows),
            "at": self._open_from(queue, 0, reviewer),
            "empty": empty,
        }

    def _open_from(self, queue: Queue, start: int, reviewer: str) -> int | None:
        """The first place from `start` on, then from the beginning, whose row is open to the reviewer; None: all are done."""
        waiting = np.flatnonzero(~self.journal.judged(reviewer)[queue.rows])
        if not len(waiting):
            return None
        return int(waiting[np.searchsorted(waiting, start) % len(waiting)])

    # --- rows

    def item(self, handle: str, at: int, reviewer: str) -> dict[str, Any]:
        """What the page shows at place `at` of an open queue."""
        with self._lock:
            queue = self._opened.get(handle)
        if queue is None:
            raise NotFound("This queue is no longer open. Open it again.")
        if not 0 <= at < len(queue.rows):
            raise NotFound(f"The queue has no place {at + 1}.")
        self.journal.refresh()
        number = int(queue.rows[at])
        flag = self.flags.row(int(queue.flags[at]), named=True) if queue.flags[at] != NOT_THERE else None
        whole = self.row_view(number, flag, blind=queue.name == "second", reviewer=reviewer)
        judged = self.journal.judged(reviewer)[queue.rows]
        return whole | {"at": at, "count": len(queue.rows), "done": int(judged.sum()), "open": self._open_from(queue, at + 1, reviewer)}

    def row_view(self, number: int, flag: Mapping[str, Any] | None, blind: bool, reviewer: str) -> dict[str, Any]:
        """A row with its flags, the row beside it and what was decided about it."""
        record = self.rows.read(number)
        evidence = orjson.loads(flag["evidence"]) if flag and flag["evidence"] else {}
        beside, about = self._beside(flag, evidence)
        shown = views.row(record, full=False, beside=beside if about.get("compare") else None, span=evidence.get("span"))
        own = (
            self.flags.filter(pl.col("row") == number).select("queue", "kind", "score", "detail", "suggestion").unique(maintain_order=True)
        )
        found: dict[str, Any] = {
            "row": shown | {"seen": decisions.seen(record), "later": self._fate(number)},
            "flags": own.head(20).to_dicts(),
            "flag": {name: flag[name] for name in ("queue", "kind", "score", "detail", "suggestion")} if flag else None,
            "beside": views.row(beside, full=False, beside=record if about.get("compare") else None) | about if beside else None,
        }
        return found | self.told(record["id"], reviewer, blind, found["row"]["seen"])

    def _beside(self, flag: Mapping[str, Any] | None, evidence: Mapping[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The row (or benchmark item) to show beside a flagged one, and what to say of it."""
        if flag and flag["other"]:
            number = int(self.rows.find(pl.Series([flag["other"]]))[0])
            if number != NOT_THERE:
                return self.rows.read(number), {"compare": True, "about": "", "here": True}
            found = read_elsewhere(self.settings.data / "scrub", flag["other"])
            return found, {"compare": True, "about": "Dropped by dedup_near; it cannot be brought back here.", "here": False}
        if "set" in evidence and "item" in evidence:
            item = _benchmark_item(self.settings.benchmarks, str(evidence["set"]), int(evidence["item"]))
            return item, {"compare": False, "about": "An item of a benchmark.", "here": False}
        return None, {}

    def _fate(self, number: int) -> dict[str, str] | None:
        """Where a row goes after the review, as of the last run: dropped by a stage and why, or its split."""
        if self._later[number] != NOT_THERE:
            stage = LATER[int(self._later[number])]
            path = self.settings.data / stage / "dropped.parquet"
            try:
                found = pl.scan_parquet(path).filter(pl.col("id") == self.rows.id(number)).select("reason", "detail").head(1).collect()
            except (OSError, pl.exceptions.PolarsError):  # the pipeline runs at this moment
                return None
            return {"stage": stage, "reason": found["reason"][0], "detail": found["detail"][0]} if found.height else None
        split = self._splits[number]
        return {"split": ("train", "validation", "test")[int(split)]} if split != NOT_THERE else None

    def told(self, row_id: str, reviewer: str, blind: bool, seen: str) -> dict[str, Any]:
        """What was decided about a row. `blind`: what others said is held back until the reviewer has decided too."""
        standing, undone = self.journal.standing(row_id), self.journal.undone(row_id)
        hidden = blind and reviewer not in standing
        listed = []
        for decision in self.journal.of(row_id):
            stands = standing.get(decision.reviewer) == decision
            noted = decision.note is not None and decision.action == "note"
            if decision.key in undone or not (stands or noted) or (hidden and decision.reviewer != reviewer):
                continue
            listed.append(ledger.as_json(decision) | {"key": decision.key, "stands": stands, "outdated": decision.seen not in (None, seen)})
        return {"decisions": listed, "known": [each.key for each in standing.values()], "held_back": hidden and bool(standing)}

    def whole(self, row_id: str, reviewer: str) -> dict[str, Any]:
        """A row in full: every character, and its messages as they are stored, for editing."""
        number = self._number(row_id)
        record = self.rows.read(number)
        seen = decisions.seen(record)
        shown = views.row(record, full=True) | {"seen": seen, "later": self._fate(number)}
        return {"row": shown, "messages": record["messages"], "rejected": record["rejected"]} | self.told(row_id, reviewer, False, seen)

    def alone(self, row_id: str, reviewer: str) -> dict[str, Any]:
        """A row outside of any queue, such as the other one of a pair."""
        self.journal.refresh()
        return self.row_view(self._number(row_id), None, False, reviewer)

    def _number(self, row_id: str) -> int:
        number = int(self.rows.find(pl.Series([row_id]))[0]) if len(row_id) == 32 else NOT_THERE
        if number == NOT_THERE:
            raise NotFound(f"There is no row {row_id[:40]}.")
        return number

    # --- decisions

    def decide(self, asked: Mapping[str, Any]) -> Answer:
        """Write a decision that the page asks for; 409 where somebody else decided meanwhile."""
        record = self.rows.read(self._number(str(asked.get("id"))))
        wanted = {name: asked.get(name) for name in ("action", "reviewer", "label", "messages", "rejected", "note", "reason", "undoes")}
        fields = {name: value for name, value in wanted.items() if value is not None}
        fields |= {name: record[name] for name in ("id", "source", "line")}
        if fields.get("action") != "undo":
            fields["seen"] = asked.get("seen")
        known, reviewer = asked.get("known"), str(asked.get("reviewer"))
        if not isinstance(known, list):
            raise InputError("'known' must list the keys of the decisions that were shown.")
        if fields.get("seen", decisions.seen(record)) != decisions.seen(record):
            raise InputError("The row is not what was shown: its data was built anew. Open the page again.")
        seen = decisions.seen(record)
        try:
            written = self.journal.decide(fields, known, finder(record, self.settings.scrub))
        except Meanwhile as error:
            return 409, {"error": str(error)} | self.told(record["id"], reviewer, False, seen)
        return 200, {"written": ledger.as_json(written) | {"key": written.key}} | self.told(record["id"], reviewer, False, seen)

    def warm(self) -> None:
        """Load what the look for personal data needs, so that the first note does not wait for it."""
        if self.rows.count:
            finder(self.rows.read(0), self.settings.scrub)(["warm"])


def _fates(data: Path, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """For each row the later stage (position in LATER) that dropped it, and its split (0 train, 1 validation, 2 test); -1: none."""
    later, splits = np.full(rows.count, NOT_THERE, dtype=np.int8), np.full(rows.count, NOT_THERE, dtype=np.int8)
    for at, stage in reversed(list(enumerate(LATER))):
        path = data / stage / "dropped.parquet"
        if path.exists():
            found = rows.find(pl.read_parquet(path, columns=["id"])["id"])
            later[found[found != NOT_THERE]] = at
    path = data / "split/assignments.parquet"
    if path.exists():
        assigned = pl.read_parquet(path, columns=["id", "split"])
        found = rows.find(assigned["id"])
        codes = (
            assigned["split"].replace_strict({"train": 0, "validation": 1, "test": 2}, default=NOT_THERE, return_dtype=pl.Int8).to_numpy()
        )
        splits[found[found != NOT_THERE]] = codes[found != NOT_THERE]
    return later, splits


def _benchmark_item(folder: Path, name: str, item: int) -> dict[str, Any] | None:
    """A benchmark's item in the form of a row."""
    from curate.benchmarks import read_benchmarks

    try:
        found = read_benchmarks(folder).filter((pl.col("set") == name) & (pl.col("item") == item))
    except FineryError:
        return None
    if not found.height:
        return None
    texts = [("user", found["question"][0]), ("assistant", found["answer"][0])]
    messages = [{"role": role, "content": text, "extra": None} for role, text in texts if text]
    return {
        "id": "",
        "source": name,
        "line": item,
        "kind": "benchmark",
        "messages": messages,
        "rejected": None,
        "label": None,
        "group": None,
        "meta": None,
    }
