"""The texts in a file of any kind, each with the place it stands at: what an audit reads."""

import gzip
import html
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
import regex

from curate.record import InputError

ROWS = 2048  # rows of a table at once
NUMBER = 100_000  # a whole number from here on is read as text
_RUNS = regex.compile(rb"(?:[\t\n\r\x20-\x7e]|[\xc2-\xf4][\x80-\xbf]{1,3}){6,}")
_TAG = regex.compile(r"<[^<>]{0,2000}>")
_ESCAPE = regex.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrtbf])|(.))", regex.DOTALL)
Text = tuple[str, str]  # place (`row 3`, `line 3`, `byte 88`, or `line` for a whole file: the line of the finding counts), text
WHOLE = "line"


def texts_of(path: Path, tokenizer: Any) -> Iterator[Text]:
    """Every text of a file. `tokenizer` (of the `tokenizers` library, or None) reads columns `input_ids`, `prompt_ids`, ….

    Raises InputError if a file of a known kind cannot be read: what was not read must not count as clean.
    """
    yield "name", path.name
    try:
        yield from _texts(path, path.suffix.lower(), tokenizer)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be searched ({type(error).__name__}). Mend or remove it, then audit again.") from None


def _texts(path: Path, suffix: str, tokenizer: Any) -> Iterator[Text]:
    if suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield "metadata", " ".join(f"{key!r} {value!r}" for key, value in (file.schema_arrow.metadata or {}).items())
            yield from _of_batches(file.iter_batches(ROWS), tokenizer)
    elif suffix in (".arrow", ".feather", ".ipc"):
        with pa.memory_map(str(path)) as mapped:
            yield from _of_batches(_arrow_batches(mapped), tokenizer)
    elif suffix == ".gz":
        with gzip.open(path) as unzipped:
            yield from _of_bytes(unzipped.read())
    elif suffix == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as unpacked:
            yield from _of_bytes(unpacked.read())
    else:
        yield from _of_bytes(path.read_bytes())


def _arrow_batches(mapped: Any) -> Iterator[Any]:
    try:
        reader = pa.ipc.open_file(mapped)
        yield from (reader.get_batch(at) for at in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        mapped.seek(0)
        yield from pa.ipc.open_stream(mapped)


def _of_bytes(data: bytes) -> Iterator[Text]:
    """A text file as one text; of anything else the runs of text in it."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield WHOLE, data.decode("utf-16", errors="replace")
        return
    if b"\0" not in data:
        try:
            yield WHOLE, data.decode("utf-8-sig")
            return
        except UnicodeDecodeError:
            pass
    for run in _RUNS.finditer(data):
        yield f"byte {run.start()}", run[0].decode("utf-8", errors="replace")


def _of_batches(batches: Iterator[Any], tokenizer: Any) -> Iterator[Text]:
    before = 0
    for batch in batches:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            yield from _of_column(name, column, list(range(before, before + len(column))), tokenizer)
        before += batch.num_rows


def _of_column(name: str, column: Any, rows: list[int], tokenizer: Any) -> Iterator[Text]:
    """The texts in a column, through lists and structs; `rows`: which row of the file each value belongs to."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    if pa.types.is_struct(kind):
        for at in range(kind.num_fields):
            yield from _of_column(f"{name}.{kind[at].name}", pc.struct_field(column, at), rows, tokenizer)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if name.endswith("_ids") and tokenizer is not None and pa.types.is_integer(kind.value_type):
            decoded = tokenizer.decode_batch([ids or [] for ids in column.to_pylist()])
            yield from ((f"row {row + 1}, {name}", text) for row, text in zip(rows, decoded, strict=True))
        elif not pa.types.is_primitive(kind.value_type):
            parents = pc.list_parent_indices(column).to_pylist()
            yield from _of_column(name, pc.list_flatten(column), [rows[at] for at in parents], tokenizer)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield from ((f"row {row + 1}, {name}", text) for row, text in zip(rows, column.to_pylist(), strict=True) if text)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        for row, value in zip(rows, column.to_pylist(), strict=True):
            yield from ((f"row {row + 1}, {name}", text) for _, text in _of_bytes(value or b""))
    elif pa.types.is_integer(kind):
        yield from (
            (f"row {row + 1}, {name}", str(value))
            for row, value in zip(rows, column.to_pylist(), strict=True)
            if value is not None and value >= NUMBER
        )


def variants(text: str) -> Iterator[str]:
    """The text as it stands, and as it reads with escapes of JSON, HTML and URLs undone and tags taken out."""
    yield text
    if "\\" in text:
        plain = _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)) if match[1] or match[2] else match[4] or " ", text)
        yield plain.encode("utf-16", "surrogatepass").decode("utf-16", errors="replace")
    if "&" in text and ";" in text:
        yield html.unescape(text)
    if "<" in text and ">" in text:
        yield html.unescape(_TAG.sub("", text))
    if "%" in text:
        yield urllib.parse.unquote(text)
