"""Names of people without a model: what stands where names stand (`my name is`, `Ms`, `Dear`, a signature, `Name:`), and listed names.

A listed first name with a capital counts alone, unless it is a word, a place or a month too (`AMBIGUOUS`); with a last name after it that
one may be a word as well. Inside code (`Martin(`, `os.Grace`, `class_Anna`) nothing counts.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import polars as pl
import regex

from curate.pii.name_cues import EVERY, LONG_SURNAME, by_cue, cued
from curate.pii.name_lists import AMBIGUOUS, EPONYMS, GIVEN, MAKES_A_PLACE, NAMED_PLACES, NOT_NAMES
from curate.pii.name_talk import by_signature, of_language, spoken_to
from curate.pii.name_words import KEPT, LATIN, NEXT, PARTS, PIECE, WORD, by_script, key, listed, script, stands_free, telling
from curate.pii.presidio import EntityRecognizer, RecognizerResult
from curate.pii.screen import Finder, odd

FULL, HALF, ALONE, SURNAME = 0.6, 0.5, 0.45, 0.35  # first and last listed; first only; one first name; one last name
SPOKEN_TO = 0.0  # a word that may be a first name, and is one where somebody is spoken to
LONGEST = 4  # words of a name

# A run of words with capitals; the first capital is looked for before what stands in front of it is asked.
_RUN = by_script(
    r"[\p{Lu}](?<![\p{L}\p{M}\p{N}_@/.#\-\\$=<][\p{Lu}])" + rf"{WORD}(?:{NEXT}){{0,5}}".removeprefix(r"[\p{Lu}]"),
)
_PIECES = by_script(PIECE)
_FOLLOWS = regex.compile(r"(?:['’]s)?[ -](\p{Ll}+)")
_MARK: Any = regex.compile(r"\p{M}")
Found = tuple[int, int, float]  # start, end, score


class PersonNames(EntityRecognizer):  # type: ignore[misc]
    """Names by their place and by lists."""

    def __init__(self) -> None:
        super().__init__(["PERSON"], name="PersonNames")

    def load(self) -> None:
        """Nothing: the lists come with the first text."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Names, each with one of this recognizer's scores."""
        return self._results((*_by_list(text), *_by_series(text), *by_cue(text), *by_signature(text), *_by_small(text)))

    def analyze_many(self, texts: Sequence[str]) -> list[list[RecognizerResult]]:
        """`analyze` for many texts: what could be found in each is asked for all of them at once."""
        series = pl.Series(texts, dtype=pl.String)
        cues = cued(series) | dict.fromkeys(odd(series).tolist(), EVERY)
        joined = series.str.contains(_JOINED).to_list()
        return [self._results(_screened(text, cues.get(at, ()), joined[at])) for at, text in enumerate(texts)]

    def _results(self, names: Iterable[Found]) -> list[RecognizerResult]:
        found: dict[tuple[int, int], float] = {}
        for start, end, score in names:
            found[start, end] = max(score, found.get((start, end), 0.0))
        metadata = {RecognizerResult.RECOGNIZER_NAME_KEY: "PersonNames", RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id}
        return [RecognizerResult("PERSON", start, end, score, recognition_metadata=dict(metadata)) for (start, end), score in found.items()]


def _screened(text: str, cues: Sequence[int], joined: bool) -> Iterator[Found]:
    """What `analyze` finds, without looking for what cannot be there."""
    yield from _by_list(text)
    yield from by_signature(text)
    if joined:
        kind, tells = script(text), telling()
        count = sum(key(piece) in tells for piece in _PIECES[kind].findall(text))
        if count > 1 or (kind > LATIN and _MARK.search(text)):  # a series may end before a mark: its last word is no piece
            yield from _by_series(text)
    if cues:
        yield from by_cue(text, cues)
    if text.islower():
        yield from _by_small(text)


def _by_list(text: str) -> Iterator[Found]:
    for run in _RUN[script(text)].finditer(text):
        for first, last, score in _named(run[0]):
            start, end = run.start() + first, run.start() + last
            if not stands_free(text, start, end) or _of_a_thing(text, start, end):
                continue
            if score == SPOKEN_TO:
                if spoken_to(text, start, end):
                    yield start, end, HALF
            elif score == FULL or not of_language(text, start, end):
                yield start, end, score


def _of_a_thing(text: str, start: int, end: int) -> bool:
    """Whether one word is the name of a theorem or the like: `Euler's formula` is nobody's."""
    after = _FOLLOWS.match(text, end) if " " not in text[start:end] else None
    return after is not None and after[1] in EPONYMS


class _Runs(dict[str, tuple[Found, ...]]):
    """Runs of words with the names in them, each looked through once: most are a word that begins a sentence."""

    def __missing__(self, run: str) -> tuple[Found, ...]:
        if len(self) >= KEPT:
            self.clear()
        self[run] = made = tuple(_in_run(run))
        return made


_named = _Runs().__getitem__


def _in_run(run: str) -> Iterator[Found]:
    if run.isalpha() and key(run) in GIVEN and not run.isupper():
        yield 0, len(run), SPOKEN_TO
        return
    if telling().isdisjoint(map(key, run.split(" "))):
        return
    first, last = listed()
    words = [match.span() for match in PARTS[script(run)].finditer(run)]
    keys = [key(run[start:end]) for start, end in words]
    capitals = [end - start > 1 and run[start:end].isupper() for start, end in words]
    if any(capitals) and not all(capitals):  # BLAS Level 3: in a name either all words are in capitals or none
        keys = ["" if high else each for each, high in zip(keys, capitals, strict=True)]
    at = 0
    while at < len(words):
        size, score = _name_at(keys, at, first, last)
        if size == 1 and capitals[at]:
            size = 0  # LAN, NAS, SIM: a word alone in capitals is an abbreviation or a heading
        if capitals[at] and score < FULL:
            size = 0  # JAX JIT
        if size and not _is_place(keys, at, at + size):
            yield words[at][0], words[at + size - 1][1], score
        at += size or 1


_SMALL = regex.compile(r"(?<![\p{L}\p{M}\p{N}_@/.#\-\\$=<])\p{Ll}[\p{L}\p{M}]{3,}(?![\p{L}\p{M}\p{N}_@/(=\\])")


def _by_small(text: str) -> Iterator[Found]:
    """In a text typed without capitals: a first name that is no word, and the listed last name after it."""
    if not text.islower():
        return
    first, last = listed()
    words = [match.span() for match in _SMALL.finditer(text)]
    known = _everyday()
    at = 0
    while at < len(words):
        start, end = words[at]
        word = text[start:end]
        at += 1
        if word not in first or word in AMBIGUOUS or word in NOT_NAMES:
            continue
        followed = at < len(words) and words[at][0] == end + 1 and text[end] == " " and text[words[at][0] : words[at][1]] in last
        if followed and text[words[at][0] : words[at][1]] not in AMBIGUOUS | NOT_NAMES:
            yield start, words[at][1], HALF
            at += 1
        elif word in known:
            yield start, end, ALONE


@lru_cache(maxsize=1)
def _everyday() -> frozenset[str]:
    """First names of English-speaking countries: the only ones that count alone in small letters."""
    from faker.providers.person import en_GB, en_US

    return frozenset(name.lower() for lists in (en_US, en_GB) for name in lists.Provider.first_names if len(name) > 4)


def _name_at(keys: list[str], at: int, first: frozenset[str], last: frozenset[str]) -> tuple[int, float]:
    """How many words from `at` on are a name, and its score; (0, 0) for none."""
    word = keys[at]
    if word in NOT_NAMES:
        return 0, 0.0
    if word not in first:
        return (1, SURNAME) if word in last and word not in AMBIGUOUS and len(word) >= LONG_SURNAME else (0, 0.0)
    end, surname = at + 1, False
    while end < len(keys) and end - at < LONGEST and keys[end] not in NOT_NAMES and keys[end] not in MAKES_A_PLACE:
        initial = len(keys[end]) <= 2
        known = keys[end] in last or (keys[end] in first and keys[end] not in AMBIGUOUS)
        if not (initial or known or (word not in AMBIGUOUS and not surname)):
            break
        surname = surname or (not initial and (word not in AMBIGUOUS or (known and keys[end] not in AMBIGUOUS)))
        end += 1
    if surname:
        return end - at, FULL if keys[end - 1] in last else HALF
    return (1, ALONE) if word not in AMBIGUOUS else (0, 0.0)


_AND = r",? (?:and|or|&|und|et|y|e|en|och|i) "
_LAST = rf"({WORD})(?![\p{{L}} ]*[\p{{Lu}}])"
_LISTED = WORD.replace("]*", "]*+").replace("]+", "]++").replace(")*", ")*+")  # a comma or a space follows: nothing to give back
_SERIES = by_script(
    r"[\p{Lu}](?<![\p{L}\p{M}\p{N}_@/.#\-\\$=<\"'][\p{Lu}])" + rf"{_LISTED}(?:, {_LISTED}){{0,20}}+{_AND}{_LAST}".removeprefix(r"[\p{Lu}]")
)
_MEMBERS = regex.compile(rf"({WORD})(?:, ({WORD})){{0,20}}{_AND}{_LAST}")  # the same, read from where one begins
_JOINED = r"\p{Lu}[\p{L}\p{M}'’\-]*,? (?:and|or|&|und|et|y|e|en|och|i) \p{Lu}"  # stands in every series


def _by_series(text: str) -> Iterator[Found]:
    """`Hans, Amber and Lopez`: where two of the words are first names and nothing else, or all are names, all are."""
    first, last = listed()
    for match in _SERIES[script(text)].finditer(text) if " and " in text or "," in text or " or " in text else ():
        series = _MEMBERS.match(text, match.start())
        spans = [*series.spans(1), *series.spans(2), *series.spans(3)]
        keys = [key(text[start:end]) for start, end in spans]
        if any(each in NOT_NAMES or each in MAKES_A_PLACE for each in keys) or not all(each in first or each in last for each in keys):
            continue
        sure = [each for each in keys if each not in AMBIGUOUS]
        if len(sure) >= 2 and stands_free(text, *spans[-1]):
            yield from ((start, end, ALONE) for start, end in spans)


def _is_place(keys: list[str], at: int, next_at: int) -> bool:
    """A word follows that makes a firm, a street or a town of the name, or one stands before that makes it a house's (`Café Zoë`)."""
    return (next_at < len(keys) and keys[next_at] in MAKES_A_PLACE) or (at > 0 and keys[at - 1] in NAMED_PLACES)


def finder() -> Finder:
    """The recognizer. Any capitalised word lets a text pass, or the one cue that takes lower-case names."""
    names = PersonNames()
    return Finder(names, (r"\p{Lu}\p{L}|(?i:my name['’]?(?:s| is))|^[^\p{Lu}]*$",), names.analyze_many)
