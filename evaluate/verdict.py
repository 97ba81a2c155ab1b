"""One word on whether training paid, by a rule that is written down here and nowhere else.

Three measures are taken item by item on the hold-out, with 95 % intervals, in nats a token:

- the *loss difference*: loss of the base minus loss of the tuned model, over the trained tokens of the item;
- the *prompt gain* of the tuned model: loss of the answer behind another item's prompt minus its loss behind its own;
- the *control*: the prompt gain of the tuned model minus that of the base.

The rule, first line that applies:

1. Fewer than `FEWEST` items                                                   -> not shown
2. The loss difference is above zero, and
   a. matching answers (exact match or label) became fewer, p < 0.05           -> not shown
   b. items have prompts, and the control does not hold                        -> not shown
   c. otherwise                                                                -> better
3. The loss difference is below zero                                           -> worse
4. Matching answers became fewer, p < 0.05                                     -> worse
5. Otherwise                                                                   -> not shown

The control holds if the prompt gain and the control are both above zero, and the control is at least `SHARE` of the loss difference.

Why the control: answers shuffled over the training prompts still teach a model how answers look, and the hold-out loss falls. A model
that learned only this finds an answer no likelier behind its own prompt than behind another. Loss alone would call it better. The
gain must be above zero by itself, because a base may by accident do worse behind own prompts than behind others; and it must be a
part of the fall worth the name, because chance ties words of prompts and answers even in shuffled data, and intervals over items
do not know of that chance.
"""

from dataclasses import dataclass
from typing import Literal

from evaluate.statistics import Interval

Word = Literal["better", "worse", "not shown"]
FEWEST = (
    10  # with fewer items a bootstrap interval is far too narrow (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 14)
)
LEVEL = 0.05
SHARE = 0.10  # last answers shuffled on the shipped sample reached 0.065, on a small task (12 orders) 0.034; true answers 0.13 and 0.40


@dataclass(frozen=True)
class Paired:
    """Right or wrong, item by item: `gained` right with the tuned model only, `lost` with the base only, exact McNemar `p`."""

    gained: int
    lost: int
    n: int
    p: float

    @property
    def fewer(self) -> bool:
        """Significantly fewer items right with the tuned model."""
        return self.lost > self.gained and self.p < LEVEL


@dataclass(frozen=True)
class Verdict:
    """The word, and a sentence or two that say why."""

    word: Word
    reason: str


def judge(loss: Interval, gain: Interval, control: Interval | None, matches: tuple[Paired, ...]) -> Verdict:
    """The verdict by the rule above. `gain` is the tuned model's; `control` is None where no item has a prompt (plain documents)."""
    if loss.n < FEWEST:
        return Verdict("not shown", f"Only {loss.n} hold-out items: fewer than {FEWEST} say nothing. Hold out more (split.ratios).")
    spread = f"by {abs(loss.value):.3f} nats a token (95 % interval of the difference {loss.low:.3f} to {loss.high:.3f}, {loss.n} items)"
    fewer = next((match for match in matches if match.fewer), None)
    wrong = "" if fewer is None else f"matching answers became fewer: {fewer.lost} lost, {fewer.gained} gained (p = {fewer.p:.3g})"
    if loss.low > 0:
        fell = f"The hold-out loss fell {spread}"
        return Verdict("not shown", f"{fell}, but {wrong}.") if wrong else _fell(fell, loss, gain, control)
    if loss.high < 0:
        return Verdict("worse", f"The hold-out loss rose {spread}.")
    if fewer is not None:
        return Verdict("worse", f"The hold-out loss did not clearly change, and {wrong}.")
    return Verdict("not shown", f"The interval of the loss difference holds zero: {loss.low:.3f} to {loss.high:.3f} ({loss.n} items).")


def _fell(fell: str, loss: Interval, gain: Interval, control: Interval | None) -> Verdict:
    if control is None:
        return Verdict("better", f"{fell}. No item has a prompt, so whether prompts are used was not tested.")
    if control.n < FEWEST:
        return Verdict("not shown", f"{fell}, but only {control.n} items could be tested behind another prompt: fewer than {FEWEST}.")
    more = f"{control.value:.3f} (95 % interval {control.low:.3f} to {control.high:.3f}, {control.n} items)"
    if gain.low > 0 and control.low > 0 and control.value >= SHARE * loss.value:
        return Verdict("better", f"{fell}, and the item's own prompt helps the tuned model more than it helps the base: by {more}.")
    return Verdict(
        "not shown",
        f"{fell}, but it fell as much behind the prompts of other items: the model learned the style of the answers, and not to answer. "
        f"Its gain from the own prompt is {gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f}), more than the base's by {more}; "
        f"both must be above zero, and the second at least {SHARE:.0%} of the fall.",
    )
