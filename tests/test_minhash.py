"""MinHash, banding, exact Jaccard, clusters and joins, each against a plain Python or datasketch reference."""

import random
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import minhash
from curate.record import ParamsError


def sets_of(texts: list[str]) -> list[set[str]]:
    return [{text[at : at + 5] for at in range(max(len(text) - 4, 1))} if text else set() for text in texts]


def plain_jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def variants(count: int, seed: int) -> list[str]:
    """Sentences in families that differ by a few words, so that every similarity from 0 to 1 occurs."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnop", k=draw.randint(2, 9))) for _ in range(400)]
    texts: list[str] = []
    while len(texts) < count:
        base = draw.choices(words, k=draw.randint(3, 60))
        for _ in range(draw.randint(1, 12)):
            changed = [draw.choice(words) if draw.random() < 0.03 else word for word in base]
            texts.append(" ".join(changed))
    return texts[:count]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=12))
def test_shingles_count_distinct_windows_of_characters(texts: list[str]) -> None:
    made = minhash.shingles(pl.Series(texts, dtype=pl.String))
    assert made.dtype == pl.List(pl.UInt32)
    assert made.list.len().to_list() == [len(each) for each in sets_of(texts)]
    assert all(row == sorted(set(row)) for row in made.to_list())


def test_shingles_do_not_depend_on_neighbours_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["", "naïve 𝒳𝒴 emoji 🙂🙂🙂", "ab", "the same text as ever", None, "x" * 50]
    whole = minhash.shingles(pl.Series(texts)).to_list()
    monkeypatch.setattr(minhash, "BLOCK", 7)
    assert minhash.shingles(pl.Series(texts)).to_list() == whole
    assert [minhash.shingles(pl.Series([text], dtype=pl.String)).to_list()[0] for text in texts] == whole


def test_short_texts_are_told_apart() -> None:
    made = minhash.shingles(pl.Series(["yes", "no", "n", "yess"])).to_list()
    assert len({tuple(row) for row in made}) == 4


def test_signatures_equal_datasketch_bit_for_bit() -> None:
    texts = [*variants(60, 1), "", "abc", "".join(chr(0x4E00 + at) for at in range(9000))]  # the last spans several blocks
    made = minhash.shingles(pl.Series(texts))
    ours = minhash.signatures(pl.concat([made[:20], made[20:]], rechunk=False), 96)
    for row, hashes in zip(ours, made.to_list(), strict=True):
        theirs = MinHash(96, hashfunc=int)
        theirs.update_batch(hashes)
        assert (row == theirs.hashvalues).all()


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_reach_the_recall_with_the_permutations_there_are(threshold: float) -> None:
    count, rows = minhash.bands(threshold, 128, 0.999)
    assert count * rows <= 128
    assert 1 - (1 - threshold**rows) ** count >= 0.999


def test_bands_that_cannot_be_reached_are_refused_with_the_values() -> None:
    with pytest.raises(ParamsError, match=r"0\.1 .*0\.999.* 16 permutations"):
        minhash.bands(0.1, 16, 0.999)


def test_jaccard_is_exact_over_chunks_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*variants(80, 2), "", ""]
    made = minhash.shingles(pl.Series(texts))
    made = pl.concat([made[:13], made[13:14], made[14:]], rechunk=False)
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    sets = sets_of(texts)
    expected = [plain_jaccard(sets[a], sets[b]) for a, b in pairs]
    monkeypatch.setattr(minhash, "BLOCK", 500)
    assert minhash.jaccard(made, pairs[:, 0], pairs[:, 1]).tolist() == pytest.approx(expected)


def all_near(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    sets = sets_of(texts)
    found = {(a, b): plain_jaccard(sets[a], sets[b]) for a, b in combinations(range(len(texts)), 2)}
    return {pair: similarity for pair, similarity in found.items() if similarity >= threshold}


def test_near_pairs_finds_every_pair_of_small_buckets() -> None:
    texts = variants(400, 3)
    expected = all_near(texts, 0.7)
    found = minhash.near_pairs(minhash.shingles(pl.Series(texts)), 0.7, 128, 0.999)
    got = {(a, b): similarity for a, b, similarity in found.iter_rows()}
    assert len(expected) > 100
    assert set(got) <= set(expected)
    assert len(got) >= 0.995 * len(expected)
    assert all(got[pair] == pytest.approx(expected[pair]) for pair in got)
    assert found.rows() == sorted(found.rows())


def test_near_pairs_of_large_buckets_connect_what_belongs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minhash, "ALL_PAIRS", 2)
    texts = variants(300, 4) + ["the very same words again and again"] * 200
    expected = all_near(texts, 0.7)
    found = minhash.near_pairs(minhash.shingles(pl.Series(texts)), 0.7, 128, 0.999)
    assert found.height < len(expected) / 10  # 200 copies have 19 900 pairs
    pairs = np.array(list(expected))
    wanted = minhash.clusters(len(texts), pairs[:, 0], pairs[:, 1])
    assert minhash.clusters(len(texts), found["a"].to_numpy(), found["b"].to_numpy()).tolist() == wanted.tolist()


def test_near_pairs_ignores_empty_texts() -> None:
    assert minhash.near_pairs(minhash.shingles(pl.Series(["", "", "", "one text"])), 0.8, 64, 0.99).height == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_clusters_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    member = {at: {at} for at in range(30)}
    for a, b in pairs:
        joined = member[a] | member[b]
        for each in joined:
            member[each] = joined
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    assert minhash.clusters(30, table[:, 0], table[:, 1]).tolist() == [min(member[at]) for at in range(30)]


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 1.0])
def test_matches_is_an_exact_join(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minhash, "BLOCK", 3000)
    texts = variants(240, 5)
    items, queries = [*texts[::3], ""], [*texts[1::3], *texts[2::3], "", texts[0]]
    found = minhash.matches(minhash.shingles(pl.Series(items)), minhash.shingles(pl.Series(queries)), threshold)
    left, right = sets_of(queries), sets_of(items)
    every = [(q, i, plain_jaccard(x, y)) for q, x in enumerate(left) for i, y in enumerate(right)]
    expected = sorted((row for row in every if row[2] >= threshold), key=lambda row: (row[0], -row[2], row[1]))
    assert [(q, i) for q, i, _ in found.rows()] == [(q, i) for q, i, _ in expected]
    assert found["similarity"].to_list() == pytest.approx([similarity for _, _, similarity in expected])


def test_matches_with_nothing_to_compare() -> None:
    nothing, one = minhash.shingles(pl.Series([], dtype=pl.String)), minhash.shingles(pl.Series(["one text"]))
    assert minhash.matches(nothing, one, 0.8).height == 0
    assert minhash.matches(one, nothing, 0.8).height == 0
    with pytest.raises(ValueError, match="threshold 0"):
        minhash.matches(one, one, 0)
