"""The plan: counts as the model really has them, bytes as autograd really keeps them, and advice that makes it fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from tests import training
from tests.helpers import ROOT
from train import adapters, fit, models, plan, sizes, train

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return training.write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = training.rows(20)
    return training.write_data(tmp_path_factory.mktemp("data"), {"train": rows, "validation": rows})


@pytest.mark.parametrize("overrides", [(), ("adapter=full",), ("adapter=ia3",), ("adapter=prefix",), ("method=reward",), ("method=dpo",)])
def test_counts_and_steps_are_those_of_the_run(overrides: tuple[str, ...], base: Path, data: Path, tmp_path: Path) -> None:
    settings = training.params(*overrides, "learning_rate=0.001")
    found = plan.plan(data, base, settings, None, NOWHERE)
    metrics = fit.fit(data, base, tmp_path / "adapter", tmp_path, settings).metrics
    assert (found.parameters, found.trainable) == (metrics["parameters"], metrics["trainable_parameters"])
    assert (found.work.steps, found.work.tokens) == (metrics["steps"], metrics["train_tokens"])


@pytest.mark.parametrize("quantize", ["none", "nf4", "int8"])
def test_weights_are_as_large_as_planned(quantize: str, base: Path, data: Path) -> None:
    settings = training.params(f"quantize={quantize}")
    planned = plan.plan(data, base, settings, None, NOWHERE).memory.weights
    model = models.load_base(base, quantize)[0]
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert held == pytest.approx(planned, rel=0.15)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_activations_are_what_autograd_keeps(adapter: str, base: Path, data: Path) -> None:
    settings = training.params(f"adapter={adapter}")
    work = plan.Work(20, 140, 5, 4, 40)
    _, _, memory = plan.memory_of(base, settings, work)
    model = models.load_base(base)[0]
    adapted = adapters.with_adapter(model, settings) if adapter != "full" else model
    adapted.train()
    body: Any = adapted.base_model.model.model if adapter != "full" else model.model  # type: ignore[union-attr]
    ids = torch.zeros((4, 40), dtype=torch.long)
    kept = sizes.saved_bytes(adapted, lambda: body(input_ids=ids, use_cache=False)[0], fused=False)
    assert memory.activations == pytest.approx(kept, rel=0.15)


def test_checkpointing_and_smaller_batches_take_less(base: Path, data: Path) -> None:
    work = plan.Work(20, 140, 5, 4, 40)
    whole = plan.memory_of(base, training.params(), work)[2].activations
    assert plan.memory_of(base, training.params("gradient_checkpointing=true"), work)[2].activations < whole
    assert plan.memory_of(base, training.params(), replace(work, rows=1))[2].activations < whole / 3


def test_what_does_not_fit_is_told_with_changes_that_do(base: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = training.params("adapter=full")
    whole = plan.plan(data, base, settings, None, NOWHERE).memory.total
    found = plan.plan(data, base, settings, whole * 0.6, NOWHERE)
    assert found.fits is False and found.changes and "even so" not in found.changes[-1]
    nothing = plan.plan(data, base, settings, 1.0, NOWHERE)
    assert "even so" in nothing.changes[-1] and "FSDP" in nothing.changes[-1]
    with pytest.raises(SystemExit) as stopped:
        plan.main([str(data), str(base), "--params", str(ROOT / "params.yaml"), "--memory", "0.000001"])
    assert stopped.value.code == 1 and "DOES NOT FIT" in capsys.readouterr().out


def test_time_is_known_once_measured_and_only_for_a_run_like_it(base: Path, data: Path, tmp_path: Path) -> None:
    settings = training.params("learning_rate=0.001")
    train.build(data, base, tmp_path / "train", settings, {})
    adapter = tmp_path / "train" / "adapter"
    seconds = orjson.loads((adapter / "provenance.json").read_bytes())["seconds"]
    assert plan.plan(data, base, settings, None, adapter).seconds == pytest.approx(seconds, rel=0.05)
    assert plan.plan(data, base, replace(settings, quantize="nf4"), None, adapter).seconds is None
    record = orjson.loads((adapter / "provenance.json").read_bytes())
    record["base"]["sha256"] = "0" * 64  # tampered with: another base's time is no measure
    (adapter / "provenance.json").write_bytes(orjson.dumps(record))
    assert plan.plan(data, base, settings, None, adapter).seconds is None
