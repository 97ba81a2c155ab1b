"""The rows that near-duplicate search is measured on, in two shapes: (id, text) for the peers, the record for Finery.

`t0` is the public t0_55k (text = prompt, space, completion). Larger sets go on with copies of its rows in which a fifth of the words is
swapped for words drawn from the whole of it, so that copies of one row resemble each other no more than strangers do at the threshold.
Every row is made from its position and the seed alone: the same rows however many are asked for.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xxhash

from bench.measure import ROOT
from curate.record import SCHEMA
from curate.store import PartWriter, arrow_schema

STANDARD = ROOT.parent / "shared" / "data" / "t0_55k.parquet"
CACHE = ROOT / "bench" / ".data"
SEED = 17
SWAPPED = 0.2  # share of the words of a copy
PARTS = 2  # files of a peer's input: datatrove shares work out by file
BATCH = 4096
VERSION = 1  # change it when the rows change: cached inputs are made again
GAP = re.compile(r"(\s+)")


@dataclass(frozen=True)
class Inputs:
    """One set of rows on disk: `peers` holds parquet files of id and text, `finery` a folder of record parts."""

    folder: Path
    rows: int

    @property
    def peers(self) -> Path:
        return self.folder / "peers"

    @property
    def finery(self) -> Path:
        return self.folder / "finery"

    def texts(self) -> pl.DataFrame:
        """All rows, id and text, in order."""
        return pl.concat([pl.read_parquet(path) for path in sorted(self.peers.glob("*.parquet"))])


def standard() -> list[str]:
    """The texts of t0_55k."""
    if not STANDARD.exists():
        raise SystemExit(f"{STANDARD}: no such file. The benchmark runs on the public T0 sample in self-instruct; put it there.")
    rows = pl.read_parquet(STANDARD)
    texts: list[str] = rows.select(pl.concat_str(pl.col("prompt", "completion").fill_null(""), separator=" "))["prompt"].to_list()
    return texts


def enlarged(texts: list[str], rows: int, seed: int = SEED) -> Iterator[str]:
    """`rows` texts: those given, then copies of them, round after round, each with a share of SWAPPED of its words swapped."""
    yield from texts[:rows]
    if rows <= len(texts):
        return
    words = np.array([sys.intern(word) for text in texts for word in text.split()], dtype=object)
    for row in range(len(texts), rows):
        yield _swapped(GAP.split(texts[row % len(texts)]), words, np.random.default_rng([seed, row]))


def _swapped(pieces: list[str], words: np.ndarray, random: np.random.Generator) -> str:
    """The text of `pieces` (words and the gaps between them) with some words replaced by words drawn as often as they occur."""
    at = [place for place in range(0, len(pieces), 2) if pieces[place]]
    count = round(SWAPPED * len(at))
    changed = list(pieces)
    for place, word in zip(random.choice(len(at), count, replace=False), words[random.integers(len(words), size=count)], strict=True):
        changed[at[place]] = word
    return "".join(changed)


def row_id(row: int) -> str:
    """An id as the record has it (32 hex digits), of the row's position: exact duplicates must be told apart here."""
    return xxhash.xxh3_128_hexdigest(f"row {row}".encode())


def make(name: str, texts: Iterator[str], rows: int, cache: Path = CACHE) -> Inputs:
    """Write both shapes of `rows` texts under `cache/name`, unless they are there."""
    inputs, stamp = Inputs(cache / name, rows), {"version": VERSION, "rows": rows, "seed": SEED, "swapped": SWAPPED}
    done = inputs.folder / "made.json"
    if done.exists() and json.loads(done.read_text()) == stamp:
        return inputs
    shutil.rmtree(inputs.folder, ignore_errors=True)
    inputs.peers.mkdir(parents=True)
    schema = arrow_schema({"id": pl.String(), "text": pl.String()})
    record = PartWriter(inputs.finery, arrow_schema(SCHEMA))
    at = 0
    for part in range(PARTS):
        stop = rows * (part + 1) // PARTS
        with pq.ParquetWriter(inputs.peers / f"part-{part:05d}.parquet", schema, compression="zstd") as file:
            while at < stop:
                batch = _batch(at, [next(texts) for _ in range(min(BATCH, stop - at))])
                file.write_table(batch.to_arrow().cast(schema))
                record.write(as_record(batch, at))
                at += batch.height
    record.close()
    done.write_text(json.dumps(stamp))
    return inputs


def _batch(first: int, texts: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"id": [row_id(first + at) for at in range(len(texts))], "text": texts}, schema={"id": pl.String, "text": pl.String}
    )


def as_record(batch: pl.DataFrame, first: int) -> pl.DataFrame:
    """Rows of id and text as documents of the record; `first` is the position of the first of them."""
    nothing = pl.lit(None, dtype=pl.String)
    message = pl.struct(role=pl.lit("text"), content=pl.col("text"), extra=nothing)
    columns = {
        "source": pl.lit("bench"),
        "line": pl.int_range(first + 1, first + batch.height + 1, dtype=pl.Int64),
        "kind": pl.lit("text"),
        "messages": pl.concat_list(message),
        "rejected": pl.lit(None),
        "label": nothing,
        "group": nothing,
        "meta": pl.lit("{}"),
    }
    return batch.with_columns(**columns).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
