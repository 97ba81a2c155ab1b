"""Formatted tokens and a base in, an adapter with its provenance out; stays behind: what is needed to go on after a kill.

`data/train/` gets `adapter/` (PEFT files, tokenizer, card, provenance.json), `live/` (DVCLive) and `metrics.json`. Checkpoints lie beside
it in `data/.train-checkpoints/<fingerprint>/`, outside what DVC deletes before a run, and go when the run has ended well.

Several devices: `accelerate launch -m train.train DATA BASE OUT_DIR`; the first process alone writes.
"""

import datetime
import importlib.util
import logging
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field

from curate import approvals, store
from curate.params import params_class
from curate.record import ParamsError, StageFailure
from curate.stage import command, say, write_whole
from train import allowed, card, checkpoints, provenance

if TYPE_CHECKING:
    from train.fit import Fitted

# Set before any Hugging Face library is imported. Nothing is reported to anybody.
QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "TOKENIZERS_PARALLELISM": "false"}
AUTO = 0  # what `auto` is read as; nobody can write it
WAIT_SECONDS = 600  # for the first process to open the folder of the checkpoints


def _auto(value: Any) -> Any:
    if value == "auto":
        return AUTO
    if value == AUTO:
        raise ValueError("must be above 0, or auto")
    return value


@params_class
class Params:
    """`params.yaml: train`."""

    method: Literal["sft", "pretrain", "dpo", "orpo", "kto", "reward", "grpo", "classify"]
    adapter: Literal["lora", "dora", "rslora", "ia3", "prompt", "prefix", "full"]
    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[float, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Literal["all-linear"] | tuple[str, ...]
    virtual_tokens: Annotated[int, Field(ge=1, le=1024)]
    quantize: Literal["none", "int8", "nf4"]
    precision: Literal["auto", "fp32", "bf16"]
    epochs: Annotated[float, Field(gt=0)]
    learning_rate: Annotated[float, BeforeValidator(_auto), Field(ge=AUTO, le=1)]  # AUTO: by method and base, see `settled`
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, BeforeValidator(_auto), Field(ge=AUTO)]
    accumulation: Annotated[int, Field(ge=1)]
    packing: bool
    gradient_checkpointing: bool
    max_grad_norm: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    eval_steps: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=1)] | None
    beta: Annotated[float, Field(gt=0, le=10)]
    reward: Literal["exact", "number", "regex", "json_schema", "python"]
    generations: Annotated[int, Field(ge=2, le=256)]
    max_completion: Annotated[int, Field(ge=1)]
    trackers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    threads: Annotated[int, Field(ge=1)] | None
    resume: Literal["auto", "never"]

    def __post_init__(self) -> None:
        if self.batch_size == AUTO:
            object.__setattr__(self, "batch_size", allowed.batch_size(self.method, self.packing, self.generations))
        reason = allowed.refusal(self.method, self.adapter, self.quantize) or allowed.setting_refusal(
            self.method, self.adapter, self.packing, self.gradient_checkpointing, self.batch_size, self.accumulation, self.generations
        )
        if reason:
            raise ValueError(reason)
        if "lm_head" in self.target_modules:
            raise ValueError("train.target_modules: an adapter on lm_head is never trained by TRL. Leave lm_head out")
        if not self.target_modules:
            raise ValueError("train.target_modules is empty: name modules, or write all-linear")


def settled(params: Params, base: dict[str, Any]) -> Params:
    """The settings with the learning rate that fits method, adapter and base (base.json), where it was left open."""
    if params.learning_rate != AUTO:
        return params
    return replace(params, learning_rate=allowed.learning_rate(params.method, params.adapter, base.get("kind") == "tiny"))


def build(data: Path, base: Path, out: Path, params: Params, sections: dict[str, Any]) -> None:
    """Train on `data` from `base` into the folder `out`, whole or not at all.

    Raises InputError (data or base missing or unfit, or data not approved), ParamsError, StageFailure (loss not finite, or rising).
    """
    clock, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    check_trackers(params.trackers)
    dataset, origin = provenance.dataset(data), provenance.base(base)  # as they are now, before anybody can change them
    approved = check_approval(dataset["sha256"], sections)
    params = settled(params, provenance.read_base(base))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for a faster kernel while it is imported, and says so
    from train import fit  # seconds of imports, so that mistakes in params.yaml and missing folders are told at once

    shelf = out.parent / f".{out.name}-checkpoints"
    identity = checkpoints.identity(dataset, origin, params, int(os.environ.get("WORLD_SIZE", "1")))
    if int(os.environ.get("RANK", "0")):
        fit.fit(data, base, None, _wait_for(checkpoints.folder(shelf, identity)), params)
        return
    folder = checkpoints.open_folder(shelf, identity, params.resume)
    if "tensorboard" in params.trackers:  # by default it writes beside the checkpoints, which go when the run has ended well
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(out.parent / f".{out.name}-tensorboard" / folder.name))
    with store.whole_folder(out) as partial:
        fitted = fit.fit(data, base, partial / "adapter", folder, params)
        write_live(fitted.history, asdict(params), partial / "live")
        record = provenance.collect(dataset, origin, partial / "adapter", sections, {"train": params.seed}, fitted.hardware)
        record["started"] = started.isoformat(timespec="seconds")
        record["seconds"] = round(time.monotonic() - clock, 1)
        record["train"] = asdict(params)
        record["loss_curve"] = [dict(zip(("step", "training", "validation"), each, strict=True)) for each in fitted.curve]
        record["metrics"] = fitted.metrics
        record["labels"] = fitted.labels
        record["approvals"] = [asdict(each) for each in approved]
        _write_json(partial / "adapter" / provenance.FILE, record)
        (partial / "adapter" / "README.md").write_text(card.of_record(record, None), encoding="utf-8")
        _write_json(partial / "metrics.json", fitted.metrics)
    shutil.rmtree(shelf, ignore_errors=True)
    _say_result(fitted, out)


def check_approval(dataset: str, sections: dict[str, Any]) -> list[approvals.Approval]:
    """The approvals of the dataset; see `curate.approvals.check`. A params file without a `review` section requires none."""
    review = sections.get("review", {})
    return approvals.check(dataset, review.get("required") is True, Path(review.get("approvals", "data/approvals.jsonl")))


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises ParamsError for a tracker whose library is not installed. DVCLive needs no name: it always gets everything."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ParamsError(f"train.trackers: {name} is not installed here. `pip install {name}`, or take it out of the list.")


def _wait_for(folder: Path) -> Path:
    """The first process opens the folder; the others start beside it and wait here."""
    end = time.monotonic() + WAIT_SECONDS
    while not (folder / "identity.json").exists():
        if time.monotonic() > end:
            raise StageFailure(f"{folder}: the first process has not opened it within {WAIT_SECONDS} s. Look at its messages.")
        time.sleep(0.05)
    return folder


def write_live(history: list[dict[str, Any]], settings: dict[str, Any], folder: Path) -> None:
    """Settings and the whole history as DVCLive params, metrics and plots. Written at the end: a resumed run then has one curve, not
    two halves."""
    from dvclive import Live  # type: ignore[attr-defined]

    names = {
        "loss": "train/loss", "reward": "train/reward", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm",
        "eval_loss": "validation/loss", "eval_reward": "validation/reward", "eval_accuracy": "validation/accuracy",
    }  # fmt: skip
    with Live(dir=str(folder), dvcyaml=False, save_dvc_exp=False, report=None) as live:
        live.log_params({key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()})
        for entry in history:
            live.step = int(entry["step"])
            for key, name in names.items():
                if entry.get(key) is not None:
                    live.log_metric(name, float(entry[key]), timestamp=False)


def _say_result(fitted: "Fitted", out: Path) -> None:
    name = "reward" if "base_validation_reward" in fitted.metrics else "loss"
    before, after = fitted.metrics[f"base_validation_{name}"], fitted.metrics[f"best_validation_{name}"]
    if before is None or after is None:
        say(f"train: {fitted.metrics['steps']:,} steps -> {out}. No validation rows: nothing tells whether it learned.")
        return
    better, word = (after < before, "fall") if name == "loss" else (after > before, "rise")
    note = "" if better else f" It did NOT {word}: try another learning_rate, more epochs, or look at the data."
    say(f"train: {fitted.metrics['steps']:,} steps, validation {name} {before:.4f} -> {after:.4f} -> {out}.{note}")


def _write_json(path: Path, content: Any) -> None:
    write_whole(path, orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS) + b"\n")


def main(arguments: list[str] | None = None) -> None:
    """`python -m train.train DATA BASE OUT_DIR [--params FILE] [-S key=value]`."""
    command("train", "train.train", Params, build, ("data", "base"), arguments, all_sections=True)


if __name__ == "__main__":
    main(sys.argv[1:])
