"""Rows that are like nothing else in the dataset: far from even their nearest neighbours, in a sample.

Vectors are those that dedup_semantic stored where there are some, else those of the model that `report.suspicious.vectors` names, else
those of `wordvectors.py`. faiss proposes the nearest rows by exhaustive search; the cosines that count are computed in f64.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from curate import embed, neighbours, record, vectors
from curate.reporting import rows, wordvectors
from curate.reporting.gather import Stage
from curate.reporting.rows import PLACE

NEAREST = 5  # rows whose mean distance is a row's
SHARE = 0.02  # of the sample are called outliers: those farthest away
BATCH = 64  # texts that a model sees at once
ROWS = 512  # whose neighbours are looked for at once: their pairs are held in f64


class Wanted(Protocol):
    """The settings that are used here: `suspicious.Settings`."""

    @property
    def sample(self) -> int: ...
    @property
    def vectors(self) -> str | None: ...


@dataclass(frozen=True)
class Sample:
    """Some rows of the dataset, in its order, and a vector of length 1 (or zeros) of each. `made_by`: what made the vectors."""

    rows: pl.DataFrame  # id, source, line, label, split
    vectors: np.ndarray  # (n, d) f32
    made_by: str


def sample(final: Path, known: pl.DataFrame, weights: np.ndarray, stages: dict[str, Stage], settings: Wanted) -> Sample:
    """At most `settings.sample` rows of `known` (`rows.places`), chosen by hash of the id."""
    order = np.argsort(record.draws(known["id"]), kind="stable")[: settings.sample]
    wanted = np.zeros(known.height, dtype=bool)
    wanted[order] = True
    chosen = known.filter(pl.Series(wanted))
    path = stages["dedup_semantic"].folder / vectors.NAME if "dedup_semantic" in stages else None
    if path is not None and path.exists():
        origin = vectors.origin(path)
        held = np.zeros((chosen.height, origin.dimensions), dtype=np.float32)
        vectors.fill(held, chosen.select(pl.int_range(pl.len()).alias("place"), "id"), path)
        return Sample(chosen, held, f"dedup_semantic: {origin.model}")
    made, first = [np.zeros((0, wordvectors.DIMENSIONS), dtype=np.float32)], 0
    for batch in rows.batches(final):
        texts = batch["text"].filter(pl.Series(wanted[first : first + batch.height]))
        first += batch.height
        if len(texts):
            found = (
                wordvectors.vectors(texts, weights) if settings.vectors is None else embed.embed(texts.to_list(), settings.vectors, BATCH)
            )
            made.append(found.astype(np.float32))
    return Sample(chosen, np.concatenate(made[1:] or made), settings.vectors or "words and letters")


def outliers(looked: Sample, rows_in_all: int) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The `SHARE` of a sample that is farthest from its neighbours, as rows of kind outlier; and what was looked at."""
    some = np.flatnonzero(np.any(looked.vectors, axis=1))
    about = {"rows": len(some), "of": rows_in_all, "vectors": looked.made_by}
    distance = distances(looked.vectors[some])
    far = np.argsort(-distance, kind="stable")[: int(np.ceil(SHARE * len(some)))]
    found = looked.rows[some[far]].select(PLACE).with_columns(
        pl.lit("outlier").alias("kind"),
        pl.Series("score", distance[far], dtype=pl.Float64),
        pl.Series("detail", [_told(each) for each in distance[far]], dtype=pl.String),
        pl.lit(None, dtype=pl.String).alias("suggestion"),
    )  # fmt: skip
    return found, about


def _told(distance: float) -> str:
    return f"Its {NEAREST} nearest neighbours are {distance:.2f} away on average (0: the same, 1: nothing in common)."


def distances(unit: np.ndarray) -> np.ndarray:
    """(n,) f64: one minus the mean cosine with the `NEAREST` other rows, 0 to 1, rounded to six digits. `unit`: (n, d) f32, none zero.

    >>> distances(np.eye(2, dtype=np.float32)[[0, 0, 0, 0, 0, 0, 1]]).tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    import faiss

    count = min(NEAREST, len(unit) - 1)
    if count < 1:
        return np.zeros(len(unit))
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)
    near = np.empty(len(unit))
    for first in range(0, len(unit), ROWS):
        some = np.arange(first, min(first + ROWS, len(unit)))
        found = index.search(unit[some], count + 1)[1]
        here = np.repeat(some, count + 1)
        cosine = np.where(found.ravel() == here, -np.inf, neighbours.cosines(unit, here, found.ravel())).reshape(found.shape)
        nearest = -np.sort(-cosine, axis=1)[:, :count]  # a row may not find itself where others are equal to it
        near[some] = nearest.mean(axis=1)
    mean: np.ndarray = np.round(np.clip(1 - near, 0, 1), 6)
    return mean
