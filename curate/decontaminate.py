"""Lets through what no benchmark holds; stays behind: every row that surely holds an item of a set in the benchmarks folder.

What counts as holding is said in `curate/overlap.py`. Evidence names set, item and the span in the row and in the item, and whether the
item's answer was met along with its question. Rows that are only worth a look (the item with other numbers or names, a piece of it, a
text of like meaning), and those whose set has the policy `flag`, go on and are listed in `flagged.parquet`.
"""

import fnmatch
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import polars as pl
from pydantic import Field

from curate import ngrams, overlap, record
from curate.benchmarks import read_benchmarks
from curate.embed import embed
from curate.overlap import HIT, SURE, TIERS, Index, Rules
from curate.params import params_class
from curate.record import ParamsError
from curate.stage import Outcome, Stage, drop, main, say

Action = Literal["drop", "flag"]
SLACK = 1e-4  # matrix products in f32 differ in the last digits; what comes this near is decided in f64


@params_class
class ByField:
    """What becomes of rows that hold the question of an item, and of those that hold its answer; who holds both is dropped if either is."""

    question: Action
    answer: Action


@params_class
class Masked:
    """`decontaminate.masked`: n-grams whose numbers and names are masked."""

    n: Annotated[int, Field(ge=2, le=50)]
    coverage: Annotated[float, Field(gt=0, le=1)]


@params_class
class Embedding:
    """`decontaminate.embedding`: neighbours in meaning."""

    model: Annotated[str, Field(min_length=1)]
    threshold: Annotated[float, Field(gt=0, le=1)]
    batch_size: Annotated[int, Field(ge=1)]


@params_class
class Params:
    """`params.yaml: decontaminate`."""

    enabled: bool
    benchmarks: str
    policy: Action
    policies: dict[str, Action | ByField]
    threshold: Annotated[float, Field(gt=0, le=1)]
    n: Annotated[int, Field(ge=2, le=50)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    run: Annotated[int, Field(ge=2)] | None
    min_words: Annotated[int, Field(ge=1)]
    common: Annotated[int, Field(ge=1)]
    masked: Masked | None
    embedding: Embedding | None

    def __post_init__(self) -> None:
        if self.run is not None and self.run < self.n:
            raise ValueError(f"run = {self.run} is shorter than n = {self.n}: runs are made of n-grams; raise run or lower n")


@dataclass(frozen=True)
class Context:
    """What workers need: the index over all items, the rules, and what the set of each item says."""

    index: Index
    rules: Rules
    masked: overlap.Masked | None
    question: np.ndarray  # bool by item: a row with its question is dropped
    answer: np.ndarray  # bool by item: a row with its answer is dropped
    vectors: np.ndarray | None  # embeddings of the questions


DETAIL = {
    "exact": "Asks item {} of {}: the same question but for case, white space and punctuation.",
    "near": "Asks nearly what item {} of {} asks.",
    "ngram": "Shares long runs of words with item {} of {}.",
    "contained": "Holds the whole of item {} of {}.",
    "masked": "Has the words of item {} of {} with other numbers or names.",
    "partial": "Shares a piece with item {} of {}, but other words stand where the item goes on.",
    "embedding": "Means something like item {} of {}.",
}


def prepare(params: Params) -> Context:
    """The index over all items of all sets. Raises ParamsError if a glob of `policies` matches no set."""
    rules = Rules(params.threshold, params.n, params.coverage, params.run, params.min_words, params.common)
    masked = None if params.masked is None else overlap.Masked(params.masked.n, params.masked.coverage)
    items = read_benchmarks(Path(params.benchmarks))
    if not items.height:
        say(f"decontaminate: {params.benchmarks} holds no benchmark, so no row can be checked against one.")
    of_set = policies(items["set"].unique().sort().to_list(), params)
    question, answer = (np.array([of_set[name][side] for name in items["set"]], dtype=bool) for side in (0, 1))
    vectors = None
    if params.embedding is not None and items.height:
        vectors = embed(items["question"].to_list(), params.embedding.model, params.embedding.batch_size)
    return Context(overlap.index(items, rules, masked), rules, masked, question, answer, vectors)


def policies(sets: list[str], params: Params) -> dict[str, tuple[bool, bool]]:
    """For each set, whether rows with a question and whether rows with an answer of it are dropped. The first glob that matches counts."""
    for glob in params.policies:
        if not any(fnmatch.fnmatchcase(name, glob) for name in sets):
            known = ", ".join(sets) or "none"
            raise ParamsError(f"decontaminate.policies: '{glob}' matches no set in {params.benchmarks}. Sets there: {known}.")
    found = {}
    for name in sets:
        chosen = next((what for glob, what in params.policies.items() if fnmatch.fnmatchcase(name, glob)), params.policy)
        sides = (chosen, chosen) if isinstance(chosen, str) else (chosen.question, chosen.answer)
        found[name] = (sides[0] == "drop", sides[1] == "drop")
    return found


def rows(batch: pl.DataFrame, params: Params, context: Context) -> Outcome:
    """Rows without an item go on; for the others the strongest hit is the reason, and its evidence names the item."""
    found = overlap.find(batch, context.index, context.rules, context.masked)
    if params.embedding is not None and context.vectors is not None:
        found = pl.concat([found, _alike(batch, found, params.embedding, context, context.vectors)]).sort("at", maintain_order=True)
    found = found.with_columns(pl.Series("drops", _drops(found, batch, context), dtype=pl.Boolean))
    found = found.sort("at", "drops", descending=[False, True], maintain_order=True)
    best = found.group_by("at", maintain_order=True).agg(pl.all().first(), pl.len().alias("items"))
    proofs = _proofs(best, batch, context)
    marked = batch[best["at"]].with_columns(
        pl.Series("reason", [f"benchmark_{proof['tier']}" for proof in proofs], dtype=pl.String),
        pl.Series("detail", [DETAIL[proof["tier"]].format(proof["item"], proof["set"]) for proof in proofs], dtype=pl.String),
        pl.Series("evidence", [orjson.dumps(proof).decode() for proof in proofs], dtype=pl.String),
    )
    hit_rows = drop(marked, pl.col("reason"), pl.col("detail"), pl.col("evidence"))
    dropped, flagged = hit_rows.filter(best["drops"]), hit_rows.filter(~best["drops"])
    kept = batch.join(marked.filter(best["drops"]).select("row"), on="row", how="anti", maintain_order="left")
    return Outcome(kept, dropped, counts=_counts(batch, proofs, flagged, context), tables={"flagged": flagged})


def _drops(found: pl.DataFrame, batch: pl.DataFrame, context: Context) -> list[bool]:
    """Which hits are a reason to drop their row: sure ones, where the policy of the set says so for what was met."""
    item, sure = found["item"].to_numpy(), found["tier"].to_numpy() < len(SURE)
    on_question, on_answer = context.question[item], context.answer[item]
    met_answer, both = found["answer"].to_numpy(), found["both"].to_numpy()
    verdict = sure & np.where(both, on_question | on_answer, np.where(met_answer, on_answer, on_question))
    open_ = np.flatnonzero(sure & ~verdict & ~met_answer & on_answer)  # the answer may stand there too
    verdict[open_] = _answers(batch[found["at"].gather(open_)], context.index.items["answer"].gather(item[open_]), context.rules)
    found_drops: list[bool] = verdict.tolist()
    return found_drops


def _alike(batch: pl.DataFrame, found: pl.DataFrame, wanted: Embedding, context: Context, vectors: np.ndarray) -> pl.DataFrame:
    """For rows without any hit: the items whose question is near in meaning, as hits."""
    asked = overlap.asked_texts(batch, record.texts(batch), context.rules).join(found.select("at").unique(), on="at", how="anti")
    asked = asked.sort("at", "turn", nulls_last=True)
    ours = embed(asked["folded"].to_list(), wanted.model, wanted.batch_size)
    text, item = np.nonzero(ours @ vectors.T >= wanted.threshold - SLACK)
    cosine = np.round(np.einsum("ij,ij->i", ours[text].astype(np.float64), vectors[item].astype(np.float64)), 6)
    near = pl.DataFrame({"at": asked["at"].gather(text), "turn": asked["turn"].gather(text), "item": item, "score": cosine})
    near = overlap.as_hits(near.filter(pl.col("score") >= wanted.threshold), "embedding", "score")
    near = near.select(pl.col(name).cast(kind) for name, kind in HIT.items())
    ranked = near.sort("at", "score", "item", "turn", descending=[False, True, False, False], nulls_last=True)
    return ranked.unique(["at", "item"], keep="first", maintain_order=True)


def _counts(batch: pl.DataFrame, proofs: list[dict[str, Any]], flagged: pl.DataFrame, context: Context) -> dict[str, int]:
    names = [f"flagged {reason}" for reason in flagged["reason"]]
    for proof in proofs:
        if proof["tier"] in SURE:
            names += [f"set {proof['set']}", f"overlap {proof['overlap']}"]
    counts = {name: names.count(name) for name in dict.fromkeys(names)}
    if batch.height and batch["row"][0] == 0:  # what holds for the whole run is counted with its first batch
        counts |= {"benchmark_items": context.index.items.height, "benchmark_sets": context.index.items["set"].n_unique()}
    return counts


def _proofs(best: pl.DataFrame, batch: pl.DataFrame, context: Context) -> list[dict[str, Any]]:
    """Evidence of each hit: positions and names, never text."""
    held, items = batch[best["at"]], context.index.items[best["item"]]
    prompts = record.prompt_and_answer(held)["prompt"]
    answered = _answers(held, items["answer"], context.rules)
    ours = [
        prompt if turn is None else row[field][turn]["content"]
        for prompt, row, field, turn in zip(prompts, held.iter_rows(named=True), best["field"], best["turn"], strict=True)
    ]
    theirs = [item["answer" if answer else "question"] for item, answer in zip(items.iter_rows(named=True), best["answer"], strict=True)]
    spans, item_spans = (_spans(texts, best[column], best["words"]) for texts, column in ((ours, "start"), (theirs, "item_start")))
    columns = (best.iter_rows(named=True), items.iter_rows(named=True), answered, spans, item_spans)
    return [_proof(*each) for each in zip(*columns, strict=True)]


def _proof(hit: dict[str, Any], item: dict[str, Any], answered: bool, span: tuple[int, int], item_span: tuple[int, int]) -> dict[str, Any]:
    side = "answer" if hit["answer"] else "question"
    return {
        "set": item["set"],
        "item": item["item"],
        "item_id": item["item_id"],
        "tier": TIERS[hit["tier"]],
        "overlap": "question and answer" if hit["both"] or (answered and not hit["answer"]) else side,
        "score": round(hit["score"], 4),
        "words": hit["words"],
        "span": {"field": hit["field"], "turn": hit["turn"], "start": span[0], "end": span[1]},
        "item_span": {"field": side, "start": item_span[0], "end": item_span[1]},
        "items": hit["items"],
    }


def _spans(texts: list[str], first: pl.Series, words: pl.Series) -> list[tuple[int, int]]:
    """Start and end (characters) of so many tokens of each text from its token `first` on; the whole text for none."""
    found = []
    for text, tokens, at, count in zip(texts, ngrams.tokens(pl.Series(texts, dtype=pl.String)), first, words, strict=True):
        places = ngrams.places(text, tokens.to_list()[: at + count]) if count else []
        found.append((places[at][0], places[-1][1]) if count else (0, len(text)))
    return found


def _answers(rows: pl.DataFrame, answers: pl.Series, rules: Rules) -> list[bool]:
    """Does each row give the answer beside it? A short one must be the row's whole answer or label, a longer one stand in its answers."""
    texts, cuts = list[str](), [0]
    for messages, label, answer in zip(rows["messages"], rows["label"], answers, strict=True):
        texts += [answer, label or "", *(each["content"] or "" for each in messages if each["role"] in ("assistant", "text"))]
        cuts.append(len(texts))
    _, tokens, sizes = ngrams.flat(pl.Series(texts, dtype=pl.String))
    said = np.split(tokens, np.cumsum(sizes)[:-1]) if texts else []
    return [_given(said[start], said[start + 1 : end], rules) for start, end in pairwise(cuts)]


def _given(wanted: np.ndarray, others: list[np.ndarray], rules: Rules) -> bool:
    """Is one of `others` the answer that is `wanted` (token hashes), or does it cover enough of it?"""
    if not len(wanted):
        return False
    if len(wanted) < rules.min_words:
        return any(np.array_equal(wanted, other) for other in others)
    n = min(rules.n, len(wanted))
    parts = np.unique(ngrams.windows(wanted, np.array([len(wanted)]), n)[0])
    there = [ngrams.windows(other, np.array([len(other)]), n)[0] for other in others]
    return int(np.isin(parts, np.concatenate(there)).sum()) >= rules.coverage * len(parts)


STAGE = Stage("decontaminate", Params, prepare=prepare, rows=rows)

if __name__ == "__main__":
    main(STAGE)
