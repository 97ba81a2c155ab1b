"""embeddings.parquet: the vectors of the kept rows by id, and in the file's metadata what they were made from. Made once, read by all.

Columns `id` and `vector` (f16, length 1), sorted by id. Rows without text have no vector and are not in it. f16 moves a cosine by about
0.00002; every vector is rounded before it is compared, so that a stored one gives the same result as a new one.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from curate.record import InputError

NAME = "embeddings.parquet"
KEY = b"finery"


@dataclass(frozen=True)
class Origin:
    """What vectors were made from. Two of the same `fingerprint` (see curate/embed.py) and `compare` may be compared."""

    model: str
    fingerprint: str
    compare: str
    dimensions: int


def stamp(path: Path, origin: Origin) -> None:
    """Write the origin into the metadata of a parquet file that has none yet."""
    partial = path.with_suffix(".partial")
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow.with_metadata({**(file.schema_arrow.metadata or {}), KEY: orjson.dumps(asdict(origin))})
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for group in range(file.num_row_groups):
                writer.write_table(file.read_row_group(group).replace_schema_metadata(schema.metadata))
    partial.rename(path)


def origin(path: Path) -> Origin:
    """What the vectors of a file were made from. Raises InputError for a file that is missing or is not ours."""
    try:
        schema = pq.read_schema(path)
        found = Origin(**orjson.loads((schema.metadata or {})[KEY]))
        kind = schema.field("vector").type
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, orjson.JSONDecodeError) as error:
        raise InputError(
            f"{path}: no readable vectors ({type(error).__name__}: {error}). "
            "Name the output folder of a dedup_semantic that was switched on, or set dedup_semantic.reuse to null."
        ) from error
    width = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    if width != found.dimensions:
        raise InputError(
            f"{path}: its vectors have {width} dimensions, its metadata says {found.dimensions}. Run the stage that wrote it again."
        )
    return found


def check(path: Path, wanted: Origin) -> None:
    """Raises InputError, naming every difference, unless the vectors of the file were made as `wanted`."""
    found = origin(path)
    differing = [name for name in ("fingerprint", "compare", "dimensions") if getattr(found, name) != getattr(wanted, name)]
    if differing:
        told = [f"model {found.model}, asked for {wanted.model}"] if found.model != wanted.model else []
        told += [f"{name} {getattr(found, name)}, asked for {getattr(wanted, name)}" for name in differing]
        raise InputError(
            f"{path}: its vectors cannot be compared with those of this run: {'; '.join(told)}. "
            "Run dedup_semantic on that folder's input with these params, or set dedup_semantic.reuse to null."
        )


def read(path: Path) -> Iterator[pl.DataFrame]:
    """id and vector, by row groups."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield pl.DataFrame(file.read_row_group(group))


def ids(path: Path) -> np.ndarray:
    """The ids as bytes, sorted."""
    found: np.ndarray = np.sort(pl.read_parquet(path, columns=["id"])["id"].to_numpy().astype("S"))
    return found


def held(stored: np.ndarray, wanted: pl.Series) -> np.ndarray:
    """Which of `wanted` are among the sorted ids `stored`."""
    if not len(stored) or not len(wanted):
        return np.zeros(len(wanted), dtype=bool)
    asked = wanted.to_numpy().astype("S")
    at = np.minimum(np.searchsorted(stored, asked), len(stored) - 1)
    return np.asarray(stored[at] == asked)


def fill(vectors: np.ndarray, rows: pl.DataFrame, path: Path) -> int:
    """Copy stored vectors to the places that `rows` (place, id) names; returns how many were found."""
    found = 0
    for group in read(path):
        both = rows.join(group, on="id", how="inner")
        vectors[both["place"].to_numpy()] = both["vector"].to_numpy() if both.height else vectors[:0]
        found += both.height
    return found
