"""Numbers and names: what tells one problem from another that is written with the same words.

"Anna buys 12 eggs" and "Ben buys 30 eggs" share a form, not an answer. Two uses: n-grams in which numbers and names are masked find such
pairs, and `replaced` tells whether a text that looks like an item has most of the item's numbers and names exchanged.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from curate import ngrams

NUMBER, NAME = np.uint64(0x6E756D626572), np.uint64(0x6E616D65)  # what stands for every number and every capitalised word
NAMES = 1 / 8  # share of an item's names that others stand for and that makes it another problem
_SENTENCE_END = re.compile(r"[.!?:\n\"“”(]\s*$|^\s*$")


def masked(raw: pl.Series, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Token hashes with one value for all numbers and one for all capitalised words, and which tokens were so masked.

    `raw` are the tokens as they stand in the text, `hashes` those that `ngrams` gave them.

    >>> raw = pl.Series(["Anna", "has", "12", "eggs"])
    >>> masked(raw, np.arange(4, dtype=np.uint64))[1].tolist()
    [True, False, True, False]
    """
    number = raw.str.contains(r"^\p{N}").to_numpy()
    name = raw.str.contains(r"^\p{Lu}").to_numpy()
    return np.where(number, NUMBER, np.where(name, NAME, hashes)), number | name


def plain_words(texts: pl.Series) -> frozenset[str]:
    """Words that stand in these texts in lower case: at the start of a sentence, none of them is a name.

    >>> sorted(plain_words(pl.Series(["Two eggs and Anna", "Eggs for two"])))
    ['and', 'eggs', 'for', 'two']
    """
    raw = ngrams.tokens(texts).explode(empty_as_null=False).unique()
    return frozenset(ngrams.folded(raw.filter(raw.str.contains(r"^\p{Ll}"))).to_list())


def replaced(items: pl.Series, texts: pl.Series, plain: frozenset[str] | None = None) -> pl.Series:
    """Has each text other numbers at the places of half of the numbers, or other names for an eighth of the names, of the item beside it?

    Items have one or two people among brands, months and titles, so one name of eight is enough if it stands nowhere in the text.
    It counts once, however often it stands in the item. `plain` are the words that are no names, as `plain_words` finds them in all
    items; without it no word is a name that is only seen at the start of a sentence.

    A number or name counts as met if it stands in the text between the same two tokens before and after (there, all numbers count as one,
    and all names), as replaced if only others do. One that has no such place in the text, as when the text is cut off, does not count.
    Case makes no difference. A text that has them all somewhere is no other problem.

    >>> item = "A train goes 1200 miles in 30 hours. How far in 7?"
    >>> texts = ["A train goes 80 miles in 3 hours. How far in 4?", "i think A TRAIN GOES 1200 MILES IN 30"]
    >>> replaced(pl.Series([item, item]), pl.Series(texts)).to_list()
    [True, False]
    """
    theirs, ours = {text: _Item(*each, plain) for text, each in _read(items).items()}, _read(texts)
    pairs = zip(items.to_list(), texts.to_list(), strict=True)
    return pl.Series([_replaced(theirs[item], ours[text]) for item, text in pairs], dtype=pl.Boolean)


@dataclass(frozen=True)
class _Text:
    """A text and its tokens, as they stand and folded."""

    text: str
    raw: list[str]
    low: list[str]


@dataclass(frozen=True)
class _Item(_Text):
    """An item, and which of its tokens are numbers or names."""

    plain: frozenset[str] | None

    @cached_property
    def own(self) -> list[bool]:
        """Numbers, and words that are capitalised not only because a sentence starts."""
        spans = ngrams.places(self.text, self.raw)
        capital = [token[0].isupper() for token in self.raw]
        inside = {
            token
            for token, upper, (start, _) in zip(self.raw, capital, spans, strict=True)
            if upper and not _SENTENCE_END.search(self.text[max(start - 4, 0) : start])
        }
        plain = set(self.low) if self.plain is None else self.plain
        named = (upper and (token in inside or low not in plain) for token, low, upper in zip(self.raw, self.low, capital, strict=True))
        return [_is_number(token) or name for token, name in zip(self.raw, named, strict=True)]

    @cached_property
    def form(self) -> list[str]:
        return [_form(token, mine) for token, mine in zip(self.low, self.own, strict=True)]

    @cached_property
    def particulars(self) -> set[str]:
        return {token for token, mine in zip(self.low, self.own, strict=True) if mine}

    @cached_property
    def ordinary(self) -> set[str]:
        return {token for token, mine in zip(self.low, self.own, strict=True) if not mine}


def _read(texts: pl.Series) -> dict[str, tuple[str, list[str], list[str]]]:
    """Each distinct text with its tokens, as they stand and folded."""
    distinct = texts.unique(maintain_order=True)
    raw = ngrams.tokens(distinct)
    low = ngrams.folded(raw.explode(empty_as_null=False)).to_list()
    ends = np.cumsum(raw.list.len().to_numpy().astype(np.int64)).tolist()
    lists = zip(distinct.to_list(), raw.to_list(), [0, *ends], ends, strict=False)
    return {text: (text, found, low[start:end]) for text, found, start, end in lists}


def _replaced(item: _Item, read: tuple[str, list[str], list[str]]) -> bool:
    text = _Text(*read)
    words = set(text.low)
    if item.particulars <= words:
        return False
    also = [_is_number(low) or low not in item.ordinary for low in text.low]  # in whatever case: the text may have none
    there: dict[tuple[str, ...], set[str]] = {}
    form = [_form(token, mine) for token, mine in zip(text.low, also, strict=True)]
    before = {item.form[at - 1] if at else "" for at, mine in enumerate(item.own) if mine}
    for at in (at for at, mine in enumerate(also) if mine and (form[at - 1] if at else "") in before):
        there.setdefault(_context(form, at), set()).add(text.low[at])
    met, lost = 0, 0  # numbers
    names: dict[str, bool] = {}  # was it met somewhere
    for at in (at for at, mine in enumerate(item.own) if mine):
        context = _context(item.form, at)
        found = there.get(context, set())
        if not _is_number(item.low[at]):
            if not found or all(each in ("", "#", "@") for each in context):
                continue  # among names and numbers alone, as in capitals throughout, any place is like any other
            names[item.low[at]] = names.get(item.low[at], False) or item.low[at] in found
        elif found:
            met += item.low[at] in found
            lost += item.low[at] not in found
    gone = sum(not here and words.isdisjoint((name, name.split("'")[0])) for name, here in names.items())  # "Ann's" may have lost its sign
    return 0 < gone >= NAMES * len(names) or 0 < lost >= met


def _context(form: list[str], at: int) -> tuple[str, ...]:
    """The tokens on either side of a place, "" beyond the ends of the text."""
    return tuple(form[near] if 0 <= near < len(form) else "" for near in (at - 2, at - 1, at + 1, at + 2))


def _form(token: str, particular: bool) -> str:
    return token if not particular else "#" if _is_number(token) else "@"


def _is_number(token: str) -> bool:
    return token[:1].isnumeric()
