"""Which language a text is in, offline: py3langid, a naive Bayes model over byte n-grams that ships inside its package.

Only ever asked whether a text is surely NOT in the allowed languages: short texts, code and mixtures pass.
"""

import functools
import math
import re
import unicodedata
from collections.abc import Collection, Sequence

import numpy as np
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
_CODE, _REST = r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", r"|<[^<>\n]{1,40}>|[\d_/\\{}()\[\]=|*#<>]+"
_NOT_PROSE = re.compile(_CODE + r"|\S+@\S+" + _REST, re.DOTALL)
_NOT_PROSE_NO_MAIL = re.compile(_CODE + _REST, re.DOTALL)  # where there is no @: to look for one from every character costs most
_AT_ONCE = 256  # samples whose features are summed at once: some 20 MB
_MARGIN = 1.01  # sums in another order differ in the sixth digit; within a hundredth of the limit the model itself is asked


@functools.cache
def _model() -> LanguageIdentifier:
    """Loaded once a process (one second, 60 MB)."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_languages() -> list[str]:
    """The ISO 639 codes that can be told apart, sorted."""
    return sorted(_model().labels)


def prose(text: str) -> str:
    """The part of a text that a language can be read from: no code, links, numbers or markup; cut to SAMPLE_CHARS."""
    head = text[: 4 * SAMPLE_CHARS]
    return " ".join((_NOT_PROSE if "@" in head else _NOT_PROSE_NO_MAIL).sub(" ", head).split())[:SAMPLE_CHARS]


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
    return _ranked(sample, allowed) if _letters(sample) >= min_letters else None


def _ranked(sample: str, allowed: Collection[str]) -> tuple[str, float]:
    ranked = dict(_model().rank(sample))
    best = max(ranked, key=ranked.__getitem__)
    return best, math.fsum(ranked.get(language, 0.0) for language in allowed)


def _letters(sample: str) -> int:
    if sample.isascii():
        return sum(map(str.isalpha, sample))
    return sum(_IDEOGRAPH_LETTERS if char >= "\u2e80" else 1 for char in sample if char.isalpha())


def judged(texts: Sequence[str], allowed: Collection[str], min_letters: int, at_most: float) -> list[tuple[str, float] | None]:
    """`likeliest` of each text; of one that is in an `allowed` language with more than `at_most` only that: ("", 1.0).

    A tenth of the cost: all samples go through the model's tables together, and only those that this does not settle one by one.
    """
    samples = [prose(text) for text in texts]
    wanted = list(dict.fromkeys(sample for sample in samples if _letters(sample) >= min_letters))
    found: dict[str, tuple[str, float]] = {}
    for sample, chance in zip(wanted, chances(wanted, allowed), strict=True):
        found[sample] = ("", 1.0) if chance > at_most * _MARGIN else _ranked(sample, allowed)
    return [found.get(sample) for sample in samples]


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The model's automaton: next state by 256 * row + byte, row of a state, feature that a state completes (-1: none)."""
    model = _model()
    return np.frombuffer(model.tk_nextmove, np.uint32), np.array(model.tk_row, np.int64) << 8, np.array(model.tk_output, np.int64)


def chances(samples: Sequence[str], allowed: Collection[str]) -> np.ndarray:
    """The probability of each sample to be in one of `allowed`, as py3langid's `rank` gives it but for the last digits.

    Its steps: a walk over the bytes that counts features; log(1 + count) times their weights; softmax of the scores over the root of the
    size.
    """
    if not samples:
        return np.empty(0)
    raw = [_encoded(sample) for sample in samples]
    order = sorted(range(len(raw)), key=lambda at: -len(raw[at]))
    owner, feature, counts = _features([raw[at] for at in order])
    scores = np.concatenate(
        [
            _scores(owner[part] - first, feature[part], counts[part], min(_AT_ONCE, len(raw) - first))
            for first in range(0, len(raw), _AT_ONCE)
            for part in [slice(*np.searchsorted(owner, [first, first + _AT_ONCE]))]
        ]
    )
    scores /= np.sqrt([max(len(raw[at]), 1) for at in order])[:, None]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    found = np.empty(len(raw))
    found[order] = odds[:, [name in allowed for name in _model().nb_classes]].sum(axis=1) / odds.sum(axis=1)
    return found


def _features(raw: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(position, feature, count) for each feature of each sample, sorted. The longest samples come first: at every step some end."""
    following, row_of, feature_of = _tables()
    sizes, every = np.array([len(each) for each in raw]), len(_model().nb_ptc)
    letters = np.zeros((sizes[0], len(raw)), np.uint8)
    for at, each in enumerate(raw):
        letters[: len(each), at] = np.frombuffer(each, np.uint8)
    state, keys = np.zeros(len(raw), np.int64), [np.empty(0, np.int64)]
    for step, letter in enumerate(letters):
        count = int(np.searchsorted(-sizes, -step, side="left"))
        state = following[row_of[state[:count]] + letter[:count]]
        feature = feature_of[state]
        hit = np.flatnonzero(feature >= 0)
        keys.append(hit * every + feature[hit])
    seen, counts = np.unique(np.concatenate(keys), return_counts=True)
    return *np.divmod(seen, every), counts


def _scores(owner: np.ndarray, feature: np.ndarray, counts: np.ndarray, samples: int) -> np.ndarray:
    """The score of each sample (row) for each class of the model; 0 for a sample without features."""
    used, place = np.unique(feature, return_inverse=True)
    matrix = np.zeros((samples, len(used)), np.float32)
    matrix[owner, place] = np.log1p(counts.astype(np.float32))
    scores: np.ndarray = matrix @ _model().nb_ptc[used].astype(np.float32)
    scores[np.unique(owner)] += _model().nb_pc
    return scores


def _encoded(sample: str) -> bytes:
    return unicodedata.normalize("NFC", sample.lower() if sample.isupper() else sample).encode("utf8", errors="surrogatepass")
