"""Dealing groups: within one group of the ideal, the same in every order, and what is pinned never moves."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import strata

K = 3


groups = st.lists(st.dictionaries(st.integers(0, 4), st.integers(1, 6), min_size=1, max_size=3), max_size=60)
shares = st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)])


def counted(made):
    """{group: {stratum: rows}} as `deal` takes it."""
    seen = sorted({stratum for group in made for stratum in group})
    counts = [(at, seen.index(stratum), rows) for at, group in enumerate(made) for stratum, rows in group.items()]
    return pl.DataFrame(counts, schema={"group": pl.Int64, "stratum": pl.Int64, "rows": pl.UInt32}, orient="row"), [
        str(each) for each in seen
    ]


def dealt(made, ratios, seed=0, fixed=None):
    counts, names = counted(made)
    return strata.deal(counts, names, [f"id{at}" for at in range(len(made))], fixed or {}, ratios, seed).tolist()


single = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 1, 1, 2, 3, 8])), max_size=60)


@settings(max_examples=50, deadline=None)
@given(groups, shares, st.integers(0, 3))
def test_every_group_is_dealt_and_empty_shares_get_nothing(made, ratios, seed):
    found = dealt(made, ratios, seed)
    assert len(found) == len(made)
    assert all(ratios[place] > 0 for place in found)


@settings(max_examples=50, deadline=None)
@given(single, shares)
def test_every_split_of_a_label_is_within_one_group_of_its_share(made, ratios):
    """For groups of one label each. Only where some share is below one group may the largest split give up more: to be in every split."""
    found = dealt([{stratum: rows} for stratum, rows in made], ratios)
    opened = [at for at, ratio in enumerate(ratios) if ratio > 0]
    for stratum in {stratum for stratum, _ in made}:
        mine = [(rows, place) for (each, rows), place in zip(made, found, strict=True) if each == stratum]
        total, biggest = sum(rows for rows, _ in mine), max(rows for rows, _ in mine)
        off = {place: sum(rows for rows, at in mine if at == place) - ratios[place] * total for place in opened}
        if len(mine) >= len(opened):
            assert {place for _, place in mine} == set(opened)
        assert max(off.values()) < biggest + 1e-9
        if min(ratios[place] * total for place in opened) >= biggest or len(mine) < len(opened):
            assert min(off.values()) > -biggest - 1e-9
        else:
            assert min(off.values()) > -biggest * len(opened) - 1e-9


@settings(max_examples=40, deadline=None)
@given(groups, shares)
def test_no_group_of_several_labels_could_move_to_bring_labels_closer(made, ratios):
    found = dealt(made, ratios)
    counts, names = counted(made)
    dealer = strata.Dealer(counts, names, ratios, 0)
    numbered = [[(names.index(str(stratum)), rows) for stratum, rows in group.items()] for group in made]
    for members, place in zip(numbered, found, strict=True):
        dealer.put(members, place)
    for members, place in zip(numbered, found, strict=True):
        if len(members) > 1 and dealer.spares([stratum for stratum, _ in members], place):
            assert all(dealer.gain(members, place, to) >= 0 for to in dealer.open)


@settings(max_examples=40, deadline=None)
@given(groups, shares, st.randoms(use_true_random=False))
def test_the_order_of_groups_does_not_matter(made, ratios, draw):
    counts, names = counted(made)
    keys = [f"id{at}" for at in range(len(made))]
    before = strata.deal(counts, names, keys, {}, ratios, 1)
    order = list(range(len(made)))
    draw.shuffle(order)
    moved = counts.with_columns(pl.Series("group", [order[at] for at in counts["group"].to_list()], dtype=pl.Int64)).sample(
        fraction=1, shuffle=True, seed=1
    )
    renamed = [key for _, key in sorted(zip(order, keys, strict=True))]
    after = strata.deal(moved, names, renamed, {}, ratios, 1)
    assert [int(after[order[at]]) for at in range(len(made))] == before.tolist()


@settings(max_examples=50, deadline=None)
@given(single, single, shares)
def test_pinned_groups_stay_and_new_rows_fill_what_lacks_most(before, added, ratios):
    """Whatever is added, no split that has its share gets more, but for one group to be in it at all."""
    made = [{stratum: rows} for stratum, rows in before]
    settled = dict(enumerate(dealt(made, ratios)))
    whole = made + [{stratum: rows} for stratum, rows in added]
    found = dealt(whole, ratios, seed=5, fixed=settled)
    assert found[: len(made)] == list(settled.values())
    for stratum in {stratum for stratum, _ in added}:
        rows = [sum(each[stratum] for each, at in zip(whole, found, strict=True) if stratum in each and at == place) for place in range(K)]
        had = [sum(each[stratum] for each, at in zip(made, found, strict=False) if stratum in each and at == place) for place in range(K)]
        biggest = max(rows for each, rows in added if each == stratum)
        for place in range(K):
            assert rows[place] == had[place] or rows[place] - ratios[place] * sum(rows) < biggest + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=K, max_size=K), st.integers(0, 200))
def test_new_single_rows_make_the_largest_lack_as_small_as_can_be(had, new):
    """Against the plain way: row by row to the split that lacks most."""
    total = sum(had) + new
    need = [goal - have for goal, have in zip(strata.targets(total, (0.5, 0.3, 0.2), 0, False), had, strict=True)]
    given_ = strata.evened(need, [0] * K, new)
    left = list(need)
    for _ in range(new):
        left[left.index(max(left))] -= 1
    assert sum(given_) == new and min(given_) >= 0
    assert sorted(each - have for each, have in zip(need, given_, strict=True)) == sorted(left)


@settings(max_examples=40, deadline=None)
@given(groups)
def test_labels_of_mixed_groups_reach_every_split_where_a_move_can_bring_them(made):
    found = dealt(made, (0.8, 0.1, 0.1))
    places: dict[int, list[int]] = {}
    for group, place in zip(made, found, strict=True):
        for stratum in group:
            places.setdefault(stratum, []).append(place)
    for stratum, mine in places.items():
        alone = sum(set(group) == {stratum} for group in made)
        if alone >= 3:
            assert set(mine) == {0, 1, 2}


def test_big_groups_are_found_in_every_split():
    """Held-out splits are no worse for duplicates than train: groups of ten go everywhere, not to train alone."""
    found = dealt([{0: 10}] * 100 + [{0: 1}] * 500, (0.8, 0.1, 0.1))
    assert min(Counter(found[:100]).values()) >= 2
    assert [sum(10 if at < 100 else 1 for at, place in enumerate(found) if place == split_) for split_ in range(3)] == [1200, 150, 150]


# --- strata of several columns ----------------------------------------------------------------------------------------------------------


def test_a_rare_combination_joins_the_others_of_its_first_column():
    rows = pl.DataFrame(
        {
            "0": ["a"] * 9 + ["b"] * 2,
            "1": ["x"] * 5 + ["y", "y", "z", "z"] + ["x", "y"],
            "group": range(11),
        }
    )
    found = strata.coarsened(rows, ["0", "1"], 3).to_list()
    assert len(set(found[:5])) == 1
    assert len(set(found[5:9])) == 1 and found[5] != found[0]
    assert len(set(found[9:])) == 1 and found[9] != found[5]
    assert strata.coarsened(rows, ["0"], 3).to_list() == rows["0"].to_list()


def test_groups_are_counted_and_not_rows():
    rows = pl.DataFrame({"0": ["a"] * 8, "1": ["x"] * 4 + ["y"] * 4, "group": [1, 1, 1, 1, 2, 3, 4, 5]})
    found = strata.coarsened(rows, ["0", "1"], 3).to_list()
    assert found[0] != found[4]
    assert strata.coarsened(rows.with_columns(group=pl.lit(1)), ["0", "1"], 3).n_unique() == 1


# --- by time ----------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 30)), min_size=1, max_size=60), shares)
def test_time_runs_from_train_to_test_and_every_cut_is_as_near_as_moments_allow(made, ratios):
    groups_ = pl.DataFrame(made, schema={"rows": pl.UInt32, "moment": pl.Int64}, orient="row")
    opened = [at for at, ratio in enumerate(ratios) if ratio > 0]
    if groups_["moment"].n_unique() < len(opened):
        with pytest.raises(ValueError, match="different moments"):
            strata.by_time(groups_, ratios)
        return
    found = strata.by_time(groups_, ratios).tolist()
    assert set(found) == set(opened)
    for (_, one), left in zip(made, found, strict=True):
        for (_, two), right in zip(made, found, strict=True):
            assert (left > right) <= (one > two)
    heaviest = max(sum(rows for rows, each in made if each == moment) for _, moment in made)
    if len(opened) == 2:  # with more, a cut can be pushed on by the one before
        share = sum(rows for (rows, _), place in zip(made, found, strict=True) if place == opened[0])
        alone = found.count(opened[0]) == len([1 for _, moment in made if moment == min(each for _, each in made)])
        assert (
            abs(share - ratios[opened[0]] * sum(rows for rows, _ in made)) <= heaviest / 2 + 1e-9
            or alone
            or found.count(opened[1]) <= heaviest
        )


def test_one_moment_too_many_goes_to_the_nearer_side():
    groups_ = pl.DataFrame({"rows": [7, 2, 1], "moment": [1, 2, 3]}, schema={"rows": pl.UInt32, "moment": pl.Int64})
    assert strata.by_time(groups_, (0.8, 0.1, 0.1)).tolist() == [0, 1, 2]
    assert strata.by_time(groups_, (0.8, 0.0, 0.2)).tolist() == [0, 2, 2]
    assert strata.by_time(groups_, (1.0, 0.0, 0.0)).tolist() == [0, 0, 0]
