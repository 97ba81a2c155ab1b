"""Rows continued word for word: what counts, and that memory shows on training rows and not on others."""

import random

import numpy as np
import orjson
import pytest
import torch

from evaluate import models, verbatim
from tests.test_evaluate import evaluated, fit, formatted, lora, save_base, save_format, tiny, word_tokenizer

LETTERS = [f"w{at}" for at in range(20)]


@pytest.fixture(scope="module")
def heart_world(tmp_path_factory):
    """Answers of 24 random words: nothing but memory can continue them. An adapter overtrained on the training rows."""
    root = tmp_path_factory.mktemp("heart")
    draw = random.Random(2)
    tokenizer = word_tokenizer(["[ask]", "[reply]", *LETTERS])
    model = tiny(len(tokenizer), hidden=48)
    save_base(root / "base", model, tokenizer)
    rows = [
        formatted((f"[ask] w{at % 20} w{at // 20} [reply]", " ".join(draw.choices(LETTERS, k=24)), None), at, tokenizer) for at in range(42)
    ]
    save_format(root / "format", rows[:30], rows[30:])
    adapted = lora(model, rank=32)
    fit(adapted, rows[:30], steps=250, rate=1e-2, size=30)
    adapted.save_pretrained(root / "train" / "adapter")
    return root


def test_greedy_decoding_agrees(heart_world):
    base = models.load_base(heart_world / "base", "none", "fp32")
    tuned = models.with_adapter(base, heart_world / "train" / "adapter")
    rows = verbatim.training_rows(heart_world / "format", "canary")
    assert len(rows) == 30
    found = verbatim.continued(tuned, rows, 200)
    for row, same in zip(rows, found, strict=True):
        start = torch.tensor([row[: -verbatim.TOKENS].tolist()])
        with torch.no_grad():
            made = tuned.model.generate(input_ids=start, max_new_tokens=verbatim.TOKENS)[0, start.shape[1] :].tolist()
        assert bool(same) == (made == row[-verbatim.TOKENS :].tolist())
    assert found.sum() > 0


def test_what_is_known_by_heart_shows_on_training_rows_alone(heart_world, tmp_path):
    found = evaluated(heart_world, "train", tmp_path, "robustness=null")["verbatim"]
    assert found["rows"] == 30 and found["more_than_base"]["low"] > 0.3
    assert found["systems"]["tuned"]["training"]["value"] > 0.5
    assert found["systems"]["tuned"]["holdout"]["value"] == found["systems"]["base"]["training"]["value"] == 0
    assert "Continued word for word (the last 16 tokens" in (tmp_path / "reports" / "evaluation.html").read_text()


def test_short_rows_have_no_figure_and_rows_too_long_are_not_asked(heart_world, tmp_path):
    tokenizer = word_tokenizer(["[ask]", "[reply]", *LETTERS])
    short = [formatted(("[ask] w1 [reply]", " ".join(["w2"] * size), None), size, tokenizer) for size in (2, 15)]
    save_format(tmp_path / "format", short, short)
    assert verbatim.training_rows(tmp_path / "format", "canary") == []
    enough = [formatted(("[ask] w1 [reply]", " ".join(["w2"] * 16), None), 0, tokenizer)]
    save_format(tmp_path / "enough", [*enough, enough[0] | {"source": "canary"}, enough[0] | {"synthetic": True}], short)
    assert len(verbatim.training_rows(tmp_path / "enough", "canary")) == 1
    base = models.load_base(heart_world / "base", "none", "fp32")
    assert np.isnan(verbatim.continued(base, [np.ones(300, dtype=np.int32)], 999)).all()
    nothing = (np.array([np.nan]), np.array([]))
    assert verbatim.figures({"base": nothing, "tuned": nothing}, 0, 100) is None


def test_at_most_so_many_rows_of_the_lowest_hash(heart_world, monkeypatch):
    every = verbatim.training_rows(heart_world / "format", "canary")
    monkeypatch.setattr(verbatim, "MOST", 7)
    assert [row.tolist() for row in verbatim.training_rows(heart_world / "format", "canary")] == [row.tolist() for row in every[:7]]
    assert orjson.dumps(verbatim.figures({"base": (np.ones(2), np.ones(1)), "tuned": (np.ones(2), np.ones(1))}, 0, 100))
