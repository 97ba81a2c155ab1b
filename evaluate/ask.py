"""Asks every system the same items in the same words: losses, the control behind other prompts, and greedy answers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import xxhash

from curate.record import InputError, StageFailure
from curate.stage import Progress, say
from evaluate import holdout, metrics, models
from evaluate.holdout import Item
from evaluate.models import Loaded


@dataclass(frozen=True)
class Settings:
    """How to ask. See `params.yaml: evaluate`."""

    generate_items: int
    max_new_tokens: int
    few_shot: int
    batch_tokens: int
    quantize: Literal["none", "int8", "nf4"]
    precision: Literal["auto", "fp32", "bf16"]


def every_system(
    items: list[Item], format_dir: Path, base_dir: Path, adapter: Path, settings: Settings
) -> tuple[pl.DataFrame, list[Item], int]:
    """The scores of all systems, the items that fit the model, and how many do not. An adapter shares the base's memory."""
    if not adapter.is_dir():
        raise InputError(f"{adapter}: no such folder. Run train first (`dvc repro` does).")
    base = models.load_base(base_dir, settings.quantize, settings.precision)
    _check_tokens(items, base, format_dir, base_dir)
    fitting = [item for item in items if len(item.ids) <= base.limit]
    if not fitting:
        raise InputError(f"{format_dir}: every test row is longer than the {base.limit} tokens of the model. Lower format.max_length.")
    base = models.with_stops(base, _end_tokens(fitting, base.tokenizer))
    partners = holdout.partners(fitting)
    plain: list[tuple[tuple[int, ...], ...]] = [()] * len(fitting)
    scores = [_ask("base", base, fitting, plain, partners, settings)]
    if settings.few_shot:
        longest = base.limit // (settings.few_shot + 1)
        examples = holdout.shots(format_dir, fitting, settings.few_shot, longest)
        scores.append(_ask("few_shot", base, fitting, _that_fit(examples, fitting, base, settings), None, settings))
    tuned = models.with_adapter(base, adapter)
    models.forget(base)
    scores.append(_ask("tuned", tuned, fitting, plain, partners, settings))
    check_same_questions(scores)
    return pl.concat(scores), fitting, len(items) - len(fitting)


def _check_tokens(items: Sequence[Item], base: Loaded, format_dir: Path, base_dir: Path) -> None:
    highest, known = max(max(item.ids) for item in items), int(base.model.get_input_embeddings().weight.shape[0])
    if highest >= known:
        raise InputError(
            f"{format_dir}: holds token {highest}, but the base in {base_dir} knows {known} tokens. It was formatted with another "
            "tokenizer: set format.tokenizer to the base's and run format again."
        )


def _end_tokens(items: Sequence[Item], tokenizer: Any) -> list[int]:
    """Special tokens that end trained answers: where generation must stop."""
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return sorted({item.ids[item.stop - 1] for item in items} & special)


def _that_fit(
    examples: Sequence[tuple[tuple[int, ...], ...]], items: Sequence[Item], base: Loaded, settings: Settings
) -> list[tuple[tuple[int, ...], ...]]:
    """As many examples before each item as leave room for it and its answer."""
    found = []
    for item, shown in zip(items, examples, strict=True):
        room = base.limit - max(len(item.ids), item.start + settings.max_new_tokens)
        fit = []
        for example in shown:
            room -= len(example)
            if room < 0:
                break
            fit.append(example)
        found.append(tuple(fit))
    return found


def _ask(
    system: str,
    loaded: Loaded,
    items: Sequence[Item],
    examples: Sequence[tuple[tuple[int, ...], ...]],
    partners: Sequence[int | None] | None,
    settings: Settings,
) -> pl.DataFrame:
    """One row per item: losses, the control's losses (where `partners` are given), and continuations of the items chosen for them."""
    begin = [tuple(token for example in shown for token in example) for shown in examples]
    rows = [(*before, *item.ids) for before, item in zip(begin, items, strict=True)]
    tick = _ticker(f"evaluate ({system}: loss)", len(rows))
    losses = [each[len(before) :] for each, before in zip(_timed(system, loaded, rows, settings, tick), begin, strict=True)]
    other = _behind_others(system, loaded, items, partners, settings) if partners is not None else {}
    outputs = _outputs(system, loaded, items, begin, settings)
    found = []
    for at, (item, loss) in enumerate(zip(items, losses, strict=True)):
        trained = loss[np.array(item.trained)]
        answer = float(loss[item.start : item.stop].mean()) if item.has_prompt else None
        other_id, other_loss = other.get(at, (None, None))
        text = outputs.get(at)
        found.append(
            {
                "item": at,
                "id": item.id,
                "source": item.source,
                "line": item.line,
                "kind": item.kind,
                "label": item.label,
                "system": system,
                "asked": _digest(rows[at][len(begin[at]) : len(begin[at]) + item.start]),
                "shots": len(examples[at]),
                "tokens": len(trained),
                "loss_sum": float(trained.sum()),
                "loss": float(trained.mean()),
                "answer_loss": answer,
                "other_id": other_id,
                "other_loss": other_loss,
                "prompt_gain": other_loss - answer if other_loss is not None and answer is not None else None,
                "output": text.text if text else None,
                "cut": text.cut if text else None,
            }
        )
    return pl.DataFrame(found, schema=metrics.SCORES)


def _timed(system: str, loaded: Loaded, rows: Sequence[Sequence[int]], settings: Settings, tick: Callable[[int], None]) -> list[np.ndarray]:
    began = time.monotonic()
    found = models.token_losses(loaded, rows, settings.batch_tokens, tick)
    seconds, tokens = max(time.monotonic() - began, 1e-9), sum(map(len, rows))
    say(f"evaluate: {system}: loss of {len(rows):,} rows, {tokens:,} tokens in {seconds:,.1f} s ({tokens / seconds:,.0f} tokens/s)")
    bad = sum(not np.isfinite(each[1:]).all() for each in found)
    if bad:
        raise StageFailure(
            f"{system}: the loss of {bad} of {len(rows)} rows is not a number. Train again with a lower train.learning_rate."
        )
    return found


def _behind_others(
    system: str, loaded: Loaded, items: Sequence[Item], partners: Sequence[int | None], settings: Settings
) -> dict[int, tuple[str, float]]:
    """The control: (whose prompt, mean loss of the answer behind it) by item.

    A pair that would be longer than any item is left out rather than cut: a prompt without its head is odd for every model.
    """
    longest = max(len(item.ids) for item in items)
    pairs = []
    for at, partner in enumerate(partners):
        if partner is not None and items[partner].start + items[at].stop - items[at].start <= longest:
            pairs.append((at, partner))
    rows = [(*items[other].ids[: items[other].start], *items[at].ids[items[at].start : items[at].stop]) for at, other in pairs]
    losses = _timed(f"{system}, control", loaded, rows, settings, _ticker(f"evaluate ({system}: control)", len(rows)))
    return {at: (items[other].id, float(each[items[other].start :].mean())) for (at, other), each in zip(pairs, losses, strict=True)}


def _outputs(
    system: str, loaded: Loaded, items: Sequence[Item], begin: Sequence[tuple[int, ...]], settings: Settings
) -> dict[int, models.Generated]:
    asked = [at for at, item in enumerate(items) if item.has_prompt]
    chosen = [asked[place] for place in sorted(holdout.by_hash([items[at].id for at in asked], settings.generate_items))]
    prompts = [(*begin[at], *items[at].ids[: items[at].start]) for at in chosen]
    began = time.monotonic()
    tick = _ticker(f"evaluate ({system}: answers)", len(prompts))
    found = models.generate(loaded, prompts, settings.max_new_tokens, settings.batch_tokens, tick)
    say(f"evaluate: {system}: {len(prompts):,} answers in {time.monotonic() - began:,.1f} s")
    return dict(zip(chosen, found, strict=True))


def _ticker(name: str, total: int) -> Callable[[int], None]:
    progress = Progress(name, total)

    def tick(count: int) -> None:
        progress.add(count)
        if progress.count >= total:
            progress.done()

    return tick


def _digest(tokens: Sequence[int]) -> str:
    return xxhash.xxh3_64_hexdigest(np.asarray(tokens, dtype=np.int64).tobytes())


def check_same_questions(scores: Sequence[pl.DataFrame]) -> None:
    """Comparisons are worth nothing if the systems were not asked the same."""
    for each in scores[1:]:
        if not each.select("item", "id", "asked", "tokens").equals(scores[0].select("item", "id", "asked", "tokens")):
            raise StageFailure("the systems were not asked the same items and prompts. This is a fault in evaluate.")
