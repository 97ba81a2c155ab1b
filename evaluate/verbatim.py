"""Does the model continue training rows word for word? Against the base, and against rows that it never saw.

A row counts as continued if greedy decoding behind its prompt and its answer's beginning gives exactly the last `TOKENS` tokens of the
answer. What training made likelier for good reasons (house style, set phrases) is continued on the hold-out too: the share there is the
yardstick, and what lies above it is memory.

Greedy decoding gives these tokens if and only if each is the likeliest behind the row's own tokens before it, so one pass over the row is
enough and nothing is generated. Source: N. Carlini et al., Quantifying Memorization Across Neural Language Models, ICLR 2023, section 3,
with the end of an answer for the next 50 tokens.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate import store
from curate.stage import Progress
from evaluate import inference, metrics
from evaluate.holdout import IGNORED, Item, hashed
from evaluate.models import Loaded
from evaluate.statistics import wilson

TOKENS = 16  # as many as 8 to 12 words: a phrase of this length is seldom the same by chance
MOST = 200  # rows of each split


def training_rows(format_dir: Path, canary: str) -> list[np.ndarray]:
    """At most `MOST` training rows that end with more than `TOKENS` trained tokens, by hash of their ids.

    No canaries (`canary` is their source), nothing synthetic.
    """
    held: list[tuple[int, np.ndarray]] = []
    columns, own = ["id", "source", "input_ids", "labels"], pl.col("source") != canary
    if _has_synthetic(format_dir):
        columns, own = [*columns, "synthetic"], own & ~pl.col("synthetic").fill_null(False)
    for batch in store.batches(format_dir / "kept" / "train", columns):
        wanted = batch.filter(own).select("id", "input_ids", "labels")
        limit = held[-1][0] if len(held) == MOST else None
        for id_, ids, labels in wanted.iter_rows():
            place = hashed(id_)
            if (limit is None or place < limit) and _long_enough(labels):
                held.append((place, np.array(ids, dtype=np.int32)))
        held = sorted(held, key=lambda each: each[0])[:MOST]
    return [ids for _, ids in held]


def _has_synthetic(format_dir: Path) -> bool:
    """Whether the rows say if they are synthetic: format writes it, tables from elsewhere may not have it."""
    first = next((part.path for part in store.parts(format_dir) if part.split == "train"), None)
    return first is not None and "synthetic" in pl.read_parquet_schema(first)


def _long_enough(labels: Sequence[int]) -> bool:
    end = labels[-TOKENS - 1 :]
    return len(end) > TOKENS and IGNORED not in end


def holdout_rows(items: Sequence[Item]) -> list[np.ndarray]:
    """As `training_rows`, of the hold-out's items."""
    wanted = [item for item in items if item.stop == len(item.ids) and item.stop > TOKENS and item.trained[-TOKENS - 1 :].all()]
    return [item.ids for item in sorted(wanted, key=lambda item: (hashed(item.id), item.id))[:MOST]]


def continued(loaded: Loaded, rows: Sequence[np.ndarray], budget: int) -> np.ndarray:
    """For each row 1.0 if its last `TOKENS` tokens are what the model writes, else 0.0; NaN where the row does not fit the model."""
    found = np.full(len(rows), np.nan)
    fit = [at for at, row in enumerate(rows) if len(row) <= loaded.limit]
    progress = Progress("evaluate (verbatim)", len(fit))
    for batch in inference.batches_by_length([len(rows[at]) for at in fit], budget):
        places = [fit[each] for each in batch]
        for at, likeliest in zip(places, inference.batch_likeliest(loaded, [rows[at] for at in places]), strict=True):
            if len(likeliest):
                found[at] = float(likeliest[-TOKENS:].all())
        progress.add(len(batch))
    progress.done()
    return found


def figures(found: dict[str, tuple[np.ndarray, np.ndarray]], seed: int, resamples: int) -> dict[str, Any] | None:
    """Of what `continued` says of training and of hold-out rows by system: shares with intervals, and base and tuned on the same training
    rows: above zero, `more_than_base` says that the tuned model continues more of them. None where no training row is long enough."""
    base, tuned = found["base"][0], found["tuned"][0]
    both = np.isfinite(base) & np.isfinite(tuned)
    if not both.any():
        return None
    share = {system: {"training": _share(seen), "holdout": _share(unseen)} for system, (seen, unseen) in found.items()}
    moved = metrics.binary_difference(base[both], tuned[both], None, seed, resamples)
    return {"tokens": TOKENS, "rows": int(both.sum()), "systems": share, "more_than_base": asdict(moved.difference), "p": moved.p}


def _share(values: np.ndarray) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    return asdict(wilson(int(known.sum()), len(known)))
