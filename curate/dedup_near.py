"""Lets through one row of each set of near-duplicates; stays behind: rows at least `threshold` similar to a row that goes on.

Rows are taken from best to worst (`prefer`). A row is dropped if, and only if, some row *kept before it* is at least `threshold` similar,
checked exactly on the sets of shingles (`curate/sets.py`); the evidence names that kept row. So chains never merge: if a resembles b and b
resembles c, c stays unless it resembles a itself. Two rows whose answers are not as alike as that are no duplicates but a conflict: the
same question, answered in two ways. MinHash bands propose the pairs (`curate/lsh.py`): each pair at the threshold with chance `recall`.

In memory are, for each row, four bytes a band and the preference columns; shingles stay in the mapped survey, but for the rows that share a
bucket. No bucket holds more than `boilerplate` rows of text (ten times as many for short texts), but of rows that are hardly
anything else.
"""

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from curate import lsh, matching, record, sketches, store
from curate.greedy import Decided, Rule, decide
from curate.params import check_section, params_class, read_params
from curate.preference import NAMES, Compare, Globs, Prefer, drops, order, sides, traits
from curate.sets import Boilerplate, Sets
from curate.shingle import CHARACTERS, SHINGLING, WORDS, shingles, spelled
from curate.stage import Plan, Stage, guarded, main, say


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
    sources: Globs

    def __post_init__(self) -> None:
        if self.near_miss > self.threshold:
            raise ValueError(f"near_miss {self.near_miss} is above threshold {self.threshold}; it must not be")
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError(f"prefer names a preference twice: {', '.join(self.prefer)}")


BEFORE = Path("data/scrub")  # where `--explain` looks


@dataclass(frozen=True)
class Context:
    """How rows are banded, and what is boilerplate; None: what this run's own rows say."""

    shape: tuple[int, int]
    boilerplate: Boilerplate | None


def prepare(params: Params) -> Context:
    """The banding. Raises ParamsError if recall cannot be reached."""
    context = Context(lsh.bands(params.threshold, params.permutations, params.recall), None)
    threading.Thread(target=_load_loops, args=(params, context), daemon=True).start()
    return context


def _load_loops(params: Params, context: Context) -> None:
    """Have the compiled loops loaded while the first rows are read: a tenth of a second of every start."""
    message = {"role": "text", "content": "The same words. " * 20, "extra": None}
    rows = pl.DataFrame([{"id": f"{at:032x}", "source": "", "line": at, "messages": [message]} for at in range(2)])
    batch = pl.concat([record.empty({"row": pl.UInt32(), "split": pl.String(), **record.SCHEMA}), rows], how="diagonal_relaxed")
    plan(survey(batch, params, context).with_columns(pl.lit(False).alias("known")), params, context)


def survey(batch: pl.DataFrame, params: Params, context: Context) -> pl.DataFrame:
    """Ids, what preference compares, and the shingle sets."""
    both = record.prompt_and_answer(batch)
    prompts, answers = sides(batch, both, params.compare)
    return traits(batch, both["answer"]).with_columns(shingles(prompts, answers).alias("shingles"))


def plan(narrow: pl.DataFrame, params: Params, context: Context) -> Plan:
    """Drop near-duplicates. Tables: `pairs` (checked pairs from near_miss up), `histogram` (their exact number by similarity), and what a
    later run with `--against` needs of the rows that stay (`sketches`, `boilerplate`)."""
    sets = Sets.of(narrow["shingles"])
    draw = record.draws(narrow["id"])
    boilerplate = context.boilerplate or Boilerplate.of(sets, params.boilerplate, draw)
    sketch = lsh.Sketch.of(sets, context.shape, boilerplate)
    buckets = lsh.Buckets.of(sketch)
    rank = np.zeros(narrow.height, dtype=np.int64)
    rank[buckets.rows[order(narrow.drop("shingles")[buckets.rows], params.prefer, params.sources)]] = np.arange(len(buckets.rows))
    rule = Rule(params.threshold, params.threshold if params.compare == "both" else 0.0, params.near_miss)
    found = decide(sets.take(buckets.rows), boilerplate, sketch.left[buckets.rows], buckets, rank, narrow["known"].to_numpy(), draw, rule)
    drop = drops(narrow, found.kept_by, found.similarity, "near_duplicate", "{} % of its shingles are shared with {}:{}, which stays.")
    counts = {
        "checked_pairs": found.checked,
        "near_miss_pairs": int(found.histogram.sum()) - drop.height - found.conflicts,
        "conflict_pairs": found.conflicts,
        "label_differs": int(drop["label_differs"].sum()),
        "boilerplate_shingles": sum(len(each) for each in boilerplate.hashes),
        "bands": context.shape[0],
        "rows_per_band": context.shape[1],
    }
    stays = ~narrow["known"].to_numpy() & (found.kept_by < 0)
    tables = {
        "pairs": _pairs(narrow, found, params.threshold),
        "histogram": _histogram(found.histogram),
        **sketches.tables(sketch, stays, draw, boilerplate, _settings(params, context.shape)),
    }
    return Plan(drop.select("row", "reason", "detail", "evidence"), counts=counts, tables=tables)


def recall(folder: Path, new: pl.DataFrame, params: Params, context: Context) -> tuple[pl.DataFrame, Context] | None:
    """The rows of an earlier output that share a bucket with a new row, found by their stored sketches; None if there are none to use."""
    stored = sketches.read(folder, _settings(params, context.shape), context.shape[0])
    if stored is None:
        say(f"{STAGE.name}: {folder} has no sketches for these settings, so its rows are looked at again.")
        return None
    known, boilerplate = stored
    wanted = sketches.meeting(known, lsh.Sketch.of(Sets.of(new["shingles"]), context.shape, boilerplate))
    found, first = [survey(record.empty({"row": pl.UInt32(), "split": pl.String(), **record.SCHEMA}), params, context)], 0
    for batch in store.batches(folder):
        some = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + batch.height)] - first
        first += batch.height
        if len(some):
            found.append(survey(batch[some], params, context))
    return pl.concat(found), Context(context.shape, boilerplate)


def _settings(params: Params, shape: tuple[int, int]) -> str:
    """What sketches depend on."""
    return f"{params.compare} {shape[0]}x{shape[1]} {params.boilerplate} {SHINGLING}"


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


def explain(folder: Path, one: str, two: str, params: Params) -> str:
    """Why two rows of a folder are, or are not, near-duplicates: similarity, and samples of shared and distinct shingles.

    Raises InputError if the folder has no row with such an id.
    """
    found: dict[str, pl.DataFrame] = {}
    for batch in store.batches(folder):
        wanted = batch.filter(pl.col("id").is_in([one, two]))
        found |= {row["id"][0]: row for row in wanted.iter_slices(1)}
    for each in (one, two):
        if each not in found:
            raise record.InputError(f"{folder}: no row has id '{each}'. Look in the folder of the stage before the one that dropped it.")
    rows = pl.concat([found[one], found[two]])
    prompts, answers = sides(rows, record.prompt_and_answer(rows), params.compare)
    alike = float(matching.similarity(shingles(prompts, answers), np.array([0]), np.array([1]))[0])
    lines = [f"similarity {alike:.4f}, threshold {params.threshold} (nothing is taken for boilerplate here)"]
    both = [spelled(*texts) for texts in zip(prompts.to_list(), answers.to_list(), strict=True)]
    for unit, a, b in zip((f"{CHARACTERS} characters", f"{WORDS} words"), *both, strict=True):
        if not a or not b:
            continue
        lines.append(f"shingles of {unit}: {len(a & b) / len(a | b):.4f}, {len(a & b)} shared, {len(a - b)} and {len(b - a)} not")
        for title, some in (("shared", a & b), (f"only {one}", a - b), (f"only {two}", b - a)):
            lines.append(f"  {title}: {'; '.join(sorted(some)[:20])}{' …' if len(some) > 20 else ''}")
    return "\n".join(lines)


STAGE = Stage("dedup_near", Params, prepare=prepare, survey=survey, plan=plan, recall=recall, threads=True)


def _explain_command(arguments: list[str]) -> None:
    """`--explain [FOLDER] ID1 ID2`."""
    if len(arguments) not in (2, 3):
        raise record.InputError(f"expected --explain [FOLDER] ID1 ID2; without FOLDER the ids are looked up in {BEFORE}.")
    path = Path("params.yaml")
    params = check_section(read_params(path), STAGE.name, Params, path)
    folder = Path(arguments[0]) if len(arguments) == 3 else BEFORE
    print(explain(folder, arguments[-2], arguments[-1], params))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--explain"]:
        guarded(STAGE.name, lambda: _explain_command(sys.argv[2:]))
    else:
        main(STAGE)
