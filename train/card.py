"""The model card (Markdown with the front matter of the hub): counts, hashes and losses only, no text of any row."""

from collections.abc import Iterable
from typing import Any

from train.provenance import FILE


def render(
    record: dict[str, Any], metrics: dict[str, Any], curve: list[tuple[int, float | None, float | None]], settings: dict[str, Any]
) -> str:
    """The model card (Markdown with the front matter of the hub). Counts, hashes and losses only: no text of any row."""
    origin, data = record["base"], record["dataset"]
    full = settings["adapter"] == "full"
    front = ["---", "library_name: " + ("transformers" if full else "peft"), "pipeline_tag: text-generation", "tags: [finery, sft]", "---"]
    facts = {
        "Base": f"{origin['name']}" + (f", revision `{origin['revision']}`" if origin["revision"] else ""),
        "Base hash": f"`{origin['sha256']}`",
        "Dataset hash": f"`{data['sha256']}`",
        "Rows": f"{data['rows']['train']:,} training, {data['rows']['validation']:,} validation",
        "Tokens a pass": f"{metrics['train_tokens']:,}, of which {metrics['trained_tokens']:,} carry loss",
        "Steps": f"{metrics['steps']:,} (kept: step {metrics['best_step']:,})",
        "Trainable parameters": f"{metrics['trainable_parameters']:,} of {metrics['parameters']:,}",
        "Validation loss": f"{_loss(metrics['base_validation_loss'])} before, {_loss(metrics['best_validation_loss'])} after",
        "Code": f"commit `{record['code']['commit']}`" + ("" if record["code"]["clean"] else ", with changes not committed")
        if record["code"]["commit"]
        else "not in a repository",
        "Hardware": f"{record['hardware']['device']}, {record['hardware']['precision']}",
    }
    what = (
        "model (all weights trained)" if full else f"{settings['adapter'].upper().replace('LORA', 'LoRA').replace('DORA', 'DoRA')} adapter"
    )
    lines = [
        *front,
        f"# {what[0].upper() + what[1:]} for {origin['name']}",
        f"A {what}, made by Finery from a curated dataset by supervised fine-tuning. `{FILE}` beside this file says exactly from what.",
        *_table(["", ""], list(facts.items())),
        "## Settings",
        *_table(["train", ""], [(key, f"`{value}`") for key, value in sorted(settings.items())]),
        "## Loss",
        "Mean loss in nats a token, over the tokens that carry loss.",
        *_table(["step", "training", "validation"], [(str(step), _loss(a), _loss(b)) for step, a, b in curve]),
        "## Use",
        *(_LOAD_FULL if full else _LOAD_ADAPTER),
        "Prompts must be rendered with the chat template in the tokenizer's folder, as in training.",
        "Intended for prompts like those of its dataset. Whether it is better than its base is for `reports/evaluation.html` to say.",
        "## Limits",
        "It knows what its base and its dataset hold, with their errors and gaps; it can state wrong things fluently. A lower "
        "validation loss is no proof of right answers. Personal data was replaced as far as the scrub stage finds it, which is not all.",
    ]
    return "\n\n".join(_paragraphs(lines)) + "\n"


_LOAD_ADAPTER = [
    "```python\n"
    "from peft import AutoPeftModelForCausalLM\n"
    "from transformers import AutoTokenizer\n"
    'model = AutoPeftModelForCausalLM.from_pretrained("data/train/adapter")  # from the root of the project\n'
    'tokenizer = AutoTokenizer.from_pretrained("data/train/adapter")\n'
    "```"
]
_LOAD_FULL = [
    _LOAD_ADAPTER[0]
    .replace("from peft import AutoPeftModelForCausalLM\nfrom transformers import ", "from transformers import AutoModelForCausalLM, ")
    .replace("AutoPeft", "Auto")
]


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _table(head: list[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)]


def _paragraphs(lines: list[str]) -> list[str]:
    """Front matter stays one block; everything else is a paragraph."""
    end = lines.index("---", 1) + 1
    return ["\n".join(lines[:end]), *lines[end:]]
