"""Small changes to what a user wrote, as a hurried customer would write it: typos, punctuation, a greeting, case.

Never touched: code, URLs, addresses, anything with a digit, operators, placeholders, and words that are not plain lower case (they
may be names). Every change is drawn from a hash, so the same text under the same name changes the same way everywhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

METHODS = ("typos", "punctuation", "greeting", "case")
ALONE = METHODS[:3]  # changes that folding does not undo
KEPT = re.compile(  # what comes before a mark is bounded: a word of a million letters would take the square of that in time
    r"```.*?(?:```|\Z)|`[^`\n]*`"  # code
    r"|^(?: {4}|\t)[^\n]*$"
    r"|\S{1,64}://\S+|www\.\S+|\S{1,64}@\S+"  # addresses
    r"|\{\{.*?\}\}|\[[^\[\]\n]{1,60}\]|<[^<>\n]{1,60}>|\{[^{}\n]{1,60}\}"  # placeholders and mark-up
    r"|\S{0,64}\d\S*"  # numbers, with their currency and units
    r"|\S{0,64}[_\\/=+*^%$€£#|~]\S*",  # identifiers, paths and operators
    re.DOTALL | re.MULTILINE,
)
WORD = re.compile(r"(?<![\w'’-])[a-z]{4,}(?![\w'’-])")
NEIGHBOURS = dict(
    zip(
        "abcdefghijklmnopqrstuvwxyz",
        "sq vn xv sf wr dg fh gj uo hk jl k; nk bm ip o[ wa et ad ry yi cb qe zc tu xa".replace(";", "k").replace("[", "i").split(),
        strict=True,
    )
)


@dataclass
class Draws:
    """A sequence of draws that belongs to a name."""

    name: str
    at: int = 0

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        self.at += 1
        return int(xxhash.xxh3_64_intdigest(f"{self.name}\x1f{self.at}".encode()) % limit)


def perturbed(
    messages: Sequence[Mapping[str, Any]], name: str, methods: Sequence[str], greetings: Sequence[str]
) -> tuple[list[dict[str, Any]], str]:
    """`messages` with what the user says changed, and the method used (`typos`, `greeting+case`, …).

    >>> talk = [{"role": "user", "content": "Where is my order 7781?", "extra": None}]
    >>> perturbed(talk, "a", ["greeting"], ["Hello!"])[0][0]["content"]
    'Hello! Where is my order 7781?'
    """
    draws = Draws(name)
    able = [method for method in ALONE if method in methods]
    method = able[draws.below(len(able))]
    cased = "case" in methods and draws.below(2) == 0
    changed, greeted = [], False
    for turn, message in enumerate(messages):
        text = message["content"]
        if message["role"] == "user" and text:
            if method == "greeting":
                text = text if greeted else greetings[draws.below(len(greetings))] + " " + text.lstrip()
                greeted = True
            else:
                text = _changed(text, method, Draws(f"{name}\x1f{turn}"))
            text = text if not cased else _free(text, str.lower)
        changed.append({**message, "content": text})
    return changed, f"{method}+case" if cased else method


def changed(text: str, method: str, name: str, greetings: Sequence[str]) -> str:
    """One text by one method; the same text may come back where there is nothing to change.

    >>> changed("Where is Order 7781?", "case", "a", [])
    'where is order 7781?'
    """
    draws = Draws(name)
    if method == "case":
        return _free(text, str.lower)
    return greetings[draws.below(len(greetings))] + " " + text.lstrip() if method == "greeting" else _changed(text, method, draws)


def _changed(text: str, method: str, draws: Draws) -> str:
    return typos(text, draws) if method == "typos" else punctuation(text, draws)


def _free(text: str, change: Any) -> str:
    """`change` applied to every stretch of text that may be changed."""
    done, at = [], 0
    for kept in KEPT.finditer(text):
        done += [change(text[at : kept.start()]), kept.group()]
        at = kept.end()
    return "".join([*done, change(text[at:])])


def typos(text: str, draws: Draws) -> str:
    """One slip for about every twelve words that may have one, at least one and at most four."""
    kept = [match.span() for match in KEPT.finditer(text)]
    words = [word.span() for word in WORD.finditer(text) if not any(start < word.end() and word.start() < end for start, end in kept)]
    wanted = min(4, max(1, len(words) // 12))
    chosen: set[int] = set()
    for _ in range(wanted if words else 0):
        chosen.add(draws.below(len(words)))
    for at in sorted(chosen, reverse=True):
        start, end = words[at]
        text = text[:start] + _slip(text[start:end], draws) + text[end:]
    return text


def _slip(word: str, draws: Draws) -> str:
    """Two letters swapped, one lost, one doubled, or its neighbour on the keyboard. The first letter stays."""
    at, way = 1 + draws.below(len(word) - 2), draws.below(4)
    if way == 0 and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if way == 1:
        return word[:at] + word[at + 1 :]
    if way == 2:
        return word[: at + 1] + word[at:]
    near = NEIGHBOURS[word[at]]
    return word[:at] + near[draws.below(len(near))] + word[at + 1 :]


def punctuation(text: str, draws: Draws) -> str:
    """The last mark lost or doubled, or commas and apostrophes lost."""
    ways = [
        lambda: re.sub(r"(?<=\w)[.!?]+(\s*)\Z", r"\1", text),
        lambda: re.sub(r"(?<=\w)([.!?])(\s*)\Z", r"\1\1\2", text),
        lambda: _free(text, lambda part: re.sub(r"(?<=\w),(?=\s)", "", part)),
        lambda: _free(text, lambda part: re.sub(r"(?<=[a-z])['’](?=[a-z])", "", part)),
    ]
    first = draws.below(len(ways))
    for step in range(len(ways)):  # the first way, in this order, that finds something to change
        changed = ways[(first + step) % len(ways)]()
        if changed != text:
            return changed
    return text + "." if text[-1:].isalpha() else text
