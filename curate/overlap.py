"""Benchmark items found in rows: a search over an index of the items that tells how each was met, and how surely.

Four ways are sure, strongest first. `exact`: the item's question is the row's prompt, one of its user messages or its document, but for
case, white space and punctuation. `near`: exact Jaccard of the shingles that near-duplicates are found by. `ngram`: word n-grams of one
row cover enough of an item's words. `contained`: an item too short for an n-gram stands whole in a message.

Two ways are only worth a look (`find` gives them, `hits` does not). `masked`: the same words with other numbers or names, so another
problem. `partial`: a long run of a much longer item, or most words of a short one with other words in place of the rest.

Rows stream by. Sources: coverage by one row, Lambert and others 2024 (Tülu 3); longest run, Singh and others 2024 (ConTAM).
"""

import numpy as np
import polars as pl

from curate import ngrams, particulars, record
from curate.itemindex import CUT_OFF, Grams, Index, Masked, Rules, bare, covered, index
from curate.matching import matches
from curate.shingle import shingles

__all__ = ["HIT", "SURE", "TIERS", "Index", "Masked", "Rules", "bare", "find", "hits", "index"]

SURE = ("exact", "near", "ngram", "contained")
TIERS = (*SURE, "masked", "partial", "embedding")
WHOLE = 0.95  # so much of an item is all of it: one word in twenty may differ
HIT: dict[str, pl.DataType] = {
    "at": pl.UInt32(),  # position of the row in its batch
    "item": pl.UInt32(),  # position in Index.items
    "tier": pl.UInt8(),  # place in TIERS
    "score": pl.Float64(),  # Jaccard, cosine, or covered share of the item's words; 1.0 for exact and contained
    "words": pl.UInt32(),  # longest common run (ngram, contained, masked, partial), else 0
    "answer": pl.Boolean(),  # it is the item's answer that was met, not its question
    "both": pl.Boolean(),  # question and answer were both met
    "field": pl.String(),
    "turn": pl.UInt32(),  # message that holds it; null: the whole prompt
    "start": pl.UInt32(),  # token of the message where the run starts
    "item_start": pl.UInt32(),  # and of the item's text
}


def hits(rows: pl.DataFrame, found_in: Index, rules: Rules) -> pl.DataFrame:
    """Every item surely met by every row of a batch, each in its strongest way: columns of `HIT`, sorted by row, then strongest first."""
    return find(rows, found_in, rules).filter(pl.col("tier") < len(SURE))


def find(rows: pl.DataFrame, found_in: Index, rules: Rules, masked: Masked | None = None) -> pl.DataFrame:
    """As `hits`, and what is worth a look behind them: `partial` hits, and `masked` ones of an index made with `masked`."""
    if not found_in.items.height or not rows.height:
        return record.empty(HIT)
    flat = record.texts(rows)
    asked = asked_texts(rows, flat, rules)
    raw, tokens, sizes = ngrams.flat(flat["content"])
    found = [_exact(asked, found_in), _near(asked, found_in, rules), _ngram(flat, tokens, sizes, found_in, rules)]
    found += _whole(flat, tokens, sizes, found_in)
    if masked is not None and found_in.masked is not None:
        hidden = _runs(flat, particulars.masked(raw, tokens)[0], sizes, found_in.masked).filter(pl.col("score") >= masked.coverage)
        known = pl.concat([each.select(pl.col("at").cast(pl.UInt32), pl.col("item").cast(pl.UInt32)) for each in found])
        hidden = hidden.with_columns(pl.col("at").cast(pl.UInt32), pl.col("item").cast(pl.UInt32)).join(
            known, on=["at", "item"], how="anti"
        )
        found.append(as_hits(hidden.filter(_others(hidden, flat["content"], found_in)), "masked", "score"))
    everything = pl.concat([each.select(pl.col(name).cast(kind) for name, kind in HIT.items()) for each in found])
    sure = pl.col("tier") < len(SURE)
    everything = everything.with_columns((sure & (pl.col("answer").filter(sure).n_unique().over("at", "item") > 1)).alias("both"))
    ranked = everything.sort(
        "at", "tier", "score", "words", "item", "turn", descending=[False, False, True, True, False, False], nulls_last=True
    )
    return ranked.unique(["at", "item"], keep="first", maintain_order=True)


def asked_texts(rows: pl.DataFrame, flat: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """What may equal a question: the whole prompt, each user message in it, a plain document. Columns at, turn, folded."""
    at = pl.int_range(pl.len(), dtype=pl.UInt32).alias("at")
    prompts = record.prompt_and_answer(rows).select(at, pl.lit(None, dtype=pl.UInt32).alias("turn"), "prompt")
    said = flat.filter((pl.col("field") == "messages") & pl.col("role").is_in(["user", "text"])).with_columns(
        pl.col("content").fill_null("")
    )
    single = said.join(prompts.select("at", "prompt"), on="at", how="left", maintain_order="left")
    whole = (pl.col("content").str.strip_chars() == pl.col("prompt").str.strip_chars()) | (pl.col("role") == "text")
    single = single.select("at", "turn", "content", whole.alias("whole"))
    prompts = prompts.join(single.filter("whole"), on="at", how="anti", maintain_order="left")  # nothing is folded twice
    single = single.with_columns(record.fold(pl.col("content")).alias("folded"))
    words = pl.col("folded").str.count_matches(r"\S+") >= rules.min_words  # a "thank you" inside a chat is nobody's test item
    single = single.filter(pl.col("whole") | words).select("at", "turn", "folded")
    joined = prompts.select("at", "turn", record.fold(pl.col("prompt")).alias("folded"))
    return pl.concat([joined, single]).filter(pl.col("folded") != "")


def as_hits(frame: pl.DataFrame, tier: str | pl.Expr, score: str | pl.Expr) -> pl.DataFrame:
    """`frame` with the columns of HIT that it lacks: whole texts of messages, and questions, unless it says otherwise."""
    defaults = {"words": 0, "start": 0, "item_start": 0, "answer": False, "both": False, "field": "messages"}
    return frame.with_columns(
        pl.lit(TIERS.index(tier)).alias("tier") if isinstance(tier, str) else tier.alias("tier"),
        (pl.col(score) if isinstance(score, str) else score).alias("score"),
        *(pl.lit(value).alias(name) for name, value in defaults.items() if name not in frame.columns),
    )


def _exact(asked: pl.DataFrame, found_in: Index) -> pl.DataFrame:
    items = found_in.items.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("item"), "bare")
    return as_hits(asked.with_columns(bare(pl.col("folded")).alias("bare")).join(items, on="bare", how="inner"), "exact", pl.lit(1.0))


def _near(asked: pl.DataFrame, found_in: Index, rules: Rules) -> pl.DataFrame:
    met = matches(found_in.shingles, shingles(asked["folded"]), rules.threshold)
    texts = asked.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("query"), "at", "turn", "folded")
    found = met.join(texts, on="query", how="inner", maintain_order="left").with_columns(part=pl.col("item") * 2)
    other = _others(found.with_row_index("text"), found["folded"], found_in)
    return as_hits(found, pl.when(pl.lit(other)).then(TIERS.index("masked")).otherwise(TIERS.index("near")), "similarity")


def _others(found: pl.DataFrame, texts: pl.Series, found_in: Index) -> pl.Series:
    """Which of the hits (columns part, text: a position in `texts`) have other numbers and names than the item."""
    items = pl.Series([found_in.text(part) for part in found["part"].to_list()], dtype=pl.String)
    return particulars.replaced(items, texts.gather(found["text"]), found_in.words)


def _lookup(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (in values, in the sorted `known`) of all equal pairs."""
    bits = np.uint64((1 << max(16, (16 * len(known)).bit_length())) - 1)  # sixteen places for each: most values go without a search
    table = np.zeros(int(bits) + 1, dtype=bool)
    table[(known & bits).astype(np.int64)] = True
    likely = np.flatnonzero(table[(values & bits).astype(np.int64)])
    low = np.searchsorted(known, values[likely], side="left")
    counts = np.searchsorted(known, values[likely], side="right") - low
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(likely, counts), np.repeat(low, counts) + within


def _ngram(flat: pl.DataFrame, tokens: np.ndarray, sizes: np.ndarray, found_in: Index, rules: Rules) -> pl.DataFrame:
    """Items that one row covers (`ngram`), or would if the rest were not other words (`partial`), numbers or names (`masked`)."""
    found = _runs(flat, tokens, sizes, found_in.plain)
    found = found.with_columns(
        message=pl.Series(sizes[found["text"].to_numpy()]), length=pl.Series(found_in.lengths[found["part"].to_numpy()])
    )
    run = pl.col("words") >= (rules.run or 1 << 30)
    alone = pl.col("words") == pl.col("message")
    enough = (pl.col("score") >= rules.coverage) | ((run | alone) & (pl.col("score") >= CUT_OFF))
    begins = (pl.col("first") == 0) | (pl.col("item_first") == 0)
    ends = (pl.col("end") == pl.col("message")) | (pl.col("item_end") == pl.col("length"))
    found = found.filter(enough | run).with_columns(enough=enough, ends=begins & ends)
    found = found.with_columns(sure=(pl.col("score") >= WHOLE) | (pl.col("length") >= 3 * rules.short()))
    asks = found["ends"] & ~found["sure"]  # words of the item that the row has not where it has the item's other words
    complete = _missing(found.filter(asks), flat["content"], found_in) <= 2 * (1 - WHOLE)
    sure = found["sure"].to_numpy().copy()
    sure[asks.to_numpy()] = complete.to_numpy()
    found = found.with_columns(pl.Series("sure", sure))
    other = pl.lit(_others(found, flat["content"], found_in)) & (pl.col("score") < 1)
    tier = pl.when(pl.col("enough") & other).then(TIERS.index("masked")).when(pl.col("enough") & pl.col("sure")).then(TIERS.index("ngram"))
    return as_hits(found, tier.otherwise(TIERS.index("partial")), "score")


def _missing(found: pl.DataFrame, texts: pl.Series, found_in: Index) -> pl.Series:
    """Of the item's tokens between its first and last run, the share that the message of the hit does not have at all."""
    ours = ngrams.flat(texts.gather(found["text"]))[1:]
    theirs = ngrams.flat(pl.Series([found_in.text(part) for part in found["part"].to_list()], dtype=pl.String))[1:]
    sides = [np.split(tokens, np.cumsum(sizes)[:-1]) if len(sizes) else [] for tokens, sizes in (ours, theirs)]
    spans = found.select("item_first", "item_end").rows()
    return pl.Series(
        [float(np.isin(item[first:end], text, invert=True).mean()) for text, item, (first, end) in zip(*sides, spans, strict=True)],
        dtype=pl.Float64,
    )


def _runs(flat: pl.DataFrame, tokens: np.ndarray, sizes: np.ndarray, grams: Grams) -> pl.DataFrame:
    """Every part that shares an n-gram with a row: its covered share (`score`), the longest run (`words` from
    `start`, `item_start`), and between what tokens of text and part all runs lie (`first`, `end`, `item_first`, `item_end`)."""
    values, text, place = ngrams.windows(tokens, sizes, grams.n)
    ours, theirs = _lookup(values, grams.values)
    met = pl.DataFrame({"text": text[ours], "start": place[ours], "part": grams.part[theirs], "item_start": grams.place[theirs]})
    met = met.with_columns(pl.Series("at", flat["at"].to_numpy()[text[ours]]))
    shared = covered(met, ["at", "part"], grams.n)
    shared = shared.with_columns(score=pl.col("covered") / pl.Series(grams.sizes[shared["part"].to_numpy()]))
    met = met.with_columns(slope=pl.col("start").cast(pl.Int64) - pl.col("item_start")).sort("text", "part", "slope", "start")
    whole = ["text", "part", "slope"]
    broken = pl.any_horizontal(pl.col(whole) != pl.col(whole).shift(1)) | (pl.col("start") != pl.col("start").shift(1) + 1)
    stretches = met.with_columns(stretch=broken.fill_null(True).cum_sum()).group_by("stretch", maintain_order=True)
    longest = stretches.agg(pl.first("at", "text", "part", "start", "item_start"), words=pl.len().cast(pl.Int64) + grams.n - 1)
    extent = [pl.min(name).over("text", "part").alias(first) for name, first in (("start", "first"), ("item_start", "item_first"))]
    extent += [
        (pl.col(name) + pl.col("words")).max().over("text", "part").alias(end)
        for name, end in (("start", "end"), ("item_start", "item_end"))
    ]
    longest = longest.with_columns(extent)
    longest = longest.sort("at", "part", "words", "text", "start", descending=[False, False, True, False, False])
    longest = longest.unique(["at", "part"], keep="first", maintain_order=True)
    return _placed(longest.join(shared, on=["at", "part"], how="left", maintain_order="left"), flat)


def _whole(flat: pl.DataFrame, tokens: np.ndarray, sizes: np.ndarray, found_in: Index) -> list[pl.DataFrame]:
    """Short items that stand whole in a message (`contained`), and messages that are only the beginning of one (`partial`)."""
    found = []
    for words in sorted(found_in.short):
        values, text, place = ngrams.windows(tokens, sizes, words)
        for (known, part), tier in ((found_in.short[words], "contained"), (found_in.begun[words], "partial")):
            ours, theirs = _lookup(values, known)
            met = pl.DataFrame({"text": text[ours], "start": place[ours], "part": part[theirs]})
            met = met.with_columns(pl.lit(0).alias("item_start"), pl.lit(words).alias("words"))
            met = met.with_columns(score=pl.lit(words) / pl.Series(found_in.lengths[part[theirs]], dtype=pl.Int64))
            met = met.with_columns(pl.Series("at", flat["at"].to_numpy()[text[ours]]))
            alone = met if tier == "contained" else met.filter(pl.Series(sizes[text[ours]] == words))
            found.append(as_hits(_placed(alone, flat), tier, "score"))
    return found


def _placed(found: pl.DataFrame, flat: pl.DataFrame) -> pl.DataFrame:
    """`found` with the message (field, turn) of each `text`, and its part told as item and question or answer."""
    at = found["text"].to_numpy()
    return found.with_columns(flat["field"].gather(at), flat["turn"].gather(at), item=pl.col("part") // 2, answer=pl.col("part") % 2 == 1)
