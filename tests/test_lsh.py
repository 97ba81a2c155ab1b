"""Signatures against datasketch, bands against their formula, buckets against a dictionary."""

from collections import defaultdict

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash

from curate import lsh
from curate.record import ParamsError
from curate.sets import Boilerplate, Sets
from curate.shingle import shingles
from tests.alike import variants


def test_signatures_equal_datasketch_bit_for_bit() -> None:
    texts = [*variants(60, 1), "", "abc", "".join(chr(0x4E00 + at) for at in range(9000))]
    sets = Sets.of(shingles(pl.Series(texts)))
    hashes = [sets.hashes[start:][: parts.sum()] for start, parts in zip(sets.starts, sets.parts, strict=True)]  # other memory lies between
    ours = lsh.signatures(np.concatenate(hashes), sets.parts.sum(axis=1), 96)
    for row, own in zip(ours, hashes, strict=True):
        theirs = MinHash(96, hashfunc=int)
        theirs.update_batch(own.tolist())
        assert (row == theirs.hashvalues).all()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_reach_the_recall_with_the_permutations_there_are(threshold: float) -> None:
    count, rows = lsh.bands(threshold, 128, 0.999)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.999


def test_bands_that_cannot_be_reached_are_refused_with_the_values() -> None:
    with pytest.raises(ParamsError, match=r"0\.1 .*0\.999.* 16 permutations"):
        lsh.bands(0.1, 16, 0.999)


def test_buckets_hold_the_rows_with_equal_keys_over_chunks() -> None:
    texts = [*variants(300, 2), "", "twice the same text", "twice the same text"]
    made = shingles(pl.Series(texts))
    sketch = lsh.Sketch.of(Sets.of(pl.concat([made[:17], made[17:18], made[18:]], rechunk=False)), (14, 4), Boilerplate.none())
    assert (lsh.Sketch.of(Sets.of(made), (14, 4), Boilerplate.none()).keys == sketch.keys).all()
    assert 300 not in sketch.row
    by_key = defaultdict(set)
    for row, keys in zip(sketch.row.tolist(), sketch.keys.tolist(), strict=True):
        for band, key in enumerate(keys):
            by_key[band, key].add(row)
    buckets = lsh.Buckets.of(sketch)
    found = defaultdict(set)
    for at, row in enumerate(buckets.rows.tolist()):
        for bucket in buckets.bucket[buckets.starts[at] : buckets.starts[at + 1]].tolist():
            found[bucket].add(row)
    assert sorted(map(sorted, found.values())) == sorted(sorted(rows) for rows in by_key.values() if len(rows) > 1)
    assert buckets.count == len(found)


def test_candidates_of_a_pair_at_the_threshold_follow_the_formula() -> None:
    """Of many pairs with a known similarity, the share that meets in a bucket is 1 - (1 - s^rows)^bands."""
    draw = np.random.default_rng(5)
    pairs, size, shared = 3000, 90, 60  # similarity 60 / 120
    hashes = draw.integers(0, 1 << 32, (pairs, 120), dtype=np.uint32)
    both = np.concatenate((hashes[:, :size], np.concatenate((hashes[:, size - shared : size], hashes[:, size:]), axis=1)))
    signature = lsh.signatures(both.ravel(), np.full(2 * pairs, size), 20)
    bands = signature.reshape(2, pairs, 5, 4)
    met = (bands[0] == bands[1]).all(axis=2).any(axis=1).mean()
    assert met == pytest.approx(1 - (1 - 0.5**4) ** 5, abs=0.03)
