"""Finds personal data and secrets in texts, and replaces them. Presidio finds; what counts, and what replaces it, is decided here.

Stock Presidio is slow because every recognizer reads every text. Here each recognizer has a screen (`screen.py`), and Presidio is asked
only for the entities whose screens pass: the findings are those of `AnalyzerEngine` over all recognizers, which a test asserts.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import regex

from curate.pii.replace import Replacer, identity
from curate.pii.settings import ENTITIES, ScrubParams, wanted
from curate.record import FineryError

CARRIED = 4  # characters: a shorter value is not looked for in the rest of its conversation
CARRY = "Carried"  # recognizer of a value that was recognised elsewhere in the conversation


if TYPE_CHECKING:
    from curate.pii.screen import Finder


class SearchTimeout(FineryError):
    """A pattern took longer on a text than Presidio allows (60 s): the text counts as not searched."""


class _Strict(logging.Handler):
    """Presidio goes on after a pattern's time-out, with a warning: here it is an error. Its other messages may quote the text: dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], TimeoutError):
            raise SearchTimeout("a pattern timed out on this text")


@dataclass(frozen=True)
class Finding:
    """A stretch of a text, in characters. It never holds the text itself."""

    start: int
    end: int
    entity: str
    recognizer: str
    score: float


@dataclass(frozen=True)
class Analyzer:
    """Presidio's engine, and the screen of each recognizer."""

    engine: Any  # Presidio's AnalyzerEngine
    finders: tuple["Finder", ...]
    entities: frozenset[str]  # searched for
    names: frozenset[str]  # those of them that need the language model
    nothing: Any  # what Presidio is given instead of tokens: our patterns read none


@lru_cache(maxsize=4)
def analyzer(params: ScrubParams) -> Analyzer:
    """The analyzer for these params: once a process, at the first text. Raises ParamsError if the NER model cannot be loaded."""
    if params.ner is not None:
        import spacy  # noqa: F401  # before Presidio, so that it sees torch: a transformer pipeline needs it
    from curate.pii import ner, patterns, secrets
    from curate.pii.context import NearbyWords
    from curate.pii.presidio import AnalyzerEngine, RecognizerRegistry, predefined_recognizers

    presidio = logging.getLogger("presidio-analyzer")
    presidio.handlers, presidio.propagate = [_Strict()], False
    asked = wanted(params)
    pipeline = ner.pipeline(params.ner)
    every = (*patterns.finders(params.phone_regions, params.keep_private_ips), *secrets.finders())
    finders = tuple(each for each in every if each.recognizer.supported_entities[0] in asked)
    names = frozenset(ner.found_by(pipeline)) & asked
    registry = RecognizerRegistry(recognizers=[each.recognizer for each in finders])
    if names:
        registry.add_recognizer(predefined_recognizers.SpacyRecognizer(supported_entities=sorted(names)))
    engine = AnalyzerEngine(
        registry, ner.LoadedSpacy(pipeline), default_score_threshold=params.min_score, context_aware_enhancer=NearbyWords()
    )
    entities = frozenset(each.recognizer.supported_entities[0] for each in finders) | names
    return Analyzer(engine, finders, entities, names, ner.no_tokens())


def find(text: str, params: ScrubParams) -> tuple[Finding, ...]:
    """What is to be replaced in `text`: in order, without overlaps, without what `scrub.allow` lists.

    Raises whatever a recognizer raises: a text that could not be searched must not count as clean.
    """
    made = analyzer(params)
    folded = text.casefold()
    entities = {each.recognizer.supported_entities[0] for each in made.finders if each.screen(text, folded)} | made.names
    if not entities or not text:
        return ()
    tokens = made.engine.nlp_engine.process_text(text, "en") if made.names else made.nothing
    results = made.engine.analyze(text, "en", entities=sorted(entities), nlp_artifacts=tokens)
    found = [
        Finding(each.start, each.end, each.entity_type, each.recognition_metadata["recognizer_name"], round(each.score, 2))
        for each in results
    ]
    return resolve(each for each in found if not _allowed(text[each.start : each.end], each.entity, params))


def _allowed(value: str, entity: str, params: ScrubParams) -> bool:
    if not params.allow:
        return False
    folded, same = value.strip().casefold(), identity(entity, value, params.phone_regions)
    return any(folded == each.strip().casefold() or same == identity(entity, each, params.phone_regions) for each in params.allow)


def resolve(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings without overlaps. Those that overlap become one over all their characters, so that none of them is left standing.

    It takes the entity of the longest, then of the highest score, then of the first in `ENTITIES`.

    >>> a, b = Finding(0, 8, "URL", "x", 0.9), Finding(5, 12, "EMAIL_ADDRESS", "y", 1.0)
    >>> [(each.start, each.end, each.entity) for each in resolve([a, b])]
    [(0, 12, 'URL')]
    """
    merged: list[list[Finding]] = []
    reach = -1
    for each in sorted(findings, key=lambda finding: (finding.start, finding.end, finding.entity, finding.recognizer)):
        if each.start < reach:
            merged[-1].append(each)
        else:
            merged.append([each])
        reach = max(reach, each.end)
    return tuple(_one(group) for group in merged)


def _one(group: list[Finding]) -> Finding:
    best = min(group, key=lambda each: (each.start - each.end, -each.score, ENTITIES.index(each.entity), each.recognizer))
    return Finding(min(each.start for each in group), max(each.end for each in group), best.entity, best.recognizer, best.score)


def carried(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]]) -> list[tuple[Finding, ...]]:
    """`findings` of the texts of one conversation, with every other place in them where a found value stands (whole words, any case).

    A bank number is recognised beside `account number:`; three turns later it stands alone.
    """
    values: dict[str, Finding] = {}
    for text, found in zip(texts, findings, strict=True):
        for each in found:
            if each.end - each.start >= CARRIED:
                values.setdefault(text[each.start : each.end].casefold(), each)
    if not values:
        return list(findings)
    choices = "|".join(regex.escape(value) for value in sorted(values, key=lambda value: (-len(value), value)))
    anywhere = regex.compile(rf"(?<!\w)(?:{choices})(?!\w)", regex.IGNORECASE)
    more = []
    for text, found in zip(texts, findings, strict=True):
        places = [match.span() for match in anywhere.finditer(text)]
        again = [
            Finding(start, end, values[text[start:end].casefold()].entity, CARRY, values[text[start:end].casefold()].score)
            for start, end in places
            if text[start:end].casefold() in values and not any(each.start <= start and end <= each.end for each in found)
        ]
        more.append(resolve([*found, *again]) if again else found)
    return more


def replaced(texts: Sequence[str], findings: Sequence[tuple[Finding, ...]], params: ScrubParams) -> list[str]:
    """The texts of one conversation with their findings replaced; the same value gets the same replacement in all of them."""
    replacer = Replacer(params, texts)
    return [replace_in(text, found, replacer) for text, found in zip(texts, findings, strict=True)]


def replace_in(text: str, found: tuple[Finding, ...], replacer: Replacer) -> str:
    """`text` with each finding replaced."""
    pieces, at = [], 0
    for each in found:
        pieces += [text[at : each.start], replacer(each.entity, text[each.start : each.end])]
        at = each.end
    return "".join([*pieces, text[at:]])


def scrubbed(texts: Sequence[str], params: ScrubParams) -> list[str]:
    """`texts` (each a conversation of its own) as scrub would leave them, whether or not the stage is switched on."""
    return [replaced([text], carried([text], [find(text, params)]), params)[0] for text in texts]
