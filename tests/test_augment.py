"""Synthetic rows: only in train, only of rare labels, never near what is held out, and traceable."""

import json
import random
import time

import numpy as np
import polars as pl
import pytest

from curate import augment, matching, ngrams, perturb, record
from curate.likeness import likeness
from curate.record import InputError, ParamsError
from curate.stage import read_rows
from tests.helpers import chat, document, frame, preference, run_stage, section, write_input
from tests.test_split import noise


@pytest.fixture(autouse=True)
def folders(tmp_path):
    (tmp_path / "benchmarks").mkdir()


@pytest.fixture
def grow(tmp_path):
    """Augments {split: rows}; gives back (metrics, rows of train, synthetic rows of it)."""

    def go(splits, *overrides, out="out", workers=1):
        source = write_input(frame([]), tmp_path / "in", {name: frame(splits.get(name, [])) for name in record.SPLITS})
        metrics = run_stage(augment.STAGE, source, tmp_path / out, f"benchmarks={tmp_path / 'benchmarks'}", *overrides, workers=workers)
        train = read_rows(tmp_path / out, "train")
        made = train.filter(pl.col("meta").str.json_path_match("$.synthetic.parent").is_not_null())
        assert metrics["added"] == metrics["counts"]["made"] == made.height if "made" in metrics["counts"] else metrics["added"] == 0
        return metrics, train, made

    return go


def said(rows: pl.DataFrame) -> list[str]:
    return [row[0]["content"] for row in rows["messages"].to_list()]


RARE = [
    chat(f"Where is my parcel, the one from {noise(at, 3)}?", f"It is on its way {at}.", label="rare", source="r.csv") for at in range(5)
]
MANY = [chat(noise(100 + at), "ok", label="many") for at in range(60)]


def test_rare_labels_are_raised_and_copies_stand_behind_their_parents(grow):
    metrics, train, made = grow({"train": RARE + MANY}, "floor=12", "max_share=0.5")
    assert metrics["added"] == 7
    assert made["label"].unique().to_list() == ["rare"]
    ids = train["id"].to_list()
    assert len(set(ids)) == len(ids)
    for row in made.iter_rows(named=True):
        proof = json.loads(row["meta"])["synthetic"]
        parent = train.row(ids.index(proof["parent"]), named=True)
        assert (row["source"], row["line"], row["label"]) == (parent["source"], parent["line"], parent["label"])
        assert row["messages"][1] == parent["messages"][1]  # the answer
        assert row["messages"][0] != parent["messages"][0]
        assert 0 < ids.index(row["id"]) - ids.index(proof["parent"]) <= 2
        assert row["id"] == record.content_id(row["kind"], row["messages"], row["rejected"], row["label"])
        assert proof["method"].split("+")[0] in ("typos", "punctuation", "greeting")
    originals = train.filter(~pl.col("id").is_in(made["id"].implode()))
    assert originals["id"].to_list() == [row["id"] for row in RARE + MANY]


def test_caps_hold(grow):
    assert grow({"train": RARE + MANY}, "floor=50", "max_share=0.9", "max_per_parent=3")[0]["counts"]["wanted"] == 15
    assert grow({"train": RARE + MANY}, "floor=50", "max_share=0.1")[0]["counts"]["wanted"] == 7  # 7 / (65 + 7) < 0.1 < 8 / 73
    assert grow({"train": RARE + MANY}, "floor=50", "max_share=0")[0]["added"] == 0
    assert grow({"train": RARE + MANY}, "floor=null")[0]["added"] == 0


def test_the_rarest_are_raised_first(grow, tmp_path):
    rows = [chat(noise(at), "ok", label=label) for at, label in enumerate(["a"] * 4 + ["b"] * 9 + ["c"] * 60)]
    grow({"train": rows}, "floor=20", "max_share=0.06")
    assert pl.read_parquet(tmp_path / "out" / "wanted.parquet").select("label", "wanted").rows() == [("a", 4), ("b", 0)]


def test_held_out_splits_and_unlabelled_rows_are_left_alone(grow, tmp_path):
    plain = [document("A plain text."), chat("No label here", "ok")]
    grow({"train": [*MANY, *plain], "validation": RARE[:2], "test": RARE[2:]}, "floor=40")
    assert read_rows(tmp_path / "out", "validation")["id"].to_list() == [row["id"] for row in RARE[:2]]
    assert read_rows(tmp_path / "out", "test")["id"].to_list() == [row["id"] for row in RARE[2:]]
    assert read_rows(tmp_path / "out", "train").height == 62


def test_a_switched_off_stage_passes_rows_on(grow):
    assert grow({"train": RARE}, "enabled=false")[1].height == 5


def test_both_sides_of_a_preference_change_alike(grow):
    rows = [preference(f"Could you explain {noise(at, 5)} to me?", f"Yes {at}.", f"No {at}.", label="rare") for at in range(6)]
    _, _, made = grow({"train": rows}, "floor=12", "max_share=0.6")
    assert made.height == 6
    for row in made.iter_rows(named=True):
        assert row["messages"][0] == row["rejected"][0]
        assert (row["messages"][1]["content"][:3], row["rejected"][1]["content"][:2]) == ("Yes", "No")


def test_nothing_comes_near_held_out_rows(grow):
    """Held-out rows just below the threshold to a parent: a copy may not cross it, nor cover more of their n-grams."""
    draw = random.Random(5)
    rows, held = [], []
    for at in range(40):
        words = noise(at, 7).split()
        rows.append(chat("Hi, " + " ".join(words), "yes", label="rare"))
        other = words.copy()
        other[draw.randrange(7)] = noise(1000 + at, 1)
        held.append(chat(["Hello! Hi, ", "Hi, "][at % 2] + " ".join(other), "yes", label=["rare", "else"][at % 3 == 0]))
    twins = [chat(row["messages"][0]["content"].removeprefix("Hi, ") + "?", "yes", label="rare") for row in rows[:10]]
    for threshold in (0.8, 0.6):
        metrics, _, made = grow(
            {"train": rows, "test": held + twins}, "floor=120", "max_share=0.8", "max_per_parent=4", f"threshold={threshold}"
        )
        assert made.height > 10
        copies, others = likeness(made, 8), likeness(frame(held + twins), 8)
        assert matching.matches(others["shingles"], copies["shingles"], threshold).height == 0
        assert not set(copies["asked"]) & set(others["asked"])
        before = cover(likeness(frame(rows), 8)["grams"], others["grams"])
        assert cover(copies["grams"], others["grams"]) <= before
    assert metrics["counts"]["not_made_near_held_out"] > 0


def cover(ours: pl.Series, theirs: pl.Series) -> float:
    """The largest share of anybody's n-grams that a row of the other side has."""
    sets = pl.concat([ours, theirs])
    sides = np.array([0] * len(ours) + [1] * len(theirs))
    return float(ngrams.containing(sets, 1e-9, 1000, sides=sides)["coverage"].max() or 0)  # type: ignore[arg-type]


def test_no_copy_repeats_a_text_or_comes_near_a_benchmark(grow, tmp_path):
    greeted = [chat(f"{greeting} {RARE[0]['messages'][0]['content']}", "x", label="many") for greeting in ("Hello!", "hello!  ")]
    metrics, _, made = grow(
        {"train": [RARE[0], *greeted, *MANY]},
        "floor=20",
        "max_share=0.5",
        "max_per_parent=10",
        "methods=[greeting]",
        "greetings=['Hello!']",
    )
    assert made.height == 0
    assert metrics["counts"]["not_made_repeats"] > 0
    (tmp_path / "benchmarks" / "b.jsonl").write_text(json.dumps({"question": "Good day. " + RARE[1]["messages"][0]["content"]}))
    metrics, _, made = grow({"train": [RARE[1], *MANY]}, "floor=20", "max_share=0.5", "methods=[greeting]", "greetings=['Good day!']")
    assert made.height == 0
    assert metrics["counts"]["not_made_near_benchmark"] > 0


def test_the_same_rows_whatever_the_order_and_the_workers(grow):
    rows = [row | {"line": at} for at, row in enumerate(RARE + MANY, 1)]
    first = set(grow({"train": rows}, "floor=12", "max_share=0.5")[2]["id"])
    random.Random(1).shuffle(rows)
    assert set(grow({"train": rows}, "floor=12", "max_share=0.5", workers=2)[2]["id"]) == first
    assert set(grow({"train": rows}, "floor=12", "max_share=0.5", "seed=4")[2]["id"]) != first


def test_rows_without_splits_are_refused(tmp_path):
    source = write_input(frame(RARE), tmp_path / "in")
    with pytest.raises(InputError, match="Run split first"):
        run_stage(augment.STAGE, source, tmp_path / "out", f"benchmarks={tmp_path / 'benchmarks'}")


def test_case_alone_and_no_greetings_are_refused():
    with pytest.raises(ParamsError, match="case alone folds away"):
        section("augment", augment.Params, "methods=[case]")
    with pytest.raises(ParamsError, match="greetings is empty"):
        section("augment", augment.Params, "greetings=[]")


KEPT = [
    "```python\nvalue = compute(alpha, beta)\n```",
    "`git status --short`",
    "https://help.pellmoor.example/article?name=some-words",
    "someone@example.com",
    "[EMAIL_ADDRESS]",
    "<PERSON_1>",
    "{{ customer }}",
    "17.50",
    "£27",
    "12 + 35 * 7",
    "snake_case_name",
    "path/to/file",
    "300Mbit",
]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("methods", [["typos", "case"], ["punctuation", "case"], ["greeting", "case"]])
def test_code_numbers_addresses_and_placeholders_never_change(kept, methods):
    text = f"Hello Maria, please look, when there's time, at {kept} before tomorrow evening, or don't bother."
    results = {
        perturb.perturbed([{"role": "user", "content": text, "extra": None}], str(at), methods, ["Hey!"])[0][0]["content"]
        for at in range(40)
    }
    assert len(results) > 1
    assert all(kept in each for each in results)


def test_only_the_user_is_changed_and_names_get_no_typos():
    talk = [
        {"role": "system", "content": "Always answer politely, whatever happens.", "extra": None},
        {"role": "user", "content": "Where does Annabelle live these days?", "extra": None},
        {"role": "assistant", "content": "Nobody around here could tell you.", "extra": "{}"},
        {"role": "user", "content": "Please find somebody else then!", "extra": None},
    ]
    for at in range(30):
        changed, method = perturb.perturbed(talk, str(at), ["typos", "greeting"], ["Hello."])
        assert (changed[0], changed[2]) == (talk[0], talk[2])
        assert "Annabelle" in changed[1]["content"]
        assert changed != talk
        if method == "greeting":
            assert changed[1]["content"].startswith("Hello. ") and changed[3] == talk[3]


def test_a_word_of_a_million_letters_takes_no_longer_than_its_length_says() -> None:
    start = time.perf_counter()
    for at, method in enumerate(("typos", "punctuation", "case")):
        talk = [{"role": "user", "content": "W" * 1_000_000 + " why", "extra": None}]
        perturb.perturbed(talk, str(at), [method] if method != "case" else ["greeting", "case"], ["Hey!"])
    assert time.perf_counter() - start < 60, "its square would be hours"
