"""The curate stages on public data with known leaks and numbers that must not change. Skipped where the data is absent."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse

from curate import clean, decontaminate, dedup_exact, dedup_near, ingest, leakage, record, scrub, split, stage
from tests.helpers import SHARED, dropped, run_stage, section

ORDER = (clean, dedup_exact, scrub, dedup_near, decontaminate, split, leakage)
THRESHOLD = 0.8  # decontaminate.threshold as shipped


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{SHARED / name} is not here")


def shingles(text: str) -> set[str]:
    """Character 5-grams, written down anew here: the check must not share code with what it checks."""
    folded = " ".join(text.lower().split())
    return {folded[at : at + 5] for at in range(max(len(folded) - 4, 1))}


def words_of(text: str) -> str:
    """Lower case, punctuation to spaces: 25 rows of the train file equal a test item when folded so."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def best_similarity(queries: list[str], items: list[str]) -> np.ndarray:
    """Exact highest Jaccard similarity of each query to any item, by a product of sparse incidence matrices."""
    numbers: dict[str, int] = {}

    def incidence(texts: list[str]) -> scipy.sparse.csr_matrix:
        rows, columns = [], []
        for at, text in enumerate(texts):
            for gram in shingles(text):
                rows.append(at)
                columns.append(numbers.setdefault(gram, len(numbers)))
        return scipy.sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(texts), 1 << 20))

    left, right = incidence(queries), incidence(items)
    common = (left @ right.T).tocoo()
    sizes_left, sizes_right = np.diff(left.indptr), np.diff(right.indptr)
    similarity = common.data / (sizes_left[common.row] + sizes_right[common.col] - common.data)
    best = np.zeros(len(queries))
    np.maximum.at(best, common.row, similarity)
    return best


@pytest.fixture(scope="module")
def banking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Banking77's train file through the curate stages, its official test file as a benchmark."""
    root = tmp_path_factory.mktemp("banking")
    for folder, name in (("raw", "banking77_train.csv"), ("benchmarks", "banking77_test.csv")):
        (root / folder).mkdir()
        shutil.copyfile(SHARED / name, root / folder / name)
    run_stage(ingest.STAGE, root / "raw", root / "ingest")
    before = "ingest"
    for module in ORDER:
        which: stage.Stage = module.STAGE
        overrides = [f"benchmarks={root / 'benchmarks'}"] if which.name in ("decontaminate", "leakage") else []
        run_stage(which, root / before, root / which.name, *overrides, workers=2 if which.name == "scrub" else 1)
        before = which.name
    return root


@needs("banking77_test.csv")
def test_banking77_no_row_near_a_test_item_is_left(banking: Path) -> None:
    items = pl.read_csv(SHARED / "banking77_test.csv")["text"].to_list()
    left = record.prompt_and_answer(pl.read_parquet(banking / "leakage/kept/*/*.parquet"))["prompt"].to_list()
    assert len(left) > 8_000
    assert best_similarity(left, items).max() < THRESHOLD


@needs("banking77_test.csv")
def test_banking77_every_leak_is_dropped_with_its_item_named(banking: Path) -> None:
    items = pl.read_csv(SHARED / "banking77_test.csv")["text"].to_list()
    raw = pl.read_csv(SHARED / "banking77_train.csv")["text"].to_list()
    folded = {words_of(item) for item in items}
    exact = [at for at, text in enumerate(raw) if words_of(text) in folded]
    near = np.flatnonzero(best_similarity(raw, items) >= THRESHOLD)
    assert len(exact) == 25
    lines = pl.read_parquet(banking / "ingest/kept/*.parquet")["line"].to_list()
    gone = {row["line"]: row for row in dropped(banking / "decontaminate")}
    twice = {row["line"] for name in ("dedup_exact", "dedup_near") for row in dropped(banking / name)}
    for at in near.tolist():
        assert lines[at] in gone or lines[at] in twice, raw[at]
    for at in exact:
        assert lines[at] in gone or lines[at] in twice
    texts = dict(zip(lines, raw, strict=True))
    for line, row in gone.items():
        proof = row["evidence"]
        assert proof["set"] == "banking77_test.csv"
        if row["reason"] == "benchmark_near":
            assert max(best_similarity([texts[line]], [items[proof["item"] - 1]])) >= THRESHOLD


@needs("banking77_train.csv")
def test_banking77_every_intent_is_in_all_three_splits_and_every_row_accounted_for(banking: Path) -> None:
    labels = {name: set(pl.read_parquet(banking / "leakage/kept" / name / "*.parquet")["label"]) for name in record.SPLITS}
    assert labels["train"] == labels["validation"] == labels["test"]
    assert len(labels["train"]) == 77
    lost = sum(pl.read_parquet(banking / name / "dropped.parquet").height for name in ("ingest", *(module.STAGE.name for module in ORDER)))
    assert pl.read_parquet(banking / "leakage/kept/*/*.parquet").height + lost == 10_003


@needs("gsm8k_train.jsonl")
def test_gsm8k_passes_with_operators_digits_and_newlines_unchanged(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    shutil.copyfile(SHARED / "gsm8k_train.jsonl", tmp_path / "raw/gsm8k_train.jsonl")
    run_stage(ingest.STAGE, tmp_path / "raw", tmp_path / "ingest")
    metrics = run_stage(clean.STAGE, tmp_path / "ingest", tmp_path / "clean")
    assert (metrics["rows_in"], metrics["dropped"]) == (7_473, 0)
    others = [each for each in section("scrub", scrub.Params).entities if each != "PERSON"]  # the people of the sums have names
    run_stage(scrub.STAGE, tmp_path / "clean", tmp_path / "scrub", f"entities={json.dumps(others)}", workers=2)
    raw = pl.read_ndjson(SHARED / "gsm8k_train.jsonl")
    kept = record.prompt_and_answer(pl.read_parquet(tmp_path / "scrub/kept/*.parquet"))
    for side, column in (("prompt", "question"), ("answer", "answer")):
        assert kept[side].to_list() == [text.replace("\u200b", "") for text in raw[column]], "all but the one zero-width space"
