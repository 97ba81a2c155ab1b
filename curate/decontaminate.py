"""Lets through what no benchmark holds; stays behind: every row that holds an item of a set in the benchmarks folder.

What counts as holding is said in `curate/overlap.py`. Evidence names set, item and the span in the row and in the item, and whether the
item's answer was met along with its question. With `policy: flag` rows go on and are listed in `flagged.parquet` instead.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import polars as pl
from pydantic import Field

from curate import ngrams, overlap, record
from curate.benchmarks import read_benchmarks
from curate.overlap import Index, Rules
from curate.params import params_class
from curate.stage import Outcome, Stage, drop, main, say


@params_class
class Params:
    """`params.yaml: decontaminate`."""

    enabled: bool
    benchmarks: str
    policy: Literal["drop", "flag"]
    threshold: Annotated[float, Field(gt=0, le=1)]
    n: Annotated[int, Field(ge=2, le=50)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    run: Annotated[int, Field(ge=2)] | None
    min_words: Annotated[int, Field(ge=1)]
    common: Annotated[int, Field(ge=1)]

    def __post_init__(self) -> None:
        if self.run is not None and self.run < self.n:
            raise ValueError(f"run = {self.run} is shorter than n = {self.n}: runs are made of n-grams; raise run or lower n")


@dataclass(frozen=True)
class Context:
    """What workers need: the index over all items, and the rules."""

    index: Index
    rules: Rules


DETAIL = {
    "exact": "Asks item {} of {}: the same question but for case, white space and punctuation.",
    "near": "Asks nearly what item {} of {} asks.",
    "ngram": "Shares long runs of words with item {} of {}.",
    "contained": "Holds the whole of item {} of {}.",
}


def prepare(params: Params) -> Context:
    """The index over all items of all sets."""
    rules = Rules(params.threshold, params.n, params.coverage, params.run, params.min_words, params.common)
    items = read_benchmarks(Path(params.benchmarks))
    if not items.height:
        say(f"decontaminate: {params.benchmarks} holds no benchmark, so no row can be checked against one.")
    return Context(overlap.index(items, rules), rules)


def rows(batch: pl.DataFrame, params: Params, context: Context) -> Outcome:
    """Rows without an item go on; for the others the strongest hit is the reason, and its evidence names the item."""
    found = overlap.hits(batch, context.index, context.rules)
    best = found.group_by("at", maintain_order=True).agg(pl.all().first(), pl.len().alias("items"))
    proofs = [_proof(hit, batch.row(hit["at"], named=True), context) for hit in best.iter_rows(named=True)]
    marked = batch[best["at"]].with_columns(
        pl.Series("reason", [f"benchmark_{proof['tier']}" for proof in proofs], dtype=pl.String),
        pl.Series("detail", [DETAIL[proof["tier"]].format(proof["item"], proof["set"]) for proof in proofs], dtype=pl.String),
        pl.Series("evidence", [orjson.dumps(proof).decode() for proof in proofs], dtype=pl.String),
    )
    hit_rows = drop(marked, pl.col("reason"), pl.col("detail"), pl.col("evidence"))
    counts = _counts(batch, proofs, context)
    if params.policy == "flag":
        return Outcome(batch, record.empty(record.DROPPED), counts=counts, tables={"flagged": hit_rows})
    kept = batch.join(marked.select("row"), on="row", how="anti", maintain_order="left")
    return Outcome(kept, hit_rows, counts=counts, tables={"flagged": record.empty(record.DROPPED)})


def _counts(batch: pl.DataFrame, proofs: list[dict[str, Any]], context: Context) -> dict[str, int]:
    counts: dict[str, int] = {}
    for proof in proofs:
        for name in (f"set {proof['set']}", f"overlap {proof['overlap']}"):
            counts[name] = counts.get(name, 0) + 1
    if batch.height and batch["row"][0] == 0:  # what holds for the whole run is counted with its first batch
        counts |= {"benchmark_items": context.index.items.height, "benchmark_sets": context.index.items["set"].n_unique()}
    return counts


def _proof(hit: dict[str, Any], row: dict[str, Any], context: Context) -> dict[str, Any]:
    """Evidence of one hit: positions and names, never text."""
    item = context.index.items.row(hit["item"], named=True)
    of_item = item["answer"] if hit["answer"] else item["question"]
    if hit["turn"] is None:
        text = record.prompt_and_answer(pl.DataFrame([row], schema=record.SCHEMA))["prompt"][0]
    else:
        text = row[hit["field"]][hit["turn"]]["content"]
    start, end = _span(text, hit["start"], hit["words"])
    item_start, item_end = _span(of_item, hit["item_start"], hit["words"])
    return {
        "set": item["set"],
        "item": item["item"],
        "item_id": item["item_id"],
        "tier": overlap.TIERS[hit["tier"]],
        "overlap": "answer" if hit["answer"] else ("question and answer" if _answers(row, item["answer"], context.rules) else "question"),
        "score": round(hit["score"], 4),
        "words": hit["words"],
        "span": {"field": hit["field"], "turn": hit["turn"], "start": start, "end": end},
        "item_span": {"field": "answer" if hit["answer"] else "question", "start": item_start, "end": item_end},
        "items": hit["items"],
    }


def _span(text: str, first: int, words: int) -> tuple[int, int]:
    """Start and end (characters) of `words` tokens from token `first` on; the whole text for none."""
    if not words:
        return 0, len(text)
    places = ngrams.places(text, ngrams.tokens(pl.Series([text]))[0].to_list())
    return places[first][0], places[first + words - 1][1]


def _answers(row: dict[str, Any], answer: str, rules: Rules) -> bool:
    """Does the row give the item's answer? A short one must be the row's whole answer or label, a longer one stand in its answers."""
    given = [each["content"] for each in row["messages"] if each["role"] in ("assistant", "text") and each["content"]]
    said = _words([answer, row["label"] or "", *given])
    wanted, others = said[0], said[1:]
    if not wanted:
        return False
    if len(wanted) < rules.min_words:
        return wanted in others
    if any(f" {' '.join(wanted)} " in f" {' '.join(other)} " for other in others):
        return True
    parts = {tuple(wanted[at : at + rules.n]) for at in range(len(wanted) - rules.n + 1)}
    there = {tuple(other[at : at + rules.n]) for other in others for at in range(len(other) - rules.n + 1)}
    return bool(parts) and len(parts & there) >= rules.coverage * len(parts)


def _words(texts: list[str]) -> list[list[str]]:
    return [ngrams.folded(found).to_list() for found in ngrams.tokens(pl.Series(texts, dtype=pl.String))]


STAGE = Stage("decontaminate", Params, prepare=prepare, rows=rows)

if __name__ == "__main__":
    main(STAGE)
