"""Merging an adapter into its base: the same answers, the names that servers read, and no merge of anything that was tampered with."""

from pathlib import Path

import orjson
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from curate.record import InputError, StageFailure
from tests import training
from train import card, merge, provenance, train, verify

NOWHERE = Path("nowhere.json")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return training.write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = training.rows(20)
    return training.write_data(tmp_path_factory.mktemp("data"), {"train": rows, "validation": rows})


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path) -> Path:
    return trained(tmp_path_factory.mktemp("lora"), data, base, "learning_rate=0.03")


def trained(folder: Path, data: Path, base: Path, *overrides: str) -> Path:
    train.build(data, base, folder / "train", training.params(*overrides), {})
    return folder / "train" / "adapter"


def merged(adapter: Path, base: Path, out: Path, onto: str = "as_trained", dtype: str | None = None, bound: float | None = None) -> float:
    return merge.merge(adapter, base, out, onto, dtype, bound, NOWHERE)


@pytest.mark.parametrize("override", ["adapter=dora", "adapter=rslora", "adapter=ia3", "quantize=nf4", "quantize=int8", "method=classify"])
def test_every_kind_that_can_be_merged_answers_as_before(override: str, base: Path, data: Path, tmp_path: Path) -> None:
    adapter = trained(tmp_path, data, base, override, "learning_rate=0.006")
    assert merged(adapter, base, tmp_path / "merged") < (1e-2 if "int8" in override else 1e-3)
    config = orjson.loads((tmp_path / "merged" / "config.json").read_bytes())
    assert "quantization_config" not in config
    if override == "method=classify":
        assert config["id2label"] == {"0": "even", "1": "odd"}


def test_the_folder_has_what_servers_read(adapter: Path, base: Path, tmp_path: Path) -> None:
    parity = merged(adapter, base, tmp_path / "merged")
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as file, safe_open(base / "model" / "model.safetensors", "pt") as own:
        assert set(file.keys()) == set(own.keys()), "the architecture's own names"
        moved = "model.layers.0.self_attn.q_proj.weight"
        assert not torch.equal(file.get_tensor(moved), own.get_tensor(moved))
        assert file.metadata()["format"] == "pt"
    config = orjson.loads((tmp_path / "merged" / "config.json").read_bytes())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["model_type"] == "llama"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == "{{ messages }}"
    assert orjson.loads((tmp_path / "merged" / "tokenizer_config.json").read_bytes())["chat_template"] == "{{ messages }}"
    assert {"tokenizer.json", "generation_config.json", "README.md"} <= {path.name for path in (tmp_path / "merged").iterdir()}
    record = orjson.loads((tmp_path / "merged" / "provenance.json").read_bytes())
    assert record["merged"]["parity_nats"] == parity and record["weights"] == provenance.weights(tmp_path / "merged")
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_in_fewer_bits_the_bound_is_wider_and_said(adapter: Path, base: Path, tmp_path: Path) -> None:
    parity = merged(adapter, base, tmp_path / "merged", dtype="bfloat16")
    assert 1e-5 < parity < merge.BOUNDS["bfloat16"]
    assert "in bfloat16" in (tmp_path / "merged" / "README.md").read_text()


def test_a_merge_that_is_not_near_enough_fails_and_writes_nothing(adapter: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailure, match=r"differ by .* nats, more than 1e-09; nothing was written"):
        merged(adapter, base, tmp_path / "merged", dtype="bfloat16", bound=1e-9)
    assert not (tmp_path / "merged").exists()


def test_qlora_on_the_original_base_is_further_off_and_said(base: Path, data: Path, tmp_path: Path) -> None:
    adapter = trained(tmp_path, data, base, "quantize=nf4", "learning_rate=0.03")
    near, far = merged(adapter, base, tmp_path / "near"), merged(adapter, base, tmp_path / "far", "original")
    assert near < far
    assert "as rounded in training (nf4)" in (tmp_path / "near" / "README.md").read_text()
    assert "the original, unrounded base" in (tmp_path / "far" / "README.md").read_text()


@pytest.mark.parametrize("what", ["weights", "base"])
def test_what_was_tampered_with_is_not_merged(what: str, base: Path, data: Path, tmp_path: Path) -> None:
    adapter, other = trained(tmp_path, data, base), base
    if what == "weights":
        content = bytearray((adapter / "adapter_model.safetensors").read_bytes())
        content[-1] ^= 1
        (adapter / "adapter_model.safetensors").write_bytes(content)
    else:
        other = training.write_base(tmp_path / "base", encoder=True)
    with pytest.raises(InputError, match="was changed" if what == "weights" else "another base"):
        merged(adapter, other, tmp_path / "merged")


def test_virtual_tokens_are_not_merged(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="changes no weight of the base"):
        merged(trained(tmp_path, data, base, "adapter=prompt"), base, tmp_path / "merged")


def test_the_card_shows_the_evaluation_of_the_same_dataset_only(adapter: Path, data: Path, tmp_path: Path) -> None:
    found = {
        "dataset": provenance.dataset(data)["sha256"],
        "base": {"name": "tiny"},
        "items": 9,
        "verdict": "better",
        "reason": "Measured.",
    }
    (tmp_path / "mine.json").write_bytes(orjson.dumps(found))
    (tmp_path / "other.json").write_bytes(orjson.dumps(found | {"dataset": "f" * 64}))
    for name, shown in (("mine", True), ("other", False), ("none", False)):
        card.main([str(adapter), str(tmp_path / "card.md"), "--evaluation", str(tmp_path / f"{name}.json")])
        assert ("Verdict on 9 hold-out items: **better**" in (tmp_path / "card.md").read_text()) == shown


def test_verify_takes_a_merged_folder_and_sees_a_changed_dvc_lock(
    adapter: Path, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text("stages:\n  clean: {cmd: a}\n  train: {cmd: b}\n")
    monkeypatch.chdir(tmp_path)
    mine = trained(tmp_path / "own", data, base)
    merged(mine, base, tmp_path / "merged")
    for folder in (mine, tmp_path / "merged"):
        assert verify.problems(folder, data, base, lock) == []
    lock.write_text("stages:\n  clean: {cmd: a}\n  train: {cmd: changed}\n")
    assert verify.problems(mine, data, base, lock) == [], "training's own entry is written after it"
    lock.write_text("stages:\n  clean: {cmd: changed}\n  train: {cmd: b}\n")
    (problem,) = verify.problems(mine, data, base, lock)
    assert "says of the stages before training" in problem
