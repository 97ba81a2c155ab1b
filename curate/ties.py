"""What ties rows together (the same prompt, the user's group, near-duplicates, shared n-grams), and what gives where a tie crosses splits.

A tie may join two rows whose splits are fixed apart. `untie` says which of them goes. Every row that goes has a tie of its own to the
row that its evidence names: rows that only a chain joins to another split stay.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from curate import ngrams
from curate.likeness import same
from curate.matching import matches
from curate.pairs import clusters, near_pairs
from curate.pins import FREE, Fixed
from curate.record import SPLITS, StageFailure
from curate.sets import Boilerplate

KINDS = ("same prompt", "group", "near", "ngram")  # in the order in which evidence prefers them
QUERIES = 1 << 12  # rows whose near-duplicates are listed at once
PAIRS = {"a": pl.Int64, "b": pl.Int64, "kind": pl.UInt8, "similarity": pl.Float64}


@dataclass(frozen=True)
class Rules:
    """What counts as alike; the meanings are those of params."""

    threshold: float
    permutations: int
    recall: float
    coverage: float | None
    common: int
    forms: Boilerplate  # of all rows


@dataclass(frozen=True)
class Untied:
    """`drop`: rows that go (as Plan.drop); `out`: mask of these; `pairs`: ties of the others, none of which crosses; `crossing`: ties that
    cross and were left: those of official rows under `keep` (ties between settled rows are not looked for)."""

    drop: pl.DataFrame
    out: np.ndarray
    pairs: pl.DataFrame
    crossing: pl.DataFrame


def tied(narrow: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(ties of all rows, those of n-grams alone): PAIRS by position. Rows are connected just as far as ties say; `near` need not list
    every pair of a large bucket, and `same prompt` and `group` tie each row to one other of its kind."""
    held = _empty()
    if rules.coverage is not None:
        found = ngrams.containing(narrow["grams"], rules.coverage, rules.common)
        held = _pairs(found["a"], found["b"], "ngram", found["coverage"])
    return pl.concat([among(narrow, np.arange(narrow.height), held.clear(), rules), held]), held


def among(narrow: pl.DataFrame, rows: np.ndarray, held: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Ties between `rows` (sorted positions), enough to connect what belongs together."""
    part = narrow if len(rows) == narrow.height else narrow[rows]
    at = pl.Series(rows)
    near = near_pairs(part["shingles"], rules.threshold, rules.permutations, rules.recall, rules.forms)
    found = [_pairs(at.gather(near["a"]), at.gather(near["b"]), "near", near["similarity"])]
    asked = part.select(pl.when(pl.col("asked") != 0).then("asked"))["asked"]
    for kind, column in (("same prompt", asked), ("group", part["group"])):
        one, two = (pl.Series(rows[np.asarray(side, dtype=np.int64)]) for side in same(column))
        found.append(_pairs(one, two, kind, pl.repeat(1.0, len(one), eager=True)))
    inside = np.zeros(narrow.height, dtype=bool)
    inside[rows] = True
    a, b = ends(held)
    return pl.concat([*found, held.filter(pl.Series(inside[a] & inside[b], dtype=pl.Boolean))])


def ends(pairs: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The two sides of ties."""
    return pairs["a"].to_numpy(), pairs["b"].to_numpy()


def untie(
    narrow: pl.DataFrame, ties: pl.DataFrame, held: pl.DataFrame, fixed: Fixed, rules: Rules, official: str | None, bridges: str
) -> Untied:
    """Ties of which none crosses. `official` (error, drop, keep) is for official splits, `bridges` (error, drop) for rows that are free
    but tied to two splits.

    Raises StageFailure that names two rows, by policy, or where both are pinned.
    """
    cluster = clusters(narrow.height, *ends(ties))
    mixed = np.isin(cluster, _mixed(cluster, fixed))
    out = np.zeros(narrow.height, dtype=bool)
    if not mixed.any():
        return Untied(_gone(narrow, _empty(), fixed), out, ties, _empty())
    inside = np.flatnonzero(mixed)
    losing, crossing = _collisions(narrow, inside, held, fixed, rules, official)
    out[losing["a"].to_numpy()] = True
    left = inside[~out[inside]]
    groups = [left[np.isin(fixed.place[left], [FREE, at])] for at in range(len(SPLITS))]
    again = pl.concat([_empty(), *(among(narrow, rows, held, rules) for rows in groups if len(rows))])
    ties = pl.concat([ties.filter(~pl.Series(mixed[ends(ties)[0]], dtype=pl.Boolean)), again.unique(maintain_order=True)])
    between, drop = _bridges(narrow, ties, replace(fixed, place=np.where(out, FREE, fixed.place)), bridges)
    out[between] = True
    a, b = ends(ties)
    whole = pl.concat([_gone(narrow, losing, fixed), drop])
    return Untied(whole, out, ties.filter(pl.Series(~(out[a] | out[b]), dtype=pl.Boolean)), crossing)


def _mixed(cluster: np.ndarray, fixed: Fixed) -> np.ndarray:
    """Clusters with rows fixed to more than one split, or with official rows of validation or test beside others."""
    rows = pl.DataFrame({"cluster": cluster, "place": fixed.place, "closed": fixed.official & (fixed.place > 0)})
    seen = rows.filter((pl.col("place") >= 0) | pl.col("closed").any().over("cluster")).group_by("cluster")
    found: np.ndarray = seen.agg(pl.col("place").n_unique().alias("n")).filter(pl.col("n") > 1)["cluster"].sort().to_numpy()
    return found


def _collisions(
    narrow: pl.DataFrame, rows: np.ndarray, held: pl.DataFrame, fixed: Fixed, rules: Rules, official: str | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(ties whose side `a` has to go, ties that are left to cross): rows fixed apart, and free rows like an official one of validation or
    test. First goes what is like settled rows of another split, then what is like test, then what is like validation."""
    gone, crossing = [_empty()], [_empty()]
    place, known = fixed.place, fixed.known
    for settled, to in [(True, 0), (True, 1), (True, 2), (False, 2), (False, 1)]:
        strong = rows[(place[rows] == to) & (known[rows] == settled)]
        weak = rows[~known[rows] & (place[rows] >= 0) & (place[rows] != to if settled else place[rows] < to)]
        free = rows[place[rows] < 0] if to > 0 and official not in (None, "keep") else rows[:0]
        found = pl.concat([_met(narrow, weak, strong, held, rules), _met(narrow, free, strong[fixed.official[strong]], held, rules)])
        a, b = ends(found)
        stays = pl.Series((fixed.official[a] | fixed.official[b]) & (official == "keep"), dtype=pl.Boolean)
        crossing.append(found.filter(stays))
        found = found.filter(~stays)
        if found.height:
            _refuse(narrow, found, fixed, official)
            gone.append(found)
            rows = rows[~np.isin(rows, found["a"].to_numpy())]
    return pl.concat(gone), pl.concat(crossing)


def _met(narrow: pl.DataFrame, rows: np.ndarray, others: np.ndarray, held: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """For each of `rows` the best tie of each kind to one of `others`, no row missed: `a` of rows, `b` of others."""
    if not len(rows) or not len(others):
        return _empty()
    found, index = [], narrow["shingles"].gather(others)
    for start in range(0, len(rows), QUERIES):
        asking = rows[start : start + QUERIES]
        met = matches(index, narrow["shingles"].gather(asking), rules.threshold, rules.forms).unique(
            "query", keep="first", maintain_order=True
        )
        found.append(_pairs(pl.Series(asking).gather(met["query"]), pl.Series(others).gather(met["item"]), "near", met["similarity"]))
    keyed = narrow.select(pl.when(pl.col("asked") != 0).then("asked"), "group").with_row_index("at")
    for kind, column in (("same prompt", "asked"), ("group", "group")):
        first = keyed[others].drop_nulls(column).unique(column, keep="first", maintain_order=True)
        met = keyed[rows].join(first, on=column, how="inner", suffix="_other", maintain_order="left")
        found.append(_pairs(met["at"], met["at_other"], kind, pl.repeat(1.0, met.height, eager=True)))
    both = pl.concat([held, held.rename({"a": "b", "b": "a"}).select(list(PAIRS))])
    both = both.filter(pl.col("a").is_in(pl.Series(rows).implode()) & pl.col("b").is_in(pl.Series(others).implode()))
    found.append(both.sort("a", "similarity", "b", descending=[False, True, False]).unique("a", keep="first", maintain_order=True))
    return pl.concat(found)


def _refuse(narrow: pl.DataFrame, found: pl.DataFrame, fixed: Fixed, official: str | None) -> None:
    """StageFailure where two rows are fixed apart that belong together: by policy, or because both are pinned."""
    a, b = ends(found)
    of_official = fixed.official[a] | fixed.official[b]
    if of_official.all() and official == "drop":
        return
    at = 0 if official == "error" else int(np.flatnonzero(~of_official)[0])
    one, two = (_named(narrow, row, fixed) for row in sorted((int(a[at]), int(b[at]))))
    if of_official[at]:
        cure = "set split.official.conflicts=drop to leave out the train side, or keep to use the splits as they are."
    else:
        cure = "take one of the two ids out of the pinned file."
    raise StageFailure(
        f"{found.height} ties join rows that are pinned into two splits, or official in two. The first holds {one} and {two} "
        f"({KINDS[found['kind'][at]]}, {found['similarity'][at]:.3f}). To mend this, {cure}"
    )


def _named(narrow: pl.DataFrame, row: int, fixed: Fixed) -> str:
    where = SPLITS[fixed.place[row]] if fixed.place[row] >= 0 else "no split yet"
    return f"{narrow['id'][row]} ({narrow['source'][row]}:{narrow['line'][row]}) in {where}"


def _gone(narrow: pl.DataFrame, losing: pl.DataFrame, fixed: Fixed) -> pl.DataFrame:
    """Each row that loses, with the row that it is most alike of those that it loses to."""
    best = (
        losing.with_columns(other_id=narrow["id"].gather(losing["b"]))
        .sort("a", "similarity", "kind", "other_id", descending=[False, True, False, False])
        .unique("a", keep="first", maintain_order=True)
    )
    winner = best["b"]
    evidence = pl.DataFrame(
        {
            "kept_id": best["other_id"],
            "kept_source": narrow["source"].gather(winner),
            "kept_line": narrow["line"].gather(winner),
            "kept_split": pl.Series([SPLITS[fixed.place[at]] for at in winner.to_list()], dtype=pl.String),
            "tie": pl.Series([KINDS[kind] for kind in best["kind"].to_list()], dtype=pl.String),
            "similarity": best["similarity"],
        }
    )
    detail = "Resembles a row of another split that is official or settled; that row stays."
    return _as_drop(best["a"], "official_conflict", detail, evidence)


def _bridges(narrow: pl.DataFrame, ties: pl.DataFrame, fixed: Fixed, policy: str) -> tuple[np.ndarray, pl.DataFrame]:
    """The free rows of groups that are fixed to more than one split: they could go nowhere."""
    cluster = clusters(narrow.height, *ends(ties))
    at = np.flatnonzero(fixed.place >= 0)
    seen = pl.DataFrame({"cluster": cluster[at], "row": at, "place": fixed.place[at]}).sort("row")
    torn = seen.filter(pl.col("place").n_unique().over("cluster") > 1)
    two = torn.group_by("cluster", maintain_order=True).agg(
        one=pl.first("row"), other=pl.col("row").filter(pl.col("place") != pl.first("place")).first()
    )
    if two.height and policy == "error":
        named = [_named(narrow, int(two[side][0]), fixed) for side in ("one", "other")]
        raise StageFailure(
            f"{two.height} groups are pinned into two splits. The first holds {named[0]} and {named[1]}. To mend this, set "
            "split.pin_conflicts=drop to leave out the new rows that tie them together, or take one of the two ids out of the pinned file."
        )
    free = pl.DataFrame({"cluster": cluster, "row": np.arange(len(cluster))}).filter(pl.Series(fixed.place < 0, dtype=pl.Boolean))
    between = free.join(two, on="cluster", how="inner").sort("row")
    evidence = pl.DataFrame({"kept_id": narrow["id"].gather(between["one"]), "other_id": narrow["id"].gather(between["other"])})
    detail = "Tied to rows whose splits are fixed apart, so it can go to none of them."
    return between["row"].to_numpy(), _as_drop(between["row"], "ties_pinned_splits", detail, evidence)


def _as_drop(rows: pl.Series, reason: str, detail: str, evidence: pl.DataFrame) -> pl.DataFrame:
    return evidence.select(
        rows.cast(pl.UInt32).alias("row"),
        pl.lit(reason).alias("reason"),
        pl.lit(detail).alias("detail"),
        pl.struct(pl.all()).struct.json_encode().alias("evidence"),
    )


def _pairs(a: pl.Series, b: pl.Series, kind: str, similarity: pl.Series) -> pl.DataFrame:
    kinds = pl.repeat(KINDS.index(kind), len(a), dtype=pl.UInt8, eager=True)
    return pl.DataFrame({"a": a.cast(pl.Int64), "b": b.cast(pl.Int64), "kind": kinds, "similarity": similarity.cast(pl.Float64)})


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=PAIRS)
