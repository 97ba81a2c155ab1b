"""What a training would take, before it is started: weights, memory by part, steps, tokens, time; what to change if it does not fit.

`python -m train.plan [DATA] [BASE] [-S train.key=value] [--memory GIB] [--measured ADAPTER]`. Reads configuration and rows, no weights.
The time is taken from a run that was measured (its provenance.json) on this device with the same base, method, adapter and rounding.
"""

import argparse
import logging
import math
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from curate.params import check_section, read_params
from curate.stage import guarded, say
from train import allowed, provenance
from train.sizes import CONTEXT, FP32, Memory, activations, parameters, weight_bytes
from train.train import Params, settled

GIB = 2**30
TILE = (4096, 32_768)  # tokens and words of the vocabulary whose outputs TRL holds at a time


@dataclass(frozen=True)
class Work:
    """Rows and tokens of one pass, the shape of one forward pass (`rows` of `length` tokens), and the scores of a head."""

    examples: int
    tokens: int
    steps: int
    rows: int
    length: int
    scores: int = 0


@dataclass(frozen=True)
class Plan:
    """The figures, `fits` (None where the size of the memory is unknown) and what to change, in order."""

    parameters: int
    trainable: int
    work: Work
    memory: Memory
    available: float | None
    seconds: float | None
    changes: tuple[str, ...]

    @property
    def fits(self) -> bool | None:
        return None if self.available is None else self.memory.total <= self.available


def plan(data: Path, base: Path, params: Params, available: float | None, measured: Path) -> Plan:
    """The plan for these settings. Raises InputError (data or base missing or unfit)."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    params = settled(params, provenance.read_base(base))
    work = work_of(data, base, params)
    count, trainable, memory = memory_of(base, params, work)
    seconds = _seconds(base, params, work, measured)
    changes = () if available is None or memory.total <= available else _changes(base, params, work, available)
    return Plan(count, trainable, work, memory, available, seconds, changes)


def work_of(data: Path, base: Path, params: Params) -> Work:
    """Rows, tokens and steps, counted from the rows themselves. Packs are taken to be full, which they are but for a few in a hundred."""
    from transformers import AutoTokenizer

    from train import models, rows

    models.quiet()
    limit = int(provenance.read_base(base).get("context") or 0) or 1 << 20
    labels = rows.classes(data) if params.method == "classify" else ["reward"] if params.method == "reward" else []
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = AutoTokenizer.from_pretrained(base / "tokenizer")
        train = rows.read(data, "train", params.method, Path(scratch), labels, tokenizer, limit)
        count = len(train.rows)
    packed = params.packing and params.method in allowed.PACKED
    length = train.longest + (params.max_completion if params.method == "grpo" else 0)
    batches = math.ceil(train.tokens / length) if packed else count * (params.generations if params.method == "grpo" else 1)
    steps = math.ceil(math.ceil(batches / params.batch_size) / params.accumulation * params.epochs)
    pairs = 2 if params.method in ("dpo", "orpo", "reward") else 1
    return Work(count, train.tokens, steps, params.batch_size * pairs, length, len(labels))


def memory_of(base: Path, params: Params, work: Work) -> tuple[int, int, Memory]:
    """(weights, those that learn, bytes by part) on one device."""
    import torch

    from train import models

    bf16 = models.bf16(params.precision)
    width = 2 if bf16 else FP32
    held = FP32 if params.adapter == "full" else width  # full fine-tuning holds fp32 weights and computes in bf16
    model = empty_model(base, params, torch.bfloat16 if bf16 else torch.float32, work.scores)
    weights = weight_bytes(model, params.quantize, held, tuple(models.HEAD_NAMES))
    text = model.config.get_text_config()
    vocabulary, layers = int(text.vocab_size), int(text.num_hidden_layers)
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not output]
    largest = max((module.weight.numel() for module in linear), default=0)
    adapted = adapted_model(model, params)
    count, trainable = parameters(adapted)
    body = adapted.base_model.model if params.adapter not in ("full", *allowed.VIRTUAL) else model
    body = getattr(body, getattr(body, "base_model_prefix", ""), body)
    kept = activations(body, work.rows, work.length, layers, params.gradient_checkpointing, width)
    if params.quantize != "none":
        kept += 2 * largest * width  # a layer's weights written out for the product, and for the way back
    if params.adapter == "full" and bf16:
        kept += count * 2  # autocast keeps the rounded weights of a step
    on_device = CONTEXT if torch.cuda.is_available() else 0.0
    logits = 0.0 if params.method in allowed.HEADS else _logits(params.method, work.rows * work.length, vocabulary, text.hidden_size, width)
    reference = weights if params.adapter == "full" and params.method in ("dpo", "kto") else 0.0
    adapter = 0.0 if params.adapter == "full" else float(trainable * FP32)
    memory = Memory(weights, adapter, float(trainable * FP32), float(2 * trainable * FP32), kept, logits, reference, on_device)
    return count, trainable, memory


def _logits(method: str, tokens: int, vocabulary: int, hidden: int, width: int) -> float:
    """Bytes of the outputs. ORPO's are there whole (in fp32, with their probabilities, as computed, and their gradient); the others' a
    tile at a time, with the gradient of the states before the head in fp32 (TRL's ChunkedLogProbFunction)."""
    if method == "orpo":
        return float(tokens * vocabulary * (2 * FP32 + 2 * width))
    tile = min(tokens, TILE[0]) * min(vocabulary, TILE[1])
    return float(tile * width + 2 * tokens * hidden * FP32)


def empty_model(base: Path, params: Params, dtype: Any, scores: int) -> Any:
    """The base's architecture without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    from train.models import base_source

    source, revision = base_source(base)
    config = AutoConfig.from_pretrained(source, revision=revision)
    if params.method in allowed.HEADS:
        config.num_labels = scores
    kind: Any = AutoModelForSequenceClassification if params.method in allowed.HEADS else AutoModelForCausalLM
    with torch.device("meta"):
        return kind.from_config(config, dtype=dtype, attn_implementation="sdpa")


def adapted_model(model: Any, params: Params) -> Any:
    """The empty model with its adapter, as empty."""
    if params.adapter == "full":
        return model
    import torch
    from peft import get_peft_model

    from train.adapters import peft_config

    with torch.device("meta"):
        adapted = get_peft_model(model, peft_config(params), autocast_adapter_dtype=False)
    for parameter in adapted.parameters():  # what a step computes with, not what is held
        parameter.data = parameter.data.to("meta", dtype=model.dtype)
    return adapted


def _seconds(base: Path, params: Params, work: Work, measured: Path) -> float | None:
    """Seconds, at the tokens a second of a measured run that was like this one."""
    from train.models import device

    try:
        record = orjson.loads((measured / provenance.FILE).read_bytes())
        like = {key: record["train"][key] for key in ("method", "adapter", "quantize", "gradient_checkpointing")}
        tokens, seconds = record["metrics"]["tokens_seen"], record["seconds"]
        same = like == {key: getattr(params, key) for key in like} and record["base"]["sha256"] == provenance.base(base)["sha256"]
        if not same or record["hardware"]["device"] != device() or not tokens:
            return None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return float(work.tokens * params.epochs * seconds / tokens)


def _changes(base: Path, params: Params, work: Work, available: float) -> tuple[str, ...]:
    """Changes that make it fit, the cheapest first, each on top of those before; ends with what is still missing, if anything."""
    found: list[str] = []
    for name, changed in _options(params):
        if allowed.refusal(changed.method, changed.adapter, changed.quantize):
            continue
        fewer = replace(work, rows=max(1, work.rows * changed.batch_size // params.batch_size))
        total = memory_of(base, changed, fewer)[2].total
        found.append(f"{name}: {total / GIB:,.2f} GiB in all")
        if total <= available:
            return tuple(found)
        # what did not suffice stays changed: the next one comes on top
    return (*found, f"even so {available / GIB:,.2f} GiB are not enough: take shorter rows (format.max_length), a smaller base, or FSDP")


def _options(params: Params) -> list[tuple[str, Params]]:
    now, made = params, []
    if not now.gradient_checkpointing and now.adapter != "prefix":
        now = replace(now, gradient_checkpointing=True)
        made.append(("train.gradient_checkpointing: true", now))
    smallest = {"kto": 2, "grpo": now.generations}.get(now.method, 1)
    if now.batch_size > smallest:
        now = replace(now, batch_size=smallest, accumulation=now.accumulation * max(1, now.batch_size // smallest))
        made.append((f"train.batch_size: {now.batch_size}, train.accumulation: {now.accumulation}", now))
    if now.adapter == "full":
        now = replace(now, adapter="lora")
        made.append(("train.adapter: lora", now))
    if now.quantize == "none":
        now = replace(now, quantize="nf4")
        made.append(("train.quantize: nf4", now))
    return made


def render(found: Plan) -> str:
    """The plan as a table for people."""
    work, memory = found.work, found.memory
    lines = [
        f"parameters        {found.parameters:>16,}",
        f"of these learn    {found.trainable:>16,}  ({found.trainable / found.parameters:.3%})",
        f"rows              {work.examples:>16,}",
        f"tokens a pass     {work.tokens:>16,}",
        f"steps             {work.steps:>16,}",
        f"one forward pass  {f'{work.rows} x {work.length:,}':>16}  tokens",
        *(f"{name:<17} {value / GIB:>16,.3f}  GiB" for name, value in vars(memory).items() if value),
        f"in all            {memory.total / GIB:>16,.3f}  GiB"
        + ("" if found.available is None else f" of {found.available / GIB:,.1f}: {'fits' if found.fits else 'DOES NOT FIT'}"),
        f"time              {'not measured yet' if found.seconds is None else f'{found.seconds:,.0f}':>16}"
        + ("" if found.seconds is None else "  s, as the measured run"),
    ]
    return "\n".join([*lines, *(f"change            {each}" for each in found.changes)])


def _available() -> float | None:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return None


def main(arguments: list[str] | None = None) -> None:
    """The command line; exit code 1 if it does not fit."""
    parser = argparse.ArgumentParser(prog="python -m train.plan", description="What a training would take.")
    parser.add_argument("data", type=Path, nargs="?", default=Path("data/format"), metavar="DATA")
    parser.add_argument("base", type=Path, nargs="?", default=Path("data/base"), metavar="BASE")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--memory", type=float, default=None, metavar="GIB", help="of the device; default: the one that is here")
    parser.add_argument("--measured", type=Path, default=Path("data/train/adapter"), metavar="ADAPTER", help="a run to take the time from")
    options = parser.parse_args(arguments)
    found: list[Plan] = []

    def work() -> None:
        params = check_section(read_params(options.params, options.overrides), "train", Params, options.params)
        available = options.memory * GIB if options.memory is not None else _available()
        found.append(plan(options.data, options.base, params, available, options.measured))

    guarded("plan", work)
    print(render(found[0]))
    if found[0].fits is False:
        say("plan: it does not fit.")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
