"""The greedy pass of dedup_near: rows from best to worst, each against the rows kept before it that share a bucket with it."""

from dataclasses import dataclass

import numba
import numpy as np

from curate.lsh import Buckets
from curate.sets import Boilerplate, Sets, likeness

MOST_PAIRS = 100_000  # rows of the table `pairs`; above it, a sample by hash of the ids


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
    sets: Sets, boilerplate: Boilerplate, buckets: Buckets, rank: np.ndarray, known: np.ndarray, draw: np.ndarray, rule: Rule
) -> Decided:
    """Take the rows from the first to the last of `rank` and drop each that is a duplicate of one kept before it.

    `sets` holds the rows of `buckets.rows`, in their order; `rank` has a number for every row, `known` marks rows that stay whatever they
    resemble; `draw` is a random u64 of each row, from its id. A row meets the kept rows of its buckets, the last one kept first, until one
    is found that it duplicates.
    """
    rows = buckets.rows
    order = np.argsort(rank[rows], kind="stable")
    kept_by, similarity = np.full(len(rank), -1, dtype=np.int64), np.zeros(len(rank))
    left = boilerplate.left(sets)
    by, alike, pairs, found, histogram, checked, conflicts = _decide(
        sets.hashes,
        sets.starts,
        sets.parts,
        left,
        boilerplate.marks,
        boilerplate.sorted,
        buckets.starts,
        buckets.bucket,
        buckets.count,
        order,
        known[rows],
        draw[rows],
        rule.threshold,
        rule.answers,
        rule.near_miss,
        MOST_PAIRS,
    )
    dropped = by >= 0
    kept_by[rows[dropped]], similarity[rows[dropped]] = rows[by[dropped]], alike[dropped]
    return Decided(kept_by, similarity, rows[pairs], found, histogram, checked, conflicts)


@numba.njit(nogil=True, cache=True)
def _decide(  # noqa: PLR0912 one loop, compiled
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    left: np.ndarray,
    marks: tuple[np.ndarray, np.ndarray],
    common: tuple[np.ndarray, np.ndarray],
    slots: np.ndarray,
    bucket: np.ndarray,
    count: int,
    order: np.ndarray,
    known: np.ndarray,
    draw: np.ndarray,
    threshold: float,
    answers: float,
    floor: float,
    most: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int]:
    kept_by, similarity = np.full(len(order), -1, dtype=np.int64), np.zeros(len(order))
    newest = np.full(count, -1, dtype=np.int64)  # slot of the last row kept in each bucket
    older = np.full(len(bucket), -1, dtype=np.int64)  # and from each slot to the one before
    owner = np.empty(len(bucket), dtype=np.int64)
    for row in range(len(order)):
        owner[slots[row] : slots[row + 1]] = row
    met = np.full(len(order), -1, dtype=np.int64)  # the last row that a kept row was compared with
    pairs, found, drawn = np.empty((2 * most, 2), np.int64), np.empty((2 * most, 2)), np.empty(2 * most, np.uint64)
    histogram, limit, sampled = np.zeros(101, dtype=np.int64), np.uint64(0xFFFFFFFFFFFFFFFF), 0
    checked, conflicts = 0, 0
    for row in order:
        if not known[row]:
            for at in range(slots[row], slots[row + 1]):
                slot = newest[bucket[at]]
                while slot >= 0 and kept_by[row] < 0:
                    other = owner[slot]
                    slot = older[slot]
                    if met[other] == row:
                        continue
                    met[other] = row
                    checked += 1
                    alike, of_answer = likeness(hashes, start, parts, left, marks, common, row, other, floor)
                    if alike == 0:
                        continue
                    histogram[int(alike * 100 + 1e-9)] += 1
                    if alike >= threshold:
                        if of_answer >= answers:
                            kept_by[row], similarity[row] = other, alike
                        else:
                            conflicts += 1
                    mixed = (draw[row] * np.uint64(0x9E3779B97F4A7C15)) ^ draw[other]
                    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
                    if mixed > limit:
                        continue
                    pairs[sampled, 0], pairs[sampled, 1], found[sampled, 0], found[sampled, 1] = row, other, alike, of_answer
                    drawn[sampled] = mixed
                    sampled += 1
                    if sampled == len(drawn):
                        smallest = np.argsort(drawn)[:most]
                        pairs[:most], found[:most], drawn[:most] = pairs[smallest], found[smallest], drawn[smallest]
                        sampled, limit = most, drawn[most - 1]
        if kept_by[row] < 0:
            for at in range(slots[row], slots[row + 1]):
                older[at] = newest[bucket[at]]
                newest[bucket[at]] = at
    smallest = np.argsort(drawn[:sampled])[:most]
    return kept_by, similarity, pairs[smallest], found[smallest], histogram, checked, conflicts
