"""One word on whether training paid, by a rule that is written down here and set in `params.yaml: evaluate.verdict`.

**Of a metric**: *better* or *worse* if the 95 % interval of the paired difference lies on one side of zero and the paired test has
p < 0.05; *not shown* otherwise, and always with fewer than `FEWEST` items. Each metric is judged by itself: of twenty metrics without any
difference one may be called better or worse. What decides is fixed beforehand:

**Of the whole**, first line that applies:

1. A limit is broken (forgetting, memorisation)                                 -> worse
2. The primary metric is better, and
   a. a metric of `guards` is worse                                             -> not shown
   b. the primary is the loss, items have prompts, and the control fails        -> not shown
   c. otherwise                                                                 -> better
3. The primary metric is worse                                                  -> worse
4. A metric of `guards` is worse                                                -> worse
5. Otherwise                                                                    -> not shown

After dpo, orpo and kto the share of held-out pairs in which the better answer gained on the worse one takes the place of 2 to 5: better or
worse if Wilson's 95 % interval lies on one side of a half.

After grpo, which rewards answers that a rule finds right and may raise the loss of the reference, the metric of that rule takes the place
of the loss as the primary one. For `train.reward: python` there is none: the word is then *not shown*.

The control: the *prompt gain* of a model is the loss of the answer behind another item's prompt minus its loss behind its own; the control
is the prompt gain of the tuned model minus that of the base. It holds if the tuned model's prompt gain and the control are both above
zero (intervals), and the control is at least `control` times the fall of the loss.

Why the control: answers shuffled over the training prompts still teach a model how answers look, and the hold-out loss falls. A model
that learned only this finds an answer no likelier behind its own prompt than behind another. Loss alone would call it better. The
gain must be above zero by itself, because a base may by accident do worse behind own prompts than behind others; and it must be a
part of the fall worth the name, because chance ties words of prompts and answers even in shuffled data, and intervals over items
do not know of that chance. Last answers shuffled on the shipped sample reached 0.065, on a small task (12 orders) 0.034; true answers
0.13 and 0.40.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from curate.params import params_class
from evaluate.measures import MEASURES
from evaluate.statistics import Interval

Word = Literal["better", "worse", "not shown"]
FEWEST = 10  # fewer, and a bootstrap interval is far too narrow (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 14)
LEVEL = 0.05
REWARDED = {"exact": "exact_match", "number": "number_match", "regex": "regex", "json_schema": "json_schema"}  # by train.reward
JUDGED = ("loss", *(each.name for each in MEASURES if each.better is not None))


@params_class
class Rule:
    """`params.yaml: evaluate.verdict`."""

    primary: str
    guards: tuple[str, ...]
    control: Annotated[float, Field(ge=0, le=1)] | None
    forgetting: Annotated[float, Field(ge=0)] | None
    memorised: Literal["fail", "flag"]

    def __post_init__(self) -> None:
        for name in (self.primary, *self.guards):
            if name not in JUDGED:
                raise ValueError(f"verdict: '{name}' is none of {', '.join(JUDGED)}")


@dataclass(frozen=True)
class Difference:
    """A metric on the same items with two systems: above zero favours the tuned model.

    `detectable` is the smallest true difference that would be found in at least 80 % of such evaluations; `verdict` is None where neither
    way is better. `gained` and `lost` count the items that only the tuned model, or only the other, has right.
    """

    difference: Interval
    p: float
    detectable: float | None
    verdict: Word | None
    gained: int | None = None
    lost: int | None = None


@dataclass(frozen=True)
class Verdict:
    """The word, and a sentence or two that say why."""

    word: Word
    reason: str


def word(difference: Interval, p: float) -> Word:
    """The word on one metric."""
    if difference.n < FEWEST or not p < LEVEL:
        return "not shown"
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "not shown"


def judge(metrics: Mapping[str, Difference], gain: Interval, control: Interval | None, broken: Sequence[str], rule: Rule) -> Verdict:
    """The verdict by the rule above.

    `gain` is the tuned model's; `control` is None where no item has a prompt (plain documents); `broken` are the limits that do not hold,
    a sentence each.
    """
    if broken:
        return Verdict("worse", " ".join(broken))
    name = "hold-out loss" if rule.primary == "loss" else rule.primary
    found = metrics.get(rule.primary)
    if found is None or found.difference.n < FEWEST:
        n = found.difference.n if found else 0
        return Verdict("not shown", f"Only {n} hold-out items with {name}: fewer than {FEWEST} say nothing. Hold out more (split.ratios).")
    unit = " nats a token" if rule.primary == "loss" else ""
    part = found.difference
    spread = f"by {abs(part.value):.3f}{unit} (95 % interval of the difference {part.low:.3f} to {part.high:.3f}, {part.n} items)"
    wrong = next((_worse(each, metrics[each]) for each in rule.guards if each in metrics and metrics[each].verdict == "worse"), "")
    better, worse = ("fell", "rose") if rule.primary == "loss" else ("became better", "became worse")
    if found.verdict == "better":
        said = f"The {name} {better} {spread}"
        if not wrong and rule.primary == "loss" and rule.control is not None:
            return _fell(said, part, gain, control, rule.control)
        return Verdict("not shown", f"{said}, but {wrong}.") if wrong else Verdict("better", f"{said}.")
    if found.verdict == "worse" or wrong:
        return Verdict(
            "worse", f"The {name} {worse} {spread}." if found.verdict == "worse" else f"The {name} did not clearly change, and {wrong}."
        )
    hidden = f" A difference of {found.detectable:.3f} would most likely have been found." if found.detectable is not None else ""
    why = f"The interval of the difference of the {name} holds zero" if part.low <= 0 <= part.high else f"The {name} may differ by chance"
    return Verdict("not shown", f"{why}: {part.low:.3f} to {part.high:.3f} (p = {found.p:.2g}, {part.n} items).{hidden}")


def judge_pairs(pairs: int, right: Interval | None, broken: Sequence[str]) -> Verdict:
    """The verdict where training compared answers (evaluate/pairs.py); `right`: the share of held-out pairs that moved the right way."""
    if broken:
        return Verdict("worse", " ".join(broken))
    if right is None or pairs < FEWEST:
        return Verdict("not shown", f"Only {pairs} held-out pairs: fewer than {FEWEST} say nothing. Hold out more (split.ratios).")
    word: Word = "better" if right.low > 0.5 else "worse" if right.high < 0.5 else "not shown"
    spread = f"{right.value:.1%} of {pairs} held-out pairs (95 % interval {right.low:.1%} to {right.high:.1%})"
    return Verdict(word, f"Training made the better answer gain on the worse one in {spread}; a coin has 50.0 %.")


def judge_code(broken: Sequence[str]) -> Verdict:
    """The verdict after grpo on answers that are code: no metric here runs it."""
    if broken:
        return Verdict("worse", " ".join(broken))
    return Verdict(
        "not shown",
        "After grpo with train.reward: python neither the loss nor a metric of answers says whether the code became better: read pass@k, "
        "tuned against base (evaluate.samples with check: python), or name a metric in evaluate.verdict.primary.",
    )


def after(trained: Mapping[str, Any], rule: Rule) -> Rule:
    """The rule for what was trained (provenance's `train`): after grpo the loss is no measure, and the metric of its reward decides.

    >>> after({"method": "grpo", "reward": "number"}, Rule("loss", (), None, None, "fail")).primary
    'number_match'
    """
    metric = REWARDED.get(str(trained.get("reward"))) if trained.get("method") == "grpo" else None
    return replace(rule, primary=metric) if metric is not None and rule.primary == "loss" else rule


def _worse(name: str, found: Difference) -> str:
    if found.gained is not None:
        return f"{name} became worse: {found.lost} items lost, {found.gained} gained (p = {found.p:.3g})"
    return f"{name} became worse by {abs(found.difference.value):.3f} (p = {found.p:.3g})"


def _fell(fell: str, loss: Interval, gain: Interval, control: Interval | None, share: float) -> Verdict:
    if control is None:
        return Verdict("better", f"{fell}. No item has a prompt, so whether prompts are used was not tested.")
    if control.n < FEWEST:
        return Verdict("not shown", f"{fell}, but only {control.n} items could be tested behind another prompt: fewer than {FEWEST}.")
    more = f"{control.value:.3f} (95 % interval {control.low:.3f} to {control.high:.3f}, {control.n} items)"
    if gain.low > 0 and control.low > 0 and control.value >= share * loss.value:
        return Verdict("better", f"{fell}, and the item's own prompt helps the tuned model more than it helps the base: by {more}.")
    return Verdict(
        "not shown",
        f"{fell}, but it fell as much behind the prompts of other items: the model learned the style of the answers, and not to answer. "
        f"Its gain from the own prompt is {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f}), more than the base's by {more}; "
        f"both must be above zero, and the second at least {share:.0%} of the fall.",
    )
