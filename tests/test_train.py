"""Training on a random Llama of two layers and a byte tokenizer, both made here."""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as token_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from curate import record, store
from curate.params import check_section, read_params
from tests.helpers import ROOT
from train import adapters, checkpoints, models, provenance, train, trainer, verify, watch

ANSWERS = {"bill": "see the app", "speed": "restart it", "move": "tell us soon"}
SETTINGS = (
    "rank=8",
    "alpha=16",
    "epochs=3",
    "batch_size=4",
    "accumulation=1",
    "eval_steps=5",
    "learning_rate=0.02",
    "warmup_steps=2",
    "packing=false",
    "threads=1",
    "patience=null",
)


def params(*overrides: str) -> train.Params:
    path = ROOT / "params.yaml"
    sections = read_params(path, [f"train.{each}" for each in (*SETTINGS, *overrides)])
    return check_section(sections, "train", train.Params, path)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: at for at, token in enumerate([*specials, *alphabet])}
    made = Tokenizer(token_models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(specials)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=specials[0], eos_token=specials[2])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A base folder as the base stage leaves it."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        eos_token_id=2,
        pad_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "tokenizer")
    (folder / "base.json").write_bytes(orjson.dumps({"name": "tiny", "model": "model", "kind": "tiny", "revision": None}))
    return folder


def rows(tokenizer: PreTrainedTokenizerFast, count: int) -> pl.DataFrame:
    made = []
    for at in range(count):
        topic = list(ANSWERS)[at % 3]
        prompt = tokenizer.encode(f"<|im_start|>user\nno {at}: {topic}?<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
        answer = tokenizer.encode(f"{ANSWERS[topic]}<|im_end|>", add_special_tokens=False)
        made.append({"id": f"{at:032x}", "input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return pl.DataFrame(made, schema={"id": pl.String, "input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Int32)})


def write_data(folder: Path, splits: dict[str, pl.DataFrame]) -> Path:
    for split, each in splits.items():
        (folder / "kept" / split).mkdir(parents=True, exist_ok=True)
        store.write_parquet(each, folder / "kept" / split / "part-00000.parquet")
    (folder / "template.jinja").write_text("{{ messages }}")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path_factory.mktemp("format")
    return write_data(folder, {"train": rows(tokenizer, 24), "validation": rows(tokenizer, 30)[24:], "test": rows(tokenizer, 3)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, base: Path) -> Path:
    out = tmp_path_factory.mktemp("out") / "train"
    train.build(data, base, out, params(), {"train": {"rank": 8}, "scrub": {"api_key": "hush"}})
    return out


def read(path: Path) -> dict[str, Any]:
    return dict(orjson.loads(path.read_bytes()))


def loss_of(model: Any, data: Path, split: str = "validation") -> float:
    """Mean loss over the tokens that carry loss, by transformers itself, row by row."""
    total, count = 0.0, 0
    model.eval()
    for row in store.read_rows(data, split).to_dicts():
        labels = torch.tensor([row["labels"]])
        trained_tokens = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss) * trained_tokens
        count += trained_tokens
    return total / count


def adapted(base: Path, adapter: Path, quantize: str = "none") -> Any:
    return PeftModel.from_pretrained(models.load_base(base, quantize)[0], str(adapter))


def weights(adapter: Path) -> bytes:
    return (adapter / "adapter_model.safetensors").read_bytes()


def test_validation_loss_falls_and_the_saved_adapter_has_it(trained: Path, data: Path, base: Path) -> None:
    metrics = read(trained / "metrics.json")
    assert metrics["best_validation_loss"] < metrics["base_validation_loss"] - 0.2
    assert loss_of(models.load_base(base, "none")[0], data) == pytest.approx(metrics["base_validation_loss"], abs=1e-4)
    assert loss_of(adapted(base, trained / "adapter"), data) == pytest.approx(metrics["best_validation_loss"], abs=1e-4)


def test_metrics_count_what_was_trained(trained: Path, data: Path) -> None:
    metrics = read(trained / "metrics.json")
    made = store.read_rows(data, "train")
    assert metrics["train_tokens"] == made["input_ids"].list.len().sum()
    assert metrics["trained_tokens"] == sum(label != -100 for labels in made["labels"] for label in labels)
    assert (metrics["train_rows"], metrics["validation_rows"], metrics["steps"]) == (24, 6, 18)
    assert metrics["tokens_seen"] == 3 * metrics["train_tokens"]
    assert 0 < metrics["trainable_parameters"] < metrics["parameters"]


def test_the_folder_is_portable_and_complete(trained: Path, data: Path, base: Path) -> None:
    names = {path.name for path in (trained / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md", "provenance.json"} <= names
    config = read(trained / "adapter" / "adapter_config.json")
    assert config["base_model_name_or_path"] == "tiny"
    everything = b"".join(path.read_bytes() for path in trained.rglob("*") if path.is_file())
    assert str(base).encode() not in everything and str(data).encode() not in everything
    live = read(trained / "live" / "metrics.json")
    assert live["validation"]["loss"] > 0
    assert (trained / "live" / "plots" / "metrics" / "validation" / "loss.tsv").exists()
    assert not (trained.parent / ".train-checkpoints").exists()


def test_provenance_names_data_base_code_params_versions_machine(trained: Path, data: Path, base: Path) -> None:
    found = read(trained / "adapter" / "provenance.json")
    assert found["dataset"] == provenance.dataset(data)
    assert found["dataset"]["rows"] == {"train": 24, "validation": 6}
    assert len(found["dataset"]["template_sha256"]) == 64
    assert found["base"] == provenance.base(base)
    assert found["params"] == {"train": {"rank": 8}, "scrub": {"api_key": "(not recorded)"}}
    assert found["seeds"] == {"train": params().seed}
    assert found["versions"]["trl"] and found["versions"]["torch"] and found["versions"]["python"]
    assert found["hardware"]["device"] and found["hardware"]["threads"] == 1
    assert set(found["weights"]) >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"}
    assert found["seconds"] > 0 and found["started"].startswith("20")
    assert set(found["code"]) == {"commit", "clean"}


def test_code_is_null_outside_a_repository(tmp_path: Path) -> None:
    assert provenance.code(tmp_path) == {"commit": None, "clean": None}


def test_code_tells_a_clean_tree_from_a_changed_one(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    (tmp_path / "a.py").write_text("1\n")
    (tmp_path / "dvc.lock").write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    assert provenance.code(tmp_path)["clean"] is True
    (tmp_path / "dvc.lock").write_text("2\n")
    assert provenance.code(tmp_path)["clean"] is True, "what a run itself writes is no change of the code"
    (tmp_path / "a.py").write_text("2\n")
    assert provenance.code(tmp_path)["clean"] is False


def test_the_card_has_counts_and_hashes_but_no_text_of_a_row(trained: Path, data: Path) -> None:
    card = (trained / "adapter" / "README.md").read_text()
    assert provenance.dataset(data)["sha256"] in card
    assert "AutoPeftModelForCausalLM" in card and card.startswith("---\n")
    assert "restart it" not in card


def test_verify_accepts_what_belongs_together(trained: Path, data: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify.main([str(trained / "adapter"), "--data", str(data), "--base", str(base)])
    assert "as recorded" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        ("weights", "adapter_model.safetensors was changed"),
        ("missing", "adapter_config.json is missing"),
        ("extra", "evil.py was not there"),
        ("data", "the dataset in"),
        ("base", "the base in"),
    ],
)
def test_verify_names_what_differs(
    tamper: str, told: str, trained: Path, data: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, changed_data, changed_base = tmp_path / "adapter", tmp_path / "data", tmp_path / "base"
    for source, target in ((trained / "adapter", adapter), (data, changed_data), (base, changed_base)):
        shutil.copytree(source, target)
    if tamper == "weights":
        content = bytearray(weights(adapter))
        content[-1] ^= 1
        (adapter / "adapter_model.safetensors").write_bytes(content)
    elif tamper == "missing":
        (adapter / "adapter_config.json").unlink()
    elif tamper == "extra":
        (adapter / "evil.py").write_text("")
    elif tamper == "data":
        store.write_parquet(store.read_rows(data, "train")[1:], changed_data / "kept" / "train" / "part-00000.parquet")
    else:
        (changed_base / "model" / "config.json").write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        verify.main([str(adapter), "--data", str(changed_data), "--base", str(changed_base)])
    assert stopped.value.code == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and told in said[0]


def test_verify_without_a_record_says_so(tmp_path: Path, data: Path, base: Path) -> None:
    with pytest.raises(record.InputError, match=r"provenance\.json: no such file"):
        verify.problems(tmp_path, data, base, tmp_path / "dvc.lock")


class _Killed(Exception):
    pass


class _KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise _Killed


def killed(monkeypatch: pytest.MonkeyPatch, step: int, data: Path, base: Path, out: Path, settings: train.Params) -> None:
    """A run that ends by an exception before the step after `step`."""
    with monkeypatch.context() as patch:
        start = trainer._Sft.__init__

        def with_kill(self: Any, *arguments: Any, **named: Any) -> None:
            start(self, *arguments, **named)
            self.add_callback(_KillAt(step))

        patch.setattr(trainer._Sft, "__init__", with_kill)
        with pytest.raises(_Killed):
            train.build(data, base, out, settings, {})


@pytest.mark.parametrize("packing", ["false", "true"])
def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(
    packing: str, tmp_path: Path, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = params("dropout=0.1", "patience=2", f"packing={packing}", f"batch_size={1 if packing == 'true' else 4}")
    whole, cut = tmp_path / "whole" / "train", tmp_path / "cut" / "train"
    train.build(data, base, whole, settings, {})
    step = random.randrange(5, read(whole / "metrics.json")["steps"])  # any step after the first checkpoint
    killed(monkeypatch, step, data, base, cut, settings)
    assert not cut.exists()
    train.build(data, base, cut, settings, {})
    assert f"going on from step {step // 5 * 5}" in capsys.readouterr().err
    assert weights(cut / "adapter") == weights(whole / "adapter"), f"killed at step {step}"
    expected = read(whole / "metrics.json")
    assert read(cut / "metrics.json") == expected | {"mean_train_loss": None}


def test_a_checkpoint_that_was_cut_off_is_not_used(
    tmp_path: Path, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "train"
    killed(monkeypatch, 12, data, base, out, params())
    (broken,) = tmp_path.glob(".train-checkpoints/*/checkpoint-10")
    (broken / checkpoints.COMPLETE).unlink()
    (broken / "optimizer.pt").write_bytes(b"cut")
    train.build(data, base, out, params(), {})
    assert "going on from step 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"), [("data", "dataset"), ("template", "template"), ("rate", "train.learning_rate (0.02 -> 0.01)"), ("never", None)]
)
def test_a_run_with_other_data_or_settings_starts_afresh_and_says_why(
    change: str,
    told: str | None,
    tmp_path: Path,
    data: Path,
    base: Path,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, now, settings = tmp_path / "train", data, params()
    killed(monkeypatch, 7, data, base, out, settings)
    if change == "data":
        now = write_data(tmp_path / "other", {"train": rows(tokenizer, 23), "validation": rows(tokenizer, 30)[24:]})
    elif change == "template":
        now = tmp_path / "other"
        shutil.copytree(data, now)
        (now / "template.jinja").write_text("{{ bos_token }}{{ messages }}")
    elif change == "rate":
        settings = replace(settings, learning_rate=0.01)
    else:
        settings = replace(settings, resume="never")
    train.build(now, base, out, settings, {})
    said = capsys.readouterr().err
    assert "going on" not in said
    assert told is None or f"these differ: {told}. Starting afresh." in said


def test_a_failed_run_leaves_the_earlier_output(
    tmp_path: Path, trained: Path, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "train"
    shutil.copytree(trained, out)
    before = weights(out / "adapter")
    killed(monkeypatch, 2, data, base, out, params())
    assert weights(out / "adapter") == before
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_early_stopping_keeps_the_best(tmp_path: Path, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = params("learning_rate=0.3", "schedule=constant", "epochs=20", "patience=1", "eval_steps=2", "max_grad_norm=1.0")
    monkeypatch.setattr(watch, "DIVERGED", 1e9)
    train.build(data, base, tmp_path / "train", settings, {})
    metrics = read(tmp_path / "train" / "metrics.json")
    assert metrics["stopped_early"] and metrics["steps"] < 120
    assert metrics["best_step"] == metrics["steps"] - 2
    assert loss_of(adapted(base, tmp_path / "train" / "adapter"), data) == pytest.approx(metrics["best_validation_loss"], abs=1e-3)


def test_divergence_stops_with_advice(tmp_path: Path, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DIVERGED", 0.5)  # half the base's loss counts as too high here
    with pytest.raises(record.StageFailure, match=r"validation loss rose to .* Lower train\.learning_rate"):
        train.build(data, base, tmp_path / "train", params("eval_steps=2"), {})
    assert not (tmp_path / "train").exists()


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path, data: Path, base: Path) -> None:
    broken = tmp_path / "base"
    shutil.copytree(base, broken)
    model = LlamaForCausalLM.from_pretrained(broken / "model")
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    model.save_pretrained(broken / "model")
    with pytest.raises(record.StageFailure, match=r"loss is nan\. .*Lower train\.learning_rate"):
        train.build(data, broken, tmp_path / "train", params(), {})


def test_packing_gives_the_same_validation_loss_before_training(tmp_path: Path, trained: Path, data: Path, base: Path) -> None:
    train.build(data, base, tmp_path / "train", params("packing=true", "epochs=1", "batch_size=2"), {})
    ours, theirs = read(tmp_path / "train" / "metrics.json"), read(trained / "metrics.json")
    assert ours["base_validation_loss"] == pytest.approx(theirs["base_validation_loss"], abs=1e-5)
    assert ours["tokens_seen"] == ours["train_tokens"], "no token of any row is cut by packing"


@pytest.mark.parametrize("adapter", ["lora", "dora"])
def test_qlora_on_a_cpu_trains_saves_loads_and_generates(adapter: str, tmp_path: Path, data: Path, base: Path) -> None:
    pytest.importorskip("bitsandbytes")
    settings = params("quantize=nf4", f"adapter={adapter}", "batch_size=5", "epochs=1", "eval_steps=5")
    train.build(data, base, tmp_path / "train", settings, {})
    metrics = read(tmp_path / "train" / "metrics.json")
    assert metrics["steps"] == 5
    assert metrics["best_validation_loss"] < metrics["base_validation_loss"]
    model = adapted(base, tmp_path / "train" / "adapter", "nf4")
    quantised = model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight
    assert quantised.quant_state.quant_type == "nf4" and quantised.quant_state.nested, "double quantisation"
    assert loss_of(model, data) == pytest.approx(metrics["best_validation_loss"], rel=2e-3)
    ids = torch.tensor([store.read_rows(data, "test")["input_ids"][0].to_list()[:10]])
    assert model.generate(input_ids=ids, max_new_tokens=4, min_new_tokens=4, do_sample=False).shape[1] == ids.shape[1] + 4


def test_qlora_goes_on_exactly(tmp_path: Path, data: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    settings = params("quantize=nf4", "epochs=2", "eval_steps=3")
    train.build(data, base, tmp_path / "a" / "train", settings, {})
    step = random.randrange(3, read(tmp_path / "a" / "train" / "metrics.json")["steps"])
    killed(monkeypatch, step, data, base, tmp_path / "b" / "train", settings)
    train.build(data, base, tmp_path / "b" / "train", settings, {})
    assert weights(tmp_path / "a" / "train" / "adapter") == weights(tmp_path / "b" / "train" / "adapter"), f"killed at step {step}"


def test_full_fine_tuning_saves_a_whole_model(tmp_path: Path, data: Path, base: Path) -> None:
    train.build(data, base, tmp_path / "train", params("adapter=full", "epochs=1", "learning_rate=0.005"), {})
    metrics = read(tmp_path / "train" / "metrics.json")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "train" / "adapter")
    assert loss_of(model, data) == pytest.approx(metrics["best_validation_loss"], abs=1e-4)
    assert metrics["trainable_parameters"] == metrics["parameters"]


def test_without_validation_rows_it_trains_to_the_end(
    tmp_path: Path, base: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", {"train": rows(tokenizer, 8)})
    train.build(data, base, tmp_path / "train", params("patience=2"), {})
    metrics = read(tmp_path / "train" / "metrics.json")
    assert (metrics["steps"], metrics["best_step"], metrics["best_validation_loss"]) == (6, 6, None)
    assert "No validation rows" in capsys.readouterr().err


def test_rows_that_carry_no_loss_are_told(tmp_path: Path, base: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    made = rows(tokenizer, 6)
    masked = made.with_columns(labels=pl.Series([[-100] * len(ids) for ids in made["input_ids"]], dtype=pl.List(pl.Int32)))
    some = write_data(tmp_path / "some", {"train": pl.concat([made, masked[:2]])})
    train.build(some, base, tmp_path / "a" / "train", params("epochs=1"), {})
    assert read(tmp_path / "a" / "train" / "metrics.json")["rows_without_loss"] == 2
    none = write_data(tmp_path / "none", {"train": masked})
    with pytest.raises(record.InputError, match="no token of the training split carries loss"):
        train.build(none, base, tmp_path / "b" / "train", params(), {})


def test_what_is_missing_or_unfit_is_named(tmp_path: Path, data: Path, base: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    out, settings = tmp_path / "train", params()
    with pytest.raises(record.InputError, match="no such folder"):
        train.build(tmp_path / "nowhere", base, out, settings, {})
    with pytest.raises(record.InputError, match=r"base\.json: no such file"):
        train.build(data, tmp_path / "nowhere", out, settings, {})
    empty = write_data(tmp_path / "empty", {"train": rows(tokenizer, 0), "validation": rows(tokenizer, 2)})
    with pytest.raises(record.InputError, match="training split has no rows"):
        train.build(empty, base, out, settings, {})
    untokenised = write_data(tmp_path / "raw", {"train": pl.DataFrame({"text": ["a"]})})
    with pytest.raises(record.InputError, match="no column input_ids and labels"):
        train.build(untokenised, base, out, settings, {})
    foreign = rows(tokenizer, 2).with_columns(input_ids=pl.lit([70_000, 1, 2], dtype=pl.List(pl.Int32)))
    foreign = foreign.with_columns(labels=pl.col("input_ids"))
    with pytest.raises(record.InputError, match="token id 70000, but the base"):
        train.build(write_data(tmp_path / "foreign", {"train": foreign}), base, out, settings, {})
    assert not out.exists()


def test_rows_made_with_another_tokenizer_are_refused(tmp_path: Path, data: Path, base: Path) -> None:
    other = tmp_path / "data"
    shutil.copytree(data, other)
    (other / "format.json").write_bytes(orjson.dumps({"tokenizer_xxh3": "0" * 32}))
    with pytest.raises(record.InputError, match="made with another tokenizer"):
        train.build(other, base, tmp_path / "train", params(), {})


def test_a_base_that_cannot_be_loaded_is_named(tmp_path: Path, base: Path) -> None:
    broken = tmp_path / "base"
    shutil.copytree(base, broken)
    (broken / "model" / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(record.InputError, match="cannot be loaded"):
        models.load_base(broken, "none")
    (broken / "base.json").write_bytes(orjson.dumps({"name": "no/such", "model": "no/such", "kind": "hub", "revision": "abc"}))
    with pytest.raises(record.InputError, match="'no/such' at revision abc cannot be loaded"):
        models.load_base(broken, "none")


def test_nf4_without_bitsandbytes_says_what_to_do(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(record.ParamsError, match="pip install bitsandbytes"):
        models.load_base(base, "nf4")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (("adapter=full", "quantize=nf4"), "needs quantize none"),
        (("target_modules=[lm_head]",), "lm_head"),
        (("rank=0",), "rank"),
        (("method=ppo",), "method"),
    ],
)
def test_impossible_params_are_refused(override: tuple[str, ...], told: str) -> None:
    with pytest.raises(record.ParamsError, match=told):
        params(*override)


def test_an_unknown_module_is_told_with_those_there_are(tmp_path: Path, data: Path, base: Path) -> None:
    with pytest.raises(record.ParamsError, match="q_proj"):
        train.build(data, base, tmp_path / "train", params("target_modules=[qproj]"), {})


def test_names_in_an_adapter_hold_no_path_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "base" / "model").mkdir(parents=True)
    assert adapters.portable("data/base/model", "tiny") == "data/base/model"
    assert adapters.portable(str(tmp_path / "data" / "base" / "model"), "tiny") == "data/base/model"
    assert adapters.portable(str(tmp_path.parent), "mine") == "mine"
    assert adapters.portable("owner/name", "name") == "owner/name"


def test_the_command_line_ends_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "train.train", "nowhere", "nowhere", str(tmp_path / "train"), "--params", str(ROOT / "params.yaml")],
        cwd=ROOT,
        env=os.environ | {"FINERY_DEBUG": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("train: nowhere: no such folder") and "Traceback" not in done.stderr
