"""Does an answer hold when the question is typed badly? The same items with typos, lost punctuation, a greeting or all in lower case.

What the user said last is changed (curate/perturb.py, as augment does for training rows), the rest of the prompt and the answer stay. For
each system the items with a changed question are held against the same items as they are: the loss of the answer, and the metrics
of its answers. Which item changes how depends on its id and `evaluate.seed` alone.
"""

import os.path
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
import xxhash
from pydantic import Field

from curate import perturb, template
from curate.params import params_class
from evaluate import ask, holdout, inference, journal, measures, metrics
from evaluate.ask import Questions, Settings
from evaluate.holdout import Item
from evaluate.models import Loaded

GREETINGS = ("Hi!", "Hello,", "Good morning.", "Hey there,", "Dear team,")
ASKED, SAID, AGAIN = "finery question", "finery answer", "finery question again"  # stand for texts in the template
KIND_TITLES = {"typos": "typos", "punctuation": "punctuation lost or doubled", "greeting": "a greeting before it", "case": "lower case"}


@params_class
class Robustness:
    """`params.yaml: evaluate.robustness`."""

    items: Annotated[int, Field(ge=10)]
    kinds: Annotated[tuple[Literal["typos", "punctuation", "greeting", "case"], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Changed:
    """Item number `item` with its question changed by `kind`: its tokens, and where its answer starts."""

    item: int
    kind: str
    ids: np.ndarray
    start: int


@dataclass(frozen=True)
class Variants:
    """The changed items, and for each kind how many could not be changed and why."""

    changed: list[Changed]
    left_out: dict[str, dict[str, int]]


Asked = dict[str, list[dict[str, Any]]]  # by system, in the order of the variants: answer_loss, output


def marks(folder: Path, tokenizer: Any) -> tuple[str, str]:
    """What stands before a user's last message in a rendered prompt, and behind it; both empty where format kept no template."""
    path = folder / "template.jinja"
    if not path.is_file():
        return "", ""
    turns: list[Mapping[str, Any]] = [
        {"role": role, "content": text} for role, text in (("user", ASKED), ("assistant", SAID), ("user", AGAIN))
    ]
    whole = template.render(turns, path.read_text(encoding="utf-8"), True, dict(tokenizer.special_tokens_map))
    first, later = whole[: whole.index(ASKED)], whole[whole.index(SAID) + len(SAID) : whole.index(AGAIN)]
    before = os.path.commonprefix([first[::-1], later[::-1]])[::-1]  # noqa: RUF071 (texts, not paths)
    return before, whole[whole.index(AGAIN) + len(AGAIN) :]


def question(prompt: str, around: tuple[str, str], special: Sequence[str]) -> tuple[int, int] | None:
    """Where the user's last message stands in a prompt; None if the prompt ends otherwise (with a tool's result, say)."""
    before, behind = around
    start, stop = prompt.rfind(before) + len(before) if before else 0, len(prompt) - len(behind)
    if not prompt.endswith(behind) or (before and before not in prompt) or start >= stop:
        return None
    text = prompt[start:stop]
    if any(token in text for token in special) or (behind.strip() and behind.strip() in text):
        return None
    return start, stop


def variants(
    items: Sequence[Item], wanted: Robustness, around: tuple[str, str], tokenizer: Any, limit: int, room: int, seed: int
) -> Variants:
    """At most `wanted.items` items of each kind, by hash of their ids, that fit into `limit` tokens with `room` for an answer."""
    asked = [at for at, item in enumerate(items) if item.has_prompt]
    places = [asked[place] for place in sorted(holdout.by_hash([items[at].id for at in asked], wanted.items))]
    made: list[Changed] = []
    left_out: dict[str, dict[str, int]] = {}
    for kind in wanted.kinds:
        missed: Counter[str] = Counter()
        for at in places:
            found = _changed(items[at], at, kind, around, tokenizer, seed)
            if isinstance(found, Changed) and max(len(found.ids), found.start + room) > limit:
                found = "longer_than_model"
            if isinstance(found, Changed):
                made.append(found)
            else:
                missed[found] += 1
        left_out[kind] = dict(missed)
    return Variants(made, left_out)


def _changed(item: Item, at: int, kind: str, around: tuple[str, str], tokenizer: Any, seed: int) -> Changed | str:
    """The item with its question changed, or why not."""
    own = item.ids[: item.start]
    prompt = tokenizer.decode(own.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    place = question(prompt, around, tokenizer.all_special_tokens)
    if place is None:
        return "no_question_at_the_end"
    if tokenizer(prompt, add_special_tokens=False)["input_ids"] != own.tolist():
        return "other_tokens_when_read_again"  # then a change would be more than the change
    text = prompt[place[0] : place[1]]
    other = perturb.changed(text, kind, f"{seed}\x1f{item.id}\x1f{kind}", GREETINGS)
    if other == text:
        return "nothing_to_change"
    ids = tokenizer(prompt[: place[0]] + other + prompt[place[1] :], add_special_tokens=False)["input_ids"]
    answer = item.ids[item.start : item.stop]
    return Changed(at, kind, np.concatenate([np.array(ids, dtype=np.int32), answer]), len(ids))


def asked_of(system: str, loaded: Loaded, weights: str, made: Variants, questions: Questions, settings: Settings) -> list[dict[str, Any]]:
    """For each variant the mean loss of the answer, and an answer where the item itself is answered; journalled like all answers."""
    changed = made.changed
    key = xxhash.xxh3_64_hexdigest("\0".join([weights, str(settings), *(ask.asked(each.ids) for each in changed)]).encode())
    place = questions.shelf / f"{system}-{key}"

    def losses(batch: Sequence[int]) -> list[dict[str, Any]]:
        found = inference.batch_losses(loaded, [changed[at].ids for at in batch])
        return [{"answer_loss": float(each[changed[at].start :].mean())} for at, each in zip(batch, found, strict=True)]

    lengths = [len(each.ids) for each in changed]
    path = place.with_suffix(".robust.jsonl")
    batches = list(inference.batches_by_length(lengths, settings.batch_tokens))
    journal.run(path, f"evaluate ({system}: loss of changed questions)", batches, losses, lengths)
    found: list[dict[str, Any]] = [{"answer_loss": None, "output": None} for _ in changed]
    for row in journal.read(path):
        found[row["item"]]["answer_loss"] = row["answer_loss"]
    answered = [at for at, each in enumerate(changed) if each.item in set(questions.chosen)]
    prompts = [changed[at].ids[: changed[at].start] for at in answered]

    def answers(batch: Sequence[int]) -> list[dict[str, Any]]:
        said = inference.batch_answers(loaded, [prompts[at] for at in batch], settings.max_new_tokens)
        return [{"output": each.text, "stop": each.stop, "tokens": each.tokens, "prompt_tokens": len(prompts[at])}
                for at, each in zip(batch, said, strict=True)]  # fmt: skip

    path = place.with_suffix(".robust-answers.jsonl")
    batches = inference.answer_batches(loaded, [len(prompt) for prompt in prompts], settings.max_new_tokens, settings.batch_tokens)
    journal.run(path, f"evaluate ({system}: answers to changed questions)", batches, answers)
    for row in journal.read(path):
        found[answered[row["item"]]]["output"] = row["output"]
    return found


def figures(
    made: Variants, asked: Asked, scores: pl.DataFrame, references: Sequence[str], names: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    """Per system and kind the paired differences to the items as they are: below zero, the changed question does worse.

    `tuned_against_base` is the rise of the tuned model's loss taken from that of the base: below zero, the tuned model suffers more.
    """
    kinds = list(made.left_out)
    frames = {system: _frame(made, rows, scores.filter(pl.col("system") == system), references, names) for system, rows in asked.items()}
    systems = {
        system: {kind: _of_kind(frame.filter(pl.col("kind") == kind), names, seed, resamples) for kind in kinds}
        for system, frame in frames.items()
    }
    against = {}
    for kind in kinds:
        tuned, base = (frames[system].filter(pl.col("kind") == kind) for system in ("tuned", "base"))
        both = tuned.join(base, on="item", suffix="_base", validate="1:1", maintain_order="left").drop_nulls(["rise", "rise_base"])
        groups = both["group"].to_list() if both["group"].n_unique() < both.height else None
        favour = both["rise_base"].to_numpy() - both["rise"].to_numpy()
        against[kind] = asdict(metrics.mean_difference(favour, groups, True, seed, resamples))
    return {"left_out": made.left_out, "systems": systems, "tuned_against_base": against}


def _frame(
    made: Variants, rows: Sequence[dict[str, Any]], own: pl.DataFrame, references: Sequence[str], names: Sequence[str]
) -> pl.DataFrame:
    """A row for each variant: `loss` and the metrics of the changed item, with `_other` behind them those of the item itself."""
    mine = pl.DataFrame(
        {
            "item": [each.item for each in made.changed],
            "kind": [each.kind for each in made.changed],
            "loss": [row["answer_loss"] for row in rows],
            "output": [row["output"] for row in rows],
        },
        schema={"item": pl.UInt32, "kind": pl.String, "loss": pl.Float64, "output": pl.String},
    )
    before = own.select(
        "item", "group", "label", pl.col("answer_loss").alias("loss_other"), *(pl.col(name).alias(f"{name}_other") for name in names)
    )
    whole = mine.join(before, on="item", how="inner", maintain_order="left", validate="m:1")
    columns = []
    said = whole["output"].to_list()
    known = [at for at, text in enumerate(said) if text is not None]
    labels = whole["label"].to_list()
    for name in names:
        values: list[float | None] = [None] * len(said)
        worth = measures.scores(
            name, [said[at] for at in known], [references[whole["item"][at]] for at in known], [labels[at] for at in known]
        )
        for at, value in zip(known, worth, strict=True):
            values[at] = value
        columns.append(pl.Series(name, values, dtype=pl.Float64))
    return whole.with_columns(*columns, (pl.col("loss") - pl.col("loss_other")).alias("rise"))


def _of_kind(pairs: pl.DataFrame, names: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    return {name: asdict(metrics.difference(pairs, name, seed, resamples)) for name in ("loss", *names)}
