"""Raw files -> batches of raw rows. Finds the files, knows the containers by their endings, cuts batches."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import polars as pl

from curate import containers, tables
from curate.containers import RawRow
from curate.record import InputError
from curate.streams import Broken, chunks

BATCH_ROWS = 4096
BATCH_BYTES = 16 << 20
RAW: dict[str, pl.DataType] = {
    "row": pl.UInt32(),  # position in the whole
    "split": pl.String(),  # empty
    "source": pl.String(),
    "line": pl.Int64(),
    "raw": pl.Binary(),  # one JSON value; null where the container gave none
    "reason": pl.String(),  # then: why not
    "detail": pl.String(),
}
CONTAINERS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "document",
    ".md": "document",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = {".gz": "gz", ".zst": "zst"}


@dataclass(frozen=True)
class RawFile:
    """One file: where it is, its name as `source` (relative, with slashes), what it holds and how it is compressed."""

    path: Path
    source: str
    container: str
    compression: str


def files(folder: Path, skipped: Callable[[str], bool] = lambda name: False) -> list[RawFile]:
    """The raw files under `folder`, by relative path. Hidden files and DVC's pointer files (.dvc) are no data.

    Raises InputError if the folder is missing, holds no files, or holds one of unknown kind that is not `skipped`.
    """
    if not folder.is_dir():
        what = "is a file; give the folder it lies in" if folder.exists() else "no such folder. Make it and put your files there"
        raise InputError(f"{folder}: {what}.")
    found = sorted((path.relative_to(folder).as_posix(), path) for path in _walk(folder))
    made = [_raw_file(name, path) for name, path in found if not skipped(name)]
    if not made:
        kinds = ", ".join(CONTAINERS)
        raise InputError(
            f"{folder}: holds no raw files. Put files there ({kinds}; also with .gz or .zst); docs/formats.md shows their shapes."
        )
    return made


def _walk(folder: Path) -> Iterator[Path]:
    seen = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        here = Path(at).resolve()
        if here in seen:
            raise InputError(f"{at}: the same folder is linked twice under {folder}. Remove one of the links.")
        seen.add(here)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = [name for name in names if not name.startswith(".") and not name.endswith(".dvc")]
        for name in _of_saved_dataset(Path(at), visible):
            yield Path(at, name)


def _of_saved_dataset(at: Path, names: list[str]) -> Sequence[str]:
    """Of a folder that `datasets.save_to_disk` wrote, its data files alone; of any other, all files."""
    if "dataset_dict.json" in names:
        names = [name for name in names if name != "dataset_dict.json"]
    if not {"state.json", "dataset_info.json"} <= set(names):
        return names
    try:
        listed = [each["filename"] for each in orjson.loads((at / "state.json").read_bytes())["_data_files"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise InputError(
            f"{at / 'state.json'}: not as datasets.save_to_disk writes it. Save the dataset again, or remove the folder."
        ) from None
    missing = [name for name in listed if name not in names]
    if missing:
        raise InputError(f"{at}: a saved dataset without its file {missing[0]}. Save the dataset again, or remove the folder.")
    caches = [name for name in names if name.startswith("cache-") and name.endswith(".arrow")]
    return [name for name in names if name not in ("state.json", "dataset_info.json", *caches)]


def _raw_file(name: str, path: Path) -> RawFile:
    endings = Path(name.lower()).suffixes
    compression = COMPRESSIONS.get(endings.pop(), "") if endings and endings[-1] in COMPRESSIONS else ""
    container = CONTAINERS.get(endings[-1] if endings else "")
    if container is None:
        raise InputError(
            f"{path}: unknown kind of file '{Path(name).name}'. Known: {', '.join(CONTAINERS)}, also with .gz or .zst. "
            f"Rename it, remove it, or leave it out with ingest.sources: {{'{name}': {{skip: true}}}}."
        )
    return RawFile(path, name, container, compression)


def rows_of(file: RawFile, limit: int) -> Iterator[RawRow]:
    """The raw rows of one file. A row above `limit` bytes comes without its content."""
    try:
        if file.container in ("parquet", "arrow"):
            yield from _columnar(file, limit)
            return
        stream = chunks(file.path, file.compression)
        if file.container == "jsonl":
            yield from containers.jsonl(stream, limit)
        elif file.container == "json":
            yield from containers.json_list(stream, limit)
        elif file.container == "document":
            yield from containers.document(stream, limit)
        else:
            yield from tables.delimited(stream, limit, "," if file.container == "csv" else "\t")
    except Broken as error:  # before the first row
        yield 0, None, *error.problem


def _columnar(file: RawFile, limit: int) -> Iterator[RawRow]:
    reader = tables.parquet if file.container == "parquet" else tables.arrow
    if not file.compression:
        yield from reader(file.path, limit)
        return
    with TemporaryDirectory(prefix="finery-") as folder:  # these are read from their end: they cannot stream
        plain = Path(folder, "plain")
        with plain.open("wb") as target:
            for chunk in chunks(file.path, file.compression):
                target.write(chunk)
        yield from reader(plain, limit)


def batches(found: Iterable[RawFile], limit: int) -> Iterator[pl.DataFrame]:
    """The rows of all files, in order, in batches of at most 4096 rows and about 16 MiB; columns `RAW`."""
    done, size = 0, 0
    waiting: list[tuple[str, int, bytes | None, str | None, str | None]] = []
    for file in found:
        for line, raw, reason, detail in rows_of(file, limit):
            waiting.append((file.source, line, raw, reason, detail))
            size += len(raw) if raw is not None else 0
            if len(waiting) >= BATCH_ROWS or size >= BATCH_BYTES:
                yield _batch(waiting, done)
                done, size = done + len(waiting), 0
                waiting = []
    if waiting:
        yield _batch(waiting, done)


def _batch(waiting: Sequence[tuple[Any, ...]], done: int) -> pl.DataFrame:
    columns = dict(zip(("source", "line", "raw", "reason", "detail"), map(list, zip(*waiting, strict=True)), strict=True))
    rows = pl.DataFrame(columns, schema={name: RAW[name] for name in columns})
    return rows.select(pl.int_range(done, done + rows.height, dtype=pl.UInt32).alias("row"), pl.lit("").alias("split"), pl.all())
