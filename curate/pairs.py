"""Pairs of rows that are alike, for stages that keep them together (split) or must not find any apart (leakage)."""

import numpy as np
import polars as pl

from curate import lsh
from curate.compiled import compiled
from curate.memory import starts
from curate.sets import Boilerplate, Sets, Table, likeness

REMEMBERED = 1 << 20  # pairs that were compared last and need no second look
ENOUGH = 20  # like rows of another side that are listed for a row, at least


def near_pairs(
    shingles: pl.Series, threshold: float, permutations: int, recall: float, forms: Boilerplate, sides: np.ndarray | None = None
) -> pl.DataFrame:
    """Pairs with a similarity >= threshold: a, b (u32 positions, a < b) and similarity, sorted by a and b. Each was checked exactly.

    Without `sides`: pairs that connect what is alike. Two rows that are connected already are not compared, so a bucket of a million copies
    costs a million checks; the connected components are those of all proposed pairs (a pair at the threshold is proposed with
    chance `recall`). With `sides` (a number for each row): pairs of rows of different sides, all of them but those of which both rows have
    `ENOUGH` others, so every row with a like one on another side is in the list.
    """
    shape = lsh.bands(threshold, permutations, recall)
    every = Sets.of(shingles)
    sketch = lsh.Sketch.of(every, shape, forms)
    buckets = lsh.Buckets.of(sketch)
    sets, rows = every.take(buckets.rows), buckets.rows
    order = np.argsort(buckets.bucket, kind="stable")
    owner = np.repeat(np.arange(len(rows)), np.diff(buckets.starts))[order]
    ends = starts(np.bincount(buckets.bucket, minlength=buckets.count))
    side = np.zeros(0, dtype=np.int64) if sides is None else sides[rows].astype(np.int64)
    left = sketch.left[rows]
    a, b, found = _search(sets.hashes, sets.starts, sets.parts, left, forms.tables, owner, ends, side, threshold)
    pairs = pl.DataFrame({"a": rows[a].astype(np.uint32), "b": rows[b].astype(np.uint32), "similarity": found})
    return pairs.unique(["a", "b"], keep="first", maintain_order=True).sort("a", "b")


@compiled
def _search(  # noqa: PLR0912 one loop, compiled
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    left: np.ndarray,
    tables: tuple[Table, Table],
    owner: np.ndarray,
    ends: np.ndarray,
    side: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`owner` lists the rows of every bucket, in ascending order; bucket i is owner[ends[i] : ends[i + 1]]."""
    count = len(parts)
    root, hits = np.arange(count), np.zeros(count, dtype=np.int64)
    seen = np.full(REMEMBERED, -1, dtype=np.int64)
    one, two, found, pairs = np.empty(1024, dtype=np.int64), np.empty(1024, dtype=np.int64), np.empty(1024), 0
    for bucket in range(len(ends) - 1):
        members = owner[ends[bucket] : ends[bucket + 1]]
        joined = 1  # members known to be in one component with the first: when all are, there is nothing left to find
        for at in range(1, len(members)):
            b = members[at]
            for before in range(at):
                a = members[before]
                if a == b:
                    continue
                if len(side):
                    if side[a] == side[b] or (hits[a] >= ENOUGH and hits[b] >= ENOUGH):
                        continue
                else:
                    if joined == at and before > 0 and _root(root, b) == _root(root, members[0]):
                        break  # all before it are one component, and so is it
                    if _root(root, a) == _root(root, b):
                        continue
                code = a << 32 | b
                place = (code * 0x9E3779B97F4A7C1 >> 20) & (REMEMBERED - 1)
                if seen[place] == code:
                    continue
                seen[place] = code
                alike, _ = likeness(hashes, start, parts, left, tables, a, b, threshold)
                if alike < threshold:
                    continue
                hits[a] += 1
                hits[b] += 1
                root[max(_root(root, a), _root(root, b))] = min(_root(root, a), _root(root, b))
                if pairs == len(one):
                    one, two = np.concatenate((one, np.empty_like(one))), np.concatenate((two, np.empty_like(two)))
                    found = np.concatenate((found, np.empty_like(found)))
                one[pairs], two[pairs], found[pairs] = a, b, alike
                pairs += 1
            if joined == at and _root(root, b) == _root(root, members[0]):
                joined += 1
    return one[:pairs], two[:pairs], found[:pairs]


@compiled
def _root(root: np.ndarray, at: int) -> int:
    while root[at] != at:
        root[at] = root[root[at]]
        at = root[at]
    return at


def clusters(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The connected component of each of `count` positions under the pairs (a, b): its smallest member, i64.

    >>> clusters(5, np.array([3, 1]), np.array([4, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    return _components(count, a.astype(np.int64), b.astype(np.int64))


@compiled
def _components(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    root = np.arange(count)
    for at in range(len(a)):
        one, two = _root(root, a[at]), _root(root, b[at])
        root[max(one, two)] = min(one, two)
    for at in range(count):
        root[at] = _root(root, at)
    return root
