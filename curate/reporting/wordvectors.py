"""Texts to vectors by the words and letters in them: no model, the same bytes on every machine, some 20 000 short texts a second.

A text counts its words, pairs of neighbouring words, and runs of three and four bytes inside words (so that a slip of the pen moves
little). Each feature is hashed (Weinberger et al. 2009) to one of `BUCKETS`, weighs more the fewer texts have it (inverse document
frequency), and is added with a sign to one of `DIMENSIONS` places (count sketch, Charikar et al. 2002): products of two vectors are those
of the full ones, give or take chance. Made by compiled loops in a fixed order, in f64.
"""

import numpy as np
import polars as pl

from curate.compiled import compiled

DIMENSIONS = 1024  # twice as many bring 0.4 % more of the wrong labels into the first tenth, in three times the time: docs/report.md
BUCKETS = 1 << 18
MOST_CHARS = 4000  # of a text that are read: what it is about shows in them


class Frequencies:
    """In how many texts each bucket occurs, from all batches that `add` saw."""

    def __init__(self) -> None:
        self.texts, self.seen = 0, np.zeros(BUCKETS, dtype=np.int64)

    def add(self, texts: pl.Series) -> None:
        """Count some more texts."""
        self.texts += len(texts)
        _count(*_bytes(texts), self.seen)

    def weights(self) -> np.ndarray:
        """(BUCKETS,) f64: ln((1 + texts) / (1 + texts with it)) + 1, above 0."""
        weights: np.ndarray = np.log((1 + self.texts) / (1 + self.seen)) + 1
        return weights


def vectors(texts: pl.Series, weights: np.ndarray) -> np.ndarray:
    """(n, DIMENSIONS) f64, each row of length 1; zeros for a text without a letter or digit.

    >>> some = pl.Series(["my card is lost", "I lost my card", "what is the rate?", ""])
    >>> counted = Frequencies(); counted.add(some)
    >>> found = vectors(some, counted.weights())
    >>> bool(found[0] @ found[1] > 0.4 > found[0] @ found[2]), float(abs(found[3]).sum())
    (True, 0.0)
    """
    out = np.zeros((len(texts), DIMENSIONS))
    _fill(*_bytes(texts), weights, out)
    return out


def _bytes(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 of all texts in lower case, one after the other, and where each starts (one more than texts)."""
    folded = texts.fill_null("").str.slice(0, MOST_CHARS).str.to_lowercase()
    sizes = folded.str.len_bytes().to_numpy().astype(np.int64)
    joined = folded.str.join("")[0] if len(folded) else ""
    data = np.frombuffer(joined.encode() or b" ", dtype=np.uint8)
    return data, np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))


PRIME, OFFSET = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)  # FNV-1a


@compiled
def _mixed(value: np.uint64) -> np.uint64:
    """The finaliser of MurmurHash3."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@compiled
def _features(data: np.ndarray, first: int, last: int, out: np.ndarray) -> int:
    """The buckets of one text, with repeats; returns how many. `out` holds four for each byte and some more."""
    used, at, before = 0, first, np.uint64(0)
    while at < last:
        while at < last and not _in_word(data[at]):
            at += 1
        start = at
        whole = OFFSET
        while at < last and _in_word(data[at]):
            whole = (whole ^ np.uint64(data[at])) * PRIME
            at += 1
        if at == start:
            break
        out[used] = _mixed(whole) % np.uint64(BUCKETS)
        used += 1
        if before != 0:
            out[used] = _mixed(before * PRIME + whole) % np.uint64(BUCKETS)
            used += 1
        before = whole
        for width in (3, 4):
            for left in range(start - 1, at + 2 - width):  # the word with a space on either side
                piece = OFFSET ^ np.uint64(width)
                for place in range(left, left + width):
                    byte = np.uint64(data[place]) if start <= place < at else np.uint64(32)
                    piece = (piece ^ byte) * PRIME
                out[used] = _mixed(piece) % np.uint64(BUCKETS)
                used += 1
    return used


@compiled
def _in_word(byte: np.uint8) -> bool:
    return bool(byte >= 128 or 97 <= byte <= 122 or 48 <= byte <= 57)


@compiled
def _count(data: np.ndarray, starts: np.ndarray, seen: np.ndarray) -> None:
    """Add 1 to each bucket of each text."""
    longest = 0
    for row in range(len(starts) - 1):
        longest = max(longest, starts[row + 1] - starts[row])
    found, last_row = np.empty(6 * longest + 16, dtype=np.int64), np.full(BUCKETS, -1, dtype=np.int64)
    for row in range(len(starts) - 1):
        for at in range(_features(data, starts[row], starts[row + 1], found)):
            if last_row[found[at]] != row:
                last_row[found[at]] = row
                seen[found[at]] += 1


@compiled
def _fill(data: np.ndarray, starts: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` with the vectors of the texts."""
    longest, places = 0, np.uint64(out.shape[1])
    for row in range(len(starts) - 1):
        longest = max(longest, starts[row + 1] - starts[row])
    found, times = np.empty(6 * longest + 16, dtype=np.int64), np.zeros(BUCKETS, dtype=np.int64)
    for row in range(len(starts) - 1):
        used = _features(data, starts[row], starts[row + 1], found)
        for at in range(used):
            times[found[at]] += 1
        for at in range(used):
            bucket = found[at]
            if times[bucket] > 0:
                value = (1 + np.log(times[bucket])) * weights[bucket]
                times[bucket] = 0
                mixed = _mixed(np.uint64(bucket) + np.uint64(0x9E3779B97F4A7C15))
                out[row, (mixed >> np.uint64(1)) % places] += value if mixed & np.uint64(1) else -value
        length = 0.0
        for at in range(out.shape[1]):
            length += out[row, at] * out[row, at]
        if length > 0:
            length = np.sqrt(length)
            for at in range(out.shape[1]):
                out[row, at] /= length
