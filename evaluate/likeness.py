"""How like a hold-out item is to what was trained on: the score without its neighbours says what training paid on new questions.

Leakage rows above the gate's limits never come this far; what is left are looser likenesses that a gate must let through.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import xxhash

from curate import store
from evaluate.holdout import Item

N = 5  # words of an n-gram: shorter ones are phrases that everybody uses
NEIGHBOUR = 0.5  # share of an item's n-grams in one training row that makes it a neighbour
SOME = 0.1  # share below which nothing much is shared
_WORD = re.compile(r"\w+")
_MARKUP = re.compile(r"<\|?[^<>]{0,40}\|?>")  # control tokens of templates, which all rows share


def of_items(folder: Path, items: Sequence[Item]) -> list[str]:
    """For each item: neighbour, some or none, by the training row (of format's folder) that shares most of its word n-grams.

    An item with fewer than `N` words is compared as a whole. Holds the hashes of the items' n-grams; training rows stream by.
    """
    holders: dict[int, list[int]] = {}
    sizes = []
    for at, item in enumerate(items):
        grams = _grams(f"{item.prompt} {item.answer}")
        sizes.append(len(grams))
        for gram in grams:
            holders.setdefault(gram, []).append(at)
    most = np.zeros(len(items))
    for batch in store.batches(folder / "kept" / "train", ["prompt", "answer"]):
        for prompt, answer in batch.select(pl.col("prompt").fill_null(""), pl.col("answer").fill_null("")).iter_rows():
            shared: dict[int, int] = {}
            for gram in _grams(f"{prompt} {answer}"):
                for at in holders.get(gram, ()):
                    shared[at] = shared.get(at, 0) + 1
            for at, count in shared.items():
                most[at] = max(most[at], count / sizes[at])
    return ["neighbour" if share >= NEIGHBOUR else "some" if share >= SOME else "none" for share in most]


def _grams(text: str) -> set[int]:
    words = _WORD.findall(_MARKUP.sub(" ", text).lower())
    if not words:
        return set()
    return {xxhash.xxh3_64_intdigest(" ".join(words[at : at + N]).encode()) for at in range(max(1, len(words) - N + 1))}
