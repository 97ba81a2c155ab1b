"""Rows for each method, streamed from format's parts into one Arrow file and mapped from there.

| method | rows taken | columns |
|---|---|---|
| sft | all | input_ids, labels |
| pretrain | kind `text` | input_ids, labels |
| dpo, orpo | preference | prompt_ids, chosen_ids, rejected_ids |
| reward | preference | chosen_ids, rejected_ids (prompt included) |
| kto | preference, two rows of each, shuffled | prompt_ids, completion_ids, KL_completion_ids, label |
| grpo | with a prompt and an answer | prompt (text), reference |
| classify | with a label | input_ids, labels (the label's number) |

Token ids are those that format made (docs/format.md lists its columns). What a method cannot use is counted by reason.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from curate import store
from curate.record import InputError
from train.allowed import PAIRS

NOT_TRAINED = -100
IDS = pa.large_list(pa.int32())
SCHEMAS = {
    "sft": pa.schema([("input_ids", IDS), ("labels", IDS)]),
    "pretrain": pa.schema([("input_ids", IDS), ("labels", IDS)]),
    "dpo": pa.schema([("prompt_ids", IDS), ("chosen_ids", IDS), ("rejected_ids", IDS)]),
    "orpo": pa.schema([("prompt_ids", IDS), ("chosen_ids", IDS), ("rejected_ids", IDS)]),
    "reward": pa.schema([("chosen_ids", IDS), ("rejected_ids", IDS)]),
    "kto": pa.schema([("prompt_ids", IDS), ("completion_ids", IDS), ("label", pa.bool_())]),
    "grpo": pa.schema([("prompt", pa.large_string()), ("reference", pa.large_string())]),
    "classify": pa.schema([("input_ids", IDS), ("labels", pa.int64())]),
}
NEEDED = {
    "sft": ("input_ids", "labels"),
    "pretrain": ("kind", "input_ids", "labels"),
    **dict.fromkeys(PAIRS, ("prompt_ids", "chosen_ids", "rejected_ids")),
    "grpo": ("prompt", "answer"),
    "classify": ("label", "input_ids", "labels"),
}
NONE_FIT = {
    "sft": "Look at the dropped.parquet of the format stage.",
    "pretrain": "pretrain takes rows of kind text (plain documents): add some to data/raw, or use method sft.",
    **dict.fromkeys(PAIRS, "This method takes preference rows (two answers to one prompt): add some to data/raw, or use method sft."),
    "grpo": "grpo takes rows with a prompt and an answer to check against.",
    "classify": "classify takes rows with a label: see the column `label` of the record.",
}


@dataclass(frozen=True)
class Rows:
    """One split, mapped from disk, with what was counted on the way there. `trained`: tokens that carry loss."""

    rows: Dataset
    tokens: int
    trained: int
    longest: int
    highest: int  # token id
    without_loss: int  # rows of which no token carries loss
    left_out: dict[str, int]  # rows that the method cannot use, by reason


@dataclass
class _Counts:
    tokens: int = 0
    trained: int = 0
    longest: int = 0
    highest: int = 0
    without: int = 0

    def add(self, length: int, trained: int, highest: int) -> None:
        self.tokens += length
        self.trained += trained
        self.longest = max(self.longest, length)
        self.highest = max(self.highest, highest)


def read(data: Path, split: str, method: str, scratch: Path, labels: list[str], tokenizer: Any, limit: int) -> Rows:
    """The rows of `split` that `method` can use. `labels`: the classes, in order (classify). `limit`: tokens that the base can see.

    Raises InputError if a column is missing, or the training split has no row that fits.
    """
    target = scratch / f"{split}.arrow"
    counts, left = _Counts(), Counter[str]()
    schema = SCHEMAS[method]
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for path in (part.path for part in store.parts(data) if part.split == split):
            for batch in _batches(path, _columns(path, method)):
                if method in ("sft", "pretrain"):
                    table = _tokens(batch, path, method, counts, left).cast(schema)
                else:
                    made = _convert(batch, method, counts, left, labels, tokenizer, limit)
                    table = pa.Table.from_pylist(made, schema=schema)
                writer.write_table(table)
    rows = Dataset.from_file(str(target))
    if split == "train" and not len(rows):
        why = f" (left out: {', '.join(f'{count:,} {reason}' for reason, count in left.items())})" if left else ""
        raise InputError(f"{data}: no training row fits train.method = {method}{why}. {NONE_FIT[method]}")
    return Rows(rows, counts.tokens, counts.trained, counts.longest, counts.highest, counts.without, dict(left))


def classes(data: Path) -> list[str]:
    """The labels of the training split, sorted. Raises InputError if there are fewer than two."""
    found: set[str] = set()
    for part in store.parts(data):
        if part.split == "train":
            if "label" not in pq.read_schema(part.path).names:
                raise InputError(f"{part.path}: has no column label. Give a folder that split, augment, leakage or format wrote.")
            found |= set(pl.read_parquet(part.path, columns=["label"])["label"].drop_nulls().to_list())
    if len(found) < 2:
        raise InputError(f"{data}: its training rows have {len(found)} different labels; classify needs two or more.")
    return sorted(found)


def paired_by_batch(rows: Dataset, batch_size: int, seed: int) -> Dataset:
    """KTO's rows in a fixed random order, each with the answer of another row of its batch, from which TRL estimates the divergence."""

    def rotated(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        answers = batch["completion_ids"]
        return {"KL_completion_ids": [answers[-1], *answers[:-1]]}

    return rows.shuffle(seed=seed).flatten_indices().map(rotated, batched=True, batch_size=batch_size)


def _columns(path: Path, method: str) -> tuple[str, ...]:
    there = pq.read_schema(path).names
    if method == "classify" and "messages" in there:
        return ("label", "messages")
    missing = [name for name in NEEDED[method] if name not in there]
    if missing:
        raise InputError(f"{path}: has no column {' and '.join(missing)}. Give the folder that the format stage wrote (data/format).")
    return NEEDED[method]


def _batches(path: Path, columns: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(store.GROUP_ROWS, columns=list(columns)):
            yield pl.DataFrame(batch)


def _tokens(batch: pl.DataFrame, path: Path, method: str, counts: _Counts, left: Counter[str]) -> Any:
    """Both columns as format made them, counted."""
    if method == "pretrain":
        chosen = batch.filter(pl.col("kind") == "text")
        if chosen.height < batch.height:
            left["not_text"] += batch.height - chosen.height
        batch = chosen
    batch = batch.select("input_ids", "labels")
    lengths = batch["input_ids"].list.len()
    if (lengths != batch["labels"].list.len()).any():
        raise InputError(f"{path}: input_ids and labels of a row differ in length. Run the format stage again.")
    # The first token of a row is predicted by nothing, so it carries no loss whatever its label says.
    loss = batch["labels"].list.slice(1).list.eval((pl.element() != NOT_TRAINED).cast(pl.Int64)).list.sum()
    counts.tokens += int(lengths.sum() or 0)
    counts.trained += int(loss.sum() or 0)
    counts.without += int((loss == 0).sum() or 0)
    counts.longest = max(counts.longest, _int(lengths.max()))
    counts.highest = max(counts.highest, _int(batch["input_ids"].list.max().max()))
    return batch.to_arrow()


def _int(value: Any) -> int:
    return 0 if value is None else int(value)


def _convert(
    batch: pl.DataFrame, method: str, counts: _Counts, left: Counter[str], labels: list[str], tokenizer: Any, limit: int
) -> list[dict[str, Any]]:
    if method in PAIRS:
        return [each for row in batch.to_dicts() for each in _pairs(row, method, counts, left)]
    if method == "grpo":
        return _prompts(batch, counts, left, tokenizer, limit)
    return _labelled(batch, counts, left, labels, tokenizer, limit)


def _pairs(row: dict[str, Any], method: str, counts: _Counts, left: Counter[str]) -> list[dict[str, Any]]:
    prompt, chosen, rejected = row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]
    if not prompt or not chosen or not rejected:
        left["not_preference"] += 1
        return []
    if chosen == rejected:
        left["same_answers"] += 1
        return []
    for answer in (chosen, rejected):
        counts.add(len(prompt) + len(answer), len(answer), max(*prompt, *answer))
    if method == "reward":
        return [{"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}]
    if method == "kto":
        return [{"prompt_ids": prompt, "completion_ids": answer, "label": good} for answer, good in ((chosen, True), (rejected, False))]
    return [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}]


def _prompts(batch: pl.DataFrame, counts: _Counts, left: Counter[str], tokenizer: Any, limit: int) -> list[dict[str, Any]]:
    made = []
    for prompt, answer in batch.select("prompt", "answer").iter_rows():
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] if prompt and answer else []
        if not ids or len(ids) >= limit:
            left["prompt_too_long" if ids else "no_prompt_or_answer"] += 1
            continue
        counts.add(len(ids), 0, max(ids))
        made.append({"prompt": prompt, "reference": answer})
    return made


def _labelled(
    batch: pl.DataFrame, counts: _Counts, left: Counter[str], labels: list[str], tokenizer: Any, limit: int
) -> list[dict[str, Any]]:
    numbers = {label: at for at, label in enumerate(labels)}
    made = []
    for row in batch.to_dicts():
        number = numbers.get(row["label"])
        if number is None:
            left["no_label" if row["label"] is None else "label_not_in_training"] += 1
            continue
        ids = _text_ids(row, tokenizer, limit) if "messages" in row else _prompt_ids(row)[-limit:]
        if not ids:
            left["no_text"] += 1
            continue
        counts.add(len(ids), 1, max(ids))
        made.append({"input_ids": ids, "labels": number})
    return made


def _text_ids(row: dict[str, Any], tokenizer: Any, limit: int) -> list[int]:
    """What was said by anybody but the assistant, whose answer may be the label, as the encoder's tokenizer writes it."""
    text = "\n".join(each["content"] or "" for each in row["messages"] if each["role"] != "assistant").strip()
    return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"]) if text else []


def _prompt_ids(row: dict[str, Any]) -> list[int]:
    """Everything before the last answer; of a document, all."""
    ids, marks = row["input_ids"], row["labels"]
    stop = len(ids)
    while stop > 0 and marks[stop - 1] == NOT_TRAINED:
        stop -= 1
    while stop > 0 and marks[stop - 1] != NOT_TRAINED:
        stop -= 1
    return list(ids[:stop] or ids)
