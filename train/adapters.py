"""PEFT: the configuration of each adapter, putting it on a model, and saving it so that it names no path of this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from curate.record import ParamsError
from train.allowed import HEADS
from train.models import base_source
from train.provenance import read_base

if TYPE_CHECKING:
    from train.train import Params

FEEDFORWARD = ("down_proj", "fc2", "w2", "dense_4h_to_h", "c_proj", "wo")  # IA3 scales the inputs of these, the outputs of the others


def peft_config(params: "Params") -> PeftConfig:
    """The adapter's configuration, without looking at a model."""
    task = "SEQ_CLS" if params.method in HEADS else "CAUSAL_LM"
    given = params.target_modules
    if params.adapter == "ia3":
        if isinstance(given, str):  # PEFT's own choice for the architecture: keys, values, and the way out of the feed-forward part
            return IA3Config(task_type=task)
        return IA3Config(task_type=task, target_modules=list(given), feedforward_modules=[each for each in given if each in FEEDFORWARD])
    if params.adapter == "prompt":
        return PromptTuningConfig(task_type=task, num_virtual_tokens=params.virtual_tokens)
    if params.adapter == "prefix":
        return PrefixTuningConfig(task_type=task, num_virtual_tokens=params.virtual_tokens)
    return LoraConfig(
        task_type=task,
        r=params.rank,
        lora_alpha=params.alpha,  # type: ignore[arg-type]
        lora_dropout=params.dropout,
        target_modules=given if isinstance(given, str) else list(given),
        use_dora=params.adapter == "dora",
        use_rslora=params.adapter == "rslora",
    )


def with_adapter(model: PreTrainedModel, params: "Params") -> Any:
    """The model with a fresh adapter, the only thing in it that learns.

    Raises ParamsError if a target module is not there (it says which are), or the architecture is unknown to IA3.
    """
    try:
        return get_peft_model(model, peft_config(params))
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)})
        raise ParamsError(
            f"train.target_modules = {params.target_modules!r}: {error} Linear modules of this base: {', '.join(names)}."
        ) from error


def keep_fp32(model: Any) -> None:
    """TRL rounds the adapter of a quantised base to bf16, and a checkpoint of it comes back as fp32: a run that goes on would be another
    run. Adapters are small; they stay in fp32."""
    if isinstance(model, PeftModel):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def without_casts(model: Any, params: "Params") -> None:
    """Under autocast, PEFT's cast of a LoRA layer's input to the adapter's fp32 is undone at once: bits stay the same, but every layer
    keeps a copy of its input for the way back. For models that are called under autocast alone."""
    if params.adapter in ("lora", "rslora"):
        for module in model.modules():
            if hasattr(module, "cast_input_dtype_enabled"):
                module.cast_input_dtype_enabled = False


def portable(source: str, name: str) -> str:
    """`source` as an adapter may name it: an id as it is, a folder relative to the project's root, or else just `name`.

    >>> portable("Qwen/Qwen3-0.6B", "qwen")
    'Qwen/Qwen3-0.6B'
    """
    path = Path(source)
    if not path.exists():
        return name if path.is_absolute() else source
    inside = path.resolve()
    return inside.relative_to(Path.cwd()).as_posix() if inside.is_relative_to(Path.cwd()) else name


def save(model: Any, tokenizer: PreTrainedTokenizerBase, adapter: Path, base: Path, state: dict[str, Any] | None = None) -> None:
    """Adapter (or whole model) and tokenizer into the folder `adapter`. `state`: gathered weights, where each device holds a part."""
    if isinstance(model, PeftModel):
        source, revision = base_source(base)
        model.peft_config["default"].revision = revision
        model.save_pretrained(str(adapter), save_embedding_layers=False, state_dict=state)  # else PEFT asks the hub about the vocabulary
        config = orjson.loads((adapter / "adapter_config.json").read_bytes())
        config["base_model_name_or_path"] = portable(source, str(read_base(base).get("name") or "base"))
        (adapter / "adapter_config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    else:
        model.save_pretrained(str(adapter), state_dict=state)
    tokenizer.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)  # PEFT's empty card
