"""The one module that touches TRL: a trainer for each method, on token ids that format made.

TRL prepares nothing itself: where a trainer would render or tokenise, it is told to take the rows as they are. Everything it would
otherwise decide (bf16, gradient checkpointing, truncation, reporting) is set here.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from peft import PeftConfig
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from trl import (  # type: ignore[attr-defined]
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from train import rewards
from train.allowed import PACKED
from train.rows import NOT_TRAINED

if TYPE_CHECKING:
    from train.train import Params

LOG_STEPS = 5  # a loss that is no number is seen after at most this many steps
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
CONFIGS: dict[str, Any] = {
    "sft": SFTConfig,
    "pretrain": SFTConfig,
    "dpo": DPOConfig,
    "orpo": ORPOConfig,
    "kto": KTOConfig,
    "reward": RewardConfig,
    "grpo": GRPOConfig,
    "classify": TrainingArguments,
}


def measure(method: str) -> str:
    """What validation is judged by: a reward that should rise (grpo), or a loss that should fall."""
    return "eval_reward" if method == "grpo" else "eval_loss"


def common_fields(params: "Params", checkpoints: Path, bf16: bool, validated: bool, fresh: bool) -> dict[str, Any]:
    """Fields that every method's configuration has."""
    return {
        "output_dir": str(checkpoints),
        "num_train_epochs": params.epochs,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": SCHEDULES[params.schedule],
        "warmup_steps": params.warmup_steps,
        "per_device_train_batch_size": params.batch_size,
        "per_device_eval_batch_size": params.batch_size,
        "gradient_accumulation_steps": params.accumulation,
        "max_grad_norm": params.max_grad_norm,
        "weight_decay": params.weight_decay,
        "optim": "adamw_torch",
        "seed": params.seed,
        "data_seed": params.seed,
        "bf16": bf16,
        "fp16": False,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": params.gradient_checkpointing,
        "eval_strategy": "steps" if validated else "no",
        "eval_steps": params.eval_steps,
        "eval_on_start": validated and fresh,  # the base's own; a resumed run has it in its history
        "save_strategy": "steps",
        "save_steps": params.eval_steps,
        "save_total_limit": 2,
        "load_best_model_at_end": validated,
        "metric_for_best_model": measure(params.method) if validated else None,
        "greater_is_better": params.method == "grpo" if validated else None,
        "restore_callback_states_from_checkpoint": True,  # else the patience already used is forgotten
        "logging_steps": LOG_STEPS,
        "logging_nan_inf_filter": False,  # by default a loss that is no number is logged as the mean of the others
        "include_num_input_tokens_seen": "non_padding",
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": list(params.trackers) or "none",
        "run_name": "finery",
        "disable_tqdm": not sys.stderr.isatty(),
        "ddp_find_unused_parameters": False,
    }


def method_fields(params: "Params", longest: int) -> dict[str, Any]:
    """Fields of the method's own configuration. `longest`: tokens of the longest row; nothing is cut, format has done that."""
    sft = {
        "packing": params.packing,
        "packing_strategy": "bfd",
        "eval_packing": False,
        "max_length": longest if params.packing else None,  # packs are as long as the longest row
        "loss_type": "nll",
        "completion_only_loss": False,  # the labels say it
        "assistant_only_loss": False,
    }
    pairs = {"max_length": None, "disable_dropout": False}
    every: dict[str, dict[str, Any]] = {
        "sft": sft,
        "pretrain": sft,
        "dpo": pairs | {"beta": params.beta, "loss_type": ["sigmoid"]},
        "kto": pairs | {"beta": params.beta, "loss_type": "kto", "train_sampling_strategy": "sequential"},
        "orpo": pairs | {"beta": params.beta, "max_length": longest, "remove_unused_columns": False},
        "reward": pairs,
        "grpo": {
            "beta": 0.0,  # no reference model: the clipped ratio holds the policy back, as is TRL's own default
            "num_generations": params.generations,
            "max_completion_length": params.max_completion,
            "temperature": 1.0,
            "loss_type": "dapo",
            "use_vllm": False,
            "log_completions": False,
            "disable_dropout": False,
        },
        "classify": {},
    }
    return every[params.method]


def make(
    params: "Params",
    model: Any,
    reference: Any,
    peft: PeftConfig | None,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset | None,
    fields: dict[str, Any],
    callbacks: list[TrainerCallback],
) -> Trainer:
    """The trainer of `params.method`. `peft`: for methods that put the adapter on themselves (see `wraps_itself`); `reference`: the
    untouched base, where the method needs one that no adapter can be switched off to give."""
    more = {"optimizers": (None, None), "callbacks": [*callbacks, *_patience(params, validation)]}
    arguments = {"model": model, "args": CONFIGS[params.method](**fields), "train_dataset": train, "eval_dataset": validation} | more
    arguments["processing_class"] = tokenizer
    if params.method in PACKED:
        trainer: Trainer = _Sft(**arguments)
    elif params.method == "dpo":
        trainer = _Dpo(ref_model=reference, peft_config=peft, **arguments)
    elif params.method == "kto":
        trainer = _Kto(ref_model=reference, peft_config=peft, **arguments)
    elif params.method == "orpo":
        trainer = _Orpo(**arguments)
    elif params.method == "reward":
        trainer = _Reward(**arguments)
    elif params.method == "grpo":
        trainer = _Grpo(reward_funcs=checked(params.reward), **arguments)
    else:
        trainer = Trainer(data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=_accuracy, **arguments)
    trainer.remove_callback(PrinterCallback)
    if fields["disable_tqdm"]:
        trainer.remove_callback(ProgressCallback)
    return trainer


def wraps_itself(method: str) -> bool:
    """Whether TRL must put the adapter on: given a model that has one, it would keep a second copy of it as the reference."""
    return method in ("dpo", "kto")


def needs_reference(method: str, adapter: str) -> bool:
    """Whether a second, untouched base must be held in memory: with an adapter, switching it off gives the reference."""
    return method in ("dpo", "kto") and adapter == "full"


def checked(kind: str) -> Callable[..., list[float | None]]:
    """The reward function for TRL: completions against the references of their rows."""

    def reward(completions: list[str], reference: list[str], **_: Any) -> list[float | None]:
        return [*rewards.score(kind, completions, reference)]

    reward.__name__ = kind
    return reward


def _patience(params: "Params", validation: Dataset | None) -> list[TrainerCallback]:
    return [EarlyStoppingCallback(params.patience)] if params.patience and validation is not None else []


def _accuracy(predicted: Any) -> dict[str, float]:
    scores, labels = predicted.predictions, predicted.label_ids
    return {"accuracy": float((scores.argmax(-1) == labels).mean())}


class _AsTheyAre:
    """For TRL's trainers: the rows hold token ids already; nothing is prepared, and the card is ours (train/card.py)."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        return


class _Sft(SFTTrainer):
    """SFTTrainer whose validation loss is the mean over tokens, not the mean over batches of means over tokens."""

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        del eval_dataset, ignore_keys
        model: Any = self.model_wrapped if self.is_fsdp_enabled else self.model
        model.eval()
        sums = torch.zeros(2, dtype=torch.float64 if not torch.backends.mps.is_available() else torch.float32)
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                inputs = self._prepare_inputs(batch)
                sums[1] += int((inputs["labels"][:, 1:] != NOT_TRAINED).sum())
                with self.compute_loss_context_manager():
                    sums[0] += float(self.compute_loss(model, inputs, num_items_in_batch=torch.tensor(1)))
        if self.accelerator.num_processes > 1:  # every process has seen its share of the rows
            if self.args.average_tokens_across_devices:  # for the mean of gradients, transformers multiplies the loss by their number
                sums[0] /= self.accelerator.num_processes
            sums = self.accelerator.reduce(sums.to(self.accelerator.device)).cpu()  # type: ignore[attr-defined]
        self._metrics["eval"].clear()
        metrics = {f"{metric_key_prefix}_loss": float(sums[0] / max(float(sums[1]), 1.0))}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The card is ours (train/card.py)."""


class _Dpo(_AsTheyAre, DPOTrainer):  # type: ignore[misc]
    pass


class _Kto(_AsTheyAre, KTOTrainer):  # type: ignore[misc]
    pass


class _Reward(_AsTheyAre, RewardTrainer):  # type: ignore[misc]
    pass


class _Orpo(_AsTheyAre, ORPOTrainer):  # type: ignore[misc]
    """ORPOTrainer tokenises row by row whatever it is given; it gets our tokens back instead. Its rows come with empty texts."""

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        del model
        made: dict[str, Any] = {"prompt_input_ids": feature["prompt_ids"], "prompt_attention_mask": [1] * len(feature["prompt_ids"])}
        for side in ("chosen", "rejected"):
            whole = feature["prompt_ids"] + feature[f"{side}_ids"]
            made[f"{side}_input_ids"] = whole
            made[f"{side}_attention_mask"] = [1] * len(whole)
            made[f"{side}_labels"] = [NOT_TRAINED] * len(feature["prompt_ids"]) + feature[f"{side}_ids"]
        return made


class _Grpo(_AsTheyAre, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer on prompts that are rendered already: their special tokens are read, and none is added."""

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[Any, None, dict[str, Any]]:
        tokenizer: Any = self.processing_class
        return tokenizer(prompts, add_special_tokens=False)["input_ids"], None, {}
