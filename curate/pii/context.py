"""Context words: a weak pattern (nine digits) counts only beside a word that says what it is ("passport").

Presidio's own enhancer compares lemmas, which a blank spaCy pipeline leaves empty, and finds `us` in `customer`. This one reads the
characters around a finding, so it needs no tokens, knows phrases, and costs the same in a long document as in a short one.
"""

import copy
import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import regex

from curate.pii.presidio import ContextAwareEnhancer, EntityRecognizer, RecognizerResult

BEFORE = 60  # characters before a finding in which its word may stand: about ten words
AFTER = 20  # and after it: "123-45-6789 (SSN)"
BOOST = 0.35  # Presidio's own figures
LEAST = 0.4
GAP = 3  # signs at most between the words of a phrase
_GAP = rf"[\s_\-]{{0,{GAP}}}"
WHOLE_WORD = 6  # letters: a shorter word must stand alone ("nino", not "domino"), a longer one may be part ("accounts")
# Common shapes that say nothing without their word, whatever their checksum (one ten-digit number in eleven is a valid NHS number).
NEEDED = frozenset(
    [
        "UK_NHS",
        "UK_PASSPORT",
        "UK_POSTCODE",
        "US_PASSPORT",
        "US_DRIVER_LICENSE",
        "US_BANK_NUMBER",
        "AU_TFN",
        "AU_ABN",
        "AU_MEDICARE",
        "CA_SIN",
        "DE_TAX_ID",
        "DE_SOCIAL_SECURITY",
        "ES_NIF",
        "ES_NIE",
        "FI_PERSONAL_IDENTITY_CODE",
        "IN_AADHAAR",
        "IN_PAN",
        "KR_RRN",
        "NG_NIN",
        "PL_PESEL",
        "SE_PERSONNUMMER",
        "SG_NRIC_FIN",
        "TH_TNIN",
        "TR_NATIONAL_ID",
        "US_MBI",
        "ZA_ID_NUMBER",
        "DATE_OF_BIRTH",
    ]
)


@lru_cache
def words(phrases: tuple[str, ...]) -> Any:
    """A pattern of context phrases; `account number` is also found as `account_number` and `account-number`."""
    choices = [spelt if len(phrase) >= WHOLE_WORD else rf"(?<![a-z]){spelt}(?![a-z])" for phrase, spelt in _spelt(phrases)]
    return regex.compile("|".join(choices), regex.IGNORECASE)


def _spelt(phrases: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(phrase, _GAP.join(regex.escape(word, special_only=True) for word in phrase.split())) for phrase in phrases]


@lru_cache
def _longest(phrases: tuple[str, ...]) -> int:
    """Characters of the longest match of `words`."""
    return max(sum(map(len, phrase.split())) + GAP * (len(phrase.split()) - 1) for phrase in phrases)


def context_screen(phrases: tuple[str, ...]) -> str:
    """A pattern for `screen.passing` that every text with one of the phrases holds."""
    free = r"(?:^|[^a-z])", r"(?:[^a-z]|$)"  # Rust's regex knows no lookaround
    choices = [spelt if len(phrase) >= WHOLE_WORD else spelt.join(free) for phrase, spelt in _spelt(phrases)]
    return f"(?i:{'|'.join(choices)})"


class NearbyWords(ContextAwareEnhancer):  # type: ignore[misc]
    """Raises the score of findings with a context word of their recognizer nearby; removes those of `NEEDED` that have none."""

    def __init__(self) -> None:
        super().__init__(BOOST, LEAST, context_prefix_count=0, context_suffix_count=0)

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: Any,
        recognizers: Sequence[EntityRecognizer],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        """The results with new scores; what has a score of 0 is removed by the analyzer."""
        by_id = {recognizer.id: recognizer for recognizer in recognizers}
        places: dict[str, list[tuple[int, int]]] = {}
        enhanced = []
        for raw in raw_results:
            result = copy.copy(raw)
            recognizer = by_id[_identifier(result)]
            if recognizer.context:
                if recognizer.id not in places:
                    own = [(each.start, each.end) for each in raw_results if _identifier(each) == recognizer.id]
                    places[recognizer.id] = spans_near(text, tuple(recognizer.context), own)
                if _near(places[recognizer.id], result.start, result.end):
                    result.score = min(1.0, max(result.score + BOOST, LEAST))
                elif result.entity_type in NEEDED:
                    continue
            enhanced.append(result)
        return enhanced


def _identifier(result: RecognizerResult) -> str:
    return str(result.recognition_metadata[RecognizerResult.RECOGNIZER_IDENTIFIER_KEY])


def spans_near(text: str, phrases: tuple[str, ...], findings: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where the phrases stand that are near one of the findings (and maybe others): as a reading of the whole text finds them.

    Only the text around the findings is read. Where phrases overlap there, it depends on the text before which of them counts: then all of
    it is read.
    """
    pattern, longest = words(phrases), _longest(phrases)
    stretches: list[list[int]] = []
    for start, end in sorted(findings):
        low, high = max(start - BEFORE - longest, 0), end + AFTER + longest + 1
        if stretches and low <= stretches[-1][1]:
            stretches[-1][1] = max(stretches[-1][1], high)
        else:
            stretches.append([low, high])
    if sum(high - low for low, high in stretches) < len(text):
        spans = [match.span() for low, high in stretches for match in pattern.finditer(text, low, high, overlapped=True)]
        if all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)):
            return spans
    return [match.span() for match in pattern.finditer(text)]


def _near(places: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(
        (start - BEFORE <= word_start and word_end <= start) or (end <= word_start and word_end <= end + AFTER)
        for word_start, word_end in places
    )
