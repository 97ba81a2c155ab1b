"""Lets every row of the raw files through that has a known shape, as a record; stays behind: rows that are broken, with file and line.

Files are read in the order of their paths, as streams (curate/read_raw.py); worker processes parse the rows and build the records
(curate/shapes.py). docs/formats.md lists containers, shapes and reasons.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import orjson
import polars as pl
import pyarrow as pa
import xxhash
from pydantic import Field

from curate import read_raw, record
from curate.params import params_class
from curate.shapes import Columns, Naming, example
from curate.stage import Outcome, Stage, main, say
from curate.turns import Malformed, Messages


@params_class
class Params:
    """`params.yaml: ingest`."""

    max_row_bytes: Annotated[int, Field(ge=1, le=256 << 20)]
    label_columns: tuple[str, ...]
    group_columns: tuple[str, ...]
    label_instruction: str | None
    sources: dict[str, Columns]


def source(in_dir: Path, params: Params) -> Iterator[pl.DataFrame]:
    """Batches of raw rows of all files under `in_dir`; columns as in `read_raw.RAW`.

    Raises InputError for a folder that is missing or empty, or a file of unknown kind.
    """
    skipped = [glob for glob, columns in params.sources.items() if columns.skip]
    files = read_raw.files(in_dir, lambda name: any(fnmatchcase(name, glob) for glob in skipped))
    for glob, columns in params.sources.items():
        if not columns.skip and not any(fnmatchcase(file.source, glob) for file in files):
            say(f"ingest: note: ingest.sources has '{glob}', which matches no file under {in_dir}.")
    return read_raw.batches(files, params.max_row_bytes)


def rows(batch: pl.DataFrame, params: Params, context: None) -> Outcome:
    """Records of the rows that have a shape; the others dropped with a reason."""
    label_columns, group_columns = (tuple(map(str.lower, names)) for names in (params.label_columns, params.group_columns))
    naming = Naming(label_columns, group_columns, params.label_instruction)
    mapped = {name: _columns_of(name, params) for name in batch["source"].unique()}
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    for name, line, raw, reason, detail in batch.select("source", "line", "raw", "reason", "detail").iter_rows():
        try:
            if reason is not None:
                raise Malformed(reason, detail)
            kept.append({"source": name, "line": line, **_record(raw, naming, mapped[name])})
        except Malformed as problem:
            dropped.append(_dropped(name, line, problem))
    columns = {name: [row[name] for row in kept] for name in record.SCHEMA}
    nested = {name: _nested(columns[name]) for name in ("messages", "rejected")}
    kinds = Counter(f"kind_{kind}" for kind in columns["kind"])
    return Outcome(pl.DataFrame(columns | nested, schema=record.SCHEMA), pl.DataFrame(dropped, schema=record.DROPPED), counts=kinds)


def _record(raw: bytes, naming: Naming, mapped: Columns | None) -> dict[str, Any]:
    """A record without its place. Raises Malformed."""
    try:
        made = example(_parsed(raw), naming, mapped)
        return {
            "id": record.content_id(made.kind, made.messages, made.rejected, made.label),
            "kind": made.kind,
            "messages": made.messages,
            "rejected": made.rejected,
            "label": made.label,
            "group": made.group,
            "meta": orjson.dumps(made.meta).decode(),
        }
    except (orjson.JSONEncodeError, RecursionError):  # the writer and Python go less deep than the reader
        raise Malformed("invalid_json", "Objects or lists are nested more than 250 deep.") from None


def _nested(conversations: Sequence[Messages | None]) -> pl.Series:
    """Lists of messages as one column, by way of flat ones: several times as fast as from nested objects."""
    flat = [message for messages in conversations for message in messages or ()]
    fields = [pa.array([message[name] for message in flat], pa.large_string()) for name in ("role", "content", "extra")]
    ends = accumulate((len(messages or ()) for messages in conversations), initial=0)
    lists = pa.LargeListArray.from_arrays(
        pa.array(ends, pa.int64()),
        pa.StructArray.from_arrays(fields, ["role", "content", "extra"]),
        mask=pa.array([messages is None for messages in conversations], pa.bool_()),
    )
    return pl.Series("messages", lists, dtype=record.SCHEMA["messages"])


def _columns_of(name: str, params: Params) -> Columns | None:
    """The first entry of `sources` whose glob matches the file (a `*` also matches slashes)."""
    return next((columns for glob, columns in params.sources.items() if fnmatchcase(name, glob)), None)


def _parsed(raw: bytes) -> Any:
    if b"\x00" in raw:
        raise Malformed("nul_byte", f"NUL byte at byte {raw.index(0) + 1} of the row.")
    try:
        row = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        try:
            raw.decode()
        except UnicodeDecodeError as broken:
            raise Malformed("invalid_utf8", f"Byte {broken.start + 1} of the row is not UTF-8.") from None
        raise Malformed("invalid_json", f"Not valid JSON at character {error.pos + 1} of the row: {error.msg}.") from None
    if b"\\u0000" in raw and _has_nul(row):
        raise Malformed("nul_byte", "A text of the row holds a NUL character.")
    return row


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(_has_nul(each) for pair in value.items() for each in pair)
    return isinstance(value, list) and any(_has_nul(each) for each in value)


def _dropped(name: str, line: int, problem: Malformed) -> dict[str, Any]:
    """A broken row has no content to make an id of: its id stands for the place."""
    place = xxhash.xxh3_128_hexdigest(f"{name}:{line}:{problem.reason}".encode())
    return {"id": place, "source": name, "line": line, "reason": problem.reason, "detail": problem.detail, "evidence": "{}"}


# Starting workers, and sending rows there and back, costs more than the work on so little (docs/decisions.md).
STAGE = Stage("ingest", Params, source=source, rows=rows, inline=16, private=True)

if __name__ == "__main__":
    main(STAGE)
