"""Lets through one row of each set of near-duplicates; stays behind: rows at least `threshold` similar to a row that goes on.

Rows are taken from best to worst (`prefer`). A row is dropped if, and only if, some row *kept before it* is at least `threshold` similar,
checked exactly on the sets of shingles (`curate/sets.py`); the evidence names that kept row. So chains never merge: if a resembles b and b
resembles c, c stays unless it resembles a itself. Two rows whose answers are not as alike as that are no duplicates but a conflict: the same
question, answered in two ways. MinHash bands propose the pairs (`curate/lsh.py`); a pair at the threshold is proposed with chance `recall`.

In memory are, for each row, four bytes a band and the preference columns; shingles stay in the mapped survey, but for the rows that share a
bucket. No bucket holds more than `boilerplate` rows of text (ten times as many for short texts), unless they are copies of one another.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from curate import lsh, record, store
from curate.greedy import Decided, Rule, decide
from curate.params import check_section, params_class, read_params
from curate.preference import NAMES, Compare, Prefer, drops, order, sides, traits
from curate.sets import Boilerplate, Sets
from curate.shingle import shingles
from curate.stage import Plan, Stage, guarded, main


@params_class
class Params:
    """`params.yaml: dedup_near`."""

    enabled: bool
    threshold: Annotated[float, Field(gt=0, le=1)]
    permutations: Annotated[int, Field(ge=16, le=1024)]
    recall: Annotated[float, Field(gt=0, lt=1)]
    boilerplate: Annotated[int, Field(ge=10)] | None
    near_miss: Annotated[float, Field(gt=0, le=1)]
    compare: Compare
    prefer: tuple[Prefer, ...]

    def __post_init__(self) -> None:
        if self.near_miss > self.threshold:
            raise ValueError(f"near_miss {self.near_miss} is above threshold {self.threshold}; it must not be")
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError(f"prefer names a preference twice: {', '.join(self.prefer)}")


def prepare(params: Params) -> tuple[int, int]:
    """(bands, rows) of the banding. Raises ParamsError if recall cannot be reached."""
    return lsh.bands(params.threshold, params.permutations, params.recall)


def survey(batch: pl.DataFrame, params: Params, shape: tuple[int, int]) -> pl.DataFrame:
    """Ids, what preference compares, and the shingle sets."""
    both = record.prompt_and_answer(batch)
    prompts, answers = sides(batch, both, params.compare)
    return traits(batch, both["answer"]).with_columns(shingles(prompts, answers).alias("shingles"))


def plan(narrow: pl.DataFrame, params: Params, shape: tuple[int, int]) -> Plan:
    """Drop near-duplicates; tables `pairs` (checked pairs from near_miss up) and `histogram` (their exact number by similarity)."""
    boilerplate = Boilerplate.of(narrow["shingles"], params.boilerplate)
    buckets = lsh.Buckets.of(lsh.Sketch.of(narrow["shingles"], shape, boilerplate))
    sets = Sets.of(narrow["shingles"], buckets.rows)
    rank = np.empty(narrow.height, dtype=np.int64)
    rank[order(narrow, params.prefer)] = np.arange(narrow.height)
    draw = narrow["id"].str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy()
    rule = Rule(params.threshold, params.threshold if params.compare == "both" else 0.0, params.near_miss)
    found = decide(sets, boilerplate, buckets, rank, narrow["known"].to_numpy(), draw, rule)
    drop = drops(narrow, found.kept_by, found.similarity, "near_duplicate", "{} % of its shingles are shared with {}:{}, which stays.")
    counts = {
        "checked_pairs": found.checked,
        "near_miss_pairs": int(found.histogram.sum()) - drop.height - found.conflicts,
        "conflict_pairs": found.conflicts,
        "label_differs": int(drop["label_differs"].sum()),
        "boilerplate_shingles": sum(len(each) for each in boilerplate.sorted),
        "bands": shape[0],
        "rows_per_band": shape[1],
    }
    tables = {"pairs": _pairs(narrow, found, params.threshold), "histogram": _histogram(found.histogram)}
    return Plan(drop.select("row", "reason", "detail", "evidence"), counts=counts, tables=tables)


def _pairs(narrow: pl.DataFrame, found: Decided, threshold: float) -> pl.DataFrame:
    row, kept = found.pairs[:, 0], found.pairs[:, 1]
    named = narrow.select(NAMES)
    other = named[kept].rename(lambda name: f"kept_{name}")
    both = pl.concat([named[row], other], how="horizontal").with_columns(
        pl.Series("similarity", found.alike[:, 0]).round(4),
        pl.Series("answer_similarity", found.alike[:, 1]).round(4),
        pl.Series("dropped", found.kept_by[row] == kept),
        pl.Series("conflict", (found.alike[:, 0] >= threshold) & (found.kept_by[row] != kept)),
    )
    return both.sort("similarity", *NAMES, *(f"kept_{name}" for name in NAMES))


def _histogram(counted: np.ndarray) -> pl.DataFrame:
    """Pairs per hundredth of similarity: `from` 0.80 holds 0.80 up to below 0.81."""
    at = np.flatnonzero(counted)
    return pl.DataFrame({"from": at / 100, "pairs": counted[at]}, schema={"from": pl.Float64, "pairs": pl.Int64})


def explain(folder: Path, one: str, two: str, compare: str) -> str:
    """Why two rows of a folder are, or are not, near-duplicates: similarity, and samples of shared and distinct shingles.

    Raises InputError if the folder has no row with such an id.
    """
    found: dict[str, str] = {}
    for batch in store.batches(folder):
        wanted = batch.filter(pl.col("id").is_in([one, two]))
        found |= dict(zip(wanted["id"].to_list(), compared(wanted, compare).to_list(), strict=True))
    for each in (one, two):
        if each not in found:
            raise record.InputError(f"{folder}: no row has id '{each}'. Look in the folder of the stage before the one that dropped it.")
    a, b = ({text[at : at + minhash.SHINGLE] for at in range(max(len(text) - minhash.SHINGLE + 1, 1))} for text in (found[one], found[two]))
    lines = [f"similarity {len(a & b) / len(a | b):.4f}: {len(a & b)} shingles shared, {len(a - b)} and {len(b - a)} not"]
    for title, some in (("shared", a & b), (f"only {one}", a - b), (f"only {two}", b - a)):
        lines.append(f"{title}: {' '.join(repr(each) for each in sorted(some)[:20])}{' …' if len(some) > 20 else ''}")
    return "\n".join(lines)


STAGE = Stage("dedup_near", Params, prepare=prepare, survey=survey, plan=plan, threads=True)


def _explain_command(arguments: list[str]) -> None:
    """`--explain FOLDER ID1 ID2`."""
    if len(arguments) != 3:
        raise record.InputError("expected --explain FOLDER ID1 ID2.")
    path = Path("params.yaml")
    params = check_section(read_params(path), STAGE.name, Params, path)
    print(explain(Path(arguments[0]), arguments[1], arguments[2], params.compare))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--explain"]:
        guarded(STAGE.name, lambda: _explain_command(sys.argv[2:]))
    else:
        main(STAGE)
