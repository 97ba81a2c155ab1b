"""What dedup_near stores of the rows it kept, so that new rows can be compared with them without reading them again.

`sketches.parquet` has a row for each kept row, in their order: a check on its id, and its band keys (none, one or two sets of them).
`boilerplate.parquet` has the hashes that counted as boilerplate. Both name the settings they were made with, and are of no use for others.
"""

from pathlib import Path

import numpy as np
import polars as pl

from curate import lsh, store
from curate.memory import as_lists, owned
from curate.record import InputError
from curate.sets import Boilerplate


def tables(sketch: lsh.Sketch, stays: np.ndarray, draw: np.ndarray, boilerplate: Boilerplate, settings: str) -> dict[str, pl.DataFrame]:
    """The two tables, for the rows that `stays` marks; `draw` is the check on their ids."""
    mine = stays[sketch.row]
    entries = np.bincount(sketch.row[mine], minlength=len(stays))[stays]
    bands = sketch.keys.shape[1]
    keys = as_lists(owned(sketch.keys[mine]), entries * bands)
    hashes = [pl.DataFrame({"words": bool(grain), "hash": each}) for grain, each in enumerate(boilerplate.hashes)]
    none = pl.DataFrame(schema={"words": pl.Boolean, "hash": pl.UInt32})
    name = pl.lit(settings).alias("settings")
    return {
        "sketches": pl.DataFrame({"check": draw[stays], "keys": keys}).with_columns(name),
        "boilerplate": pl.concat([none, *hashes]).with_columns(name),
    }


def read(folder: Path, settings: str, bands: int) -> tuple[lsh.Sketch, Boilerplate] | None:
    """What a folder has stored; None if it has nothing, or made it with other settings. Raises InputError if it is of other rows."""
    paths = folder / "sketches.parquet", folder / "boilerplate.parquet"
    if not all(path.is_file() for path in paths):
        return None
    stored, forms = (pl.read_parquet(path) for path in paths)
    rows = sum(part.rows for part in store.parts(folder))
    if stored.height != rows:
        raise InputError(f"{paths[0]}: has {stored.height:,} sketches for {rows:,} kept rows. Make {folder} again.")
    if not rows or stored["settings"][0] != settings:
        return None
    lists = stored["keys"].rechunk().to_arrow()
    sizes = stored["keys"].list.len().to_numpy().astype(np.int64)
    row = np.repeat(np.arange(rows), sizes // bands)
    hashes = tuple(forms.filter(pl.col("words") == bool(grain))["hash"].to_numpy() for grain in (0, 1))
    boilerplate = Boilerplate.over((hashes[0], hashes[1])) if forms.height else Boilerplate.none()
    keys = np.frombuffer(lists.values.buffers()[1] or b"", dtype=np.uint32)[lists.values.offset :][: len(row) * bands]
    return lsh.Sketch(keys.reshape(-1, bands), row, np.zeros((0, 2), dtype=np.uint32)), boilerplate


def meeting(known: lsh.Sketch, new: lsh.Sketch) -> np.ndarray:
    """The rows of `known` (ascending) that share a bucket with a row of `new`."""
    hit = np.zeros(len(known.keys), dtype=bool)
    for band in range(known.keys.shape[1]):
        keys = np.unique(new.keys[:, band])
        if len(keys):
            place = np.minimum(np.searchsorted(keys, known.keys[:, band]), len(keys) - 1)
            hit |= keys[place] == known.keys[:, band]
    return np.unique(known.row[hit])
