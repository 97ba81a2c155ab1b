"""Adds general data to the training rows at a share, and weights tasks against each other. Helper of `format`.

Everything is decided by the hash of a row's id: the same pools and rows give the same mixture, and a row more moves few others. A
pool's row whose folded prompt stands in validation or test is refused; pools are not searched for anything less than that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import polars as pl
import xxhash
from pydantic import Field

from curate import read_raw, record, store
from curate.params import params_class
from curate.record import InputError
from curate.shapes import Naming, example
from curate.stage import say
from curate.turns import Malformed

ROW_BYTES = 4 << 20  # a raw row of a pool above this is refused, as ingest does
CHOSEN = {**record.SCHEMA, "mixed": pl.String(), "held_out": pl.Boolean()}


@params_class
class Pool:
    """General data: a folder of records (as a stage writes it), or raw files that ingest would read."""

    path: str
    share: Annotated[float, Field(gt=0, lt=1)]  # of all training rows, own and mixed


@params_class
class Weight:
    """How often the training rows count that match everything given here (`source` is a glob)."""

    weight: Annotated[float, Field(ge=0, le=100)]
    label: str | None = None
    source: str | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        if self.label is None and self.source is None and self.kind is None:
            raise ValueError("a weight needs at least one of label, source and kind to say which rows it is for")


@params_class
class Mix:
    """`params.yaml: format.mix`."""

    pools: tuple[Pool, ...]
    weights: tuple[Weight, ...]

    def __post_init__(self) -> None:
        total = sum(pool.share for pool in self.pools)
        if total >= 1:
            raise ValueError(f"the shares of the pools add up to {total:g}; expected less than 1, so that rows of the dataset remain")


@dataclass(frozen=True)
class Mixture:
    """What was chosen: where it lies, and after which training rows it goes. Small, so that it travels to the workers."""

    folder: Path | None
    chosen: int  # rows in `folder`
    train: int  # training rows of the input
    wanted: tuple[tuple[str, int], ...]  # pool, rows that its share asks for


NOTHING = Mixture(None, 0, 0, ())


def choose(in_dir: Path, scratch: Path, mix: Mix) -> Mixture:
    """Choose rows of the pools and write them to `scratch`. Raises InputError for a pool that cannot be read."""
    if not mix.pools:
        return NOTHING
    train, weighted, held_out = _survey(in_dir, mix.weights)
    own = 1 - sum(pool.share for pool in mix.pools)
    wanted = tuple((pool.path, round(weighted * pool.share / own)) for pool in mix.pools)
    writer = store.PartWriter(scratch / "mix", store.arrow_schema(CHOSEN))
    count = 0
    for (name, rows), pool in zip(wanted, mix.pools, strict=True):
        taken, refused = _taken(pool, rows, held_out)
        if taken.sum() - refused[taken].sum() < rows:
            say(f"format: note: the pool {name} has {int(taken.sum() - refused[taken].sum()):,} rows to give, its share asks for {rows:,}.")
        at = 0
        for batch in _records(Path(pool.path)):
            here = slice(at, at + batch.height)
            marked = batch.with_columns(
                pl.concat_str(pl.lit(f"{name}: "), "source").alias("source"),
                pl.lit(name).alias("mixed"),
                pl.Series("held_out", refused[here]),
            ).filter(pl.Series(taken[here]))
            writer.write(marked.select(list(CHOSEN)))
            count += marked.height
            at += batch.height
    writer.close()
    return Mixture(scratch / "mix", count, train, wanted)


def _survey(in_dir: Path, weights: Sequence[Weight]) -> tuple[int, int, set[int]]:
    """Training rows, training rows as weighted, and keys of what was asked in validation and test."""
    train = weighted = 0
    held_out: set[int] = set()
    for part in store.parts(in_dir):
        if part.split in ("", "train"):
            train += part.rows
            weighted += part.rows if not weights else sum(copies(_narrow(part.path), weights))
    for folder in sorted({part.path.parent for part in store.parts(in_dir) if part.split not in ("", "train")}):
        for batch in store.batches(folder, ["messages"]):
            held_out.update(_keys(batch))
    return train, weighted, held_out


def _narrow(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path, columns=["id", "label", "source", "kind"])


def _keys(rows: pl.DataFrame) -> list[int]:
    """A hash of the folded prompt of each row; of the whole text where there is no prompt."""
    both = record.prompt_and_answer(rows).with_columns(asked=record.fold(pl.col("prompt")), said=record.fold(pl.col("answer")))
    return [xxhash.xxh3_64_intdigest((asked or said).encode()) for asked, said in both.select("asked", "said").iter_rows()]


def _taken(pool: Pool, rows: int, held_out: set[int]) -> tuple[np.ndarray, np.ndarray]:
    """For each row of the pool: whether it is taken, and whether its prompt is held out (taken then, to be told, but not counted)."""
    hashes: list[int] = []
    refused: list[bool] = []
    for batch in _records(Path(pool.path)):
        hashes += [xxhash.xxh3_64_intdigest(each.encode()) for each in batch["id"]]
        refused += [key in held_out for key in _keys(batch)]
    barred = np.array(refused, dtype=bool)
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
    good = np.cumsum(~barred[order])
    taken = np.zeros(len(order), dtype=bool)
    taken[order[: int(np.searchsorted(good, rows)) + 1 if rows else 0]] = True
    return taken, barred


def _records(path: Path) -> Iterator[pl.DataFrame]:
    """The rows of a pool as records, in batches, in order. Raises InputError with file and line for what is no example."""
    if not path.exists():
        raise InputError(f"format.mix: {path}: no such file or folder. Name general data, or take the pool out of format.mix.pools.")
    if path.is_dir() and ((path / "kept").is_dir() or any(path.glob("part-*.parquet"))):
        columns = list(record.SCHEMA)
        for batch in store.batches(path, columns):
            yield batch.select(columns)
        return
    folder, name = (path, None) if path.is_dir() else (path.parent, path.name)
    for raw in read_raw.batches(read_raw.files(folder, lambda each: name is not None and each != name), ROW_BYTES):
        yield pl.DataFrame([_record(path, row) for row in raw.iter_rows(named=True)], schema=record.SCHEMA)


def _record(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    try:
        if row["reason"] is not None:
            raise Malformed(row["reason"], row["detail"])
        made = example(orjson.loads(row["raw"]), Naming((), (), None))
    except (Malformed, orjson.JSONDecodeError) as problem:
        detail = problem.detail if isinstance(problem, Malformed) else "Not valid JSON."
        raise InputError(
            f"format.mix: {path}: {row['source']}:{row['line']}: {detail} Mend it, or run curate.ingest on the pool and name its output, "
            f"which holds the good rows."
        ) from None
    content = {"kind": made.kind, "messages": made.messages, "rejected": made.rejected, "label": made.label}
    id_ = record.content_id(made.kind, made.messages, made.rejected, made.label)
    return {
        "id": id_,
        "source": row["source"],
        "line": row["line"],
        **content,
        "group": made.group,
        "meta": orjson.dumps(made.meta).decode(),
    }


def copies(rows: pl.DataFrame, weights: Sequence[Weight]) -> list[int]:
    """How often each training row goes in: the whole part of its weight, and once more by chance of its id for the rest.

    The first weight that matches counts; rows that none matches go in once.
    """
    if not weights:
        return [1] * rows.height
    out = []
    for id_, label, source, kind in rows.select("id", "label", "source", "kind").iter_rows():
        weight = next((each.weight for each in weights if _matches(each, label, source, kind)), 1.0)
        out.append(int(weight) + (xxhash.xxh3_64_intdigest(id_.encode(), seed=1) < (weight % 1) * 2**64))
    return out


def _matches(weight: Weight, label: str | None, source: str, kind: str) -> bool:
    return weight.label in (None, label) and weight.kind in (None, kind) and (weight.source is None or fnmatchcase(source, weight.source))


def following(mixture: Mixture, start: int, stop: int) -> list[list[dict[str, Any]]]:
    """For each training row from `start` to `stop` (positions among them) the chosen rows that go behind it, spread evenly."""
    if not mixture.chosen:
        return [[]] * (stop - start)
    assert mixture.folder is not None
    ends = [at * mixture.chosen // mixture.train for at in range(start, stop + 1)]
    rows = pl.scan_parquet(mixture.folder / "*.parquet").slice(ends[0], ends[-1] - ends[0]).collect().to_dicts()
    return [rows[ends[at] - ends[0] : ends[at + 1] - ends[0]] for at in range(stop - start)]
