"""The record: one example is one row, from the raw file to the adapter.

Everything else in Finery relies on the columns of `SCHEMA`. The helpers here turn nested conversations into flat columns of text and
back, so that stages can work on whole columns instead of looping over rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import orjson
import polars as pl
import xxhash


class FineryError(Exception):
    """A mistake that the user can mend. The message names the thing, its value and what to do next."""


class InputError(FineryError):
    """A file or folder is missing, empty, unreadable or not of the expected shape."""


class ParamsError(FineryError):
    """A value in params.yaml (or on the command line) is unknown, of the wrong type or impossible."""


class StageFailure(FineryError):
    """A stage cannot go on: a gate is over its limit, or the accounting does not add up."""


MESSAGE = pl.Struct({"role": pl.String, "content": pl.String, "extra": pl.String})
SCHEMA: dict[str, pl.DataType] = {
    "id": pl.String(),  # xxh3-128 hex of the content as ingested
    "source": pl.String(),  # raw file, relative to the raw folder
    "line": pl.Int64(),  # 1-based row (or line) in it
    "kind": pl.String(),
    "messages": pl.List(MESSAGE),
    "rejected": pl.List(MESSAGE),  # the worse answer of a preference pair, else null
    "label": pl.String(),
    "group": pl.String(),
    "meta": pl.String(),  # JSON object: every other column of the raw row
}
DROPPED: dict[str, pl.DataType] = {
    "id": pl.String(),
    "source": pl.String(),
    "line": pl.Int64(),
    "reason": pl.String(),  # snake_case word, the same in metrics and report
    "detail": pl.String(),  # one sentence for a person; never holds text of the row
    "evidence": pl.String(),  # JSON object; never holds text of the row before scrub
}
KINDS = ("chat", "preference", "text", "ranked")
ROLES = ("system", "user", "assistant", "tool", "text")  # `text` is the single message of a plain document
SPLITS = ("train", "validation", "test")

Message = Mapping[str, str | None]


def content_id(kind: str, messages: Sequence[Message], rejected: Sequence[Message] | None, label: str | None) -> str:
    """The id of an example: 32 hex digits, xxh3-128 of its canonical JSON (sorted keys, no spaces, UTF-8).

    >>> content_id("chat", [{"role": "user", "content": "hi", "extra": None}], None, None)
    '87d87a461d7ad7a47eec2eed793cfcef'
    """
    content = {"kind": kind, "messages": messages, "rejected": rejected, "label": label}
    return xxhash.xxh3_128_hexdigest(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))


def draws(ids: pl.Series) -> np.ndarray:
    """64 random bits of each row (u64) that belong to its id: the start of the id, which is a hash."""
    return ids.str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy()


def texts(rows: pl.DataFrame) -> pl.DataFrame:
    """Every message of every row, flat and in order.

    Returns columns `at` (u32, position of the row in `rows`), `field` (`messages` or `rejected`), `turn` (u32, position in that
    field), `role`, `content`, `extra`. Give it back, with contents changed, to `with_texts`.
    """
    fields = []
    for field in ("messages", "rejected"):
        flat = (
            rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("at"), pl.col(field).alias("message"))
            .filter(pl.col("message").list.len() > 0)
            .with_columns(pl.int_ranges(pl.col("message").list.len(), dtype=pl.UInt32).alias("turn"))
            .explode("message", "turn")
            .with_columns(pl.lit(field).alias("field"))
            .unnest("message")
        )
        fields.append(flat.select("at", "field", "turn", "role", "content", "extra"))
    return pl.concat(fields)


def with_texts(rows: pl.DataFrame, flat: pl.DataFrame) -> pl.DataFrame:
    """`rows` with `messages` and `rejected` rebuilt from `flat` (as `texts` returned it, contents changed, no message missing)."""
    rebuilt = rows
    for field in ("messages", "rejected"):
        nested = (
            flat.filter(pl.col("field") == field)
            .sort("at", "turn")
            .group_by("at", maintain_order=True)
            .agg(pl.struct("role", "content", "extra").alias("rebuilt"))
        )
        rebuilt = (
            rebuilt.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("at"))
            .join(nested, on="at", how="left", maintain_order="left")
            .with_columns(pl.coalesce("rebuilt", field).cast(pl.List(MESSAGE)).alias(field))
            .drop("at", "rebuilt")
        )
    return rebuilt


def prompt_and_answer(rows: pl.DataFrame) -> pl.DataFrame:
    """What was asked and what was answered, one row per row of `rows`, in order.

    `answer` is the last message where its role is assistant (or the whole of a plain document), else empty. `prompt` is everything
    before it except system messages, joined by newlines: a shared system prompt says nothing about whether two rows are alike.
    """
    sizes = rows["messages"].list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = rows["messages"].explode(empty_as_null=False, keep_nulls=False).struct.unnest()
    role, content = flat["role"], flat["content"].fill_null("")
    at, ends = np.repeat(np.arange(len(sizes)), sizes), np.cumsum(sizes)
    asked = (role != "system").fill_null(True).to_numpy().copy()
    last = ends[sizes > 0] - 1
    last = last[role.gather(last).is_in(["assistant", "text"]).fill_null(False).to_numpy()]
    asked[last] = False
    count = np.bincount(at[asked], minlength=len(sizes))
    single = np.flatnonzero(asked)[count[at[asked]] == 1]
    prompt, answer = np.full(len(sizes), -1), np.full(len(sizes), -1)
    prompt[at[single]], answer[at[last]] = single, last
    sides = pl.DataFrame({"prompt": _gathered(content, prompt), "answer": _gathered(content, answer)})
    several = np.flatnonzero(asked & (count[at] > 1))  # joining costs more than all the rest, and most rows have nothing to join
    if len(several):
        parts = pl.DataFrame({"at": at[several], "prompt": content.gather(several)})
        joined = parts.group_by("at", maintain_order=True).agg(pl.col("prompt").str.join("\n"))
        sides = sides.with_columns(sides["prompt"].scatter(joined["at"].to_numpy(), joined["prompt"]))
    return sides


def _gathered(values: pl.Series, at: np.ndarray) -> pl.Series:
    """The text at each position; empty for -1."""
    return values.gather(pl.Series(at).replace(-1, None)).fill_null("") if len(values) else pl.Series([""] * len(at), dtype=pl.String)


def fold(text: pl.Expr) -> pl.Expr:
    """Text as compared everywhere in Finery: NFKC, lower case, white space runs to one space, ends stripped.

    Digits, operators and punctuation stay: `12+35` is not `99*3`.
    """
    return text.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def fold_letters(texts: pl.Series) -> pl.Series:
    """`fold`, but for the white space, which stays."""
    return texts.str.normalize("NFKC").str.to_lowercase()


def as_dropped(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` (with `reason`, `detail`, `evidence` columns beside the record's) cut to the columns of `DROPPED`."""
    return rows.select(pl.col(name).cast(kind) for name, kind in DROPPED.items())


def empty(schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A frame of no rows."""
    return pl.DataFrame(schema=dict(schema))
