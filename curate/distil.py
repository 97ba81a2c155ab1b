"""A static model: one vector for each token, made once by a sentence model; a text is the weighted mean of its tokens' vectors.

Some hundred times faster than the model it comes from, and blind to word order. The recipe is model2vec's (MinishLab, MIT licence):
each token of the vocabulary goes through the model alone, PCA cuts the vectors to `DIMENSIONS`, and common tokens weigh less (smooth
inverse frequency, Arora et al. 2017, with frequencies by Zipf's law, since vocabularies are sorted by frequency). Written out here: its
library's distillation needs six more packages for these lines.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from curate.record import InputError
from curate.store import write_whole

DIMENSIONS = 256  # as in model2vec: further ones hold little of the variance of single tokens
SIF = 1e-4  # as in model2vec
RECIPE = "1"  # of this module; part of the name in the cache, so that a change here makes new tables
TEXTS = 1024  # tokenized at once
TOKENS = 1 << 16  # vectors gathered at once


@dataclass(frozen=True)
class Static:
    """A static model. `table` is (tokens, dimensions) f32, weights applied; `tokenizer` adds no special tokens and cuts nothing off."""

    table: np.ndarray
    tokenizer: Tokenizer


def cache_folder() -> Path:
    """Where tables are kept: `$FINERY_CACHE`, else `finery` in `$XDG_CACHE_HOME` or `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("FINERY_CACHE") or Path(home) / "finery")


def cached(digest: str, make: Callable[[], tuple[np.ndarray, str]]) -> Static:
    """The static model of the sentence model with that digest, from the cache; where it is not there yet, from `make()` and stored.

    `make` gives the vectors of all tokens by id, and the tokenizer as JSON. The table is memory-mapped: worker processes share it.
    Raises InputError for files in the cache that are no static model.
    """
    folder = cache_folder() / f"static-{RECIPE}-{digest[:32]}"
    table, tokenizer = folder / "table.npy", folder / "tokenizer.json"
    if not (table.is_file() and tokenizer.is_file()):
        vectors, text = make()
        content = BytesIO()
        np.save(content, distilled(vectors))
        write_whole(table, content.getvalue())
        write_whole(tokenizer, text.encode())
    try:
        loaded = Static(np.load(table, mmap_mode="r"), _whole_texts(Tokenizer.from_file(str(tokenizer))))
    except Exception as error:  # tokenizers raises plain Exception
        raise InputError(f"{folder}: not a readable static model ({error}). Remove this folder; the next run makes it again.") from error
    if loaded.table.ndim != 2 or len(loaded.table) < loaded.tokenizer.get_vocab_size():
        raise InputError(
            f"{folder}: table {loaded.table.shape} does not fit a vocabulary of {loaded.tokenizer.get_vocab_size():,} tokens. "
            "Remove this folder; the next run makes it again."
        )
    return loaded


def _whole_texts(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def distilled(vectors: np.ndarray) -> np.ndarray:
    """(tokens, at most DIMENSIONS) f32 from (tokens, d): centred, cut to the leading principal components, weighted.

    >>> distilled(np.eye(3)).shape
    (3, 3)
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)
    inverse_rank = 1 / np.arange(2, len(vectors) + 2)
    weights = SIF / (SIF + inverse_rank / inverse_rank.sum())
    table: np.ndarray = (centred @ directions[:, ::-1][:, :DIMENSIONS] * weights[:, None]).astype(np.float32)
    return table


def encode(model: Static, texts: Sequence[str]) -> np.ndarray:
    """(n, dimensions) f64 of length 1; zeros for a text without a token. A text's vector depends on the text alone."""
    out = np.zeros((len(texts), model.table.shape[1]))
    for start in range(0, len(texts), TEXTS):
        encoded = model.tokenizer.encode_batch_fast(list(texts[start : start + TEXTS]), add_special_tokens=False)
        ids = [np.array(each.ids, dtype=np.int64) for each in encoded]
        at = 0
        while at < len(ids):
            stop, tokens = at + 1, len(ids[at])
            while stop < len(ids) and tokens + len(ids[stop]) <= TOKENS:
                tokens, stop = tokens + len(ids[stop]), stop + 1
            filled = [place for place in range(at, stop) if len(ids[place])]
            if filled:
                starts = np.cumsum([0, *(len(ids[place]) for place in filled[:-1])])
                gathered = model.table[np.concatenate([ids[place] for place in filled])]
                out[np.array(filled) + start] = np.add.reduceat(gathered, starts, axis=0, dtype=np.float64)
            at = stop
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    return out
