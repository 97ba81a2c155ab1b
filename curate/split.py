"""Deals rows out to train, validation and test; nothing stays behind (but see `pin_conflicts`).

A group is never cut. It is what the user's `group`, the same prompt, near-duplicates and shared n-grams tie together, so no test row
has a look-alike in train. Labels keep the ratios (`curate/strata.py`). Tables: `assignments` (id, split, cluster), which a later run can
take as `pinned`; `balance` (label by split); `rare_labels`, those with too few groups to be in every split.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field

from curate import minhash, ngrams, strata
from curate.likeness import likeness, same
from curate.params import params_class
from curate.record import SPLITS, InputError, StageFailure
from curate.stage import Plan, Stage, main


@params_class
class Params:
    """`params.yaml: split`."""

    ratios: tuple[float, float, float]
    seed: int
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


def survey(batch: pl.DataFrame, params: Params, context: None) -> pl.DataFrame:
    """Where a row comes from, what it is stratified and grouped on, and what it is compared by."""
    stratum = pl.when(pl.col("label").is_null()).then(pl.format("\x1f{}", "kind")).otherwise("label")  # no label starts with \x1f
    named = batch.select("id", "source", "line", "label", "group", stratum.alias("stratum"))
    return pl.concat([named, likeness(batch, params.n)], how="horizontal")


def plan(narrow: pl.DataFrame, params: Params, context: None) -> Plan:
    """Ties rows to groups, deals the groups, and checks that no tie crosses."""
    ids = narrow["id"]
    a, b, counts = _ties(narrow, params)
    cluster = minhash.clusters(narrow.height, a, b)
    pinned = _pinned(ids, params)
    drop = None
    conflicts = _conflicts(cluster, pinned)
    if len(conflicts):
        _refuse(narrow, cluster, pinned, conflicts, params)
        drop = _bridges(narrow, cluster, pinned, conflicts)
        out = np.isin(np.arange(narrow.height), drop["row"].to_numpy())
        inside = ~(out[a] | out[b])
        a, b = a[inside], b[inside]
        cluster = minhash.clusters(narrow.height, a, b)
        _refuse(narrow, cluster, pinned, _conflicts(cluster, pinned), None)
    else:
        out = np.zeros(narrow.height, dtype=bool)
    split, group, keys = _dealt(narrow, cluster, pinned, out, params)
    crossing = int((split[a] != split[b]).sum())
    if crossing:
        raise StageFailure(f"{crossing} pairs that belong together were dealt to different splits. This is a fault in the stage.")
    places = pl.Series("split", SPLITS)
    assigned = pl.DataFrame({"id": ids, "split": places.gather(split), "cluster": pl.Series(keys).gather(group)})
    sizes = np.bincount(group[~out])
    counts |= {"groups": int((sizes > 0).sum()), "largest_group": int(sizes.max(initial=0)), "groups_crossing": 0}
    counts |= {f"rows_{name}": int(((split == at) & ~out).sum()) for at, name in enumerate(SPLITS)}
    counts |= {"pinned_rows": int(((pinned >= 0) & ~out).sum())}
    balance, rare = _balance(narrow, split, group, out, params)
    tables = {"assignments": assigned.filter(~pl.Series(out)), "balance": balance, "rare_labels": rare}
    counts |= {"labels": balance.filter(pl.col("label").is_not_null()).height, "rare_labels": rare.height}
    return Plan(drop, assigned["split"], counts, tables)


def _ties(narrow: pl.DataFrame, params: Params) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Pairs of positions that may not be parted, and how many each reason gave."""
    near = minhash.near_pairs(narrow["shingles"], params.group_threshold, params.permutations, params.recall)
    asked = same(narrow.select(pl.when(pl.col("asked") != 0).then("asked"))["asked"])
    group = same(narrow["group"])
    pairs = [
        near.select("a", "b"),
        *(pl.DataFrame({"a": one, "b": two}, schema={"a": pl.UInt32, "b": pl.UInt32}) for one, two in (asked, group)),
    ]
    counts = {"near_pairs": near.height, "same_prompt_rows": len(asked[0]), "same_group_rows": len(group[0])}
    if params.coverage is not None:
        held = ngrams.containing(narrow["grams"], params.coverage, params.common)
        pairs.append(held.select("a", "b"))
        counts["ngram_pairs"] = held.height
    tied = pl.concat(pairs)
    return tied["a"].to_numpy().astype(np.int64), tied["b"].to_numpy().astype(np.int64), counts


def _pinned(ids: pl.Series, params: Params) -> np.ndarray:
    """The place in SPLITS that each row is pinned to, -1 for free rows."""
    free = np.full(len(ids), -1, dtype=np.int64)
    if params.pinned is None:
        return free
    path = Path(params.pinned)
    if not path.is_file():
        raise InputError(
            f"split.pinned: {path}: no such file. Point it at an earlier assignments.parquet (or a CSV of id,split), or set null."
        )
    try:
        table = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"split.pinned: {path}: not readable ({str(error).splitlines()[0]}). Expected parquet or CSV with id and split."
        ) from None
    if missing := {"id", "split"} - set(table.columns):
        raise InputError(f"split.pinned: {path}: has no column {sorted(missing)}; found {table.columns}.")
    table = table.select(pl.col("id").cast(pl.String), pl.col("split").cast(pl.String)).unique(maintain_order=True)
    if (bad := table.filter(~pl.col("split").is_in(SPLITS))).height:
        raise InputError(f"split.pinned: {path}: split {bad['split'][0]!r} of id {bad['id'][0]}: expected one of {', '.join(SPLITS)}.")
    if (twice := table.filter(pl.col("id").is_duplicated())).height:
        raise InputError(f"split.pinned: {path}: id {twice['id'][0]} stands there with two splits. Keep one.")
    place = table["split"].replace_strict(list(SPLITS), [0, 1, 2], return_dtype=pl.Int64)
    joined = pl.DataFrame({"id": ids}).join(table.with_columns(place.alias("place")), on="id", how="left", maintain_order="left")
    found: np.ndarray = joined["place"].fill_null(-1).to_numpy()
    return found


def _conflicts(cluster: np.ndarray, pinned: np.ndarray) -> np.ndarray:
    """Clusters with rows pinned to more than one split."""
    at = np.flatnonzero(pinned >= 0)
    seen = pl.DataFrame({"cluster": cluster[at], "pinned": pinned[at]}).group_by("cluster").agg(pl.col("pinned").n_unique().alias("splits"))
    return seen.filter(pl.col("splits") > 1)["cluster"].sort().to_numpy()


def _two_pins(cluster: np.ndarray, pinned: np.ndarray, which: int) -> tuple[int, int]:
    """The first row of a cluster that is pinned, and the first that is pinned elsewhere."""
    rows = np.flatnonzero((cluster == which) & (pinned >= 0))
    return int(rows[0]), int(rows[np.flatnonzero(pinned[rows] != pinned[rows[0]])[0]])


def _refuse(narrow: pl.DataFrame, cluster: np.ndarray, pinned: np.ndarray, conflicts: np.ndarray, params: Params | None) -> None:
    """StageFailure for groups pinned apart: if the policy is `error`, or (`params` None) where pinned rows alone belong together."""
    if not len(conflicts) or (params is not None and params.pin_conflicts == "drop"):
        return
    one, two = _two_pins(cluster, pinned, int(conflicts[0]))
    named = [f"{narrow['id'][at]} ({narrow['source'][at]}:{narrow['line'][at]}) in {SPLITS[pinned[at]]}" for at in (one, two)]
    advice = "set split.pin_conflicts=drop to leave out the new rows that tie them together, or " if params is not None else ""
    raise StageFailure(
        f"{len(conflicts)} groups are pinned into two splits. The first holds {named[0]} and {named[1]}. "
        f"To mend this, {advice}take one of the two ids out of the pinned file."
    )


def _bridges(narrow: pl.DataFrame, cluster: np.ndarray, pinned: np.ndarray, conflicts: np.ndarray) -> pl.DataFrame:
    """The unpinned rows of groups that are pinned apart."""
    rows = np.flatnonzero(np.isin(cluster, conflicts) & (pinned < 0))
    pins = {int(which): _two_pins(cluster, pinned, int(which)) for which in conflicts}
    both = [pins[int(cluster[row])] for row in rows]
    ids = narrow["id"]
    evidence = pl.DataFrame(
        {"kept_id": [ids[one] for one, _ in both], "other_id": [ids[two] for _, two in both]},
        schema={"kept_id": pl.String, "other_id": pl.String},
    )
    return evidence.select(
        pl.Series("row", rows, dtype=pl.UInt32),
        pl.lit("ties_pinned_splits").alias("reason"),
        pl.lit("Belongs to a group whose rows are pinned to different splits.").alias("detail"),
        pl.struct("kept_id", "other_id").struct.json_encode().alias("evidence"),
    )


def _dealt(
    narrow: pl.DataFrame, cluster: np.ndarray, pinned: np.ndarray, out: np.ndarray, params: Params
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(split of each row, number of its group, name of each group): rows that are left out take no part and count as train."""
    rows = pl.DataFrame({"id": narrow["id"], "cluster": cluster, "stratum": narrow["stratum"], "pinned": pinned, "out": out})
    rows = rows.with_columns(key=pl.col("id").min().over("cluster"), group=pl.col("cluster").rank("dense").cast(pl.Int64) - 1)
    names = rows["stratum"].unique().sort().to_list()
    number = rows["stratum"].replace_strict(names, range(len(names)), return_dtype=pl.Int64) if names else pl.Series(dtype=pl.Int64)
    rows = rows.with_columns(number.alias("stratum"))
    inside = rows.filter(~pl.col("out"))
    groups = rows.group_by("group").agg(pl.first("key")).sort("group")
    counts = inside.group_by("group", "stratum").agg(pl.len().alias("rows")).sort("group", "stratum")
    fixed = dict(inside.filter(pl.col("pinned") >= 0).select("group", "pinned").unique().rows())
    split = strata.deal(counts, names, groups["key"].to_list(), fixed, params.ratios, params.seed)
    group = rows["group"].to_numpy()
    return np.maximum(split[group], 0), group, groups["key"].to_list()


def _balance(
    narrow: pl.DataFrame, split: np.ndarray, group: np.ndarray, out: np.ndarray, params: Params
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of each label in each split; and of these the labels with fewer groups than there are splits to fill."""
    rows = pl.DataFrame({"label": narrow["label"], "split": split, "group": group}).filter(~pl.Series(out))
    per_split = [(pl.col("split") == at).sum().cast(pl.Int64).alias(name) for at, name in enumerate(SPLITS)]
    balance = rows.group_by("label").agg(
        pl.len().cast(pl.Int64).alias("rows"), pl.col("group").n_unique().cast(pl.Int64).alias("groups"), *per_split
    )
    balance = balance.sort("label", nulls_last=True)
    wanted = sum(ratio > 0 for ratio in params.ratios)
    return balance, balance.filter(pl.col("label").is_not_null() & (pl.col("groups") < wanted))


STAGE = Stage("split", Params, survey=survey, plan=plan)

if __name__ == "__main__":
    main(STAGE)
