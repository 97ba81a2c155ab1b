"""Loads what is asked: the base, with an adapter on it, or a whole model. evaluate/inference.py asks."""

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any, Literal

import orjson

from curate.record import InputError

# Set before any Hugging Face library is imported. Nothing is reported to anybody.
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
UNBOUNDED = 1 << 20  # tokens, for a model that states no limit
SCORERS = ("reward", "classify")  # methods whose model scores and does not write


@dataclass(frozen=True)
class Loaded:
    """A model ready to be asked. `limit` is the most tokens it can see, `stops` the tokens that end an answer.

    `adapter` is the folder of what was trained, None for an untouched base or a merged model.
    """

    model: Any
    tokenizer: Any
    limit: int
    stops: tuple[int, ...]
    adapter: Path | None = None


def load_base(folder: Path, quantize: Literal["none", "int8", "nf4"], precision: Literal["auto", "fp32", "bf16"]) -> Loaded:
    """The base that the stage before wrote (`data/base`): from `model/` there, else from the name and revision in base.json.

    Raises InputError if the folder is missing or the model cannot be loaded.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    about = describe(folder)
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    getLogger("bitsandbytes").setLevel(ERROR)  # else it says on every import which kernels it does without
    warnings.filterwarnings("ignore", category=FutureWarning)
    local = (folder / "model" / "config.json").is_file()
    source = str(folder / "model") if local else str(about.get("source") or about["name"])
    bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    options: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32, "attn_implementation": "sdpa"}
    if not local and about.get("revision"):
        options["revision"] = about["revision"]
    if quantize != "none":
        options["quantization_config"] = rounding(quantize, options["dtype"])
    try:
        model = AutoModelForCausalLM.from_pretrained(source, **options)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except Exception as error:  # hub, disk, config and weight formats each raise their own kind
        raise InputError(f"{folder}: the base model cannot be loaded from {source}: {short(error)} Run base again.") from error
    return _ready(model, tokenizer)


def describe(folder: Path) -> dict[str, Any]:
    """base.json of a base folder. Raises InputError if it is missing or not what base writes."""
    path = folder / "base.json"
    try:
        about = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file. Run base first (`dvc repro` does).") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error}). Run base again.") from None
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise InputError(f"{path}: has no 'name'. Run base again.")
    return about


def trained_as(adapter: Path, base: Path) -> dict[str, Any]:
    """provenance.json of an adapter, empty if it has none. Raises InputError if it names another base than the one in `base`."""
    path = adapter / "provenance.json"
    if not path.is_file():
        return {}
    try:
        story = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error}). Run train again.") from None
    about, trained = describe(base), story.get("base") or {}
    for key in ("name", "revision"):
        if trained.get(key) is not None and trained[key] != about.get(key):
            raise InputError(
                f"{adapter}: was trained on the base with {key} {trained[key]}, but {base} holds {about.get(key)}. Run train again."
            )
    return dict(story)


def rounding(quantize: str, dtype: Any) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"evaluate.quantize = {quantize} needs bitsandbytes, which cannot be loaded ({error}). Install it, or set none."
        ) from error
    from transformers import BitsAndBytesConfig

    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def _ready(model: Any, tokenizer: Any) -> Loaded:
    """Evaluation mode, on the accelerator where there is one, and plain greedy decoding whatever the model's own defaults are."""
    import torch
    from transformers import GenerationConfig

    if torch.cuda.is_available() and not (getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)):
        model = model.to("cuda")
    for module in model.modules():  # bitsandbytes 0.50 would repack 4-bit weights on some CPUs and round the product to bf16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    model.eval()
    stops = {tokenizer.eos_token_id, *_as_list(getattr(model.generation_config, "eos_token_id", None))} - {None}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, use_cache=True, eos_token_id=sorted(stops) or None, pad_token_id=0 if pad is None else pad
    )
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or UNBOUNDED
    return Loaded(model, tokenizer, min(int(limit), UNBOUNDED), tuple(sorted(stops)))


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def with_stops(loaded: Loaded, stops: Sequence[int]) -> Loaded:
    """The same model, ending its answers at these tokens too (the end token of the chat template need not be the tokenizer's)."""
    every = tuple(sorted({*loaded.stops, *stops}))
    loaded.model.generation_config.eos_token_id = list(every) or None
    return Loaded(loaded.model, loaded.tokenizer, loaded.limit, every)


def with_adapter(base: Loaded, folder: Path) -> Loaded:
    """The tuned model: the base with the adapter in `folder` (PEFT files), or the whole model there after full fine-tuning.

    `base` is changed in memory and must not be asked as the base any more. Raises InputError if the folder is missing, holds neither,
    or was made for another base.
    """
    config = folder / "adapter_config.json"
    if not config.is_file():
        if (folder / "config.json").is_file():
            return _full_model(base, folder)
        raise InputError(f"{folder}: no adapter here (adapter_config.json is missing). Run train first (`dvc repro` does).")
    if not (folder / "adapter_model.safetensors").is_file():
        raise InputError(f"{folder}: adapter_model.safetensors is missing. Run train again.")
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of tensors without a place; that is an error below
            model = PeftModel.from_pretrained(base.model, str(folder), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder}: the adapter does not fit this base model: {short(error)} It was trained on another base; run train again."
        ) from error
    _check_all_loaded(model, folder)
    for module in model.modules():  # bitsandbytes 0.50 would repack 4-bit weights on some CPUs and round the product to bf16
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    model.eval()
    model.generation_config = base.model.generation_config
    return Loaded(model, base.tokenizer, base.limit, base.stops, folder)


def _check_all_loaded(model: Any, folder: Path) -> None:
    """PEFT only warns when tensors of the file find no place, or places find no tensor: then the adapter is not the one trained."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(str(folder / "adapter_model.safetensors"), "pt") as file:
        stored = {_plain(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    expected = {_plain(name) for name in get_peft_model_state_dict(model)}
    if stored != expected:
        odd = sorted(stored ^ expected)
        raise InputError(
            f"{folder}: the adapter does not fit this base model: {len(odd)} tensors have no counterpart, the first is {odd[0]}. "
            "It was trained on another base; run train again."
        )


def _plain(name: str) -> str:
    """A tensor's name without PEFT's adapter name and wrappers, which differ between versions of its file format."""
    return re.sub(r"\.(default|base_layer|modules_to_save|original_module)(?=\.|$)", "", name)


def _full_model(base: Loaded, folder: Path) -> Loaded:
    model = _whole(folder, base.model.dtype, "train")
    if model.config.vocab_size != base.model.config.vocab_size:
        raise InputError(f"{folder}: has {model.config.vocab_size} token rows, the base {base.model.config.vocab_size}. Run train again.")
    return replace(with_stops(_ready(model, base.tokenizer), base.stops), adapter=folder)


def check_whole(folder: Path) -> None:
    """Raises InputError if there is no merged model in `folder`."""
    if not (folder / "config.json").is_file():
        raise InputError(f"evaluate.merged = {folder}: no model there. Make it with `python -m train.merge data/train/adapter {folder}`.")


def load_whole(folder: Path, tokenizer: Any, precision: Literal["auto", "fp32", "bf16"]) -> Loaded:
    """A merged model. Raises InputError if there is none in `folder`."""
    import torch

    check_whole(folder)
    bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    return _ready(_whole(folder, torch.bfloat16 if bf16 else torch.float32, "train.merge"), tokenizer)


def _whole(folder: Path, dtype: Any, made_by: str) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: the model cannot be loaded: {short(error)} Run {made_by} again.") from error


def short(error: Exception) -> str:
    """The first lines of a library's message: theirs can run to pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])[:400] or type(error).__name__
    return text if text.endswith(".") else text + "."
