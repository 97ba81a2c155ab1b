"""How alike two rows are: the exact Jaccard similarity of their shingle sets, and what in them is boilerplate.

Two rows are compared by characters if both have character shingles and by words if both have word shingles; the larger value counts. A
shingle that more than `limit` rows share (ten times as many for characters, which are few) is boilerplate: a form, a schema, a preamble.
Rows must be as alike without it as with it, or a crowd of rows that share a long preamble would count as copies of one. A row
that is hardly anything but boilerplate (less than one part in `REST`) keeps it: such crowds do consist of copies.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from curate.compiled import compiled, in_threads
from curate.memory import one_view
from curate.shingle import PARTS

BOILERPLATE = 1000  # rows of which more share a shingle than that, where no parameter says otherwise
REST = 20  # what is left of a row without boilerplate must be one part in so many, or the row is compared whole
CHARACTERS_MORE = 10  # how many times as many rows make a character shingle boilerplate
STEP = 16  # hashes between two looks at whether the sets can still be alike
ROOM = 8  # counters for each time that the limit goes into all shingles: few are then full by chance
EXPECTED = 125  # of a sample of the rows, how many have a shingle that is just boilerplate
BITS, MOST = 64, 1 << 21  # bits of a table of boilerplate for each hash, and at most
PIECE = 1 << 13  # rows that a thread takes at once

Table = tuple[np.ndarray, np.ndarray]  # of boilerplate: see `_table`


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

        A column comes in chunks, each at a place of its own: `one_view` makes them look like one array. (pyarrow's `to_numpy` would load
        pandas, so buffers are taken as they are.)
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
        view, base = one_view(held)
        places = [(address - base) // view.itemsize + ends for address, ends in lists]
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
    """The shingles that too many rows share, by characters and by words."""

    hashes: tuple[np.ndarray, np.ndarray]  # u32, sorted
    tables: tuple[Table, Table]  # the same for `is_common`

    @staticmethod
    def none() -> "Boilerplate":
        """No shingle is boilerplate."""
        return Boilerplate.over((np.zeros(0, np.uint32), np.zeros(0, np.uint32)))

    @staticmethod
    def over(hashes: tuple[np.ndarray, np.ndarray]) -> "Boilerplate":
        """From the hashes themselves, by characters and by words."""
        by_characters, by_words = (np.sort(each) for each in hashes)
        return Boilerplate((by_characters, by_words), (_table(by_characters), _table(by_words)))

    @staticmethod
    def of(sets: Sets, limit: int | None, draw: np.ndarray) -> "Boilerplate":
        """The shingles that more than `limit` rows have (ten times as many for characters). `draw`: a random u64 of each row, from its id.

        What a sample of the rows has often is counted in all of them. A shingle just over the limit is expected in the sample `EXPECTED`
        times, and one that is there half as often is still counted: it is missed less than once in ten million.
        """
        if limit is None or len(sets.parts) <= limit:
            return Boilerplate.none()
        found = list(in_threads(lambda grain: _frequent(sets, grain, (CHARACTERS_MORE, 1)[grain] * limit, draw), (0, 1)))
        return Boilerplate.over((found[0], found[1])) if len(found[0]) or len(found[1]) else Boilerplate.none()

    def left(self, sets: Sets) -> np.ndarray:
        """(rows, 2) u32: shingles that count, by characters and by words; all of them where boilerplate is nearly all."""
        sizes = sets.grains()
        rest = sizes.copy()
        for grain in (0, 1):
            if len(self.hashes[grain]):
                _subtract(sets.hashes, sets.starts, sets.parts, grain, self.tables[grain], rest)
        return np.where(rest.astype(np.int64) * REST < sizes, sizes, rest)


def _frequent(sets: Sets, grain: int, limit: int, draw: np.ndarray) -> np.ndarray:
    """Hashes that stand in more than `limit` rows, sorted."""
    none = np.zeros(0, dtype=np.uint32)
    if len(sets.parts) <= limit:
        return none
    share = max(limit // EXPECTED, 1)
    drawn = sets.take(np.flatnonzero(draw % np.uint64(share) == 0))
    cells = np.zeros(_power_of_two(ROOM * int(drawn.grains()[:, grain].sum(dtype=np.int64)) // EXPECTED), dtype=np.uint32)
    least = limit / share / 2
    _count(drawn.hashes, drawn.starts, drawn.parts, grain, cells)
    likely = cells > least
    if not likely.any():
        return none
    candidates, often = np.unique(_in_cells(drawn.hashes, drawn.starts, drawn.parts, grain, likely), return_counts=True)
    candidates = candidates[often > least]
    if not len(candidates):
        return none
    table = _table(candidates)
    rows = in_threads(lambda piece: _rows_with(piece.hashes, piece.starts, piece.parts, grain, table), sets.pieces())
    often = sum(rows, np.zeros(len(table[0]), dtype=np.int64))
    return np.sort(table[0][often > limit])


@compiled
def _table(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes (u32) to look others up in: (slots, bits).

    In `slots` they lie by their lower bits, 0 where there is none: open addressing, a power of two long, empty for no hashes. (A shingle
    with the hash 0 is never boilerplate.) `bits` (u64) has a bit for each: most of what is looked up is not there, and few bits tell that
    from the processor's own memory.
    """
    size, bits = 0 if len(hashes) == 0 else 16, 64
    while size < 8 * len(hashes):
        size *= 2
    while bits < min(BITS * len(hashes), MOST):
        bits *= 2
    table, marks = np.zeros(size, dtype=np.uint32), np.zeros(bits // 64, dtype=np.uint64)
    for value in hashes:
        at = np.int64(value) & (size - 1)
        while table[at] != 0:
            at = (at + 1) & (size - 1)
        table[at] = value
        bit = np.uint64(value) & np.uint64(bits - 1)
        marks[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
    return table, marks


@compiled
def _marked(value: np.uint32, bits: np.ndarray) -> Any:
    """May a hash be in a table?"""
    bit = np.uint64(value) & np.uint64(64 * len(bits) - 1)
    return bits[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1)


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 1).bit_length()


@compiled
def _bounds(start: np.ndarray, parts: np.ndarray, row: int, grain: int) -> tuple[Any, Any]:
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
def _rows_with(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, table: Table) -> np.ndarray:
    """How many rows have the hash of each slot of a table."""
    slots, bits = table
    rows, mask = np.zeros(len(slots), dtype=np.int64), len(slots) - 1
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            if not _marked(hashes[at], bits):
                continue
            place = np.int64(hashes[at]) & mask
            while slots[place] != 0:
                if slots[place] == hashes[at]:
                    rows[place] += 1
                    break
                place = (place + 1) & mask
    return rows


@compiled
def is_common(value: np.uint32, table: Table) -> bool:
    """Is a hash among the boilerplate of its grain? The table may be empty: then nothing is."""
    slots, bits = table
    if not _marked(value, bits):
        return False
    mask = len(slots) - 1
    place = np.int64(value) & mask
    while slots[place] != 0:
        if slots[place] == value:
            return True
        place = (place + 1) & mask
    return False


@compiled
def _subtract(hashes: np.ndarray, start: np.ndarray, parts: np.ndarray, grain: int, table: Table, rest: np.ndarray) -> None:
    for row in range(len(parts)):
        first, last = _bounds(start, parts, row, grain)
        for at in range(first, last):
            if is_common(hashes[at], table):
                rest[row, grain] -= np.uint32(1)


@compiled
def _shared(hashes: np.ndarray, a: Any, end_a: Any, b: Any, end_b: Any, least: float) -> int:
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
def _shared_common(hashes: np.ndarray, a: Any, end_a: Any, b: Any, end_b: Any, table: Table) -> int:
    """How many hashes two sorted runs share that are boilerplate."""
    shared = 0
    while a < end_a and b < end_b:
        x, y = hashes[a], hashes[b]
        if x == y and is_common(x, table):
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
    tables: tuple[Table, Table],
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
            table = tables[grain]
            shared -= _shared_common(hashes, from_a, cut_a, from_b, cut_b, table)
            shared -= _shared_common(hashes, cut_a, to_a, cut_b, to_b, table)
            found = min(found, shared / (left_a + left_b - shared))
        if found >= floor and found > best:
            answers = np.int64(parts[a, answer]) + np.int64(parts[b, answer]) - of_answer
            best, best_answer = found, of_answer / answers if answers else 1.0
    return best, best_answer
