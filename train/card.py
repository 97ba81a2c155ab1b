"""The model card (Markdown with the front matter of the hub): counts, hashes and losses only, no text of any row.

`python -m train.card ADAPTER CARD.md [--evaluation reports/evaluation.json]` writes it anew, with the evaluation once there is one. The
card in the adapter's folder is made before that, and stays: DVC would take a changed folder for a stale one.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from curate.stage import guarded, say, write_whole
from train.allowed import HEADS
from train.provenance import FILE
from train.verify import read

WAYS = {
    "sft": "supervised fine-tuning",
    "pretrain": "continued pre-training on documents",
    "dpo": "direct preference optimisation (DPO)",
    "orpo": "odds-ratio preference optimisation (ORPO)",
    "kto": "Kahneman-Tversky optimisation (KTO)",
    "reward": "reward modelling on preference pairs",
    "grpo": "group relative policy optimisation (GRPO) on answers that can be checked",
    "classify": "training a classification head",
}
NAMES = {
    "lora": "LoRA adapter",
    "dora": "DoRA adapter",
    "rslora": "rsLoRA adapter",
    "ia3": "IA3 adapter",
    "prompt": "prompt-tuning adapter",
}
NAMES |= {"prefix": "prefix-tuning adapter", "full": "model (all weights trained)"}


def of_record(record: dict[str, Any], evaluation: dict[str, Any] | None) -> str:
    """The card of an adapter or of a merged model, from its provenance."""
    settings, metrics, merged = record["train"], record["metrics"], record.get("merged")
    what = "merged model" if merged else NAMES[settings["adapter"]]
    measured = "reward" if settings["method"] == "grpo" else "loss"
    lines = [
        *_front(settings, bool(merged)),
        f"# {what[0].upper() + what[1:]} for {record['base']['name']}",
        f"A {what}, made by Finery from a curated dataset by {WAYS[settings['method']]}. `{FILE}` beside this file says exactly from what.",
        *_table(["", ""], list(_facts(record, metrics, measured).items())),
        *(_merging(settings, merged) if merged else []),
        *(_evaluation(evaluation) if evaluation else []),
        "## Settings",
        *_table(["train", ""], [(key, f"`{value}`") for key, value in sorted(settings.items())]),
        "## Reward" if measured == "reward" else "## Loss",
        "Mean loss in nats a token, over the tokens that carry loss." if settings["method"] in ("sft", "pretrain") else "",
        *_table(
            ["step", "training", "validation"],
            [(str(each["step"]), _number(each["training"]), _number(each["validation"])) for each in record["loss_curve"]],
        ),
        "## Use",
        *_use(settings, bool(merged), record.get("labels")),
        "Intended for inputs like those of its dataset. Whether it is better than its base is for `reports/evaluation.html` to say.",
        "## Limits",
        "It knows what its base and its dataset hold, with their errors and gaps; it can state wrong things fluently. A lower "
        "validation loss is no proof of right answers. Personal data was replaced as far as the scrub stage finds it, which is not all.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _front(settings: dict[str, Any], merged: bool) -> list[str]:
    library = "transformers" if merged or settings["adapter"] == "full" else "peft"
    pipeline = "text-classification" if settings["method"] in HEADS else "text-generation"
    return [f"---\nlibrary_name: {library}\npipeline_tag: {pipeline}\ntags: [finery, {settings['method']}]\n---"]


def _facts(record: dict[str, Any], metrics: dict[str, Any], measured: str) -> dict[str, str]:
    origin, data, code = record["base"], record["dataset"], record["code"]
    facts = {
        "Base": f"{origin['name']}" + (f", revision `{origin['revision']}`" if origin["revision"] else ""),
        "Base hash": f"`{origin['sha256']}`",
        "Dataset hash": f"`{data['sha256']}`",
        "Template hash": f"`{data['template_sha256']}`",
        "Hash of dvc.lock before training": f"`{record['dvc_lock_sha256']}`",
        "Rows": f"{metrics['train_rows']:,} training, {metrics['validation_rows']:,} validation",
        "Tokens a pass": f"{metrics['train_tokens']:,}, of which {metrics['trained_tokens']:,} carry loss",
        "Steps": f"{metrics['steps']:,} (kept: step {metrics['best_step']:,})",
        "Trainable parameters": f"{metrics['trainable_parameters']:,} of {metrics['parameters']:,}",
        f"Validation {measured}": f"{_number(metrics[f'base_validation_{measured}'])} before, "
        f"{_number(metrics[f'best_validation_{measured}'])} after",
        "Code": f"commit `{code['commit']}`" + ("" if code["clean"] else ", with changes not committed")
        if code["commit"]
        else "not in a repository",
        "Hardware": f"{record['hardware']['device']}, {record['hardware']['precision']}, {record['seconds']:,.0f} s",
    }
    for each in record.get("approvals", ()):
        facts[f"Approved by {each['reviewer']}"] = each["time"][:10] + (f"; waived: {', '.join(each['waived'])}" if each["waived"] else "")
    if "validation_accuracy" in metrics:
        facts["Validation accuracy"] = f"{metrics['validation_accuracy']:.4f}"
    return facts


def _merging(settings: dict[str, Any], merged: dict[str, Any]) -> list[str]:
    onto = "the base's weights"
    if settings["quantize"] != "none":
        rounded = f"the base's weights as rounded in training ({settings['quantize']}), written out in full"
        onto = "the original, unrounded base, on which the adapter was not trained" if merged["onto"] == "original" else rounded
    return [
        "## Merging",
        f"The adapter was merged onto {onto}, in {merged['dtype']}. Log-probabilities differ from the adapter's by at most "
        f"{merged['parity_nats']:.2g} nats on the tokens tried (allowed: {merged['bound_nats']:.2g}).",
    ]


def _evaluation(evaluation: dict[str, Any]) -> list[str]:
    return ["## Evaluation", f"Verdict on {evaluation['items']:,} hold-out items: **{evaluation['verdict']}**. {evaluation['reason']}"]


def evaluation_of(record: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """The evaluation in `path`, if there is one and it is of the same dataset and base."""
    try:
        found = orjson.loads(path.read_bytes())
        same = found["dataset"] == record["dataset"]["sha256"] and found["base"]["name"] == record["base"]["name"]
        return dict(found) if same and {"items", "verdict", "reason"} <= found.keys() else None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None


def _use(settings: dict[str, Any], merged: bool, labels: list[str] | None) -> list[str]:
    whole = merged or settings["adapter"] == "full"
    kind = "ForSequenceClassification" if settings["method"] in HEADS else "ForCausalLM"
    name = f"AutoModel{kind}" if whole else f"AutoPeftModel{kind}"
    head = f", num_labels={len(labels)}" if labels and not whole else ""
    where = "." if merged else "data/train/adapter"
    imports = "from transformers import AutoTokenizer" + (f", {name}" if whole else "")
    code = [
        *([] if whole else [f"from peft import {name}"]),
        imports,
        f'model = {name}.from_pretrained("{where}"{head})',
        f'tokenizer = AutoTokenizer.from_pretrained("{where}")',
    ]
    text = ["```python\n" + "\n".join(code) + "\n```"]
    if settings["method"] == "classify" and labels:
        return [*text, f"Scores are of these labels, in order: {', '.join(f'`{each}`' for each in labels)}."]
    return [*text, "Prompts must be rendered with the chat template in the tokenizer's folder, as in training."]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _table(head: list[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)]


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m train.card", description="Writes a model card, with the evaluation once there is one.")
    parser.add_argument("adapter", type=Path, metavar="ADAPTER")
    parser.add_argument("out", type=Path, metavar="CARD.md")
    parser.add_argument("--evaluation", type=Path, default=Path("reports/evaluation.json"), metavar="FILE")
    options = parser.parse_args(arguments)

    def write() -> None:
        record = read(options.adapter)
        evaluation = evaluation_of(record, options.evaluation)
        write_whole(options.out, of_record(record, evaluation).encode())
        say(f"card: {options.out}, {'with' if evaluation else 'without'} an evaluation ({options.evaluation}).")

    guarded("card", write)


if __name__ == "__main__":
    main()
