"""Screens: a cheap look at a text that says whether a recognizer could find anything in it. A no must be certain."""

from collections.abc import Callable
from dataclasses import dataclass

import regex

from curate.pii.presidio import EntityRecognizer

Screen = Callable[[str, str], bool]  # (text, the same text case-folded) -> could match


@dataclass(frozen=True)
class Finder:
    """A recognizer and its screen."""

    recognizer: EntityRecognizer
    screen: Screen


def has(*literals: str) -> Screen:
    """The text holds one of the literals, in this case."""
    return lambda text, folded: any(literal in text for literal in literals)


def has_folded(*literals: str) -> Screen:
    """The text holds one of the lower-case literals, in any case.

    Literals have no `i`: Unicode has four of them, which case-blind patterns take for one and case-folding does not.
    """
    return lambda text, folded: any(literal in folded for literal in literals)


def matches(pattern: str, flags: int = 0) -> Screen:
    """The pattern occurs in the text. `regex`, not `re`: Presidio's own module, so that both know the same digits."""
    compiled = regex.compile(pattern, flags)
    return lambda text, folded: compiled.search(text) is not None


def both(first: Screen, second: Screen) -> Screen:
    """Both screens pass; the cheaper comes first."""
    return lambda text, folded: first(text, folded) and second(text, folded)
