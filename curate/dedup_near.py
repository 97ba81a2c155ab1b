"""Lets through one row of each set of near-duplicates; stays behind: rows at least `threshold` similar to a row that goes on.

Rows are taken from best to worst (`prefer`). A row is dropped if, and only if, some row *kept before it* has a Jaccard similarity of at
least `threshold` with it, checked exactly on the sets of character 5-grams; the evidence names that kept row. So chains never merge:
if a resembles b and b resembles c, c stays unless it resembles a itself. MinHash bands propose the pairs (see minhash.py); a pair at the
threshold is proposed with chance `recall`.

What is in memory: for each row, `permutations` bytes of signature, eight bytes a band and the preference columns. Shingles stay in the
mapped survey. Cost: a row meets only kept rows of its buckets, so a bucket of a million copies costs a million checks. Worst case: rows
that share buckets yet are all kept; each pair of them costs one step of the sieve (about 0.1 µs), and an exact check (about 10 µs)
where the signatures agree nearly as much as at the threshold.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field

from curate import minhash, record, store
from curate.params import check_section, params_class, read_params
from curate.stage import Plan, Stage, guarded, main

ROWS = 1024  # rows decided together, in order of preference
EXPANDED = 1 << 20  # (row, kept row) proposals expanded at once
MOST_PAIRS = 100_000  # rows of the table `pairs`; above it, a sample by hash of the ids
CUT_OFF = r"[\p{L},;-]$"  # an answer of more than ten words that ends so was probably cut off
ORDER = {"human": "synthetic", "labelled": "unlabelled", "complete": "cut_off"}  # preference -> the column that is false first


@params_class
class Params:
    """`params.yaml: dedup_near`."""

    enabled: bool
    threshold: Annotated[float, Field(gt=0, le=1)]
    permutations: Annotated[int, Field(ge=16, le=1024)]
    recall: Annotated[float, Field(gt=0, lt=1)]
    near_miss: Annotated[float, Field(gt=0, le=1)]
    compare: Literal["prompt", "answer", "both"]
    prefer: tuple[Literal["human", "labelled", "complete", "longer"], ...]

    def __post_init__(self) -> None:
        if self.near_miss > self.threshold:
            raise ValueError(f"near_miss {self.near_miss} is above threshold {self.threshold}; it must not be")
        if len(set(self.prefer)) < len(self.prefer):
            raise ValueError(f"prefer names a preference twice: {', '.join(self.prefer)}")


def prepare(params: Params) -> tuple[int, int]:
    """(bands, rows) of the banding. Raises ParamsError if recall cannot be reached."""
    return minhash.bands(params.threshold, params.permutations, params.recall)


def compared(rows: pl.DataFrame, compare: str) -> pl.Series:
    """The folded text of each row that is compared. The worse answer of a preference pair counts as part of the answer."""
    sides = record.prompt_and_answer(rows).with_columns(rows["rejected"].list.last().struct.field("content").alias("rejected"))
    parts = {"prompt": ["prompt"], "answer": ["answer", "rejected"], "both": ["prompt", "answer", "rejected"]}[compare]
    return sides.select(record.fold(pl.concat_str(parts, separator="\n", ignore_nulls=True)).alias("text"))["text"]


def survey(batch: pl.DataFrame, params: Params, shape: tuple[int, int]) -> pl.DataFrame:
    """Ids, what preference compares, shingles (list[u32]), band keys and signature bytes."""
    shingles = minhash.shingles(compared(batch, params.compare))
    sketch = minhash.Sketch.of(shingles, shape, params.permutations)
    answer = record.prompt_and_answer(batch)["answer"].str.strip_chars_end()
    synthetic = batch.select(pl.col("meta").str.json_path_match("$.synthetic").fill_null("false").is_in(["false", "0", "null", ""]).not_())
    return batch.select("id", "source", "line", "label").with_columns(
        synthetic.to_series().alias("synthetic"),
        pl.col("label").is_null().alias("unlabelled"),
        (answer.str.contains(CUT_OFF) & (answer.str.count_matches(r"\s+") >= 10)).alias("cut_off"),
        answer.str.len_chars().alias("answer_chars"),
        shingles.alias("shingles"),
        pl.Series("keys", sketch.keys, dtype=pl.Array(pl.UInt64, sketch.keys.shape[1])),
        pl.Series("bits", sketch.bits, dtype=pl.Array(pl.UInt8, sketch.bits.shape[1])),
    )


def preference(narrow: pl.DataFrame, prefer: tuple[str, ...]) -> np.ndarray:
    """Row positions from best to worst: by `prefer` in the order given, then by id, source and line."""
    by = [("answer_chars", True) if each == "longer" else (ORDER[each], False) for each in prefer]
    by += [("id", False), ("source", False), ("line", False)]
    rows = narrow.select([name for name, _ in by]).with_row_index("row")
    return rows.sort([name for name, _ in by], descending=[down for _, down in by])["row"].to_numpy().astype(np.int64)


@dataclass
class _Buckets:
    """Which kept rows each bucket holds so far. Buckets of all bands are numbered through."""

    of: np.ndarray  # (n, bands) i32: bucket of each row, -1 where it is alone
    start: np.ndarray  # first slot of each bucket
    filled: np.ndarray  # kept rows of each bucket
    slots: np.ndarray  # i32 row positions

    @staticmethod
    def over(keys: pl.Series, present: np.ndarray) -> "_Buckets":
        bands = keys.dtype.shape[0]  # type: ignore[attr-defined]
        of = np.full((len(keys), bands), -1, dtype=np.int32)
        lengths: list[np.ndarray] = []
        count = 0
        for band in range(bands):
            members, start, stop = minhash.buckets(keys.arr.get(band).to_numpy(), present)
            begins, number = np.unique(start, return_inverse=True)
            of[members, band] = count + number
            lengths.append(stop[begins] - begins)
            count += len(begins)
        start = minhash.starts(np.concatenate(lengths))
        return _Buckets(of, start[:-1], np.zeros(count, dtype=np.int64), np.empty(start[-1], dtype=np.int32))

    def add(self, rows: np.ndarray) -> None:
        bucket = self.of[rows].ravel()
        row = np.repeat(rows, self.of.shape[1])[bucket >= 0]
        bucket = bucket[bucket >= 0]
        order = np.argsort(bucket, kind="stable")
        row, bucket = row[order], bucket[order]
        distinct, counts = np.unique(bucket, return_counts=True)
        within = np.arange(len(bucket)) - np.repeat(minhash.starts(counts)[:-1], counts)
        self.slots[self.start[bucket] + self.filled[bucket] + within] = row
        self.filled[distinct] += counts


@dataclass
class _Checked:
    """Checked pairs of at least `near_miss`: a histogram of all, and a bounded sample that depends on the ids alone."""

    draw: np.ndarray  # u64 per row, from its id
    floor: float
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(101, dtype=np.int64))  # by hundredths, rounded down
    count: int = 0
    sample: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def add(self, row: np.ndarray, kept: np.ndarray, similarity: np.ndarray) -> None:
        self.count += len(row)
        near = similarity >= self.floor
        self.histogram += np.bincount((similarity[near] * 100 + 1e-9).astype(np.int64), minlength=101)
        self.sample = np.concatenate((self.sample, np.column_stack((row[near], kept[near], similarity[near]))))
        if len(self.sample) > 2 * MOST_PAIRS:
            self.cut()

    def cut(self) -> None:
        if len(self.sample) > MOST_PAIRS:
            a, b = self.draw[self.sample[:, 0].astype(np.int64)], self.draw[self.sample[:, 1].astype(np.int64)]
            mixed = (a * np.uint64(0x9E3779B97F4A7C15)) ^ b
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            self.sample = self.sample[np.sort(np.argsort(mixed, kind="stable")[:MOST_PAIRS])]


@dataclass
class _Search:
    """The greedy pass: decides rows block by block in order of preference."""

    sets: minhash.Sets
    bits: np.ndarray
    buckets: _Buckets
    checked: _Checked
    threshold: float
    ratio: float
    agreement: int

    def run(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(kept_by, similarity) by row position: the kept row that a dropped row resembles, else -1."""
        kept_by, similarity = np.full(len(order), -1, dtype=np.int64), np.zeros(len(order))
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            self._against_kept(rows, kept_by, similarity)
            rows = rows[kept_by[rows] < 0]
            self._among(rows, kept_by, similarity)
            self.buckets.add(rows[kept_by[rows] < 0])
        return kept_by, similarity

    def _against_kept(self, rows: np.ndarray, kept_by: np.ndarray, similarity: np.ndarray) -> None:
        """Check each row first with the kept row that its signature agrees with most, then, if that fails, with all the others."""
        at, kept = self._proposed(rows)
        agreeing = np.count_nonzero(self.bits[rows[at]] == self.bits[kept], axis=1)
        order = np.lexsort((np.arange(len(at)), -agreeing, at))
        at, kept = at[order], kept[order]
        best = np.concatenate(([True], at[1:] != at[:-1])) if len(at) else np.zeros(0, dtype=bool)
        self._decide(rows[at[best]], kept[best], kept_by, similarity)
        rest = ~best & (kept_by[rows[at]] < 0)
        self._decide(rows[at[rest]], kept[rest], kept_by, similarity)

    def _proposed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `rows`, kept row) of all pairs that share a bucket and pass the sieve; kept rows in the order they were kept."""
        bucket = self.buckets.of[rows]
        place = np.repeat(np.arange(len(rows)), bucket.shape[1])[bucket.ravel() >= 0]
        bucket = bucket[bucket >= 0]
        counts = self.buckets.filled[bucket]
        found = [np.zeros(0, dtype=np.int64)]
        for start, stop in minhash.cuts(counts, EXPANDED):
            part = counts[start:stop]
            within = np.arange(part.sum()) - np.repeat(minhash.starts(part)[:-1], part)
            kept = self.buckets.slots[np.repeat(self.buckets.start[bucket[start:stop]], part) + within]
            codes = np.unique((np.repeat(place[start:stop], part) << 32) | kept)
            found.append(codes[self._sieve(rows[codes >> 32], codes & 0xFFFFFFFF)])
        codes = np.unique(np.concatenate(found))
        return codes >> 32, codes & 0xFFFFFFFF

    def _sieve(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return minhash.sieve(self.bits, self.sets.sizes, a, b, self.ratio, self.agreement)

    def _decide(self, row: np.ndarray, kept: np.ndarray, kept_by: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Check the pairs; drop rows that resemble a kept row, naming the most similar (of equals, the first). Returns what was found."""
        found = minhash.jaccard(self.sets, row, kept)
        self.checked.add(row, kept, found)
        hits = np.flatnonzero(found >= self.threshold)
        hits = hits[np.lexsort((hits, -found[hits], row[hits]))]
        hits = hits[np.concatenate(([True], row[hits][1:] != row[hits][:-1]))] if len(hits) else hits
        kept_by[row[hits]], similarity[row[hits]] = kept[hits], found[hits]
        return found

    def _among(self, rows: np.ndarray, kept_by: np.ndarray, similarity: np.ndarray) -> None:
        """Decide rows of one block among themselves. Pairs are checked only once the better row of the two is known to stay."""
        better, worse = self._pairs_of(rows)
        open_rows = np.ones(len(rows), dtype=bool)
        while open_rows.any():
            waiting = np.zeros(len(rows), dtype=bool)
            waiting[worse] = True  # a better row that it may resemble is not decided yet
            stays = open_rows & ~waiting
            now = stays[better]
            self._decide(rows[worse[now]], rows[better[now]], kept_by, similarity)
            open_rows &= ~stays & (kept_by[rows] < 0)
            left = ~now & open_rows[worse] & open_rows[better]
            better, worse = better[left], worse[left]

    def _pairs_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(better, worse) places in `rows` of the pairs that share a bucket and pass the sieve."""
        found = [np.zeros(0, dtype=np.int64)]
        for band in range(self.buckets.of.shape[1]):
            bucket = self.buckets.of[rows, band]
            place, _, stop = minhash.buckets(bucket, bucket >= 0)
            later = stop - np.arange(len(place)) - 1
            other = np.repeat(np.arange(len(place)) + 1, later) + np.arange(later.sum()) - np.repeat(minhash.starts(later)[:-1], later)
            found.append((np.repeat(place, later) << 32) | place[other])
        codes = np.unique(np.concatenate(found))
        codes = codes[self._sieve(rows[codes >> 32], rows[codes & 0xFFFFFFFF])]
        return codes >> 32, codes & 0xFFFFFFFF


def plan(narrow: pl.DataFrame, params: Params, shape: tuple[int, int]) -> Plan:
    """Drop near-duplicates; tables `pairs` (checked pairs from near_miss up) and `histogram` (their exact number by similarity)."""
    sets = minhash.Sets.of(narrow["shingles"])
    draw = narrow["id"].str.slice(0, 16).str.to_integer(base=16, dtype=pl.UInt64, strict=False).fill_null(0).to_numpy()
    checked = _Checked(draw, params.near_miss)
    agreement = min(minhash.least_agreement(params.threshold, params.permutations), int(params.near_miss * params.permutations))
    buckets = _Buckets.over(narrow["keys"], sets.sizes > 0)
    search = _Search(sets, narrow["bits"].to_numpy(), buckets, checked, params.threshold, params.near_miss, agreement)
    kept_by, similarity = search.run(preference(narrow, params.prefer))
    checked.cut()
    named = narrow.select("id", "source", "line", "label")
    dropped = np.flatnonzero(kept_by >= 0)
    drop = _drops(named, dropped, kept_by[dropped], similarity[dropped])
    counts = {
        "checked_pairs": checked.count,
        "near_miss_pairs": int(checked.histogram.sum()) - len(dropped),
        "label_differs": int(drop["label_differs"].sum()),
        "bands": shape[0],
        "rows_per_band": shape[1],
    }
    tables = {"pairs": _pairs(named, checked.sample, kept_by >= 0), "histogram": _histogram(checked.histogram)}
    return Plan(drop.select("row", "reason", "detail", "evidence"), counts=counts, tables=tables)


def _drops(named: pl.DataFrame, row: np.ndarray, kept: np.ndarray, similarity: np.ndarray) -> pl.DataFrame:
    other = named[kept].rename(lambda name: f"kept_{name}")
    both = pl.concat([named[row], other], how="horizontal").with_columns(
        pl.Series("row", row, dtype=pl.UInt32),
        pl.Series("similarity", similarity).round(4),
        pl.col("label").ne_missing(pl.col("kept_label")).alias("label_differs"),
    )
    percent = (pl.col("similarity") * 100).round(1)
    return both.with_columns(
        pl.lit("near_duplicate").alias("reason"),
        pl.format("{} % of its character 5-grams are shared with {}:{}, which stays.", percent, "kept_source", "kept_line").alias("detail"),
        pl.struct("kept_id", "kept_source", "kept_line", "similarity", "label_differs").struct.json_encode().alias("evidence"),
    )


def _pairs(named: pl.DataFrame, sample: np.ndarray, is_dropped: np.ndarray) -> pl.DataFrame:
    row, kept = sample[:, 0].astype(np.int64), sample[:, 1].astype(np.int64)
    first = ["id", "source", "line"]
    other = named.select(first)[kept].rename(lambda name: f"kept_{name}")
    found = pl.Series("similarity", sample[:, 2], dtype=pl.Float64).round(4)
    both = pl.concat([named.select(first)[row], other], how="horizontal").with_columns(found, pl.Series("dropped", is_dropped[row]))
    return both.sort("similarity", *first, "kept_id", "kept_source", "kept_line")


def _histogram(counted: np.ndarray) -> pl.DataFrame:
    """Pairs per hundredth of similarity: `from` 0.80 holds 0.80 up to below 0.81."""
    at = np.flatnonzero(counted)
    return pl.DataFrame({"from": at / 100, "pairs": counted[at]}, schema={"from": pl.Float64, "pairs": pl.Int64})


def explain(folder: Path, one: str, two: str, compare: str) -> str:
    """Why two rows of a folder are, or are not, near-duplicates: similarity, and samples of shared and distinct shingles.

    Raises InputError if the folder has no row with such an id.
    """
    found: dict[str, str] = {}
    for batch in store.batches(folder):
        wanted = batch.filter(pl.col("id").is_in([one, two]))
        found |= dict(zip(wanted["id"].to_list(), compared(wanted, compare).to_list(), strict=True))
    for each in (one, two):
        if each not in found:
            raise record.InputError(f"{folder}: no row has id '{each}'. Look in the folder of the stage before the one that dropped it.")
    a, b = ({text[at : at + minhash.SHINGLE] for at in range(max(len(text) - minhash.SHINGLE + 1, 1))} for text in (found[one], found[two]))
    lines = [f"similarity {len(a & b) / len(a | b):.4f}: {len(a & b)} shingles shared, {len(a - b)} and {len(b - a)} not"]
    for title, some in (("shared", a & b), (f"only {one}", a - b), (f"only {two}", b - a)):
        lines.append(f"{title}: {' '.join(repr(each) for each in sorted(some)[:20])}{' …' if len(some) > 20 else ''}")
    return "\n".join(lines)


STAGE = Stage("dedup_near", Params, prepare=prepare, survey=survey, plan=plan)


def _explain_command(arguments: list[str]) -> None:
    """`--explain FOLDER ID1 ID2`."""
    if len(arguments) != 3:
        raise record.InputError("expected --explain FOLDER ID1 ID2.")
    path = Path("params.yaml")
    params = check_section(read_params(path), STAGE.name, Params, path)
    print(explain(Path(arguments[0]), arguments[1], arguments[2], params.compare))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--explain"]:
        guarded(STAGE.name, lambda: _explain_command(sys.argv[2:]))
    else:
        main(STAGE)
