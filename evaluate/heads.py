"""Judges a head that scores (methods reward and classify) on the hold-out; stays behind: rows without a pair or a label it knows, counted.

reward: how often the better answer of a pair gets the higher score, against a coin. classify: accuracy and macro-F1, against always
saying the most frequent label of the training rows. Both with Wilson's interval; the verdict is better only if it lies above, on
verdict.FEWEST rows at least.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import polars as pl

from curate import store
from curate.record import InputError
from curate.stage import Progress
from evaluate import drawings, holdout, measures, models, page, tables
from evaluate.metrics import CONFUSIONS
from evaluate.statistics import Interval, wilson
from evaluate.verdict import FEWEST

HEADS = ["score", "classifier", "classification_head"]  # never rounded: they were trained
COIN = 0.5


def judge(
    method: str, format_dir: Path, base_dir: Path, adapter: Path, story: dict[str, Any], most: int | None,
    quantize: Literal["none", "int8", "nf4"], precision: Literal["auto", "fp32", "bf16"],
) -> tuple[dict[str, Any], pl.DataFrame, str]:  # fmt: skip
    """(figures as evaluation.json holds them, one row an item, the page). Raises InputError (adapter missing or without labels)."""
    labels = ["reward"] if method == "reward" else [str(each) for each in story.get("labels") or []]
    if len(labels) < (1 if method == "reward" else 2):
        raise InputError(f"{adapter}: provenance.json names no labels of its head. Run train again.")
    score, limit = _scorer(base_dir, adapter, len(labels), quantize, precision)
    found = _pairs(format_dir, score, limit, most) if method == "reward" else _labelled(format_dir, score, limit, labels, most)
    figures, items = found
    shown = {"wrong": figures.get("confusions", []), "rows": _shown(figures), "points": _points(figures), "forest": drawings.forest}
    return figures, items, page.rendered("heads.html.jinja", figures, [("intervals", "Against chance"), ("figures", "All figures")], shown)


def _scorer(base_dir: Path, adapter: Path, scores: int, quantize: Any, precision: str) -> tuple[Callable[[list[int]], list[float]], int]:
    """A function from token ids to the head's scores, and the most tokens it takes. Rows go one by one: no padding can be scored."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    about = models.describe(base_dir)
    local = (base_dir / "model" / "config.json").is_file()
    bf16 = precision == "bf16" or (precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported())
    options: dict[str, Any] = {"dtype": torch.bfloat16 if bf16 else torch.float32, "attn_implementation": "sdpa", "num_labels": scores}
    source = str(base_dir / "model") if local else str(about.get("model") or about["name"])
    whole = not (adapter / "adapter_config.json").is_file()
    if whole:
        source = str(adapter)
    elif not local and about.get("revision"):
        options["revision"] = about["revision"]
    if quantize != "none" and not whole:
        options["quantization_config"] = models.rounding(quantize, options["dtype"])
        options["quantization_config"].llm_int8_skip_modules = HEADS
    try:
        model: Any = AutoModelForSequenceClassification.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(base_dir / "tokenizer")
        for module in model.modules():  # see models._ready
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        model = model if whole else PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    except Exception as error:  # hub, disk, config and weight formats each raise their own kind
        raise InputError(f"{adapter}: cannot be loaded onto {base_dir}: {models.short(error)} Run train again.") from error
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.config.get_text_config().pad_token_id = pad  # as in training: the head scores the last token that is no padding
    if torch.cuda.is_available() and quantize == "none":
        model = model.to("cuda")
    model.eval()

    def score(ids: list[int]) -> list[float]:
        with torch.inference_mode():
            given = torch.tensor([ids], device=model.device)
            return [float(each) for each in model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0].float()]

    return score, int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or models.UNBOUNDED)


def _pairs(
    format_dir: Path, score: Callable[[list[int]], list[float]], limit: int, most: int | None
) -> tuple[dict[str, Any], pl.DataFrame]:
    left: Counter[str] = Counter()
    wanted = ["id", "source", "line", "prompt_ids", "chosen_ids", "rejected_ids"]
    read = store.read_rows(format_dir, "test", wanted)
    rows = read.filter(pl.all_horizontal(pl.col("prompt_ids", "chosen_ids", "rejected_ids").list.len() > 0))
    left["not_preference"] = read.height - rows.height
    chosen = sorted(holdout.by_hash(rows["id"].to_list(), most))
    found, progress = [], Progress("evaluate (reward)", len(chosen))
    for row in rows[chosen].iter_rows(named=True):
        better, worse = row["prompt_ids"] + row["chosen_ids"], row["prompt_ids"] + row["rejected_ids"]
        if max(len(better), len(worse)) > limit:
            left["longer_than_model"] += 1
            continue
        found.append((row["id"], row["source"], row["line"], score(better)[0], score(worse)[0]))
        progress.add(1)
    progress.done()
    items = pl.DataFrame(found, schema=["id", "source", "line", "chosen_score", "rejected_score"], orient="row")
    right = wilson(sum(1 for each in found if each[3] > each[4]), len(found))
    said = f"the better answer of a pair gets the higher score in {_share(right)} of {right.n:,} pairs; a coin has 50.0 %"
    return _figures("reward", right, COIN, said, left) | {"reward_accuracy": _plain(right)}, items


def _labelled(
    format_dir: Path, score: Callable[[list[int]], list[float]], limit: int, labels: list[str], most: int | None
) -> tuple[dict[str, Any], pl.DataFrame]:
    rows, reasons = holdout.read(format_dir, most)
    left, found, progress = Counter(reasons), [], Progress("evaluate (classify)", len(rows))
    for item in rows:
        progress.add(1)
        if item.label not in labels:
            left["no_label" if item.label is None else "label_not_in_training"] += 1
            continue
        scores = score((item.ids[: item.start] if item.start else item.ids)[-limit:].tolist())
        found.append((item.id, item.source, item.line, item.label, labels[scores.index(max(scores))]))
    progress.done()
    items = pl.DataFrame(found, schema=["id", "source", "line", "label", "said"], orient="row")
    right = wilson(sum(1 for each in found if each[3] == each[4]), len(found))
    known = store.read_rows(format_dir, "train", ["label"])["label"].drop_nulls().to_list()
    usual = min(Counter(known).items(), key=lambda each: (-each[1], each[0]))[0] if known else ""
    chance = sum(1 for each in found if each[3] == usual) / len(found) if found else 0.0
    said = f"{_share(right)} of {right.n:,} rows get their label; always saying the most frequent label of training has {chance:.1%}"
    given, true = [each[4] for each in found], [each[3] for each in found]
    more = {
        "accuracy": _plain(right),
        "macro_f1": measures.macro_f1(given, true),
        "confusions": measures.confusions(given, true, CONFUSIONS),
    }
    return _figures("classify", right, chance, said, left) | more, items


def _figures(method: str, right: Interval, chance: float, said: str, left: Counter[str]) -> dict[str, Any]:
    if right.n < FEWEST:
        verdict = "not shown"
        reason = (
            f"Only {right.n} rows of the test split can be judged (left out: {dict(+left)}): fewer than {FEWEST} say nothing. "
            "Hold out more (split.ratios)."
        )
    else:
        verdict = "better" if right.low > chance else "worse" if right.high < chance else "not shown"
        reason = said[0].upper() + said[1:] + "."
    return {"verdict": verdict, "reason": reason, "method": method, "items": right.n, "by_chance": chance, "left_out": dict(+left)}


def _share(right: Interval) -> str:
    return "none" if not right.n else f"{right.value:.1%} (95 % interval {right.low:.1%} to {right.high:.1%})"


def _plain(right: Interval) -> dict[str, Any]:
    return asdict(right) if right.n else {"value": None, "low": None, "high": None, "n": 0}


def _shown(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Title, value and note of each figure."""
    rows = []
    for name, title in (("reward_accuracy", "Better answer scored higher"), ("accuracy", "Label is right")):
        if name in figures:
            cell = tables.cell(figures[name], True)
            rows.append((title, cell["value"], cell["note"]))
    rows.append(("By chance", f"{figures['by_chance']:.1%}", ""))
    if "macro_f1" in figures:
        rows.append(("Macro-F1 of labels", f"{figures['macro_f1']:.4f}", ""))
    return rows + [(f"Left out: {reason.replace('_', ' ')}", f"{count:,}", "") for reason, count in figures["left_out"].items()]


def _points(figures: dict[str, Any]) -> list[drawings.Point]:
    """How far above chance, with the interval; nothing where no row could be judged."""
    right = figures["reward_accuracy" if figures["method"] == "reward" else "accuracy"]
    chance = figures["by_chance"]
    moved = {side: None if right[side] is None else right[side] - chance for side in ("value", "low", "high")}
    point = drawings.interval_point("Right, above chance", moved)
    return [] if point is None else [point]
