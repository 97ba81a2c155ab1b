"""The gate before training: passes every row on unchanged, or fails and names what leaks. Nothing stays behind.

Every two splits, and every split against every benchmark set, are compared in three ways: `exact` (the same folded prompt), `near`
(Jaccard of prompt and answer) and `ngram` (a prompt holds most of another's word n-grams). See docs/leakage.md for why an honest split
passes with limits of 0. Tables: `matrix` (every cell, counted in rows and in groups) and `pairs` (the worst of each).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from curate import ngrams, overlap
from curate.benchmarks import read_benchmarks
from curate.likeness import likeness
from curate.overlap import Index, Rules
from curate.pairs import clusters, near_pairs
from curate.params import params_class
from curate.record import SPLITS, InputError, StageFailure, draws
from curate.sets import BOILERPLATE, Boilerplate, Sets
from curate.stage import Plan, Stage, main

KINDS = ("exact", "near", "ngram")
KIND_OF_TIER = {"exact": "exact", "near": "near", "ngram": "ngram", "contained": "ngram"}
SHOWN = 3  # pairs of a cell that the message of a failure names
PAIR = {
    "kind": pl.String(),
    "left": pl.String(),  # split
    "right": pl.String(),  # split or benchmark set
    "left_id": pl.String(),
    "left_source": pl.String(),
    "left_line": pl.Int64(),
    "right_id": pl.String(),
    "right_source": pl.String(),
    "right_line": pl.Int64(),
    "similarity": pl.Float64(),
}
ADVICE = {
    "exact": "The split keeps equal prompts together: was it made by an older run, or were rows edited after it? Run split again.",
    "near": "Lower split.group_threshold below leakage.threshold and run split again, or drop these rows.",
    "ngram": "Give split the n, coverage and common of leakage and run it again, or drop these rows.",
}
BENCHMARK_ADVICE = "Give decontaminate the benchmarks and thresholds of leakage with policy drop, and run it again."


@params_class
class Limits:
    """Leaking rows (or items) that a cell may have; null: report only."""

    exact: Annotated[int, Field(ge=0)] | None
    near: Annotated[int, Field(ge=0)] | None
    ngram: Annotated[int, Field(ge=0)] | None


@params_class
class Params:
    """`params.yaml: leakage`."""

    benchmarks: str
    limits: Limits
    threshold: Annotated[float, Field(gt=0, le=1)]
    permutations: Annotated[int, Field(ge=16, le=1024)]
    recall: Annotated[float, Field(gt=0, lt=1)]
    n: Annotated[int, Field(ge=2, le=50)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    common: Annotated[int, Field(ge=2)]
    run: Annotated[int, Field(ge=2)] | None
    min_words: Annotated[int, Field(ge=1)]
    pairs: Annotated[int, Field(ge=SHOWN)]


@dataclass(frozen=True)
class Context:
    """What workers need to look for benchmark items."""

    index: Index
    rules: Rules


def prepare(params: Params) -> Context:
    """The index over the benchmarks."""
    rules = Rules(params.threshold, params.n, params.coverage, params.run, params.min_words, params.common)
    return Context(overlap.index(read_benchmarks(Path(params.benchmarks)), rules), rules)


def survey(batch: pl.DataFrame, params: Params, context: Context) -> pl.DataFrame:
    """Where a row stands, its parent if it is synthetic, what it is compared by, and the benchmark items it holds."""
    found = overlap.hits(batch, context.index, context.rules).group_by("at", maintain_order=True).agg("item", "tier", "score")
    held = batch.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("at")).join(found, on="at", how="left", maintain_order="left")
    named = batch.select("split", "id", "source", "line", pl.col("meta").str.json_path_match("$.synthetic.parent").alias("parent"))
    return pl.concat([named, likeness(batch, params.n), held.select("item", "tier", "score")], how="horizontal")


def plan(narrow: pl.DataFrame, params: Params, context: Context) -> Plan:
    """The matrix; StageFailure if a cell is over its limit or a synthetic row is parted from its parent."""
    if narrow.height and (narrow["split"] == "").any():
        raise InputError("The rows have no splits yet. Run split first, and give leakage the folder that augment (or split) wrote.")
    _check_parents(narrow)
    pairs = pl.concat([*_between_splits(narrow, params), _with_benchmarks(narrow, context)])
    matrix = _matrix(pairs, context.index.items["set"].unique().sort().to_list(), params)
    worst = (
        pairs.sort("similarity", "left_source", "left_line", "right_source", "right_line", descending=[True, False, False, False, False])
        .group_by("kind", "left", "right", maintain_order=True)
        .head(params.pairs)
    )
    worst = matrix.select("kind", "left", "right").join(worst, on=["kind", "left", "right"], how="inner", maintain_order="left")
    over = matrix.filter("over")
    if over.height:
        raise StageFailure(_message(over, worst))
    counts = {f"{kind} {left}-{right}": rows for kind, left, right, rows in matrix.select("kind", "left", "right", "rows").iter_rows()}
    return Plan(counts=counts, tables={"matrix": matrix, "pairs": worst.select(list(PAIR))})


def _check_parents(narrow: pl.DataFrame) -> None:
    made = narrow.filter(pl.col("parent").is_not_null()).select("split", "id", "parent")
    parents = narrow.filter(pl.col("id").is_in(made["parent"].unique().to_list())).select("id", pl.col("split").alias("parent_split"))
    joined = made.join(parents.unique("id", keep="first", maintain_order=True), left_on="parent", right_on="id", how="left")
    wrong = joined.filter((pl.col("split") != pl.col("parent_split")).fill_null(True) | (pl.col("split") != "train"))
    if wrong.height:
        row = wrong.sort("id").row(0, named=True)
        where = f"is in {row['parent_split']}" if row["parent_split"] else "is not in the data"
        raise StageFailure(
            f"{wrong.height} synthetic rows are parted from their parents, or outside train. The first: {row['id']} is in {row['split']}, "
            f"its parent {row['parent']} {where}. Run augment again on the present split."
        )


def _between_splits(narrow: pl.DataFrame, params: Params) -> list[pl.DataFrame]:
    """Leaking pairs of rows of different splits, for each kind; the earlier split is left."""
    side = narrow["split"].replace_strict(list(SPLITS), range(len(SPLITS)), return_dtype=pl.Int64).to_numpy()
    forms = Boilerplate.of(Sets.of(narrow["shingles"]), BOILERPLATE, draws(narrow["id"]))
    near = near_pairs(narrow["shingles"], params.threshold, params.permutations, params.recall, forms, side)
    grams = ngrams.containing(narrow["grams"], params.coverage, params.common, narrow["parent"].is_null().to_numpy(), side)
    found = {"exact": _same_prompt(narrow["asked"], side), "near": near, "ngram": grams.rename({"coverage": "similarity"})}
    return [_named(kind, pairs, narrow, side) for kind, pairs in found.items()]


def _same_prompt(asked: pl.Series, side: np.ndarray) -> pl.DataFrame:
    """Each row with the first row of every other split that asks the same."""
    rows = pl.DataFrame({"asked": asked, "side": side}).with_row_index("row").filter(pl.col("asked") != 0)
    shared = rows.filter(pl.col("side").n_unique().over("asked") > 1)
    first = shared.group_by("asked", "side").agg(pl.col("row").min().alias("b"))
    pairs = shared.join(first, on="asked").filter(pl.col("side") != pl.col("side_right"))
    return pairs.select(pl.col("row").alias("a"), "b", pl.lit(1.0).alias("similarity"))


def _named(kind: str, pairs: pl.DataFrame, narrow: pl.DataFrame, side: np.ndarray) -> pl.DataFrame:
    a, b = pairs["a"].to_numpy().astype(np.int64), pairs["b"].to_numpy().astype(np.int64)
    apart = side[a] != side[b]
    a, b, similarity = a[apart], b[apart], pairs["similarity"].to_numpy()[apart]
    left, right = np.where(side[a] < side[b], (a, b), (b, a))
    sides: dict[str, pl.Series] = {}
    for name, at in (("left", left), ("right", right)):
        sides |= {name: narrow["split"].gather(at)} | {f"{name}_{column}": narrow[column].gather(at) for column in ("id", "source", "line")}
    made = pl.DataFrame({"kind": pl.repeat(kind, len(a), dtype=pl.String, eager=True), **sides, "similarity": similarity})
    return made.select(pl.col(name).cast(dtype) for name, dtype in PAIR.items()).unique(maintain_order=True)


def _with_benchmarks(narrow: pl.DataFrame, context: Context) -> pl.DataFrame:
    rows = narrow.filter(pl.col("item").is_not_null()).select("split", "id", "source", "line", "item", "tier", "score")
    held = rows.explode("item", "tier", "score")
    items = context.index.items[held["item"].to_numpy()] if held.height else context.index.items.clear()
    tiers = [KIND_OF_TIER[overlap.TIERS[tier]] for tier in held["tier"].to_list()]
    return pl.DataFrame(
        {
            "kind": pl.Series(tiers, dtype=pl.String),
            "left": held["split"],
            "right": items["set"],
            "left_id": held["id"],
            "left_source": held["source"],
            "left_line": held["line"],
            "right_id": items["item_id"],
            "right_source": items["set"],
            "right_line": items["item"],
            "similarity": held["score"],
        },
        schema=PAIR,
    )


def _matrix(pairs: pl.DataFrame, sets: list[str], params: Params) -> pl.DataFrame:
    """Every cell: `rows` of the right side (test rows, benchmark items) that are leaked, `left_rows` that leak them, `pairs`, `groups` (of
    rows and items that these pairs connect: one text leaked a hundred times is one), `limit`, `over`."""
    splits = [(left, right) for at, left in enumerate(SPLITS) for right in SPLITS[at + 1 :]]
    cells = [(kind, left, right) for kind in KINDS for left, right in [*splits, *((split, name) for split in SPLITS for name in sets)]]
    counted = pairs.group_by("kind", "left", "right").agg(
        pl.struct("right_source", "right_line", "right_id").n_unique().alias("rows"),
        pl.struct("left_source", "left_line", "left_id").n_unique().alias("left_rows"),
        pl.len().alias("pairs"),
    )
    counted = counted.join(_groups(pairs), on=["kind", "left", "right"], how="left")
    limit = {kind: getattr(params.limits, kind) for kind in KINDS}
    matrix = pl.DataFrame(cells, schema=["kind", "left", "right"], orient="row").join(
        counted, on=["kind", "left", "right"], how="left", maintain_order="left"
    )
    whole = [pl.col(name).fill_null(0).cast(pl.Int64) for name in ("rows", "left_rows", "pairs", "groups")]
    limits = pl.Series("limit", [limit[kind] for kind in matrix["kind"]], dtype=pl.Int64)
    return matrix.with_columns(*whole, limits).with_columns((pl.col("rows") > pl.col("limit")).fill_null(False).alias("over"))


def _groups(pairs: pl.DataFrame) -> pl.DataFrame:
    """Per cell, how many groups its pairs connect: columns kind, left, right, groups."""
    ends = [
        pl.struct(
            "kind",
            "left",
            "right",
            *(pl.col(f"{side}_{name}").alias(name) for name in ("source", "line", "id")),
            pl.lit(side).alias("side"),
        )
        for side in ("left", "right")
    ]
    nodes = pl.concat([pairs.select(end.alias("node")) for end in ends])["node"].rank("dense").cast(pl.Int64).to_numpy() - 1
    a, b = nodes[: pairs.height], nodes[pairs.height :]
    cluster = clusters(int(nodes.max(initial=-1)) + 1, a, b)
    numbered = pairs.select("kind", "left", "right").with_columns(pl.Series("cluster", cluster[a]))
    return numbered.group_by("kind", "left", "right").agg(pl.col("cluster").n_unique().alias("groups"))


def _message(over: pl.DataFrame, worst: pl.DataFrame) -> str:
    lines = [f"{over.height} cells of the leakage matrix are over their limit."]
    for cell in over.iter_rows(named=True):
        benchmark = cell["right"] not in SPLITS
        what = "items" if benchmark else "rows"
        lines.append(
            f"  {cell['kind']}, {cell['left']} against {cell['right']}: {cell['rows']} {what} leaked, limit {cell['limit']} "
            f"(by {cell['left_rows']} rows; {cell['groups']} groups). The worst:"
        )
        shown = worst.filter(pl.all_horizontal(pl.col(name) == cell[name] for name in ("kind", "left", "right"))).head(SHOWN)
        for pair in shown.iter_rows(named=True):
            one, two = (f"{pair[f'{side}_source']}:{pair[f'{side}_line']}" for side in ("left", "right"))
            lines.append(f"    {one} and {two} ({pair['similarity']:.3f}); ids {pair['left_id']} and {pair['right_id']}")
        lines.append(f"    {BENCHMARK_ADVICE if benchmark else ADVICE[cell['kind']]}")
    lines.append(f"Or allow it: leakage.limits.{over['kind'][0]} (null: report only).")
    return "\n".join(lines)


STAGE = Stage("leakage", Params, prepare=prepare, survey=survey, plan=plan)

if __name__ == "__main__":
    main(STAGE)
