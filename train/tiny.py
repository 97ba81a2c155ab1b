"""Makes the tiny base model: a byte-level BPE tokenizer and a small Llama, pretrained on the messages of the train split.

Each message is a document of its own, so that the base knows the format, the roles, how questions and answers sound and where they
end, but no answer to any question: a question never stands in the same window as an answer of its row (see `windows`). What
fine-tuning gains on top comes from the pairing. Weights may differ between kinds of CPU; the tokenizer does not.
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xxhash

from curate import record, store
from curate.record import InputError
from curate.stage import say
from curate.template import load_template, render, without_control

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # ids 0, 1, 2
CONTROL = re.compile("|".join(map(re.escape, (PAD, START, END))))


@dataclass(frozen=True)
class Message:
    """One message as a document. `order` shuffles; `half` is 0 or 1, and never the same for a question and an answer of one row."""

    role: str
    content: str
    order: int
    half: int


@dataclass(frozen=True)
class Shape:
    """The model: tokens, width, layers, heads, tokens of context."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    context: int


@dataclass(frozen=True)
class Schedule:
    """The pretraining: AdamW, cosine, fp32."""

    steps: int
    batch_tokens: int
    lr: float
    seed: int
    threads: int


def messages(data: Path, limit: int, seed: int) -> list[Message]:
    """The messages of the train split, shuffled; of about `limit` bytes of text if it holds more, whole rows chosen by their id.

    A system prompt that many rows share is taken once. Raises InputError if there is no train split or no text.
    """
    total = sum(int(flat["content"].str.len_bytes().sum()) for flat in _train_texts(data))
    share = min(1.0, limit / max(total, 1))
    found, systems = [], set()
    for flat in _train_texts(data):
        for row_id, turn, role, content in flat.select("id", "turn", "role", "content").iter_rows():
            number = xxhash.xxh3_64_intdigest(row_id.encode())
            if number >= share * 2**64 or not content or not content.strip() or (role == "system" and content in systems):
                continue
            if role == "system":
                systems.add(content)
            order = xxhash.xxh3_64_intdigest(f"{turn}:{row_id}".encode(), seed=seed)
            found.append(Message(role, content, order, (number & 1) ^ (role == "assistant")))
    if not found:
        raise InputError(f"{data}: its train split holds no text to make a base model from. Add examples, or set base.model.")
    return sorted(found, key=lambda each: (each.order, each.role, each.content))


def _train_texts(data: Path) -> Iterator[pl.DataFrame]:
    if not any(part.split == "train" for part in store.parts(data)):
        raise InputError(f"{data}: has no train split (kept/train). Give a folder that split or a later stage wrote.")
    for batch in store.batches(data, ["id", "messages"]):
        rows = batch.filter(pl.col("split") == "train").with_columns(pl.lit(None, dtype=pl.List(record.MESSAGE)).alias("rejected"))
        if rows.height:
            yield record.texts(rows).with_columns(rows["id"].gather(record.texts(rows)["at"]).alias("id"))


def make_tokenizer(texts: Sequence[str], vocab_size: int, context: int) -> Any:
    """A byte-level BPE of at most `vocab_size` tokens, digits apart; the same texts in the same order give the same files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=PAD,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def windows(found: Sequence[Message], tokenizer: Any, context: int) -> np.ndarray:
    """The messages in ChatML, packed end to end into windows of `context` tokens: (windows, context) i64.

    Each window holds messages of one half only. A question and the answers of its row are in different halves. Raises InputError if
    the text does not fill two windows.
    """
    chatml = load_template("chatml", Path())
    packed = []
    total = 0
    for half in (0, 1):
        rendered = [_rendered(message, chatml) for message in found if message.half == half]
        encoded = tokenizer.backend_tokenizer.encode_batch_fast(rendered, add_special_tokens=False)
        stream = np.concatenate([np.asarray(each.ids, dtype=np.int64) for each in encoded]) if encoded else np.zeros(0, np.int64)
        total += len(stream)
        packed.append(stream[: len(stream) // context * context].reshape(-1, context))
    whole = np.concatenate(packed)
    if len(whole) < 2:
        raise InputError(
            f"the train split's text is too short to pretrain on: {total:,} tokens, and base.tiny.context = {context} needs at least "
            f"{4 * context:,}. Add examples, lower base.tiny.context, or set base.model."
        )
    return whole


def _rendered(message: Message, chatml: str) -> str:
    content = without_control(message.content, CONTROL)
    if message.role == "text":  # a plain document, as `format` ends it
        return content + END
    return render([{"role": message.role, "content": content}], chatml, False)


def pretrain(data: np.ndarray, shape: Shape, schedule: Schedule, tokenizer: Any) -> tuple[Any, float]:
    """A LlamaForCausalLM trained on windows (windows, context), and its mean loss (nats a token) over the last tenth of the steps."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is below
    torch.set_num_threads(schedule.threads)
    torch.manual_seed(schedule.seed)
    model = LlamaForCausalLM(_config(LlamaConfig, shape, tokenizer))
    model.train()
    batch = max(1, schedule.batch_tokens // shape.context)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    rest = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.95))
    say(
        f"base: pretraining {model.num_parameters():,} parameters on {data.size:,} tokens, "
        f"{schedule.steps} steps of {batch * shape.context:,}"
    )
    losses: list[float] = []
    start = shown = time.monotonic()
    for step, rows in zip(range(schedule.steps), _order(len(data), batch, schedule.seed), strict=False):
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr * _rate(step, schedule.steps)
        ids = torch.from_numpy(data[rows])
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        now = time.monotonic()
        if now - shown >= 5 or step + 1 == schedule.steps:
            shown, done = now, step + 1
            rate = done * batch * shape.context / (now - start)
            left = (schedule.steps - done) * (now - start) / done
            say(f"base: step {done}/{schedule.steps}, loss {losses[-1]:.3f}, {rate:,.0f} tokens/s, {left:,.0f} s left")
    model.eval()
    return model, float(np.mean(losses[-max(1, len(losses) // 10) :]))


def _config(kind: Any, shape: Shape, tokenizer: Any) -> Any:
    return kind(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=math.ceil(shape.hidden * 8 / 3 / 16) * 16,  # Llama's ratio for SwiGLU
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a twentieth of the steps up, then a cosine down to a tenth."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _order(count: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of window numbers without end; every window once before any comes again."""
    numbers = np.random.default_rng(seed)
    waiting = np.zeros(0, np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, numbers.permutation(count)])
        yield waiting[:batch]
        waiting = waiting[batch:]
