"""What one answer is worth: every metric as a function of an answer and its reference. All are offline.

| metric | of one answer | reference | range |
|---|---|---|---|
| exact_match | equal but for case and white space | the answer | 0, 1 |
| label_accuracy | the same, only where the answer is the row's label | the label | 0, 1 |
| token_f1 | overlap as bags of words and marks | the answer | 0 to 1 |
| number_match | the last number of both is the same (GSM8K) | a text that ends with a number | 0, 1 |
| regex | matches it whole | a regular expression | 0, 1 |
| json_valid | is JSON | – | 0, 1 |
| json_schema | is JSON that fits | a JSON schema | 0, 1 |
| bleu, chrf | sacrebleu's sentence scores, as shares (the report gives the corpus score too) | the answer | 0 to 1 |
| rouge_1, rouge_2, rouge_l | F of rouge-score, with its stemmer | the answer | 0 to 1 |
| refusal | a boilerplate refusal (curate/refusals.py) | – | 0, 1 |
| repetition | share of its word 4-grams that stood before | – | 0 to 1 |
| words | length in words | – | 0 up |

A score is None where the metric does not apply: a reference without a number, an invalid pattern or schema.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import orjson
import polars as pl

from curate import answers, record, refusals

REFUSAL_WORDS = 120  # as clean.refusal_max_words: a longer answer that begins like a refusal goes on to help
NGRAM = 4
WORDY = 3  # references of more words than this on the average are prose: chrf then says more than exact match


@dataclass(frozen=True)
class Measure:
    """A metric: its name, its title, whether an item's value is 0 or 1, and which way is better (None: neither, it is only shown)."""

    name: str
    title: str
    binary: bool
    better: Literal["higher", "lower"] | None


MEASURES = (
    Measure("exact_match", "Exact match", True, "higher"),
    Measure("label_accuracy", "Label accuracy", True, "higher"),
    Measure("token_f1", "Token F1", False, "higher"),
    Measure("number_match", "Number match", True, "higher"),
    Measure("regex", "Matches the pattern", True, "higher"),
    Measure("json_valid", "Valid JSON", True, "higher"),
    Measure("json_schema", "Fits the JSON schema", True, "higher"),
    Measure("bleu", "BLEU, mean of answers", False, "higher"),
    Measure("chrf", "chrF, mean of answers", False, "higher"),
    Measure("rouge_1", "ROUGE-1", False, "higher"),
    Measure("rouge_2", "ROUGE-2", False, "higher"),
    Measure("rouge_l", "ROUGE-L", False, "higher"),
    Measure("refusal", "Refusals", True, "lower"),
    Measure("repetition", "Repeated 4-grams", False, "lower"),
    Measure("words", "Words of an answer", False, None),
)
NAMES = tuple(each.name for each in MEASURES)
BY_NAME = {each.name: each for each in MEASURES}


def folded(texts: Sequence[str]) -> list[str]:
    """Texts as compared: record.fold.

    >>> folded(["  Card\\nLOST "])
    ['card lost']
    """
    return pl.DataFrame({"text": list(texts)}, schema={"text": pl.String}).select(record.fold(pl.col("text")))["text"].to_list()


def token_f1(output: str, answer: str) -> float:
    """Overlap of two folded texts as bags of words and punctuation marks: the harmonic mean of precision and recall, 0 to 1.

    Source: as in SQuAD (P. Rajpurkar et al., EMNLP 2016, section 6.1), but articles and punctuation count.

    >>> token_f1("the red hub", "the hub")
    0.8
    """
    ours, theirs = (re.findall(r"\w+|[^\w\s]", text) for text in (output, answer))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def repetition(text: str) -> float:
    """Share of the word 4-grams that stood in the text before.

    >>> repetition("we call you we call you we call you")
    0.5
    """
    words = text.split()
    grams = [tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def by_task(references: Sequence[str], labels: Sequence[str | None]) -> tuple[str, ...]:
    """The metrics that suit the references: of labels, of numbers, of JSON, of prose; what tells of broken answers always."""
    found = ["exact_match", "token_f1"]
    said = folded(references)
    if any(label is not None and label == text for label, text in zip(folded([each or "" for each in labels]), said, strict=True) if label):
        found.append("label_accuracy")
    if references and all("####" in text or answers.NUMBER.fullmatch(text.strip()) for text in references):
        found.append("number_match")
    if references and all(text.strip()[:1] in ("{", "[") and answers.is_json(text) for text in references):
        found.append("json_valid")
    if references and sum(len(text.split()) for text in references) > WORDY * len(references):
        found.append("chrf")
    return tuple(each for each in NAMES if each in {*found, "refusal", "repetition", "words"})


def scores(name: str, outputs: Sequence[str], references: Sequence[str], labels: Sequence[str | None]) -> list[float | None]:
    """A value for each answer by the metric `name`, None where it does not apply."""
    if name in ("exact_match", "label_accuracy", "token_f1"):
        ours, theirs, named = folded(outputs), folded(references), folded([each or "" for each in labels])
        if name == "token_f1":
            return [token_f1(a, b) for a, b in zip(ours, theirs, strict=True)]
        counts = [name == "exact_match" or (label is not None and of == b) for label, of, b in zip(labels, named, theirs, strict=True)]
        return [float(a == b) if count else None for a, b, count in zip(ours, theirs, counts, strict=True)]
    one = _of_one(name)
    return [one(a, b) for a, b in zip(outputs, references, strict=True)]


def _of_one(name: str) -> Callable[[str, str], float | None]:  # noqa: PLR0911 (a line a metric)
    match name:
        case "number_match":
            return lambda a, b: None if answers.number(b) is None else float(answers.is_right("number", a, b))
        case "regex":
            return _pattern
        case "json_valid":
            return lambda a, _: float(answers.is_json(a))
        case "json_schema":
            return _schema
        case "bleu" | "chrf":
            return lambda a, b: float(sacre(name).sentence_score(a, [b]).score) / 100
        case "rouge_1" | "rouge_2" | "rouge_l":
            return lambda a, b: float(_rouge().score(b, a)[name.replace("_l", "L").replace("_", "")].fmeasure)
        case "refusal":
            return lambda a, _: float(refusals.refusal(a, REFUSAL_WORDS) is not None)
        case "repetition":
            return lambda a, _: repetition(a)
        case _:
            return lambda a, _: float(len(a.split()))


def _pattern(answer: str, reference: str) -> float | None:
    import regex

    try:
        regex.compile(reference)
    except regex.error:
        return None
    return float(answers.is_right("regex", answer, reference))


def _schema(answer: str, reference: str) -> float | None:
    import jsonschema

    try:
        schema = orjson.loads(reference)
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except (orjson.JSONDecodeError, jsonschema.SchemaError):
        return None
    return float(answers.is_right("json_schema", answer, reference))


@cache
def sacre(name: str) -> Any:
    """sacrebleu's metric of that name, with its defaults; BLEU with effective order, so that one short sentence is not 0."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU(effective_order=True) if name == "bleu" else CHRF()


@cache
def _rouge() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def corpus(name: str, outputs: Sequence[str], references: Sequence[str]) -> float:
    """sacrebleu's corpus BLEU or chrF, 0 to 100: not the mean of its sentence scores."""
    from sacrebleu.metrics.bleu import BLEU

    return float((BLEU() if name == "bleu" else sacre(name)).corpus_score(list(outputs), [list(references)]).score)


def macro_f1(outputs: Sequence[str], labels: Sequence[str]) -> float:
    """Mean F1 over the labels (as scikit-learn's with the labels that occur in `labels`); any other answer is wrong for its label.

    >>> round(macro_f1(["a", "b", "?"], ["a", "b", "b"]), 4)
    0.8333
    """
    right = Counter(a for a, b in zip(outputs, labels, strict=True) if a == b)
    said, true = Counter(outputs), Counter(labels)
    return sum(2 * right[label] / (said[label] + true[label]) for label in true) / len(true) if true else 0.0


def confusions(outputs: Sequence[str], labels: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The commonest wrong answers as {label, said, count}; an answer that is no label at all counts as `(no label)`."""
    known = set(labels)
    pairs = Counter((b, a if a in known else "(no label)") for a, b in zip(outputs, labels, strict=True) if a != b)
    return [{"label": b, "said": a, "count": count} for (b, a), count in sorted(pairs.items(), key=lambda each: (-each[1], each[0]))[:most]]


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Chance that at least one of `k` answers drawn from `samples` is right, without bias.

    Source: M. Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374, section 2.1.

    >>> round(pass_at_k(10, 3, 5), 6)
    0.916667
    """
    wrong, missed = samples - right, 1.0
    for at in range(k):
        missed *= max(wrong - at, 0) / (samples - at)
    return 1 - missed
