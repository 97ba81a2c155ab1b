"""Same rows and params, same bytes: whatever the number of workers and the hash seed. Other part sizes: same rows in the same order.

Runs the curate stages as commands on 4 800 generated rows, enough for two batches, three times side by side.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest

from tests.helpers import ROOT

STAGES = ("ingest", "clean", "dedup_exact", "scrub", "dedup_near", "review", "decontaminate", "split", "augment", "leakage")
ROWS = 4_800  # more than one batch
WORDS = ("amber", "blue", "cable", "desk", "engine", "fibre", "garden", "hub", "invoice", "jumper", "kettle", "lamp")  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    rng = random.Random(5)
    for number in range(3):
        rows = []
        for _ in range(ROWS // 3):
            question = " ".join(rng.choices(WORDS, k=rng.randint(5, 14))) + f" {rng.randint(1, 99_999)}?"
            rows.append({"question": question, "answer": " ".join(rng.choices(WORDS, k=12)) + ".", "label": rng.choice(WORDS[:6])})
        rows += rows[:40]
        rows += [row | {"question": "Well, " + row["question"]} for row in rows[100:160]]
        (folder / f"rows-{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def curate(raw: Path, out: Path, workers: int, seed: str, part_rows: int) -> Path:
    before = raw
    for stage in STAGES:
        command = [
            sys.executable,
            "-m",
            f"curate.{stage}",
            str(before),
            str(out / stage),
            "--workers",
            str(workers),
            "--part-rows",
            str(part_rows),
        ]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        before = out / stage
    return out


@pytest.fixture(scope="module")
def runs(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One worker, two workers with another hash seed, and small parts."""
    settings = [(1, "1", 250_000), (2, "2", 250_000), (1, "3", 300)]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda setting: curate(raw, tmp_path_factory.mktemp("run"), *setting), settings))


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_workers_and_hash_seed_do_not_change_a_byte(runs: list[Path]) -> None:
    one, two = hashes(runs[0]), hashes(runs[1])
    assert [name for name in one if one[name] != two.get(name)] == []
    assert set(one) == set(two)


def test_part_size_does_not_change_rows_or_their_order(runs: list[Path]) -> None:
    for stage in STAGES:
        for split in ("", "train", "validation", "test"):
            parts = [sorted((run / stage / "kept" / split).glob("*.parquet")) for run in (runs[0], runs[2])]
            if parts[0]:
                whole, cut = (pl.concat([pl.read_parquet(path) for path in each]) for each in parts)
                assert whole.equals(cut), f"{stage} {split}"
        assert pl.read_parquet(runs[0] / stage / "dropped.parquet").equals(pl.read_parquet(runs[2] / stage / "dropped.parquet")), stage
    assert len(list((runs[2] / "clean/kept").glob("*.parquet"))) > 10, "the parts were small"


def test_the_generated_rows_exercise_the_stages(runs: list[Path]) -> None:
    for stage in ("dedup_exact", "dedup_near"):
        assert json.loads((runs[0] / stage / "metrics.json").read_text())["dropped"] > 50
