"""Lets through one row of each set of near-duplicates; stays behind: rows at least `threshold` similar to a row that goes on.

Rows are taken from best to worst (`prefer`). A row is dropped if, and only if, some row *kept before it* has a Jaccard similarity of at
least `threshold` with it, checked exactly on the sets of character 5-grams; the evidence names that kept row. So chains never merge:
if a resembles b and b resembles c, c stays unless it resembles a itself. MinHash bands propose the pairs (see minhash.py); a pair at the
threshold is proposed with chance `recall`.

What is in memory: for each row, `permutations` bytes of signature, eight bytes a band and the preference columns. Shingles stay in the
mapped survey. Cost: a row meets only kept rows of its buckets, so a bucket of a million copies costs a million checks. Worst case: rows
that share buckets yet are all kept; each pair of them costs one step of the sieve (about 0.1 µs), and an exact check (about 10 µs)
where the signatures agree nearly as much as at the threshold.
"""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from curate import minhash, record, store
from curate.greedy import Buckets, Checked, Search
from curate.params import check_section, params_class, read_params
from curate.preference import NAMES, Compare, Prefer, compared, drops, order, traits
from curate.stage import Plan, Stage, guarded, main


@params_class
class Params:
    """`params.yaml: dedup_near`."""

    enabled: bool
    threshold: Annotated[float, Field(gt=0, le=1)]
    permutations: Annotated[int, Field(ge=16, le=1024)]
    recall: Annotated[float, Field(gt=0, lt=1)]
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
    return minhash.bands(params.threshold, params.permutations, params.recall)


def survey(batch: pl.DataFrame, params: Params, shape: tuple[int, int]) -> pl.DataFrame:
    """Ids, what preference compares, shingles (list[u32]), band keys and signature bytes."""
    shingles = minhash.shingles(compared(batch, params.compare))
    sketch = minhash.Sketch.of(shingles, shape, params.permutations)
    return traits(batch).with_columns(
        shingles.alias("shingles"),
        pl.Series("keys", sketch.keys, dtype=pl.Array(pl.UInt64, sketch.keys.shape[1])),
        pl.Series("bits", sketch.bits, dtype=pl.Array(pl.UInt8, sketch.bits.shape[1])),
    )


def plan(narrow: pl.DataFrame, params: Params, shape: tuple[int, int]) -> Plan:
    """Drop near-duplicates; tables `pairs` (checked pairs from near_miss up) and `histogram` (their exact number by similarity)."""
    sets = minhash.Sets.of(narrow["shingles"])
    draw = narrow["id"].str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy()
    checked = Checked(draw, params.near_miss)
    agreement = min(minhash.least_agreement(params.threshold, params.permutations), int(params.near_miss * params.permutations))
    buckets = Buckets.over(narrow["keys"], sets.sizes > 0)
    search = Search(sets, narrow["bits"].to_numpy(), buckets, checked, params.threshold, params.near_miss, agreement)
    kept_by, similarity = search.run(order(narrow, params.prefer), narrow["known"].to_numpy())
    checked.cut()
    drop = drops(narrow, kept_by, similarity, "near_duplicate", "{} % of its character 5-grams are shared with {}:{}, which stays.")
    counts = {
        "checked_pairs": checked.count,
        "near_miss_pairs": int(checked.histogram.sum()) - drop.height,
        "label_differs": int(drop["label_differs"].sum()),
        "bands": shape[0],
        "rows_per_band": shape[1],
    }
    tables = {"pairs": _pairs(narrow, checked.sample, kept_by >= 0), "histogram": _histogram(checked.histogram)}
    return Plan(drop.select("row", "reason", "detail", "evidence"), counts=counts, tables=tables)


def _pairs(narrow: pl.DataFrame, sample: np.ndarray, is_dropped: np.ndarray) -> pl.DataFrame:
    row, kept = sample[:, 0].astype(np.int64), sample[:, 1].astype(np.int64)
    named = narrow.select(NAMES)
    other = named[kept].rename(lambda name: f"kept_{name}")
    found = pl.Series("similarity", sample[:, 2], dtype=pl.Float64).round(4)
    both = pl.concat([named[row], other], how="horizontal").with_columns(found, pl.Series("dropped", is_dropped[row]))
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


STAGE = Stage("dedup_near", Params, prepare=prepare, survey=survey, plan=plan)


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
