"""Rows and a base in, an adapter's folder and the story of its training out."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import set_seed

from curate.record import InputError
from curate.stage import say
from train import adapters, attention, checkpoints, models, rewards, rows, trainer
from train.allowed import PACKED
from train.sizes import parameters
from train.watch import SURE, Watch, advice

if TYPE_CHECKING:
    from train.train import Params

UNBOUNDED = 1 << 20  # tokens, for a model that states no limit


@dataclass(frozen=True)
class Fitted:
    """What a training left beside the adapter. `curve` is (step, training, validation) at each evaluation: losses, or rewards (grpo)."""

    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    curve: list[tuple[int, float | None, float | None]]
    hardware: dict[str, Any]
    labels: list[str] | None  # what the scores of the head mean, in order; None for a model that writes


def fit(data: Path, base: Path, adapter: Path | None, folder: Path, params: "Params") -> Fitted:
    """Train, going on from the last whole checkpoint in `folder` if there is one, and save the best into `adapter`.

    `adapter` is None in every process but the first, where several train together.
    Raises InputError, ParamsError, StageFailure.
    """
    models.quiet()
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    if params.threads is not None:
        torch.set_num_threads(params.threads)
    bf16 = models.bf16(params.precision)
    set_seed(params.seed)
    labels = rows.classes(data) if params.method == "classify" else ["reward"] if params.method == "reward" else None
    model, tokenizer = models.load_base(
        base, params.quantize, torch.bfloat16 if bf16 and params.adapter != "full" else torch.float32, labels
    )
    models.check_tokenizer(data, base)
    limit = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or UNBOUNDED)
    scratch = folder / f"rows-{rank}"
    scratch.mkdir(exist_ok=True)
    train = rows.read(data, "train", params.method, scratch, labels or [], tokenizer, limit)
    validation = rows.read(data, "validation", params.method, scratch, labels or [], tokenizer, limit)
    _check(train, validation, model, data, base, params)
    reference = None
    if trainer.needs_reference(params.method, params.adapter):
        reference, _ = models.load_base(base, "none", torch.bfloat16 if bf16 else torch.float32)
    if params.adapter != "full" and not trainer.wraps_itself(params.method):
        model = adapters.with_adapter(model, params)
    resume = checkpoints.last_whole(folder)
    if resume is not None and adapter is not None:
        say(f"train: going on from step {resume.name.rpartition('-')[2]} ({resume}).")
    validated = bool(len(validation.rows))
    fields = trainer.common_fields(params, folder, bf16, validated, resume is None) | trainer.method_fields(params, train.longest)
    made = trainer.make(
        params,
        model,
        reference,
        adapters.peft_config(params) if params.adapter != "full" and trainer.wraps_itself(params.method) else None,
        tokenizer,
        _ready(train.rows, params),
        _ready(validation.rows, params) if validated else None,
        fields,
        [Watch(trainer.measure(params.method), SURE if params.method in ("dpo", "kto") else 1.0)],
    )
    adapters.keep_fp32(made.model)
    fused = bf16 and params.method in PACKED and faster(made.model, params)
    counts = _counts(made.model, train, validation)
    hardware = {
        "device": models.device(),
        "precision": "bf16" if bf16 else "fp32",
        "attention": attention.NAME if fused else "sdpa",
        "threads": torch.get_num_threads(),
        "processes": made.args.world_size,
    }
    if adapter is not None:
        say(
            f"train: {params.method}, {len(train.rows):,} rows, {train.tokens:,} tokens; {counts['trainable_parameters']:,} of "
            f"{counts['parameters']:,} parameters; {hardware['device']}, {hardware['precision']}, {hardware['threads']} threads"
        )
    with advice(params.batch_size):
        done = made.train(resume_from_checkpoint=str(resume) if resume else None)
    _save(made, data, base, adapter, tokenizer)
    return _story(made, counts, hardware, None if resume else float(done.training_loss), labels)


def faster(model: Any, params: "Params") -> bool:
    """What makes bf16 steps of `sft` and `pretrain` cheaper and changes no result; returns whether packs have attention of their own."""
    adapters.without_casts(model, params)
    return params.packing and attention.use(model.get_base_model() if hasattr(model, "get_base_model") else model)


def _check(train: rows.Rows, validation: rows.Rows, model: Any, data: Path, base: Path, params: "Params") -> None:
    if not train.trained and params.method != "grpo":
        raise InputError(f"{data}: no token of the training split carries loss (all labels are {rows.NOT_TRAINED}). Check format.template.")
    if train.without_loss:
        say(f"train: {train.without_loss:,} training rows have no token that carries loss; they change nothing.")
    if train.left_out:
        said = ", ".join(f"{count:,} {reason}" for reason, count in train.left_out.items())
        say(f"train: method {params.method} leaves out training rows: {said}.")
    models.check_vocabulary(max(train.highest, validation.highest), model, data, base)
    if params.method == "grpo":
        for each in (train.rows, validation.rows):
            for reference in each["reference"] if len(each) else ():
                rewards.check_reference(params.reward, reference)


def _ready(split: Dataset, params: "Params") -> Dataset:
    """What only the trainer's own way of working asks for."""
    if params.method == "kto":
        return rows.paired_by_batch(split, params.batch_size, params.seed)
    if params.method == "orpo":
        for name in ("prompt", "chosen", "rejected"):  # looked at, never trained: the ids are
            split = split.add_column(name, [""] * len(split))
    return split


def _save(made: Any, data: Path, base: Path, adapter: Path | None, tokenizer: Any) -> None:
    state = made.accelerator.get_state_dict(made.model_wrapped) if made.is_fsdp_enabled else None  # every process takes part
    if adapter is not None:
        if (data / "template.jinja").is_file():
            tokenizer.chat_template = (data / "template.jinja").read_text(encoding="utf-8")  # whoever serves it renders as in training
        adapters.save(made.model, tokenizer, adapter, base, state)
    made.accelerator.wait_for_everyone()


def _story(made: Any, counts: dict[str, Any], hardware: dict[str, Any], mean_loss: float | None, labels: list[str] | None) -> Fitted:
    """The figures of the run. The best step is that of the lowest validation loss, or the highest validation reward."""
    state, key = made.state, made.args.metric_for_best_model or "eval_loss"
    train_key, sign = ("reward", -1) if key == "eval_reward" else ("loss", 1)
    evaluated = {int(each["step"]): float(each[key]) for each in state.log_history if each.get(key) is not None}
    after = {step: value for step, value in evaluated.items() if step}
    best = min(after, key=lambda step: (sign * after[step], step)) if after else state.global_step
    name = key.removeprefix("eval_")
    metrics = counts | {
        "steps": state.global_step,
        "best_step": best,
        "stopped_early": state.global_step < state.max_steps,
        "tokens_seen": int(state.num_input_tokens_seen),
        "train_loss": _last(state.log_history, "loss", best),
        "mean_train_loss": mean_loss,
        f"base_validation_{name}": evaluated.get(0),
        f"best_validation_{name}": after.get(best),
    }
    if any("eval_accuracy" in each for each in state.log_history):
        metrics["validation_accuracy"] = next(
            float(each["eval_accuracy"]) for each in state.log_history if "eval_accuracy" in each and int(each["step"]) == best
        )
    curve: list[tuple[int, float | None, float | None]] = [
        (step, _last(state.log_history, train_key, step), value) for step, value in evaluated.items()
    ]
    return Fitted(metrics, state.log_history, curve, hardware, labels)


def _counts(model: Any, train: rows.Rows, validation: rows.Rows) -> dict[str, Any]:
    whole, trainable = parameters(model)
    return {
        "train_rows": len(train.rows),
        "validation_rows": len(validation.rows),
        "rows_without_loss": train.without_loss,
        "rows_left_out": train.left_out,
        "train_tokens": train.tokens,
        "trained_tokens": train.trained,
        "validation_trained_tokens": validation.trained,
        "longest_row": train.longest,
        "parameters": whole,
        "trainable_parameters": trainable,
    }


def _last(history: list[dict[str, Any]], key: str, step: int) -> float | None:
    """A training figure as last logged at or before `step`."""
    seen = [float(each[key]) for each in history if each.get(key) is not None and int(each["step"]) <= step]
    return seen[-1] if seen else None
