"""Finds personal data and secrets in texts, and replaces them. Presidio finds; what counts, and what replaces it, is decided here.

Stock Presidio is slow because every recognizer reads every text. Here each recognizer has a screen (`screen.py`) that is asked for many
texts at once, and only recognizers whose screens pass read a text: the findings are those of `AnalyzerEngine` over all recognizers, which
tests/test_pii.py asserts on examples.
"""

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import regex

from curate.pii.identity import identity
from curate.pii.settings import DENIED, ENTITIES, LANGUAGE_REGIONS, ScrubParams, wanted
from curate.record import FineryError
from curate.stage import say

# Characters without width: `eve@exam<U+200B>ple.com` is an address all the same.
HIDDEN = regex.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")

if TYPE_CHECKING:
    from curate.pii.ner import Model
    from curate.pii.screen import Finder


class SearchTimeout(FineryError):
    """A pattern took longer on a text than Presidio allows (60 s): the text counts as not searched."""


class _Strict(logging.Handler):
    """Presidio goes on after a pattern's time-out, with a warning: here it is an error. Its other messages may quote the text: dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], TimeoutError):
            raise SearchTimeout("a pattern timed out on this text")


class Finding(NamedTuple):
    """A stretch of a text, in characters. It never holds the text itself. A tuple: hundreds of thousands are made, and sorted."""

    start: int
    end: int
    entity: str
    recognizer: str
    score: float


@dataclass(frozen=True)
class Analyzer:
    """Recognizers with their screens, what judges their context, and the model for names."""

    finders: tuple["Finder", ...]
    enhancer: Any
    model: "Model | None"
    entities: frozenset[str]  # searched for
    least: dict[str, float]  # score below which an entity's findings do not count
    nothing: Any  # what Presidio is given instead of tokens: our recognizers read none
    min_score: float

    @cached_property
    def engine(self) -> Any:
        """Presidio's `AnalyzerEngine` over the recognizers, for comparison: making a pipeline takes longer than all else here."""
        from curate.pii import ner
        from curate.pii.presidio import AnalyzerEngine, RecognizerRegistry

        return AnalyzerEngine(
            RecognizerRegistry(recognizers=[each.recognizer for each in self.finders]),
            ner.blank(),
            default_score_threshold=self.min_score,
            context_aware_enhancer=self.enhancer,
        )


@lru_cache(maxsize=32)
def analyzer(params: ScrubParams) -> Analyzer:
    """The analyzer for these params: once a process, at the first text. Raises ParamsError if the model in `ner` cannot be loaded."""
    from curate.pii import ner  # loads torch before Presidio where a model needs it

    model = ner.load(params.ner)
    from curate.pii import ids, links, names, patterns, places, secrets
    from curate.pii.context import NearbyWords
    from curate.pii.presidio import no_tokens

    presidio = logging.getLogger("presidio-analyzer")
    presidio.handlers, presidio.propagate = [_Strict()], False
    asked = wanted(params)
    every = (
        *patterns.finders(params.phone_regions, params.keep_private_ips),
        *links.finders(),
        *places.finders(),
        *ids.finders(),
        *secrets.finders(),
        names.finder(),
    )
    finders = tuple(each for each in every if each.entity in asked)
    least = dict.fromkeys(ENTITIES, params.min_score) | dict(params.thresholds)
    for each in finders:
        each.recognizer.score_thresholds = {each.entity: least[each.entity]}
    entities = frozenset(each.entity for each in finders) | (frozenset(model.finds) & asked if model else frozenset())
    return Analyzer(finders, NearbyWords(), model, entities, least, no_tokens(), params.min_score)


def find(text: str, params: ScrubParams, language: str | None = None) -> tuple[Finding, ...]:
    """What is to be replaced in `text`: in order, without overlaps, without what `scrub.allow` lists.

    Raises whatever a recognizer raises: a text that could not be searched must not count as clean.
    """
    found = find_many([text], params, language)[0]
    if isinstance(found, Exception):
        raise found
    return found


def find_many(texts: Sequence[str], params: ScrubParams, language: str | None = None) -> list[tuple[Finding, ...] | Exception]:
    """`find` for many texts at once, much faster than one by one; what a recognizer raised stands in the place of its text's findings.

    `language` (ISO 639: `de`, `pt-BR`) adds the phone numbers of its countries, written without a country code.
    """
    made = analyzer(in_language(params, language))
    plain = [HIDDEN.sub("", text) if not text.isascii() and HIDDEN.search(text) else None for text in texts]
    both = [*texts, *(text for text in plain if text is not None)]  # what hides between the letters is looked for without it
    raw = analyze(both, made)
    if made.model:
        named = made.model.find_many(both)
        raw = [one if isinstance(one, Exception) else [*one, *_counted(other, made)] for one, other in zip(raw, named, strict=True)]
    more = iter(raw[len(texts) :])
    results: list[tuple[Finding, ...] | Exception] = []
    for text, bare, found in zip(texts, plain, raw, strict=False):
        hidden = next(more) if bare is not None else []
        if isinstance(found, Exception) or isinstance(hidden, Exception):
            results.append(found if isinstance(found, Exception) else hidden)  # type: ignore[arg-type]
            continue
        every = [*found, *_unhidden(text, hidden), *_denied(text, params.deny)] if hidden or params.deny else found
        if params.allow:
            every = [each for each in every if not _allowed(text[each.start : each.end], each.entity, params)]
        results.append(resolve(every) if every else ())
    return results


def analyze(texts: Sequence[str], made: Analyzer) -> list[list[Finding] | Exception]:
    """What `AnalyzerEngine.analyze` finds with the same recognizers, asked only where they could match: same spans, entities and scores."""
    from curate.pii.screen import passing

    asked = passing(texts, made.finders)
    ready = _found_at_once(texts, asked, made)
    results: list[list[Finding] | Exception] = []
    for at, (text, several) in enumerate(zip(texts, asked, strict=True)):
        found: list[Any] = []
        sources: list[Any] = []  # recognizers that found something
        try:
            for each in several:
                finder, known = made.finders[each], ready.get(each)
                if more := known[at] if known else finder.recognizer.analyze(text, [finder.entity], made.nothing):
                    found += more
                    sources.append(finder.recognizer)
            results.append(_counting(text, found, sources, made) if found else [])
        except Exception as error:  # any recognizer, any fault: the caller decides about the text
            results.append(error)
    return results


def _found_at_once(texts: Sequence[str], asked: Sequence[Sequence[int]], made: Analyzer) -> dict[int, dict[int, list[Any]]]:
    """For each finder that can search many texts at once, what it finds by position of the text. Without those that raised: they are asked
    for each text by itself."""
    ready: dict[int, dict[int, list[Any]]] = {}
    for each, finder in enumerate(made.finders):
        some = [at for at, several in enumerate(asked) if each in several] if finder.many and len(texts) > 1 else []
        if finder.many and some:
            try:
                ready[each] = dict(zip(some, finder.many([texts[at] for at in some]), strict=True))
            except Exception as error:
                say(
                    f"scrub: {finder.entity}: {len(some):,} texts could not be searched at once ({type(error).__name__}); one by one instead."
                )
    return ready


def _counting(text: str, found: list[Any], sources: Sequence[Any], made: Analyzer) -> list[Finding]:
    """What of the findings counts, with scores by their context: as `AnalyzerEngine` decides it. `sources`: whose findings they are."""
    from curate.pii.presidio import EntityRecognizer

    if any(each.context for each in sources):  # else the enhancer would only copy the findings
        found = made.enhancer.enhance_using_context(text, found, made.nothing, sources)
    found = [each for each in found if each.score and each.score >= made.least[each.entity_type]]
    found.sort(key=_start)
    apart = all(one.end < other.start for one, other in itertools.pairwise(found))  # then none can stand for another
    return [_finding(each) for each in (found if apart else EntityRecognizer.remove_duplicates(found))]


def _finding(result: Any) -> Finding:
    return Finding(result.start, result.end, result.entity_type, result.recognition_metadata["recognizer_name"], round(result.score, 2))


_start = attrgetter("start")


def in_language(params: ScrubParams, language: str | None) -> ScrubParams:
    """The params with the phone regions of a language added."""
    regions = LANGUAGE_REGIONS.get((language or "").replace("_", "-").partition("-")[0].casefold(), ())
    more = tuple(each for each in regions if each not in params.phone_regions)
    return dataclasses.replace(params, phone_regions=(*params.phone_regions, *more)) if more else params


def _counted(found: Iterable[Finding], made: Analyzer) -> list[Finding]:
    return [each for each in found if each.entity in made.entities and each.score >= made.least[each.entity]]


def _unhidden(text: str, found: list[Finding]) -> list[Finding]:
    """Findings of the text without hidden characters, where they stand in the text with them."""
    if not found:
        return []
    places = [at for at, each in enumerate(text) if not HIDDEN.match(each)]
    return [each._replace(start=places[each.start], end=places[each.end - 1] + 1) for each in found]


@lru_cache(maxsize=8)
def _words(values: tuple[str, ...]) -> Any:
    choices = "|".join(regex.escape(value.strip()) for value in sorted(values, key=lambda value: (-len(value), value)))
    return regex.compile(rf"(?<!\w)(?:{choices})(?!\w)", regex.IGNORECASE)


def _denied(text: str, deny: tuple[str, ...]) -> list[Finding]:
    if not deny:
        return []
    return [Finding(match.start(), match.end(), DENIED, "Denied", 1.0) for match in _words(deny).finditer(text)]


@lru_cache(maxsize=64)
def _allowances(entity: str, params: ScrubParams) -> frozenset[str]:
    return frozenset(identity(entity, each, params.phone_regions) for each in params.allow)


def _allowed(value: str, entity: str, params: ScrubParams) -> bool:
    if not params.allow or entity == DENIED:
        return False
    folded = value.strip().casefold()
    return any(folded == each.strip().casefold() for each in params.allow) or (
        identity(entity, value, params.phone_regions) in _allowances(entity, params)
    )


def resolve(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings without overlaps. Those that overlap become one over all their characters, so that none of them is left standing.

    It takes the entity of the longest, then of the highest score, then of the first in `ENTITIES`.

    >>> a, b = Finding(0, 8, "URL", "x", 0.9), Finding(5, 12, "EMAIL_ADDRESS", "y", 1.0)
    >>> [(each.start, each.end, each.entity) for each in resolve([a, b])]
    [(0, 12, 'URL')]
    """
    merged: list[list[Finding]] = []
    reach = -1
    for each in sorted(findings):
        if each.start < reach:
            merged[-1].append(each)
        else:
            merged.append([each])
        reach = max(reach, each.end)
    return tuple(group[0] if len(group) == 1 else _one(group) for group in merged)


def _one(group: list[Finding]) -> Finding:
    best = min(group, key=lambda each: (each.start - each.end, -each.score, ENTITIES.index(each.entity), each.recognizer))
    return Finding(min(each.start for each in group), max(each.end for each in group), best.entity, best.recognizer, best.score)
