"""Did training on preferences move held-out pairs the right way? By log-probabilities of the model itself, beside those of the base.

The *implicit reward* of an answer is its log-probability with the tuned model minus that with the base; a pair is right if the better
answer has the higher one. Source: R. Rafailov et al., Direct Preference Optimization, NeurIPS 2023, section 4.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from curate import store
from curate.stage import Progress
from evaluate import inference
from evaluate.holdout import by_hash
from evaluate.models import Loaded
from evaluate.statistics import wilson

METHODS = ("dpo", "orpo", "kto")  # which compare answers; what they learn need not lower the loss of all rows


@dataclass(frozen=True)
class Pair:
    """Tokens of a prompt with its better and with its worse answer, and where the answers start."""

    start: int
    chosen: list[int]
    rejected: list[int]


def read(format_dir: Path, most: int | None) -> list[Pair]:
    """Preference rows of the test split, at most `most`, by hash of their ids."""
    columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
    rows = store.read_rows(format_dir, "test", ["id", *columns]).filter(pl.all_horizontal(pl.col(columns).list.len() > 0))
    taken = rows[sorted(by_hash(rows["id"].to_list(), most))].select(columns)
    return [Pair(len(prompt), prompt + chosen, prompt + rejected) for prompt, chosen, rejected in taken.iter_rows()]


def log_likelihoods(loaded: Loaded, pairs: Sequence[Pair], budget: int) -> np.ndarray:
    """(pairs, 2): summed log-probability (nats) of the better and of the worse answer behind the prompt; NaN where a model sees no more."""
    found = np.full((len(pairs), 2), np.nan)
    fit = [at for at, pair in enumerate(pairs) if max(len(pair.chosen), len(pair.rejected)) <= loaded.limit]
    rows = [row for at in fit for row in (pairs[at].chosen, pairs[at].rejected)]
    progress = Progress("evaluate (pairs)", len(rows))
    losses = inference.token_losses(loaded, rows, budget, progress.add)
    progress.done()
    for place, at in enumerate(fit):
        found[at] = [-float(each[pairs[at].start :].sum()) for each in losses[2 * place : 2 * place + 2]]
    return found


def figures(base: np.ndarray, tuned: np.ndarray) -> dict[str, Any]:
    """`reward_accuracy` (Wilson's interval), the mean margin of implicit rewards (nats), and how often each system finds the better
    answer the likelier one."""
    known = np.isfinite(base).all(axis=1) & np.isfinite(tuned).all(axis=1)
    base, tuned = base[known], tuned[known]
    margins = (tuned - base)[:, 0] - (tuned - base)[:, 1]
    likelier = {name: int((each[:, 0] > each[:, 1]).sum()) for name, each in (("base", base), ("tuned", tuned))}
    right = wilson(int((margins > 0).sum()), len(margins))
    return {
        "pairs": len(margins),
        "longer_than_model": int((~known).sum()),
        "reward_accuracy": asdict(right) if len(margins) else None,
        "mean_margin": float(margins.mean()) if len(margins) else None,
        "likelier": likelier,
    }
