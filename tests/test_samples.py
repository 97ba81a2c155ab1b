"""pass@k by answers drawn at random: which rows, which rule, and that a run that goes on draws the same."""

import numpy as np
import orjson
import pytest

from curate.record import ParamsError
from evaluate import inference, measures, samples
from evaluate.holdout import Item
from evaluate.samples import Samples
from tests.test_evaluate import bytes_world, params, parts, run, task, task_world, tuned_on  # noqa: F401 (fixtures)

DRAWN = "samples={items: 12, answers: 4, temperature: 1.0, top_p: 0.9, check: exact, k: [1, 4]}"


def item(answer: str, prompt: str = "ask") -> Item:
    return Item(answer, "s", 1, "chat", None, prompt, answer, np.array([1, 2]), np.array([False, True]), 1, 2)


def test_only_rows_that_can_be_checked_are_asked():
    rows = [item("so #### 7"), item("no number"), item("3", prompt=""), item("("), item('{"type": "object"}')]
    wanted = {
        check: Samples(items=9, answers=2, temperature=1.0, top_p=1.0, check=check, k=(1,))
        for check in ("exact", "number", "regex", "json_schema")
    }
    assert samples.chosen(rows, wanted["number"]) == [0]
    assert samples.chosen(rows, wanted["exact"]) == [0, 1, 3, 4]
    assert samples.chosen(rows, wanted["regex"]) == [0, 1, 4]
    assert samples.chosen(rows, wanted["json_schema"]) == [4]


def test_python_answers_are_run_against_the_rows_tests():
    given = ["```python\ndef add(a, b):\n    return a + b\n```", "def add(a, b):\n    return a - b", "no code"]
    assert samples.right("python", given, ["assert add(2, 3) == 5"] * 3) == [True, False, False]
    assert samples.right("number", ["it is 1,000"], ["#### 1000"]) == [True]


def test_more_is_asked_for_than_drawn(tmp_path):
    with pytest.raises(ParamsError, match=r"samples\.k = 5 is more than samples\.answers = 4"):
        params(tmp_path, DRAWN.replace("[1, 4]", "[1, 5]"))


def test_figures_are_the_means_of_the_formula():
    rows = [item(str(at)) for at in range(12)]
    wanted = Samples(items=12, answers=4, temperature=1.0, top_p=1.0, check="exact", k=(1, 4))
    counts = {"base": [0] * 12, "tuned": [0, 1, 2, 3] * 3}
    found = samples.figures(counts, rows, wanted, 0, 500)
    assert found is not None
    assert found["systems"]["tuned"]["1"]["value"] == pytest.approx(1.5 / 4) and found["systems"]["tuned"]["4"]["value"] == 0.75
    assert found["systems"]["base"]["4"]["value"] == 0.0
    chance = np.mean([measures.pass_at_k(4, right, 1) for right in counts["tuned"]])
    assert found["tuned_against_base"]["1"]["difference"]["value"] == pytest.approx(chance)
    assert (
        samples.figures(
            {"base": [], "tuned": []}, [item("x")], Samples(items=1, answers=2, temperature=1.0, top_p=1.0, check="number", k=(1,)), 0, 100
        )
        is None
    )


def test_a_run_that_broke_off_draws_the_same(parts, tmp_path, monkeypatch):  # noqa: F811
    more = (DRAWN, "few_shot=0", "robustness=null", "batch_tokens=300", "generate_items=2")
    run(parts, tmp_path / "whole", *more)
    true, calls = inference.batch_samples, []

    def broken(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return true(*given)

    monkeypatch.setattr(inference, "batch_samples", broken)
    with pytest.raises(KeyboardInterrupt):
        run(parts, tmp_path / "killed", *more)
    run(parts, tmp_path / "killed", *more)
    for name in ("base.samples.jsonl", "tuned.samples.jsonl"):
        whole = (tmp_path / "whole" / "out" / "answers" / name).read_bytes()
        assert (tmp_path / "killed" / "out" / "answers" / name).read_bytes() == whole
        drawn = [orjson.loads(line)["output"] for line in whole.splitlines()]
        assert len(drawn) == 48 and len(set(drawn)) > 24  # drawn, and not the likeliest again and again


def test_a_tuned_model_passes_more_often(task_world, monkeypatch):  # noqa: F811
    import tests.test_evaluate as worlds

    true = worlds.params
    monkeypatch.setattr(worlds, "params", lambda reports, *more: true(reports, DRAWN, "robustness=null", *more))
    found = tuned_on(task_world, task(400, seed=1), "drawn")["pass_at_k"]
    base, tuned = (found["systems"][name] for name in ("base", "tuned"))
    assert tuned["1"]["value"] > 0.7 > base["1"]["value"] and tuned["4"]["value"] >= tuned["1"]["value"]
    assert found["tuned_against_base"]["1"]["verdict"] == "better"
    assert "pass@4" in (task_world / "drawn-reports" / "evaluation.html").read_text()
