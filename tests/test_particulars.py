"""Numbers and names: when a text is another problem in the same words."""

import numpy as np
import polars as pl
import pytest

from curate import ngrams, particulars

ITEM = "Bella bought 11 stamps and Max bought 9 more than Bella. How many stamps did Max buy in 2 days?"


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (ITEM, False),
        (ITEM.upper(), False),
        (ITEM.replace("11", "40").replace("9", "7").replace("2 d", "5 d"), True),
        (ITEM.replace("11", "40").replace("9", "7"), True),  # most of the numbers
        (ITEM.replace("11", "40"), False),  # one of three
        (ITEM.replace("Bella", "Anna").replace("Max", "Tom"), True),
        (ITEM.replace("Bella", "anna").replace("Max", "tom").lower(), True),  # case tells nothing
        (ITEM[:40], False),  # cut off: what is missing is not replaced
        ("In 1980 it rained. " + ITEM[:60] + " and so on for 77 years", False),
        ("Nothing of the kind.", False),
        ("", False),
    ],
)
def test_replaced(text, other):
    assert particulars.replaced(pl.Series([ITEM]), pl.Series([text])).to_list() == [other]


def test_an_item_without_numbers_and_names_has_nothing_to_replace():
    items = pl.Series(["Where is my card? It is late.", "", "WHY?"])
    assert particulars.replaced(items, pl.Series(["Where is my dog? It is late.", "a", "why not"])).to_list() == [False] * 3


def test_masked_hashes_hide_numbers_and_names_only():
    raw, hashes, _ = ngrams.flat(pl.Series(["Ann has 3 cats", "Bob has 3.5 cats", "ann has 3 dogs"]))
    values, mask = particulars.masked(raw, hashes)
    assert mask.tolist() == [True, False, True, False] * 2 + [False, False, True, False]
    assert np.array_equal(values[:4], values[4:8])
    assert values[0] != values[8]
    assert values[3] != values[11]


def test_a_name_that_only_starts_sentences_is_one_if_no_item_has_it_in_lower_case():
    item = pl.Series(["Mary buys 3 bags of M&Ms for Tom. Mary eats 2. How many are left?"])
    other = pl.Series(["Rosa buys 3 bags of M&Ms for Tom. Rosa eats 2. How many are left?"])
    assert particulars.replaced(item, other, frozenset({"how"})).to_list() == [True]
    assert particulars.replaced(item, other, frozenset({"how", "mary"})).to_list() == [False]
    assert particulars.replaced(item, pl.concat([other]).str.replace("Tom", "Mary"), frozenset({"how"})).to_list() == [True]  # Tom is gone
