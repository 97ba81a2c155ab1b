"""A trained head is judged on the hold-out: pairs for a reward, labels for a class."""

from collections import Counter
from pathlib import Path

import orjson
import polars as pl
import pytest

from curate.params import check_section, read_params
from evaluate import evaluate, heads
from evaluate.statistics import wilson
from tests import training
from tests.helpers import ROOT
from train import train


@pytest.mark.parametrize(
    "overrides", [("method=reward",), ("method=reward", "quantize=nf4"), ("method=classify",), ("method=classify", "adapter=full")]
)
def test_a_head_that_learned_is_better_than_chance(overrides: tuple[str, ...], tmp_path: Path) -> None:
    base = training.write_base(tmp_path / "base")
    test = training.rows(40, 60).with_columns(pl.lit("f").alias("source"), pl.int_range(1, 41, dtype=pl.Int64).alias("line"))
    data = training.write_data(tmp_path / "data", {"train": training.rows(60), "validation": training.rows(12, 100), "test": test})
    train.build(data, base, tmp_path / "train", training.params(*overrides, "learning_rate=0.01", "epochs=4"), {})
    path = ROOT / "params.yaml"
    params = check_section(read_params(path, [f"evaluate.reports={tmp_path}"]), "evaluate", evaluate.Params, path)
    evaluate.build(data, base, tmp_path / "train", tmp_path / "out", params)
    found = orjson.loads((tmp_path / "evaluation.json").read_bytes())
    assert found["verdict"] == "better", found
    items = pl.read_parquet(tmp_path / "out" / "items.parquet")
    if "method=reward" in overrides:
        right = int((items["chosen_score"] > items["rejected_score"]).sum())
        assert (found["reward_accuracy"]["n"], found["left_out"]) == (30, {"not_preference": 10})
        assert found["reward_accuracy"]["value"] == right / 30
    else:
        assert found["accuracy"]["value"] == (items["label"] == items["said"]).mean() and 0.5 < found["macro_f1"] <= 1
    html = (tmp_path / "evaluation.html").read_text()
    assert '<span class="state">better</span>' in html and "Right, above chance: " in html


def test_verdicts_of_small_hold_outs_and_none() -> None:
    assert heads._figures("reward", wilson(3, 4), 0.5, "x", Counter())["verdict"] == "not shown"
    assert heads._figures("reward", wilson(0, 20), 0.5, "x", Counter())["verdict"] == "worse"
    nothing = heads._figures("reward", wilson(0, 0), 0.5, "x", Counter(not_preference=3))
    assert nothing["verdict"] == "not shown" and "not_preference" in nothing["reason"]
