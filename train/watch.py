"""Looks on while a training runs: stops one that has gone wrong, with advice, marks whole checkpoints, writes a line now and then."""

import contextlib
import gc
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from curate.record import StageFailure
from curate.stage import say
from train.checkpoints import COMPLETE

DIVERGED = 1.5  # a validation loss above this multiple of the base's own is beyond recovery at the same settings
SURE = 4.0  # dpo and kto: their loss starts at a known small value, and being sure and wrong of a few pairs lifts it without divergence
ADVICE = (
    "Training has diverged; earlier output is as it was. Lower train.learning_rate (a third of it is a fair try), give more "
    "train.warmup_steps, or lower train.max_grad_norm."
)


class Watch(TrainerCallback):
    """`measure` is eval_loss or eval_reward; only a loss can be told to have diverged. `room` multiplies DIVERGED."""

    def __init__(self, measure: str, room: float = 1.0) -> None:
        self.measure = measure
        self.room = room
        self.shown = self.began = time.monotonic()
        self.first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.began = self.shown = time.monotonic()
        self.first_step = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        for key in ("loss", "grad_norm", "eval_loss"):
            if key in logs and not math.isfinite(float(logs[key])):
                raise StageFailure(f"step {state.global_step}: {key} is {logs[key]}. {ADVICE}")
        base = next((float(each["eval_loss"]) for each in state.log_history if "eval_loss" in each), None)
        if self.measure == "eval_loss" and base is not None and float(logs.get("eval_loss", 0.0)) > DIVERGED * self.room * base:
            raise StageFailure(
                f"step {state.global_step}: the validation loss rose to {logs['eval_loss']:.3f}, the base's own is {base:.3f}. {ADVICE}"
            )
        self._show(args, state, logs)

    def _show(self, args: TrainingArguments, state: TrainerState, logs: dict[str, Any]) -> None:
        now = time.monotonic()
        if not args.disable_tqdm or not state.is_world_process_zero or state.global_step <= self.first_step:
            return
        if now - self.shown < 5 and self.measure not in logs:
            return
        self.shown = now
        pace = (state.global_step - self.first_step) / max(now - self.began, 1e-9)
        left = (state.max_steps - state.global_step) / max(pace, 1e-9)
        names = (("loss", "loss"), ("reward", "reward"), ("eval_loss", "validation loss"), ("eval_reward", "validation reward"))
        what = " ".join(f"{name} {float(logs[key]):.4f}" for key, name in names if logs.get(key) is not None)
        say(f"train: step {state.global_step:,} of {state.max_steps:,}, {what}, {left:,.0f} s left")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


@contextlib.contextmanager
def advice(batch_size: int) -> Iterator[None]:
    """What to do about the one failure of the machine that users meet most."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        gc.collect()
        raise StageFailure(
            f"the accelerator's memory is full at train.batch_size = {batch_size}. Halve it and double train.accumulation, set "
            "train.gradient_checkpointing: true, or train.quantize: nf4. `python -m train.plan` says what takes how much."
        ) from error
