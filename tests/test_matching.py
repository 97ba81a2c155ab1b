"""The exact join of many rows with a few items, against all pairs in plain Python."""

import numpy as np
import polars as pl
import pytest

from curate.matching import matches, similarity
from curate.shingle import shingles
from tests.alike import Reference, variants


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 1.0])
def test_matches_is_an_exact_join(threshold: float) -> None:
    texts = variants(240, 5)
    items, queries = [*texts[::3], ""], [*texts[1::3], *texts[2::3], "", texts[0]]
    asked = shingles(pl.Series(queries))
    found = matches(shingles(pl.Series(items)), pl.concat([asked[:40], asked[40:]], rechunk=False), threshold)
    plain = Reference([(text, "") for text in [*queries, *items]])
    every = [(q, i, plain.similarity(q, len(queries) + i)) for q in range(len(queries)) for i in range(len(items))]
    expected = sorted((row for row in every if row[2] >= threshold), key=lambda row: (row[0], -row[2], row[1]))
    assert len(expected) > 20
    assert [(q, i) for q, i, _ in found.rows()] == [(q, i) for q, i, _ in expected]
    assert found["similarity"].to_list() == pytest.approx([each for _, _, each in expected])


def test_matches_with_nothing_to_compare() -> None:
    nothing, one = shingles(pl.Series([], dtype=pl.String)), shingles(pl.Series(["one text"]))
    assert matches(nothing, one, 0.8).height == 0
    assert matches(one, nothing, 0.8).height == 0
    with pytest.raises(ValueError, match="threshold 0"):
        matches(one, one, 0)


def test_similarity_of_given_pairs() -> None:
    texts = [*variants(60, 2), "", ""]
    plain = Reference([(text, "") for text in texts])
    a, b = np.triu_indices(len(texts), 1)
    expected = [plain.similarity(one, two) for one, two in zip(a.tolist(), b.tolist(), strict=True)]
    assert similarity(shingles(pl.Series(texts)), a, b).tolist() == pytest.approx(expected)
