"""Lets through one row of each set that means the same; stays behind: rows whose embedding is within `threshold` of a row that goes on.

The greedy of dedup_near, with the cosine of sentence embeddings: rows are taken from best to worst, and one is dropped if, and only if,
a row kept before it has a cosine of at least `threshold` with it; the evidence names the most similar. Up to about 140 000 rows all pairs
are compared; above, an index proposes them and finds nearly all (docs/semantic.md has the recall), and the cosine is checked all the same.
The vectors of the rows that go on are written to `embeddings.parquet`, and read from there with `--against` or `reuse`. Off unless asked
for: embeddings hardly see numbers, and `12+35` is near `12+36` for them.

Rows that reviewers let stay (`curate/review.py`) come first and are never dropped, whatever they resemble.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import xxhash
from pydantic import Field

from curate import embed, neighbours, vectors
from curate.params import params_class
from curate.preference import NAMES, Compare, Globs, Prefer, compared, drops, order, reviewed, traits
from curate.record import StageFailure
from curate.stage import Plan, Stage, main

MOST_PAIRS = 100_000  # rows of the table `pairs`; above it, a sample by hash of the ids


@params_class
class Params:
    """`params.yaml: dedup_semantic`."""

    enabled: bool
    threshold: Annotated[float, Field(gt=0, le=1)]
    near_miss: Annotated[float, Field(gt=0, le=1)]
    model: Annotated[str, Field(min_length=1)]
    batch_size: Annotated[int, Field(ge=1)]
    search: Literal["auto", "exact", "approximate"]
    reuse: Annotated[str, Field(min_length=1)] | None
    compare: Compare
    prefer: tuple[Prefer, ...]
    sources: Globs

    def __post_init__(self) -> None:
        if self.near_miss > self.threshold:
            raise ValueError(f"near_miss {self.near_miss} is above threshold {self.threshold}; it must not be")
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError(f"prefer names a preference twice: {', '.join(self.prefer)}")


@dataclass(frozen=True)
class Context:
    """Length of a vector, and the sorted ids of rows that have one already."""

    dimensions: int
    stored: np.ndarray


def prepare(params: Params) -> Context:
    """Load the model (and distil it) before any worker does; check the vectors to be reused. Raises InputError."""
    origin = _origin(params)
    if params.reuse is None:
        return Context(origin.dimensions, np.zeros(0, dtype="S1"))
    path = Path(params.reuse) / vectors.NAME
    vectors.check(path, origin)
    return Context(origin.dimensions, vectors.ids(path))


def survey(batch: pl.DataFrame, params: Params, context: Context) -> pl.DataFrame:
    """Ids, what preference compares, and the vector (f16, length 1): zeros where there is no text, or where it is `stored`."""
    texts = compared(batch, params.compare)
    stored = vectors.held(context.stored, batch["id"])
    wanted = np.flatnonzero((texts != "").to_numpy() & ~stored)
    made = np.zeros((batch.height, context.dimensions), dtype=np.float16)
    if len(wanted):
        made[wanted] = embed.embed(texts.gather(wanted).to_list(), params.model, params.batch_size)
    vector = pl.Series("vector", made, dtype=pl.Array(pl.Float16, context.dimensions))
    return traits(batch).with_columns(vector, pl.Series("stored", stored, dtype=pl.Boolean), reviewed(batch).alias("reviewed"))


def plan(narrow: pl.DataFrame, params: Params, context: Context) -> Plan:
    """Drop what means the same as a better row; tables `pairs` (each row's most similar kept row, from near_miss up) and `embeddings`."""
    held = _vectors(narrow, params)
    known = narrow["known"].to_numpy()
    has_vector: np.ndarray = np.any(held, axis=1)
    stays = known | narrow["reviewed"].to_numpy()
    ranked = order(narrow.with_columns(pl.Series("known", stays)), params.prefer, params.sources)
    ranked = ranked[has_vector[ranked]]
    large = neighbours.is_large(int((~stays[ranked]).sum()), int(stays[ranked].sum()))
    approximate = params.search == "approximate" or (params.search == "auto" and large)
    index = neighbours.Lists(held, ranked) if approximate and len(ranked) else None
    nearest, cosine = neighbours.greedy(held, ranked, stays, params.threshold, params.near_miss, index)
    gone = cosine >= params.threshold
    kept_by = np.where(gone, nearest, -1)
    drop = drops(narrow, kept_by, cosine, "semantic_duplicate", "Cosine of {} % in meaning with {}:{}, which stays.")
    goes_on = pl.Series(~gone & ~known & has_vector)
    embeddings = narrow.select("id").with_columns(pl.Series("vector", held, dtype=narrow.schema["vector"])).filter(goes_on)
    counts = {
        "label_differs": int(drop["label_differs"].sum()),
        "near_miss_rows": int(((nearest >= 0) & ~gone).sum()),
        "vectors_reused": int(narrow["stored"].sum()),
        "approximate": int(approximate),
    }
    tables = {"pairs": _pairs(narrow, nearest, cosine, gone), "embeddings": embeddings.unique("id", keep="first").sort("id")}
    return Plan(drop.select("row", "reason", "detail", "evidence"), counts=counts, tables=tables)


def finish(out: Path, params: Params, metrics: Mapping[str, Any]) -> None:
    """Write into the vectors' file what they were made from."""
    if (out / vectors.NAME).exists():
        vectors.stamp(out / vectors.NAME, _origin(params))


def _origin(params: Params) -> vectors.Origin:
    return vectors.Origin(params.model, embed.fingerprint(params.model), params.compare, embed.dimensions(params.model))


def _vectors(narrow: pl.DataFrame, params: Params) -> np.ndarray:
    """(n, d) f16: what the surveys made, and the stored ones at their places."""
    made: np.ndarray = narrow["vector"].to_numpy()
    rows = narrow.select("id", "stored").with_row_index("place").filter("stored").select("place", "id")
    if rows.height and params.reuse is not None:
        made = np.array(made)
        found = vectors.fill(made, rows, Path(params.reuse) / vectors.NAME)
        if found != rows.height:
            raise StageFailure(
                f"{params.reuse}: {found:,} of {rows.height:,} stored vectors found: the folder changed during the run. Run again."
            )
    return made


def _pairs(narrow: pl.DataFrame, nearest: np.ndarray, cosine: np.ndarray, gone: np.ndarray) -> pl.DataFrame:
    row = np.flatnonzero(nearest >= 0)
    if len(row) > MOST_PAIRS:
        ids = zip(narrow["id"].gather(row), narrow["id"].gather(nearest[row]), strict=True)
        draw = np.array([xxhash.xxh3_64_intdigest((one + other).encode()) for one, other in ids], dtype=np.uint64)
        row = row[np.argsort(draw, kind="stable")[:MOST_PAIRS]]
    named = narrow.select(NAMES)
    other = named[nearest[row]].rename(lambda name: f"kept_{name}")
    found = pl.Series("similarity", cosine[row], dtype=pl.Float64).round(4)
    both = pl.concat([named[row], other], how="horizontal").with_columns(found, pl.Series("dropped", gone[row], dtype=pl.Boolean))
    return both.sort("similarity", *NAMES, *(f"kept_{name}" for name in NAMES))


def with_reuse(arguments: Sequence[str]) -> list[str]:
    """Command line arguments in which `--against DIR` also reads the vectors of DIR, where it has some. An own `-S …reuse=` wins.

    >>> with_reuse(["in", "out", "--against", "no/such/folder"])
    ['in', 'out', '--against', 'no/such/folder']
    """
    for at, each in enumerate(arguments):
        name, equals, value = each.partition("=")
        folder = value if equals else arguments[at + 1] if at + 1 < len(arguments) else ""
        if name == "--against" and (Path(folder) / vectors.NAME).exists():
            return ["-S", f"dedup_semantic.reuse={folder}", *arguments]
    return list(arguments)


STAGE = Stage("dedup_semantic", Params, prepare=prepare, survey=survey, plan=plan, finish=finish)

if __name__ == "__main__":
    main(STAGE, with_reuse(sys.argv[1:]))
