"""Which rows have a split before any is dealt: pinned ones (files of id, split), official ones (a column), settled ones (`--against`)."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from curate import columns
from curate.params import params_class
from curate.record import SPLITS, InputError

FREE = -1
KINDS = (".csv", ".parquet")


@params_class
class Official:
    """`params.yaml: split.official`: the values (globs) of a column that say which split a row belongs to."""

    column: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    conflicts: Literal["error", "drop", "keep"]

    def __post_init__(self) -> None:
        columns.check_name("column", self.column)
        if not (self.train or self.validation or self.test):
            raise ValueError("no value of the column is named: give train, validation or test at least one (or set official to null)")


@dataclass(frozen=True)
class Fixed:
    """Per row: `place` (in SPLITS, -1 for free rows) and where it comes from."""

    place: np.ndarray  # i64
    pinned: np.ndarray  # bool
    official: np.ndarray  # bool
    known: np.ndarray  # bool: settled, never dropped
    unused: int  # pins whose row is not here


def fixed(rows: pl.DataFrame, pinned: str | None, official: Official | None) -> Fixed:
    """The fixed places of `rows` (id, source, line, split, known; `official` with the column's value, where asked for).

    A settled row keeps the split of its folder. Raises InputError for pins that cannot be read, a row that is pinned to another split than
    its official one, and settled rows without splits.
    """
    place = np.full(rows.height, FREE, dtype=np.int64)
    known = rows["known"].to_numpy()
    told = _official(rows, official)
    pins, unused = _pinned(rows["id"], pinned)
    pins[known] = FREE
    both = np.flatnonzero((told >= 0) & (pins >= 0) & (told != pins))
    if len(both):
        at = int(both[0])
        raise InputError(
            f"split.pinned: {rows['id'][at]} ({rows['source'][at]}:{rows['line'][at]}) is pinned to {SPLITS[pins[at]]}, but its official "
            f"split is {SPLITS[told[at]]} ({len(both)} such rows). Take it out of the pins, or change split.official."
        )
    for each in (pins, told, _settled(rows)):
        place = np.where(each >= 0, each, place)
    return Fixed(place, pins >= 0, (told >= 0) & (told == place), known, unused)


def _settled(rows: pl.DataFrame) -> np.ndarray:
    settled = rows.select(pl.when("known").then("split"))["split"]
    if (settled == "").any():
        raise InputError("--against: its rows have no splits. Give the folder that split wrote (data/split).")
    return _places(settled)


def _places(splits: pl.Series) -> np.ndarray:
    found: np.ndarray = splits.replace_strict(list(SPLITS), [0, 1, 2], default=None, return_dtype=pl.Int64).fill_null(FREE).to_numpy()
    return found.copy()


def _official(rows: pl.DataFrame, official: Official | None) -> np.ndarray:
    if official is None:
        return np.full(rows.height, FREE, dtype=np.int64)
    seen = rows["official"].drop_nulls().unique().sort().to_list()
    split_of: dict[str, str] = {}
    for value in seen:
        splits = [name for name in SPLITS if any(fnmatchcase(value, glob) for glob in getattr(official, name))]
        if len(splits) > 1:
            raise InputError(f"split.official: {official.column} = {value!r} is named for {' and '.join(splits)}. Name it once.")
        if splits:
            split_of[value] = splits[0]
    if seen and not split_of:
        shown = ", ".join(repr(value) for value in seen[: columns.SHOWN])
        raise InputError(f"split.official: no value of {official.column} is among those named. Found: {shown}.")
    table = pl.DataFrame({"official": list(split_of), "split": list(split_of.values())}, schema={"official": pl.String, "split": pl.String})
    return _places(rows.select("official").join(table, on="official", how="left", maintain_order="left")["split"])


def _pinned(ids: pl.Series, pinned: str | None) -> tuple[np.ndarray, int]:
    if pinned is None:
        return np.full(len(ids), FREE, dtype=np.int64), 0
    path = Path(pinned)
    if not path.exists():
        raise InputError(
            f"split.pinned: {path}: no such file or folder. Point it at an earlier assignments.parquet (or a CSV of id,split), "
            "or a folder of these, or set null."
        )
    files = sorted(each for each in path.iterdir() if each.suffix in KINDS) if path.is_dir() else [path]
    none = pl.DataFrame(schema={"id": pl.String, "split": pl.String})
    table = pl.concat([none, *(_read(file) for file in files)]).unique(maintain_order=True)
    if (twice := table.filter(pl.col("id").is_duplicated())).height:
        raise InputError(f"split.pinned: {path}: id {twice['id'][0]} stands there with two splits. Keep one.")
    joined = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")
    unused = table.join(pl.DataFrame({"id": ids}), on="id", how="anti").height
    return _places(joined["split"]), unused


def _read(path: Path) -> pl.DataFrame:
    try:
        table = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"split.pinned: {path}: not readable ({str(error).splitlines()[0]}). Expected parquet or CSV with id and split."
        ) from None
    if missing := {"id", "split"} - set(table.columns):
        raise InputError(f"split.pinned: {path}: has no column {sorted(missing)}; found {table.columns}.")
    table = table.select(pl.col("id").cast(pl.String), pl.col("split").cast(pl.String))
    if (bad := table.filter(~pl.col("split").is_in(SPLITS).fill_null(False))).height:
        raise InputError(f"split.pinned: {path}: split {bad['split'][0]!r} of id {bad['id'][0]}: expected one of {', '.join(SPLITS)}.")
    return table
