"""Splits: no group crosses, labels keep the ratios, and the result does not hang on the order of the rows."""

import random
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import split, strata
from curate.record import SPLITS, InputError, ParamsError, StageFailure
from curate.stage import read_rows
from tests.helpers import SHARED, chat, document, dropped, frame, run_stage, section, write_input


def noise(seed: int, words: int = 9) -> str:
    """Words that no other seed gives."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(6)) for _ in range(words))


@pytest.fixture
def cut(tmp_path):
    """Splits rows and gives back {line: split}."""

    def go(rows, *overrides, workers=1):
        run_stage(split.STAGE, write_input(frame(rows), tmp_path / "in"), tmp_path / "out", *overrides, workers=workers)
        return {line: name for name in SPLITS for line in read_rows(tmp_path / "out", name)["line"].to_list()}

    return go


def sizes(found):
    return [Counter(found.values())[name] for name in SPLITS]


def test_every_label_keeps_the_ratios_exactly_where_rows_are_single(cut):
    rows = [chat(noise(at), "ok", label=("much", "some")[at % 3 == 0]) for at in range(90)]
    found = cut(rows)
    for label, expected in (("much", [48, 6, 6]), ("some", [24, 3, 3])):
        assert sizes({line: name for line, name in found.items() if rows[line - 1]["label"] == label}) == expected


def test_what_belongs_together_stays_together(cut):
    long = noise(1000, 30)
    ties = [
        [chat(noise(1), "a", group="C-1", label="x"), chat(noise(2), "b", group="C-1", label="y"), chat(noise(3), "c", group="C-1")],
        [chat(noise(4), "one answer"), chat(noise(4).upper(), "and quite another answer")],
        [chat(noise(5, 30), "same"), chat(noise(5, 30) + " and so on", "same")],
        [chat(long, "short"), chat(noise(6, 40) + " " + long + " " + noise(7, 40), "long")],
        [document(noise(8, 60)), document(noise(8, 60) + "\n\nThe end.")],
    ]
    for seed in range(6):
        rows = [row for tie in ties for row in tie] + [chat(noise(100 + at), "z") for at in range(30)]
        found = cut(rows, f"seed={seed}")
        at = 0
        for tie in ties:
            assert len({found[line] for line in range(at + 1, at + len(tie) + 1)}) == 1, tie[0]
            at += len(tie)


def test_rows_without_group_or_prompt_are_not_tied(cut, tmp_path):
    cut([document(noise(at)) for at in range(30)])
    assert pl.read_parquet(tmp_path / "out" / "assignments.parquet")["cluster"].n_unique() == 30


def test_a_template_ties_nothing(cut, tmp_path):
    form = "Please write a friendly reply to the following message from one of our customers"
    cut([chat(f"{form}: {noise(at, 14)}", noise(at + 500, 14)) for at in range(40)])
    assert pl.read_parquet(tmp_path / "out" / "assignments.parquet")["cluster"].n_unique() == 40


def test_rare_labels_go_to_train_and_are_listed(cut, tmp_path):
    rows = [chat(noise(at), "ok", label="plenty") for at in range(40)] + [chat(noise(90), "ok", label="once")]
    rows += [chat(noise(91), "ok", label="twice"), chat(noise(92), "ok", label="twice")]
    found = cut(rows)
    assert (found[41], found[42], found[43]) == ("train", "train", "train")
    rare = pl.read_parquet(tmp_path / "out" / "rare_labels.parquet")
    assert rare.select("label", "rows", "groups", "train").rows() == [("once", 1, 1, 1), ("twice", 2, 2, 2)]


@pytest.mark.parametrize("groups", [3, 4, 7])
def test_three_groups_are_enough_for_three_splits(cut, groups):
    """Even when nearly all rows of the label are in one group."""
    rows = [chat(noise(at), "ok", label="a", group="big") for at in range(40)] + [
        chat(noise(100 + at), "ok", label="a") for at in range(groups - 1)
    ]
    found = cut(rows)
    assert set(found.values()) == set(SPLITS)
    assert {found[line] for line in range(1, 41)} == {"train"}


def test_ratios_may_leave_a_split_empty(cut):
    found = cut([chat(noise(at), "ok", label="a") for at in range(20)], "ratios=[0.75, 0, 0.25]")
    assert sizes(found) == [15, 0, 5]


@pytest.mark.parametrize("ratios", ["[0.5, 0.5, 0.5]", "[0, 0.5, 0.5]", "[1.2, -0.1, -0.1]"])
def test_impossible_ratios_are_refused(ratios):
    with pytest.raises(ParamsError, match="ratios"):
        section("split", split.Params, f"ratios={ratios}")


def test_pinned_rows_stay_when_rows_are_added(cut, tmp_path):
    rows = [chat(noise(at), "ok", label="a") for at in range(60)]
    before = cut(rows)
    pins = tmp_path / "pins.csv"
    pl.read_parquet(tmp_path / "out" / "assignments.parquet").select("id", "split").write_csv(pins)
    held = next(line for line, name in before.items() if name == "test")
    more = [*rows, chat(rows[held - 1]["messages"][0]["content"], "another answer", label="a")]
    more += [chat(noise(500 + at), "ok", label="a") for at in range(60)]
    after = cut(more, f"pinned={pins}", "seed=99")
    assert {line: after[line] for line in before} == before
    assert after[61] == "test"
    assert sizes(after)[0] == pytest.approx(97, abs=1)


@pytest.fixture
def apart(tmp_path):
    """Two rows pinned to train and test, and a third that is like both."""
    one, two = noise(1, 12), noise(2, 12)
    rows = [chat(one, "a"), chat(two, "b"), chat(f"{one} {two}", "c"), *(chat(noise(10 + at), "d") for at in range(9))]
    pins = tmp_path / "pins.csv"
    pins.write_text(f"id,split\n{rows[0]['id']},train\n{rows[1]['id']},test\n")
    return rows, pins


def test_a_group_pinned_into_two_splits_names_both_rows(cut, apart):
    rows, pins = apart
    with pytest.raises(StageFailure) as failure:
        cut(rows, f"pinned={pins}")
    for said in (rows[0]["id"], rows[1]["id"], "t.jsonl:1", "t.jsonl:2", "pin_conflicts=drop"):
        assert said in str(failure.value)


def test_the_row_that_ties_them_can_be_left_out(cut, apart, tmp_path):
    rows, pins = apart
    found = cut(rows, f"pinned={pins}", "pin_conflicts=drop")
    assert (found[1], found[2]) == ("train", "test")
    (gone,) = dropped(tmp_path / "out")
    assert (gone["line"], gone["reason"]) == (3, "ties_pinned_splits")
    assert {gone["evidence"]["kept_id"], gone["evidence"]["other_id"]} == {rows[0]["id"], rows[1]["id"]}


def test_pinned_twins_in_two_splits_are_always_an_error(cut, tmp_path):
    rows = [chat(noise(1), "a"), chat(noise(1), "b"), chat(noise(2), "c")]
    (tmp_path / "pins.csv").write_text(f"id,split\n{rows[0]['id']},train\n{rows[1]['id']},test\n")
    with pytest.raises(StageFailure, match="pinned into two splits"):
        cut(rows, f"pinned={tmp_path / 'pins.csv'}", "pin_conflicts=drop")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,split\na,tset\n", "'tset'"),
        ("id,part\na,test\n", "no column"),
        ("id,split\na,test\na,train\n", "two splits"),
        (None, "no such file"),
    ],
)
def test_a_bad_pin_file_is_explained(cut, tmp_path, content, said):
    pins = tmp_path / "pins.csv"
    if content is not None:
        pins.write_text(content)
    with pytest.raises(InputError, match=said):
        cut([chat("a", "b")], f"pinned={pins}")


def test_the_order_of_rows_does_not_matter(cut, tmp_path):
    rows = [
        chat(noise(at % 70), noise(at + 500), label=str(at % 4), group=str(at % 50) if at % 5 else None, line=at + 1) for at in range(100)
    ]
    first = cut(rows)
    random.Random(3).shuffle(rows)
    assert cut(rows, workers=2) == first


def test_no_rows_make_three_empty_splits(cut):
    assert cut([]) == {}


groups = st.lists(st.dictionaries(st.integers(0, 4), st.integers(1, 6), min_size=1, max_size=3), max_size=60)
shares = st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)])


def dealt(made, ratios, seed=0):
    counts = [(at, stratum, rows) for at, group in enumerate(made) for stratum, rows in group.items()]
    strata_seen = sorted({stratum for _, stratum, _ in counts})
    frame_ = pl.DataFrame(
        [(at, strata_seen.index(stratum), rows) for at, stratum, rows in counts],
        schema={"group": pl.Int64, "stratum": pl.Int64, "rows": pl.UInt32},
        orient="row",
    )
    found = strata.deal(frame_, [str(each) for each in strata_seen], [f"id{at}" for at in range(len(made))], {}, ratios, seed)
    return found.tolist()


@settings(max_examples=150, deadline=None)
@given(groups, shares, st.integers(0, 3))
def test_every_group_is_dealt_and_empty_shares_get_nothing(made, ratios, seed):
    found = dealt(made, ratios, seed)
    assert len(found) == len(made)
    assert all(ratios[place] > 0 for place in found)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), max_size=60), shares)
def test_a_label_misses_its_ratio_by_one_group_at_most_and_is_in_every_split(made, ratios):
    """For groups of one label each: where the ratio cannot be met, the biggest group bounds how far it is missed."""
    found = dealt([{stratum: rows} for stratum, rows in made], ratios)
    open_splits = [at for at, ratio in enumerate(ratios) if ratio > 0]
    for stratum in {stratum for stratum, _ in made}:
        mine = [(rows, place) for (each, rows), place in zip(made, found, strict=True) if each == stratum]
        total, biggest = sum(rows for rows, _ in mine), max(rows for rows, _ in mine)
        if len(mine) >= len(open_splits):
            assert {place for _, place in mine} == set(open_splits)
        for place in open_splits:
            assert abs(sum(rows for rows, at in mine if at == place) - ratios[place] * total) <= biggest + len(open_splits)


@settings(max_examples=60, deadline=None)
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


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not here")
def test_every_intent_of_banking77_is_in_all_three_splits(tmp_path):
    train = pl.read_csv(SHARED / "banking77_train.csv", infer_schema=False)
    source = write_input(frame([chat(text, label, label=label) for text, label in train.rows()]), tmp_path / "in")
    metrics = run_stage(split.STAGE, source, tmp_path / "out")
    balance = pl.read_parquet(tmp_path / "out" / "balance.parquet")
    assert balance.height == 77
    assert min(balance[name].min() for name in SPLITS) >= 1
    assert metrics["counts"]["groups_crossing"] == 0
    assert metrics["counts"]["rows_train"] == pytest.approx(8002, abs=30)
