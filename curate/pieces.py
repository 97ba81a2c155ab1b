"""Token ids of many texts, each distinct piece of them tokenised once. Helper of `format`.

Words come again: in 20 000 prompts of t0 one piece in fifty is new. A text is cut where every tokenizer of the families named here cuts it
as well, so the ids of the pieces, joined, are those of the whole text; other tokenizers get whole texts.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

# A piece ends after a letter and begins with a single space and a letter, all ASCII. Why that border is one of these expressions' own:
# none of them takes a space after a letter, or looks behind; a look ahead stands only after white space. So the match before the border
# ends there whatever follows, and the next one starts there. GPT-2's stands in the tokenizer as `ByteLevel`; o200k's parts are Tekken's.
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CL100K = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
EXPRESSIONS = frozenset(
    {
        _CL100K % "{1,3}",  # cl100k, Llama 3, Phi 4
        _CL100K % "",  # Qwen 2 and 3
        (_CL100K % "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),  # Qwen 3.5
        _O200K % (_CONTRACTION + "?", _CONTRACTION + "?", "{1,3}"),  # o200k, gpt-oss
        _O200K % ("", "", ""),  # Tekken: Mistral Nemo, Small
    }
)
LETTER = np.zeros(256, np.bool_)
LETTER[[*b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"]] = True
SPACE = 0x20
KNOWN = 1 << 17  # pieces held for later batches, of at most LONG characters each: some 30 MB
LONG = 32


def divisible(backend: Any) -> bool:
    """Whether this `tokenizers.Tokenizer` gives for pieces, joined, what it gives for the whole text."""
    made = orjson.loads(backend.to_str())
    steps = list(_flat(made["pre_tokenizer"], "pretokenizers"))
    return (
        made["normalizer"] in (None, {"type": "NFC"})  # a space and an ASCII letter join nothing before them
        and all(step["type"] == "Digits" or _local(step) for step in steps)
        and any(_cuts(step) for step in steps)
        and not made["model"].get("dropout")
        and not any(map(_spans, made["added_tokens"]))
    )


def _spans(token: dict[str, Any]) -> bool:
    """Whether this added token, which is found before all else, could reach over a border or be another one beside it."""
    content = token["content"]
    reaches = re.search("[A-Za-z] ", content) or (token["rstrip"] and re.search("[A-Za-z]$", content))
    return bool(reaches) or (token["single_word"] and content.startswith(" "))


def _flat(step: dict[str, Any] | None, key: str) -> Iterable[dict[str, Any]]:
    if step and step["type"] == "Sequence":
        return chain.from_iterable(_flat(each, key) for each in step[key])
    return [step] if step else []


def _local(step: dict[str, Any]) -> bool:
    return (step["type"] == "ByteLevel" and not step["add_prefix_space"]) or _cuts(step)


def _cuts(step: dict[str, Any]) -> bool:
    if step["type"] == "Split":  # Removed and inverted: what matches is what stays
        stays = (step["behavior"], step["invert"]) in (("Isolated", False), ("Removed", True))
        return stays and step["pattern"].get("Regex") in EXPRESSIONS
    return step["type"] == "ByteLevel" and step["use_regex"] and not step["add_prefix_space"]


def encode(texts: Sequence[str], backend: Any, known: dict[str, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray]:
    """(ids of all texts (i32), where each begins and the last ends): those of text i are `ids[at[i]:at[i + 1]]`, no special token added.

    `known` takes ids of short pieces for the next call; None if the tokenizer is not `divisible`.
    """
    if known is None or not texts:
        ids = [_array(each.ids) for each in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        return np.concatenate([_array([]), *ids]), _sums([len(each) for each in ids])
    codes, distinct, first = _pieces(texts)
    new = [each for each in distinct if each not in known]
    fresh = dict(zip(new, (_array(each.ids) for each in backend.encode_batch_fast(new, add_special_tokens=False)), strict=True))
    ids = [fresh[each] if each in fresh else known[each] for each in distinct]
    if len(known) < KNOWN:  # nothing is ever taken out: other threads look things up
        known.update((piece, found) for piece, found in fresh.items() if len(piece) <= LONG)
    sizes = np.array([len(each) for each in ids], np.int64)
    ends = _sums(sizes[codes])
    shift = _sums(sizes)[codes] - ends[:-1]
    return np.concatenate([_array([]), *ids])[np.repeat(shift, sizes[codes]) + np.arange(ends[-1])], ends[first]


def _pieces(texts: Sequence[str]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The pieces of all texts as numbers into a list of the distinct ones, and which piece each text begins with (and the last ends)."""
    encoded = [text.encode() for text in texts]
    data = b"".join(encoded)
    bounds, raw = _sums([len(each) for each in encoded]), np.frombuffer(data, np.uint8)
    letter, border = LETTER[raw], np.zeros(len(raw) + 1, np.bool_)
    border[1:-2] = letter[:-2] & (raw[1:-1] == SPACE) & letter[2:]
    border[bounds[1:-1] - 1] = False  # its letter would be the next text's
    border[bounds] = True
    starts = np.flatnonzero(border)
    pieces = pa.LargeStringArray.from_buffers(len(starts) - 1, pa.py_buffer(starts), pa.py_buffer(data)).dictionary_encode()
    return pl.Series(pieces.indices).to_numpy(), pieces.dictionary.to_pylist(), np.searchsorted(starts, bounds)


def _array(ids: Sequence[int]) -> np.ndarray:
    return np.array(ids, np.int32)


def _sums(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """0 and the running sums."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
