"""Word n-grams: tokens that keep digits and operators, n-gram hashes of whole columns, and which texts hold others.

A token is a number, a word, an operator or currency sign, or one character of a script written without spaces. Other punctuation is
left out, so that a changed comma hides nothing, while `12+35-7` stays five tokens that `999*3/41` does not share.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from curate.record import ParamsError

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}"
TOKEN = (
    r"\p{N}+(?:[.,]\p{N}+)*"  # 3.50 and 80,000 are one token
    rf"|[{_UNSPACED}]"
    rf"|[[\p{{L}}\p{{M}}]--[{_UNSPACED}]]+(?:['’][\p{{L}}\p{{M}}]+)*"
    r"|[\p{Sm}\p{Sc}*/%^-]"
)
PARTITION = 1 << 22  # n-grams looked at together in `containing`: some 300 MB of scratch memory
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio


def tokens(texts: pl.Series) -> pl.Series:
    """The tokens of each text as they stand in it, in order: list[str].

    >>> tokens(pl.Series(["Don't pay $3.50, pay 12+35-7!"])).to_list()
    [["Don't", 'pay', '$', '3.50', 'pay', '12', '+', '35', '-', '7']]
    """
    found = texts.fill_null("").str.extract_all(TOKEN)
    flat = found.explode(empty_as_null=False)
    sizes = found.list.len().to_numpy().astype(np.int64)
    kept = _operates(flat, sizes)
    if kept.all():
        return found
    ends = np.concatenate(([0], np.cumsum(kept)))[np.concatenate(([0], np.cumsum(sizes)))]
    made = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), flat.filter(pl.Series(kept)).to_arrow()))
    assert isinstance(made, pl.Series)
    return made


def _operates(flat: pl.Series, sizes: np.ndarray) -> np.ndarray:
    """False for hyphens, slashes and stars that are punctuation: before a word, or between a word and a letter (`top-up`, `*so*`, lists).

    They are operators where a number follows, or a letter that does not stand behind a word: `12 - 7`, `x-y`, `2*x`.
    """
    signs = np.flatnonzero(flat.is_in(["-", "/", "*"]).to_numpy())
    kept = np.ones(len(flat), dtype=bool)
    if not len(signs):
        return kept
    owner = np.repeat(np.arange(len(sizes)), sizes)
    sign = np.zeros(len(flat), dtype=bool)
    sign[signs] = True
    other = np.flatnonzero(~sign)
    if not len(other):
        return kept
    at = np.searchsorted(other, signs)
    before, after = other[np.maximum(at - 1, 0)], other[np.minimum(at, len(other) - 1)]
    opens, closes = (at == 0) | (owner[before] != owner[signs]), (at == len(other)) | (owner[after] != owner[signs])
    word = r"^\p{L}[\p{L}\p{M}'’]"
    follows = flat.gather(before).str.contains(word).to_numpy() | opens  # a word before, or the start of the text
    leads, single = flat.gather(after).str.contains(word).to_numpy(), flat.gather(after).str.contains(r"^\p{L}").to_numpy()
    kept[signs] = ~(closes | leads | (follows & single))
    return kept


def folded(flat: pl.Series) -> pl.Series:
    """Tokens as compared: NFKC, lower case, one kind of apostrophe. One value for each, so places are kept."""
    low = flat.str.to_lowercase()
    odd = (flat.str.len_bytes() != flat.str.len_chars()).arg_true()
    if not len(odd):  # ASCII is its own NFKC
        return low
    return low.scatter(odd, flat.gather(odd).str.normalize("NFKC").str.to_lowercase().str.replace_all("’", "'", literal=True))


def places(text: str, found: list[str]) -> list[tuple[int, int]]:
    """Start and end (characters) of each of the tokens of `text`.

    >>> places("a  bb,a", ["a", "bb", "a"])
    [(0, 1), (3, 5), (6, 7)]
    """
    at, spans = 0, []
    for token in found:
        at = text.index(token, at)
        spans.append((at, at + len(token)))
        at += len(token)
    return spans


def flat(texts: pl.Series) -> tuple[pl.Series, np.ndarray, np.ndarray]:
    """The tokens of all texts, joined, as they stand; their hashes (u64), alike for tokens that fold alike and the same in every
    process; and how many tokens each text has (i64)."""
    found = tokens(texts)
    sizes = found.list.len().to_numpy().astype(np.int64)
    raw = found.explode(empty_as_null=False)
    return raw, folded(raw).hash(seed=0).to_numpy(), sizes


def hashes(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Token hashes of all texts, joined (u64), and how many each text has (i64)."""
    _, values, sizes = flat(texts)
    return values, sizes


def windows(flat: np.ndarray, sizes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All runs of `n` tokens within a text: their hashes (u64), the text of each and the token it starts at (i64), in order."""
    count = max(len(flat) - n + 1, 0)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    inside = np.flatnonzero(owner[:count] == owner[n - 1 :]) if count else np.zeros(0, dtype=np.int64)
    mixed = np.zeros(count, dtype=np.uint64)
    for at in range(n if count else 0):
        mixed = (mixed ^ flat[at : at + count]) * _ODD
        mixed ^= mixed >> np.uint64(29)
    starts = np.concatenate(([0], np.cumsum(sizes)))[:-1]
    text = owner[inside]
    return mixed[inside], text, inside - starts[text]


def grams(texts: pl.Series, n: int) -> pl.Series:
    """The distinct n-gram hashes of each text, sorted: list[u64]; a text of fewer than `n` tokens has none."""
    flat, sizes = hashes(texts)
    values, owner, _ = windows(flat, sizes, n)
    order = np.lexsort((values, owner))
    values, owner = values[order], owner[order]
    first = np.ones(len(values), dtype=bool)
    first[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])
    counts = np.bincount(owner[first], minlength=len(texts))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    made = pl.from_arrow(pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values[first], pa.uint64())))
    assert isinstance(made, pl.Series)
    return made


def containing(
    sets: pl.Series, coverage: float, common: int, counted: np.ndarray | None = None, sides: np.ndarray | None = None
) -> pl.DataFrame:
    """Pairs of texts of which one holds at least `coverage` of the other's n-grams: columns a, b (u32, positions), coverage.

    `b` covers that part of `a`; where each covers the other, the better covered is `a`. `sets` is what `grams` returned. N-grams that
    more than `common` texts share (counting only texts with `counted`, where given) are a template's and left out on both sides, so a
    form that hundreds of rows were written with does not tie them together. With `sides`, only pairs of different sides are returned.
    Exact: an inverted index, worked off in ranges of hashes, so memory grows with the pairs that share something and not with the n-grams.
    Pairs are sorted by a, then b.
    """
    if common < 2:
        raise ParamsError(f"common = {common}: expected 2 or more, since an n-gram in two texts is what is looked for.")
    specific = np.zeros(len(sets), dtype=np.int64)
    shared = pl.DataFrame(schema={"pair": pl.UInt64, "shared": pl.UInt32})
    for values, owner in _partitions(sets):
        usual, rare = _rare(values, owner, common, counted)
        specific += np.bincount(owner[rare], minlength=len(sets))
        pair = _pairs(usual[rare], owner[rare], sides)
        part = pl.DataFrame({"pair": pair}).group_by("pair").agg(pl.len().alias("shared"))
        shared = pl.concat([shared, part]).group_by("pair").agg(pl.col("shared").sum())
    pair, both = shared["pair"].to_numpy(), shared["shared"].to_numpy()
    low, high = (pair >> np.uint64(32)).astype(np.int64), (pair & np.uint64(0xFFFFFFFF)).astype(np.int64)
    a, b = np.where(specific[low] <= specific[high], (low, high), (high, low))
    share = both / np.maximum(specific[a], 1)
    enough = share >= coverage
    columns = {"a": a[enough].astype(np.uint32), "b": b[enough].astype(np.uint32), "coverage": share[enough]}
    return pl.DataFrame(columns).sort("a", "b")


def _partitions(sets: pl.Series) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(n-gram hashes, text of each) of one range of hashes after the other; within a range sorted by hash, then text."""
    sizes = sets.list.len().fill_null(0).to_numpy().astype(np.int64)
    count = max(1, -(-int(sizes.sum()) // PARTITION))
    bounds = [np.uint64(((1 << 64) * at // count) & 0xFFFFFFFFFFFFFFFF) for at in range(count)]
    for at in range(count):
        values, owners, first = [], [], 0
        for chunk in sets.get_chunks():
            lists = chunk.list.len().fill_null(0).to_numpy()
            flat = chunk.explode(empty_as_null=False).drop_nulls().to_numpy()
            chosen = flat >= bounds[at]
            if at + 1 < count:
                chosen &= flat < bounds[at + 1]
            values.append(flat[chosen])
            owners.append(np.repeat(np.arange(first, first + len(lists)), lists)[chosen])
            first += len(lists)
        value, owner = np.concatenate(values), np.concatenate(owners)
        order = np.argsort(value, kind="stable")
        yield value[order], owner[order]


def _rare(values: np.ndarray, owner: np.ndarray, common: int, counted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """For each n-gram a number that its copies share, and whether at most `common` (counted) texts have it."""
    begins = np.concatenate(([True], values[1:] != values[:-1])) if len(values) else np.zeros(0, dtype=bool)
    number = np.cumsum(begins) - 1
    weight = None if counted is None else counted[owner].astype(np.float64)
    return number, (np.bincount(number, weights=weight) <= common)[number] if len(values) else begins


def _pairs(number: np.ndarray, owner: np.ndarray, sides: np.ndarray | None) -> np.ndarray:
    """Every two texts that have the same number, once for each number: smaller position << 32 | larger (u64)."""
    found = [np.zeros(0, dtype=np.uint64)]
    apart, left = 1, np.arange(max(len(number) - 1, 0))
    while True:
        left = left[left + apart < len(number)]
        left = left[number[left] == number[left + apart]]
        if not len(left):
            return np.concatenate(found)
        one, two = owner[left], owner[left + apart]
        wanted = np.ones(len(left), dtype=bool) if sides is None else sides[one] != sides[two]
        found.append((one[wanted].astype(np.uint64) << np.uint64(32)) | two[wanted].astype(np.uint64))
        apart += 1
