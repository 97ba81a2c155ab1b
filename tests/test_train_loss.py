"""The loss is what it should be: of masked rows as computed by hand, of packs as of rows, of accumulated batches as of large ones."""

import dataclasses
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from curate.record import ParamsError
from tests import training
from train import adapters, fit, models, rows, train, trainer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return training.write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = training.rows(24)
    return training.write_data(tmp_path_factory.mktemp("data"), {"train": made, "validation": made})


def by_hand(model: Any, split: list[dict[str, Any]]) -> float:
    """Mean over trained tokens of minus the log of the softmax, one row at a time, without any library's loss."""
    losses = []
    for row in split:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].double()
        for at in range(1, len(row["labels"])):
            if row["labels"][at] != -100:
                scores = logits[at - 1]
                losses.append(float(scores.exp().sum().log() - scores[row["labels"][at]]))
    return sum(losses) / len(losses)


def test_masked_loss_is_that_computed_by_hand(base: Path, data: Path, tmp_path: Path) -> None:
    """To 1e-5 nats."""
    metrics = fit.fit(data, base, tmp_path / "adapter", tmp_path, training.params("learning_rate=0.001")).metrics
    model = models.load_base(base)[0].eval()
    assert metrics["base_validation_loss"] == pytest.approx(by_hand(model, training.rows(24).to_dicts()), abs=1e-5)


def test_a_pack_has_the_loss_and_the_gradient_of_its_rows(base: Path, data: Path, tmp_path: Path) -> None:
    """To 1e-5 nats, and 1e-5 of the gradient's norm."""
    settings = training.params("packing=true", "batch_size=1")
    model, tokenizer = models.load_base(base)
    read = rows.read(data, "train", "sft", tmp_path, [], tokenizer, 64)
    fields = trainer.common_fields(settings, tmp_path, False, False, True) | trainer.method_fields(settings, 24)
    made: Any = trainer.make(settings, model, None, None, tokenizer, read.rows, None, fields, [])
    batch = next(iter(made.get_train_dataloader()))
    ids, starts = batch["input_ids"][0], (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    assert len(starts) > 1, "more than one row in the pack"
    model.eval()
    packed = made.compute_loss(model, dict(batch))
    packed.backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad()
    total, count = torch.tensor(0.0), 0
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        labels = batch["labels"][0, start:stop].clone()
        trained = int((labels[1:] != -100).sum())
        total = total + model(input_ids=ids[None, start:stop], labels=labels[None]).loss * trained
        count += trained
    (total / count).backward()
    unpacked = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    assert float(packed) == pytest.approx(float(total / count), abs=1e-5)
    assert float((gradient - unpacked).norm() / unpacked.norm()) < 1e-5


def test_accumulated_batches_train_as_a_large_one(base: Path, data: Path, tmp_path: Path) -> None:
    """To 1e-5 of each weight, after six steps over rows of different lengths of answer."""
    saved = []
    for name, shape in (("large", ("batch_size=4", "accumulation=1")), ("small", ("batch_size=1", "accumulation=4"))):
        (tmp_path / name).mkdir()
        fit.fit(data, base, tmp_path / name / "adapter", tmp_path / name, training.params(*shape, "learning_rate=0.005"))
        saved.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
    assert saved[0].keys() == saved[1].keys()
    for name, weights in saved[0].items():
        assert torch.allclose(weights, saved[1][name], atol=1e-5), name


def test_gradient_checkpointing_changes_nothing(base: Path, data: Path, tmp_path: Path) -> None:
    losses = []
    for each in ("false", "true"):
        (tmp_path / each).mkdir()
        settings = training.params(f"gradient_checkpointing={each}", "learning_rate=0.01")
        losses.append(fit.fit(data, base, tmp_path / each / "adapter", tmp_path / each, settings).metrics["best_validation_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.parametrize("method", list(trainer.CONFIGS))
def test_every_field_that_is_set_is_one_of_the_installed_versions(method: str) -> None:
    settings = training.params(f"method={method}", "batch_size=4")
    fields = trainer.common_fields(settings, Path("somewhere"), False, True, True) | trainer.method_fields(settings, 64)
    assert set(fields) <= {each.name for each in dataclasses.fields(trainer.CONFIGS[method])}


def test_what_a_method_cannot_use_is_counted_and_none_at_all_is_told(base: Path, data: Path, tmp_path: Path) -> None:
    from curate.record import InputError

    tokenizer = models.load_base(base)[1]
    read = rows.read(data, "train", "dpo", tmp_path, [], tokenizer, 64)
    assert (len(read.rows), read.left_out) == (18, {"not_preference": 6})
    unpaired = rows.read(data, "train", "kto", tmp_path, [], tokenizer, 64)
    assert len(unpaired.rows) == 36 and sum(unpaired.rows["label"]) == 18
    mixed = rows.paired_by_batch(unpaired.rows, 6, 7)
    assert len(set(mixed["label"][:6])) == 2, "better and worse answers stand among each other"
    assert mixed["KL_completion_ids"][1:6] == mixed["completion_ids"][:5]
    texts = training.write_data(tmp_path / "texts", {"train": training.rows(24).filter(kind="text")})
    with pytest.raises(InputError, match=r"no training row fits train\.method = dpo .*preference rows"):
        rows.read(texts, "train", "dpo", tmp_path, [], tokenizer, 64)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_told(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ParamsError, match=f"{name} is not installed here. `pip install {name}`"):
        train.build(data, base, tmp_path / "train", training.params(f"trackers=[{name}]"), {})
    assert not list(tmp_path.iterdir())


class Writer:
    """Stands for TensorBoard's writer where that is not installed: one line a scalar."""

    def __init__(self, log_dir: str) -> None:
        Path(log_dir).mkdir(parents=True, exist_ok=True)
        self.file = (Path(log_dir) / "events.out.tfevents.0").open("a")

    def add_text(self, name: str, text: str, step: int = 0) -> None:
        pass

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.file.write(f"{name} {step} {value}\n")

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def test_tensorboard_gets_every_loss_and_keeps_it_after_the_run(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        (tmp_path / "site" / "tensorboard").mkdir(parents=True)
        (tmp_path / "site" / "tensorboard" / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        stub = types.ModuleType("torch.utils.tensorboard")
        stub.SummaryWriter = Writer  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stub)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")  # so that what the run sets is taken back after the test
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    train.build(data, base, tmp_path / "train", training.params("trackers=[tensorboard]", "learning_rate=0.001"), {})
    (events,) = (tmp_path / ".train-tensorboard").glob("*/events.out.tfevents*")
    written = events.read_bytes()
    assert b"train/loss" in written and b"eval/loss" in written
    assert not (tmp_path / ".train-checkpoints").exists()


def test_adapters_stay_in_fp32(base: Path) -> None:
    model = adapters.with_adapter(models.load_base(base, "nf4")[0], training.params("quantize=nf4"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    adapters.keep_fp32(model)
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}
