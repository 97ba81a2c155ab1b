"""For the tests of training: a Llama of two layers and a vocabulary of twenty words, and rows as format writes them that it can learn."""

from pathlib import Path
from typing import Any

import orjson
import polars as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from curate import store
from curate.params import check_section, read_params
from tests.helpers import ROOT
from train import train

WORDS = ["<pad>", "<end>", "<unk>", "ask", "say", *"abcdefghijklmno"]
GOOD = ["a", "b", "c", "d", "e", "f", "g"]  # what answers are made of that are right; h to n are wrong
COLUMNS: dict[str, Any] = {
    "id": pl.String, "kind": pl.String, "label": pl.String, "prompt": pl.String, "answer": pl.String,
    "input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Int32),
    "prompt_ids": pl.List(pl.Int32), "chosen_ids": pl.List(pl.Int32), "rejected_ids": pl.List(pl.Int32),
}  # fmt: skip
SETTINGS = (
    "rank=4", "alpha=8", "epochs=1", "batch_size=4", "accumulation=1", "eval_steps=5", "learning_rate=0.05", "warmup_steps=0",
    "schedule=constant", "packing=false", "threads=1", "patience=null", "virtual_tokens=4", "generations=4", "max_completion=2",
    "reward=regex", "beta=0.3",
)  # fmt: skip


def params(*overrides: str) -> train.Params:
    """The project's settings with those of the tests and `key=value` overrides."""
    path = ROOT / "params.yaml"
    return check_section(read_params(path, [f"train.{each}" for each in (*SETTINGS, *overrides)]), "train", train.Params, path)


def word_tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(WORDS[:3])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


def write_base(folder: Path, encoder: bool = False) -> Path:
    """A base folder as the base stage leaves it; an encoder instead of a Llama where asked for."""
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    ends: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    if encoder:
        BertForSequenceClassification(BertConfig(**size, max_position_embeddings=64, pad_token_id=0)).save_pretrained(folder / "model")
    else:
        LlamaForCausalLM(LlamaConfig(**size, **ends, max_position_embeddings=64)).save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "base.json").write_bytes(orjson.dumps({"name": "tiny", "model": "model", "kind": "tiny", "revision": None}))
    return folder


def rows(count: int, first: int = 0) -> pl.DataFrame:
    """Preference rows whose better answers are of one half of the words and whose worse ones are of the other; every fourth is a text."""
    made = []
    for at in range(first, first + count):
        topic, text = at % 7, at % 4 == 3
        prompt = [3, 5 + topic, 5 + at % 13, 4]
        chosen, rejected = [5 + topic, 5 + (topic + 1) % 7, 1], [12 + topic, 12 + (topic + at) % 7, 1]
        made.append(
            {
                "id": f"{at:032x}", "kind": "text" if text else "preference", "label": "even" if topic % 2 else "odd",
                "prompt": "" if text else " ".join(WORDS[each] for each in prompt), "answer": "[a-g]( [a-g])*",
                "input_ids": prompt + chosen, "labels": (prompt if text else [-100] * 4) + chosen,
                "prompt_ids": None if text else prompt, "chosen_ids": None if text else chosen, "rejected_ids": None if text else rejected,
            }
        )  # fmt: skip
    return pl.DataFrame(made, schema=COLUMNS)


def write_data(folder: Path, splits: dict[str, pl.DataFrame]) -> Path:
    for split, each in splits.items():
        (folder / "kept" / split).mkdir(parents=True, exist_ok=True)
        store.write_parquet(each, folder / "kept" / split / "part-00000.parquet")
    (folder / "template.jinja").write_text("{{ messages }}")
    return folder
