"""Lets every example through as token ids and labels; stays behind: rows with nothing to train, too long, or refused by the template.

One template renders everything (see curate/template.py). A preference row is formatted with its chosen answer. The output folder is a
Hugging Face dataset repository: parquet parts per split, a card, the template, and `format.json` for what comes after.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import polars as pl
import xxhash
import yaml
from pydantic import Field

from curate import record, template
from curate.params import params_class
from curate.record import ParamsError, StageFailure
from curate.stage import Outcome, Stage, drop, main, write_whole
from curate.template import NOT_TRAINED, Codec, Example, Refusal

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "kind": pl.String(),
    "label": pl.String(),
    "synthetic": pl.Boolean(),
    "prompt": pl.String(),  # rendered text that the model is to continue; empty for a plain document
    "answer": pl.String(),  # the reference text, without its end token
    "input_ids": pl.List(pl.Int32()),
    "labels": pl.List(pl.Int32()),  # -100 where nothing is trained
}
CHUNK = 512  # rows rendered and tokenised together: bounds the memory that encodings take
RERENDERED = 16  # one row in this many (chosen by its id) goes once more through the tokenizer's own apply_chat_template


@params_class
class Params:
    """`params.yaml: format`."""

    template: str
    tokenizer: str
    max_length: Annotated[int, Field(ge=8)]
    over_length: Literal["error", "drop", "truncate", "split"]
    control_tokens: Literal["strip", "drop"]
    max_unknown_share: Annotated[float, Field(ge=0, le=1)]
    system: str | None
    licence: str | None

    def __post_init__(self) -> None:
        if self.template not in (*template.BUILT_IN, "model") and not self.template.endswith(".jinja"):
            raise ValueError(f"template '{self.template}' is none of chatml, alpaca, model, and no path to a .jinja file")
        if self.licence is not None and not re.fullmatch(r"[a-z0-9.-]+", self.licence):
            raise ValueError(f"licence '{self.licence}' is no licence id of the Hugging Face hub (such as apache-2.0 or cc-by-4.0)")


@dataclass(frozen=True)
class Context:
    """What `prepare` found out; small, so that it travels to the workers."""

    source: str  # Jinja source of the template


def prepare(params: Params) -> Context:
    """Read the template and the tokenizer once, and stop before any work if the two cannot train an end token."""
    source = template.load_template(params.template, Path(params.tokenizer))
    end = template.end_token(template.codec(Path(params.tokenizer), source))
    if isinstance(end, Refusal):
        hint = "Without one the model would never learn to stop. " if end.reason == "no_end_token" else ""
        raise ParamsError(
            f"format.template = '{params.template}' does not work with the tokenizer in {params.tokenizer}. {end.detail} {hint}"
            f"Mend the template, or use another: model, chatml (needs <|im_end|> as a special token) or alpaca (needs an eos_token)."
        )
    return Context(source)


def rows(batch: pl.DataFrame, params: Params, context: Context) -> Outcome:
    """Token ids and labels of every row of `batch`, or the reason why not."""
    coded = template.codec(Path(params.tokenizer), context.source)
    kept: list[dict[str, Any]] = []
    refused: list[tuple[int, Refusal]] = []
    counts: Counter[str] = Counter()
    for start in range(0, batch.height, CHUNK):
        chunk = batch[start : start + CHUNK].to_dicts()
        for at, (row, made) in enumerate(zip(chunk, _examples(chunk, params, coded, counts), strict=True), start):
            pieces = made if isinstance(made, Refusal) else _checked(row, made, params, coded, counts)
            if isinstance(pieces, Refusal):
                refused.append((at, pieces))
                continue
            kept += [_formatted(row, piece, number) for number, piece in enumerate(pieces)]
    frame = pl.DataFrame(kept, schema={"split": pl.String(), **SCHEMA})
    return Outcome(frame, _dropped(batch, refused), added=frame.height - (batch.height - len(refused)), counts=counts)


def _examples(chunk: Sequence[dict[str, Any]], params: Params, coded: Codec, counts: Counter[str]) -> list[Example | Refusal]:
    """One example or refusal per row: plain documents as they are, everything else through the template."""
    made: list[Example | Refusal] = [Refusal("no_messages", "The row has no messages.", {})] * len(chunk)
    chats: dict[int, list[dict[str, Any]]] = {}
    plain: dict[int, str] = {}
    for at, row in enumerate(chunk):
        messages = row["messages"] or []
        found = [field for message in messages for field in (message["content"], message["extra"]) if field and coded.control.search(field)]
        if found and params.control_tokens == "drop":
            made[at] = Refusal("control_token", f"{len(found)} of its texts hold a special token.", {"texts": len(found)})
            continue
        if found:
            counts["control_tokens_stripped_rows"] += 1
            messages = [message | {key: _clean(message[key], coded) for key in ("content", "extra")} for message in messages]
        if row["kind"] == "text":
            plain[at] = "\n\n".join(message["content"] or "" for message in messages)
        elif messages:
            chats[at] = _with_system(template.turns(messages), params.system)
    for texts, results in (
        (chats, template.conversations(list(chats.values()), coded)),
        (plain, template.documents(list(plain.values()), coded)),
    ):
        for at, result in zip(texts, results, strict=True):
            made[at] = result
    _rerender(chunk, chats, made, coded, counts)
    return made


def _clean(text: str | None, coded: Codec) -> str | None:
    return text and template.without_control(text, coded.control)


def _with_system(messages: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    if system is None or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _rerender(
    chunk: Sequence[dict[str, Any]],
    chats: Mapping[int, list[dict[str, Any]]],
    made: Sequence[Example | Refusal],
    coded: Codec,
    counts: Counter[str],
) -> None:
    """Proof by a second way: rendering again, on its own and undivided, must give the ids that will be trained."""
    for at, messages in chats.items():
        example, row = made[at], chunk[at]
        if isinstance(example, Refusal) or xxhash.xxh3_64_intdigest(row["id"].encode()) % RERENDERED:
            continue
        text = template.render(messages, coded.template, False, coded.special_tokens)
        counts["rerendered"] += 1
        if coded.backend.encode(text, add_special_tokens=False).ids != example.input_ids:
            raise StageFailure(
                f"{row['source']}:{row['line']}: rendering this row again gives other tokens. "
                f"The template is not a function of the conversation alone (random? the date?); mend it, or use chatml."
            )


def _checked(row: dict[str, Any], made: Example, params: Params, coded: Codec, counts: Counter[str]) -> list[Example] | Refusal:
    """The example within max_length, as one or (split) several; or why it cannot be trained on."""
    length = len(made.input_ids)
    unknown = made.input_ids.count(coded.unknown_id) if coded.unknown_id is not None else 0
    if unknown > params.max_unknown_share * length:
        evidence = {"unknown": unknown, "tokens": length, "max_unknown_share": params.max_unknown_share}
        return Refusal("unknown_tokens", f"{unknown} of {length} tokens are unknown to the tokenizer.", evidence)
    if not _trained(made):
        return Refusal("zero_loss", "No token of it would be trained: it holds no answer.", {"tokens": length})
    pieces = _within(row, made, params, coded, counts)
    if isinstance(pieces, Refusal):
        return pieces
    if not all(map(_trained, pieces)):
        evidence = {"tokens": length, "max_length": params.max_length}
        return Refusal("zero_loss", f"No token would be trained: all are beyond max_length = {params.max_length}.", evidence)
    split = row["split"] or "all"
    counts[f"{split}_rows"] += len(pieces)
    counts[f"{split}_tokens"] += sum(len(piece.input_ids) for piece in pieces)
    counts[f"{split}_trained_tokens"] += sum(map(_trained, pieces))
    counts["unknown_tokens"] += unknown
    return pieces


def _trained(example: Example) -> int:
    """Tokens with a loss. The first never has one: nothing comes before it."""
    targets = example.labels[1:]
    return len(targets) - targets.count(NOT_TRAINED)


def _within(row: dict[str, Any], made: Example, params: Params, coded: Codec, counts: Counter[str]) -> list[Example] | Refusal:
    """The over-length policy."""
    length, limit = len(made.input_ids), params.max_length
    if length <= limit:
        return [made]
    if params.over_length == "error":
        raise StageFailure(
            f"{row['source']}:{row['line']}: {length:,} tokens, more than format.max_length = {limit:,}. "
            f"Raise max_length, or set format.over_length to drop, truncate or split."
        )
    if params.over_length == "truncate":
        counts[f"{row['split'] or 'all'}_truncated"] += 1
        return [replace(made, input_ids=made.input_ids[:limit], labels=made.labels[:limit])]
    if params.over_length == "split" and row["kind"] == "text":
        windows = math.ceil(length / limit)
        counts["split_documents"] += 1
        return [_window(made, length * at // windows, length * (at + 1) // windows, coded) for at in range(windows)]
    return Refusal("over_length", f"{length} tokens, more than max_length = {limit}.", {"tokens": length, "max_length": limit})


def _window(made: Example, start: int, stop: int, coded: Codec) -> Example:
    """A piece of a document. Windows are nearly equal, so that none is too short to train on."""
    ids = made.input_ids[start:stop]
    return Example("", coded.backend.decode(ids, skip_special_tokens=True), ids, made.labels[start:stop])


def _formatted(row: dict[str, Any], made: Example, number: int) -> dict[str, Any]:
    """A row of SCHEMA. The second and later windows of a document carry their number behind its id, so that ids stay unique."""
    meta = row["meta"] or "{}"
    return {
        "split": row["split"],
        "id": row["id"] if number == 0 else f"{row['id']}-{number}",
        **{name: row[name] for name in ("source", "line", "kind", "label")},
        "synthetic": '"synthetic"' in meta and "synthetic" in orjson.loads(meta),
        **{name: getattr(made, name) for name in ("prompt", "answer", "input_ids", "labels")},
    }


def _dropped(batch: pl.DataFrame, refused: Sequence[tuple[int, Refusal]]) -> pl.DataFrame:
    reasons = pl.DataFrame(
        [(each.reason, each.detail, orjson.dumps(dict(each.evidence)).decode()) for _, each in refused],
        schema={"reason": pl.String, "detail": pl.String, "evidence": pl.String},
        orient="row",
    )
    out = batch.select("id", "source", "line")[[at for at, _ in refused]].hstack(reasons)
    return drop(out.rename({"reason": "why", "detail": "said"}), pl.col("why"), pl.col("said"), pl.col("evidence"))


def finish(folder: Path, params: Params, metrics: Mapping[str, Any]) -> None:
    """The card, the template and format.json. Raises StageFailure if there is nothing to train on."""
    counts = metrics["counts"]
    splits = [split for split in record.SPLITS if counts.get(f"{split}_rows")]  # `datasets` refuses an empty one
    if not counts.get("train_rows") and not counts.get("all_rows"):
        raise StageFailure(f"no training row is left; dropped: {metrics['reasons'] or 'none'}. Look at max_length and the template.")
    source = template.load_template(params.template, Path(params.tokenizer))
    coded = template.codec(Path(params.tokenizer), source)
    end = template.end_token(coded)
    assert isinstance(end, int)  # prepare has seen to it
    about = {
        "template": params.template,
        "template_xxh3": xxhash.xxh3_128_hexdigest(source.encode()),
        "tokenizer_xxh3": template.tokenizer_hash(Path(params.tokenizer)),
        "max_length": params.max_length,
        "over_length": params.over_length,
        "end_token": coded.backend.id_to_token(end),
        "end_token_id": end,
    }
    write_whole(folder / "template.jinja", source.encode())
    write_whole(folder / "format.json", orjson.dumps(about, option=orjson.OPT_INDENT_2) + b"\n")
    write_whole(folder / "README.md", _card(splits, params, metrics, about).encode())


def _card(splits: Sequence[str], params: Params, metrics: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """A dataset card: front matter that `datasets.load_dataset` reads, and counts. Never text of a row."""
    files = [{"split": split, "path": f"kept/{split}/*.parquet"} for split in splits] or [{"split": "train", "path": "kept/*.parquet"}]
    front: dict[str, Any] = {"license": params.licence} if params.licence else {}
    front |= {"tags": ["finery"], "configs": [{"config_name": "default", "data_files": files}]}
    counts = metrics["counts"]
    names = ("rows", "tokens", "trained_tokens", "truncated")
    table = [f"| {split} | " + " | ".join(f"{counts.get(f'{split}_{name}', 0):,}" for name in names) + " |" for split in splits or ("all",)]
    reasons = [f"- {reason}: {count:,}" for reason, count in sorted(metrics["reasons"].items())] or ["- none"]
    facts = [f"- {name}: `{orjson.dumps(value).decode()}`" for name, value in about.items()]
    return "\n".join(
        [
            "---", yaml.safe_dump(front, sort_keys=False).rstrip(), "---", "",
            "# Fine-tuning dataset made by Finery", "",
            "Token ids and labels, ready to train on; -100 in `labels` marks tokens without a loss. `template.jinja` is the chat template",
            "that rendered every row: give it to the server too.", "",
            "| split | rows | tokens | trained tokens | truncated rows |", "|---|---|---|---|---|", *table, "",
            "Made with", "", *facts, "",
            "Left out in this step, by reason", "", *reasons, "",
        ]
    )  # fmt: skip


STAGE = Stage("format", Params, rows=rows, prepare=prepare, schema=SCHEMA, finish=finish)

if __name__ == "__main__":
    main(STAGE)
