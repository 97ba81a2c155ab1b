"""Lets every example through as token ids and labels; stays behind: rows with nothing to train, too long, or refused by the template.

One template renders everything (curate/template.py), the loss mask comes from the rendering (curate/masking.py), general data may be
mixed in (curate/mixing.py). The output folder is a Hugging Face dataset repository: parquet parts per split, a card, the tokenizer
with the template, and `format.json` for what comes after.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import xxhash
from pydantic import Field

from curate import dataset_card, lengths, masking, mixing, template
from curate.masking import Example, Loss, Refusal
from curate.params import params_class
from curate.record import ParamsError, StageFailure
from curate.stage import Outcome, Stage, drop, main
from curate.template import Codec

SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "kind": pl.String(),
    "label": pl.String(),
    "synthetic": pl.Boolean(),
    "mixed": pl.String(),  # the pool of format.mix that the row came from; null for the dataset's own
    "prompt": pl.String(),  # rendered text that the model is to continue; empty for a plain document
    "answer": pl.String(),  # the reference text, without its end token; of a pair the better one
    "rejected": pl.String(),  # the worse answer of a pair, else null
    "input_ids": pl.List(pl.Int32()),  # of a pair: prompt and better answer
    "labels": pl.List(pl.Int32()),  # -100 where nothing is trained
    "prompt_ids": pl.List(pl.Int32()),  # these three of a pair, else null
    "chosen_ids": pl.List(pl.Int32()),
    "rejected_ids": pl.List(pl.Int32()),
}
CHUNK = 512  # rows rendered and tokenised together: bounds the memory that encodings take
RERENDERED = 64  # one row in this many (chosen by its id) goes once more through the tokenizer's own apply_chat_template


@params_class
class Params:
    """`params.yaml: format`."""

    template: str
    tokenizer: str
    loss: Loss
    max_length: Annotated[int, Field(ge=8)]
    over_length: Literal["error", "drop", "truncate", "split"]
    control_tokens: Literal["strip", "drop"]
    max_unknown_share: Annotated[float, Field(ge=0, le=1)]
    system: str | None
    mix: mixing.Mix
    licence: str | None

    def __post_init__(self) -> None:
        if self.template not in (*template.BUILT_IN, "model") and not self.template.endswith(".jinja"):
            known = ", ".join(template.BUILT_IN)
            raise ValueError(f"template '{self.template}' is none of {known}, not model, and no path to a .jinja file")
        if self.licence is not None and not re.fullmatch(r"[a-z0-9.-]+", self.licence):
            raise ValueError(f"licence '{self.licence}' is no licence id of the Hugging Face hub (such as apache-2.0 or cc-by-4.0)")


@dataclass(frozen=True)
class Context:
    """What `prepare` and `scan` found out; small, so that it travels to the workers."""

    source: str  # Jinja source of the template
    end: int  # id of the token that ends an answer
    mixture: mixing.Mixture = mixing.NOTHING


@dataclass(frozen=True)
class _Entry:
    """One row on its way: a record, how often it goes in, and (of a pool) its name and whether its prompt is held out."""

    row: dict[str, Any]
    copies: int = 1
    mixed: str | None = None
    held_out: bool = False


def prepare(params: Params) -> Context:
    """Read the template and the tokenizer once, and stop before any work if the two cannot train an end token."""
    source = template.load_template(params.template, Path(params.tokenizer))
    end = masking.end_token(template.codec(Path(params.tokenizer), source))
    if isinstance(end, Refusal):
        hint = "Without one the model would never learn to stop. " if end.reason == "no_end_token" else ""
        raise ParamsError(
            f"format.template = '{params.template}' does not work with the tokenizer in {params.tokenizer}. {end.detail} {hint}"
            f"Mend the template, or use another: model, alpaca (needs an eos_token), chatml (needs <|im_end|> as a special token) "
            f"or one of {', '.join(template.BUILT_IN[2:])}; docs/format.md says what each needs."
        )
    return Context(source, end)


def scan(in_dir: Path, scratch: Path, params: Params, context: Context) -> Context:
    """Choose what is mixed in."""
    return replace(context, mixture=mixing.choose(in_dir, scratch, params.mix))


def rows(batch: pl.DataFrame, params: Params, context: Context) -> Outcome:
    """Token ids and labels of every row of `batch` and of what is mixed in behind its rows, or the reason why not."""
    coded = template.codec(Path(params.tokenizer), context.source)
    frames: list[pl.DataFrame] = [_frame([])]
    refused: list[tuple[dict[str, Any], Refusal]] = []
    counts: Counter[str] = Counter()
    entries = _entries(batch, params, context)
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        kept: list[tuple[_Entry, Example, int, str]] = []
        for entry, made in zip(chunk, _examples(chunk, params, coded, counts), strict=True):
            pieces = made if isinstance(made, Refusal) else _checked(entry, made, params, coded, counts)
            if isinstance(pieces, Refusal):
                refused.append((entry.row, pieces))
                continue
            kept += [(entry, piece, number, "") for number, piece in enumerate(pieces)]
            kept += [(entry, piece, number, f"-x{copy}") for copy in range(1, entry.copies) for number, piece in enumerate(pieces)]
        frames.append(_frame(kept))  # as columns, ids take a ninth of the memory that they take as lists
    frame = pl.concat(frames, rechunk=True)  # in one piece, as it comes from a worker: parquet pages end where pieces do
    _count(frame, coded, context, counts, batch)
    return Outcome(frame, _dropped(refused), added=frame.height + len(refused) - batch.height, counts=counts)


def _entries(batch: pl.DataFrame, params: Params, context: Context) -> list[_Entry]:
    """The rows of the batch, those of the training split with their weight and what is mixed in behind them."""
    own = batch.to_dicts()
    training = batch["split"].is_in(["", "train"]).to_numpy()
    count = int(training.sum())
    if not count or not (params.mix.pools or params.mix.weights):
        return [_Entry(row) for row in own]
    first = int(batch["row"][int(training.argmax())])  # training rows stand before all others
    behind = iter(mixing.following(context.mixture, first, first + count))
    entries: list[_Entry] = []
    for row, copies, trained in zip(own, mixing.copies(batch, params.mix.weights), training, strict=True):
        entries.append(_Entry(row, copies if trained else 1))
        if trained:
            entries += [_Entry({**each, "split": row["split"]}, 1, each["mixed"], each["held_out"]) for each in next(behind)]
    return entries


def _examples(chunk: Sequence[_Entry], params: Params, coded: Codec, counts: Counter[str]) -> list[Example | Refusal]:
    """One example or refusal per row: plain documents as they are, everything else through the template."""
    made: list[Example | Refusal] = [Refusal("no_messages", "The row has no messages.")] * len(chunk)
    chats: dict[int, list[dict[str, Any]]] = {}
    pairs: dict[int, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
    plain: dict[int, str] = {}
    for at, entry in enumerate(chunk):
        cleaned = _cleaned(entry, params, coded, counts)
        if isinstance(cleaned, Refusal):
            made[at] = cleaned
        elif entry.row["kind"] == "text":
            plain[at] = "\n\n".join(message["content"] or "" for message in cleaned[0])
        elif cleaned[0]:
            better, worse = (_with_system(template.turns(each), params.system) for each in cleaned)
            if entry.row["kind"] == "preference" and cleaned[1]:
                pairs[at] = better, _with_tools(worse, better)
            else:
                chats[at] = better
    _fill(made, chats, lambda each: masking.conversations(each, coded, params.loss))
    _fill(made, pairs, lambda each: masking.pairs(each, coded, params.loss))
    _fill(made, plain, lambda each: masking.documents(each, coded))
    _rerender(chunk, chats | {at: pair[0] for at, pair in pairs.items()}, made, coded, counts)
    return made


def _fill(made: list[Example | Refusal], rows: Mapping[int, Any], work: Callable[[list[Any]], list[Example | Refusal]]) -> None:
    for at, each in zip(rows, work(list(rows.values())) if rows else (), strict=True):
        made[at] = each


def _cleaned(entry: _Entry, params: Params, coded: Codec, counts: Counter[str]) -> tuple[list[Any], list[Any]] | Refusal:
    """The messages and the rejected ones without special tokens; or why the row is not formatted at all."""
    if entry.held_out:
        return Refusal("held_out_prompt", "Its prompt also stands in validation or test.", {"pool": entry.mixed})
    if not entry.copies:
        return Refusal("mix_weight", "format.mix.weights leaves it out.")
    both = entry.row["messages"] or [], entry.row["rejected"] or []
    search = coded.control.search
    found = sum(1 for each in both for message in each for text in (message["content"], message["extra"]) if text and search(text))
    if not found:
        return both
    if params.control_tokens == "drop":
        return Refusal("control_token", f"{found} of its texts hold a special token.", {"texts": found})
    counts["control_tokens_stripped_rows"] += 1
    better, worse = ([m | {key: _clean(m[key], coded) for key in ("content", "extra")} for m in each] for each in both)
    return better, worse


def _clean(text: str | None, coded: Codec) -> str | None:
    return text and template.without_control(text, coded.control)


def _with_system(messages: list[dict[str, Any]], system: str | None) -> list[dict[str, Any]]:
    if system is None or not messages or any(message["role"] == "system" for message in messages):
        return messages
    tools = {"tools": messages[0]["tools"]} if "tools" in messages[0] else {}
    first = {key: value for key, value in messages[0].items() if key != "tools"}
    return [{"role": "system", "content": system, **tools}, first, *messages[1:]]


def _with_tools(worse: list[dict[str, Any]], better: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pair has one list of tools, which stands at its better conversation."""
    return [{**worse[0], "tools": better[0]["tools"]}, *worse[1:]] if "tools" in better[0] else worse


def _rerender(
    chunk: Sequence[_Entry],
    chats: Mapping[int, list[dict[str, Any]]],
    made: Sequence[Example | Refusal],
    coded: Codec,
    counts: Counter[str],
) -> None:
    """Proof by a second way: rendering again, on its own and undivided, must give the ids that will be trained."""
    for at, messages in chats.items():
        example, row = made[at], chunk[at].row
        if isinstance(example, Refusal) or xxhash.xxh3_64_intdigest(row["id"].encode()) % RERENDERED:
            continue
        text = template.render(messages, coded.template, False, coded.special_tokens)
        counts["rerendered"] += 1
        if coded.backend.encode(text, add_special_tokens=False).ids != example.input_ids.tolist():
            raise StageFailure(
                f"{row['source']}:{row['line']}: rendering this row again gives other tokens. "
                f"The template is not a function of the conversation alone (random? the date?); mend it, or use chatml."
            )


def _checked(entry: _Entry, made: Example, params: Params, coded: Codec, counts: Counter[str]) -> list[Example] | Refusal:
    """The example within max_length, as one or (split) several; or why it cannot be trained on."""
    length = _longest(made)
    unknown = int(np.count_nonzero(made.input_ids == coded.unknown_id)) if coded.unknown_id is not None else 0
    if unknown > params.max_unknown_share * length:
        evidence = {"unknown": unknown, "tokens": length, "max_unknown_share": params.max_unknown_share}
        return Refusal("unknown_tokens", f"{unknown} of {length} tokens are unknown to the tokenizer.", evidence)
    if not masking.trained(made):
        return Refusal("zero_loss", "No token of it would be trained: it holds no answer.", {"tokens": length})
    counts[f"{entry.row['split'] or 'all'}_length_{dataset_card.bound(length)}"] += 1
    if length <= params.max_length:
        return [made]
    pieces = _within(entry, made, length, params, coded, counts)
    if isinstance(pieces, Refusal) or all(map(masking.trained, pieces)):
        return pieces
    return _beyond(length, params)


def _beyond(length: int, params: Params) -> Refusal:
    evidence = {"tokens": length, "max_length": params.max_length}
    return Refusal("zero_loss", f"No answer would be trained: it is beyond max_length = {params.max_length}.", evidence)


def _longest(made: Example) -> int:
    rejected = 0 if made.pair is None else len(made.pair.prompt_ids) + len(made.pair.rejected_ids)
    return max(len(made.input_ids), rejected)


def _within(entry: _Entry, made: Example, length: int, params: Params, coded: Codec, counts: Counter[str]) -> list[Example] | Refusal:
    """The over-length policy."""
    row, limit = entry.row, params.max_length
    split = row["split"] or "all"
    counts[f"{split}_over_length"] += 1
    if params.over_length == "error":
        raise StageFailure(
            f"{row['source']}:{row['line']}: {length:,} tokens, more than format.max_length = {limit:,}. "
            f"Raise max_length, or set format.over_length to drop, truncate or split."
        )
    if params.over_length == "truncate":
        cut = lengths.truncate(made, limit)
        if cut is None:
            return _beyond(length, params)
        counts[f"{split}_truncated"] += 1
        return [cut]
    if params.over_length == "split" and made.pair is None:
        pieces = lengths.windows(made, limit, coded) if row["kind"] == "text" else _split(row, params, coded)
        if pieces is not None:
            counts[f"{split}_split"] += 1
            return pieces
    said = f"{length} tokens, more than max_length = {limit}" + (
        ", and no shorter at a turn border." if params.over_length == "split" else "."
    )
    return Refusal("over_length", said, {"tokens": length, "max_length": limit})


def _split(row: dict[str, Any], params: Params, coded: Codec) -> list[Example] | None:
    messages = [message | {key: _clean(message[key], coded) for key in ("content", "extra")} for message in row["messages"]]
    return lengths.split_chat(_with_system(template.turns(messages), params.system), params.max_length, coded, params.loss)


def _frame(kept: Sequence[tuple[_Entry, Example, int, str]]) -> pl.DataFrame:
    """Rows of SCHEMA with `split`. Pieces after the first, and copies, carry their number behind the id, so that ids stay unique."""
    columns: dict[str, Any] = {"split": [entry.row["split"] for entry, *_ in kept]}
    columns["id"] = [f"{entry.row['id']}{f'-{number}' if number else ''}{copy}" for entry, _, number, copy in kept]
    for name in ("source", "line", "kind", "label"):
        columns[name] = [entry.row[name] for entry, *_ in kept]
    columns["synthetic"] = [_synthetic(entry.row["meta"] or "{}") for entry, *_ in kept]
    columns["mixed"] = [entry.mixed for entry, *_ in kept]
    columns["prompt"] = [made.prompt for _, made, *_ in kept]
    columns["answer"] = [made.answer for _, made, *_ in kept]
    columns["rejected"] = [made.pair.rejected if made.pair else None for _, made, *_ in kept]
    columns["input_ids"] = _lists([made.input_ids for _, made, *_ in kept])
    columns["labels"] = _lists([made.labels for _, made, *_ in kept])
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        columns[name] = _lists([getattr(made.pair, name) if made.pair else None for _, made, *_ in kept])
    return pl.DataFrame(columns, schema={"split": pl.String(), **SCHEMA})


def _synthetic(meta: str) -> bool:
    return '"synthetic"' in meta and "synthetic" in orjson.loads(meta)


def _lists(lists: Sequence[np.ndarray | None]) -> pl.Series:
    """Arrays of numbers as a column. From buffers, because `pa.array` imports pandas, which takes a fifth of the start."""
    flat = np.concatenate([np.zeros(0, np.int32), *(each for each in lists if each is not None)])
    ends = np.fromiter(accumulate((0 if each is None else len(each) for each in lists), initial=0), np.int64)
    given = np.packbits(np.array([each is not None for each in lists], np.bool_), bitorder="little")
    items = pa.Array.from_buffers(pa.int32(), len(flat), [None, pa.py_buffer(flat)])
    made = pa.Array.from_buffers(pa.large_list(items.type), len(lists), [pa.py_buffer(given), pa.py_buffer(ends)], children=[items])
    return pl.Series(made, dtype=pl.List(pl.Int32))


def _count(frame: pl.DataFrame, coded: Codec, context: Context, counts: Counter[str], batch: pl.DataFrame) -> None:
    """What the rows hold, per split and pool, and (with the very first row) what the pools were asked for."""
    ids = frame["input_ids"].explode().drop_nulls().to_numpy()
    counts["unknown_tokens"] += 0 if coded.unknown_id is None else int((ids == coded.unknown_id).sum())
    counts["lone_byte_tokens"] += int(np.isin(ids, list(coded.lone_bytes)).sum())
    sizes = frame.select(
        "mixed",
        pl.col("split").replace("", "all"),
        tokens=pl.col("input_ids").list.len(),
        trained=pl.col("labels").list.slice(1).list.eval(pl.element() != masking.NOT_TRAINED).list.sum(),
        pairs=pl.col("prompt_ids").is_not_null(),
    )
    for split, rows, tokens, trained, pairs in sizes.group_by("split").agg(pl.len(), pl.sum("tokens", "trained", "pairs")).iter_rows():
        counts.update({f"{split}_rows": rows, f"{split}_tokens": tokens, f"{split}_trained_tokens": trained})
        if pairs:
            counts[f"{split}_pairs"] += pairs
    for pool, rows, tokens in sizes.filter(pl.col("mixed").is_not_null()).group_by("mixed").agg(pl.len(), pl.sum("tokens")).iter_rows():
        counts.update({f"mixed_rows: {pool}": rows, f"mixed_tokens: {pool}": tokens})
    if batch.height and batch["row"][0] == 0:
        counts.update({f"mixed_wanted: {pool}": rows for pool, rows in context.mixture.wanted})


def _dropped(refused: Sequence[tuple[dict[str, Any], Refusal]]) -> pl.DataFrame:
    out = pl.DataFrame(
        [(row["id"], row["source"], row["line"], each.reason, each.detail, orjson.dumps(each.evidence).decode()) for row, each in refused],
        schema={"id": pl.String, "source": pl.String, "line": pl.Int64, "why": pl.String, "said": pl.String, "evidence": pl.String},
        orient="row",
    )
    return drop(out, pl.col("why"), pl.col("said"), pl.col("evidence"))


def finish(folder: Path, params: Params, metrics: Mapping[str, Any]) -> None:
    """The card, the tokenizer with the template, and format.json. Raises StageFailure if there is nothing to train on."""
    counts = metrics["counts"]
    if not counts.get("train_rows") and not counts.get("all_rows"):
        raise StageFailure(f"no training row is left; dropped: {metrics['reasons'] or 'none'}. Look at max_length and the template.")
    context = prepare(params)
    coded = template.codec(Path(params.tokenizer), context.source)
    about = {
        "template": params.template,
        "template_xxh3": xxhash.xxh3_128_hexdigest(context.source.encode()),
        "tokenizer_xxh3": template.tokenizer_hash(Path(params.tokenizer)),
        "loss": params.loss,
        "max_length": params.max_length,
        "over_length": params.over_length,
        "context": coded.context,
        "end_token": coded.backend.id_to_token(context.end),
        "end_token_id": context.end,
        "mix": [{"pool": pool.path, "share": pool.share} for pool in params.mix.pools],
    }
    dataset_card.write(folder, Path(params.tokenizer), context.source, about, params.licence, metrics)


THREADS = (
    4  # threads share the pieces they have met and need no start, but wait for each other in Python: processes are faster from here on
)
STAGE = Stage(
    "format", Params, rows=rows, prepare=prepare, scan=scan, schema=SCHEMA, finish=finish, rows_threads=THREADS, rows_most=4 * CHUNK
)

if __name__ == "__main__":
    main(STAGE)
