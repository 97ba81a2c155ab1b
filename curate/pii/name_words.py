"""The words that names are made of: their shape, what of them is looked up in the lists, and where they stand free of code."""

import re
from functools import lru_cache
from typing import Any

import regex

from curate.pii.name_lists import AMBIGUOUS, NOT_NAMES, names

PIECE = r"[\p{Lu}][\p{L}\p{M}]*"  # properties stand in brackets, see `by_script`
WORD = rf"{PIECE}(?:['’\-][\p{{L}}][\p{{L}}\p{{M}}]+)*"
_PARTICLE = r"(?:(?:van|von|der|den|de|del|della|di|da|dos|das|du|la|le|bin|ibn|al|el|ter|ten|af|av)[ ]){0,2}"
NEXT = rf"[ ]{_PARTICLE}(?:{WORD}|[\p{{Lu}}]\.)"
# Latin letters with marks, dashes, quotes and the like; not those that Python's `re` takes for other than `regex` does (a word's or of no case).
_LATIN = "\x00-\xb1\xb4-\xb8\xba-\xbb\xbf-\u012f\u0132-\u017e\u0180-\u024f\u2010-\u2027\u2030-\u203a\u20ac\u2122"
_IS_LATIN: Any = re.compile(f"[{_LATIN}]*")
ASCII, LATIN, OTHER = range(3)


def script(text: str) -> int:
    """Which of the patterns of `by_script` reads a text: that for ASCII alone, for Latin, or for whatever letters there are."""
    return ASCII if text.isascii() else LATIN if _IS_LATIN.fullmatch(text) else OTHER


def by_script(pattern: str) -> tuple[Any, Any, Any]:
    """The pattern for texts of each script: for ASCII and Latin in Python's own `re`, which is twice as fast."""
    latin = "".join(each for each in map(chr, range(0x2123)) if _IS_LATIN.fullmatch(each))
    kinds = {kind: "".join(regex.findall(kind, latin)) for kind in (r"\p{Lu}", r"\p{Ll}", r"\p{L}", r"\p{M}", r"\p{N}")}
    plain = {r"\p{Lu}": "A-Z", r"\p{Ll}": "a-z", r"\p{L}": "A-Za-z", r"\p{M}": "", r"\p{N}": "0-9"}
    return re.compile(_spelt(pattern, plain)), re.compile(_spelt(pattern, kinds)), regex.compile(pattern)


def _spelt(pattern: str, kinds: dict[str, str]) -> str:
    for kind, letters in (kinds | {r"\s": r"[\t-\r \x85\xa0]"}).items():  # the spaces of `regex`; `re` has four more
        pattern = pattern.replace(kind, letters)
    return pattern


PARTS = by_script(rf"{WORD}|[\p{{Lu}}]\.")
_CUT = regex.compile(r"['’\-]")
_INNER = regex.compile(r"(?:Ma?c|De|Di|Du|La|Le|Van|Fitz|O)\p{Lu}")  # names with a capital within
KEPT = 1 << 17  # words that are remembered


@lru_cache(maxsize=1)
def listed() -> tuple[frozenset[str], frozenset[str]]:
    """First and last names, lower-case."""
    both = names()
    return frozenset(each.lower() for each in both.first), frozenset(each.lower() for each in both.last)


@lru_cache(maxsize=1)
def telling() -> frozenset[str]:
    """Listed names that are nothing else: every name that the lists find has one of them."""
    first, last = listed()
    return (first | last) - AMBIGUOUS - NOT_NAMES


class _Keys(dict[str, str]):
    """Words with their keys, each worked out once."""

    def __missing__(self, word: str) -> str:
        if len(self) >= KEPT:
            self.clear()
        self[word] = made = _key(word)
        return made


def _key(word: str) -> str:
    start = word if word.isalpha() else _CUT.split(word, maxsplit=1)[0]
    return start.lower() if start[1:].islower() or start.isupper() or _INNER.match(start) else ""


# What of a word is looked up: up to its first hyphen or apostrophe; nothing of `LoRA` and `NaT`, which are no names.
key = _Keys().__getitem__


def stands_free(text: str, start: int, end: int) -> bool:
    """Not part of code, an address or a path."""
    after = text[end : end + 2]
    return not (
        after[:1] in ("_", "@", "(", "=", "[", "/", "\\", "&")
        or after[:1].isdigit()
        or (len(after) == 2 and after[0] in ".-:" and (after[1].isalnum() or after[1] in "_:>"))
    )
