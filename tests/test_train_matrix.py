"""Every method with every adapter and rounding: what is allowed learns in five steps on a CPU, what is not is refused with its reason."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from curate.record import ParamsError
from tests import training
from train import allowed, fit, models, train

EVERY = list(itertools.product(allowed.METHODS, allowed.ADAPTERS, allowed.QUANTIZE))
ALLOWED = [each for each in EVERY if allowed.refusal(*each) is None]
REFUSED = [each for each in EVERY if each not in ALLOWED]
RATES = {"ia3": 0.3, "prompt": 0.3, "prefix": 0.3, "full": 0.01}
GENTLER = {"classify": 0.2, "reward": 0.5, "kto": 0.3, "dpo": 0.3, "orpo": 0.3}  # share of the rate; the LoRA kinds go at 0.03
BATCH = {"sft": 4, "pretrain": 4, "dpo": 3, "orpo": 3, "reward": 3, "kto": 6, "grpo": 48, "classify": 4}  # five steps each


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return training.write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = training.rows(20)
    return training.write_data(tmp_path_factory.mktemp("data"), {"train": rows, "validation": rows})


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize(("method", "adapter", "quantize"), ALLOWED, ids=map("-".join, ALLOWED))
def test_what_is_allowed_learns_in_five_steps(method: str, adapter: str, quantize: str, base: Path, data: Path, tmp_path: Path) -> None:
    rate = RATES.get(adapter, 0.03) * GENTLER.get(method, 1.0)
    settings = training.params(
        f"method={method}",
        f"adapter={adapter}",
        f"quantize={quantize}",
        f"learning_rate={rate}",
        f"batch_size={BATCH[method]}",
        "max_completion=1",
        "generations=16",  # with 4, one seed in ten teaches the wrong thing
        f"epochs={2.5 if method == 'pretrain' else 1}",
    )
    metrics = fit.fit(data, base, tmp_path / "adapter", tmp_path, settings).metrics
    assert metrics["steps"] == 5
    if method == "grpo":  # the reward to expect, from the probabilities themselves: samples would be too few to tell
        before = expected_reward(models.load_base(base, quantize)[0])
        assert expected_reward(saved(base, tmp_path / "adapter", adapter, quantize)) > before
    else:
        assert metrics["best_validation_loss"] < metrics["base_validation_loss"]
    assert (metrics["trainable_parameters"] == metrics["parameters"]) == (adapter == "full")


def saved(base: Path, folder: Path, adapter: str, quantize: str) -> Any:
    if adapter == "full":
        return AutoModelForCausalLM.from_pretrained(folder)
    return PeftModel.from_pretrained(models.load_base(base, quantize)[0], str(folder))


def expected_reward(model: Any) -> float:
    """The chance that the one token written after each prompt is of the right half."""
    model.eval()
    prompts = [ids for ids in training.rows(20)["prompt_ids"].to_list() if ids]
    right = [training.WORDS.index(word) for word in training.GOOD]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor(prompts), attention_mask=torch.ones(len(prompts), 4, dtype=torch.long)).logits[:, -1]
    return float(logits.float().softmax(-1)[:, right].sum(-1).mean())


@pytest.mark.parametrize(("method", "adapter", "quantize"), REFUSED, ids=map("-".join, REFUSED))
def test_what_is_not_allowed_is_refused_with_the_reason_and_what_to_do(method: str, adapter: str, quantize: str) -> None:
    with pytest.raises(ParamsError) as refused:
        training.params(f"method={method}", f"adapter={adapter}", f"quantize={quantize}")
    assert str(allowed.refusal(method, adapter, quantize)) in str(refused.value)
    assert "Use " in str(refused.value)


def test_the_table_refuses_no_more_than_it_must() -> None:
    refused = {each for each in EVERY if each not in ALLOWED}
    expected = {(method, "full", each) for method in allowed.METHODS for each in ("int8", "nf4")}
    expected |= {(method, "dora", "int8") for method in allowed.METHODS}
    expected |= {(method, adapter, each) for method in allowed.HEADS for adapter in allowed.VIRTUAL for each in allowed.QUANTIZE}
    expected |= {("orpo", "prompt", each) for each in allowed.QUANTIZE}
    assert refused == expected


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("adapter=prompt", "packing=true"), "only the first row of a pack"),
        (("adapter=prefix", "gradient_checkpointing=true"), "drops the cache"),
        (("method=kto", "batch_size=1"), "must be 2 or more"),
        (("method=grpo", "batch_size=6"), "multiple of generations"),
        (("method=grpo", "generations=1"), "generations"),
    ],
)
def test_settings_that_do_not_go_with_the_method_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        training.params(*overrides)
    training.params("method=dpo", "adapter=prefix", "packing=true")  # packing is of the methods that pack


@pytest.mark.parametrize("method", allowed.METHODS)
def test_auto_gives_every_method_what_it_needs_and_a_number_stays(method: str) -> None:
    given = training.params(f"method={method}", "learning_rate=auto", "batch_size=auto", "packing=true")
    rates = {kind: train.settled(given, {"kind": kind}).learning_rate for kind in ("tiny", "hub")}
    assert 0 < rates["hub"] < rates["tiny"] < 0.005
    assert given.batch_size == {"sft": 1, "pretrain": 1, "kto": 4, "grpo": given.generations, "classify": 8}.get(method, 2)
    full = train.settled(training.params(f"method={method}", "adapter=full", "learning_rate=auto"), {"kind": "hub"})
    assert full.learning_rate < rates["hub"]
    kept = training.params(f"method={method}", "learning_rate=0.03", "batch_size=24")
    assert (train.settled(kept, {"kind": "tiny"}).learning_rate, kept.batch_size) == (0.03, 24)


@pytest.mark.parametrize("name", ["learning_rate", "batch_size"])
@pytest.mark.parametrize("value", ["0", "automatic", "-1"])
def test_auto_is_the_only_word(name: str, value: str) -> None:
    with pytest.raises(ParamsError, match=f"train.{name}"):
        training.params(f"{name}={value}")


@pytest.mark.parametrize("adapter", allowed.ADAPTERS)
def test_what_cannot_be_merged_says_why(adapter: str) -> None:
    assert (allowed.merge_refusal(adapter) is None) == (adapter in allowed.MERGED)
