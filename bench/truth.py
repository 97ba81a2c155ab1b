"""Exact truth for a set of texts: every pair whose Jaccard similarity over word n-grams is at least `FLOOR`, and how a result stands to it.

Pairs are counted with a sparse matrix of texts and n-grams, a block of rows at a time against all rows after it: no hashing, no
sampling. Cost is the sum over n-grams of the square of their frequency (1e9 on t0_55k, under a minute); memory is one block's overlaps.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

from bench.peers.setting import WORDS, shingles

FLOOR = 0.7  # pairs below are not kept
BLOCK = 256  # rows compared at once
PAIRS = {"a": pl.UInt32(), "b": pl.UInt32(), "similarity": pl.Float32()}


@dataclass(frozen=True)
class Judged:
    """What became of the true pairs: pairs left among kept rows, kept rows that are in one, rows dropped without a kept row that alike."""

    left: int
    kept_with_twin: int
    unfounded: int  # dropped, and no kept row at `threshold` or above
    unfounded_floor: int  # dropped, and no kept row even at FLOOR


def matrix(texts: Iterable[str]) -> sp.csr_array:
    """Texts × distinct n-grams, one where the text has the n-gram."""
    numbers: dict[str, int] = {}
    indices: list[np.ndarray] = []
    for text in texts:
        indices.append(np.array(sorted({numbers.setdefault(shingle, len(numbers)) for shingle in shingles(text)}), dtype=np.int32))
    starts = np.concatenate([[0], np.cumsum([len(each) for each in indices])])
    flat = np.concatenate(indices) if indices else np.zeros(0, np.int32)
    return sp.csr_array((np.ones(len(flat), np.int32), flat, starts), shape=(len(indices), len(numbers)))


def exact_pairs(texts: Iterable[str], floor: float = FLOOR) -> pl.DataFrame:
    """Columns a, b (u32, positions, a < b) and similarity (f32) of every pair at `floor` or above, in order."""
    grams = matrix(texts)
    sizes = np.diff(grams.indptr)
    found = [pl.DataFrame(schema=PAIRS)]
    for start in range(0, grams.shape[0], BLOCK):
        overlap = (grams[start : start + BLOCK] @ grams[start:].T).tocoo()
        a, b, shared = overlap.row + start, overlap.col + start, overlap.data
        similarity = shared / (sizes[a] + sizes[b] - shared)
        alike = (a < b) & (similarity >= floor)
        found.append(pl.DataFrame({"a": a[alike], "b": b[alike], "similarity": similarity[alike]}, schema=PAIRS, strict=False))
    return pl.concat(found).sort("a", "b")


def cached_pairs(texts: pl.Series, path: Path) -> pl.DataFrame:
    """`exact_pairs` of the texts, from `path` where it was written for the same n-grams (its name says which)."""
    named = path.with_name(f"{path.stem}-{WORDS}-words-{FLOOR}.parquet")
    if not named.exists():
        partial = named.with_suffix(".partial")
        exact_pairs(texts).write_parquet(partial)
        partial.rename(named)
    return pl.read_parquet(named)


def judge(pairs: pl.DataFrame, kept: np.ndarray, threshold: float) -> Judged:
    """Hold `kept` (one bool a row) against the true pairs."""
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    alike = pairs["similarity"].to_numpy() >= np.float32(threshold)
    both = alike & kept[a] & kept[b]
    return Judged(
        left=int(both.sum()),
        kept_with_twin=len(np.union1d(a[both], b[both])),
        unfounded=_unfounded(a[alike], b[alike], kept),
        unfounded_floor=_unfounded(a, b, kept),
    )


def _unfounded(a: np.ndarray, b: np.ndarray, kept: np.ndarray) -> int:
    """Dropped rows that none of these pairs joins to a kept row."""
    founded = np.zeros(len(kept), dtype=bool)
    founded[a[kept[b]]] = True
    founded[b[kept[a]]] = True
    return int((~kept & ~founded).sum())
