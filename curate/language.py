"""Which language a text is in, offline: py3langid, a naive Bayes model over byte n-grams that ships inside its package.

Only ever asked whether a text is surely NOT in the allowed languages: short texts, code and mixtures pass.
"""

import functools
import math
import re
from collections.abc import Collection

import polars as pl
from py3langid.langid import MODEL_FILE, LanguageIdentifier

_IDEOGRAPH_LETTERS = 3  # a character of Chinese, Japanese or Korean says as much as three letters
SAMPLE_CHARS = 300  # enough: one sentence of foreign prose gives English less than 1e-6
# Words that English uses all the time and that are no common words of other languages. A text rich in them needs no model: that settles
# most English rows at a hundredth of the cost.
_ENGLISH = (
    r"(?i)\b(the|and|you|your|that|with|this|what|which|from|have|has|had|will|would|they|there|their|are|were|been|she|each|how|many|much"
    r"|because|when|where|who|it's|i'm|don't|can't)\b"
)
_ENGLISH_SHARE = 0.1  # of the words; English prose has 0.15 to 0.35, sentences of ten other languages at most 0.03
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\S+@\S+|<[^<>\n]{1,40}>|[\d_/\\{}()\[\]=|*#<>]+", re.DOTALL)


@functools.cache
def _model() -> LanguageIdentifier:
    """Loaded once a process (one second, 60 MB)."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_languages() -> list[str]:
    """The ISO 639 codes that can be told apart, sorted."""
    return sorted(_model().labels)


def prose(text: str) -> str:
    """The part of a text that a language can be read from: no code, links, numbers or markup; cut to SAMPLE_CHARS."""
    return " ".join(_NOT_PROSE.sub(" ", text[: 4 * SAMPLE_CHARS]).split())[:SAMPLE_CHARS]


def plainly_english(text: pl.Expr) -> pl.Expr:
    """Whether the first SAMPLE_CHARS of each text are rich in common English words."""
    head = text.str.head(SAMPLE_CHARS)
    common = head.str.count_matches(_ENGLISH)
    return (common >= 2) & (common >= _ENGLISH_SHARE * head.str.count_matches(r"\s+"))


def likeliest(text: str, allowed: Collection[str], min_letters: int) -> tuple[str, float] | None:
    """(most likely language, probability that it is one of `allowed`); None if the text is too short to say.

    >>> likeliest("Bitte starten Sie den Router neu und warten Sie zehn Minuten.", ["en"], 20)[0]
    'de'
    """
    sample = prose(text)
    if sum(_IDEOGRAPH_LETTERS if char >= "\u2e80" else 1 for char in sample if char.isalpha()) < min_letters:
        return None
    ranked = dict(_model().rank(sample))
    best = max(ranked, key=ranked.__getitem__)
    return best, math.fsum(ranked.get(language, 0.0) for language in allowed)
