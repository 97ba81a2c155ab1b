"""Formatted tokens and a base in, an adapter with its provenance out; stays behind: what is needed to go on after a kill.

`data/train/` gets `adapter/` (PEFT files, tokenizer, card, provenance.json), `live/` (DVCLive) and `metrics.json`. Checkpoints lie beside
it in `data/.train-checkpoints/<fingerprint>/`, outside what DVC deletes before a run, and go when the run has ended well.
"""

import datetime
import logging
import os
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import Field

from curate import store
from curate.params import params_class
from curate.stage import command, say, write_whole
from train import provenance

if TYPE_CHECKING:
    from train.trainer import Fitted

# Set before any Hugging Face library is imported. Nothing is reported to anybody.
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "TOKENIZERS_PARALLELISM": "false"}
CHECKPOINT_VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes")  # another version need not continue exactly


@params_class
class Params:
    """`params.yaml: train`."""

    method: Literal["sft"]
    adapter: Literal["lora", "dora", "full"]
    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Literal["all-linear"] | tuple[str, ...]
    quantize: Literal["none", "nf4"]
    precision: Literal["auto", "fp32", "bf16"]
    epochs: Annotated[float, Field(gt=0)]
    learning_rate: Annotated[float, Field(gt=0, le=1)]
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=1)]
    accumulation: Annotated[int, Field(ge=1)]
    packing: bool
    gradient_checkpointing: bool
    max_grad_norm: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    eval_steps: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)] | None
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Annotated[int, Field(ge=1)] | None
    resume: Literal["auto", "never"]

    def __post_init__(self) -> None:
        if self.adapter == "full" and self.quantize != "none":
            raise ValueError(
                f"train.adapter: full and train.quantize: {self.quantize} do not go together: rounded weights cannot be trained. "
                "Use adapter: lora or dora, or quantize: none"
            )
        if "lm_head" in self.target_modules:
            raise ValueError("train.target_modules: an adapter on lm_head is never trained by TRL. Leave lm_head out")
        if not self.target_modules:
            raise ValueError("train.target_modules is empty: name modules, or write all-linear")


def build(data: Path, base: Path, out: Path, params: Params, sections: dict[str, Any]) -> None:
    """Train on `data` from `base` into the folder `out`, whole or not at all.

    Raises InputError (data or base missing or unfit), ParamsError, StageFailure (loss not finite, or rising).
    """
    clock, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    dataset, origin = provenance.dataset(data), provenance.base(base)  # as they are now, before anybody can change them
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for a faster kernel while it is imported, and says so
    from train import trainer  # seconds of imports, so that mistakes in params.yaml and missing folders are told at once

    shelf = out.parent / f".{out.name}-checkpoints"
    checkpoints = _open_checkpoints(shelf, _identity(dataset, origin, params), params.resume)
    with store.whole_folder(out) as partial:
        fitted = trainer.fit(data, base, partial / "adapter", checkpoints, params)
        write_live(fitted.history, partial / "live")
        record = provenance.collect(dataset, origin, partial / "adapter", sections, {"train": params.seed}, fitted.hardware)
        record["started"] = started.isoformat(timespec="seconds")
        record["seconds"] = round(time.monotonic() - clock, 1)
        _write_json(partial / "adapter" / provenance.FILE, record)
        (partial / "adapter" / "README.md").write_text(
            provenance.card(record, fitted.metrics, fitted.curve, asdict(params)), encoding="utf-8"
        )
        _write_json(partial / "metrics.json", fitted.metrics)
    shutil.rmtree(shelf, ignore_errors=True)
    _say_result(fitted, out)


def _identity(dataset: dict[str, Any], origin: dict[str, Any], params: Params) -> dict[str, Any]:
    """What must be the same for a run to go on where another stopped."""
    versions = provenance.versions()
    settings = asdict(params)
    settings.pop("resume")
    return {
        "dataset": dataset["sha256"],
        "base": origin["sha256"],
        "train": settings,
        "versions": {name: versions[name] for name in CHECKPOINT_VERSIONS},
    }


def _open_checkpoints(shelf: Path, identity: dict[str, Any], resume: str) -> Path:
    """The folder for the checkpoints of this run; says whether it goes on, or why not.

    Checkpoints of other settings stay until a run has ended well: whoever sets a value back can still go on from them.
    """
    identity = orjson.loads(orjson.dumps(identity))
    folder = shelf / provenance.text_sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS))[:16]
    if resume == "never":
        shutil.rmtree(shelf, ignore_errors=True)
    if not folder.exists():
        for other in sorted(shelf.glob("*/identity.json")):
            changed = ", ".join(_differences(orjson.loads(other.read_bytes()), identity))
            say(f"train: a stopped run lies in {other.parent}, but these differ: {changed}. Starting afresh.")
        folder.mkdir(parents=True)
        _write_json(folder / "identity.json", identity)
    return folder


def _differences(old: dict[str, Any], new: dict[str, Any], above: str = "") -> list[str]:
    """Keys whose values differ, with both values where they are short."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        name = f"{above}{key}"
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{name}.")
        elif a != b:
            found.append(f"{name} ({a} -> {b})" if len(f"{a}{b}") < 60 else name)
    return found


def write_live(history: list[dict[str, Any]], folder: Path) -> None:
    """The whole history as DVCLive metrics and plots. Written at the end: a resumed run then has one curve, not two halves."""
    from dvclive import Live  # type: ignore[attr-defined]

    names = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm", "eval_loss": "validation/loss"}
    with Live(dir=str(folder), dvcyaml=False, save_dvc_exp=False, report=None) as live:
        for entry in history:
            live.step = int(entry["step"])
            for key, name in names.items():
                if key in entry:
                    live.log_metric(name, float(entry[key]), timestamp=False)


def _say_result(fitted: "Fitted", out: Path) -> None:
    before, after = fitted.metrics["base_validation_loss"], fitted.metrics["best_validation_loss"]
    if before is None or after is None:
        say(f"train: {fitted.metrics['steps']:,} steps -> {out}. No validation rows: nothing tells whether it learned.")
        return
    note = "" if after < before else " It did NOT fall: try another learning_rate, more epochs, or look at the data."
    say(f"train: {fitted.metrics['steps']:,} steps, validation loss {before:.4f} -> {after:.4f} -> {out}.{note}")


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS) + b"\n")


def main(arguments: list[str] | None = None) -> None:
    """`python -m train.train DATA BASE OUT_DIR [--params FILE] [-S key=value]`."""
    command("train", "train.train", Params, build, ("data", "base"), arguments, all_sections=True)


if __name__ == "__main__":
    main(sys.argv[1:])
