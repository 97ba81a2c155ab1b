"""Every like pair between many rows and a small set of items (benchmarks, held-out rows): an exact join, nothing is lost."""

import numpy as np
import polars as pl

from curate.compiled import compiled
from curate.memory import starts
from curate.sets import Boilerplate, Sets, Table, likeness


def matches(index: pl.Series, queries: pl.Series, threshold: float, boilerplate: Boilerplate | None = None) -> pl.DataFrame:
    """Every (query, item) with a similarity >= threshold between a row of `queries` and one of `index`, both made by `shingle.shingles`.

    Columns query, item (u32 positions) and similarity, sorted by query, then best item first, then item. An inverted index: the shingles
    that a query shares with each item are counted. Without `boilerplate` nothing is any. Raises ValueError unless 0 < threshold <= 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected above 0 and at most 1.")
    items, asked = Sets.of(index), Sets.of(queries)
    found = [pl.DataFrame(schema={"query": pl.UInt32, "item": pl.UInt32, "similarity": pl.Float64})]
    for grain in (0, 1):
        known, posted, ends = _inverted(items, grain)
        if not len(known):
            continue
        at = asked.hashes, asked.starts, asked.parts
        query, item, alike = _count(*at, items.parts, known, posted, ends, _marks(known), grain, threshold)
        found.append(pl.DataFrame({"query": query.astype(np.uint32), "item": item.astype(np.uint32), "similarity": alike}))
    best = pl.concat(found).group_by("query", "item").agg(pl.col("similarity").max())
    if boilerplate is not None and best.height:
        a, b = best["item"].to_numpy(), best["query"].to_numpy().astype(np.int64) + len(index)
        best = best.with_columns(pl.Series("similarity", similarity(pl.concat([index, queries]), a, b, boilerplate)))
        best = best.filter(pl.col("similarity") >= threshold)
    return best.sort("query", "similarity", "item", descending=[False, True, False])


def similarity(shingles: pl.Series, a: np.ndarray, b: np.ndarray, boilerplate: Boilerplate | None = None) -> np.ndarray:
    """Exact similarity of the rows at positions a[i] and b[i], f64; 0 for rows that cannot be compared.

    >>> from curate.shingle import shingles
    >>> similarity(shingles(pl.Series(["abcdef", "abcdeg"])), np.array([0]), np.array([1])).round(3).tolist()
    [0.333]
    """
    sets, forms = Sets.of(shingles), boilerplate or Boilerplate.none()
    left = forms.left(sets)
    return _pairwise(sets.hashes, sets.starts, sets.parts, left, forms.tables, a.astype(np.int64), b.astype(np.int64))


@compiled
def _pairwise(
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    left: np.ndarray,
    tables: tuple[Table, Table],
    a: np.ndarray,
    b: np.ndarray,
) -> np.ndarray:
    found = np.zeros(len(a))
    for at in range(len(a)):
        found[at] = likeness(hashes, start, parts, left, tables, a[at], b[at], 0.0)[0]
    return found


def _inverted(items: Sets, grain: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(sorted hashes of one grain, items that hold them, where the items of each hash start)."""
    sizes, before = items.grains()[:, grain].astype(np.int64), items.grains()[:, 0].astype(np.int64) * grain
    owner = np.repeat(np.arange(len(sizes)), sizes)
    at = np.arange(len(owner)) - np.repeat(starts(sizes)[:-1], sizes) + np.repeat(items.starts + before, sizes)
    order = np.argsort(items.hashes[at], kind="stable")
    known, counts = np.unique(items.hashes[at], return_counts=True)
    return known, owner[order], starts(counts)


def _marks(known: np.ndarray) -> np.ndarray:
    """For the lower 20 bits of a hash, whether any known hash has them: most hashes need no search."""
    marks = np.zeros(1 << 20, dtype=np.bool_)
    marks[known & np.uint32((1 << 20) - 1)] = True
    return marks


@compiled
def _count(
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    of_items: np.ndarray,
    known: np.ndarray,
    posted: np.ndarray,
    ends: np.ndarray,
    marks: np.ndarray,
    grain: int,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shared, touched = np.zeros(len(of_items), dtype=np.int64), np.empty(len(of_items), dtype=np.int64)
    query, item, found, pairs = np.empty(1024, dtype=np.int64), np.empty(1024, dtype=np.int64), np.empty(1024), 0
    for row in range(len(parts)):
        first = start[row] + (np.int64(parts[row, 0]) + np.int64(parts[row, 1]) if grain else 0)
        size, count = np.int64(parts[row, 2 * grain]) + np.int64(parts[row, 2 * grain + 1]), 0
        for value in hashes[first : first + size]:
            if not marks[value & np.uint32((1 << 20) - 1)]:
                continue
            place = np.searchsorted(known, value)
            if place < len(known) and known[place] == value:
                for each in posted[ends[place] : ends[place + 1]]:
                    if shared[each] == 0:
                        touched[count] = each
                        count += 1
                    shared[each] += 1
        for each in touched[:count]:
            union = size + np.int64(of_items[each, 2 * grain]) + np.int64(of_items[each, 2 * grain + 1]) - shared[each]
            if shared[each] >= threshold * union - 1e-9:
                if pairs == len(query):
                    query, item = np.concatenate((query, np.empty_like(query))), np.concatenate((item, np.empty_like(item)))
                    found = np.concatenate((found, np.empty_like(found)))
                query[pairs], item[pairs], found[pairs] = row, each, shared[each] / union
                pairs += 1
            shared[each] = 0
    return query[:pairs], item[:pairs], found[:pairs]
