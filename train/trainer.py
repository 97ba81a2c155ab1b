"""The one module that touches TRL: tokens and base in, an adapter's folder and the story of its training out.

TRL gets `input_ids` and `labels` as format made them and prepares nothing itself. Everything it would otherwise decide (bf16, gradient
checkpointing, truncation, reporting) is set here.
"""

import contextlib
import gc
import logging
import math
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar as disable_loading_bar
from transformers.utils.logging import set_verbosity_error
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from curate import store
from curate.record import InputError, ParamsError, StageFailure
from curate.stage import say
from curate.template import tokenizer_hash
from train.provenance import read_base

if TYPE_CHECKING:
    from train.train import Params

NOT_TRAINED = -100
LOG_STEPS = 5  # a loss that is no number is seen after at most this many steps
DIVERGED = 1.5  # a validation loss above this multiple of the base's own is beyond recovery at the same settings
COMPLETE = "complete"  # written into a checkpoint after everything else: one without it was cut off by a kill
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
TOKENS = pa.schema([("input_ids", pa.large_list(pa.int32())), ("labels", pa.large_list(pa.int32()))])


@dataclass(frozen=True)
class Fitted:
    """What a training left beside the adapter. `curve` is (step, training loss, validation loss) at each evaluation."""

    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    curve: list[tuple[int, float | None, float | None]]
    hardware: dict[str, Any]


@dataclass(frozen=True)
class Tokens:
    """One split, mapped from disk, with what was counted on the way there."""

    rows: Dataset
    tokens: int
    trained: int  # tokens that carry loss
    longest: int
    highest: int  # token id
    without_loss: int  # rows of which no token carries loss


def fit(data: Path, base: Path, adapter: Path, checkpoints: Path, params: "Params") -> Fitted:
    """Train, going on from the last whole checkpoint in `checkpoints` if there is one, and save the best into `adapter`.

    Raises InputError, ParamsError, StageFailure.
    """
    _quiet()
    if params.threads is not None:
        torch.set_num_threads(params.threads)
    bf16 = _bf16(params.precision)
    train = _tokens(data, "train", checkpoints)
    validation = _tokens(data, "validation", checkpoints)
    if not train.trained:
        raise InputError(f"{data}: no token of the training split carries loss (all labels are {NOT_TRAINED}). Check format.template.")
    if train.without_loss:
        say(f"train: {train.without_loss:,} training rows have no token that carries loss; they change nothing.")
    set_seed(params.seed)
    model, tokenizer = load_base(base, params.quantize, torch.bfloat16 if bf16 and params.adapter != "full" else torch.float32)
    _check_tokenizer(data, base)
    _check_vocabulary(max(train.highest, validation.highest), model, data, base)
    if params.adapter != "full":
        model = _with_adapter(model, base, params)
    resume = _last_whole(checkpoints)
    if resume is not None:
        say(f"train: going on from step {resume.name.rpartition('-')[2]} ({resume}).")
    counts = _counts(model, train, validation)
    say(
        f"train: {len(train.rows):,} rows, {train.tokens:,} tokens; {counts['trainable_parameters']:,} of {counts['parameters']:,} "
        f"parameters; {_device()}, {'bf16' if bf16 else 'fp32'}, {torch.get_num_threads()} threads"
    )
    watch = _Watch()
    trainer = _Trainer(
        model=model,
        args=_arguments(params, checkpoints, bf16, train.longest, bool(len(validation.rows)), resume is None),
        train_dataset=train.rows,
        eval_dataset=validation.rows if len(validation.rows) else None,
        processing_class=tokenizer,
        callbacks=[watch, *([EarlyStoppingCallback(params.patience)] if params.patience and len(validation.rows) else [])],
    )
    trainer.remove_callback(PrinterCallback)
    with _advice(params):
        done = trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if (data / "template.jinja").is_file():
        tokenizer.chat_template = (data / "template.jinja").read_text(encoding="utf-8")  # whoever serves it renders as in training
    _save(trainer.model, tokenizer, adapter, base)
    state = trainer.state
    evaluated = {int(each["step"]): float(each["eval_loss"]) for each in state.log_history if "eval_loss" in each}
    after = {step: loss for step, loss in evaluated.items() if step}
    best = min(after, key=lambda step: (after[step], step)) if after else state.global_step
    metrics = counts | {
        "steps": state.global_step,
        "best_step": best,
        "stopped_early": state.global_step < state.max_steps,
        "tokens_seen": int(state.num_input_tokens_seen),
        "train_loss": _last_loss(state.log_history, best),
        "mean_train_loss": float(done.training_loss) if resume is None else None,
        "base_validation_loss": evaluated.get(0),
        "best_validation_loss": after.get(best),
    }
    curve: list[tuple[int, float | None, float | None]] = [
        (step, _last_loss(state.log_history, step), loss) for step, loss in evaluated.items()
    ]
    hardware = {"device": _device(), "precision": "bf16" if bf16 else "fp32", "threads": torch.get_num_threads()}
    return Fitted(metrics, state.log_history, curve, hardware)


def _quiet() -> None:
    set_verbosity_error()
    disable_progress_bar()
    if not sys.stderr.isatty():
        disable_loading_bar()
    for name in ("bitsandbytes", "peft"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _bf16(precision: str) -> bool:
    able = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if precision == "bf16" and torch.cuda.is_available() and not able:
        raise ParamsError(f"train.precision = bf16: {torch.cuda.get_device_name(0)} cannot do it. Use auto or fp32.")
    return precision == "bf16" or (precision == "auto" and able)


def _device() -> str:
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"


def _tokens(data: Path, split: str, scratch: Path) -> Tokens:
    """The two columns that TRL may see, streamed into one Arrow file below `scratch` and mapped from there."""
    target = scratch / f"{split}.arrow"
    tokens = trained = longest = highest = without = 0
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_stream(file, TOKENS) as writer:
        for part in store.parts(data):
            if part.split != split:
                continue
            for batch in _batches(part.path):
                lengths = batch["input_ids"].list.len()
                if (lengths != batch["labels"].list.len()).any():
                    raise InputError(f"{part.path}: input_ids and labels of a row differ in length. Run the format stage again.")
                # The first token of a row is predicted by nothing, so it carries no loss whatever its label says.
                loss = batch["labels"].list.slice(1).list.eval((pl.element() != NOT_TRAINED).cast(pl.Int64)).list.sum()
                tokens += int(lengths.sum() or 0)
                trained += int(loss.sum() or 0)
                without += int((loss == 0).sum() or 0)
                longest = max(longest, _int(lengths.max()))
                highest = max(highest, _int(batch["input_ids"].list.max().max()))
                writer.write_table(batch.to_arrow().cast(TOKENS))
    return Tokens(Dataset.from_file(str(target)), tokens, trained, longest, highest, without)


def _int(value: Any) -> int:
    return 0 if value is None else int(value)


def _batches(path: Path) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(path) as file:
        missing = [name for name in TOKENS.names if name not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path}: has no column {' and '.join(missing)}. Give the folder that the format stage wrote (data/format).")
        for batch in file.iter_batches(store.GROUP_ROWS, columns=TOKENS.names):
            yield pl.DataFrame(batch)


def load_base(base: Path, quantize: str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base's model (weights in `dtype`, or NF4 with double quantisation) and tokenizer.

    `base` is the base stage's folder; weights that were not copied there come from `model` at `revision` in base.json.
    Raises InputError if they cannot be loaded, ParamsError if bitsandbytes is wanted and missing.
    """
    source, revision = base_source(base)
    config: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", "revision": revision}
    if quantize == "nf4":
        config["quantization_config"] = _nf4(dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(source, **config)
        tokenizer = AutoTokenizer.from_pretrained(base / "tokenizer")
    except Exception as error:  # hub, disk, config and weight formats each raise their own kind
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{base}: the base model '{source}'{f' at revision {revision}' if revision else ''} cannot be loaded: {first} "
            "Check base.model and the network, then run the base stage again."
        ) from error
    if quantize == "nf4":
        _keep_as_trained(model)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def base_source(base: Path) -> tuple[str, str | None]:
    """Where the base's weights are: (folder or id on the hub, revision)."""
    info = read_base(base)
    if info.get("kind") == "tiny":
        return str(base / "model"), None
    if not info.get("model"):
        raise InputError(f"{base / 'base.json'}: has no key 'model'. Run the base stage again.")
    return str(info["model"]), info.get("revision")


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ParamsError(
            f"train.quantize = nf4 needs the library bitsandbytes, which cannot be loaded here ({error}). "
            "Install it (`pip install bitsandbytes`; Linux and Windows, some Macs), or set train.quantize to none."
        ) from error
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)


def _keep_as_trained(model: PreTrainedModel) -> None:
    """On CPUs with AVX512-BF16, bitsandbytes 0.50 repacks the weights at the first validation, for a product that has no gradient and is
    rounded to bf16: training would go on without a gradient through the base. Switched off, weights stay as they are."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def _check_tokenizer(data: Path, base: Path) -> None:
    try:
        made_with = orjson.loads((data / "format.json").read_bytes())["tokenizer_xxh3"]
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return  # rows made elsewhere; the check of the vocabulary remains
    if made_with != tokenizer_hash(base / "tokenizer"):
        raise InputError(
            f"{data} was made with another tokenizer than that in {base / 'tokenizer'}: its token ids would mean other text. "
            "Set format.tokenizer to the base's tokenizer folder and run the format stage again."
        )


def _check_vocabulary(highest: int, model: PreTrainedModel, data: Path, base: Path) -> None:
    known = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[index,arg-type]
    if highest >= known:
        raise InputError(
            f"{data}: holds token id {highest}, but the base in {base} knows {known} tokens: they were made with another tokenizer. "
            "Set format.tokenizer to the base's tokenizer folder and run the format stage again."
        )


def _with_adapter(model: PreTrainedModel, base: Path, params: "Params") -> Any:
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=params.rank,
        lora_alpha=params.alpha,  # type: ignore[arg-type]
        lora_dropout=params.dropout,
        target_modules=params.target_modules if isinstance(params.target_modules, str) else list(params.target_modules),
        use_dora=params.adapter == "dora",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)})
        raise ParamsError(
            f"train.target_modules = {params.target_modules!r}: {error} Linear modules of this base: {', '.join(names)}."
        ) from error
    adapted.peft_config["default"].revision = base_source(base)[1]
    return adapted


def portable(source: str, name: str) -> str:
    """`source` as an adapter may name it: an id as it is, a folder relative to the project's root, or else just `name`.

    >>> portable("Qwen/Qwen3-0.6B", "qwen")
    'Qwen/Qwen3-0.6B'
    """
    path = Path(source)
    if not path.exists():
        return name if path.is_absolute() else source
    inside = path.resolve()
    return inside.relative_to(Path.cwd()).as_posix() if inside.is_relative_to(Path.cwd()) else name


def _arguments(params: "Params", checkpoints: Path, bf16: bool, longest: int, validated: bool, fresh: bool) -> SFTConfig:
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=params.epochs,
        learning_rate=params.learning_rate,
        lr_scheduler_type=SCHEDULES[params.schedule],
        warmup_steps=params.warmup_steps,
        per_device_train_batch_size=params.batch_size,
        per_device_eval_batch_size=params.batch_size,
        gradient_accumulation_steps=params.accumulation,
        max_grad_norm=params.max_grad_norm,
        weight_decay=params.weight_decay,
        optim="adamw_torch",
        seed=params.seed,
        data_seed=params.seed,
        bf16=bf16,
        fp16=False,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=params.gradient_checkpointing,
        packing=params.packing,
        packing_strategy="bfd",
        eval_packing=False,
        max_length=longest if params.packing else None,  # format has cut already; packs are as long as the longest row
        loss_type="nll",
        completion_only_loss=False,  # the labels say it
        assistant_only_loss=False,
        eval_strategy="steps" if validated else "no",
        eval_steps=params.eval_steps,
        eval_on_start=validated and fresh,  # the base's own loss; a resumed run has it in its history
        save_strategy="steps",
        save_steps=params.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=validated,
        metric_for_best_model="eval_loss" if validated else None,
        greater_is_better=False if validated else None,
        restore_callback_states_from_checkpoint=True,  # else the patience already used is forgotten
        logging_steps=LOG_STEPS,
        logging_nan_inf_filter=False,  # by default a loss that is no number is logged as the mean of the others
        include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=not sys.stderr.isatty(),
    )


class _Trainer(SFTTrainer):
    """SFTTrainer with two differences: its validation loss is the mean over tokens, not the mean over batches of means over tokens, and
    a QLoRA adapter stays in fp32. SFTTrainer rounds it to bf16, and a run that goes on from a checkpoint would continue in fp32."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        assert self.model is not None
        for parameter in self.model.parameters():
            if parameter.requires_grad and isinstance(self.model, PeftModel):
                parameter.data = parameter.data.float()

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        del eval_dataset, ignore_keys
        assert self.model is not None
        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self.get_eval_dataloader():
                inputs = self._prepare_inputs(batch)
                count += int((inputs["labels"][:, 1:] != NOT_TRAINED).sum())
                with self.compute_loss_context_manager():
                    total += float(self.compute_loss(self.model, inputs, num_items_in_batch=torch.tensor(1)))
        self._metrics["eval"].clear()
        metrics = {f"{metric_key_prefix}_loss": total / max(count, 1)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The card is ours (train/provenance.py)."""


class _Watch(TrainerCallback):
    """Stops a run that has gone wrong, evaluates after the last step, marks whole checkpoints, writes a line now and then."""

    def __init__(self) -> None:
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
                raise StageFailure(f"step {state.global_step}: {key} is {logs[key]}. {_ADVICE}")
        base = next((float(each["eval_loss"]) for each in state.log_history if "eval_loss" in each), None)
        if base is not None and float(logs.get("eval_loss", 0.0)) > DIVERGED * base:
            raise StageFailure(
                f"step {state.global_step}: the validation loss rose to {logs['eval_loss']:.3f}, the base's own is {base:.3f}. {_ADVICE}"
            )
        now = time.monotonic()
        if args.disable_tqdm and state.global_step > self.first_step and (now - self.shown >= 5 or "eval_loss" in logs):
            self.shown = now
            pace = (state.global_step - self.first_step) / max(now - self.began, 1e-9)
            left = (state.max_steps - state.global_step) / max(pace, 1e-9)
            what = " ".join(
                f"{name} {float(logs[key]):.4f}" for key, name in (("loss", "loss"), ("eval_loss", "validation loss")) if key in logs
            )
            say(f"train: step {state.global_step:,} of {state.max_steps:,}, {what}, {left:,.0f} s left")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        (Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


_ADVICE = (
    "Training has diverged; earlier output is as it was. Lower train.learning_rate (a third of it is a fair try), give more "
    "train.warmup_steps, or lower train.max_grad_norm."
)


def _last_whole(checkpoints: Path) -> Path | None:
    found = [path.parent for path in checkpoints.glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


@contextlib.contextmanager
def _advice(params: "Params") -> Iterator[None]:
    """What to do about the one failure of the machine that users meet most."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        gc.collect()
        raise StageFailure(
            f"the accelerator's memory is full at train.batch_size = {params.batch_size}. Halve it and double train.accumulation, set "
            "train.gradient_checkpointing: true, or train.quantize: nf4."
        ) from error


def _counts(model: Any, train: Tokens, validation: Tokens) -> dict[str, Any]:
    sizes = [(_numel(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return {
        "train_rows": len(train.rows),
        "validation_rows": len(validation.rows),
        "rows_without_loss": train.without_loss,
        "train_tokens": train.tokens,
        "trained_tokens": train.trained,
        "validation_trained_tokens": validation.trained,
        "longest_row": train.longest,
        "parameters": sum(size for size, _ in sizes),
        "trainable_parameters": sum(size for size, trainable in sizes if trainable),
    }


def _numel(parameter: Any) -> int:
    """Weights of a parameter; NF4 holds two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(math.prod(state.shape)) if state is not None else int(parameter.numel())


def _save(model: Any, tokenizer: PreTrainedTokenizerBase, adapter: Path, base: Path) -> None:
    if isinstance(model, PeftModel):
        model.save_pretrained(str(adapter), save_embedding_layers=False)  # else PEFT asks the hub whether the vocabulary grew
        config = orjson.loads((adapter / "adapter_config.json").read_bytes())
        config["base_model_name_or_path"] = portable(base_source(base)[0], str(read_base(base).get("name") or "base"))
        (adapter / "adapter_config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    else:
        model.save_pretrained(str(adapter))
    tokenizer.save_pretrained(adapter)
    (adapter / "README.md").unlink(missing_ok=True)  # PEFT's empty card


def _last_loss(history: list[dict[str, Any]], step: int) -> float | None:
    """The training loss as last logged at or before `step`."""
    seen = [float(each["loss"]) for each in history if "loss" in each and int(each["step"]) <= step]
    return seen[-1] if seen else None
