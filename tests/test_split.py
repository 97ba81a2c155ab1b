"""Splits: no group crosses, labels keep the ratios, and the result does not hang on the order of the rows."""

import json
import random
from collections import Counter

import polars as pl
import pytest

from curate import columns, split, stage
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


# --- strata of several columns ----------------------------------------------------------------------------------------------------------


def with_meta(each, **meta):
    return each | {"meta": json.dumps(meta)}


def test_several_columns_keep_the_ratios_together(cut):
    rows = [with_meta(chat(noise(at), "ok", label="ab"[at % 2]), language=("en", "de", "en")[at % 3]) for at in range(120)]
    found = cut(rows, "stratify=[label, meta.language]")
    for label in "ab":
        for language, expected in (("en", [32, 4, 4]), ("de", [16, 2, 2])):
            mine = {
                line: name
                for line, name in found.items()
                if rows[line - 1]["label"] == label and json.loads(rows[line - 1]["meta"])["language"] == language
            }
            assert sizes(mine) == expected


def test_nested_keys_and_rows_without_the_key_are_a_stratum_of_their_own(cut):
    rows = [with_meta(chat(noise(at), "ok"), **({"a": {"b": at % 2}} if at < 40 else {})) for at in range(60)]
    found = cut(rows, "stratify=[meta.a.b]")
    assert sizes({line: name for line, name in found.items() if line > 40}) == [16, 2, 2]
    assert sizes({line: name for line, name in found.items() if line <= 40 and line % 2}) == [16, 2, 2]


def test_a_column_that_no_row_has_is_named_with_those_that_there_are(cut):
    rows = [with_meta(chat(noise(at), "ok"), language="en", topic=None) for at in range(4)]
    with pytest.raises(InputError, match=r"split\.stratify: no row has meta\.langauge\. Did you mean 'meta\.language'\?"):
        cut(rows, "stratify=[meta.langauge]")
    with pytest.raises(ParamsError, match=r"stratify = 'lable': expected label, source, kind, meta"):
        section("split", split.Params, "stratify=[lable]")
    assert len(cut(rows, "stratify=[]")) == 4


# --- official splits --------------------------------------------------------------------------------------------------------------------


OFFICIAL = "official={column: meta.fold, train: [train*], validation: [], test: [test, eval], conflicts: %s}"


def official(conflicts="drop"):
    return OFFICIAL % conflicts


def folds(*counts):
    """Rows that are officially train, then test, then of no fold."""
    names = [name for name, count in zip(("train-1", "eval", None), counts, strict=True) for _ in range(count)]
    return [with_meta(chat(noise(at), "ok"), **({"fold": name} if name else {})) for at, name in enumerate(names)]


def test_official_rows_keep_their_split_and_the_others_share_what_is_left(cut):
    found = cut(folds(30, 12, 90), official())
    assert {found[line] for line in range(1, 31)} == {"train"}
    assert {found[line] for line in range(31, 43)} == {"test"}
    assert sizes({line: name for line, name in found.items() if line > 42}) == [80, 10, 0]


def test_a_row_that_resembles_an_official_test_row_goes_and_the_test_row_stays(cut, tmp_path):
    rows = folds(20, 5, 20)
    asked = [rows[at]["messages"][0]["content"] for at in (20, 21, 22)]
    rows += [
        with_meta(chat(asked[0], "another answer"), fold="train-2"),
        chat(asked[1] + " so", "ok"),
        chat(f"{asked[2]}!", "ok", group="g"),
    ]
    rows += [chat(noise(900), "ok", group="g")]  # tied to it, but not like any test row
    found = cut(rows, official())
    assert {found[line] for line in range(21, 26)} == {"test"}
    assert found[49] in ("train", "validation")
    gone = {row["line"]: row for row in dropped(tmp_path / "out")}
    assert {line: row["evidence"]["kept_line"] for line, row in gone.items()} == {46: 21, 47: 22, 48: 23}
    assert {row["reason"] for row in gone.values()} == {"official_conflict"}
    assert gone[46]["evidence"] | {"kept_id": rows[20]["id"], "tie": "same prompt", "kept_split": "test"} == gone[46]["evidence"]
    assert pl.read_parquet(tmp_path / "out" / "official_conflicts.parquet").height == 0


def test_chains_to_an_official_test_row_cost_no_row_that_is_not_like_it(cut, tmp_path):
    """a ~ b ~ c, where only b is like c: b goes, a stays."""
    one, two = noise(1, 12), noise(2, 12)
    rows = [
        with_meta(chat(one, "a"), fold="train"),
        with_meta(chat(f"{one} {two}", "b"), fold="train"),
        with_meta(chat(two, "c"), fold="test"),
        *(chat(noise(10 + at), "d") for at in range(9)),
    ]
    found = cut(rows, official())
    assert (found[1], found[3], 2 in found) == ("train", "test", False)


def test_official_conflicts_can_be_an_error_or_be_kept_and_listed(cut, tmp_path):
    rows = folds(20, 5, 0)
    rows.append(with_meta(chat(rows[20]["messages"][0]["content"], "another"), fold="train"))
    with pytest.raises(StageFailure) as failure:
        cut(rows, official("error"))
    for said in (rows[20]["id"], rows[25]["id"], "t.jsonl:21", "t.jsonl:26", "split.official.conflicts=drop"):
        assert said in str(failure.value)
    found = cut(rows, official("keep"))
    assert (found[21], found[26], len(found)) == ("test", "train", 26)
    listed = pl.read_parquet(tmp_path / "out" / "official_conflicts.parquet").filter(pl.col("kind") == "same prompt")
    assert listed.select("left_line", "left_split", "right_line", "right_split").rows() == [(26, "train", 21, "test")]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["counts"]["groups_crossing"] == 1


def test_official_splits_by_file(cut):
    rows = [chat(noise(at), "ok", source=("a_train.csv", "a_test.csv")[at % 4 == 0], line=at + 1) for at in range(40)]
    found = cut(rows, "official={column: source, train: ['*_train.csv'], validation: [], test: ['*_test.csv'], conflicts: drop}")
    assert all((name == "test") == (line % 4 == 1) for line, name in found.items())


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("{column: meta.fold, train: [], validation: [], test: [held*], conflicts: drop}", "no value of meta.fold.*'eval', 'train-1'"),
        ("{column: meta.fold, train: ['*'], validation: [], test: [eval], conflicts: drop}", "'eval' is named for train and test"),
        ("{column: meta.part, train: [], validation: [], test: [eval], conflicts: drop}", r"no row has meta\.part.*meta\.fold"),
    ],
)
def test_official_splits_that_fit_no_row_are_explained(cut, told, said):
    with pytest.raises(InputError, match=said):
        cut(folds(3, 3, 0), f"official={told}")


def test_a_pin_against_the_official_split_is_refused(cut, tmp_path):
    rows = folds(3, 3, 0)
    (tmp_path / "pins.csv").write_text(f"id,split\n{rows[4]['id']},train\n")
    with pytest.raises(InputError, match=rf"{rows[4]['id']} \(t\.jsonl:5\) is pinned to train, but its official split is test"):
        cut(rows, official(), f"pinned={tmp_path / 'pins.csv'}")


# --- by time ----------------------------------------------------------------------------------------------------------------------------


def dated(days, **more):
    return [
        with_meta(chat(noise(at), "ok"), day=f"2024-03-{day:02d}" if isinstance(day, int) else day, **more) for at, day in enumerate(days)
    ]


def test_the_oldest_rows_train_and_the_newest_test(cut):
    days = list(range(1, 31))
    random.Random(5).shuffle(days)
    found = cut(dated(days), "temporal=meta.day")
    for line, name in found.items():
        assert name == ("train" if days[line - 1] <= 24 else "validation" if days[line - 1] <= 27 else "test")


def test_a_group_goes_where_its_newest_row_is_and_a_day_is_never_cut(cut, tmp_path):
    rows = dated([1] * 20 + [2] * 4 + [3] * 6)
    rows[0] |= {"group": "g"}
    rows[29] |= {"group": "g"}
    found = cut(rows, "temporal=meta.day")
    assert [{found[line] for line in lines} for lines in (range(2, 21), range(21, 25), range(25, 31))] == [
        {"train"},
        {"validation"},
        {"test"},
    ]
    assert found[1] == "test"
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["counts"]["train_rows_newer_than_a_test_group"] == 0


@pytest.mark.parametrize("bad", ["soon", None, "", True, "2024-13-01"])
def test_a_row_without_a_date_is_named(cut, bad):
    rows = dated([1, 2, 3, 4])
    rows[2] = with_meta(rows[2], day=bad)
    with pytest.raises(InputError, match=r"1 rows have no date.*t\.jsonl:3.*meta\.day"):
        cut(rows, "temporal=meta.day")


def test_too_few_moments_are_explained(cut):
    with pytest.raises(InputError, match=r"meta\.day has 2 different moments for 3 splits"):
        cut(dated([1, 1, 2, 2]), "temporal=meta.day")
    assert sizes(cut(dated([1, 1, 2, 2]), "temporal=meta.day", "ratios=[0.5, 0, 0.5]")) == [2, 0, 2]


def test_dates_are_read_in_many_forms():
    same = [
        "2024-03-01",
        "2024-03",
        "20240301",
        "2024-03-01T00:00:00Z",
        "2024-03-01 01:00:00+01:00",
        1709251200,
        1709251200.0,
        1709251200000,
    ]
    assert {columns.microseconds(each) for each in same} == {1709251200000000}
    assert [columns.microseconds(each) for each in ("yesterday", None, True, [], "3", float("inf"))] == [None] * 6


# --- settled rows and pins --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def added(tmp_path):
    """Splits 60 rows, then new rows against them; gives back ({line: split} of the first, {line: split} of the new)."""

    def go(rows, new, *overrides):
        run_stage(split.STAGE, write_input(frame(rows), tmp_path / "in"), tmp_path / "settled")
        settled = {line: name for name in SPLITS for line in read_rows(tmp_path / "settled", name)["line"].to_list()}
        params = section("split", split.Params, *overrides)
        more = new(settled)
        stage.run(split.STAGE, write_input(frame(more), tmp_path / "more"), tmp_path / "out", params, against=tmp_path / "settled")
        return settled, {line: name for name in SPLITS for line in read_rows(tmp_path / "out", name)["line"].to_list()}

    return go


def test_a_new_row_goes_where_the_settled_row_that_it_resembles_is(added, tmp_path):
    rows = [chat(noise(at), "ok", label="a") for at in range(60)]

    def new(settled):
        lines = [next(line for line, each in settled.items() if each == name) for name in SPLITS]
        alike = [chat(rows[line - 1]["messages"][0]["content"], "new", label="a", line=1000 + at) for at, line in enumerate(lines)]
        return alike + [chat(noise(500 + at), "ok", label="a", line=2000 + at) for at in range(57)]

    _, found = added(rows, new)
    assert [found[1000 + at] for at in range(3)] == list(SPLITS)
    assert sizes(found) == [48, 6, 6]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["rows_in"], metrics["counts"]["rows_train"], metrics["counts"]["rows_test"]) == (60, 48, 6)
    assert pl.read_parquet(tmp_path / "out" / "assignments.parquet").height == 120


def test_a_new_row_like_settled_rows_of_two_splits_is_left_out(added, tmp_path):
    rows = [chat(noise(at, 12), "ok") for at in range(60)]

    def torn(settled):
        one, two = (next(line for line, each in settled.items() if each == name) for name in ("train", "test"))
        return [chat(" ".join(rows[line - 1]["messages"][0]["content"] for line in (one, two)), "x"), chat(noise(900), "y")]

    _, found = added(rows, torn, "pin_conflicts=drop")
    assert set(found) == {2}
    (gone,) = dropped(tmp_path / "out")
    assert (gone["line"], gone["reason"]) == (1, "ties_pinned_splits")
    with pytest.raises(StageFailure, match="pinned into two splits"):
        added(rows, torn)


def test_settled_rows_must_have_splits(tmp_path):
    params = section("split", split.Params)
    here, there = (write_input(frame([chat(noise(at), "x")]), tmp_path / name) for at, name in enumerate(("in", "known")))
    with pytest.raises(InputError, match="its rows have no splits"):
        stage.run(split.STAGE, here, tmp_path / "out", params, against=there)


def test_settled_rows_that_resemble_each_other_across_splits_stop_nobody(tmp_path):
    """What is settled is settled: the gate is for that. A new row like both goes nowhere, one like neither is dealt."""
    twins = {"train": frame([chat(noise(1), "a")]), "validation": frame([]), "test": frame([chat(noise(1), "b")])}
    known = write_input(frame([]), tmp_path / "known", twins)
    here = write_input(frame([chat(noise(1), "c"), chat(noise(2), "d")]), tmp_path / "in")
    stage.run(split.STAGE, here, tmp_path / "out", section("split", split.Params, "pin_conflicts=drop"), against=known)
    assert [row["line"] for row in dropped(tmp_path / "out")] == [1]


def test_all_files_of_a_pin_folder_count(cut, tmp_path):
    rows = [chat(noise(at), "ok") for at in range(30)]
    (tmp_path / "pins").mkdir()
    assert cut(rows, f"pinned={tmp_path / 'pins'}") == cut(rows)
    (tmp_path / "pins" / "README.md").write_text("no pins")
    (tmp_path / "pins" / "a.csv").write_text(f"id,split\n{rows[0]['id']},test\nnobody,train\n")
    pl.DataFrame({"id": [rows[1]["id"]], "split": ["validation"]}).write_parquet(tmp_path / "pins" / "b.parquet")
    found = cut(rows, f"pinned={tmp_path / 'pins'}")
    assert (found[1], found[2]) == ("test", "validation")
    counts = json.loads((tmp_path / "out" / "metrics.json").read_text())["counts"]
    assert (counts["pinned_rows"], counts["pins_unused"]) == (2, 1)


def test_a_label_of_which_every_row_is_left_out_is_no_trouble(cut, tmp_path):
    one, two = noise(1, 12), noise(2, 12)
    rows = [chat(one, "a", label="x"), chat(two, "b", label="x"), chat(f"{one} {two}", "c", label="z")]
    pins = tmp_path / "pins.csv"
    pins.write_text(f"id,split\n{rows[0]['id']},train\n{rows[1]['id']},test\n")
    assert set(cut(rows, f"pinned={pins}", "pin_conflicts=drop")) == {1, 2}


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
