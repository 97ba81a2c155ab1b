"""Asks one system the items: losses, the control behind other prompts, and greedy answers. Results go to disk batch by batch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from curate.record import StageFailure
from curate.stage import say
from evaluate import cost, holdout, inference, journal
from evaluate.holdout import Item
from evaluate.models import Loaded

Row = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """How to ask. See `params.yaml: evaluate`."""

    generate_items: int
    max_new_tokens: int
    few_shot: int
    batch_tokens: int
    quantize: Literal["none", "int8", "nf4"]
    precision: Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Questions:
    """What every system is asked: the same for all, and asserted so.

    `chosen` are the positions of the items that are answered; `partners` whose prompt each gets in the control.
    """

    items: Sequence[Item]
    chosen: Sequence[int]
    partners: Sequence[int | None]
    template: str  # hash of the chat template
    shelf: Path  # where unfinished journals lie
    used: set[Path]  # the journals of answers that this run asked for

    @staticmethod
    def of(items: Sequence[Item], settings: Settings, template: str, shelf: Path) -> "Questions":
        """The questions for these items."""
        asked = [at for at, item in enumerate(items) if item.has_prompt]
        places = sorted(holdout.by_hash([items[at].id for at in asked], settings.generate_items))
        return Questions(items, [asked[place] for place in places], holdout.partners(items), template, shelf, set())


def ask(system: str, loaded: Loaded, weights: str, begin: Sequence[np.ndarray], questions: Questions, settings: Settings) -> list[Row]:
    """One row per item (as in metrics.SCORES, without what is the item's own).

    `begin` are tokens put before each item (few-shot examples), `weights` tells one state of the system from another: with other weights or
    questions there is another journal. Without examples before it, the control is asked too.
    """
    items = questions.items
    rows = [np.concatenate([before, item.ids]) for before, item in zip(begin, items, strict=True)]
    key = _digest(weights, str(settings), *(row.tobytes() for row in rows), *(str(at) for at in questions.chosen))
    place = questions.shelf / f"{system}-{key}"
    losses = _losses(system, loaded, rows, [len(each) for each in begin], items, settings, place.with_suffix(".losses.jsonl"))
    control: dict[int, Row] = {}
    if not any(len(each) for each in begin):
        control = _control(system, loaded, questions, settings, place.with_suffix(".control.jsonl"))
    prompts = [rows[at][: len(begin[at]) + items[at].start] for at in questions.chosen]
    answers = _answers(system, loaded, prompts, questions, settings, place)
    cost.probe(loaded, prompts, lambda prompt: inference.batch_answers(loaded, [prompt], 1), place.with_suffix(".model.json"))
    found = []
    for at, item in enumerate(items):
        other, answer = control.get(at, {}), answers.get(at, {})
        row: Row = losses[at] | {"asked": asked(rows[at][len(begin[at]) : len(begin[at]) + item.start]), "tokens": int(item.trained.sum())}
        row |= {"other_id": other.get("other_id"), "other_loss": other.get("other_loss")}
        known = row["other_loss"] is not None and row["answer_loss"] is not None
        row["prompt_gain"] = row["other_loss"] - row["answer_loss"] if known else None
        found.append(row | {"output": answer.get("output"), "stop": answer.get("stop")})
    return found


def _losses(
    system: str, loaded: Loaded, rows: Sequence[np.ndarray], shown: Sequence[int], items: Sequence[Item], settings: Settings, path: Path
) -> dict[int, Row]:
    def work(batch: Sequence[int]) -> list[Row]:
        made = []
        for at, whole in zip(batch, inference.batch_losses(loaded, [rows[at] for at in batch]), strict=True):
            each, item = whole[shown[at] :], items[at]
            trained = each[item.trained]
            answer = float(each[item.start : item.stop].mean()) if item.has_prompt else None
            made.append({"loss_sum": float(trained.sum()), "loss": float(trained.mean()), "answer_loss": answer})
        return made

    return _run(system, "loss", path, [len(row) for row in rows], settings, work)


def _run(system: str, what: str, path: Path, lengths: Sequence[int], settings: Settings, work: Any) -> dict[int, Row]:
    """Runs a journal of losses and says how fast. A loss that is not a number is a training fault, unless memory was short (None)."""
    began = time.monotonic()
    journal.run(path, f"evaluate ({system}: {what})", list(inference.batches_by_length(lengths, settings.batch_tokens)), work, lengths)
    seconds, tokens = max(time.monotonic() - began, 1e-9), sum(lengths)
    say(f"evaluate: {system}: {what} of {len(lengths):,} rows, {tokens:,} tokens in {seconds:,.1f} s ({tokens / seconds:,.0f} tokens/s)")
    found = {row.pop("item"): row for row in journal.read(path)}
    bad = sum(row["loss" if what == "loss" else "other_loss"] is None for row in found.values())  # JSON has no NaN
    if bad:
        raise StageFailure(
            f"{system}: the {what} of {bad} of {len(found)} rows is not a number. Train again with a lower train.learning_rate; if a row "
            "did not fit into memory (see above), lower format.max_length."
        )
    return found


def _control(system: str, loaded: Loaded, questions: Questions, settings: Settings, path: Path) -> dict[int, Row]:
    """Whose prompt each item got, and the mean loss of its answer behind it.

    A pair that would be longer than any item is left out rather than cut: a prompt without its head is odd for every model.
    """
    items = questions.items
    longest = max(len(item.ids) for item in items)
    pairs = []
    for at, partner in enumerate(questions.partners):
        if partner is not None and items[partner].start + items[at].stop - items[at].start <= longest:
            pairs.append((at, partner))
    if not pairs:
        return {}
    rows = [
        np.concatenate([items[other].ids[: items[other].start], items[at].ids[items[at].start : items[at].stop]]) for at, other in pairs
    ]

    def work(batch: Sequence[int]) -> list[Row]:
        losses = inference.batch_losses(loaded, [rows[place] for place in batch])
        others = [items[pairs[place][1]] for place in batch]
        return [{"other_id": b.id, "other_loss": float(each[b.start :].mean())} for b, each in zip(others, losses, strict=True)]

    found = _run(system, "control", path, [len(row) for row in rows], settings, work)
    return {at: found[place] for place, (at, _) in enumerate(pairs)}


def _answers(
    system: str, loaded: Loaded, prompts: Sequence[np.ndarray], questions: Questions, settings: Settings, place: Path
) -> dict[int, Row]:
    path = place.with_suffix(".answers.jsonl")
    questions.used.add(path)

    def work(batch: Sequence[int]) -> list[Row]:
        made = inference.batch_answers(loaded, [prompts[at] for at in batch], settings.max_new_tokens)
        return [
            record_of(questions, at, loaded.tokenizer.decode(prompts[at].tolist()), each.text, each.stop, each.tokens)
            | {"prompt_tokens": len(prompts[at])}
            for at, each in zip(batch, made, strict=True)
        ]

    began = time.monotonic()
    batches = inference.answer_batches(loaded, [len(prompt) for prompt in prompts], settings.max_new_tokens, settings.batch_tokens)
    journal.run(path, f"evaluate ({system}: answers)", batches, work)
    say(f"evaluate: {system}: {len(prompts):,} answers in {time.monotonic() - began:,.1f} s")
    return {questions.chosen[row["item"]]: row for row in journal.read(path)}


def record_of(questions: Questions, at: int, prompt: str, output: str | None, stop: str, tokens: int) -> Row:
    """What is written of one answer: all that is needed to see what the model saw and why it stopped."""
    item = questions.items[questions.chosen[at]]
    return {
        "id": item.id, "prompt": prompt, "template": questions.template, "output": output, "stop": stop,
        "cut": stop not in ("end", "failed"), "tokens": tokens,
    }  # fmt: skip


def asked(tokens: np.ndarray) -> str:
    """A hash of the prompt's tokens."""
    return _digest(np.asarray(tokens, dtype=np.int64).tobytes())


def _digest(*parts: str | bytes) -> str:
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part if isinstance(part, bytes) else part.encode())
        state.update(b"\0")
    return state.hexdigest()
