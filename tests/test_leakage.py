"""The gate: passes honest data, and names the pairs of any leak, whichever way it came."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from curate import augment, leakage, record, split
from curate.record import InputError, StageFailure
from curate.stage import read_rows
from tests.helpers import ROOT, chat, document, frame, run_stage, write_input
from tests.test_split import noise


@pytest.fixture
def gate(tmp_path):
    """Runs the gate over {split: rows}; gives back the matrix as {(kind, left, right): (rows, left_rows, pairs)}."""
    (tmp_path / "benchmarks").mkdir()

    def go(splits, *overrides):
        source = write_input(frame([]), tmp_path / "in", {name: frame(splits.get(name, [])) for name in record.SPLITS})
        run_stage(leakage.STAGE, source, tmp_path / "out", f"benchmarks={tmp_path / 'benchmarks'}", *overrides)
        matrix = pl.read_parquet(tmp_path / "out" / "matrix.parquet")
        return {
            (kind, left, right): cell
            for kind, left, right, *cell in matrix.select("kind", "left", "right", "rows", "left_rows", "pairs").rows()
        }

    return go


OPEN = ("limits={exact: null, near: null, ngram: null}",)
OTHERS = [chat(noise(50 + at), noise(80 + at), line=50 + at) for at in range(10)]


def rows(*texts: str, source: str) -> list[dict]:
    return [chat(text, f"answer {noise(at, 4)}", source=source, line=at) for at, text in enumerate(texts, 1)]


def test_honest_rows_pass_unchanged(gate, tmp_path):
    splits = {name: [chat(noise(10 * at + each), "ok") for each in range(5)] for at, name in enumerate(record.SPLITS)}
    matrix = gate(splits)
    assert set(matrix) == {
        (kind, left, right)
        for kind in leakage.KINDS
        for left, right in [("train", "validation"), ("train", "test"), ("validation", "test")]
    }
    assert all(cell == [0, 0, 0] for cell in matrix.values())
    for name in record.SPLITS:
        assert read_rows(tmp_path / "out", name).equals(read_rows(tmp_path / "in", name))


def test_the_same_prompt_with_another_answer(gate):
    asked = noise(1, 5)
    splits = {"train": rows(asked, asked.upper(), source="a.csv"), "test": [chat(asked, "unlike " * 9, source="b.csv", line=7)]}
    with pytest.raises(StageFailure) as failure:
        gate(splits)
    for said in ("exact, train against test: 1 rows leaked, limit 0", "a.csv:1 and b.csv:7 (1.000)", "leakage.limits.exact"):
        assert said in str(failure.value)
    assert gate(splits, "limits.exact=1")["exact", "train", "test"] == [1, 2, 2]
    assert gate(splits, "limits.exact=null")["near", "train", "test"] == [0, 0, 0]


@pytest.mark.parametrize(("left", "right"), [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_near_copy_between_any_two_splits(gate, left, right):
    text = noise(1, 20)
    one, two = chat(text, "Yes, it is.", source="a.csv", line=3), chat(text + " really", "Yes, it is.", source="b.csv", line=4)
    with pytest.raises(StageFailure, match=rf"near, {left} against {right}: 1 rows(.|\n)*a\.csv:3 and b\.csv:4 \(0\.9"):
        gate({left: [one, *OTHERS], right: [two]})


def test_a_prompt_held_in_a_longer_one_either_way(gate, tmp_path):
    inside = noise(1, 12)
    longer = f"{noise(2, 60)} {inside} {noise(3, 60)}"
    for splits in (
        {"train": rows(longer, source="a.csv"), "test": rows(inside, source="b.csv")},
        {"train": rows(inside, source="a.csv"), "test": rows(longer, source="b.csv")},
    ):
        with pytest.raises(StageFailure, match=r"ngram, train against test: 1 rows"):
            gate(splits)
    cells = gate(splits, "limits.ngram=1")
    assert cells["near", "train", "test"] == [0, 0, 0]
    pairs = pl.read_parquet(tmp_path / "out" / "pairs.parquet")
    assert pairs.select("kind", "left_source", "right_source", "similarity").rows() == [("ngram", "a.csv", "b.csv", 1.0)]


def test_documents_are_compared_too(gate):
    text = noise(1, 80)
    with pytest.raises(StageFailure, match="near, train against test"):
        gate({"train": [document(text)], "test": [document(text + ".", line=9)]})


def test_a_benchmark_item_in_any_split(gate, tmp_path):
    question = noise(1, 14)
    (tmp_path / "benchmarks" / "exam.jsonl").write_text(
        json.dumps({"id": "q1", "question": question}) + "\n" + json.dumps({"question": noise(2)})
    )
    splits = {"train": rows(f"{noise(5, 30)} {question} {noise(6, 30)}", source="a.csv"), "test": rows(question, source="b.csv") + OTHERS}
    cells = gate(splits, *OPEN)
    assert cells["ngram", "train", "exam.jsonl"] == [1, 1, 1]
    assert cells["exact", "test", "exam.jsonl"] == [1, 1, 1]
    assert cells["exact", "validation", "exam.jsonl"] == [0, 0, 0]
    with pytest.raises(
        StageFailure, match=r"ngram, train against exam.jsonl: 1 items(.|\n)*a\.csv:1 and exam\.jsonl:1(.|\n)*decontaminate"
    ):
        gate(splits, "limits.exact=null")


def test_a_synthetic_row_stays_with_its_parent(gate):
    parent = chat(noise(1), "ok", label="a")
    child = chat(noise(2), "ok", label="a") | {"meta": json.dumps({"synthetic": {"parent": parent["id"], "method": "typos"}})}
    gate({"train": [parent, child], "test": OTHERS})
    with pytest.raises(StageFailure, match=rf"parted from their parents(.|\n)*{child['id']} is in train(.|\n)*is in test"):
        gate({"train": [child], "test": [parent]})
    with pytest.raises(StageFailure, match="is not in the data"):
        gate({"train": [child], "test": OTHERS})
    with pytest.raises(StageFailure, match="outside train"):
        gate({"validation": [parent, child], "test": OTHERS})


def test_the_worst_pairs_come_first_and_are_bounded(gate, tmp_path):
    splits = {
        "train": rows(*[noise(at, 20 + at) for at in range(9)], source="a.csv"),
        "test": rows(*[noise(at, 20 + at) + " so" for at in range(9)], source="b.csv"),
    }
    gate(splits, *OPEN, "pairs=4")
    pairs = pl.read_parquet(tmp_path / "out" / "pairs.parquet").filter(pl.col("kind") == "near")
    assert pairs.height == 4
    assert pairs["similarity"].to_list() == sorted(pairs["similarity"], reverse=True)


def test_rows_without_splits_are_refused(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    source = write_input(frame(OTHERS), tmp_path / "in")
    with pytest.raises(InputError, match="Run split first"):
        run_stage(leakage.STAGE, source, tmp_path / "out", f"benchmarks={tmp_path / 'benchmarks'}")


@pytest.mark.parametrize("seed", range(3))
def test_what_split_and_augment_make_passes_with_limits_of_zero(tmp_path, seed):
    """Data full of look-alikes: near copies, prompts in prompts, shared passages, a template, repeated questions."""
    (tmp_path / "benchmarks").mkdir()
    draw = random.Random(seed)
    made = []
    for at in range(60):
        text = noise(1000 * seed + at, draw.choice([3, 8, 12, 40]))
        made.append(text)
        words = text.split()
        words[draw.randrange(len(words))] = noise(at + 5000, 1)
        made += draw.sample(
            [text + "!", " ".join(words), f"{noise(at + 6000, 9)} {text} {noise(at + 7000, 5)}", f"{text} {noise(at + 8000, 9)}"], 2
        )
        made += [f"Please answer the following question from a customer of our small shop in one line: {text}"] * draw.randrange(2)
    source = write_input(frame([chat(text, f"a{at % 7}", label=str(at % 3)) for at, text in enumerate(made)]), tmp_path / "in")
    where = f"benchmarks={tmp_path / 'benchmarks'}"
    run_stage(split.STAGE, source, tmp_path / "split", "ratios=[0.5, 0.25, 0.25]")
    assert run_stage(augment.STAGE, tmp_path / "split", tmp_path / "augment", where, "floor=100", "max_share=0.3")["added"] > 20
    metrics = run_stage(leakage.STAGE, tmp_path / "augment", tmp_path / "leakage", where)
    assert metrics["kept"] > len(made)
    assert set(metrics["counts"].values()) == {0}


def test_groups_count_a_text_once_however_often_it_leaked(gate, tmp_path):
    """Three rows of one text and a pair of another: five train rows leak three test rows, in two groups."""
    text, other = noise(1, 20), noise(2, 20)
    splits = {
        "train": rows(text, f"{text} so", f"{text} now", f"{other} so", *(noise(at, 9) for at in range(20, 25)), source="a.csv"),
        "test": rows(text, f"{text} yes", other, *(noise(at, 9) for at in range(30, 35)), source="b.csv"),
    }
    assert gate(splits, *OPEN)["ngram", "train", "test"] == [3, 4, 7]
    matrix = pl.read_parquet(tmp_path / "out" / "matrix.parquet")
    found = matrix.filter((pl.col("kind") == "ngram") & (pl.col("left") == "train") & (pl.col("right") == "test"))
    assert found["groups"].to_list() == [2]
    assert matrix.filter(pl.col("rows") == 0)["groups"].unique().to_list() == [0]
    with pytest.raises(StageFailure, match=r"ngram, train against test: 3 rows leaked, limit 0 \(by 4 rows; 2 groups\)"):
        gate(splits, "limits={exact: null, near: null, ngram: 0}")


@pytest.fixture(scope="module")
def augmented(tmp_path_factory):
    """What split and augment make of 60 rows; two copies of the project's settings stand beside it, with no benchmarks."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data/benchmarks").mkdir(parents=True)
    where = f"benchmarks={folder / 'data/benchmarks'}"
    made = [chat(noise(at, 60), f"answer {noise(at + 500, 4)}", label=str(at % 3)) for at in range(60)]
    run_stage(split.STAGE, write_input(frame(made), folder / "in"), folder / "split")
    run_stage(augment.STAGE, folder / "split", folder / "data/augment", where, "floor=30", "max_share=0.3")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    return folder


def inject(folder, change):
    """Writes a changed row of train into test, by hand; gives back its id and the copy's."""
    train, test = (next((folder / "kept" / name).glob("*.parquet")) for name in ("train", "test"))
    row = pl.read_parquet(train).filter(~pl.col("meta").str.contains("synthetic")).row(0, named=True)
    copy = change(dict(row)) | {"source": "by-hand.jsonl", "line": 7}
    copy["id"] = record.content_id(copy["kind"], copy["messages"], copy["rejected"], copy["label"])
    pl.concat([pl.read_parquet(test), pl.DataFrame([copy], schema=record.SCHEMA)]).write_parquet(test)
    return row["id"], copy["id"]


def edited(row):
    """The first word changed, another added, the answer as it was."""
    first, second = row["messages"]
    text = f"Otherwise {first['content'].split(maxsplit=1)[1]} please"
    return row | {"messages": [first | {"content": text}, second]}


def buried(row):
    """The question within a long message, with another answer."""
    first, second = row["messages"]
    text = f"{noise(901, 40)} {first['content']} {noise(902, 40)}"
    return row | {"messages": [first | {"content": text}, second | {"content": noise(903)}]}


def command(folder, *arguments):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path, "FINERY_WORKERS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(("change", "kind"), [(dict, "exact"), (edited, "near"), (buried, "ngram")])
def test_a_leak_made_by_hand_after_augment_fails_the_command_and_both_rows_are_named(augmented, tmp_path, change, kind):
    shutil.copytree(augmented / "data/augment", tmp_path / "augment")
    one, two = inject(tmp_path / "augment", change)
    done = command(augmented, "curate.leakage", str(tmp_path / "augment"), str(tmp_path / "leakage"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"{kind}, train against test: 1 rows leaked" in done.stderr
    assert f"ids {one} and {two}" in done.stderr and "by-hand.jsonl:7" in done.stderr
    assert not (tmp_path / "leakage").exists()


def test_nothing_after_the_gate_runs_when_it_fails(augmented, tmp_path):
    """The pipeline's own leakage stage under DVC, with a stage behind it that stands for training."""
    spec = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["leakage"]
    spec["deps"] = [dep for dep in spec["deps"] if dep.startswith("data/")]
    after = {"cmd": "echo trained > trained.txt", "deps": ["data/leakage/kept"], "outs": ["trained.txt"]}
    shutil.copytree(augmented, tmp_path, dirs_exist_ok=True)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"leakage": spec, "after": after}}))
    assert command(tmp_path, "dvc", "init", "--no-scm", "--quiet").returncode == 0
    _, two = inject(tmp_path / "data/augment", edited)
    done = command(tmp_path, "dvc", "repro")
    assert done.returncode != 0
    assert two in done.stderr + done.stdout
    assert not (tmp_path / "trained.txt").exists()
