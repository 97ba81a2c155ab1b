"""Lets through one row of each set that means the same; stays behind: rows whose embedding is within `threshold` of a row that goes on.

The greedy of dedup_near, with the cosine of sentence embeddings: rows are taken from best to worst, and one is dropped if, and only if,
a row kept before it has a cosine of at least `threshold` with it; the evidence names that row. Every pair is compared (exact, blockwise
matrix products): time grows with rows times kept rows, so some 100 000 rows are practical. Off unless asked for: embeddings hardly see
numbers, and `12+35` is near `12+36` for them.
"""

from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from curate.embed import embed
from curate.params import params_class
from curate.preference import Compare, Prefer, compared, drops, order, traits
from curate.stage import Plan, Stage, main

ROWS = 1024  # rows decided together, and kept rows they meet at once
SLACK = 1e-4  # matrix products in f32 differ in the last digits; what comes this near is decided in f64


@params_class
class Params:
    """`params.yaml: dedup_semantic`."""

    enabled: bool
    threshold: Annotated[float, Field(gt=0, le=1)]
    model: Annotated[str, Field(min_length=1)]
    batch_size: Annotated[int, Field(ge=1)]
    compare: Compare
    prefer: tuple[Prefer, ...]

    def __post_init__(self) -> None:
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError(f"prefer names a preference twice: {', '.join(self.prefer)}")


def survey(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    """Ids, what preference compares, and the embedding (f32 vector of length 1); rows without text are marked `empty`."""
    texts = compared(batch, params.compare)
    vectors = embed(texts.to_list(), params.model, params.batch_size)
    return traits(batch).with_columns(
        (texts == "").alias("empty"), pl.Series("vector", vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    )


def plan(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    """Drop what means the same as a better row."""
    ranked = order(narrow, params.prefer)
    ranked = ranked[~narrow["empty"].to_numpy()[ranked]]
    kept_by, similarity = greedy(narrow["vector"].to_numpy(), ranked, narrow["known"].to_numpy(), params.threshold)
    drop = drops(narrow, kept_by, similarity, "semantic_duplicate", "Cosine of {} % in meaning with {}:{}, which stays.")
    return Plan(drop.select("row", "reason", "detail", "evidence"), counts={"label_differs": int(drop["label_differs"].sum())})


def greedy(vectors: np.ndarray, ranked: np.ndarray, known: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(kept_by, cosine) by row position: the most similar kept row of each dropped row, else -1.

    `ranked` holds positions from best to worst, those of `known` rows (which always stay) first.

    >>> vectors = np.array([[1, 0], [0.6, 0.8], [1, 0]], dtype=np.float32)
    >>> greedy(vectors, np.array([2, 0, 1]), np.zeros(3, dtype=bool), 0.9)[0].tolist()
    [2, -1, -1]
    """
    kept_by, cosine = np.full(len(vectors), -1, dtype=np.int64), np.zeros(len(vectors))
    settled = int(known[ranked].sum())
    kept = ranked[:settled]
    for start in range(settled, len(ranked), ROWS):
        rows = ranked[start : start + ROWS]
        for at in range(0, len(kept), ROWS):
            _take(*_near(vectors, rows, kept[at : at + ROWS], threshold), kept_by, cosine)
        rows = rows[kept_by[rows] < 0]
        worse, better, found = _near(vectors, rows, rows, threshold)
        _among(rows, worse, better, found, kept_by, cosine)
        kept = np.concatenate((kept, rows[kept_by[rows] < 0]))
    return kept_by, cosine


def _near(vectors: np.ndarray, rows: np.ndarray, others: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row, other, cosine) of all pairs at or above the threshold, cosine in f64."""
    at, other = np.nonzero(vectors[rows] @ vectors[others].T >= threshold - SLACK)
    left, right = vectors[rows[at]].astype(np.float64), vectors[others[other]].astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)  # f32 vectors are not quite of length 1
    cosine = np.round(np.einsum("ij,ij->i", left, right) / lengths, 9)
    near = cosine >= threshold
    return rows[at[near]], others[other[near]], cosine[near]


def _take(row: np.ndarray, other: np.ndarray, found: np.ndarray, kept_by: np.ndarray, cosine: np.ndarray) -> None:
    """Name the most similar kept row; of equals, the one that came first."""
    best = np.lexsort((np.arange(len(row)), -found, row))
    best = best[np.concatenate(([True], row[best][1:] != row[best][:-1]))] if len(best) else best
    best = best[found[best] > cosine[row[best]]]
    kept_by[row[best]], cosine[row[best]] = other[best], found[best]


def _among(rows: np.ndarray, worse: np.ndarray, better: np.ndarray, found: np.ndarray, kept_by: np.ndarray, cosine: np.ndarray) -> None:
    """Decide rows of one block, best first, each against the rows of the block that stay."""
    place = np.full(int(rows.max(initial=-1)) + 1, -1)
    place[rows] = np.arange(len(rows))
    pair = place[better] < place[worse]
    worse, better, found = worse[pair], better[pair], found[pair]
    cuts = np.searchsorted(place[worse], np.arange(len(rows) + 1))  # `_near` gives pairs row by row
    for at in range(len(rows)):
        span = slice(cuts[at], cuts[at + 1])
        stays = kept_by[better[span]] < 0
        _take(worse[span][stays], better[span][stays], found[span][stays], kept_by, cosine)


STAGE = Stage("dedup_semantic", Params, survey=survey, plan=plan)

if __name__ == "__main__":
    main(STAGE)
