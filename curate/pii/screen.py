"""Screens: a cheap look at many texts at once that says which recognizers could find anything in each. A no must be certain.

A screen is one or more checks that must all hold. Most are patterns that polars searches (Rust's `regex`: linear in the text, some hundred
MB/s), each only in the texts that passed the checks before it. Patterns are of ASCII digits, letters and spaces; the few texts with other
digits, or with letters that case-blind patterns take for ASCII ones, pass every screen.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl
import regex

from curate.pii.presidio import EntityRecognizer, RecognizerResult

Check = str | Callable[[pl.Series], pl.Series]  # a pattern of Rust's regex, or a function from texts to booleans
Screen = tuple[Check, ...]

FEW = 8  # texts: for so few, Python's search is faster than a call of polars
SHORT = 2000  # bytes in all: Python's search is not linear, so long texts never meet it
# Digits beyond ASCII; the letters that fold to i, s and k; Python's four extra spaces; planes in which new scripts, with new digits, appear;
# characters that Rust does not know yet and Python may.
_ODD = r"[\p{Nd}&&[^0-9]]|[\p{Cn}\x{130}\x{131}\x{17f}\x{212a}\x1c-\x1f\x{10000}-\x{1efff}\x{1fb00}-\x{1fbff}]"
_ODD_ASCII = r"[\x1c-\x1f]"


@dataclass(frozen=True)
class Finder:
    """A recognizer and its screen; `many`: its `analyze` for several texts that passed, where it has a faster one."""

    recognizer: EntityRecognizer
    screen: Screen
    many: Callable[[Sequence[str]], list[list[RecognizerResult]]] | None = None

    @property
    def entity(self) -> str:
        """What the recognizer finds: each finds one kind."""
        return str(self.recognizer.supported_entities[0])


def by_pattern(recognizer: Any, before: Screen, screens: Sequence[str]) -> Finder:
    """A recognizer of several patterns with a screen for each, besides those `before`, which hold for all: a text is read with the patterns
    whose screens it passes, and not with those that would find nothing."""
    assert len(screens) == len(recognizer.patterns)
    parts: dict[tuple[bool, ...], Any] = {}

    def read(text: str, passed: tuple[bool, ...]) -> list[RecognizerResult]:
        if passed not in parts:
            parts[passed] = part = copy.copy(recognizer)  # with its id: results are the whole recognizer's
            part.patterns = list(itertools.compress(recognizer.patterns, passed))
        return parts[passed].analyze(text, recognizer.supported_entities) if any(passed) else []

    def many(texts: Sequence[str]) -> list[list[RecognizerResult]]:
        series = pl.Series(texts, dtype=pl.String)
        held = np.stack([_holds(series, each) for each in screens])
        held[:, odd(series)] = True
        return [read(text, tuple(passed)) for text, passed in zip(texts, held.T.tolist(), strict=True)]

    return Finder(recognizer, (*before, "|".join(screens)), many)


def anywhere(*literals: str) -> str:
    """One of the literals, in this case."""
    return "|".join(regex.escape(each, special_only=True) for each in literals)


def any_case(*literals: str) -> str:
    """One of the literals, in any case."""
    return f"(?i:{anywhere(*literals)})"


def passing(texts: Sequence[str], finders: Sequence[Finder]) -> list[list[int]]:
    """For each text the positions of the finders whose screens it passes, ascending."""
    series = pl.Series(texts, dtype=pl.String)
    known: dict[Screen, np.ndarray] = {(): np.arange(len(texts))}

    def rows(screen: Screen) -> np.ndarray:
        if screen not in known:
            before = rows(screen[:-1])
            known[screen] = before[_holds(series.gather(before), screen[-1])] if len(before) else before
        return known[screen]

    passed: list[list[int]] = [[] for _ in texts]
    strange = frozenset(odd(series).tolist())
    for at, finder in enumerate(finders):
        for row in strange.union(rows(finder.screen).tolist()) if strange else rows(finder.screen).tolist():
            passed[row].append(at)
    return passed


def odd(texts: pl.Series) -> np.ndarray:
    """Positions of the texts that pass every screen."""
    plain = (texts.str.len_bytes() == texts.str.len_chars()).to_numpy()  # ASCII alone
    found = _holds(texts, _ODD_ASCII)
    others = np.flatnonzero(~plain)
    found[others] = _holds(texts.gather(others), _ODD) if len(others) else False
    return np.flatnonzero(found)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return regex.compile(regex.sub(r"\\x\{([0-9a-f]+)\}", lambda found: "\\U" + found[1].rjust(8, "0"), pattern), regex.VERSION1)


def _holds(texts: pl.Series, check: Check) -> np.ndarray:
    if isinstance(check, str) and len(texts) <= FEW and sum(texts.str.len_bytes()) <= SHORT:
        pattern = _compiled(check)
        return np.array([pattern.search(text) is not None for text in texts], dtype=bool)
    held = texts.str.contains(check) if isinstance(check, str) else check(texts)
    return np.array(held.to_numpy(), dtype=bool)
