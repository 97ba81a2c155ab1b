"""After preference training the verdict is on held-out pairs: which of two answers gained."""

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from curate.params import check_section, read_params
from evaluate import evaluate, pairs
from evaluate.statistics import wilson
from evaluate.verdict import judge_pairs
from tests import training
from tests.helpers import ROOT
from train import train

BATCH = {"dpo": 3, "orpo": 3, "kto": 6}


def turned(rows: pl.DataFrame) -> pl.DataFrame:
    """The same pairs with the worse answer called the better one."""
    return rows.rename({"chosen_ids": "rejected_ids", "rejected_ids": "chosen_ids"}).select(rows.columns)


def whole(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with the columns that evaluation reads too."""
    lines = pl.int_range(1, rows.height + 1, dtype=pl.Int64).alias("line")
    return rows.with_columns(pl.lit("f").alias("source"), lines, pl.lit("a").alias("answer"))


@pytest.mark.parametrize(("method", "word"), [("dpo", "better"), ("orpo", "better"), ("kto", "better"), ("dpo", "worse")])
def test_the_verdict_after_preference_training_is_on_held_out_pairs(method: str, word: str, tmp_path: Path) -> None:
    base = training.write_base(tmp_path / "base")
    learnt = turned(training.rows(60)) if word == "worse" else training.rows(60)
    splits = {"train": learnt, "validation": training.rows(12, 100), "test": training.rows(40, 60)}
    data = training.write_data(tmp_path / "data", {name: whole(rows) for name, rows in splits.items()})
    settings = training.params(f"method={method}", f"batch_size={BATCH[method]}", "learning_rate=0.01", "epochs=4", "patience=null")
    train.build(data, base, tmp_path / "train", settings, {})
    path = ROOT / "params.yaml"
    given = [f"evaluate.reports={tmp_path}", "evaluate.generate_items=0", "evaluate.few_shot=0", "evaluate.originals=null"]
    evaluate.build(
        data, base, tmp_path / "train", tmp_path / "out", check_section(read_params(path, given), "evaluate", evaluate.Params, path)
    )
    found = orjson.loads((tmp_path / "evaluation.json").read_bytes())
    assert found["verdict"] == word, found["reason"]
    assert found["preference"]["pairs"] == found["preference"]["reward_accuracy"]["n"] == 30
    assert "held-out pairs" in found["reason"]
    assert "Preferences" in (tmp_path / "evaluation.html").read_text()


def test_figures_count_margins_against_the_base_and_leave_out_what_is_too_long() -> None:
    base = np.array([[-1.0, -2.0], [-5.0, -1.0], [-3.0, -3.0], [np.nan, np.nan]])
    tuned = np.array([[-1.0, -3.0], [-4.0, -1.0], [-4.0, -3.0], [-1.0, -1.0]])
    found = pairs.figures(base, tuned)
    assert (found["pairs"], found["longer_than_model"], found["reward_accuracy"]["value"]) == (3, 1, pytest.approx(2 / 3))
    assert found["mean_margin"] == pytest.approx(1 / 3)
    assert found["likelier"] == {"base": 1, "tuned": 1}
    nothing = pairs.figures(np.empty((0, 2)), np.empty((0, 2)))
    assert nothing["pairs"] == 0 and nothing["reward_accuracy"] is None


def test_few_pairs_say_nothing_and_a_broken_limit_comes_first() -> None:
    assert judge_pairs(9, wilson(9, 9), []).word == "not shown"
    assert judge_pairs(0, None, []).word == "not shown"
    assert judge_pairs(30, wilson(16, 30), []).word == "not shown"
    assert judge_pairs(30, wilson(3, 30), []).word == "worse"
    assert judge_pairs(30, wilson(30, 30), ["It forgot."]).word == "worse"
