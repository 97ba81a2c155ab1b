"""From one row per item and system to the figures of the report: totals with intervals, paired comparisons, slices.

Pure: frames and a seed in, plain numbers out. Losses are in nats a token.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from curate import record
from evaluate.statistics import Interval, bootstrap, holm, mcnemar, sign_flip, wilson
from evaluate.verdict import Paired

FEW = 30  # a slice of fewer items is marked: its interval is wide and its mean moves with every item
SLICES = 200  # slices of each kind that are worked out, the largest first; the rest is counted
DIGITS = 6  # beyond these, figures change with the order in which a machine adds
SCORES: dict[str, pl.DataType] = {
    "item": pl.UInt32(),  # position among the items of this evaluation
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "kind": pl.String(),
    "label": pl.String(),
    "system": pl.String(),  # base, few_shot, tuned
    "asked": pl.String(),  # hash of the prompt's tokens: the same for all systems
    "shots": pl.UInt32(),  # training examples shown before the prompt
    "tokens": pl.UInt32(),  # trained tokens of the item
    "loss_sum": pl.Float64(),
    "loss": pl.Float64(),  # mean over these tokens
    "answer_loss": pl.Float64(),  # mean over the last answer, behind its own prompt
    "other_id": pl.String(),  # whose prompt it got in the control
    "other_loss": pl.Float64(),  # mean over the last answer, behind that prompt
    "prompt_gain": pl.Float64(),  # other_loss - answer_loss
    "output": pl.String(),  # greedy continuation of the prompt; null where none was made
    "cut": pl.Boolean(),  # no end token came within evaluate.max_new_tokens
    "exact_match": pl.Boolean(),
    "label_right": pl.Boolean(),  # only where the answer is the label
    "token_f1": pl.Float64(),
}


def folded(texts: Sequence[str]) -> list[str]:
    """Texts as compared: record.fold.

    >>> folded(["  Card\\nLOST "])
    ['card lost']
    """
    return pl.DataFrame({"text": list(texts)}, schema={"text": pl.String}).select(record.fold(pl.col("text")))["text"].to_list()


def token_f1(output: str, answer: str) -> float:
    """Overlap of two folded texts as bags of words and punctuation marks: the harmonic mean of precision and recall, 0 to 1.

    Source: as in SQuAD (P. Rajpurkar et al., EMNLP 2016, section 6.1), but articles and punctuation count.

    >>> token_f1("the red hub", "the hub")
    0.8
    """
    ours, theirs = (re.findall(r"\w+|[^\w\s]", text) for text in (output, answer))
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def with_matches(scores: pl.DataFrame, answers: Sequence[str]) -> pl.DataFrame:
    """`scores` with exact_match, label_right and token_f1 set where there is an output. `answers` by item."""
    wanted = pl.Series("wanted", folded([answers[item] for item in scores["item"]]), dtype=pl.String)
    got = pl.Series("got", folded([text or "" for text in scores["output"]]), dtype=pl.String)
    f1 = pl.Series("f1", [token_f1(a, b) for a, b in zip(got, wanted, strict=True)], dtype=pl.Float64)
    made = pl.col("output").is_not_null()
    return (
        scores.with_columns(wanted, got, f1)
        .with_columns(
            pl.when(made).then(pl.col("got") == pl.col("wanted")).alias("exact_match"),
            pl.when(made & (record.fold(pl.col("label")) == pl.col("wanted"))).then(pl.col("got") == pl.col("wanted")).alias("label_right"),
            pl.when(made).then(pl.col("f1")).alias("token_f1"),
        )
        .select(pl.col(name).cast(kind) for name, kind in SCORES.items())
    )


def of_system(scores: pl.DataFrame, system: str, seed: int, resamples: int) -> dict[str, Any]:
    """Everything about one system alone."""
    rows = scores.filter(pl.col("system") == system)
    tokens = int(rows["tokens"].sum())
    per_token = float(rows["loss_sum"].sum()) / tokens
    cut = rows["cut"].drop_nulls()
    return {
        "items": rows.height,
        "tokens": tokens,
        "loss_per_token": per_token,  # every token counts the same: what training minimises
        "perplexity": math.exp(min(per_token, 700)),
        "loss": asdict(bootstrap(rows["loss"].to_numpy(), seed, resamples)),  # every item counts the same
        "prompt_gain": asdict(bootstrap(rows["prompt_gain"].drop_nulls().to_numpy(), seed, resamples)),
        "exact_match": asdict(_share(rows["exact_match"])),
        "label_accuracy": asdict(_share(rows["label_right"])),
        "token_f1": asdict(bootstrap(rows["token_f1"].drop_nulls().to_numpy(), seed, resamples)),
        "generated": len(cut),
        "cut": int(cut.sum()),
        "mean_shots": float(rows["shots"].mean() or 0.0),  # type: ignore[arg-type]
    }


def _share(right: pl.Series) -> Interval:
    known = right.drop_nulls()
    return wilson(int(known.sum()), len(known))


@dataclass(frozen=True)
class Comparison:
    """The tuned model against another system, item by item. Differences are in favour of the tuned model where above zero."""

    loss: Interval
    loss_p: float
    prompt_gain: Interval  # of the tuned model alone
    control: (
        Interval | None
    )  # its prompt gain minus the other's; None if the other system was not asked behind other prompts, or no item has a prompt
    exact_match: Paired
    label_accuracy: Paired
    token_f1: Interval


def compare(scores: pl.DataFrame, other: str, seed: int, resamples: int) -> Comparison:
    """Tuned against `other`. Every item must be there for both."""
    pairs = paired(scores, other)
    gain = (pairs["prompt_gain"] - pairs["prompt_gain_other"]).drop_nulls()
    difference = (pairs["loss_other"] - pairs["loss"]).to_numpy()
    return Comparison(
        loss=bootstrap(difference, seed, resamples),
        loss_p=sign_flip(difference, seed, resamples),
        prompt_gain=bootstrap(pairs["prompt_gain"].drop_nulls().to_numpy(), seed, resamples),
        control=bootstrap(gain.to_numpy(), seed, resamples) if len(gain) else None,
        exact_match=_right_or_wrong(pairs, "exact_match"),
        label_accuracy=_right_or_wrong(pairs, "label_right"),
        token_f1=bootstrap((pairs["token_f1"] - pairs["token_f1_other"]).drop_nulls().to_numpy(), seed, resamples),
    )


def paired(scores: pl.DataFrame, other: str) -> pl.DataFrame:
    """One row per item: the tuned model's columns, and those of `other` with `_other` behind their names."""
    tuned = scores.filter(pl.col("system") == "tuned")
    return tuned.join(scores.filter(pl.col("system") == other), on="item", how="inner", suffix="_other", validate="1:1").sort("item")


def _right_or_wrong(pairs: pl.DataFrame, column: str) -> Paired:
    both = pairs.select(column, f"{column}_other").drop_nulls()
    tuned, other = both[column], both[f"{column}_other"]
    gained, lost = int((tuned & ~other).sum()), int((other & ~tuned).sum())
    return Paired(gained, lost, both.height, mcnemar(gained, lost))


def slices(scores: pl.DataFrame, seed: int, resamples: int) -> tuple[list[dict[str, Any]], int]:
    """Tuned against base per source and per label, p-values corrected over all of them together; and how many small slices are left out."""
    pairs = paired(scores, "base")
    found: list[dict[str, Any]] = []
    left_out = 0
    for by in ("source", "label"):
        named = pairs.filter(pl.col(by).is_not_null())
        sizes = named.group_by(by).len().sort(["len", by], descending=[True, False])
        left_out += max(0, sizes.height - SLICES)
        found += [_slice(named.filter(pl.col(by) == name), by, name, seed, resamples) for name in sizes[by].head(SLICES)]
    for each, corrected in zip(found, holm([each["p"] for each in found]), strict=True):
        each["p_holm"] = corrected
    return found, left_out


def _slice(pairs: pl.DataFrame, by: str, name: str, seed: int, resamples: int) -> dict[str, Any]:
    difference = (pairs["loss_other"] - pairs["loss"]).to_numpy()
    return {
        "by": by,
        "name": name,
        "n": pairs.height,
        "few": pairs.height < FEW,
        "loss_base": float(np.mean(pairs["loss_other"].to_numpy())),
        "loss_tuned": float(np.mean(pairs["loss"].to_numpy())),
        "difference": asdict(bootstrap(difference, seed, resamples)),
        "p": sign_flip(difference, seed, resamples),
        "exact_base": asdict(_share(pairs["exact_match_other"])),
        "exact_tuned": asdict(_share(pairs["exact_match"])),
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
