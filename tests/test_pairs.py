"""Like pairs and their components, against all pairs in plain Python."""

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import pairs
from curate.sets import Boilerplate, Sets
from curate.shingle import shingles
from tests.alike import Reference, variants


def all_near(texts: list[str], threshold: float, boilerplate: int | None = None) -> dict[tuple[int, int], float]:
    plain = Reference([(text, "") for text in texts], boilerplate)
    found = {(a, b): plain.similarity(a, b) for a, b in combinations(range(len(texts)), 2)}
    return {pair: similarity for pair, similarity in found.items() if similarity >= threshold}


def components(count: int, some: list[tuple[int, int]]) -> list[int]:
    table = np.array(some, dtype=np.int64).reshape(-1, 2)
    return pairs.clusters(count, table[:, 0], table[:, 1]).tolist()


@pytest.mark.parametrize("boilerplate", [None, 10])
def test_near_pairs_connect_what_is_alike(boilerplate: int | None) -> None:
    texts = [*variants(350, 3), *["the very same words again and again"] * 200, "", ""]
    expected = all_near(texts, 0.7, boilerplate)
    made = shingles(pl.Series(texts))
    forms = Boilerplate.of(Sets.of(made), boilerplate, np.arange(len(texts), dtype=np.uint64))
    found = pairs.near_pairs(made, 0.7, 128, 0.9999, forms)
    got = {(a, b): similarity for a, b, similarity in found.iter_rows()}
    assert set(got) <= set(expected)
    assert all(got[pair] == pytest.approx(expected[pair]) for pair in got)
    assert found.rows() == sorted(found.rows())
    assert len(got) < len(texts)
    assert components(len(texts), list(got)) == components(len(texts), list(expected))


def test_near_pairs_of_sides_have_every_row_that_has_one() -> None:
    texts = [*variants(300, 4), *["the very same words again and again"] * 100]
    sides = np.arange(len(texts)) % 3
    expected = {pair for pair in all_near(texts, 0.7) if sides[pair[0]] != sides[pair[1]]}
    found = pairs.near_pairs(shingles(pl.Series(texts)), 0.7, 128, 0.9999, Boilerplate.none(), sides)
    got = set(found.select("a", "b").rows())
    assert got <= expected
    assert {row for pair in got for row in pair} == {row for pair in expected for row in pair}
    few = {pair for pair in expected if max(pair) < 300}
    assert few <= got | {pair for pair in few if pair not in got and sum(pair[0] in each for each in got) >= pairs.ENOUGH}


def test_near_pairs_ignores_empty_texts() -> None:
    assert pairs.near_pairs(shingles(pl.Series(["", "", "", "one text"])), 0.8, 64, 0.99, Boilerplate.none()).height == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_clusters_are_the_connected_components(some: list[tuple[int, int]]) -> None:
    member = {at: {at} for at in range(30)}
    for a, b in some:
        joined = member[a] | member[b]
        for each in joined:
            member[each] = joined
    assert components(30, some) == [min(member[at]) for at in range(30)]
