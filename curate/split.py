"""Deals rows out to train, validation and test; stays behind: what resembles a row that is fixed to another split (docs/splits.md).

A group is never cut. It is what the user's `group`, the same prompt, near-duplicates and shared n-grams tie together, so no test row
has a look-alike in train. Fixed are pinned rows, rows with an official split and, with `--against`, settled rows; the others are dealt so
that strata keep the ratios (`curate/strata.py`), or by time. Tables, settled rows included: `assignments` (id, split, cluster), which a
later run can take as `pinned`; `balance` (label by split); `rare_labels`, those with too few groups to be in every split; and
`official_conflicts`, official rows of different splits that resemble each other and were kept.
"""

from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field

from curate import columns, strata, ties
from curate.likeness import likeness
from curate.pairs import clusters
from curate.params import params_class
from curate.pins import FREE, Fixed, Official, fixed
from curate.record import SPLITS, InputError, StageFailure, draws
from curate.sets import BOILERPLATE, Boilerplate, Sets
from curate.stage import Plan, Stage, main


@params_class
class Params:
    """`params.yaml: split`."""

    ratios: tuple[float, float, float]
    seed: int
    stratify: tuple[str, ...]
    temporal: str | None
    official: Official | None
    group_threshold: Annotated[float, Field(gt=0, le=1)]
    permutations: Annotated[int, Field(ge=16, le=1024)]
    recall: Annotated[float, Field(gt=0, lt=1)]
    n: Annotated[int, Field(ge=2, le=50)]
    coverage: Annotated[float, Field(gt=0, le=1)] | None
    common: Annotated[int, Field(ge=2)]
    pinned: str | None
    pin_conflicts: Literal["error", "drop"]

    def __post_init__(self) -> None:
        if min(self.ratios) < 0 or self.ratios[0] == 0 or abs(sum(self.ratios) - 1) > 1e-6:
            raise ValueError(
                f"ratios = {list(self.ratios)}: expected train, validation and test shares of 0 or more (train above 0) that sum to 1"
            )
        for name in self.stratify:
            columns.check_name("stratify", name)
        if len(set(self.stratify)) < len(self.stratify):
            raise ValueError(f"stratify = {list(self.stratify)}: names a column twice")
        if self.temporal is not None:
            columns.check_name("temporal", self.temporal, ())


def survey(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    """Where a row comes from, what it is stratified, grouped and fixed by, and what it is compared by."""
    by = [*params.stratify, *([params.temporal] if params.temporal else []), *([params.official.column] if params.official else [])]
    found = columns.values(batch, by)
    named = batch.select("split", "id", "source", "line", "kind", "label", "group").with_columns(columns.keys(batch, by))
    told = [pl.Series(f"by {name}", [columns.text(value) for value in found[name]], dtype=pl.String) for name in params.stratify]
    if params.official is not None:
        told.append(pl.Series("official", [columns.text(value) for value in found[params.official.column]], dtype=pl.String))
    if params.temporal is not None:
        moments = [columns.microseconds(value) for value in found[params.temporal]]
        told.append(pl.Series("moment", moments, dtype=pl.Int64))
        unread = [columns.text(value) if moment is None else None for value, moment in zip(found[params.temporal], moments, strict=True)]
        told.append(pl.Series("unread", unread, dtype=pl.String))
    return pl.concat([named.with_columns(told), likeness(batch, params.n)], how="horizontal")


def plan(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    """Ties rows to groups, fixes what is fixed, deals the other groups, and checks that no tie crosses."""
    _check_columns(narrow, params)
    places = fixed(narrow, params.pinned, params.official)
    forms = Boilerplate.of(Sets.of(narrow["shingles"]), BOILERPLATE, draws(narrow["id"]))
    rules = ties.Rules(params.group_threshold, params.permutations, params.recall, params.coverage, params.common, forms)
    pairs, held = ties.tied(narrow, rules)
    counts = _counts(pairs, places, params)
    untied = ties.untie(narrow, pairs, held, places, rules, params.official.conflicts if params.official else None, params.pin_conflicts)
    inside = ~untied.out
    cluster = clusters(narrow.height, *ties.ends(untied.pairs))
    rows = _dealt(narrow, cluster, places, inside, params)
    split = rows["split"].to_numpy()
    a, b = ties.ends(untied.pairs)
    if crossing := int((split[a] != split[b]).sum()):
        raise StageFailure(f"{crossing} pairs that belong together were dealt to different splits. This is a fault in the stage.")
    assigned = rows.select("id", pl.Series("split", SPLITS).gather(split), pl.col("key").alias("cluster"))
    new = inside & ~places.known
    sizes = np.bincount(cluster[inside]) if inside.any() else np.zeros(1, dtype=np.int64)
    counts |= {"groups": int((sizes > 0).sum()), "largest_group": int(sizes.max(initial=0))}
    counts |= {"groups_crossing": _crossing(untied, cluster, split)}
    counts |= {f"rows_{name}": int(((split == at) & new).sum()) for at, name in enumerate(SPLITS)}
    counts |= {"pinned_rows": int((places.pinned & new).sum()), "official_rows": int((places.official & new).sum())}
    if params.temporal is not None:
        counts["train_rows_newer_than_a_test_group"] = _newer(rows.filter(pl.Series(inside)))
    balance, rare = _balance(rows.filter(pl.Series(inside)), params)
    tables = {"assignments": assigned.filter(pl.Series(inside)), "balance": balance, "rare_labels": rare}
    if params.official is not None:
        tables["official_conflicts"] = _conflicts(narrow, untied.crossing, split)
    counts |= {"labels": balance.filter(pl.col("label").is_not_null()).height, "rare_labels": rare.height}
    return Plan(untied.drop, assigned["split"], counts, tables)


def _check_columns(narrow: pl.DataFrame, params: Params) -> None:
    """InputError for a column that no row has, and for rows without a date where one is asked for."""
    for name in params.stratify:
        columns.require("split.stratify", name, narrow[f"by {name}"], narrow["keys"])
    if params.official is not None:
        columns.require("split.official.column", params.official.column, narrow["official"], narrow["keys"])
    if params.temporal is None:
        return
    dates = narrow.select(pl.coalesce(pl.col("moment").cast(pl.String), "unread").alias("date"))["date"]
    columns.require("split.temporal", params.temporal, dates, narrow["keys"])
    bad = narrow.filter(pl.col("moment").is_null()).sort("source", "line")
    if bad.height:
        row = bad.row(0, named=True)
        what = "no value" if row["unread"] is None else f"{row['unread'][:40]!r}, which is no date"
        raise InputError(
            f"split.temporal: {bad.height} rows have no date that can be read. The first, {row['source']}:{row['line']}, has {what} in "
            f"{params.temporal}. Expected ISO 8601 text, or Unix time as a number. Give these rows a date, or take them out."
        )


def _counts(pairs: pl.DataFrame, places: Fixed, params: Params) -> dict[str, int]:
    """How many ties each reason gave, and pins whose rows are not here."""
    seen = dict(pairs.group_by("kind").len().rows())
    names = {"near": "near_pairs", "same prompt": "same_prompt_rows", "group": "same_group_rows"}
    names |= {"ngram": "ngram_pairs"} if params.coverage is not None else {}
    return {name: seen.get(ties.KINDS.index(kind), 0) for kind, name in names.items()} | {"pins_unused": places.unused}


def _dealt(narrow: pl.DataFrame, cluster: np.ndarray, places: Fixed, inside: np.ndarray, params: Params) -> pl.DataFrame:
    """Every row with its `cluster`, the `key` that names it (its smallest id) and `split`; rows that go out count as train.

    Groups with an official row take no part in the dealing: free groups share the splits that official rows leave open, by the ratios.
    """
    rows = narrow.drop("shingles", "grams", "keys", "group", "split").with_columns(
        pl.Series("cluster", cluster), pl.Series("place", places.place), pl.Series("official", places.official), pl.Series("in", inside)
    )
    rows = rows.with_columns(key=pl.col("id").min().over("cluster"))
    groups = rows.filter("in").group_by("cluster").agg(pl.first("key"), pl.col("place").max(), pl.col("official").any()).sort("key")
    ours = groups.filter(~pl.col("official")).with_row_index("group").with_columns(pl.col("group").cast(pl.Int64))
    closed = {int(at) for at in np.unique(places.place[places.official & inside])} - {0}
    ratios = [0.0 if at in closed else ratio for at, ratio in enumerate(params.ratios)]
    ratios = [ratio / sum(ratios) for ratio in ratios]
    of_group = rows.filter("in").join(ours.select("cluster", "group"), on="cluster", how="inner", maintain_order="left")
    split = (_by_strata if params.temporal is None else _by_time)(of_group, ours, ratios, params)
    told = groups.filter("official").select("cluster", pl.col("place").alias("split"))
    told = pl.concat([told, ours.select("cluster", pl.Series("split", split, dtype=pl.Int64))])
    return rows.join(told, on="cluster", how="left", maintain_order="left").with_columns(pl.col("split").fill_null(0))


def _by_strata(rows: pl.DataFrame, groups: pl.DataFrame, ratios: list[float], params: Params) -> np.ndarray:
    wanted = sum(ratio > 0 for ratio in ratios)
    none = pl.format("\x1f{}", "kind")  # no label starts with \x1f: rows without a label are told apart by kind
    named = [
        pl.col(f"by {name}").fill_null(none if name == "label" else pl.lit("\x1f")).alias(f"{at}")
        for at, name in enumerate(params.stratify)
    ]
    columns_ = [f"{at}" for at in range(len(named))] or ["0"]
    valued = rows.select("group", *(named or [pl.lit("").alias("0")]))
    stratum = strata.coarsened(valued, columns_, wanted)
    names = stratum.unique().sort().to_list()
    numbered = rows.select("group", stratum=stratum.replace_strict(names, range(len(names)), return_dtype=pl.Int64) if names else stratum)
    counts = numbered.group_by("group", "stratum").agg(pl.len().alias("rows")).sort("group", "stratum")
    given = dict(groups.filter(pl.col("place") != FREE).select("group", "place").rows())
    return strata.deal(counts, names, groups["key"].to_list(), given, tuple(ratios), params.seed)


def _by_time(rows: pl.DataFrame, groups: pl.DataFrame, ratios: list[float], params: Params) -> np.ndarray:
    """A group is as new as its newest row. Cuts are taken over all groups; those that are fixed keep their place."""
    sized = rows.group_by("group").agg(pl.len().alias("rows"), pl.col("moment").max()).sort("group")
    if not sized.height:
        return np.zeros(0, dtype=np.int64)
    try:
        split = strata.by_time(sized, tuple(ratios))
    except ValueError as error:
        raise InputError(
            f"split.temporal: {params.temporal} has {error} (a group counts with its newest row, and a moment is never cut). "
            "Give finer dates, set a ratio to 0, or set split.temporal to null."
        ) from None
    place = groups["place"].to_numpy()
    return np.where(place == FREE, split, place)


def _newer(rows: pl.DataFrame) -> int:
    """Rows of train that are as new as the oldest group of test; 0 unless fixed rows stand against the order of time."""
    oldest = rows.filter(pl.col("split") == 2).group_by("cluster").agg(pl.col("moment").max())["moment"].min()
    return 0 if oldest is None else rows.filter((pl.col("split") == 0) & (pl.col("moment") >= oldest)).height


def _crossing(untied: ties.Untied, cluster: np.ndarray, split: np.ndarray) -> int:
    """Groups that are in more than one split: only those of official rows that were kept so."""
    a, b = ties.ends(untied.crossing)
    across = split[a] != split[b]
    whole = clusters(len(cluster), cluster[a[across]], cluster[b[across]])
    return len(np.unique(whole[cluster[a[across]]]))


def _conflicts(narrow: pl.DataFrame, crossing: pl.DataFrame, split: np.ndarray) -> pl.DataFrame:
    sides = [
        [pl.Series("SPLITS", SPLITS).gather(split[crossing[side].to_numpy()]).alias(f"{name}_split")]
        + [narrow[column].gather(crossing[side]).alias(f"{name}_{column}") for column in ("id", "source", "line")]
        for name, side in (("left", "a"), ("right", "b"))
    ]
    kinds = pl.Series("kind", [ties.KINDS[kind] for kind in crossing["kind"].to_list()], dtype=pl.String)
    return pl.DataFrame([kinds, *sides[0], *sides[1], crossing["similarity"]]).sort("left_id", "right_id", "kind")


def _balance(rows: pl.DataFrame, params: Params) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of each label in each split; and of these the labels with fewer groups than there are splits to fill."""
    per_split = [(pl.col("split") == at).sum().cast(pl.Int64).alias(name) for at, name in enumerate(SPLITS)]
    balance = (
        rows.select("label", "split", "cluster")
        .group_by("label")
        .agg(pl.len().cast(pl.Int64).alias("rows"), pl.col("cluster").n_unique().cast(pl.Int64).alias("groups"), *per_split)
    )
    balance = balance.sort("label", nulls_last=True)
    wanted = sum(ratio > 0 for ratio in params.ratios)
    return balance, balance.filter(pl.col("label").is_not_null() & (pl.col("groups") < wanted))


STAGE = Stage("split", Params, survey=survey, plan=plan)

if __name__ == "__main__":
    main(STAGE)
