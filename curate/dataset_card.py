"""What lies beside the formatted rows: the card, the tokenizer with the template, and format.json. Helper of `format`."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

from curate import record
from curate.store import write_whole

BOUNDS = tuple(1 << power for power in range(7, 18))  # 128 to 131072 tokens: the rows of the table of lengths


def bound(length: int) -> str:
    """The class of a length in tokens: the lowest of BOUNDS that is not below it."""
    return next((f"{limit:06d}" for limit in BOUNDS if length <= limit), "more")


def lengths(counts: Mapping[str, int], context: int | None) -> list[dict[str, Any]]:
    """The table of lengths before anything was cut: rows by class, summed over the splits, with the share that fits below each bound.

    `fits` is False where the bound is above what the model can see; None where that is not known.
    """
    classes = [f"{limit:06d}" for limit in BOUNDS] + ["more"]
    splits = ("all", *record.SPLITS)
    rows = [sum(counts.get(f"{split}_length_{each}", 0) for split in splits) for each in classes]
    total, below, table = sum(rows), 0, list[dict[str, Any]]()
    for name, count in zip(classes, rows, strict=True):
        below += count
        limit = int(name) if name != "more" else None
        fits = None if not context else limit is not None and limit <= context
        if count:
            table.append({"up_to": limit, "rows": count, "share_up_to": below / total, "fits": fits})
    return table


def write(folder: Path, tokenizer: Path, source: str, about: Mapping[str, Any], licence: str | None, metrics: Mapping[str, Any]) -> None:
    """All files beside `kept/`. `about` becomes format.json and the facts of the card."""
    write_whole(folder / "template.jinja", source.encode())
    write_whole(folder / "format.json", orjson.dumps(about, option=orjson.OPT_INDENT_2) + b"\n")
    write_whole(folder / "README.md", card(licence, metrics, about).encode())
    _save_tokenizer(folder / "tokenizer", tokenizer, source, about)


def _save_tokenizer(out: Path, tokenizer: Path, source: str, about: Mapping[str, Any]) -> None:
    """The tokenizer's files with this template as its own, and the template's hash in its configuration."""
    out.mkdir()
    for path in sorted(tokenizer.iterdir()):
        if path.is_file() and not path.name.startswith((".", "chat_template")):
            shutil.copyfile(path, out / path.name)
    write_whole(out / "chat_template.jinja", source.encode())
    configuration = out / "tokenizer_config.json"
    held = orjson.loads(configuration.read_bytes()) if configuration.is_file() else {}
    held.pop("chat_template", None)
    held["finery_template_xxh3"] = about["template_xxh3"]
    write_whole(configuration, orjson.dumps(held, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


def card(licence: str | None, metrics: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """A dataset card: front matter that `datasets.load_dataset` reads, and counts. Never text of a row."""
    counts = metrics["counts"]
    splits = [split for split in record.SPLITS if counts.get(f"{split}_rows")]  # `datasets` refuses an empty one
    files = [{"split": split, "path": f"kept/{split}/*.parquet"} for split in splits] or [{"split": "train", "path": "kept/*.parquet"}]
    front: dict[str, Any] = {"license": licence} if licence else {}
    front |= {"tags": ["finery"], "configs": [{"config_name": "default", "data_files": files}]}
    names = ("rows", "pairs", "tokens", "trained_tokens", "over_length", "truncated", "split")
    table = [f"| {split} | " + " | ".join(f"{counts.get(f'{split}_{name}', 0):,}" for name in names) + " |" for split in splits or ("all",)]
    return "\n".join(
        [
            "---", yaml.safe_dump(front, sort_keys=False).rstrip(), "---", "",
            "# Fine-tuning dataset made by Finery", "",
            "Token ids and labels, ready to train on; -100 in `labels` marks tokens without a loss. Preference rows also hold",
            "`prompt_ids`, `chosen_ids` and `rejected_ids`. `template.jinja` is the chat template that rendered every row: give it to",
            "the server too. `tokenizer/` is the tokenizer with this template.", "",
            "| split | rows | pairs | tokens | trained tokens | too long | truncated | split |", "|---|---|---|---|---|---|---|---|",
            *table, "",
            *_mixed(counts), *_lengths(counts, about), "Made with", "",
            *[f"- {name}: `{orjson.dumps(value).decode()}`" for name, value in about.items()], "",
            "Left out in this step, by reason", "",
            *([f"- {reason}: {count:,}" for reason, count in sorted(metrics["reasons"].items())] or ["- none"]), "",
            "Known limits", "", *_limits(licence, counts, about), "",
        ]
    )  # fmt: skip


def _mixed(counts: Mapping[str, int]) -> list[str]:
    pools = mixed(counts)
    if not pools:
        return []
    rows = [f"| {each['pool']} | {each['rows']:,} | {each['wanted']:,} | {each['share']:.1%} | {each['tokens']:,} |" for each in pools]
    return ["Mixed in", "", "| pool | rows | asked for | share of training rows | tokens |", "|---|---|---|---|---|", *rows, ""]


def mixed(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """What each pool gave: rows, rows asked for, share of the training rows, tokens."""
    total = max(counts.get("train_rows", 0) + counts.get("all_rows", 0), 1)
    names = sorted(name.partition(": ")[2] for name in counts if name.startswith("mixed_wanted: "))
    return [
        {
            "pool": name,
            "wanted": counts[f"mixed_wanted: {name}"],
            "rows": (rows := counts.get(f"mixed_rows: {name}", 0)),
            "share": rows / total,
            "tokens": counts.get(f"mixed_tokens: {name}", 0),
        }
        for name in names
    ]


def _lengths(counts: Mapping[str, int], about: Mapping[str, Any]) -> list[str]:
    out = [f"Length of a row in tokens, before any cut (the model sees {about['context'] or 'an unknown number'})", ""]
    out += ["| up to | rows | share up to here |", "|---|---|---|"]
    for each in lengths(counts, about["context"]):
        name = f"{each['up_to']:,}" if each["up_to"] else "more"
        out.append(f"| {name} | {each['rows']:,} | {each['share_up_to']:.1%} |")
    return [*out, ""]


def _limits(licence: str | None, counts: Mapping[str, int], about: Mapping[str, Any]) -> Sequence[str]:
    tokens = max(sum(counts.get(f"{split}_tokens", 0) for split in ("all", *record.SPLITS)), 1)
    truncated = sum(counts.get(f"{split}_truncated", 0) for split in ("all", *record.SPLITS))
    unknown, lone = counts.get("unknown_tokens", 0), counts.get("lone_byte_tokens", 0)
    out = [
        f"- Of {tokens:,} tokens {unknown:,} ({unknown / tokens:.2%}) are unknown to the tokenizer, and {lone:,} ({lone / tokens:.2%}) are "
        "single bytes of text that it has no piece for.",
        "- The ids fit this tokenizer and template only.",
    ]
    if truncated:
        out.append(f"- {truncated:,} rows are cut at {about['max_length']:,} tokens; the end token then stands where the answer goes on.")
    if counts.get("train_synthetic"):
        out.append(f"- {counts['train_synthetic']:,} training rows are synthetic.")
    if licence is None:
        out.append("- No licence was given (`format.licence`).")
    return out
