"""Nearest neighbours by cosine: the greedy pass of dedup_semantic, exact or with an approximate index.

Rows are taken from best to worst. Each is compared with the rows kept before it; it stays unless the most similar of them reaches the
threshold. The index holds kept rows only: a thousand copies of one row never fill its neighbour lists, so the nearest few are enough.
Whatever proposes a pair, its cosine is computed in f64 before it counts.
"""

import os
from typing import Any, Protocol

import numpy as np

ROWS = 1024  # rows decided together, and kept rows they meet at once
SLACK = 1e-4  # matrix products in f32 differ in the last digits; what comes this near to the best is computed in f64
CHECKED = 1 << 14  # pairs computed in f64 at once
NEIGHBOURS = 4  # kept rows that an index proposes for a row; the nearest by its own arithmetic may be the second by ours
EXACT_PAIRS = (
    10_000_000_000  # about where all pairs cost as much as an index: 140 000 rows, or 10 000 new against a million (bench/semantic.py)
)
PROBED = 128  # lists that a search looks into: leaves less than 0.1 % (docs/semantic.md)
SAMPLED = 40  # rows a list that its centre is trained on; faiss asks for 39


class Index(Protocol):
    """Vectors of length 1 by position. Same calls in the same order give the same answers."""

    def add(self, positions: np.ndarray, vectors: np.ndarray) -> None:
        """Take f32 vectors of length 1."""

    def search(self, vectors: np.ndarray, count: int) -> np.ndarray:
        """(n, count) positions of the most similar, -1 where there are fewer."""


class Lists:
    """Inverted lists of faiss: a vector stands in the list of the nearest of `4 √n` centres, a search looks into the `PROBED` nearest.

    The centres are trained on rows taken evenly from `ranked`, by one thread and with faiss's fixed seed: they depend on the rows alone.
    """

    def __init__(self, vectors: np.ndarray, ranked: np.ndarray, threads: int | None = None, half: bool = True) -> None:
        import faiss

        self.faiss, self.threads = faiss, threads or os.cpu_count() or 1
        lists = max(int(4 * len(ranked) ** 0.5), 1)
        dimensions = vectors.shape[1]
        sample = ranked[:: max(len(ranked) // (lists * SAMPLED), 1)]
        self.centres = faiss.IndexFlatIP(dimensions)
        self.lists: Any
        if half:
            kind = faiss.ScalarQuantizer.QT_fp16
            self.lists = faiss.IndexIVFScalarQuantizer(self.centres, dimensions, lists, kind, faiss.METRIC_INNER_PRODUCT, False)
        else:
            self.lists = faiss.IndexIVFFlat(self.centres, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        self.lists.cp.min_points_per_centroid = 1  # small inputs are fine, and no warning to standard output
        self.lists.nprobe = PROBED
        faiss.omp_set_num_threads(1)
        self.lists.train(unit(vectors, sample))

    def add(self, positions: np.ndarray, vectors: np.ndarray) -> None:
        self.faiss.omp_set_num_threads(1)
        self.lists.add_with_ids(vectors, positions)

    def search(self, vectors: np.ndarray, count: int) -> np.ndarray:
        self.faiss.omp_set_num_threads(self.threads)
        found: np.ndarray = self.lists.search(vectors, count)[1]
        return found


def is_large(rows: int, settled: int) -> bool:
    """Whether comparing `rows` with each other and with `settled` others is work for an index.

    >>> is_large(100_000, 0), is_large(200_000, 0), is_large(5_000, 1_000_000)
    (False, True, False)
    """
    return rows * (settled + rows / 2) > EXACT_PAIRS


def greedy(
    vectors: np.ndarray, ranked: np.ndarray, known: np.ndarray, threshold: float, floor: float, index: Index | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(nearest, cosine) by row position: the most similar kept row of each row where that is at least `floor`, else -1 and 0.

    A row with a cosine of at least `threshold` is not kept. `vectors` is (n, d) f16 or f32, no row of `ranked` zero. `ranked` holds
    positions from best to worst, those of `known` rows first; known rows are kept and not compared. Without `index` all kept rows are
    compared, with it those that it proposes.

    >>> vectors = np.array([[1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    >>> nearest, cosine = greedy(vectors, np.array([2, 0, 1]), np.zeros(3, dtype=bool), 0.9, 0.5)
    >>> nearest.tolist(), cosine.round(2).tolist()
    ([2, 2, -1], [1.0, 0.6, 0.0])
    """
    nearest, cosine = np.full(len(vectors), -1, dtype=np.int64), np.zeros(len(vectors))
    rank = np.zeros(len(vectors), dtype=np.int64)
    rank[ranked] = np.arange(len(ranked))
    settled = int(known[ranked].sum())
    kept, held = np.empty(len(ranked), dtype=np.int64), settled
    kept[:held] = ranked[:settled]
    if index is not None:
        for begin in range(0, settled, ROWS):
            some = kept[begin : min(begin + ROWS, settled)]
            index.add(some, unit(vectors, some))
    for start in range(settled, len(ranked), ROWS):
        rows = ranked[start : start + ROWS]
        of_rows = unit(vectors, rows)
        if index is not None and held:
            proposed = index.search(of_rows, NEIGHBOURS)
            at, place = np.nonzero(proposed >= 0)
            _take(vectors, rows[at], proposed[at, place], rank, floor, nearest, cosine)
        elif index is None:
            for begin in range(0, held, ROWS):
                others = kept[begin : min(begin + ROWS, held)]
                row, other = _best(of_rows @ unit(vectors, others).T, np.maximum(cosine[rows], floor))
                _take(vectors, rows[row], others[other], rank, floor, nearest, cosine)
        rows = rows[cosine[rows] < threshold]
        rows = rows[_among(vectors, rows, threshold, floor, nearest, cosine)]
        kept[held : held + len(rows)] = rows
        held += len(rows)
        if index is not None:
            index.add(rows, unit(vectors, rows))
    return nearest, cosine


def unit(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Those rows as f32 of length 1: rounding to f16 changed it a little."""
    wide: np.ndarray = vectors[rows].astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide


def cosines(vectors: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """f64 cosine of pairs of positions, rounded to nine digits: the last ones depend on the machine."""
    out = np.empty(len(a))
    for start in range(0, len(a), CHECKED):
        left, right = (vectors[each[start : start + CHECKED]].astype(np.float64) for each in (a, b))
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        out[start : start + CHECKED] = np.einsum("ij,ij->i", left, right) / lengths
    return np.round(out, 9)


def _best(products: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, column) of all products that may be the largest of their row, and reach `least`."""
    bar = np.maximum(products.max(axis=1), least) - SLACK
    row, column = np.nonzero(products >= bar[:, None])
    return row, column


def _take(
    vectors: np.ndarray, row: np.ndarray, other: np.ndarray, rank: np.ndarray, floor: float, nearest: np.ndarray, cosine: np.ndarray
) -> None:
    """Note the most similar of the pairs for each row, if it beats what is known; of equals, the one that ranks first."""
    found = cosines(vectors, row, other)
    best = np.lexsort((rank[other], -found, row))
    best = best[np.concatenate(([True], row[best][1:] != row[best][:-1]))] if len(best) else best
    best = best[(found[best] > cosine[row[best]]) & (found[best] >= floor)]
    nearest[row[best]], cosine[row[best]] = other[best], found[best]


def _among(vectors: np.ndarray, rows: np.ndarray, threshold: float, floor: float, nearest: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Decide rows of one block, best first, each against the rows of the block that stay. Returns which of them do."""
    wide = vectors[rows].astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    found = np.tril(np.round(wide @ wide.T, 9), -1)
    stays = np.ones(len(rows), dtype=bool)
    for at in np.flatnonzero((found >= floor).any(axis=1)):
        before = np.where(stays[:at], found[at, :at], -1)
        best = int(before.argmax())  # of equals, the first
        if before[best] > cosine[rows[at]] and before[best] >= floor:
            nearest[rows[at]], cosine[rows[at]] = rows[best], before[best]
        stays[at] = cosine[rows[at]] < threshold
    return stays
