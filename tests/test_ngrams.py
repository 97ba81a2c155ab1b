"""Word n-grams: what a token is, and which texts hold others."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import ngrams
from curate.record import ParamsError


def tokens(text: str) -> list[str]:
    return ngrams.folded(ngrams.tokens(pl.Series([text]))[0]).to_list()


def test_digits_and_operators_stay():
    assert tokens("12+35-7") == ["12", "+", "35", "-", "7"]
    assert set(tokens("12+35-7")).isdisjoint(tokens("999*3/41"))
    assert tokens("It costs $80,000.50 (tax: 20%).") == ["it", "costs", "$", "80,000.50", "tax", "20", "%"]


def test_case_apostrophes_and_width_fold_but_scripts_without_spaces_are_cut():
    assert tokens("DON’T") == tokens("don't")
    assert tokens("ＡＢＣ") == ["abc"]
    assert tokens("我爱你") == ["我", "爱", "你"]


def test_places_point_into_the_text_as_it_stands():
    text = "Ａ  well-known\ntrick: “3 × 4”"
    found = ngrams.tokens(pl.Series([text]))[0].to_list()
    assert [text[start:end] for start, end in ngrams.places(text, found)] == found


def test_grams_do_not_cross_texts_and_short_texts_have_none():
    sets = ngrams.grams(pl.Series(["a b c", "d e f", "a b", "", None, "a b c d"]), 3)
    assert sets.list.len().to_list() == [1, 1, 0, 0, 0, 2]
    assert sets[0][0] in sets[5].to_list()
    assert sets[1][0] not in sets[5].to_list()


def test_a_repeated_gram_counts_once():
    assert ngrams.grams(pl.Series(["a b a b a b"]), 2).list.len().to_list() == [2]


def brute(texts: list[str], n: int, coverage: float, common: int, counted: list[bool]) -> set[tuple[int, int]]:
    sets = [{tuple(text.split()[at : at + n]) for at in range(len(text.split()) - n + 1)} for text in texts]
    usual = {
        gram for each in sets for gram in each if sum(gram in other for other, real in zip(sets, counted, strict=True) if real) > common
    }
    own = [each - usual for each in sets]
    pairs = [(a, b) for a in range(len(own)) for b in range(a)]
    return {(b, a) for a, b in pairs if (least := min(len(own[a]), len(own[b]))) and len(own[a] & own[b]) >= coverage * least - 1e-12}


words = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=9), st.sampled_from([0.3, 0.6, 1.0]), st.integers(2, 4))
def test_containing_finds_what_comparing_everything_finds(rows, coverage, common):
    texts, counted = [text for text, _ in rows], [real for _, real in rows]
    found = ngrams.containing(ngrams.grams(pl.Series(texts), 3), coverage, common, np.array(counted))
    pairs = {(min(a, b), max(a, b)) for a, b in found.select("a", "b").rows()}
    assert pairs == brute(texts, 3, coverage, common, counted)


def test_ranges_of_hashes_do_not_change_the_result(monkeypatch):
    texts = pl.Series([" ".join(str((start * 7 + at) % 23) for at in range(12)) for start in range(40)])
    sets = ngrams.grams(texts, 3)
    whole = ngrams.containing(sets, 0.3, 40)
    monkeypatch.setattr(ngrams, "PARTITION", 50)
    parts = pl.concat([ngrams.grams(texts[:13], 3), ngrams.grams(texts[13:], 3)], rechunk=False)
    assert whole.height > 10
    assert ngrams.containing(parts, 0.3, 40).equals(whole)


def test_a_template_ties_nothing_together():
    form = "please summarise the following call in two short sentences for the record"
    texts = pl.Series([f"{form} {at} {at + 1} {at * 3}" for at in range(5)])
    assert ngrams.containing(ngrams.grams(texts, 4), 0.6, 10).height == 10  # five texts are no template yet
    assert ngrams.containing(ngrams.grams(texts, 4), 0.6, 4).height == 0


def test_only_pairs_of_different_sides():
    texts = pl.Series(["one two three four"] * 3)
    found = ngrams.containing(ngrams.grams(texts, 3), 0.6, 10, sides=np.array([0, 0, 1]))
    assert {tuple(sorted(pair)) for pair in found.select("a", "b").rows()} == {(0, 2), (1, 2)}


def test_common_of_one_is_refused():
    with pytest.raises(ParamsError, match="common = 1"):
        ngrams.containing(ngrams.grams(pl.Series(["a b"]), 2), 0.5, 1)
