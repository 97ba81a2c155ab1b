"""Two processes on a CPU train as one process with batches twice as large, and only the first one writes."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import orjson
import torch
import yaml
from safetensors.torch import load_file

from tests import training
from tests.helpers import ROOT
from train import train


def test_two_processes_train_as_one_with_larger_batches(tmp_path: Path) -> None:
    """Each step sees all rows, so that it does not matter which process gets which."""
    base = training.write_base(tmp_path / "base")
    rows = training.rows(16)
    data = training.write_data(tmp_path / "data", {"train": rows, "validation": rows})
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    for setting in (*training.SETTINGS, "learning_rate=0.005", "batch_size=8", "epochs=4", "eval_steps=2"):
        key, _, value = setting.partition("=")
        sections["train"][key] = yaml.safe_load(value)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(sections))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m", "train.train"]
    done = subprocess.run(
        [*launch, str(data), str(base), str(tmp_path / "two"), "--params", str(tmp_path / "params.yaml")],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("train: sft, 16 rows") == 1
    train.build(data, base, tmp_path / "one", training.params("learning_rate=0.005", "batch_size=16", "epochs=4", "eval_steps=2"), {})
    record = orjson.loads((tmp_path / "two" / "adapter" / "provenance.json").read_bytes())
    assert record["hardware"]["processes"] == 2 and record["metrics"]["steps"] == 4
    losses = [orjson.loads((tmp_path / name / "metrics.json").read_bytes())["best_validation_loss"] for name in ("two", "one")]
    assert abs(losses[0] - losses[1]) < 1e-5, losses
    two, one = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("two", "one"))
    assert max(float((two[name] - one[name]).abs().max()) for name in one) < 1e-5
    assert not list(tmp_path.glob(".two*"))


def test_the_shipped_fsdp_settings_are_known_to_accelerate() -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import FullyShardedDataParallelPlugin

    config = load_config_from_file(str(ROOT / "train" / "fsdp.yaml"))
    assert str(config.distributed_type).endswith("FSDP")
    known = {each.name for each in dataclasses.fields(FullyShardedDataParallelPlugin)}
    named = {name.removeprefix("fsdp_") for name in config.fsdp_config}
    assert named - {"version", "offload_params"} <= known, "accelerate passes each on to its plugin"
    assert {"fsdp_version", "cpu_offload"} <= known, "the two that it calls otherwise"
    assert torch.distributed.is_available()
