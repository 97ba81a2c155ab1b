"""What was decided so far: data/decisions.jsonl in memory, kept up with whoever else writes to it."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import xxhash

from curate import decisions
from curate.decisions import Agreement, Decision
from curate.record import FineryError, InputError
from flows.reviewing.rows import NOT_THERE, Rows

Personal = Callable[[Sequence[str]], Sequence[str]]


class Meanwhile(FineryError):
    """Somebody else decided about the row since it was shown; nothing was written."""


class Journal:
    """The decisions of `path` and which rows they are about. Safe to use from several threads; reads the file again when it has changed."""

    def __init__(self, path: Path, rows: Rows) -> None:
        self.path, self.rows = path, rows
        self._lock = threading.RLock()
        self._reset()
        self.refresh()

    def _reset(self) -> None:
        self._by_id: dict[str, list[Decision]] = {}
        self._standing: dict[str, dict[str, Decision]] = {}
        self._judged: dict[str, np.ndarray] = {}
        self._stamp: tuple[int, ...] | None = None
        self._read, self._hash = 0, xxhash.xxh3_128_digest(b"")
        self.count = 0

    def refresh(self) -> None:
        """Take in what was written since. Only new lines are read, unless the file was changed otherwise (by git, or a person).

        Raises InputError that names the line if the file cannot be read.
        """
        with self._lock:
            try:
                about = self.path.stat()
            except FileNotFoundError:
                self._reset()
                return
            stamp = (about.st_ino, about.st_mtime_ns, about.st_size)
            if stamp == self._stamp:
                return
            content = self.path.read_bytes()
            if xxhash.xxh3_128_digest(content[: self._read]) != self._hash or len(content) < self._read:
                self._reset()
            if not self._read:
                decisions.read(self.path)  # the whole of it is checked once
            new = content[self._read : content.rfind(b"\n") + 1]
            found = [self._parsed(line) for line in new.split(b"\n") if line.strip()]
            self._read += len(new)
            self._hash = xxhash.xxh3_128_digest(content[: self._read])
            self._stamp = stamp
            self._take(found)

    def _parsed(self, line: bytes) -> Decision:
        try:
            return decisions.parse(orjson.loads(line))
        except (orjson.JSONDecodeError, InputError) as error:
            self._stamp = None
            raise InputError(f"{self.path}: a line that was added cannot be read ({error}). Mend it or take it out.") from None

    def _take(self, found: Sequence[Decision]) -> None:
        self.count += len(found)
        for decision in found:
            self._by_id.setdefault(decision.id, []).append(decision)
        for row_id in {decision.id for decision in found}:
            before = self._standing.get(row_id, {})
            after = decisions.standing(self._by_id[row_id]).get(row_id, {})
            self._standing[row_id] = after
            for reviewer in before.keys() ^ after.keys():
                self.judged(reviewer)[self.rows.same(row_id)] = reviewer in after

    def judged(self, reviewer: str) -> np.ndarray:
        """Which rows (bool) this reviewer has decided about; kept up to date."""
        with self._lock:
            return self._judged.setdefault(reviewer, np.zeros(self.rows.count, dtype=bool))

    def of(self, row_id: str) -> list[Decision]:
        """All decisions about a row, oldest first."""
        with self._lock:
            return sorted(self._by_id.get(row_id, []), key=lambda each: (each.time, each.reviewer))

    def standing(self, row_id: str) -> dict[str, Decision]:
        """reviewer -> the decision of theirs that stands."""
        with self._lock:
            return dict(self._standing.get(row_id, {}))

    def latest(self, reviewer: str) -> Decision | None:
        """The newest decision of a reviewer that stands, on any row."""
        with self._lock:
            own = (each[reviewer] for each in self._standing.values() if reviewer in each)
            return max(own, key=lambda each: each.time, default=None)

    def people(self, name: str, reviewer: str) -> np.ndarray:
        """Rows of the queues that are made of decisions, newest first.

        `decided`: all; `differ`: those that reviewers judged in different ways; `second`: those that others judged and `reviewer` has not.
        """
        with self._lock:
            wanted = []
            for row_id, by_reviewer in self._standing.items():
                fits = {
                    "decided": bool(by_reviewer),
                    "differ": len({(each.verdict, each.messages, each.rejected) for each in by_reviewer.values()}) > 1,
                    "second": bool(by_reviewer) and reviewer not in by_reviewer,
                }[name]
                if fits:
                    wanted.append((max(each.time for each in by_reviewer.values()), row_id))
        found: np.ndarray = self.rows.find(pl.Series([row_id for _, row_id in sorted(wanted, reverse=True)], dtype=pl.String))
        there: np.ndarray = found[found != NOT_THERE]
        return there

    def vanished(self) -> int:
        """Rows that decisions stand on and that are not in the data."""
        with self._lock:
            ids = [row_id for row_id, by_reviewer in self._standing.items() if by_reviewer]
        return int((self.rows.find(pl.Series(ids, dtype=pl.String)) == NOT_THERE).sum())

    def agreement(self) -> list[Agreement]:
        """Cohen's kappa of every two reviewers with rows in common."""
        with self._lock:
            shared = [each for row_id, by_reviewer in self._standing.items() if len(by_reviewer) > 1 for each in self._by_id[row_id]]
        return decisions.kappa(shared)

    def reviewers(self) -> dict[str, int]:
        """How many rows each reviewer has decided about, by name."""
        with self._lock:
            return dict(sorted(Counter(reviewer for each in self._standing.values() for reviewer in each).items()))

    def decide(self, fields: Mapping[str, Any], known: Sequence[str], personal: Personal) -> Decision:
        """Write a decision. `known` are the keys of the decisions that its reviewer was shown as standing.

        Raises Meanwhile where another reviewer's decision stands that is not among them, InputError for a decision that is not in order.
        """
        made = decisions.parse(fields)
        with self._lock:
            self.refresh()
            new = [each for name, each in self.standing(made.id).items() if name != made.reviewer and each.key not in known]
            if new and made.action in decisions.JUDGING:
                raise Meanwhile(f"{new[0].reviewer} decided about this row meanwhile. Nothing was written; look, and decide again.")
            written = decisions.append(self.path, made, personal)
            self.refresh()
            return written

    def undone(self, row_id: str) -> set[str]:
        """The keys of decisions about a row that are undone."""
        gone: set[str] = set()
        for decision in reversed(self.of(row_id)):
            if decision.action == "undo" and decision.undoes and decision.key not in gone:
                gone.add(decision.undoes)
        return gone
