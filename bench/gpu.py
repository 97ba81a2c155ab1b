"""`python -m bench.gpu [--miniature] [--shapes 1b,8b]`: what training a Llama takes, stock TRL settings beside Finery's, in one run.

Bases of Llama-3.2-1B and Llama-3.1-8B shape with random weights are made here (2.5 and 16 GB in DIR); rows are random tokens of random
lengths, packed to 4 096. For each shape, LoRA and QLoRA: tokens a second without padding, peak memory, MFU, and the memory that
`train.plan` had said. FLOP a token: 4 N for LoRA (no gradients of the base's weights), 6 N for full, N without the embedding of the input.
Stock is SFTTrainer as TRL configures it (checkpointing on, bf16 adapter under QLoRA); Finery's is what `params.yaml` sets on a GPU:
packing, bf16, the adapter in fp32, checkpointing only where the plan does not fit without. Each measurement has a process of its own.

`--miniature` does all of it in seconds on a CPU, with a base of some thousand weights; its figures mean nothing.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.measure import ROOT

PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "4090": 165e12, "3090": 71e12}  # dense bf16 FLOP/s
SKIPPED = 5  # steps before the clock starts: memory is taken, kernels are loaded


@dataclass(frozen=True)
class Shape:
    """A Llama, and the rows it is trained on."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    length: int
    steps: int


SHAPES = {
    "1b": Shape(2048, 8192, 16, 32, 8, 128_256, 4096, 24),
    "8b": Shape(4096, 14_336, 32, 32, 8, 128_256, 4096, 14),
    "miniature": Shape(64, 128, 2, 4, 2, 512, 128, 8),
}


@dataclass(frozen=True)
class Figures:
    """One measurement. `planned`: bytes that train.plan had said, without what CUDA takes for itself; `peak`: bytes that tensors took (on
    a CPU none is known)."""

    shape: str
    who: str
    quantize: str
    checkpointing: bool
    tokens_per_second: float
    peak: int | None
    planned: float
    mfu: float | None
    device: str
    loss: float


def make_base(folder: Path, shape: Shape, dtype: str) -> None:
    """Random weights in a folder that the base stage could have written."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")  # drawing 8 billion weights takes a processor minutes
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.length * 2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        tie_word_embeddings=shape.hidden <= 2048,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    vocabulary = {f"t{at}": at for at in range(shape.vocab)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="t2"))
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="t0", eos_token="t1", unk_token="t2").save_pretrained(folder / "tokenizer")
    about = {"name": "random", "model": "model", "kind": "tiny", "revision": None, "context": shape.length * 2, "vocab": shape.vocab}
    (folder / "base.json").write_text(json.dumps(about | {"parameters": model.num_parameters()}))
    torch.set_default_dtype(torch.float32)
    torch.set_default_device("cpu")
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def make_data(folder: Path, shape: Shape) -> None:
    """Rows of random tokens, an eighth of the length or more, that fill packs to the last token or nearly so."""
    import numpy as np
    import polars as pl

    from curate import store

    random = np.random.default_rng(0)
    lengths: list[int] = []
    for _ in range(shape.steps + 3):
        left = shape.length
        while left:
            taken = left if left < shape.length // 4 else int(random.integers(shape.length // 8, left + 1))
            lengths.append(taken)
            left -= taken
    ids = [random.integers(3, shape.vocab, length).tolist() for length in [shape.length, *lengths]]
    rows = pl.DataFrame({"input_ids": ids, "labels": ids}, schema={"input_ids": pl.List(pl.Int32), "labels": pl.List(pl.Int32)})
    (folder / "kept" / "train").mkdir(parents=True)
    store.write_parquet(rows, folder / "kept" / "train" / "part-00000.parquet")


def measure(name: str, who: str, quantize: str, folder: Path) -> Figures:
    """One measurement, in this process."""
    import torch
    from transformers import TrainerCallback

    from curate.params import check_section, read_params
    from train import models, plan, rows, train

    models.quiet()
    shape = SHAPES[name]
    base, data = folder / "base", folder / "data"
    path = ROOT / "params.yaml"
    given = [
        "method=sft", "adapter=lora", f"quantize={quantize}", "packing=true", "batch_size=1", "accumulation=1", "warmup_steps=0",
        "learning_rate=0.0002", "epochs=1", "patience=null", "rank=16", "alpha=32",
    ]  # fmt: skip
    params = check_section(read_params(path, [f"train.{each}" for each in given]), "train", train.Params, path)
    room = float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None
    found = plan.plan(data, base, params, room, Path("nowhere"))
    if who == "stock" or found.fits is False:
        params = replace(params, gradient_checkpointing=True)
        found = plan.plan(data, base, params, room, Path("nowhere"))

    class Clock(TrainerCallback):
        """Time and tokens of the steps after the first few."""

        began = ended = 0.0
        before = after = 0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if state.global_step == SKIPPED:
                self.began, self.before = time.perf_counter(), state.num_input_tokens_seen
            self.ended, self.after = time.perf_counter(), state.num_input_tokens_seen
            if state.global_step >= shape.steps:
                control.should_training_stop = True

    clock = Clock()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tokenizer_limit = shape.length * 2
        read = rows.read(data, "train", "sft", Path(scratch), [], None, tokenizer_limit)
        made = (_stock if who == "stock" else _ours)(base, quantize, read, params, Path(scratch), clock)
        done = made.train()
    peak = int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
    speed = (clock.after - clock.before) / max(clock.ended - clock.began, 1e-9)
    weights = found.parameters - shape.vocab * shape.hidden * (0 if shape.hidden <= 2048 else 1)  # a tied embedding is the output's too
    device = models.device()
    most = next((value for key, value in PEAK.items() if key in device), None)
    mfu = None if most is None else 4 * weights * speed / most
    return Figures(
        name,
        who,
        quantize,
        params.gradient_checkpointing,
        speed,
        peak,
        found.memory.total - found.memory.device,
        mfu,
        device,
        float(done.training_loss),
    )


def _ours(base: Path, quantize: str, read: Any, params: Any, scratch: Path, clock: Any) -> Any:
    import torch

    from train import adapters, fit, models, trainer

    bf16 = models.bf16("auto")
    model, tokenizer = models.load_base(base, quantize, torch.bfloat16 if bf16 else torch.float32)
    fields = trainer.common_fields(params, scratch, bf16, False, True) | trainer.method_fields(params, read.longest)
    fields |= {"save_strategy": "no"}
    made: Any = trainer.make(params, adapters.with_adapter(model, params), None, None, tokenizer, read.rows, None, fields, [clock])
    adapters.keep_fp32(made.model)
    if bf16:
        fit.faster(made.model, params)
    return made


def _stock(base: Path, quantize: str, read: Any, params: Any, scratch: Path, clock: Any) -> Any:
    """As TRL's own examples start it: its defaults, with packing."""
    import torch
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    from train import models

    bf16 = models.bf16("auto")
    model, tokenizer = models.load_base(base, quantize, torch.bfloat16 if bf16 else torch.float32)
    cuda = torch.cuda.is_available()
    more: dict[str, Any] = {} if cuda else {"bf16": False, "use_cpu": True}  # its default, bf16, needs a GPU
    config = SFTConfig(
        output_dir=str(scratch),
        packing=True,
        max_length=read.longest,
        per_device_train_batch_size=1,
        report_to="none",
        save_strategy="no",
        include_num_input_tokens_seen="non_padding",
        disable_tqdm=True,
        **more,
    )
    adapter = LoraConfig(task_type="CAUSAL_LM", r=params.rank, lora_alpha=params.alpha, target_modules="all-linear")
    return SFTTrainer(model=model, args=config, train_dataset=read.rows, processing_class=tokenizer, peft_config=adapter, callbacks=[clock])


def report(found: list[Figures]) -> str:
    """A Markdown table."""
    lines = [
        f"Device: {found[0].device}.",
        "",
        "| shape | adapter | who | checkpointing | tokens/s | MFU | peak GiB | planned GiB | planned / peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        kind = "LoRA" if each.quantize == "none" else "QLoRA"
        peak = "–" if each.peak is None else f"{each.peak / 2**30:.2f}"
        ratio = "–" if each.peak is None else f"{each.planned / each.peak:.2f}"
        mfu = "–" if each.mfu is None else f"{each.mfu:.1%}"
        checkpointing = "on" if each.checkpointing else "off"
        lines.append(
            f"| {each.shape} | {kind} | {each.who} | {checkpointing} | {each.tokens_per_second:,.0f} | {mfu} | {peak} "
            f"| {each.planned / 2**30:.2f} | {ratio} |"
        )
    return "\n".join(lines)


def run(names: list[str], folder: Path) -> list[Figures]:
    """Every measurement, each in a process of its own."""
    import torch

    found = []
    for name in names:
        here = folder / name
        if not (here / "base" / "base.json").exists():
            here.mkdir(parents=True, exist_ok=True)
            make_base(here / "base", SHAPES[name], "bfloat16" if torch.cuda.is_available() else "float32")
            make_data(here / "data", SHAPES[name])
        for quantize in ("none", "nf4"):
            for who in ("stock", "finery"):
                command = [sys.executable, "-m", "bench.gpu", "--one", f"{name},{who},{quantize}", "--dir", str(folder)]
                done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
                if done.returncode:
                    raise SystemExit(f"gpu: {name}, {who}, {quantize} failed:\n{done.stderr[-2000:]}")
                found.append(Figures(**json.loads(done.stdout.splitlines()[-1])))
                print(report(found[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Speed, memory and MFU of training, beside stock TRL.")
    parser.add_argument("--miniature", action="store_true", help="all of it in seconds on a CPU; the figures mean nothing")
    parser.add_argument("--shapes", default="1b,8b")
    parser.add_argument("--dir", type=Path, default=None, help="for the bases; default: a temporary one")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        name, who, quantize = options.one.split(",")
        print(json.dumps(asdict(measure(name, who, quantize, options.dir / name))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        names = ["miniature"] if options.miniature else options.shapes.split(",")
        print(report(run(names, options.dir or Path(temporary))))


if __name__ == "__main__":
    main()
