"""What every method and kind of adapter leaves can be evaluated; a trained head is judged on pairs or labels of the hold-out."""

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from curate.params import check_section, read_params
from evaluate import evaluate, heads
from evaluate.statistics import wilson
from tests import training
from tests.helpers import ROOT
from train import train


def evaluated(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """Trained and evaluated with the command's own settings."""
    base = training.write_base(tmp_path / "base")
    test = training.rows(40, 60).with_columns(pl.lit("f").alias("source"), pl.int_range(1, 41, dtype=pl.Int64).alias("line"))
    rows = {"train": training.rows(60), "validation": training.rows(12, 100)}
    plain = {name: each.with_columns(pl.lit("f").alias("source"), pl.lit(False).alias("synthetic")) for name, each in rows.items()}
    data = training.write_data(tmp_path / "data", plain | {"test": test})
    train.build(data, base, tmp_path / "train", training.params(*overrides), {})
    path = ROOT / "params.yaml"
    few = ("max_new_tokens=4", "originals=null", "robustness=null", "few_shot=0", f"reports={tmp_path}")
    params = check_section(read_params(path, [f"evaluate.{each}" for each in few]), "evaluate", evaluate.Params, path)
    evaluate.build(data, base, tmp_path / "train", tmp_path / "out", params)
    found: dict[str, Any] = orjson.loads((tmp_path / "evaluation.json").read_bytes())
    return found


@pytest.mark.parametrize("overrides", [("adapter=prompt",), ("adapter=prefix",), ("method=pretrain",), ("method=grpo", "batch_size=12")])
@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_what_is_trained_can_be_evaluated(overrides: tuple[str, ...], tmp_path: Path) -> None:
    found = evaluated(tmp_path, *overrides, "learning_rate=0.03")
    assert found["verdict"] in ("better", "worse", "not shown") and found["items"] == 40
    assert found["systems"]["tuned"]["metrics"]["loss"]["value"] != found["systems"]["base"]["metrics"]["loss"]["value"]
    if "method=grpo" in overrides:  # the rows' answers are patterns: their loss says nothing
        assert found["rule"]["primary"] == "regex" in found["metrics"] and "regex" in found["reason"]
    card = (tmp_path / "model-card.md").read_text()
    assert f"**{found['verdict']}**" in card and card.startswith("---\nlibrary_name: peft") and "## Settings" in card


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
    assert '<span class="state">better</span>' in html and "Right, above chance" in html
    assert "{" not in html[html.index("<main>") :], "a figure is shown as Python writes it"
    assert "**better**" in (tmp_path / "model-card.md").read_text()


def test_verdicts_of_small_hold_outs_and_none() -> None:
    assert heads._figures("reward", wilson(3, 4), 0.5, "x", Counter())["verdict"] == "not shown"
    assert heads._figures("reward", wilson(0, 20), 0.5, "x", Counter())["verdict"] == "worse"
    nothing = heads._figures("reward", wilson(0, 0), 0.5, "x", Counter(not_preference=3))
    assert nothing["verdict"] == "not shown" and "not_preference" in nothing["reason"]
