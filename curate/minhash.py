"""Which texts are nearly the same: shingles, MinHash signatures, LSH bands, exact Jaccard, clusters and joins, on whole columns.

A text is the set of its distinct character 5-grams (shingles), each hashed to 32 bits. MinHash and banding only *propose* pairs; every
pair that this module returns was checked against the sets themselves, so a similarity here is a fact, not an estimate.

Trade-offs. Shingles cost four bytes for each distinct 5-gram: about as much as the text. They live in Arrow, may be memory-mapped, and
are read row by row when a pair is checked. What must be in memory is small: the band keys (8 bytes a band) and one byte for each
permutation, with which a proposed pair is sieved before the exact check.

Sources: Broder 1997 (resemblance); Indyk and Motwani 1998 (banding); Li and König 2010 (signatures of a few bits); Chaudhuri and others
2006, Bayardo and others 2007 (prefix filter); datasketch 2.0 (permutations).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from curate.record import ParamsError

SHINGLE = 5  # characters
BLOCK = 1 << 18  # characters, shingles or pairs handled at once: measured best, scratch memory of some 10 MB
CACHE = 1024  # shingles times permutations at once: fits in the processor's second-level cache (measured best)
EMPTY = np.uint32(0xFFFFFFFF)  # the signature of a text without shingles, as in datasketch
PAD = "\uffff"  # a code point that is no character fills texts shorter than one shingle
SIEVE_MISS = 1e-6  # chance that the sieve loses a pair at the threshold; banding loses 1 - recall, which is far more
ALL_PAIRS = 32  # `near_pairs` checks all pairs of a bucket that lie this close in it


def shingles(texts: pl.Series) -> pl.Series:
    """For each text the sorted distinct 32-bit hashes of its character 5-grams: list[u32]; empty or null text, empty list.

    Texts are taken as they are: fold them first (`record.fold`). A text shorter than 5 characters is one shingle.

    >>> shingles(pl.Series(["abcdefg", "abcabcabc", "ab", ""])).list.len().to_list()
    [3, 3, 1, 0]
    """
    filled = texts.fill_null("")
    filled = filled.to_frame("t").select(pl.when(pl.col("t") == "").then("t").otherwise(pl.col("t").str.pad_end(SHINGLE, PAD)))["t"]
    lengths = filled.str.len_chars().to_numpy().astype(np.int64)
    made = [_shingles_of(filled[start:stop], lengths[start:stop]) for start, stop in cuts(lengths, BLOCK)]
    none = np.zeros(0, dtype=np.uint32)
    return as_lists(np.concatenate([none, *(values for values, _ in made)]), np.concatenate([none, *(sizes for _, sizes in made)]))


def _shingles_of(texts: pl.Series, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all texts, joined, and how many each text has."""
    points = np.frombuffer("".join(texts.to_list()).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(lengths), dtype=np.uint64), lengths)
    count = max(len(points) - SHINGLE + 1, 0)
    whole = owner[:count] == owner[SHINGLE - 1 :]  # the window ends in the text where it starts
    mixed = np.zeros(count, dtype=np.uint64)
    for at in range(SHINGLE):
        mixed *= np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: each position has a power of its own
        mixed += points[at : at + count]
    mixed = mixed[whole]
    mixed ^= mixed >> np.uint64(32)  # two rounds of multiply and shift spread every input bit over the upper half
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    keys = (owner[:count][whole] << np.uint64(32)) | (mixed >> np.uint64(32))
    keys.sort()
    if len(keys):
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))]
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(lengths))
    return keys.astype(np.uint32), sizes


def as_lists(values: np.ndarray, sizes: np.ndarray) -> pl.Series:
    """list[u32] from u32 values and the size of each list.

    The memory is Arrow's own. Were it numpy's, freeing it would need Python's lock; polars frees from its own threads while it holds
    that lock to pickle a frame, and a worker process would wait for itself.
    """
    offsets, child = _owned(starts(sizes)), _owned(values)
    numbers = pa.Array.from_buffers(pa.uint32(), len(values), [None, child])
    lists = pa.LargeListArray.from_buffers(pa.large_list(pa.uint32()), len(sizes), [None, offsets], children=[numbers])
    series = pl.from_arrow(lists)
    assert isinstance(series, pl.Series)
    return series


def _owned(values: np.ndarray) -> pa.Buffer:
    buffer = pa.allocate_buffer(values.nbytes)
    np.frombuffer(buffer, dtype=values.dtype)[:] = values
    return buffer


def starts(sizes: np.ndarray) -> np.ndarray:
    """[0, s0, s0 + s1, …]: one longer than `sizes`."""
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def cuts(sizes: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Consecutive (start, stop) whose sizes add up to at most `limit`, or are one item."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        yield start, stop
        start = stop


@dataclass(frozen=True)
class Sets:
    """Shingle sets by position, read from Arrow chunks where they lie (in memory or in a mapped file)."""

    values: tuple[np.ndarray, ...]  # per chunk: all hashes
    offsets: tuple[np.ndarray, ...]  # per chunk: where each row's hashes start, and the end
    first: np.ndarray  # position of each chunk's first row
    sizes: np.ndarray  # i64, hashes of each row

    @staticmethod
    def of(series: pl.Series) -> "Sets":
        """The sets of a list[u32] column, without a copy."""
        values, offsets = [], []
        for chunk in series.get_chunks():
            lists = chunk.to_arrow()
            offsets.append(lists.offsets.to_numpy().astype(np.int64))
            values.append(lists.values.to_numpy())
        sizes = np.concatenate([np.diff(each) for each in offsets] or [np.zeros(0, dtype=np.int64)])
        return Sets(tuple(values), tuple(offsets), starts(np.array([len(each) - 1 for each in offsets]))[:-1], sizes)

    def take(self, at: np.ndarray) -> np.ndarray:
        """The hashes of the rows at these positions, joined."""
        chunks = np.searchsorted(self.first, at, side="right") - 1
        local = at - self.first[chunks]
        pieces = [
            self.values[chunk][self.offsets[chunk][row] : self.offsets[chunk][row + 1]]
            for chunk, row in zip(chunks.tolist(), local.tolist(), strict=True)
        ]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.uint32)


def signatures(shingles: pl.Series, permutations: int) -> np.ndarray:
    """MinHash signatures, (n, permutations) u32, bit-identical to datasketch 2.0's `MinHash` fed with these hashes."""
    sets = Sets.of(shingles)
    a, b = _permutations(permutations)
    out = np.full((len(shingles), permutations), EMPTY, dtype=np.uint32)
    first = 0
    for values, offsets in zip(sets.values, sets.offsets, strict=True):
        _fold_minima(out[first : first + len(offsets) - 1], values, offsets, a, b)
        first += len(offsets) - 1
    return out


def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    """datasketch's own (seed 1, scheme affine32): h -> a h + b modulo 2^32 with a odd."""
    draw = np.random.RandomState(1)
    a = draw.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, draw.randint(0, 1 << 32, count, dtype=np.uint32)


def _fold_minima(out: np.ndarray, values: np.ndarray, offsets: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Lower each row of `out` to the minima over its hashes. Blocks have a fixed size, so one huge text needs no more memory."""
    filled = np.flatnonzero(np.diff(offsets))  # reduceat cannot express empty segments
    starts, end = offsets[filled], int(offsets[-1])
    for low in range(int(offsets[0]), end, CACHE):
        high = min(low + CACHE, end)
        h = values[low:high]
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)  # MurmurHash3's 32-bit finaliser, as datasketch applies it
        h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        h = h ^ (h >> np.uint32(16))
        one, stop = np.searchsorted(starts, low, side="right") - 1, np.searchsorted(starts, high, side="left")
        cuts = np.maximum(starts[one:stop] - low, 0)
        minima = np.minimum.reduceat(h[:, None] * a + b, cuts, axis=0)
        rows = filled[one:stop]
        out[rows] = np.minimum(out[rows], minima)


def bands(threshold: float, permutations: int, recall: float) -> tuple[int, int]:
    """(bands, rows) with 1 - (1 - threshold^rows)^bands >= recall, bands * rows <= permutations, and the fewest false candidates.

    False candidates are the area under the curve below the threshold. Raises ParamsError if no choice reaches the recall.

    >>> bands(0.8, 128, 0.999)
    (18, 5)
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


@dataclass(frozen=True)
class Sketch:
    """What banding needs of every text. Positions are those of the shingle column."""

    keys: np.ndarray  # (n, bands) u64: hash of each band's signature values
    bits: np.ndarray  # (n, permutations) u8: the lowest byte of each signature value
    sizes: np.ndarray  # (n,) i64: number of shingles; 0 is never a candidate

    @staticmethod
    def of(shingles: pl.Series, shape: tuple[int, int], permutations: int) -> "Sketch":
        """Sketches of all texts, in blocks: full signatures are never held for all rows."""
        count = len(shingles)
        keys, bits = np.empty((count, shape[0]), dtype=np.uint64), np.empty((count, permutations), dtype=np.uint8)
        for start in range(0, count, 1 << 14):
            block = signatures(shingles[start : start + (1 << 14)], permutations)
            keys[start : start + len(block)] = band_keys(block, shape)
            bits[start : start + len(block)] = block
        return Sketch(keys, bits, Sets.of(shingles).sizes)


def band_keys(signature: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(n, bands) u64: one hash for the `rows` signature values of each band. Equal keys put two texts in one bucket."""
    count, rows = shape
    values = signature[:, : count * rows].reshape(len(signature), count, rows).astype(np.uint64)
    keys = np.zeros((len(signature), count), dtype=np.uint64)
    for at in range(rows):
        keys = (keys ^ values[:, :, at]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def sieve(bits: np.ndarray, sizes: np.ndarray, a: np.ndarray, b: np.ndarray, ratio: float, agreement: int) -> np.ndarray:
    """Which of the pairs (a, b) deserve an exact check, as a mask.

    A pair passes if its sizes allow a Jaccard similarity of `ratio` (no loss) and at least `agreement` signature bytes agree.
    """
    sizes_a, sizes_b = sizes[a], sizes[b]
    keep: np.ndarray = np.minimum(sizes_a, sizes_b) >= np.maximum(ratio * np.maximum(sizes_a, sizes_b) - 1e-9, 1)
    left = np.flatnonzero(keep)
    for start in range(0, len(left), 1 << 14):
        part = left[start : start + (1 << 14)]
        keep[part] = np.count_nonzero(bits[a[part]] == bits[b[part]], axis=1) >= agreement
    return keep


def least_agreement(threshold: float, permutations: int) -> int:
    """The agreement of signatures that a pair at the threshold misses less than once in a million (`SIEVE_MISS`).

    The largest m with P(Binomial(permutations, threshold) < m) <= SIEVE_MISS. Bytes agree at least as often as signature values.
    """
    below = 0.0
    for agreeing in range(permutations + 1):
        below += math.comb(permutations, agreeing) * threshold**agreeing * (1 - threshold) ** (permutations - agreeing)
        if below > SIEVE_MISS:
            return agreeing
    return permutations


def jaccard(shingles: pl.Series | Sets, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of the sets at positions a[i] and b[i], f64. Two empty sets have 0.

    >>> jaccard(shingles(pl.Series(["abcdef", "abcdeg"])), np.array([0]), np.array([1])).round(3).tolist()
    [0.333]
    """
    sets = shingles if isinstance(shingles, Sets) else Sets.of(shingles)
    return _jaccard_between(sets, sets, a.astype(np.int64), b.astype(np.int64))


def near_pairs(shingles: pl.Series, threshold: float, permutations: int, recall: float) -> pl.DataFrame:
    """Pairs with Jaccard >= threshold: a, b (u32 positions, a < b) and similarity, sorted by a and b. Each was checked exactly.

    Every pair that banding proposes is checked where its members lie within `ALL_PAIRS` places in a bucket (in order of position).
    Beyond that, and after a star around the first member, a pair is checked only if its two texts are not connected yet: a bucket of
    a million copies costs some ten million checks. So all pairs of small buckets are returned, and of large ones enough that the
    connected components are those of all proposed pairs (a pair at the threshold is proposed with chance `recall`).
    Worst case: a large bucket of texts that are not connected, with one step of the sieve (some 0.1 µs) for each pair of them.
    """
    sketch = Sketch.of(shingles, bands(threshold, permutations, recall), permutations)
    sets, agreement = Sets.of(shingles), least_agreement(threshold, permutations)
    label = np.arange(len(shingles), dtype=np.int64)
    found = []
    for band in range(sketch.keys.shape[1]):
        for a, b in _proposed(sketch, band, label):
            near = ~(sketch.keys[a, :band] == sketch.keys[b, :band]).any(axis=1)  # else an earlier band saw to it
            near[near] = sieve(sketch.bits, sketch.sizes, a[near], b[near], threshold, agreement)
            similarity = jaccard(sets, a[near], b[near])
            alike = similarity >= threshold
            left, right = a[near][alike], b[near][alike]
            _connect(label, left, right)
            columns = {"a": left.astype(np.uint32), "b": right.astype(np.uint32), "similarity": similarity[alike]}
            found.append(pl.DataFrame(columns))
    none = pl.DataFrame(schema={"a": pl.UInt32, "b": pl.UInt32, "similarity": pl.Float64})
    return pl.concat([none, *found]).sort("a", "b")


def buckets(keys: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts that share a key, bucket by bucket: (members, start, stop), one entry for each member.

    Members of a bucket are in order of position; `start` and `stop` say where their bucket begins and ends. A text alone with its
    key, or not `present` (a mask), is in no bucket.
    """
    members = np.flatnonzero(present)
    members = members[np.argsort(keys[members], kind="stable")]
    sorted_keys = keys[members]
    begins = np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1]))) if len(members) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(np.append(begins, len(members)))
    shared = np.repeat(lengths > 1, lengths)
    lengths = lengths[lengths > 1]
    begins = starts(lengths)[:-1]
    return members[shared], np.repeat(begins, lengths), np.repeat(begins + lengths, lengths)


def _proposed(sketch: Sketch, band: int, label: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of one band as `near_pairs` says; `label` changes between one block and the next."""
    members, start, stop = buckets(sketch.keys[:, band], sketch.sizes > 0)
    place = np.arange(len(members))
    for apart in range(1, ALL_PAIRS + 1):
        one = place[place + apart < stop]
        yield from _blocks(members[one], members[one + apart])
    far = place[place - start > ALL_PAIRS]
    yield from _blocks(*_unconnected(label, members[start[far]], members[far]))
    active, apart = _active(members, start, stop, label), ALL_PAIRS + 1
    while len(active):
        waiting, count = [], 0
        while count < 1 << 18 and len(active):
            active = active[active + apart < stop[active]]
            one = members[active[active != start[active]]]
            waiting.append(_unconnected(label, one, members[active[active != start[active]] + apart]))
            count += len(waiting[-1][0])
            apart += 1
        yield from _blocks(np.concatenate([a for a, _ in waiting]), np.concatenate([b for _, b in waiting]))
        active = np.intersect1d(active, _active(members, start, stop, label), assume_unique=True)


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for at in range(0, len(a), 1 << 18):
        yield a[at : at + (1 << 18)], b[at : at + (1 << 18)]


def _unconnected(label: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    new = label[a] != label[b]
    return a[new], b[new]


def _active(members: np.ndarray, start: np.ndarray, stop: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Places in buckets that are large and not connected throughout."""
    large = np.flatnonzero(stop - start > ALL_PAIRS + 1)
    if not len(large):
        return large
    same = label[members[large]] == label[members[start[large]]]
    begins = np.flatnonzero(large == start[large])
    whole = np.logical_and.reduceat(same, begins)
    inside: np.ndarray = large[~np.repeat(whole, np.diff(np.append(begins, len(large))))]
    return inside


def clusters(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The connected component of each of `count` positions under the pairs (a, b): its smallest member, i64.

    >>> clusters(5, np.array([3, 1]), np.array([4, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    label = np.arange(count, dtype=np.int64)
    _connect(label, a.astype(np.int64), b.astype(np.int64))
    return label


def _connect(label: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Union by hooking roots to the smaller one and halving paths until nothing changes; `label` points at roots before and after."""
    while len(a):
        low, high = np.minimum(label[a], label[b]), np.maximum(label[a], label[b])
        apart = low != high
        a, b, low, high = a[apart], b[apart], low[apart], high[apart]
        np.minimum.at(label, high, low)
        while (label != label[label]).any():
            label[:] = label[label]


def matches(index: pl.Series, queries: pl.Series, threshold: float) -> pl.DataFrame:
    """Every (query, item) with Jaccard >= threshold between a query's shingles and an item's of a small index: EXACT, nothing is lost.

    Columns query, item (u32 positions) and similarity, sorted by query, then best item first, then item. An inverted index with a
    prefix filter: two sets this similar share one of their rarest shingles. Raises ValueError unless 0 < threshold <= 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected above 0 and at most 1.")
    items, asked = Sets.of(index), Sets.of(queries)
    hashes = items.take(np.arange(len(index)))
    known, token, frequency = np.unique(hashes, return_inverse=True, return_counts=True)
    rarity = np.empty(len(known), dtype=np.int64)
    rarity[np.argsort(frequency, kind="stable")] = np.arange(len(known))  # rarest first, ties by hash
    rare, posted = _prefix(rarity[token], np.repeat(np.arange(len(index)), items.sizes), items.sizes, items.sizes, threshold)
    order = np.argsort(rare, kind="stable")
    posted = posted[order]
    lists = starts(np.bincount(rare, minlength=len(known)))
    found = [pl.DataFrame(schema={"query": pl.UInt32, "item": pl.UInt32, "similarity": pl.Float64})]
    for start, stop in cuts(asked.sizes, BLOCK):
        if len(known):
            query, item = _sharing(asked, np.arange(start, stop), known, rarity, lists, posted, threshold)
            small, large = np.minimum(asked.sizes[query], items.sizes[item]), np.maximum(asked.sizes[query], items.sizes[item])
            fits = small >= threshold * large - 1e-9
            query, item = query[fits], item[fits]
            similarity = _jaccard_between(asked, items, query, item)
            near = similarity >= threshold
            columns = {"query": query[near].astype(np.uint32), "item": item[near].astype(np.uint32), "similarity": similarity[near]}
            found.append(pl.DataFrame(columns))
    return pl.concat(found).sort("query", "similarity", "item", descending=[False, True, False])


def _prefix(rank: np.ndarray, owner: np.ndarray, known: np.ndarray, sizes: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(rank, owner) of each set's rarest size - ceil(threshold * size) + 1 shingles.

    `known` counts the shingles of each set that are given here; the others are rarer than all of them, so they fill the prefix first.
    """
    order = np.lexsort((rank, owner))
    rank, owner = rank[order], owner[order]
    length = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
    place = np.arange(len(rank)) - starts(known)[owner]
    chosen = place < (length - (sizes - known))[owner]
    return rank[chosen], owner[chosen]


def _sharing(
    asked: Sets, at: np.ndarray, known: np.ndarray, rarity: np.ndarray, lists: np.ndarray, posted: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct (query, item) whose prefixes share a shingle."""
    hashes, owner = asked.take(at), np.repeat(np.arange(len(at)), asked.sizes[at])
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    hit = known[place] == hashes
    owner = owner[hit]
    rank, owner = _prefix(rarity[place[hit]], owner, np.bincount(owner, minlength=len(at)), asked.sizes[at], threshold)
    counts = lists[rank + 1] - lists[rank]
    pairs = [np.zeros(0, dtype=np.int64)]
    for start, stop in cuts(counts, BLOCK):
        part = counts[start:stop]
        within = np.arange(part.sum()) - np.repeat(starts(part)[:-1], part)
        item = posted[np.repeat(lists[rank[start:stop]], part) + within]
        pairs.append(np.unique((np.repeat(owner[start:stop], part) << 32) | item))
    distinct = np.unique(np.concatenate(pairs))
    return at[distinct >> 32], distinct & 0xFFFFFFFF


def _jaccard_between(left: Sets, right: Sets, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of left[a[i]] and right[b[i]], f64. Two empty sets have 0."""
    sizes_a, sizes_b = left.sizes[a], right.sizes[b]
    shared = np.zeros(len(a), dtype=np.int64)
    for start, stop in cuts(sizes_a + sizes_b, BLOCK):
        pair = np.arange(stop - start, dtype=np.uint64) << np.uint64(32)
        one = np.repeat(pair, sizes_a[start:stop]) | left.take(a[start:stop])
        two = np.repeat(pair, sizes_b[start:stop]) | right.take(b[start:stop])
        both = np.concatenate((one, two))
        both.sort(kind="stable")  # two sorted runs: a merge
        twice = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
        shared[start:stop] = np.bincount(twice.astype(np.int64), minlength=stop - start)
    similarity: np.ndarray = shared / np.maximum(sizes_a + sizes_b - shared, 1)
    return similarity
