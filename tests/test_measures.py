"""Metric values against the reference implementations, on one fixture of answers."""

import math

import numpy as np
import pytest
from rouge_score import rouge_scorer
from sacrebleu import corpus_bleu, corpus_chrf, sentence_bleu, sentence_chrf
from sklearn import metrics as sklearn_metrics

from evaluate import measures

REFERENCES = ["The cat sat on the mat.", "Restart the hub, then wait five minutes.", "card_lost", "so 3 + 4 = 7 #### 7"]
OUTPUTS = ["The cat is on the mat!", "Wait five minutes and restart your hub.", " Card_Lost ", "7 pods cost 1,250"]
LABELS = [None, "hub", "card_lost", None]


def of(name: str, outputs: list[str] = OUTPUTS, references: list[str] = REFERENCES) -> list[float | None]:
    return measures.scores(name, outputs, references, LABELS[: len(outputs)])


def test_bleu_and_chrf_are_those_of_sacrebleu():
    assert measures.corpus("bleu", OUTPUTS, REFERENCES) == pytest.approx(corpus_bleu(OUTPUTS, [REFERENCES]).score)
    assert measures.corpus("chrf", OUTPUTS, REFERENCES) == pytest.approx(corpus_chrf(OUTPUTS, [REFERENCES]).score)
    assert of("bleu") == pytest.approx([sentence_bleu(a, [b]).score / 100 for a, b in zip(OUTPUTS, REFERENCES, strict=True)])
    assert of("chrf") == pytest.approx([sentence_chrf(a, [b]).score / 100 for a, b in zip(OUTPUTS, REFERENCES, strict=True)])


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_that_of_rouge_score(name):
    scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)
    wanted = [scorer.score(b, a)[name].fmeasure for a, b in zip(OUTPUTS, REFERENCES, strict=True)]
    assert of({"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}[name]) == pytest.approx(wanted)
    assert 0 < wanted[0] < 1
    stemmed = measures.scores("rouge_1", ["He waited for buses"], ["she waits for a bus"], [None])
    assert stemmed == pytest.approx(
        [rouge_scorer.RougeScorer(["rouge1"], use_stemmer=True).score("she waits for a bus", "He waited for buses")["rouge1"].fmeasure]
    )


def test_label_figures_are_those_of_scikit_learn():
    draw = np.random.default_rng(3)
    true = draw.choice(["a", "b", "c", "d"], 300).tolist()
    said = [
        label if keep else other
        for label, keep, other in zip(true, draw.random(300) < 0.6, draw.choice(["a", "b", "c", "x"], 300), strict=True)
    ]
    wanted = sklearn_metrics.f1_score(true, said, average="macro", labels=sorted(set(true)))
    assert measures.macro_f1(said, true) == pytest.approx(wanted)
    assert np.mean(measures.scores("label_accuracy", said, true, true)) == pytest.approx(sklearn_metrics.accuracy_score(true, said))
    table = sklearn_metrics.confusion_matrix(true, said, labels=["a", "b", "c", "d", "x"])
    counts = {(each["label"], each["said"]): each["count"] for each in measures.confusions(said, true, 99)}
    assert counts["b", "a"] == table[1][0] and counts["a", "(no label)"] == table[0][4]


def test_pass_at_k_is_the_formula_of_humaneval():
    for samples, right, k in [(10, 3, 1), (10, 3, 5), (20, 0, 5), (20, 20, 1), (5, 3, 4)]:
        wanted = 1 - math.comb(samples - right, k) / math.comb(samples, k)
        assert measures.pass_at_k(samples, right, k) == pytest.approx(wanted)


def test_what_applies_to_one_answer():
    assert of("exact_match") == [0.0, 0.0, 1.0, 0.0]
    assert of("label_accuracy") == [None, None, 1.0, None]
    assert of("number_match") == [None, None, None, 0.0]
    assert measures.scores("number_match", ["it is 1,250."], ["#### 1250"], [None]) == [1.0]
    assert measures.scores("json_valid", ['```json\n{"n": 3}\n```', "{n}"], ["", ""], [None] * 2) == [1.0, 0.0]
    schema = '{"type": "object", "required": ["n"]}'
    assert measures.scores("json_schema", ['{"n": 3}', '{"m": 3}', "{}"], [schema, schema, "no schema"], [None] * 3) == [1.0, 0.0, None]
    assert measures.scores("regex", ["AB-12", "x", "y"], [r"[A-Z]+-\d+", r"\d", "("], [None] * 3) == [1.0, 0.0, None]
    assert measures.scores("refusal", ["I'm sorry, but I cannot help with that.", "Sure: press it."], ["", ""], [None] * 2) == [1.0, 0.0]
    assert measures.repetition("a b c d") == 0.0 and measures.repetition("") == 0.0


def test_the_metrics_suit_the_task():
    assert "label_accuracy" in measures.by_task(["Card_lost", "x"], ["card_lost", "y"])
    assert "number_match" in measures.by_task(["so #### 7", "12"], [None, None])
    assert "json_valid" in measures.by_task(['{"a": 1}'], [None])
    assert "chrf" in measures.by_task(["A sentence of some words."], [None])
    assert measures.by_task([], []) == ("exact_match", "token_f1", "refusal", "repetition", "words")
