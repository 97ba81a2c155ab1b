"""How alike two rows are: the exact Jaccard similarity of their shingle sets, and what in them is boilerplate.

Two rows are compared by characters if both have character shingles and by words if both have word shingles; the larger value counts. A
shingle that more than `limit` rows share (ten times as many for characters, which are few) is boilerplate: a form, a schema, a preamble.
Rows must be as alike without it as with it, or a crowd of rows that share a long preamble would count as copies of one. A row
that is hardly anything but boilerplate (less than one part in `REST`) keeps it: such crowds do consist of copies.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from curate.compiled import compiled, in_threads
from curate.shingle import PARTS, starts

BOILERPLATE = 1000  # rows of which more share a shingle than that, where no parameter says otherwise
REST = 20  # what is left of a row without boilerplate must be one part in so many, or the row is compared whole
CHARACTERS_MORE = 10  # how many times as many rows make a character shingle boilerplate
STEP = 16  # hashes between two looks at whether the sets can still be alike
ROOM = 8  # counters for each time that the limit goes into all shingles: few are then full by chance


@dataclass(frozen=True)
class Sets:
    """The shingle sets of some rows, one after the other in memory (or in a mapped file)."""

    hashes: np.ndarray  # u32
    starts: np.ndarray  # i64, one longer than there are rows
    parts: np.ndarray  # (rows, 4) u32

    @staticmethod
    def of(shingles: pl.Series, rows: np.ndarray | None = None) -> "Sets":
        """The sets of a column that `shingle.shingles` made, or of `rows` of it (ascending). A column of one chunk is not copied."""
        chunks = list(Sets.chunks(shingles))
        if len(chunks) == 1 and rows is None:
            return chunks[0]
        firsts = starts(np.array([len(chunk.parts) for chunk in chunks]))
        rows = np.arange(firsts[-1]) if rows is None else rows
        of_chunk = np.searchsorted(rows, firsts)
        parts = [chunk.parts[rows[of_chunk[at] : of_chunk[at + 1]] - firsts[at]] for at, chunk in enumerate(chunks)]
        sizes = np.concatenate([np.zeros((0, PARTS), dtype=np.uint32), *parts])
        ends = starts(sizes.sum(axis=1, dtype=np.int64))
        hashes = np.empty(ends[-1], dtype=np.uint32)

        def take(at: int) -> None:
            wanted = rows[of_chunk[at] : of_chunk[at + 1]] - firsts[at]
            _take(chunks[at].hashes, chunks[at].starts, wanted, hashes[ends[of_chunk[at]] :])

        list(in_threads(take, range(len(chunks))))
        return Sets(hashes, ends, sizes)

    @staticmethod
    def chunks(shingles: pl.Series) -> Iterator["Sets"]:
        """The same for each chunk of the column, without a copy. Buffers are read as they lie: pyarrow's `to_numpy` would load pandas."""
        for chunk in shingles.get_chunks():
            lists = chunk.struct.field("hashes").to_arrow()
            ends = np.frombuffer(lists.buffers()[1], dtype=np.int64)[lists.offset : lists.offset + len(lists) + 1]
            values = lists.values.buffers()[1]
            hashes = np.frombuffer(values or b"", dtype=np.uint32)[lists.values.offset :]
            parts = chunk.struct.field("parts").to_numpy().reshape(-1, PARTS)
            yield Sets(hashes, ends if len(lists) else np.zeros(1, dtype=np.int64), parts)

    def grains(self) -> np.ndarray:
        """(rows, 2) u32: shingles by characters and by words."""
        return np.stack((self.parts[:, 0] + self.parts[:, 1], self.parts[:, 2] + self.parts[:, 3]), axis=1)


@compiled
def _take(hashes: np.ndarray, start: np.ndarray, rows: np.ndarray, out: np.ndarray) -> None:
    at = 0
    for row in rows:
        size = start[row + 1] - start[row]
        out[at : at + size] = hashes[start[row] : start[row + 1]]
        at += size


@dataclass(frozen=True)
class Boilerplate:
    """The shingles that too many rows share: `marks` (one for the lower bits of a hash) rules most others out, `sorted` decides."""

    marks: tuple[np.ndarray, np.ndarray]  # bool, by characters and by words; a power of two long, or empty where there is none
    sorted: tuple[np.ndarray, np.ndarray]  # u32

    @staticmethod
    def none() -> "Boilerplate":
        """No shingle is boilerplate."""
        return Boilerplate((np.zeros(0, np.bool_), np.zeros(0, np.bool_)), (np.zeros(0, np.uint32), np.zeros(0, np.uint32)))

    @staticmethod
    def over(hashes: tuple[np.ndarray, np.ndarray]) -> "Boilerplate":
        """From the hashes themselves, by characters and by words."""
        marks = []
        for each in hashes:
            mark = np.zeros(_power_of_two(64 * len(each)) if len(each) else 0, dtype=np.bool_)
            mark[each & np.uint32(max(len(mark), 1) - 1)] = True
            marks.append(mark)
        return Boilerplate((marks[0], marks[1]), (np.sort(hashes[0]), np.sort(hashes[1])))

    @staticmethod
    def of(shingles: pl.Series, limit: int | None) -> "Boilerplate":
        """The shingles of more than `limit` rows of a column (ten times as many for characters). Exact."""
        if limit is None or len(shingles) <= limit:
            return Boilerplate.none()
        limits = (limit * CHARACTERS_MORE, limit)
        found = list(in_threads(lambda grain: _frequent(shingles, grain, limits[grain]), (0, 1)))
        return Boilerplate.over((found[0], found[1])) if len(found[0]) or len(found[1]) else Boilerplate.none()

    def left(self, sets: Sets) -> np.ndarray:
        """(rows, 2) u32: shingles that count, by characters and by words; all of them where boilerplate is nearly all."""
        sizes = sets.grains()
        if not len(self.sorted[0]) and not len(self.sorted[1]):
            return sizes
        rest = sizes.copy()
        for grain in (0, 1):
            if len(self.sorted[grain]):
                _subtract(sets.hashes, sets.starts, sets.parts, grain, self.marks[grain], self.sorted[grain], rest)
        return np.where(rest.astype(np.int64) * REST < sizes, sizes, rest)


def _frequent(shingles: pl.Series, grain: int, limit: int) -> np.ndarray:
    """Hashes that stand in more than `limit` rows: counted by their lower bits first, those in full cells then one by one."""
    none = np.zeros(0, dtype=np.uint32)
    if len(shingles) <= limit:
        return none
    total = sum(int(chunk.grains()[:, grain].sum(dtype=np.int64)) for chunk in Sets.chunks(shingles))
    cells = np.zeros(_power_of_two(ROOM * total // limit), dtype=np.uint32)
    for chunk in Sets.chunks(shingles):
        _count(chunk.hashes, chunk.starts, chunk.parts, grain, cells)
    full = cells > limit
    if not full.any():
        return none
    counts = pl.DataFrame(schema={"hash": pl.UInt32, "rows": pl.UInt32})
    for chunk in Sets.chunks(shingles):
        in_full = _in_cells(chunk.hashes, chunk.starts, chunk.parts, grain, full)
        more = pl.DataFrame({"hash": in_full}).group_by("hash").agg(pl.len().cast(pl.UInt32).alias("rows"))
        counts = pl.concat([counts, more]).group_by("hash").agg(pl.col("rows").sum())
    return counts.filter(pl.col("rows") > limit)["hash"].sort().to_numpy()


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 1).bit_length()


@compiled
def _bounds(start: np.ndarray, parts: np.ndarray, row: int, grain: int) -> tuple[int, int]:
    """Where a row's shingles of one grain lie."""
    first = start[row] + (np.int64(parts[row, 0]) + np.int64(parts[row, 1]) if grain else 0)
    return first, first + np.int64(parts[row, 2 * grain]) + np.int64(parts[row, 2 * grain + 1])


@compiled
def _count(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, cells: np.ndarray) -> None:
    mask = np.uint32(len(cells) - 1)
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            cells[hashes[at] & mask] += np.uint32(1)


@compiled
def _in_cells(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, full: np.ndarray) -> np.ndarray:
    out, count, mask = np.empty(len(hashes), dtype=np.uint32), 0, np.uint32(len(full) - 1)
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            if full[hashes[at] & mask]:
                out[count] = hashes[at]
                count += 1
    return out[:count].copy()


@compiled
def is_common(value: np.uint32, marks: np.ndarray, known: np.ndarray) -> bool | np.bool:
    """Is a hash among the boilerplate of its grain? `marks` may be empty: then nothing is."""
    if len(marks) == 0 or not marks[value & np.uint32(len(marks) - 1)]:
        return False
    at = np.searchsorted(known, value)
    return at < len(known) and known[at] == value


@compiled
def _subtract(
    hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, marks: np.ndarray, known: np.ndarray, rest: np.ndarray
) -> None:
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            if is_common(hashes[at], marks, known):
                rest[row, grain] -= np.uint32(1)


@compiled
def _shared(one: np.ndarray, two: np.ndarray, least: float) -> int:
    """How many hashes two sorted sets share; -1 as soon as it cannot be `least`. No branch depends on a comparison of hashes: the
    processor could not foretell it."""
    a, b, shared, size_a, size_b = 0, 0, 0, len(one), len(two)
    while a < size_a and b < size_b:
        if shared + min(size_a - a, size_b - b) < least:
            return -1
        stop_a, stop_b = min(a + STEP, size_a), min(b + STEP, size_b)
        while a < stop_a and b < stop_b:
            x, y = one[a], two[b]
            shared += x == y
            a += x <= y
            b += y <= x
    return shared if shared >= least else -1


@compiled
def _shared_common(one: np.ndarray, two: np.ndarray, marks: np.ndarray, known: np.ndarray) -> int:
    """How many hashes two sorted sets share that are boilerplate."""
    a, b, shared = 0, 0, 0
    while a < len(one) and b < len(two):
        x, y = one[a], two[b]
        if x == y and is_common(x, marks, known):
            shared += 1
        a += x <= y
        b += y <= x
    return shared


@compiled
def likeness(
    hashes: np.ndarray,
    start: np.ndarray,
    parts: np.ndarray,
    left: np.ndarray,
    marks: tuple[np.ndarray, np.ndarray],
    known: tuple[np.ndarray, np.ndarray],
    a: int,
    b: int,
    floor: float,
) -> tuple[float, float]:
    """(similarity of rows a and b, similarity of their answers alone); (0, 0) where it is below `floor`. The larger of both grains."""
    best, best_answer = 0.0, 0.0
    for grain in range(2):
        prompt, answer = 2 * grain, 2 * grain + 1
        sizes_a = np.int64(parts[a, prompt]) + np.int64(parts[a, answer])
        sizes_b = np.int64(parts[b, prompt]) + np.int64(parts[b, answer])
        if sizes_a == 0 or sizes_b == 0:
            continue
        least = floor * (sizes_a + sizes_b) / (1 + floor) - 1e-6
        from_a, to_a = _bounds(start, parts, a, grain)
        from_b, to_b = _bounds(start, parts, b, grain)
        cut_a, cut_b = from_a + np.int64(parts[a, prompt]), from_b + np.int64(parts[b, prompt])
        of_prompt = _shared(hashes[from_a:cut_a], hashes[from_b:cut_b], least - min(to_a - cut_a, to_b - cut_b))
        if of_prompt < 0:
            continue
        of_answer = _shared(hashes[cut_a:to_a], hashes[cut_b:to_b], least - of_prompt)
        if of_answer < 0:
            continue
        shared = of_prompt + of_answer
        found = shared / (sizes_a + sizes_b - shared)
        left_a, left_b = np.int64(left[a, grain]), np.int64(left[b, grain])
        if left_a < sizes_a or left_b < sizes_b:  # the two must be as alike without boilerplate
            mask, listed = marks[grain], known[grain]
            shared -= _shared_common(hashes[from_a:cut_a], hashes[from_b:cut_b], mask, listed)
            shared -= _shared_common(hashes[cut_a:to_a], hashes[cut_b:to_b], mask, listed)
            found = min(found, shared / (left_a + left_b - shared))
        if found >= floor and found > best:
            answers = np.int64(parts[a, answer]) + np.int64(parts[b, answer]) - of_answer
            best, best_answer = found, of_answer / answers if answers else 1.0
    return best, best_answer
