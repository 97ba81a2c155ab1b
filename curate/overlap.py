"""Benchmark items found in rows: an index over the items, and a search that tells how each was met.

Four ways, strongest first. `exact`: the item's question is the row's prompt, one of its user messages or its document, but for
case, white space and punctuation. `near`: exact Jaccard of the same character 5-grams that near-duplicates are found by. `ngram`: word
n-grams of one row cover enough of an item's words, or one row shares a long enough run of words with it. `contained`: an item too short
for an n-gram stands whole in a message.

The index is small (the benchmarks') and travels to worker processes; rows stream by. Sources: coverage by one row, Lambert and others
2024 (Tülu 3); longest run, Singh and others 2024 (ConTAM).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from curate import minhash, ngrams, record

TIERS = ("exact", "near", "ngram", "contained")
HIT: dict[str, pl.DataType] = {
    "at": pl.UInt32(),  # position of the row in its batch
    "item": pl.UInt32(),  # position in Index.items
    "tier": pl.UInt8(),  # place in TIERS
    "score": pl.Float64(),  # Jaccard, or covered share of the item's words; 1.0 for exact and contained
    "words": pl.UInt32(),  # longest common run (ngram, contained), else 0
    "answer": pl.Boolean(),  # it is the item's answer that was met, not its question
    "field": pl.String(),
    "turn": pl.UInt32(),  # message that holds it; null: the whole prompt
    "start": pl.UInt32(),  # token of the message where the run starts (ngram, contained)
    "item_start": pl.UInt32(),  # and of the item's text
}


@dataclass(frozen=True)
class Rules:
    """When a row counts as holding an item. One meaning in decontaminate, augment and leakage."""

    threshold: float  # Jaccard, above 0
    n: int  # words of an n-gram
    coverage: float  # share of an item's words that n-grams of one row cover
    run: int | None  # words in a row that are enough by themselves; None: never
    min_words: int  # shorter items are only compared whole
    common: int  # an n-gram in more items than this is the set's template, not an item's own


@dataclass(frozen=True)
class Index:
    """The items and their inverted n-gram lists. A `part` is 2 * item for its question, and one more for its answer."""

    items: pl.DataFrame  # ITEM and `folded`, the question as compared
    shingles: pl.Series
    values: np.ndarray  # u64, sorted n-gram hashes
    part: np.ndarray
    place: np.ndarray  # token of the part where the n-gram starts
    sizes: np.ndarray  # tokens of each part that its n-grams in the lists cover
    short: dict[int, tuple[np.ndarray, np.ndarray]]  # words -> sorted hashes of whole items, and their parts


def index(items: pl.DataFrame, rules: Rules) -> Index:
    """An index over `items` (columns of benchmarks.ITEM) for `hits` under `rules`."""
    items = items.with_columns(record.fold(pl.col("question")).alias("folded"))
    parts = (
        items.select(pl.concat_list("question", "answer").alias("text")).explode("text")["text"]
        if items.height
        else pl.Series(dtype=pl.String)
    )
    flat, sizes = ngrams.hashes(parts)
    alone = np.arange(len(sizes)) % 2 == 1
    least = rules.run or 3 * rules.n  # an answer counts by itself only where it is too long to be a phrase
    long = sizes >= np.where(alone, least, rules.n)
    values, part, place = ngrams.windows(flat, sizes, rules.n)
    kept = long[part]
    values, part, place = values[kept], part[kept], place[kept]
    kept = _own(values, part, items["folded"], rules.common)
    values, part, place = values[kept], part[kept], place[kept]
    order = np.argsort(values, kind="stable")
    short = {}
    for words in range(rules.min_words, rules.n):
        whole, owner, _ = ngrams.windows(flat, sizes, words)
        mine = (sizes[owner] == words) & (owner % 2 == 0)
        if mine.any():
            by_hash = np.argsort(whole[mine], kind="stable")
            short[words] = whole[mine][by_hash], owner[mine][by_hash]
    covered = _covered(pl.DataFrame({"part": part, "item_start": place}), ["part"], rules.n)
    totals = np.zeros(len(sizes), dtype=np.int64)
    totals[covered["part"].to_numpy()] = covered["covered"].to_numpy()
    return Index(items, minhash.shingles(items["folded"]), values[order], part[order], place[order], totals, short)


def _covered(starts: pl.DataFrame, by: list[str], n: int) -> pl.DataFrame:
    """Tokens under at least one of the n-grams that start at `item_start`, for every group of `by`."""
    to_next = pl.col("item_start").cast(pl.Int64).diff().shift(-1).fill_null(n)
    return (
        starts.select(*by, "item_start")
        .unique()
        .sort(*by, "item_start")
        .group_by(by, maintain_order=True)
        .agg(covered=to_next.clip(0, n).sum())
    )


def _own(values: np.ndarray, part: np.ndarray, folded: pl.Series, common: int) -> np.ndarray:
    """Mask of the n-grams that at most `common` different questions (or answers) have; copies of an item count once."""
    copy_of = pl.DataFrame({"folded": folded}).select(pl.col("folded").rank("dense"))["folded"].fill_null(0).to_numpy().astype(np.int64)
    owners = (
        pl.DataFrame({"value": values, "owner": 2 * copy_of[part // 2] + part % 2})
        if len(part)
        else pl.DataFrame({"value": values, "owner": part})
    )
    mask: np.ndarray = owners.select(pl.col("owner").n_unique().over("value") <= common)["owner"].to_numpy()
    return mask


def hits(rows: pl.DataFrame, found_in: Index, rules: Rules) -> pl.DataFrame:
    """Every item met by every row of a batch, each in its strongest way: columns of `HIT`, sorted by row, then strongest first."""
    if not found_in.items.height or not rows.height:
        return record.empty(HIT)
    flat = record.texts(rows)
    asked = _asked(rows, flat, rules)
    found = [_exact(asked, found_in), _near(asked, found_in, rules), *_runs(flat, found_in, rules), *_contained(flat, found_in)]
    everything = pl.concat([each.select(pl.col(name).cast(kind) for name, kind in HIT.items()) for each in found])
    ranked = everything.sort(
        "at", "tier", "score", "words", "item", "turn", descending=[False, False, True, True, False, False], nulls_last=True
    )
    return ranked.unique(["at", "item"], keep="first", maintain_order=True)


def bare(folded: pl.Expr) -> pl.Expr:
    """Folded text cut to letters, digits and operators, so that a lost comma, quote or space hides nothing. Numbers stay apart.

    >>> pl.select(bare(pl.lit("what's 12+3, or 4 5 6?"))).item()
    'whats12+3or4 5 6'
    """
    noise = r"[^\p{L}\p{M}\p{N}\p{Sm}\p{Sc}*/%^\x1f-]+"
    apart = folded.str.replace_all(r"(\p{L}{2})-(\p{L}{2})", "${1}${2}")  # top-up is topup, x-y stays
    for _ in range(2):  # neighbours in "4 5 6" share a digit, and one pass sees each only once
        apart = apart.str.replace_all(rf"(\p{{N}}){noise}(\p{{N}})", "${1}\x1f${2}")
    cut = apart.str.replace_all(r"[^\p{L}\p{M}\p{N}\p{Sm}\p{Sc}*/%^\x1f-]+", "").str.replace_all("\x1f", " ", literal=True)
    return pl.when(cut == "").then(folded).otherwise(cut)


def _asked(rows: pl.DataFrame, flat: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """What may equal a question: the whole prompt, each user message in it, a plain document. Columns at, turn, folded."""
    prompts = record.prompt_and_answer(rows).select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("at"),
        pl.lit(None, dtype=pl.UInt32).alias("turn"),
        record.fold(pl.col("prompt")).alias("folded"),
    )
    said = flat.filter((pl.col("field") == "messages") & pl.col("role").is_in(["user", "text"]))
    single = said.select("at", "turn", record.fold(pl.col("content").fill_null("")).alias("folded"), "role")
    single = single.join(prompts.select("at", prompt="folded"), on="at", how="left", maintain_order="left")
    whole = (pl.col("folded") == pl.col("prompt")) | (pl.col("role") == "text")
    words = pl.col("folded").str.count_matches(r"\S+") >= rules.min_words  # a "thank you" inside a chat is nobody's test item
    single = single.filter(whole | words).select("at", "turn", "folded")
    prompts = prompts.join(single, on=["at", "folded"], how="anti", maintain_order="left")
    return pl.concat([prompts, single]).filter(pl.col("folded") != "")


def _as_hits(frame: pl.DataFrame, tier: str, score: str | pl.Expr) -> pl.DataFrame:
    nothing = pl.lit(0)
    return frame.with_columns(
        pl.lit(TIERS.index(tier)).alias("tier"),
        (pl.col(score) if isinstance(score, str) else score).alias("score"),
        *(nothing.alias(name) for name in ("words", "start", "item_start") if name not in frame.columns),
        *(pl.lit(False).alias(name) for name in ("answer",) if name not in frame.columns),
        *(pl.lit("messages").alias(name) for name in ("field",) if name not in frame.columns),
    )


def _exact(asked: pl.DataFrame, found_in: Index) -> pl.DataFrame:
    items = found_in.items.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("item"), bare(pl.col("folded")).alias("bare"))
    return _as_hits(asked.with_columns(bare(pl.col("folded")).alias("bare")).join(items, on="bare", how="inner"), "exact", pl.lit(1.0))


def _near(asked: pl.DataFrame, found_in: Index, rules: Rules) -> pl.DataFrame:
    sets, sizes = minhash.shingles(asked["folded"]), found_in.shingles.list.len()
    least, most = int(sizes.min() or 0) * rules.threshold, int(sizes.max() or 0) / rules.threshold  # type: ignore[arg-type]
    fits = sets.list.len().is_between(least - 1, most + 1)
    met = minhash.matches(found_in.shingles, sets.filter(fits), rules.threshold)
    texts = asked.filter(fits).select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("query"), "at", "turn")
    return _as_hits(met.join(texts, on="query", how="inner"), "near", "similarity")


def _lookup(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (in values, in the sorted `known`) of all equal pairs."""
    table = np.zeros(1 << 16, dtype=bool)  # lets most values go without a search
    table[(known & np.uint64(0xFFFF)).astype(np.int64)] = True
    likely = np.flatnonzero(table[(values & np.uint64(0xFFFF)).astype(np.int64)])
    low = np.searchsorted(known, values[likely], side="left")
    counts = np.searchsorted(known, values[likely], side="right") - low
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(likely, counts), np.repeat(low, counts) + within


def _runs(flat: pl.DataFrame, found_in: Index, rules: Rules) -> Iterator[pl.DataFrame]:
    """Items whose n-grams a row covers, or runs into; the longest run is what the hit points at."""
    tokens, sizes = ngrams.hashes(flat["content"])
    values, text, place = ngrams.windows(tokens, sizes, rules.n)
    ours, theirs = _lookup(values, found_in.values)
    if not len(ours):
        return
    met = pl.DataFrame({"text": text[ours], "start": place[ours], "part": found_in.part[theirs], "item_start": found_in.place[theirs]})
    met = met.with_columns(pl.Series("at", flat["at"].to_numpy()[text[ours]]))
    shared = _covered(met, ["at", "part"], rules.n)
    shared = shared.with_columns(score=pl.col("covered") / pl.Series(found_in.sizes[shared["part"].to_numpy()]))
    met = met.with_columns(slope=pl.col("start").cast(pl.Int64) - pl.col("item_start")).sort("text", "part", "slope", "start")
    whole = ["text", "part", "slope"]
    broken = pl.any_horizontal(pl.col(whole) != pl.col(whole).shift(1)) | (pl.col("start") != pl.col("start").shift(1) + 1)
    stretches = met.with_columns(stretch=broken.fill_null(True).cum_sum()).group_by("stretch", maintain_order=True)
    longest = stretches.agg(pl.first("at", "text", "part", "start", "item_start"), words=pl.len() + rules.n - 1)
    longest = longest.sort("at", "part", "words", "text", "start", descending=[False, False, True, False, False])
    longest = longest.unique(["at", "part"], keep="first", maintain_order=True)
    found = longest.join(shared, on=["at", "part"], how="left", maintain_order="left")
    enough = (pl.col("score") >= rules.coverage) | (pl.col("words") >= (rules.run or 1 << 30))
    yield _as_hits(_placed(found.filter(enough), flat), "ngram", "score")


def _contained(flat: pl.DataFrame, found_in: Index) -> Iterator[pl.DataFrame]:
    if not found_in.short:
        return
    tokens, sizes = ngrams.hashes(flat["content"])
    for words, (known, part) in sorted(found_in.short.items()):
        values, text, place = ngrams.windows(tokens, sizes, words)
        ours, theirs = _lookup(values, known)
        met = pl.DataFrame({"text": text[ours], "start": place[ours], "part": part[theirs]})
        met = met.with_columns(pl.lit(0).alias("item_start"), pl.lit(words).alias("words"))
        met = met.with_columns(pl.Series("at", flat["at"].to_numpy()[text[ours]]))
        yield _as_hits(_placed(met, flat), "contained", pl.lit(1.0))


def _placed(found: pl.DataFrame, flat: pl.DataFrame) -> pl.DataFrame:
    """`found` with the message (field, turn) of each `text`, and its part told as item and question or answer."""
    at = found["text"].to_numpy()
    return found.with_columns(flat["field"].gather(at), flat["turn"].gather(at), item=pl.col("part") // 2, answer=pl.col("part") % 2 == 1)
