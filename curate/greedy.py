"""The greedy pass of dedup_near: rows from best to worst, each against the rows kept before it that share a bucket with it."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from curate import minhash

ROWS = 1024  # rows decided together, in order of preference
EXPANDED = 1 << 20  # (row, kept row) proposals expanded at once
MOST_PAIRS = 100_000  # rows of the table `pairs`; above it, a sample by hash of the ids


@dataclass
class Buckets:
    """Which kept rows each bucket holds so far. Buckets of all bands are numbered through."""

    of: np.ndarray  # (n, bands) i32: bucket of each row, -1 where it is alone
    start: np.ndarray  # first slot of each bucket
    filled: np.ndarray  # kept rows of each bucket
    slots: np.ndarray  # i32 row positions

    @staticmethod
    def over(keys: pl.Series, present: np.ndarray) -> "Buckets":
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
        return Buckets(of, start[:-1], np.zeros(count, dtype=np.int64), np.empty(start[-1], dtype=np.int32))

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
class Checked:
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
class Search:
    """The greedy pass: decides rows block by block in order of preference."""

    sets: minhash.Sets
    bits: np.ndarray
    buckets: Buckets
    checked: Checked
    threshold: float
    ratio: float
    agreement: int

    def run(self, order: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(kept_by, similarity) by row position: the kept row that a dropped row resembles, else -1.

        `order` holds all positions, those of `known` rows first. Known rows stay without being compared with each other.
        """
        kept_by, similarity = np.full(len(order), -1, dtype=np.int64), np.zeros(len(order))
        settled, rank = int(known.sum()), np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        for start in range(0, settled, ROWS):
            self.buckets.add(order[start : min(start + ROWS, settled)])
        order = order[settled:]
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            self._against_kept(rows, rank, kept_by, similarity)
            rows = rows[kept_by[rows] < 0]
            self._among(rows, kept_by, similarity)
            self.buckets.add(rows[kept_by[rows] < 0])
        return kept_by, similarity

    def _against_kept(self, rows: np.ndarray, rank: np.ndarray, kept_by: np.ndarray, similarity: np.ndarray) -> None:
        """Check each row first with the kept row that its signature agrees with most, then, if that fails, with all the others."""
        at, kept = self._proposed(rows)
        agreeing = np.count_nonzero(self.bits[rows[at]] == self.bits[kept], axis=1)
        order = np.lexsort((rank[kept], -agreeing, at))  # not by position: the result must not depend on how the input lies
        at, kept = at[order], kept[order]
        best = np.concatenate(([True], at[1:] != at[:-1])) if len(at) else np.zeros(0, dtype=bool)
        self._decide(rows[at[best]], kept[best], kept_by, similarity)
        rest = ~best & (kept_by[rows[at]] < 0)
        self._decide(rows[at[rest]], kept[rest], kept_by, similarity)

    def _proposed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `rows`, kept row) of all pairs that share a bucket and pass the sieve."""
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

    def _decide(self, row: np.ndarray, kept: np.ndarray, kept_by: np.ndarray, similarity: np.ndarray) -> None:
        """Check the pairs; drop rows that resemble a kept row, naming the most similar (of equals, the first)."""
        found = minhash.jaccard(self.sets, row, kept)
        self.checked.add(row, kept, found)
        hits = np.flatnonzero(found >= self.threshold)
        hits = hits[np.lexsort((hits, -found[hits], row[hits]))]
        hits = hits[np.concatenate(([True], row[hits][1:] != row[hits][:-1]))] if len(hits) else hits
        kept_by[row[hits]], similarity[row[hits]] = kept[hits], found[hits]

    def _among(self, rows: np.ndarray, kept_by: np.ndarray, similarity: np.ndarray) -> None:
        """Decide rows of one block among themselves, in rounds.

        A row that is the best one open in all its buckets stays; the others of these buckets are checked against it, and it leaves. So a
        pair is checked once at most, only with a row that stays, and a bucket of copies is settled in one round.
        """
        bucket = self.buckets.of[rows]
        place = np.repeat(np.arange(len(rows)), bucket.shape[1])[bucket.ravel() >= 0]
        bucket = bucket[bucket >= 0]
        by_bucket = np.argsort(bucket, kind="stable")
        place, bucket = place[by_bucket], bucket[by_bucket]
        open_rows = np.ones(len(rows), dtype=bool)
        while len(place):
            first = np.concatenate(([True], bucket[1:] != bucket[:-1]))
            stays = open_rows.copy()
            stays[place[~first]] = False
            head = place[np.flatnonzero(first)[np.cumsum(first) - 1]]
            pair = stays[head] & ~first
            codes = np.unique((head[pair] << 32) | place[pair])
            codes = codes[self._sieve(rows[codes >> 32], rows[codes & 0xFFFFFFFF])]
            self._decide(rows[codes & 0xFFFFFFFF], rows[codes >> 32], kept_by, similarity)
            open_rows &= ~stays & (kept_by[rows] < 0)
            left = open_rows[place]
            place, bucket = place[left], bucket[left]
