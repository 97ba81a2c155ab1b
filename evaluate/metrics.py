"""From one row per item and system to the figures of the report: totals with intervals, paired comparisons, slices.

Pure: frames and a seed in, plain numbers out. Losses are in nats a token. Items of one group (a customer, a conversation) are drawn and
flipped together wherever a group has more than one item.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from evaluate import measures, power
from evaluate.measures import BY_NAME
from evaluate.statistics import Interval, bootstrap, holm, mcnemar, paired_shares, sign_flip, wilson
from evaluate.verdict import Difference, word

FEW = 30  # a slice of fewer items is marked: its interval is wide and its mean moves with every item
SLICES = 200  # slices of each kind that are worked out, the largest first; the rest is counted
SLICED_BY = ("source", "label", "length", "personal", "synthetic", "likeness")
CONFUSIONS = 20  # commonest wrong labels that are listed
DIGITS = 6  # beyond these, figures change with the order in which a machine adds
SCORES: dict[str, pl.DataType] = {
    "item": pl.UInt32(),  # position among the items of this evaluation
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "kind": pl.String(),
    "label": pl.String(),
    "group": pl.String(),  # items that belong together; the item's own id where it stands alone
    "length": pl.String(),  # short, medium or long: thirds of the items by tokens
    "personal": pl.String(),  # yes where scrub left a placeholder in it, else no
    "synthetic": pl.String(),  # yes or no
    "likeness": pl.String(),  # to training rows by word n-grams: none, some, or neighbour (evaluate/likeness.py)
    "system": pl.String(),
    "asked": pl.String(),  # hash of the prompt's tokens: the same for all systems
    "shots": pl.UInt32(),  # training examples shown before the prompt
    "tokens": pl.UInt32(),  # trained tokens of the item
    "loss_sum": pl.Float64(),  # null, like all losses, for systems that only answer
    "loss": pl.Float64(),  # mean over these tokens
    "answer_loss": pl.Float64(),  # mean over the last answer, behind its own prompt
    "other_id": pl.String(),  # whose prompt it got in the control
    "other_loss": pl.Float64(),  # mean over the last answer, behind that prompt
    "prompt_gain": pl.Float64(),  # other_loss - answer_loss
    "output": pl.String(),  # greedy continuation of the prompt; null where none was made
    "stop": pl.String(),  # why it ended: end (an end token), length (evaluate.max_new_tokens), context, memory, or failed (an endpoint)
}


def with_measures(scores: pl.DataFrame, answers: Sequence[str], names: Sequence[str]) -> pl.DataFrame:
    """`scores` with a column for each metric: its value where there is an output. `answers` are the references, by item."""
    made = scores.filter(pl.col("output").is_not_null())
    outputs, labels = made["output"].to_list(), made["label"].to_list()
    references = [answers[item] for item in made["item"]]
    columns = [pl.Series(name, measures.scores(name, outputs, references, labels), dtype=pl.Float64) for name in names]
    return scores.join(made.select("item", "system").with_columns(columns), on=["item", "system"], how="left", maintain_order="left")


def of_system(scores: pl.DataFrame, system: str, answers: Sequence[str], names: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    """Everything about one system alone. `answers` are the references, by item."""
    rows = scores.filter(pl.col("system") == system)
    lossy = rows.filter(pl.col("loss").is_not_null())
    tokens = int(lossy["tokens"].sum())
    per_token = float(lossy["loss_sum"].sum()) / tokens if tokens else math.nan
    made = rows.filter(pl.col("output").is_not_null())
    found: dict[str, Any] = {
        "items": rows.height,
        "tokens": tokens,
        "loss_per_token": per_token,  # every token counts the same: what training minimises
        "perplexity": math.exp(min(per_token, 700)),
        "prompt_gain": asdict(_mean(rows, "prompt_gain", seed, resamples)),
        "metrics": {"loss": asdict(_mean(rows, "loss", seed, resamples))},  # every item counts the same
        "generated": made.height,
        "stops": dict(made.group_by("stop").len().sort("stop").iter_rows()),
        "mean_shots": float(rows["shots"].mean() or 0.0),  # type: ignore[arg-type]
    }
    for name in names:
        found["metrics"][name] = asdict((_share if BY_NAME[name].binary else _mean)(rows, name, seed, resamples))
        if name in ("bleu", "chrf") and made.height:
            found[f"{name}_corpus"] = measures.corpus(name, made["output"].to_list(), [answers[item] for item in made["item"]])
    if "label_accuracy" in names:
        labelled = made.filter(pl.col("label_accuracy").is_not_null())
        said, true = measures.folded(labelled["output"].to_list()), measures.folded(labelled["label"].to_list())
        found |= {"macro_f1": measures.macro_f1(said, true), "confusions": measures.confusions(said, true, CONFUSIONS)}
    return found


def _known(rows: pl.DataFrame, column: str) -> tuple[np.ndarray, list[str] | None]:
    """The values of a column where there are any, and their groups if any group has more than one."""
    known = rows.filter(pl.col(column).is_not_null())
    groups = known["group"].to_list()
    return known[column].to_numpy(), groups if len(set(groups)) < len(groups) else None


def _mean(rows: pl.DataFrame, column: str, seed: int, resamples: int) -> Interval:
    values, groups = _known(rows, column)
    return bootstrap(values, seed, resamples, groups)


def _share(rows: pl.DataFrame, column: str, seed: int, resamples: int) -> Interval:
    values, groups = _known(rows, column)
    return wilson(int(values.sum()), len(values)) if groups is None else bootstrap(values, seed, resamples, groups)


def mean_difference(favour: np.ndarray, groups: Sequence[str] | None, judged: bool, seed: int, resamples: int) -> Difference:
    """Paired values, above zero where they favour the tuned model. Without `judged` there is no word, for neither way is better."""
    interval, p = bootstrap(favour, seed, resamples, groups), sign_flip(favour, seed, resamples, groups)
    clusters = np.bincount(np.unique(groups, return_inverse=True)[1], weights=favour) if groups else favour
    detectable = power.of_means(clusters)
    if detectable is not None and groups:
        detectable *= len(clusters) / len(favour)  # of sums of groups to the mean of items
    return Difference(interval, p, detectable, word(interval, p) if judged else None)


def binary_difference(other: np.ndarray, tuned: np.ndarray, groups: Sequence[str] | None, seed: int, resamples: int) -> Difference:
    """Right (1) or wrong (0) on the same items: exact McNemar and Newcombe's interval, or by groups where there are any."""
    gained, lost = int((tuned > other).sum()), int((other > tuned).sum())
    if groups:
        by_group = mean_difference(tuned - other, groups, True, seed, resamples)
        return Difference(by_group.difference, by_group.p, by_group.detectable, by_group.verdict, gained, lost)
    interval, p = paired_shares(gained, lost, len(tuned), int(other.sum())), mcnemar(gained, lost)
    return Difference(interval, p, power.of_shares(gained, lost, len(tuned)), word(interval, p), gained, lost)


@dataclass(frozen=True)
class Comparison:
    """The tuned model against another system, item by item. Differences favour the tuned model where above zero.

    `control` is its prompt gain minus the other's; None if the other was not asked behind other prompts, or no item has a prompt.
    """

    prompt_gain: Interval  # of the tuned model alone
    control: Interval | None
    metrics: dict[str, Difference]


def compare(scores: pl.DataFrame, other: str, names: Sequence[str], seed: int, resamples: int) -> Comparison:
    """Tuned against `other`, by the loss (where both have one) and the metrics named."""
    pairs = paired(scores, other)
    gain = pairs.with_columns((pl.col("prompt_gain") - pl.col("prompt_gain_other")).alias("gain"))
    control = _mean(gain, "gain", seed, resamples)
    return Comparison(
        prompt_gain=_mean(pairs, "prompt_gain", seed, resamples),
        control=control if control.n else None,
        metrics={name: difference(pairs, name, seed, resamples) for name in ("loss", *names)},
    )


def difference(pairs: pl.DataFrame, name: str, seed: int, resamples: int) -> Difference:
    """The column `name` against `<name>_other`, row by row where both are known: above zero where the first is better."""
    both = pairs.filter(pl.col(name).is_not_null() & pl.col(f"{name}_other").is_not_null())
    groups = _known(both, name)[1]
    tuned, other = both[name].to_numpy(), both[f"{name}_other"].to_numpy()
    measure = BY_NAME.get(name)
    if measure is None or measure.better == "lower":
        tuned, other = (other, tuned) if measure is None or not measure.binary else (1 - tuned, 1 - other)
    if measure is not None and measure.binary:
        return binary_difference(other, tuned, groups, seed, resamples)
    return mean_difference(tuned - other, groups, measure is None or measure.better is not None, seed, resamples)


def paired(scores: pl.DataFrame, other: str) -> pl.DataFrame:
    """One row per item: the tuned model's columns, and those of `other` with `_other` behind their names."""
    tuned = scores.filter(pl.col("system") == "tuned")
    return tuned.join(scores.filter(pl.col("system") == other), on="item", how="inner", suffix="_other", validate="1:1").sort("item")


def slices(scores: pl.DataFrame, seed: int, resamples: int) -> tuple[list[dict[str, Any]], int]:
    """Tuned against base per value of `SLICED_BY`, p-values corrected over all of them together; and how many small ones are left out."""
    pairs = paired(scores, "base")
    found: list[dict[str, Any]] = []
    left_out = 0
    for by in SLICED_BY:
        named = pairs.filter(pl.col(by).is_not_null())
        sizes = named.group_by(by).len().sort(["len", by], descending=[True, False])
        if sizes.height == 1 and by not in ("source", "label"):
            continue  # all items are alike in this
        left_out += max(0, sizes.height - SLICES)
        found += [_slice(named.filter(pl.col(by) == name), by, name, seed, resamples) for name in sizes[by].head(SLICES)]
    for each, corrected in zip(found, holm([each["p"] for each in found]), strict=True):
        each["p_holm"] = corrected
    return found, left_out


def _slice(pairs: pl.DataFrame, by: str, name: str, seed: int, resamples: int) -> dict[str, Any]:
    loss = difference(pairs, "loss", seed, resamples)
    exact = "exact_match" if "exact_match" in pairs.columns else None
    return {
        "by": by,
        "name": name,
        "n": pairs.height,
        "few": pairs.height < FEW,
        "loss_base": float(np.mean(pairs["loss_other"].to_numpy())),
        "loss_tuned": float(np.mean(pairs["loss"].to_numpy())),
        "difference": asdict(loss.difference),
        "detectable": loss.detectable,
        "p": loss.p,
        "exact_base": asdict(_share(pairs, "exact_match_other", seed, resamples)) if exact else None,
        "exact_tuned": asdict(_share(pairs, exact, seed, resamples)) if exact else None,
    }


def tidy(value: Any) -> Any:
    """Figures as JSON can hold them: floats of `DIGITS` digits, null for what cannot be known."""
    if isinstance(value, dict):
        return {key: tidy(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(each) for each in value]
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0 if math.isfinite(value) else None
    return value
