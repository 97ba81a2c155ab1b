"""The index over benchmark items that rows are looked up in: shingles, word n-grams (plain and masked), whole short items.

It is small (the benchmarks') and travels to worker processes. A `part` is a text of an item: 2 * item is its question, and one more its
answer.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from curate import ngrams, particulars, record
from curate.shingle import shingles

CUT_OFF = 0.5  # a message that is nothing but a piece of an item is a copy of it from this share of the item's words on


@dataclass(frozen=True)
class Rules:
    """When a row counts as holding an item. One meaning in decontaminate, augment and leakage."""

    threshold: float  # Jaccard, above 0
    n: int  # words of an n-gram
    coverage: float  # share of an item's words that n-grams of one row cover
    run: int | None  # words in a row that are enough if half of the item is covered; None: never
    min_words: int  # shorter items are only compared whole
    common: int  # an n-gram in more items than this is the set's template, not an item's own

    def short(self) -> int:
        """Parts of fewer words are short: eight shared words may be nearly all of them, and still be a phrase."""
        return self.run or 3 * self.n


@dataclass(frozen=True)
class Masked:
    """When a row counts as an item with other numbers or names. Only ever a reason to look."""

    n: int
    coverage: float


@dataclass(frozen=True)
class Grams:
    """Inverted lists of the n-grams that are an item's own."""

    n: int
    values: np.ndarray  # u64, sorted n-gram hashes
    part: np.ndarray
    place: np.ndarray  # token of the part where the n-gram starts
    sizes: np.ndarray  # tokens of each part that its n-grams in the lists cover


@dataclass(frozen=True)
class Index:
    """The items and what they are found by."""

    items: pl.DataFrame  # ITEM, `folded` (the question as compared) and `bare`
    shingles: pl.Series
    lengths: np.ndarray  # tokens of each part
    plain: Grams
    masked: Grams | None
    short: dict[int, tuple[np.ndarray, np.ndarray]]  # words -> sorted hashes of whole items, and their parts
    begun: dict[int, tuple[np.ndarray, np.ndarray]]  # words -> the same of beginnings that are CUT_OFF of an item or more
    words: frozenset[str]  # that stand in an item in lower case: no names

    def text(self, part: int) -> str:
        """The question or answer that is `part`."""
        found: str = self.items["answer" if part % 2 else "question"][part // 2]
        return found


def index(items: pl.DataFrame, rules: Rules, masked: Masked | None = None) -> Index:
    """An index over `items` (columns of benchmarks.ITEM) for `overlap.hits` under `rules`."""
    items = items.with_columns(record.fold(pl.col("question")).alias("folded")).with_columns(bare(pl.col("folded")).alias("bare"))
    texts = (
        items.select(pl.concat_list("question", "answer").alias("text")).explode("text")["text"]
        if items.height
        else pl.Series(dtype=pl.String)
    )
    raw, flat, sizes = ngrams.flat(texts)
    alone = np.arange(len(sizes)) % 2 == 1
    word = raw.str.contains(r"^\p{L}").to_numpy()
    least = np.where(alone, rules.short(), rules.n)  # an answer counts by itself only where it is too long to be a phrase
    # the steps of a sum ("20*1/4=<<20*1/4=5>>") are written alike by everybody: in an answer only n-grams of words tell
    plain = _grams(flat, sizes, rules.n, sizes >= least, np.where(alone, rules.n // 2, 0), word, _copies(items["folded"]), rules.common)
    hidden = None
    if masked is not None:
        values, mask = particulars.masked(raw, flat)
        needed = np.full(len(sizes), -(-masked.n // 2))  # of an n-gram, half must be told
        each = np.arange(items.height)  # a form filled with other numbers is many items here, not copies of one
        hidden = _grams(values, sizes, masked.n, (sizes >= masked.n) & ~alone, needed, ~mask, each, rules.common)
    short, begun = {}, {}
    for words in range(rules.min_words, rules.n):
        values, owner, place = ngrams.windows(flat, sizes, words)
        asked = (place == 0) & (owner % 2 == 0)
        values, owner = values[asked], owner[asked]
        short[words] = _sorted(values, owner, sizes[owner] == words)
        begins = (sizes[owner] > words) & (sizes[owner] * CUT_OFF <= words)
        begun[words] = _sorted(values, owner, begins & _own(values, owner, _copies(items["folded"]), rules.common))
    return Index(items, shingles(items["folded"]), sizes, plain, hidden, short, begun, particulars.plain_words(texts))


def _sorted(values: np.ndarray, part: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(values[chosen], kind="stable")
    return values[chosen][order], part[chosen][order]


def _grams(
    flat: np.ndarray, sizes: np.ndarray, n: int, chosen: np.ndarray, needed: np.ndarray, tells: np.ndarray, copy_of: np.ndarray, common: int
) -> Grams:
    """The lists of the parts that are `chosen`, of n-grams with at least `needed[part]` tokens that tell and in at most `common` items."""
    values, part, place = ngrams.windows(flat, sizes, n)
    telling = np.concatenate(([0], np.cumsum(tells)))
    first = (np.cumsum(sizes) - sizes)[part] + place
    kept = chosen[part] & (telling[first + n] - telling[first] >= needed[part])
    values, part, place = values[kept], part[kept], place[kept]
    kept = _own(values, part, copy_of, common)
    values, part, place = values[kept], part[kept], place[kept]
    order = np.argsort(values, kind="stable")
    total = covered(pl.DataFrame({"part": part, "item_start": place}), ["part"], n)
    totals = np.zeros(len(sizes), dtype=np.int64)
    totals[total["part"].to_numpy()] = total["covered"].to_numpy()
    return Grams(n, values[order], part[order], place[order], totals)


def _copies(folded: pl.Series) -> np.ndarray:
    """A number for each item that its copies share."""
    found: np.ndarray = folded.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return found


def covered(starts: pl.DataFrame, by: list[str], n: int) -> pl.DataFrame:
    """Tokens under at least one of the n-grams that start at `item_start`, for every group of `by`; sorted by it."""
    order = starts.select(*by, "item_start").unique().sort(*by, "item_start")
    first = order.select(pl.any_horizontal(pl.col(by) != pl.col(by).shift(1)).fill_null(True)).to_series().to_numpy()
    at = order["item_start"].to_numpy().astype(np.int64)
    fresh = np.full(len(at), n)  # tokens that no n-gram of the group before this one covers
    fresh[1:] = np.where(first[1:], n, np.minimum(np.diff(at), n))
    begins = np.flatnonzero(first)
    total = np.add.reduceat(fresh, begins) if len(begins) else np.zeros(0, dtype=np.int64)
    return order[begins].select(by).with_columns(covered=pl.Series(total, dtype=pl.Int64))


def _own(values: np.ndarray, part: np.ndarray, copy_of: np.ndarray, common: int) -> np.ndarray:
    """Mask of the n-grams that at most `common` different questions (or answers) have; copies of an item count once."""
    owner = 2 * copy_of[part // 2] + part % 2 if len(part) else part
    owners = pl.DataFrame({"value": values, "owner": owner})
    mask: np.ndarray = owners.select(pl.col("owner").n_unique().over("value") <= common)["owner"].to_numpy()
    return mask


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
