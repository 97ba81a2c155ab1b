"""What is asked of a system beside the hold-out items, while it is in memory: canaries, training rows by heart, general text, preference
pairs, changed questions, samples. Kept by system until all have been asked; then come the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from evaluate import effects, pairs, robust, samples, verbatim
from evaluate.ask import Questions, Settings
from evaluate.holdout import Item
from evaluate.models import Loaded
from evaluate.robust import Robustness, Variants
from evaluate.samples import Samples

RESAMPLES = 10_000  # the ends of a 95 % interval then move by about 1 % of its width from seed to seed


@dataclass(frozen=True)
class Wanted:
    """What to ask; None leaves a part out."""

    general: Path | None
    pairs: bool  # training compared answers
    loss_items: int | None  # pairs at most
    robustness: Robustness | None
    samples: Samples | None
    seed: int


class Beside:
    """Asks, and keeps what it heard. `journals` are files of answers to be kept with the others."""

    def __init__(self, wanted: Wanted, format_dir: Path, settings: Settings) -> None:
        self.wanted, self.settings, self.format_dir = wanted, settings, format_dir
        self.canaries = effects.canaries(format_dir)
        self.texts = effects.general_texts(wanted.general) if wanted.general is not None else []
        self.pairs = pairs.read(format_dir, wanted.loss_items) if wanted.pairs else None
        self.training = verbatim.training_rows(format_dir, effects.SOURCE)
        self.variants: Variants | None = None
        self.likelihoods: dict[str, np.ndarray] = {}
        self.ranks: dict[str, list[int]] = {}
        self.losses: dict[str, np.ndarray] = {}
        self.by_heart: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.changed: robust.Asked = {}
        self.right: dict[str, list[int]] = {}
        self.journals: dict[str, Path] = {}

    def probe(self, system: str, loaded: Loaded, weights: str, questions: Questions) -> None:
        """Ask one system; `weights` tells its state from others."""
        budget, seed = self.settings.batch_tokens, self.wanted.seed
        if self.canaries:
            self.ranks[system] = effects.ranks(loaded, self.canaries, budget, seed)
        if self.texts:
            self.losses[system] = effects.text_losses(loaded, self.texts, budget)
        if self.pairs is not None:
            self.likelihoods[system] = pairs.log_likelihoods(loaded, self.pairs, budget)
        if self.training:
            unseen = verbatim.holdout_rows(questions.items)
            self.by_heart[system] = (verbatim.continued(loaded, self.training, budget), verbatim.continued(loaded, unseen, budget))
        if self.wanted.robustness is not None:
            if self.variants is None:
                around = robust.marks(self.format_dir, loaded.tokenizer)
                room = self.settings.max_new_tokens
                self.variants = robust.variants(questions.items, self.wanted.robustness, around, loaded.tokenizer, loaded.limit, room, seed)
            self.changed[system] = robust.asked_of(system, loaded, weights, self.variants, questions, self.settings)
        if self.wanted.samples is not None:
            self.right[system], path = samples.asked_of(system, loaded, weights, questions, self.settings, self.wanted.samples, seed)
            self.journals[f"{system}.samples"] = path

    def found(self, scores: pl.DataFrame, items: Sequence[Item], names: Sequence[str]) -> dict[str, Any]:
        """`memorisation` by system, and `verbatim`, `forgetting`, `preference`, `robustness`, `pass_at_k`, each None where not asked."""
        seed = self.wanted.seed
        found: dict[str, Any] = {"memorisation": effects.memorisation(self.ranks)}
        found["verbatim"] = verbatim.figures(self.by_heart, seed, RESAMPLES) if self.by_heart else None
        found["forgetting"] = effects.forgetting(self.losses["base"], self.losses["tuned"], seed, RESAMPLES) if self.texts else None
        found["preference"] = None if self.pairs is None else pairs.figures(self.likelihoods["base"], self.likelihoods["tuned"])
        references = [item.answer for item in items]
        found["robustness"] = (
            robust.figures(self.variants, self.changed, scores, references, names, seed, RESAMPLES) if self.variants is not None else None
        )
        wanted = self.wanted.samples
        found["pass_at_k"] = samples.figures(self.right, items, wanted, seed, RESAMPLES) if wanted is not None else None
        return found
