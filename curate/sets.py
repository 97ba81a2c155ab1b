"""How alike two rows are: the exact Jaccard similarity of their shingle sets, and what in them is boilerplate.

Two rows are compared by characters if both have character shingles and by words if both have word shingles; the larger value counts. A
shingle that more than `limit` rows share (ten times as many for characters, which are few) is boilerplate: a form, a schema, a preamble.
Rows must be as alike without it as with it, or a crowd of rows that share a long preamble would count as copies of one. A row
that is hardly anything but boilerplate (less than one part in `REST`) keeps it: such crowds do consist of copies.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from curate.compiled import compiled, in_threads
from curate.shingle import PARTS

BOILERPLATE = 1000  # rows of which more share a shingle than that, where no parameter says otherwise
REST = 20  # what is left of a row without boilerplate must be one part in so many, or the row is compared whole
CHARACTERS_MORE = 10  # how many times as many rows make a character shingle boilerplate
STEP = 16  # hashes between two looks at whether the sets can still be alike
ROOM = 8  # counters for each time that the limit goes into all shingles: few are then full by chance
EXPECTED = 125  # of a sample of the rows, how many have a shingle that is just boilerplate
PIECE = 1 << 13  # rows that a thread takes at once


@dataclass(frozen=True)
class Sets:
    """The shingle sets of rows, read where they lie: in memory or in mapped files."""

    hashes: np.ndarray  # u32: the memory that holds the hashes of all rows, and whatever lies between
    starts: np.ndarray  # (rows,) i64: where those of a row begin in it
    parts: np.ndarray  # (rows, 4) u32: how many there are of each part, one after the other
    held: tuple[np.ndarray, ...]  # keeps the memory

    @staticmethod
    def of(shingles: pl.Series) -> "Sets":
        """The sets of a column that `shingle.shingles` made, without a copy.

        A column comes in chunks, each at a place of its own. One view from the lowest of them on makes all of them look like one array;
        nothing but the chunks is ever read through it. (pyarrow's `to_numpy` would load pandas, so buffers are taken as they are.)
        """
        held, parts, lists = [np.zeros(1, dtype=np.uint32)], [np.zeros((0, PARTS), dtype=np.uint32)], []
        for chunk in shingles.get_chunks():
            if len(chunk):
                arrow = chunk.struct.field("hashes").to_arrow()
                ends = np.frombuffer(arrow.buffers()[1], dtype=np.int64)[arrow.offset : arrow.offset + len(arrow)]
                values = arrow.values.buffers()[1]
                hashes = np.frombuffer(values, dtype=np.uint32) if values is not None and values.size else held[0]
                held.append(hashes)
                lists.append((hashes.ctypes.data, ends + arrow.values.offset))
                parts.append(chunk.struct.field("parts").to_numpy().reshape(-1, PARTS))
        lowest = min(held, key=lambda each: each.ctypes.data)
        base, highest = lowest.ctypes.data, max(each.ctypes.data + each.nbytes for each in held)
        places = [(address - base) // lowest.itemsize + ends for address, ends in lists]
        view = np.lib.stride_tricks.as_strided(lowest, shape=((highest - base) // lowest.itemsize,), strides=(lowest.itemsize,))
        return Sets(view, np.concatenate([np.zeros(0, dtype=np.int64), *places]), np.concatenate(parts), tuple(held))

    def take(self, rows: np.ndarray) -> "Sets":
        """The sets of some rows."""
        return Sets(self.hashes, self.starts[rows], self.parts[rows], self.held)

    def pieces(self) -> list["Sets"]:
        """Runs of rows, for threads."""
        return [self.take(np.arange(first, min(first + PIECE, len(self.parts)))) for first in range(0, len(self.parts), PIECE)]

    def grains(self) -> np.ndarray:
        """(rows, 2) u32: shingles by characters and by words."""
        return np.stack((self.parts[:, 0] + self.parts[:, 1], self.parts[:, 2] + self.parts[:, 3]), axis=1)


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
        return Boilerplate((_marks(hashes[0]), _marks(hashes[1])), (np.sort(hashes[0]), np.sort(hashes[1])))

    @staticmethod
    def of(sets: Sets, limit: int | None) -> "Boilerplate":
        """The shingles that more than `limit` rows have (ten times as many for characters).

        What a sample of the rows has often is counted in all of them. The sample is drawn by the rows' own shingles; a shingle just over
        the limit is expected there `EXPECTED` times, and one that is there half as often is still counted: it is missed less than
        once in ten million.
        """
        if limit is None or len(sets.parts) <= limit:
            return Boilerplate.none()
        limits = (limit * CHARACTERS_MORE, limit)
        found = list(in_threads(lambda grain: _frequent(sets, grain, limits[grain]), (0, 1)))
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


def _frequent(sets: Sets, grain: int, limit: int) -> np.ndarray:
    """Hashes that stand in more than `limit` rows, sorted."""
    none = np.zeros(0, dtype=np.uint32)
    if len(sets.parts) <= limit:
        return none
    share = max(limit // EXPECTED, 1)
    drawn = sets.take(_drawn(sets.hashes, sets.starts, sets.parts, grain, share))
    cells = np.zeros(_power_of_two(ROOM * int(drawn.grains()[:, grain].sum(dtype=np.int64)) // EXPECTED), dtype=np.uint32)
    least = limit / share / 2
    _count(drawn.hashes, drawn.starts, drawn.parts, grain, cells)
    likely = cells > least
    if not likely.any():
        return none
    candidates, often = np.unique(_in_cells(drawn.hashes, drawn.starts, drawn.parts, grain, likely), return_counts=True)
    candidates = candidates[often > least]
    return candidates[_rows_with(sets.hashes, sets.starts, sets.parts, grain, _marks(candidates), candidates) > limit]


def _marks(hashes: np.ndarray) -> np.ndarray:
    """For the lower bits of a hash, whether any of `hashes` has them: most others are told by one look."""
    marks = np.zeros(_power_of_two(64 * len(hashes)) if len(hashes) else 0, dtype=np.bool_)
    marks[hashes & np.uint32(max(len(marks), 1) - 1)] = True
    return marks


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 1).bit_length()


@compiled
def _bounds(start: np.ndarray, parts: np.ndarray, row: int, grain: int) -> tuple[int, int]:
    """Where a row's shingles of one grain lie."""
    first = start[row] + (np.int64(parts[row, 0]) + np.int64(parts[row, 1]) if grain else 0)
    return first, first + np.int64(parts[row, 2 * grain]) + np.int64(parts[row, 2 * grain + 1])


@compiled
def _drawn(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, share: int) -> np.ndarray:
    """About one in `share` of the rows with shingles of this grain, by the hash of all of them."""
    out, count = np.empty(len(parts), dtype=np.int64), 0
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        if first < last:
            mixed = np.uint64(0)
            for at in range(first, last):
                mixed += np.uint64(hashes[at])
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
            mixed ^= mixed >> np.uint64(32)
            if mixed % np.uint64(share) == 0:
                out[count] = row
                count += 1
    return out[:count]


@compiled
def _count(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, cells: np.ndarray) -> None:
    mask = np.uint32(len(cells) - 1)
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            cells[hashes[at] & mask] += np.uint32(1)


@compiled
def _in_cells(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, likely: np.ndarray) -> np.ndarray:
    count, mask = 0, np.uint32(len(likely) - 1)
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        count += last - first
    out, count = np.empty(count, dtype=np.uint32), 0
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            if likely[hashes[at] & mask]:
                out[count] = hashes[at]
                count += 1
    return out[:count]


@compiled
def _rows_with(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, marks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How many rows have each of the `known` hashes."""
    rows, mask = np.zeros(len(known), dtype=np.int64), np.uint32(len(marks) - 1)
    if len(known) == 0:
        return rows
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            if marks[hashes[at] & mask]:
                place = np.searchsorted(known, hashes[at])
                if place < len(known) and known[place] == hashes[at]:
                    rows[place] += 1
    return rows


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
def _shared(hashes: np.ndarray, a: int, end_a: int, b: int, end_b: int, least: float) -> int:
    """How many hashes the sorted runs from a to end_a and from b to end_b share; -1 as soon as it cannot be `least`.

    No branch depends on a comparison of hashes: the processor could not foretell it. (Places, not slices: each slice would count a
    reference to the one array, and threads would wait for each other to do so.)
    """
    shared = 0
    while a < end_a and b < end_b:
        if shared + min(end_a - a, end_b - b) < least:
            return -1
        stop_a, stop_b = min(a + STEP, end_a), min(b + STEP, end_b)
        while a < stop_a and b < stop_b:
            x, y = hashes[a], hashes[b]
            shared += x == y
            a += x <= y
            b += y <= x
    return shared if shared >= least else -1


@compiled
def _shared_common(hashes: np.ndarray, a: int, end_a: int, b: int, end_b: int, marks: np.ndarray, known: np.ndarray) -> int:
    """How many hashes two sorted runs share that are boilerplate."""
    shared = 0
    while a < end_a and b < end_b:
        x, y = hashes[a], hashes[b]
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
        of_prompt = _shared(hashes, from_a, cut_a, from_b, cut_b, least - min(to_a - cut_a, to_b - cut_b))
        if of_prompt < 0:
            continue
        of_answer = _shared(hashes, cut_a, to_a, cut_b, to_b, least - of_prompt)
        if of_answer < 0:
            continue
        shared = of_prompt + of_answer
        found = shared / (sizes_a + sizes_b - shared)
        left_a, left_b = np.int64(left[a, grain]), np.int64(left[b, grain])
        if left_a < sizes_a or left_b < sizes_b:  # the two must be as alike without boilerplate
            mask, listed = marks[grain], known[grain]
            shared -= _shared_common(hashes, from_a, cut_a, from_b, cut_b, mask, listed)
            shared -= _shared_common(hashes, cut_a, to_a, cut_b, to_b, mask, listed)
            found = min(found, shared / (left_a + left_b - shared))
        if found >= floor and found > best:
            answers = np.int64(parts[a, answer]) + np.int64(parts[b, answer]) - of_answer
            best, best_answer = found, of_answer / answers if answers else 1.0
    return best, best_answer
