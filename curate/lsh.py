"""Which rows may be alike: MinHash signatures of shingle sets, bands of them, and the rows that share a band.

Banding only *proposes*; what it proposes is checked on the sets (`sets.likeness`). So signatures may be short: recall binds the number of
bands, and nothing else does. A row that has shingles by characters and by words has a signature for each.

Sources: Broder 1997 (resemblance); Indyk and Motwani 1998 (banding); datasketch 2.0 (permutations).
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from curate.compiled import compiled, in_threads
from curate.memory import starts
from curate.record import ParamsError
from curate.sets import PIECE, REST, Boilerplate, Sets, Table, is_common

EMPTY = np.uint32(0xFFFFFFFF)  # the signature of an empty set, as in datasketch
AT_ONCE = 4  # shingles between two stores of a signature's minima


def bands(threshold: float, permutations: int, recall: float) -> tuple[int, int]:
    """(bands, rows) with 1 - (1 - threshold^rows)^bands >= recall, bands * rows <= permutations, and the fewest false candidates.

    False candidates are the area under the curve below the threshold. Raises ParamsError if no choice reaches the recall.

    >>> bands(0.8, 64, 0.999), bands(0.8, 128, 0.999)
    ((14, 4), (18, 5))
    """
    below = np.linspace(0, threshold, 201)
    best: tuple[float, int, int] | None = None
    for rows in range(1, permutations + 1):
        hit = threshold**rows
        if 1 - (1 - hit) ** permutations < recall:
            break  # more rows only hit less often
        count = 1 if hit == 1 else max(math.ceil(math.log(1 - recall) / math.log1p(-hit) - 1e-9), 1)
        if count * rows <= permutations:
            area = float(np.mean(1 - (1 - below**rows) ** count))
            if best is None or area < best[0]:
                best = (area, count, rows)
    if best is None:
        raise ParamsError(
            f"threshold {threshold} with recall {recall} cannot be reached with {permutations} permutations: "
            "raise permutations or threshold, or lower recall."
        )
    return best[1], best[2]


def signatures(hashes: np.ndarray, sizes: np.ndarray, permutations: int) -> np.ndarray:
    """MinHash signatures, (sets, permutations) u32, bit-identical to datasketch 2.0's `MinHash` fed with these 32-bit hashes.

    `hashes` are those of all sets, one after the other; `sizes` says how many each has.

    >>> signatures(np.array([5, 6, 5], dtype=np.uint32), np.array([2, 1, 0]), 2).tolist()
    [[120030363, 2428781171], [120030363, 2428781171], [4294967295, 4294967295]]
    """
    a, b = _permutations(permutations)
    out, ends = np.full((len(sizes), permutations), EMPTY, dtype=np.uint32), starts(sizes)
    for at in range(len(sizes)):
        _sign(hashes[ends[at] : ends[at + 1]], a, b, out[at])
    return out


def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """datasketch's own (seed 1, scheme affine32): h -> a h + b modulo 2^32 with a odd."""
    draw = np.random.RandomState(1)
    a = draw.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, draw.randint(0, 1 << 32, count, dtype=np.uint32)


@compiled
def _sign(hashes: np.ndarray, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Lower `out` to the minima over the hashes. Four hashes at a time: the inner loop then computes more than it loads and stores."""
    mixed = np.empty(AT_ONCE, dtype=np.uint32)
    for first in range(0, len(hashes), AT_ONCE):
        for at in range(AT_ONCE):
            h = hashes[min(first + at, len(hashes) - 1)]  # the last one again and again changes no minimum
            h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))  # MurmurHash3's 32-bit finaliser, as datasketch applies it
            h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))  # (numba computes in 64 bits unless told)
            mixed[at] = h ^ (h >> np.uint32(16))
        h0, h1, h2, h3 = mixed[0], mixed[1], mixed[2], mixed[3]
        for at in range(len(out)):
            low = min(np.uint32(h0 * a[at] + b[at]), np.uint32(h1 * a[at] + b[at]))
            high = min(np.uint32(h2 * a[at] + b[at]), np.uint32(h3 * a[at] + b[at]))
            out[at] = min(out[at], low, high)


@dataclass(frozen=True)
class Sketch:
    """The band keys of rows. A row has an entry for each grain in which it has shingles: none, one or two."""

    keys: np.ndarray  # (entries, bands) u32: hash of a band's signature values. Equal keys put two entries in one bucket
    row: np.ndarray  # (entries,) i64, ascending
    left: np.ndarray  # (rows, 2) u32: shingles that count, by characters and by words

    @staticmethod
    def of(sets: Sets, shape: tuple[int, int], boilerplate: Boilerplate) -> "Sketch":
        """Sketches of rows; signatures are never held for all of them. Boilerplate is left out."""
        pieces = sets.pieces()
        made = list(in_threads(partial(_keys_of, shape=shape, boilerplate=boilerplate), pieces))
        keys = [np.zeros((0, shape[0]), dtype=np.uint32), *(of_piece for of_piece, _, _ in made)]
        rows = [np.zeros(0, dtype=np.int64), *(row + at * PIECE for at, (_, row, _) in enumerate(made))]
        left = [np.zeros((0, 2), dtype=np.uint32), *(of_piece for _, _, of_piece in made)]
        return Sketch(np.concatenate(keys), np.concatenate(rows), np.concatenate(left))


def _keys_of(sets: Sets, shape: tuple[int, int], boilerplate: Boilerplate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left = sets.grains()
    row, grain = np.nonzero(left)
    keys = np.empty((len(row), shape[0]), dtype=np.uint32)
    a, b = _permutations(shape[0] * shape[1])
    _band_keys(sets.hashes, sets.starts, sets.parts, row, grain, boilerplate.tables, a, b, keys, left)
    return keys, row, left


@compiled
def _band_keys(
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    row: np.ndarray,
    grain: np.ndarray,
    tables: tuple[Table, Table],
    a: np.ndarray,
    b: np.ndarray,
    keys: np.ndarray,
    left: np.ndarray,
) -> None:
    """Sign each entry without its boilerplate (or with it, if hardly anything else is left) and hash each band of the signature."""
    signature, width, kept = np.empty(len(a), dtype=np.uint32), len(a) // keys.shape[1], np.empty(0, dtype=np.uint32)
    for entry in range(len(row)):
        at, of = row[entry], grain[entry]
        first = start[at] + (np.int64(parts[at, 0]) + np.int64(parts[at, 1]) if of else 0)
        some = hashes[first : first + np.int64(left[at, of])]
        table = tables[of]
        if len(table[0]):
            if len(kept) < len(some):
                kept = np.empty(2 * len(some), dtype=np.uint32)
            count = 0
            for value in some:
                kept[count] = value
                count += not is_common(value, table)
            if count * REST >= len(some):
                some = kept[:count]
                left[at, of] = count
        signature[:] = EMPTY
        _sign(some, a, b, signature)
        for band in range(keys.shape[1]):
            key = np.uint64(of + 1)
            for place in range(band * width, (band + 1) * width):
                key = (key ^ np.uint64(signature[place])) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(29)
            keys[entry, band] = np.uint32(key >> np.uint64(32)) ^ np.uint32(key)


@dataclass(frozen=True)
class Buckets:
    """The buckets of two entries and more, as rows and their buckets. Buckets of all bands are numbered through."""

    rows: np.ndarray  # i64, ascending: the rows that share a bucket with another
    starts: np.ndarray  # i64, one longer: where the buckets of each of these rows start in `bucket`
    bucket: np.ndarray  # i32
    count: int

    @staticmethod
    def of(sketch: Sketch) -> "Buckets":
        """Rows that are alone in all their buckets, nearly all rows of clean data, cost nothing from here on."""
        entries, bands = sketch.keys.shape
        bucket = np.empty((entries, bands), dtype=np.int32)
        counts = list(in_threads(partial(_number, sketch.keys, bucket), range(bands)))
        of_entry = np.empty(entries, dtype=np.int64)
        joined = _joined(bucket, starts(np.array(counts, dtype=np.int64)).astype(np.int32), of_entry)
        met = of_entry > 0
        rows, at = np.unique(sketch.row[met], return_inverse=True)
        sizes = np.bincount(at, weights=of_entry[met], minlength=len(rows)).astype(np.int64)
        return Buckets(rows, starts(sizes), joined, sum(counts))


@compiled
def _joined(bucket: np.ndarray, first: np.ndarray, of_entry: np.ndarray) -> np.ndarray:
    """The buckets of all entries that share one, numbered through (band by band from `first` on); `of_entry` gets how many each has."""
    out, count = np.empty(bucket.size, dtype=np.int32), 0
    for entry in range(len(bucket)):
        before = count
        for band in range(bucket.shape[1]):
            out[count] = bucket[entry, band] + first[band]
            count += bucket[entry, band] >= 0
        of_entry[entry] = count - before
    return out[:count].copy()


@compiled
def _number(all_keys: np.ndarray, bucket: np.ndarray, band: int) -> int:
    """Number the keys of a band that entries share, into one column of `bucket`, -1 where an entry is alone; returns how many.

    Open addressing; a slot holds the first entry with its key.
    """
    keys, out, count = all_keys[:, band].copy(), np.full(len(all_keys), -1, dtype=np.int32), 0
    size = 16
    while size < 2 * len(keys):
        size *= 2
    table = np.full(size, -1, dtype=np.int32)
    for entry in range(len(keys)):
        at = np.int64(np.uint32(keys[entry] * np.uint32(0x9E3779B1))) & (size - 1)
        while table[at] >= 0 and keys[table[at]] != keys[entry]:
            at = (at + 1) & (size - 1)
        first = table[at]
        if first < 0:
            table[at] = entry
            continue
        if out[first] < 0:
            out[first] = count
            count += 1
        out[entry] = out[first]
    bucket[:, band] = out
    return count
