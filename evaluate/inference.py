"""Asks a loaded model: losses of given tokens, and greedy continuations. A batch that does not fit into memory is asked in halves."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from curate.stage import say
from evaluate.models import Loaded

LOGIT_ROWS = 256  # positions whose logits are held in float32 at once: 150 MiB at a vocabulary of 150 000
Stop = Literal["end", "length", "context", "memory", "failed"]
Tokens = Sequence[int] | np.ndarray
T = TypeVar("T")


@dataclass(frozen=True)
class Generated:
    """A continuation without special tokens, why it ended, and how many tokens were made.

    `stop` is end (an end token came), length (the limit on new tokens), context (the model sees no more) or memory (it does not fit).
    """

    text: str
    stop: Stop
    tokens: int


@dataclass(frozen=True)
class Draw:
    """How answers are drawn: `seed` of torch's generator, set before each batch."""

    seed: int
    temperature: float
    top_p: float


def token_losses(loaded: Loaded, rows: Sequence[Tokens], budget: int, tick: Callable[[int], None]) -> list[np.ndarray]:
    """For each row of token ids the negative log-probability (nats) of every token given those before; NaN for the first.

    All NaN where even the row alone does not fit into memory.
    """
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    for at in batches_by_length([len(row) for row in rows], budget):
        for place, each in zip(at, batch_losses(loaded, [rows[place] for place in at]), strict=True):
            found[place] = each
        tick(len(at))
    return found


def batch_losses(loaded: Loaded, rows: Sequence[Tokens]) -> list[np.ndarray]:
    """As `token_losses`, in one pass where memory allows."""
    return in_halves(lambda part: _of_rows(loaded, part, _row_losses), rows, lambda row: np.full(len(row), np.nan))


def batch_likeliest(loaded: Loaded, rows: Sequence[Tokens]) -> list[np.ndarray]:
    """For each row of token ids whether each token is the likeliest given those before (the first never is); empty for a row too large."""
    return in_halves(lambda part: _of_rows(loaded, part, _row_likeliest), rows, lambda _: np.zeros(0, dtype=np.bool_))


def _of_rows(loaded: Loaded, rows: Sequence[Tokens], of: Callable[[Any, Any, int], np.ndarray]) -> list[np.ndarray]:
    """One pass over the rows; `of` takes a row's logits, its ids with padding, and its length."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):  # padding on the right: no token sees what stands after it
        ids[line, : len(row)] = torch.as_tensor(np.asarray(row, dtype=np.int64))
        mask[line, : len(row)] = 1
    with torch.inference_mode():
        ids, mask = ids.to(loaded.model.device), mask.to(loaded.model.device)
        logits = loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, -width:]  # virtual tokens stand before
        return [of(logits[line], ids[line], len(row)) for line, row in enumerate(rows)]


def _row_losses(logits: Any, ids: Any, length: int) -> np.ndarray:
    import torch

    losses = [np.full(1, np.nan)]
    for start in range(0, length - 1, LOGIT_ROWS):
        stop = min(start + LOGIT_ROWS, length - 1)
        block = torch.nn.functional.cross_entropy(logits[start:stop].float(), ids[start + 1 : stop + 1], reduction="none")
        losses.append(block.double().cpu().numpy())
    return np.concatenate(losses)


def _row_likeliest(logits: Any, ids: Any, length: int) -> np.ndarray:
    same = (logits[: length - 1].argmax(dim=-1) == ids[1:length]).cpu().numpy()
    return np.concatenate([np.zeros(1, dtype=np.bool_), same])


def answer_batches(loaded: Loaded, lengths: Sequence[int], most: int, budget: int) -> list[list[int]]:
    """Prompts (by their lengths in tokens) in batches that may make the same number of new tokens; longest first."""
    room = [room_of(loaded, length, most) for length in lengths]
    found = []
    for allowed in sorted(set(room)):
        same = [place for place in range(len(lengths)) if room[place] == allowed]
        found += [[same[place] for place in group] for group in batches_by_length([lengths[place] + allowed for place in same], budget)]
    return found


def room_of(loaded: Loaded, length: int, most: int) -> int:
    """New tokens that fit behind a prompt of `length`: 0 if none do."""
    return max(0, min(most, loaded.limit - length))


def batch_answers(loaded: Loaded, prompts: Sequence[Tokens], most: int) -> list[Generated]:
    """Greedy answers of at most `most` tokens to prompts of one of `answer_batches`; each stops at an end token or the model's limit."""
    allowed = min(room_of(loaded, len(prompt), most) for prompt in prompts)
    if not allowed:
        return [Generated("", "context", 0)] * len(prompts)
    full: Stop = "length" if allowed == most else "context"
    return in_halves(lambda part: _answers(loaded, part, allowed, full), prompts, lambda _: Generated("", "memory", 0))


def batch_samples(loaded: Loaded, prompts: Sequence[Tokens], most: int, draw: Draw) -> list[Generated]:
    """As `batch_answers`, drawn at random: the same prompts and seed give the same answers."""
    allowed = min(room_of(loaded, len(prompt), most) for prompt in prompts)
    if not allowed:
        return [Generated("", "context", 0)] * len(prompts)
    full: Stop = "length" if allowed == most else "context"
    return in_halves(lambda part: _answers(loaded, part, allowed, full, draw), prompts, lambda _: Generated("", "memory", 0))


def _answers(loaded: Loaded, prompts: Sequence[Tokens], allowed: int, full: Stop, draw: Draw | None = None) -> list[Generated]:
    import torch

    how: dict[str, Any] = {}
    if draw is not None:
        torch.manual_seed(draw.seed)
        how = {"do_sample": True, "temperature": draw.temperature, "top_p": draw.top_p, "top_k": 0}
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), loaded.model.generation_config.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, prompt in enumerate(prompts):  # padding on the left: the continuation follows the prompt's last token
        ids[line, width - len(prompt) :] = torch.as_tensor(np.asarray(prompt, dtype=np.int64))
        mask[line, width - len(prompt) :] = 1
    with torch.inference_mode():
        whole = loaded.model.generate(
            input_ids=ids.to(loaded.model.device), attention_mask=mask.to(loaded.model.device), max_new_tokens=allowed, **how
        )
    return [_decoded(loaded, new, full) for new in whole[:, width:].tolist()]


def _decoded(loaded: Loaded, new: list[int], full: Stop) -> Generated:
    end = next((at for at, token in enumerate(new) if token in loaded.stops), None)
    text = loaded.tokenizer.decode(new[:end], skip_special_tokens=True)
    return Generated(text.strip(), full if end is None else "end", len(new) if end is None else end + 1)


def in_halves(work: Callable[[Sequence[Tokens]], list[T]], rows: Sequence[Tokens], too_large: Callable[[Tokens], T]) -> list[T]:
    """`work` on all rows at once, or in halves where memory runs out; a row that does not fit alone gives `too_large(row)`."""
    try:
        return work(rows)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError, and so is what the CPU's allocator raises
        if not (isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower()):
            raise
    empty_cache()
    if len(rows) == 1:
        say(f"evaluate: a row of {len(rows[0]):,} tokens does not fit into memory, even alone. It is left out.")
        return [too_large(rows[0])]
    say(f"evaluate: {len(rows)} rows do not fit into memory together: asked in halves. A lower evaluate.batch_tokens avoids the detour.")
    middle = len(rows) // 2
    return in_halves(work, rows[:middle], too_large) + in_halves(work, rows[middle:], too_large)


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions in batches of like length, longest first, each at most `budget` tokens with its padding (or one row).

    >>> list(batches_by_length([3, 9, 4, 4], 9))
    [[1], [2, 3], [0]]
    """
    batch: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def empty_cache() -> None:
    """Give back what the accelerator still holds of finished work."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
