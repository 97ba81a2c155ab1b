"""Loads the base: whole or rounded to 8 or 4 bits, to write or to score, with its tokenizer; checks that it fits the rows."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import orjson
import torch
from datasets.utils.logging import disable_progress_bar
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar as disable_loading_bar
from transformers.utils.logging import set_verbosity_error

from curate.record import InputError, ParamsError
from curate.template import tokenizer_hash
from train.provenance import read_base

HEAD_NAMES = ["score", "classifier", "classification_head"]  # never rounded: they are trained


def quiet() -> None:
    """No chatter of the libraries: what they warn of is decided here on purpose."""
    set_verbosity_error()
    disable_progress_bar()
    if not sys.stderr.isatty():
        disable_loading_bar()
    for name in ("bitsandbytes", "peft", "dvclive", "trl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")


def load_base(
    base: Path, quantize: str = "none", dtype: torch.dtype = torch.float32, labels: list[str] | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base's model (weights in `dtype`, or int8, or NF4 with double quantisation) and tokenizer.

    `base` is the base stage's folder; weights that were not copied there come from `model` at `revision` in base.json. `labels`: one
    score a label instead of an output a token (one label: a reward); the head is new and random.
    Raises InputError if they cannot be loaded, ParamsError if bitsandbytes is wanted and missing.
    """
    source, revision = base_source(base)
    config: dict[str, Any] = {"dtype": dtype, "revision": revision, "attn_implementation": "sdpa"}
    if quantize != "none":
        config["quantization_config"] = _rounding(quantize, dtype, labels is not None)
    kind: Any = AutoModelForCausalLM
    if labels is not None:
        kind = AutoModelForSequenceClassification
        config |= {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": {each: at for at, each in enumerate(labels)}}
    try:
        model = kind.from_pretrained(source, **config)
        tokenizer = AutoTokenizer.from_pretrained(base / "tokenizer")
    except Exception as error:  # hub, disk, config and weight formats each raise their own kind
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{base}: the base model '{source}'{f' at revision {revision}' if revision else ''} cannot be loaded: {first} "
            "Check base.model and the network, then run the base stage again."
        ) from error
    keep_as_trained(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if labels is not None:
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id  # the head scores the last token before the padding
    return model, tokenizer


def base_source(base: Path) -> tuple[str, str | None]:
    """Where the base's weights are: (folder or id on the hub, revision)."""
    info = read_base(base)
    if info.get("kind") == "tiny":
        return str(base / "model"), None
    if not info.get("model"):
        raise InputError(f"{base / 'base.json'}: has no key 'model'. Run the base stage again.")
    return str(info["model"]), info.get("revision")


def _rounding(quantize: str, dtype: torch.dtype, head: bool) -> BitsAndBytesConfig:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ParamsError(
            f"train.quantize = {quantize} needs the library bitsandbytes, which cannot be loaded here ({error}). "
            "Install it (`pip install bitsandbytes`; Linux and Windows, some Macs), or set train.quantize to none."
        ) from error
    skip = HEAD_NAMES if head else None
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skip,
    )


def keep_as_trained(model: Any) -> None:
    """On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks the weights at the first validation, for a product that has no gradient and is
    rounded to bf16: training would go on without a gradient through the base. Switched off, weights stay as they are."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_tokenizer(data: Path, base: Path) -> None:
    """Raises InputError if format made the rows with another tokenizer than the base's."""
    try:
        made_with = orjson.loads((data / "format.json").read_bytes())["tokenizer_xxh3"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return  # rows made elsewhere; the check of the vocabulary remains
    if made_with != tokenizer_hash(base / "tokenizer"):
        raise InputError(
            f"{data} was made with another tokenizer than that in {base / 'tokenizer'}: its token ids would mean other text. "
            "Set format.tokenizer to the base's tokenizer folder and run the format stage again."
        )


def check_vocabulary(highest: int, model: PreTrainedModel, data: Path, base: Path) -> None:
    """Raises InputError if the rows hold a token id that the base does not know."""
    known = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index,arg-type]
    if highest >= known:
        raise InputError(
            f"{data}: holds token id {highest}, but the base in {base} knows {known} tokens: they were made with another tokenizer. "
            "Set format.tokenizer to the base's tokenizer folder and run the format stage again."
        )


def bf16(precision: str) -> bool:
    """Whether to compute in bf16. Raises ParamsError if it is asked for and the accelerator cannot."""
    able = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if precision == "bf16" and torch.cuda.is_available() and not able:
        raise ParamsError(f"train.precision = bf16: {torch.cuda.get_device_name(0)} cannot do it. Use auto or fp32.")
    return precision == "bf16" or (precision == "auto" and able)


def device() -> str:
    """The accelerator's name, or cpu."""
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"
