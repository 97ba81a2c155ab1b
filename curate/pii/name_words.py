"""The words that names are made of: their shape, what of them is looked up in the lists, and where they stand free of code."""

import re
from functools import lru_cache
from typing import Any

import regex

from curate.pii.name_lists import AMBIGUOUS, NOT_NAMES, names

PIECE = r"\p{Lu}[\p{L}\p{M}]*"
WORD = rf"{PIECE}(?:['’\-]\p{{L}}[\p{{L}}\p{{M}}]+)*"
_PARTICLE = r"(?:(?:van|von|der|den|de|del|della|di|da|dos|das|du|la|le|bin|ibn|al|el|ter|ten|af|av)[ ]){0,2}"
NEXT = rf"[ ]{_PARTICLE}(?:{WORD}|\p{{Lu}}\.)"
_ASCII = {r"[\p{L}\p{M}]": "[A-Za-z]", r"\p{L}": "[A-Za-z]", r"\p{Lu}": "[A-Z]", "’": ""}


def in_ascii(pattern: str) -> str:
    """The pattern for texts of ASCII alone, in Python's own `re`, which is twice as fast on them."""
    for one, other in _ASCII.items():
        pattern = pattern.replace(one, other)
    return pattern


PARTS: Any = regex.compile(rf"{WORD}|\p{{Lu}}\.")
ASCII_PARTS: Any = re.compile(in_ascii(rf"{WORD}|\p{{Lu}}\."))
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
