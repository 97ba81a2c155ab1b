"""Folds an adapter into its base: a whole model that servers read, written only if it answers as the adapter does.

`python -m train.merge data/train/adapter OUT_DIR [--base data/base] [--onto as_trained|original] [--dtype float32|bfloat16|float16]`.

The folder holds safetensors under the architecture's own names, config.json without any quantisation, the tokenizer with its chat template
(in tokenizer_config.json and chat_template.jinja: readers differ), provenance.json and a card: what vLLM, TGI and Ollama import.
An adapter of a rounded base (QLoRA) is merged onto the rounded weights, written out in full (`as_trained`), since it has learned to make up
for the rounding; `original` takes the unrounded base, a little off. Parity is the largest difference of any log-probability (nats; of a
score, for models with a head) between the folder as written, read back, and the adapter on its base, over random and real tokens.
"""

import argparse
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import orjson

from curate import store
from curate.record import InputError, StageFailure
from curate.stage import guarded, say, write_whole
from train import allowed, card, provenance
from train.verify import read as read_record

# Nats that a log-probability may move: by the arithmetic of float32 alone, and by rounding to 8 or 11 bits of mantissa
BOUNDS = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.05}
INT8 = 0.1  # more, for int8, whose products round the activations too: no weights written out do the same
ORIGINAL = 0.5  # more, for an adapter that learned on rounded weights and now stands on others
PROBE_ROWS, PROBE_TOKENS = 8, 48
PROBE_TEXT = (
    "How do I set up the new router? Numbers such as 12 and 3.50, code like `x = [1]`, and words in Straße or café should all read well."
)


def merge(adapter: Path, base: Path, out: Path, onto: str, dtype: str | None, bound: float | None, evaluation: Path) -> float:
    """Write the merged model to `out`, whole or not at all; returns the parity in nats.

    Raises InputError (no adapter, another base, an adapter that cannot be merged), StageFailure (parity not reached).
    """
    record = read_record(adapter)
    settings = record.get("train") or {}
    method, kind, quantize = (settings.get(key) for key in ("method", "adapter", "quantize"))
    if kind not in allowed.ADAPTERS or quantize not in allowed.QUANTIZE:
        raise InputError(f"{adapter / provenance.FILE}: does not say how it was trained (train). Train it again.")
    reason = allowed.merge_refusal(str(kind))
    if reason:
        raise InputError(f"{adapter}: {reason}.")
    changed = [name for name, digest in provenance.weights(adapter).items() if record["weights"].get(name) != digest]
    if changed or record["base"]["sha256"] != provenance.base(base)["sha256"]:
        what = f"its file {changed[0]} was changed" if changed else f"it was trained on another base than that in {base}"
        raise InputError(f"{adapter}: {what}. `python -m train.verify {adapter}` says more.")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import torch

    from train import models

    models.quiet()
    warnings.filterwarnings("ignore", message="Merge lora module to|Merge layers using")
    labels = record.get("labels") if method in allowed.HEADS else None
    written = dtype or _own_dtype(base)
    allowance = bound if bound is not None else _bound(written, str(quantize), onto)
    with torch.no_grad(), store.whole_folder(out) as partial:
        probes, expected = _expected(adapter, base, str(quantize), labels)
        model = _merged(adapter, base, str(quantize) if onto == "as_trained" else "none", labels)
        model.to(getattr(torch, written)).save_pretrained(str(partial))
        del model
        _write_tokenizer(adapter, partial)
        parity = _parity(partial, probes, expected, labels)
        if not parity <= allowance:  # a parity that is no number fails too
            raise StageFailure(
                f"merged and adapter differ by {parity:.2g} nats, more than {allowance:.2g}; nothing was written. Merge with --dtype "
                f"float32{' and --onto as_trained' if onto == 'original' else ''}, or raise --bound if that is near enough."
            )
        about = {"onto": onto, "dtype": written, "parity_nats": parity, "bound_nats": allowance, "adapter": record["weights"]}
        record |= {"merged": about, "weights": provenance.weights(partial)}
        write_whole(partial / provenance.FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
        write_whole(partial / "README.md", card.of_record(record, card.evaluation_of(record, evaluation)).encode())
    return parity


def _bound(dtype: str, quantize: str, onto: str) -> float:
    """Nats that may lie between the merged model and the adapter."""
    return BOUNDS[dtype] + (INT8 if quantize == "int8" else 0.0) + (ORIGINAL if onto == "original" and quantize != "none" else 0.0)


def _own_dtype(base: Path) -> str:
    """The type of the base's own weights, which is what its users expect."""
    from transformers import AutoConfig

    from train.models import base_source

    source, revision = base_source(base)
    found = str(getattr(AutoConfig.from_pretrained(source, revision=revision), "dtype", None) or "float32").removeprefix("torch.")
    return found if found in BOUNDS else "float32"


def _expected(adapter: Path, base: Path, quantize: str, labels: list[str] | None) -> tuple[Any, Any]:
    """Tokens to try, and what the adapter on its base, as trained, makes of them."""
    import torch
    from peft import PeftModel

    from train import models

    model, tokenizer = models.load_base(base, quantize, torch.float32, labels)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index,arg-type]
    probes = torch.randint(0, vocabulary, (PROBE_ROWS, PROBE_TOKENS), generator=torch.Generator().manual_seed(0))
    text = tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"][:PROBE_TOKENS]
    probes[0, : len(text)] = torch.tensor(text)
    adapted = PeftModel.from_pretrained(model, str(adapter))
    models.keep_as_trained(adapted)
    return probes, _outputs(adapted, probes, labels)


def _outputs(model: Any, probes: Any, labels: list[str] | None) -> Any:
    import torch

    model.eval()
    logits = model(input_ids=probes, attention_mask=torch.ones_like(probes)).logits.float()
    return logits if labels is not None else logits.log_softmax(-1)


def _merged(adapter: Path, base: Path, quantize: str, labels: list[str] | None) -> Any:
    import torch
    from peft import PeftModel

    from train import models

    model: Any = models.load_base(base, quantize, torch.float32, labels)[0]
    if quantize != "none":
        model = model.dequantize()
    whole = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    if hasattr(whole.config, "quantization_config"):
        del whole.config.quantization_config
    return whole


def _write_tokenizer(adapter: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter)
    tokenizer.save_pretrained(out)
    if isinstance(tokenizer.chat_template, str):
        path = out / "tokenizer_config.json"
        config = orjson.loads(path.read_bytes()) | {"chat_template": tokenizer.chat_template}
        path.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def _parity(folder: Path, probes: Any, expected: Any, labels: list[str] | None) -> float:
    """The folder, read back as a server would, against what the adapter said. Raises StageFailure if tensors are missing or left over."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind: Any = AutoModelForSequenceClassification if labels is not None else AutoModelForCausalLM
    model, info = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, use_safetensors=True)
    odd = sorted(map(str, [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]))
    if odd:
        raise StageFailure(f"the merged model has {len(odd)} tensors that its architecture does not name so, the first is {odd[0]}.")
    return float((_outputs(model, probes, labels) - expected).abs().max())


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m train.merge", description="Folds an adapter into its base, for serving.")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--base", type=Path, default=Path("data/base"), metavar="DIR")
    parser.add_argument("--onto", choices=("as_trained", "original"), default="as_trained", help="which weights, where quantize was used")
    parser.add_argument("--dtype", choices=tuple(BOUNDS), default=None, help="of the written weights; default: the base's own")
    parser.add_argument("--bound", type=float, default=None, metavar="NATS", help="largest difference allowed")
    parser.add_argument("--evaluation", type=Path, default=Path("reports/evaluation.json"), metavar="FILE", help="shown in the card")
    options = parser.parse_args(arguments)
    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    parity: list[float] = []
    guarded(
        "merge",
        lambda: parity.append(
            merge(options.adapter, options.base, options.out, options.onto, options.dtype, options.bound, options.evaluation)
        ),
    )
    say(f"merge: {options.out}: answers as the adapter does, within {parity[0]:.2g} nats.")


if __name__ == "__main__":
    main()
