"""The greedy pass of dedup_near: rows from best to worst, each against the rows kept before it that share a bucket with it."""

from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from curate.compiled import compiled, in_threads
from curate.lsh import Buckets
from curate.memory import starts
from curate.sets import Boilerplate, Sets, Table, likeness
from curate.stage import default_workers

MOST_PAIRS = 100_000  # rows of the table `pairs`; above it, a sample by hash of the ids
BLOCK = 4096  # rows of a crowd that meet the rows kept before them at the same time, in threads, and then each other
SHARES = 8  # for each thread: whoever is done takes the next
CROWD = 8  # a component with more than one part in so many of the work is shared by all threads


@dataclass(frozen=True)
class Rule:
    """When a row is a duplicate of a kept row."""

    threshold: float  # similarity of the rows
    answers: float  # similarity of their answers alone; below it the two are a conflict
    near_miss: float  # pairs from this similarity up are listed


@dataclass(frozen=True)
class Decided:
    """What became of each row, and the pairs that were checked (from `near_miss` up)."""

    kept_by: np.ndarray  # (rows,) i64: the kept row that a dropped row resembles, else -1
    similarity: np.ndarray  # (rows,) f64, to that row
    pairs: np.ndarray  # (pairs, 2) i64: row and kept row; a sample of `MOST_PAIRS` that depends on the rows' `draw` alone
    alike: np.ndarray  # (pairs, 2) f64: similarity of the two, and of their answers
    histogram: np.ndarray  # i64, all of these pairs by hundredths of similarity, rounded down
    checked: int  # pairs checked in all, below `near_miss` too
    conflicts: int  # of these, pairs of like rows with other answers


def decide(
    sets: Sets,
    boilerplate: Boilerplate,
    left: np.ndarray,
    buckets: Buckets,
    rank: np.ndarray,
    known: np.ndarray,
    draw: np.ndarray,
    rule: Rule,
) -> Decided:
    """Take the rows from the first to the last of `rank` and drop each that is a duplicate of one kept before it.

    `sets` and `left` (`Sketch.left`) hold the rows of `buckets.rows`, in their order. `rank` numbers them, `known` marks those that
    stay whatever they resemble, `draw` is a random u64 of each row, from its id. A row meets the kept rows of its buckets, the last one
    kept first, until one is found that it duplicates.
    """
    rows, threads = buckets.rows, default_workers()
    crowd, shares = _shared_out(buckets, np.argsort(rank[rows], kind="stable"), SHARES * threads)
    state = _State.of(sets, boilerplate, left, buckets, np.concatenate((crowd, *shares)), known[rows], draw[rows])
    limits = (rule.threshold, rule.answers, rule.near_miss)
    notes = [_Notes.empty(len(rows)) for _ in range(threads)]
    for first in range(0, len(crowd), BLOCK):
        last = min(first + BLOCK, len(crowd))
        for _ in in_threads(
            lambda part: _meet(*state, *part[0], *part[1:], -1, *limits), _parts(notes, np.linspace(first, last, threads + 1))
        ):
            pass  # with what was kept in earlier blocks
        _meet(*state, *notes[0], first, last, first, *limits)  # with one another, from best to worst
    cuts = len(crowd) + starts(np.array([len(share) for share in shares]))
    unused: SimpleQueue[_Notes] = SimpleQueue()
    for note in notes:
        unused.put(note)

    def meet_share(share: int) -> None:
        note = unused.get()
        _meet(*state, *note, int(cuts[share]), int(cuts[share + 1]), 0, *limits)
        unused.put(note)

    for _ in in_threads(meet_share, range(len(shares))):
        pass
    dropped = state.kept_by >= 0
    kept_by, similarity = np.full(len(rank), -1, dtype=np.int64), np.zeros(len(rank))
    kept_by[rows[dropped]], similarity[rows[dropped]] = rows[state.kept_by[dropped]], state.similarity[dropped]
    pairs, alike = _smallest(notes)
    counts, histogram = (np.sum([getattr(note, name) for note in notes], axis=0) for name in ("counts", "histogram"))
    return Decided(kept_by, similarity, rows[pairs], alike, histogram[:101], int(counts[CHECKED]), int(counts[CONFLICTS]))


def _parts(notes: "list[_Notes]", cuts: np.ndarray) -> "list[tuple[_Notes, int, int]]":
    """What each thread does: where it writes, and from which to which place of the order."""
    return [(note, int(cuts[at]), int(cuts[at + 1])) for at, note in enumerate(notes)]


def _shared_out(buckets: Buckets, order: np.ndarray, shares: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """(the rows of crowds, the other rows in `shares` of about as much work), each in `order`.

    Rows that no chain of shared buckets connects never meet, so a thread can take whole components from the first row to the last. A
    component with more than one part in `CROWD` of the bucket places is a crowd, which all threads share. (What is a crowd decides which of
    several duplicates a row is compared with first, so it must not depend on the number of threads.)
    """
    component = _components(buckets.starts, buckets.bucket, buckets.count)
    slots = np.diff(buckets.starts)
    places = np.bincount(component, weights=slots, minlength=len(order))
    in_crowd = places > max(places.sum() / CROWD, BLOCK)
    meetings = np.bincount(np.repeat(component, slots), weights=np.bincount(buckets.bucket)[buckets.bucket], minlength=len(order))
    place = np.empty(len(meetings), dtype=np.int64)
    place[np.argsort(-meetings, kind="stable")] = np.arange(len(meetings))
    turn = place % (2 * shares)
    share = np.where(in_crowd, -1, np.minimum(turn, 2 * shares - 1 - turn))[component[order]]  # to and fro: the first has the most work
    return order[share < 0], [order[share == each] for each in range(shares)]


SAMPLED, CHECKED, CONFLICTS = 0, 1, 2  # places in `_Notes.counts`


class _State(NamedTuple):
    """What all threads see. Rows are numbered as in `Buckets.rows`; `kept_by`, `similarity` and the lists of kept rows change."""

    hashes: np.ndarray
    starts: np.ndarray
    parts: np.ndarray
    left: np.ndarray
    tables: tuple[Table, Table]
    slots: np.ndarray  # where the buckets of each row start
    bucket: np.ndarray  # of each slot
    owner: np.ndarray  # i32, row of each slot
    newest: np.ndarray  # i32, slot of the last row kept in each bucket, -1 for none
    older: np.ndarray  # i32, from each slot of a kept row to the one before
    order: np.ndarray
    place: np.ndarray  # of each row in `order`
    known: np.ndarray
    draw: np.ndarray
    kept_by: np.ndarray
    similarity: np.ndarray

    @staticmethod
    def of(
        sets: Sets, boilerplate: Boilerplate, left: np.ndarray, buckets: Buckets, order: np.ndarray, known: np.ndarray, draw: np.ndarray
    ) -> "_State":
        count, slots = len(order), np.diff(buckets.starts)
        place = np.empty(count, dtype=np.int64)
        place[order] = np.arange(count)
        return _State(
            hashes=sets.hashes,
            starts=sets.starts,
            parts=sets.parts,
            left=left,
            tables=boilerplate.tables,
            slots=buckets.starts,
            bucket=buckets.bucket,
            owner=np.repeat(np.arange(count, dtype=np.int32), slots),
            newest=np.full(buckets.count, -1, dtype=np.int32),
            older=np.full(len(buckets.bucket), -1, dtype=np.int32),
            order=order,
            place=place,
            known=known,
            draw=draw,
            kept_by=np.full(count, -1, dtype=np.int64),
            similarity=np.zeros(count),
        )


class _Notes(NamedTuple):
    """What one thread writes down."""

    met: np.ndarray  # i64, for each row the last one that it was compared with
    pairs: np.ndarray  # (2 * MOST_PAIRS, 2) i64
    alike: np.ndarray  # (2 * MOST_PAIRS, 2) f64
    drawn: np.ndarray  # u64 of each pair: the smallest stay in the sample
    histogram: np.ndarray
    counts: np.ndarray  # i64: sampled, checked, conflicts

    @staticmethod
    def empty(rows: int) -> "_Notes":
        size = 2 * MOST_PAIRS
        pairs = np.empty((size, 2), dtype=np.int64), np.empty((size, 2)), np.full(size, MOST_DRAWN, dtype=np.uint64)
        return _Notes(np.full(rows, -1, dtype=np.int64), *pairs, np.zeros(101 + APART, dtype=np.int64), np.zeros(3 + APART, dtype=np.int64))


APART = 16  # numbers more than needed: two threads that count in one line of the processor's cache would wait for each other
MOST_DRAWN = np.uint64(0xFFFFFFFFFFFFFFFF)


def _smallest(notes: list[_Notes]) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, similarities) of the `MOST_PAIRS` smallest draws of all threads."""
    pairs = np.concatenate([note.pairs[: note.counts[SAMPLED]] for note in notes])
    alike = np.concatenate([note.alike[: note.counts[SAMPLED]] for note in notes])
    drawn = np.concatenate([note.drawn[: note.counts[SAMPLED]] for note in notes])
    smallest = np.argsort(drawn, kind="stable")[:MOST_PAIRS]
    return pairs[smallest], alike[smallest]


@compiled
def _components(slots: np.ndarray, bucket: np.ndarray, count: int) -> np.ndarray:
    """For each row the first row of its component: union-find over the buckets."""
    parent, first = np.arange(len(slots) - 1), np.full(count, -1, dtype=np.int64)
    for row in range(len(parent)):
        mine = row
        for own in range(slots[row], slots[row + 1]):
            if first[bucket[own]] < 0:
                first[bucket[own]] = row
            theirs = first[bucket[own]]
            while parent[theirs] != theirs:
                parent[theirs] = parent[parent[theirs]]
                theirs = parent[theirs]
            lower, upper = min(mine, theirs), max(mine, theirs)
            parent[upper] = lower
            mine = lower
    for row in range(len(parent)):
        parent[row] = parent[parent[row]]
    return parent


@compiled
def _meet(
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    left: np.ndarray,
    tables: tuple[Table, Table],
    slots: np.ndarray,
    bucket: np.ndarray,
    owner: np.ndarray,
    newest: np.ndarray,
    older: np.ndarray,
    order: np.ndarray,
    place: np.ndarray,
    known: np.ndarray,
    draw: np.ndarray,
    kept_by: np.ndarray,
    similarity: np.ndarray,
    met: np.ndarray,
    pairs: np.ndarray,
    found: np.ndarray,
    drawn: np.ndarray,
    histogram: np.ndarray,
    counts: np.ndarray,
    first: int,
    last: int,
    oldest: int,
    threshold: float,
    answers: float,
    floor: float,
) -> None:
    """Compare order[first:last] with the kept rows of their buckets whose place is `oldest` or later. If that is not -1, a row that is
    still not dropped is kept."""
    most = len(drawn) // 2
    for at in range(first, last):
        row = int(order[at])
        if not known[row]:
            for own in range(slots[row], slots[row + 1]):
                slot = newest[bucket[own]]
                while slot >= 0 and kept_by[row] < 0:
                    other = int(owner[slot])
                    if place[other] < oldest:
                        break  # and so are all before it
                    slot = older[slot]
                    if met[other] == row:
                        continue
                    met[other] = row
                    counts[CHECKED] += 1
                    alike, of_answer = likeness(hashes, start, parts, left, tables, row, other, floor)
                    if alike == 0:
                        continue
                    histogram[int(alike * 100 + 1e-9)] += 1
                    if alike >= threshold and of_answer >= answers:
                        kept_by[row], similarity[row] = other, alike
                    elif alike >= threshold:
                        counts[CONFLICTS] += 1
                    mixed = (draw[row] * np.uint64(0x9E3779B97F4A7C15)) ^ draw[other]
                    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
                    if counts[SAMPLED] == len(drawn):
                        smallest = np.argsort(drawn)[:most]
                        pairs[:most], found[:most], drawn[:most] = pairs[smallest], found[smallest], drawn[smallest]
                        counts[SAMPLED] = most
                    sampled = counts[SAMPLED]
                    pairs[sampled, 0], pairs[sampled, 1], found[sampled, 0], found[sampled, 1] = row, other, alike, of_answer
                    drawn[sampled] = mixed
                    counts[SAMPLED] += 1
        if oldest >= 0 and kept_by[row] < 0:
            for own in range(slots[row], slots[row + 1]):
                older[own] = newest[bucket[own]]
                newest[bucket[own]] = own
