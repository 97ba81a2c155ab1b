"""Adds perturbed copies of rows with rare labels to train, each behind its parent; nothing stays behind.

Only what the user says is changed, and only in train (`curate/perturb.py`). A copy is not made if it repeats a text that exists, strays
from its parent, or comes near validation, test or a benchmark: each such attempt is counted. Tables: `synthetic` (the rows made),
`wanted` (how many each label was to get).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import polars as pl
from pydantic import Field

from curate import overlap, record
from curate.benchmarks import read_benchmarks
from curate.likeness import likeness
from curate.matching import matches, similarity
from curate.overlap import Index, Rules
from curate.params import params_class
from curate.perturb import ALONE, perturbed
from curate.record import InputError
from curate.stage import Outcome, Plan, Stage, main
from curate.strata import draw

ATTEMPTS = 4  # tries for every row wanted
SYNTHETIC = {
    "id": pl.String(),
    "parent": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "label": pl.String(),
    "method": pl.String(),
}


@params_class
class Params:
    """`params.yaml: augment`."""

    enabled: bool
    floor: Annotated[int, Field(ge=1)] | None
    max_share: Annotated[float, Field(ge=0, lt=1)]
    max_per_parent: Annotated[int, Field(ge=1, le=100)]
    methods: tuple[Literal["typos", "punctuation", "greeting", "case"], ...]
    greetings: tuple[Annotated[str, Field(min_length=1)], ...]
    seed: int
    benchmarks: str
    threshold: Annotated[float, Field(gt=0, le=1)]
    n: Annotated[int, Field(ge=2, le=50)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    run: Annotated[int, Field(ge=2)] | None
    min_words: Annotated[int, Field(ge=1)]
    common: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        if not set(self.methods) & set(ALONE):
            raise ValueError(
                f"methods = {list(self.methods)}: expected at least one of {', '.join(ALONE)}; a change of case alone folds away"
            )
        if "greeting" in self.methods and not self.greetings:
            raise ValueError("greetings is empty but methods has greeting: add one, or take greeting out of methods")

    def closeness(self) -> float:
        """Similarity that a copy keeps to its parent. Jaccard distance is a metric, so what is near a copy is not far from its parent."""
        return max(0.4, 1.1 - self.threshold)


@dataclass(frozen=True)
class Context:
    """What workers need; the first two from `prepare`, the rest from `plan`."""

    index: Index
    rules: Rules
    wanted: dict[int, int]  # row -> synthetic rows it is to get
    asked: np.ndarray  # sorted hashes of every prompt there is
    held_out: pl.DataFrame  # shingles, grams: validation and test rows that a copy could come near


def prepare(params: Params) -> Context:
    """The benchmarks' index."""
    rules = Rules(params.threshold, params.n, params.coverage, params.run, params.min_words, params.common)
    return Context(overlap.index(read_benchmarks(Path(params.benchmarks)), rules), rules, {}, np.zeros(0, dtype=np.uint64), pl.DataFrame())


def survey(batch: pl.DataFrame, params: Params, context: Context) -> pl.DataFrame:
    """Split, label, whether the row may have copies, and what rows are compared by."""
    speaks = pl.col("messages").list.eval((pl.element().struct.field("role") == "user") & (pl.element().struct.field("content") != ""))
    able = (pl.col("split") == "train") & pl.col("label").is_not_null() & speaks.list.any() & pl.col("kind").is_in(["chat", "preference"])
    made = pl.col("meta").str.json_path_match("$.synthetic.parent").is_not_null()
    narrow = batch.select("split", "id", "label", (able & ~made).fill_null(False).alias("able"))
    return pl.concat([narrow, likeness(batch, params.n)], how="horizontal")


def plan(narrow: pl.DataFrame, params: Params, context: Context) -> Plan:
    """How many copies each row gets, and the held-out rows that they must keep away from."""
    if narrow.height and (narrow["split"] == "").any():
        raise InputError("The rows have no splits yet. Run split first, and give augment the folder that it wrote.")
    labels = _needs(narrow, params)
    wanted = _per_row(narrow, dict(labels.select("label", "wanted").rows()), params)
    counts = {"wanted": sum(wanted.values()), "labels_below_floor": labels.height}
    parents = narrow["shingles"].gather(sorted(wanted))
    outside = narrow.filter(pl.col("split") != "train").select("shingles", "grams")
    close = matches(parents, outside["shingles"], params.threshold + params.closeness() - 1)["query"].unique().sort()
    asked = narrow["asked"].unique().sort().to_numpy()
    ready = Context(context.index, context.rules, wanted, asked, outside[close])
    return Plan(split=narrow["split"], counts=counts, tables={"wanted": labels}, context=ready)


def _needs(narrow: pl.DataFrame, params: Params) -> pl.DataFrame:
    """Labels below the floor: label, rows, parents, wanted. The rarest are raised first where `max_share` does not reach for all."""
    train = narrow.filter(pl.col("split") == "train")
    labels = (
        train.filter(pl.col("label").is_not_null()).group_by("label").agg(pl.len().alias("rows"), pl.col("able").sum().alias("parents"))
    )
    labels = labels.filter(pl.col("rows") < (params.floor or 0)).sort("rows", "label").cast({"rows": pl.Int64, "parents": pl.Int64})
    rows, most = labels["rows"].to_numpy(), labels["parents"].to_numpy() * params.max_per_parent
    budget = int(params.max_share / (1 - params.max_share) * train.height + 1e-9)

    def reach(level: int) -> np.ndarray:
        needed: np.ndarray = np.clip(np.minimum(level - rows, most), 0, None)
        return needed

    level = params.floor or 0
    while level and int(reach(level).sum()) > budget:
        level -= 1
    wanted = reach(level)
    if level < (params.floor or 0):
        wanted[np.flatnonzero(reach(level + 1) > wanted)[: budget - int(wanted.sum())]] += 1
    return labels.with_columns(pl.Series("wanted", wanted, dtype=pl.Int64))


def _per_row(narrow: pl.DataFrame, wanted: dict[str, int], params: Params) -> dict[int, int]:
    able = narrow.select(pl.int_range(pl.len()).alias("row"), "id", "label", "able").filter(
        pl.col("able") & pl.col("label").is_in(list(wanted))
    )
    share: dict[int, int] = {}
    for (label,), rows in able.group_by("label", maintain_order=True):
        ordered = sorted(rows.select("id", "row").rows(), key=lambda each: (draw(params.seed, each[0]), each))
        every, rest = divmod(wanted[str(label)], len(ordered))
        share |= {row: every + (at < rest) for at, (_, row) in enumerate(ordered) if every + (at < rest)}
    return share


def rows(batch: pl.DataFrame, params: Params, context: Context) -> Outcome:
    """The batch with copies behind their parents."""
    parents = [(at, context.wanted[row]) for at, row in enumerate(batch["row"].to_list()) if row in context.wanted]
    nothing = Outcome(batch, record.empty(record.DROPPED), tables={"synthetic": record.empty(SYNTHETIC)})
    if not parents:
        return nothing
    tried = [copy for at, wanted in parents for copy in _copies(at, batch.row(at, named=True), wanted, params)]
    frame = pl.DataFrame(tried, schema={**record.SCHEMA, "row": pl.UInt32, "split": pl.String, "at": pl.Int64, "method": pl.String})
    verdict = _verdict(frame, batch, params, context)
    chosen, asked = [], set[tuple[int, int]]()
    wanted, taken = dict(parents), dict.fromkeys((at for at, _ in parents), 0)
    counts = {"made": 0}
    for place, (at, why, text) in enumerate(zip(frame["at"], verdict["why"], verdict["asked"], strict=True)):
        if taken[at] == wanted[at]:
            continue
        again = (at, text) in asked
        if why or again:
            counts[f"not_made_{why or 'repeats'}"] = counts.get(f"not_made_{why or 'repeats'}", 0) + 1
            continue
        chosen.append(place)
        asked.add((at, text))
        taken[at] += 1
    made = frame[chosen]
    counts["made"] = made.height
    kept = pl.concat([batch.with_columns(pl.int_range(pl.len()).cast(pl.Int64).alias("at")), made.select([*batch.columns, "at"])])
    kept = kept.sort("at", maintain_order=True).drop("at")
    parent = made["meta"].str.json_path_match("$.synthetic.parent").alias("parent")
    table = made.with_columns(parent).select(pl.col(name).cast(kind) for name, kind in SYNTHETIC.items())
    return Outcome(kept, record.empty(record.DROPPED), made.height, counts, {"synthetic": table})


def _copies(at: int, parent: dict[str, Any], wanted: int, params: Params) -> list[dict[str, Any]]:
    made = []
    for n in range(wanted * ATTEMPTS):
        name = f"{params.seed}\x1f{parent['id']}\x1f{n}"
        messages, method = perturbed(parent["messages"], name, params.methods, params.greetings)
        rejected = None if parent["rejected"] is None else perturbed(parent["rejected"], name, params.methods, params.greetings)[0]
        meta = orjson.loads(parent["meta"] or "{}")
        meta["synthetic"] = {"method": method, "parent": parent["id"], "n": n, "seed": params.seed}
        changed = {"messages": messages, "rejected": rejected, "meta": orjson.dumps(meta).decode(), "at": at, "method": method}
        made.append(parent | changed | {"id": record.content_id(parent["kind"], messages, rejected, parent["label"])})
    return made


def _verdict(frame: pl.DataFrame, batch: pl.DataFrame, params: Params, context: Context) -> pl.DataFrame:
    """For each copy: `asked`, the hash of its prompt, and `why` it is not to be made, empty if it may be."""
    copies, at = likeness(frame, params.n), frame["at"].to_numpy()
    parents = likeness(batch[sorted(set(at.tolist()))], params.n)
    parent = np.searchsorted(sorted(set(at.tolist())), at)
    both = pl.concat([parents["shingles"], copies["shingles"]])
    kept = similarity(both, parent, np.arange(len(at)) + parents.height)
    why = np.full(len(at), "", dtype=object)
    held = overlap.hits(frame, context.index, context.rules)["at"].unique().to_numpy()
    why[held] = "near_benchmark"
    near = matches(context.held_out["shingles"], copies["shingles"], params.threshold)["query"].unique().to_numpy()
    why[np.union1d(near, _new_grams_held(copies["grams"], parents["grams"].gather(parent), context.held_out["grams"]))] = "near_held_out"
    why[kept < params.closeness()] = "far_from_parent"
    why[np.isin(copies["asked"].to_numpy(), context.asked)] = "repeats"
    return pl.DataFrame({"asked": copies["asked"], "why": pl.Series(why.tolist(), dtype=pl.String)})


def _new_grams_held(copies: pl.Series, parents: pl.Series, held_out: pl.Series) -> np.ndarray:
    """Copies that share an n-gram with a held-out row which their parent does not share: they could cover more of it."""
    known = held_out.explode(empty_as_null=False).drop_nulls().unique()
    new = pl.DataFrame({"copy": copies, "parent": parents}).with_row_index("at")
    new = new.select("at", pl.col("copy").list.set_difference("parent").alias("new")).explode("new", empty_as_null=False)
    found: np.ndarray = new.filter(pl.col("new").is_in(known.implode()))["at"].unique().to_numpy()
    return found


STAGE = Stage("augment", Params, rows=rows, prepare=prepare, survey=survey, plan=plan)

if __name__ == "__main__":
    main(STAGE)
