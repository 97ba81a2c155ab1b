"""Every figure of the report, and the verdict that they give."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import polars as pl

from evaluate import effects, metrics
from evaluate.statistics import Interval
from evaluate.verdict import Rule, judge, judge_code, judge_pairs

NOTHING: Mapping[str, Any] = MappingProxyType({})


def figures_of(
    scores: pl.DataFrame,
    answers: Sequence[str],
    names: Sequence[str],
    rule: Rule,
    beside: dict[str, Any],
    seed: int,
    resamples: int,
    trained: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """Figures by name. `beside` are those of the side effects, `trained` is the `train` of the adapter's provenance."""
    known = scores["system"].unique(maintain_order=True).to_list()
    against = {other: metrics.compare(scores, other, names, seed, resamples) for other in known if other != "tuned"}
    main = against["base"]
    limits = effects.broken(beside["memorisation"], beside["forgetting"], beside.get("originals"), rule)
    if (trained.get("method"), trained.get("reward"), rule.primary) == ("grpo", "python", "loss"):
        verdict = judge_code(limits)
    elif (moved := beside["preference"]) is None:
        verdict = judge(main.metrics, main.prompt_gain, main.control, limits, rule)
    else:
        right = moved["reward_accuracy"]
        verdict = judge_pairs(moved["pairs"], None if right is None else Interval(**right), limits)
    slices, small = metrics.slices(scores, seed, resamples)
    first = scores.filter(pl.col("system") == known[0])
    new = scores.filter(pl.col("likeness") != "neighbour")
    adjusted = metrics.compare(new, "base", names, seed, resamples) if 0 < new.height < scores.height else None
    return {
        "verdict": verdict.word,
        "reason": verdict.reason,
        "rule": asdict(rule),
        "items": first.height,
        "items_with_prompt": int(first["answer_loss"].is_not_null().sum()),
        "metrics": list(names),
        "systems": {system: metrics.of_system(scores, system, answers, names, seed, resamples) for system in known},
        "tuned_against": {other: asdict(each) for other, each in against.items()},
        "without_neighbours": None if adjusted is None else asdict(adjusted) | {"items": int(new["item"].n_unique())},
        "slices": slices,
        "slices_left_out": small,
    } | beside
