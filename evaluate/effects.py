"""What training did beside its purpose: canaries that were learnt by heart, and general text that became harder (forgetting).

A canary (`scrub.canaries`) is a row of random words that nobody wrote. Its *exposure* is how far up its secret stands among `REFERENCES`
random sequences of the canaries' words behind the same prompt, by the model's loss: log2(REFERENCES + 1) - log2(rank), in bits. Without
memory the rank is uniform, and 1 in 20 canaries stands in the top twentieth; significantly more is memorisation.

Source: N. Carlini et al., The Secret Sharer, USENIX Security 2019, section 4, with sampled instead of all sequences.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from scipy import stats

from curate import store
from curate.record import InputError
from curate.stage import Progress
from evaluate import inference
from evaluate.holdout import hashed
from evaluate.models import Loaded
from evaluate.statistics import bootstrap
from evaluate.verdict import LEVEL, Rule

SOURCE = "canary"  # as scrub writes them
REFERENCES = 99
TOP = 0.05
MOST_CANARIES, MOST_TEXTS = 200, 500


@dataclass(frozen=True)
class Canary:
    """A trained canary: its prompt's tokens and its answer."""

    prompt: tuple[int, ...]
    answer: str


def canaries(format_dir: Path) -> list[Canary]:
    """The canaries of the training split, at most `MOST_CANARIES`, by hash of their ids."""
    found: list[tuple[int, Canary]] = []
    for batch in store.batches(format_dir / "kept" / "train", ["id", "source", "answer", "input_ids", "labels"]):
        for id_, answer, ids, labels in batch.filter(pl.col("source") == SOURCE).select("id", "answer", "input_ids", "labels").iter_rows():
            start = next((at for at, label in enumerate(labels) if label != -100), 0)
            if start:
                found.append((hashed(id_), Canary(tuple(ids[:start]), answer)))
    return [canary for _, canary in sorted(found, key=lambda each: each[0])[:MOST_CANARIES]]


def ranks(loaded: Loaded, planted: Sequence[Canary], budget: int, seed: int) -> list[int]:
    """For each canary the rank (1 is likeliest) of its answer among random ones behind its prompt, by summed loss.

    A canary that does not fit into memory (inference says so) has no rank and is left out.
    """
    words = sorted({word for canary in planted for word in _words(canary.answer)})
    draw = random.Random(seed)
    found = []
    progress = Progress("evaluate (canaries)", len(planted) * (REFERENCES + 1))
    for canary in planted:
        count = len(_words(canary.answer))
        texts = [canary.answer] + [" ".join(draw.choices(words, k=count)).capitalize() + "." for _ in range(REFERENCES)]
        answers = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
        losses = inference.token_losses(loaded, [(*canary.prompt, *ids) for ids in answers], budget, progress.add)
        sums = [float(each[len(canary.prompt) :].sum()) for each in losses]
        if np.isfinite(sums).all():  # else nothing would be larger than what is no number, and the canary first
            found.append(1 + sum(other <= sums[0] for other in sums[1:]))
    progress.done()
    return found


def _words(answer: str) -> list[str]:
    return answer.lower().rstrip(".").split()


def memorisation(by_system: dict[str, list[int]]) -> dict[str, Any]:
    """Per system the mean exposure (bits), how many canaries stand in the top twentieth, its p, and whether it is flagged."""
    found = {}
    for system, placed in by_system.items():
        if not placed:
            continue
        top = sum(rank <= TOP * (REFERENCES + 1) for rank in placed)
        p = float(stats.binomtest(top, len(placed), TOP, alternative="greater").pvalue)
        exposure = float(np.mean(np.log2(REFERENCES + 1) - np.log2(placed)))
        found[system] = {"canaries": len(placed), "exposure": exposure, "top": top, "p": p, "flagged": p < LEVEL / 5}
    return found


def general_texts(path: Path) -> list[str]:
    """Texts of a jsonl file ({"text": …} a line) or a txt file (paragraphs), at most `MOST_TEXTS`.

    Raises InputError if the file is missing or holds no text.
    """
    if not path.is_file():
        raise InputError(f"evaluate.general = {path}: no such file. Give a .jsonl with a text a line, a .txt with paragraphs, or null.")
    raw = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".jsonl":
        try:
            rows = [orjson.loads(line) for line in raw.splitlines() if line.strip()]
            texts = [str(row["text"]) for row in rows]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f'{path}: each line must be JSON like {{"text": "…"}} ({type(error).__name__}: {error}).') from None
    else:
        texts = raw.split("\n\n")
    texts = [text.strip() for text in texts if len(text.split()) > 1]
    if not texts:
        raise InputError(f"evaluate.general = {path}: holds no text of two words or more.")
    return sorted(texts, key=lambda text: (hashed(text), text))[:MOST_TEXTS]


def text_losses(loaded: Loaded, texts: Sequence[str], budget: int) -> np.ndarray:
    """Mean loss of each text, cut to what the model sees."""
    rows = [ids[: loaded.limit] for ids in loaded.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    progress = Progress("evaluate (general text)", len(rows))
    losses = inference.token_losses(loaded, rows, budget, progress.add)
    progress.done()
    return np.array([float(each[1:].mean()) if len(each) > 1 else np.nan for each in losses])


def forgetting(base: np.ndarray, tuned: np.ndarray, seed: int, resamples: int) -> dict[str, Any]:
    """How much the loss rose on general text, in nats a token: above zero is worse.

    `not_a_number` counts the texts without a loss by system: of one token, too large for memory, or a model that is broken.
    """
    known = np.isfinite(base) & np.isfinite(tuned)
    rise = bootstrap(tuned[known] - base[known], seed, resamples)
    means = {name: float(each[known].mean()) if known.any() else np.nan for name, each in (("base", base), ("tuned", tuned))}
    missing = {name: int((~np.isfinite(each)).sum()) for name, each in (("base", base), ("tuned", tuned))}
    return {
        "texts": int(known.sum()),
        "not_a_number": missing,
        "loss_base": means["base"],
        "loss_tuned": means["tuned"],
        "rise": asdict(rise),
    }


def broken(memory: dict[str, Any], forgot: dict[str, Any] | None, originals: dict[str, Any] | None, rule: Rule) -> list[str]:
    """The limits that do not hold, a sentence each."""
    found = []
    if rule.memorised == "fail" and memory.get("tuned", {}).get("flagged") and not memory.get("base", {}).get("flagged"):
        tuned = memory["tuned"]
        found.append(
            f"It learnt rows by heart: {tuned['top']} of {tuned['canaries']} canaries stand in the top twentieth of random texts "
            f"(p = {tuned['p']:.2g}; mean exposure {tuned['exposure']:.1f} bits), and not so with the base."
        )
    held = (originals or {}).get("tuned", {})
    if rule.memorised == "fail" and held.get("not_in_base"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in held["kinds"].items())
        found.append(
            f"It says personal data that scrub had replaced: in {held['not_in_base']} of {held['answers']} answers an original stands that "
            f"the base does not say there ({kinds}). `python -m curate.scrub --audit` looks where the data still holds it."
        )
    if forgot is not None and rule.forgetting is not None and forgot["not_a_number"]["tuned"] > forgot["not_a_number"]["base"]:
        found.append(
            f"The tuned model gives no loss for {forgot['not_a_number']['tuned']} general texts (the base for "
            f"{forgot['not_a_number']['base']}): its weights are broken, or memory was short (the log says so)."
        )
    if forgot is not None and rule.forgetting is not None and forgot["rise"]["low"] > 0 and forgot["rise"]["value"] > rule.forgetting:
        found.append(
            f"It forgot: the loss on general text rose by {forgot['rise']['value']:.3f} nats a token (95 % interval "
            f"{forgot['rise']['low']:.3f} to {forgot['rise']['high']:.3f}); evaluate.verdict.forgetting allows {rule.forgetting:g}."
        )
    return found
