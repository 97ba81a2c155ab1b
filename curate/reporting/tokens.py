"""One formatted row, token by token, coloured by whether the loss sees it."""

from dataclasses import dataclass
from pathlib import Path

from curate import store

MOST_TOKENS = 400


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens with the same fate."""

    text: str
    trained: bool
    count: int


def coloured_example(folder: Path, tokenizer: Path) -> list[Span]:
    """The training row of median length as spans of tokens that are, or are not, trained; empty where there is no train split."""
    from transformers import AutoTokenizer

    train = [part for part in store.parts(folder) if part.split == "train"]
    if not train or not train[0].rows or not tokenizer.is_dir():
        return []
    batch = next(store.batches(folder, ["input_ids", "labels"]))
    middle = batch.sort(batch["input_ids"].list.len())[batch.height // 2]
    ids, labels = middle["input_ids"][0].to_list()[:MOST_TOKENS], middle["labels"][0].to_list()[:MOST_TOKENS]
    decode = AutoTokenizer.from_pretrained(str(tokenizer)).decode
    spans: list[Span] = []
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or (labels[at] == -100) != (labels[start] == -100):
            spans.append(Span(str(decode(ids[start:at])), labels[start] != -100, at - start))
            start = at
    return spans
