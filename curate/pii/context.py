"""Context words: a weak pattern (nine digits) counts only beside a word that says what it is ("passport").

Presidio's own enhancer compares lemmas, which a blank spaCy pipeline leaves empty, and finds `us` in `customer`. This one reads the
characters around a finding, so it needs no tokens, knows phrases, and costs the same in a long document as in a short one.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import regex

from curate.pii.presidio import ContextAwareEnhancer, EntityRecognizer, RecognizerResult

BEFORE = 60  # characters before a finding in which its word may stand: about ten words
AFTER = 20  # and after it: "123-45-6789 (SSN)"
BOOST = 0.35  # Presidio's own figures
LEAST = 0.4
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
    choices = []
    for phrase in phrases:
        text = r"[\s_\-]{0,3}".join(regex.escape(word) for word in phrase.split())
        choices.append(text if len(phrase) >= WHOLE_WORD else rf"(?<![a-z]){text}(?![a-z])")
    return regex.compile("|".join(choices), regex.IGNORECASE)


def context_screen(phrases: tuple[str, ...]) -> str:
    """A pattern for `screen.passing` that every text with one of the phrases holds."""
    spelt = (r"[\s_\-]{0,3}".join(regex.escape(word, special_only=True) for word in phrase.split()) for phrase in phrases)
    return f"(?i:{'|'.join(spelt)})"


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
            recognizer = by_id[result.recognition_metadata[RecognizerResult.RECOGNIZER_IDENTIFIER_KEY]]
            if recognizer.context:
                if recognizer.id not in places:
                    places[recognizer.id] = [match.span() for match in words(tuple(recognizer.context)).finditer(text)]
                if _near(places[recognizer.id], result.start, result.end):
                    result.score = min(1.0, max(result.score + BOOST, LEAST))
                elif result.entity_type in NEEDED:
                    continue
            enhanced.append(result)
        return enhanced


def _near(places: list[tuple[int, int]], start: int, end: int) -> bool:
    return any(
        (start - BEFORE <= word_start and word_end <= start) or (end <= word_start and word_end <= end + AFTER)
        for word_start, word_end in places
    )
