"""Shingles: the compiled function against its plain Python definition, and what must be told apart."""

import random
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import record, shingle
from curate.memory import one_view, text_places
from curate.shingle import LONG, SHORT, shingles, spelled

LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MIXED = st.lists(
    st.sampled_from(["the ", "12+35 ", "ＡＢ", "ﬁ", "Ünï", "e\u0301", "中文", "ไทย", " \t\n", "Σας", "🙂", "f(x)=y;", "\u00a0"]),
    max_size=120,
)


def parts(prompt: str, answer: str = "") -> list[int]:
    return shingles(pl.Series([prompt]), pl.Series([answer])).struct.field("parts").to_list()[0]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(LETTERS | MIXED.map("".join), LETTERS | MIXED.map("".join)), min_size=1, max_size=4))
def test_as_many_shingles_as_the_definition_has(texts: list[tuple[str, str]]) -> None:
    made = shingles(*(pl.Series(side, dtype=pl.String) for side in zip(*texts, strict=True)))
    for (prompt, answer), row in zip(texts, made.to_list(), strict=True):
        by_characters, by_words = spelled(prompt, answer)
        counted = [sum(each.startswith(side) for each in some) for some in (by_characters, by_words) for side in ("prompt", "answer")]
        assert row["parts"] == counted
        assert len(row["hashes"]) == sum(counted)
        starts = [sum(counted[:at]) for at in range(5)]
        for start, stop in pairwise(starts):
            assert row["hashes"][start:stop] == sorted(set(row["hashes"][start:stop]))


@pytest.mark.parametrize("spread", [1 << 32, 1 << 20, 50])
def test_sets_are_sorted_without_repeats(spread: int) -> None:
    """Random hashes, hashes that share their upper bits, and few hashes again and again."""
    draw = np.random.default_rng(3)
    room = shingle._sorting_room(70_000)
    for count in (1, 2, 3, 15, 16, 17, 300, 5_000, 70_000):
        values = draw.integers(0, spread, count + 2, dtype=np.uint32)
        expected = np.unique(values[1:-1])
        kept = shingle._distinct(values, 1, count, room)
        assert values[1 : 1 + kept].tolist() == expected.tolist()


@settings(max_examples=100, deadline=None)
@given(LETTERS | MIXED.map("".join))
def test_folding_here_is_the_folding_of_the_record(text: str) -> None:
    """Case, white space and compatibility forms make no difference; the same letters do not get other hashes."""
    folded = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    again = unicodedata.normalize("NFKC", folded).lower()
    if unicodedata.normalize("NFKC", text.lower()) == again or text.isascii():
        same = shingles(pl.Series([text, text.upper() if text.isascii() else text, f"  {text} "])).to_list()
        assert same[0] == same[1] == same[2]


def test_words_are_folded_as_their_texts_are() -> None:
    """Marks that join, vowels and finals of Korean, a sigma at the end of a word: none of them reaches over white space."""
    draw = random.Random(1)
    odd = [chr(each) for first, last in ((1, 0x400), (0x1100, 0x1200), (0x2000, 0x2100)) for each in range(first, last)]
    odd += list("\u3099かﬁ🙂가ͅ")
    texts = [
        "".join(draw.choice(odd) if draw.random() < 0.3 else draw.choice(" abcΣσς\n\tE'.:") for _ in range(draw.randint(0, 40)))
        for _ in range(5000)
    ]
    whole = pl.Series(texts)
    first, last, held = text_places(whole)
    data, base = one_view(held)
    folded, ends = shingle._folded(data, first - base, last - base)
    ascii_lower = {each: each + 32 for each in range(65, 91)}  # which the tables fold
    made = [folded[start:end].tobytes().decode().translate(ascii_lower) for start, end in pairwise([0, *ends])]
    assert made == record.fold_letters(whole).to_list()


@pytest.mark.parametrize("text", ["한국어 문장은 이렇게 씁니다", "e\u0301t\u00e9", "ｱﾊﾟｰﾄ", "1\u03382", "\u0995\u09c7\u09be"])
def test_composed_and_decomposed_forms_are_the_same(text: str) -> None:
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    made = shingles(pl.Series(forms)).to_list()
    assert made[0] == made[1] == made[2] == made[3]


@pytest.mark.parametrize("text", ["\x96 of \u200e control", "well 😊👍🏽 done", "\ufeffstart", "a soft a\u00adb hyphen"])
def test_what_needs_no_fold_folds_to_itself(text: str) -> None:
    """Twice: by table, and beside a character for which the whole text is folded before."""
    alone, beside = (set(shingles(pl.Series([each])).to_list()[0]["hashes"]) for each in (text, f"{text} ﬁ"))
    assert alone <= beside


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    texts = ["", "naïve 𝒳𝒴 emoji 🙂🙂🙂", "ab", "the same text as ever", None, "x" * 900, "e\u0301t\u00e9 " * 80]
    whole = shingles(pl.Series(texts)).to_list()
    assert [shingles(pl.Series([text], dtype=pl.String)).to_list()[0] for text in texts] == whole


@pytest.mark.parametrize(
    ("one", "two"),
    [("yes", "no"), ("12+35-7", "999*3/41"), ("a+b", "a-b"), ("x=1", "x=2"), ("naïve", "naive"), ("don't", "dont"), ("可以吗", "不可以")],
)
def test_short_texts_are_told_apart(one: str, two: str) -> None:
    made = shingles(pl.Series([one, two]))
    assert made[0]["hashes"] != made[1]["hashes"]


def test_digits_and_operators_are_words_of_long_texts() -> None:
    frame = "Work out what follows and say the number alone, please, without any further explanation of how it was found. " * 3
    for one, two in (("12 + 35", "12 - 35"), ("12 + 35", "12 + 36"), ("f(x)", "f[x]")):
        a, b = (spelled(frame + each)[1] for each in (one, two))
        assert 0 < len(a ^ b) <= 12
        made = shingles(pl.Series([frame + one, frame + two])).to_list()
        assert set(made[0]["hashes"]) != set(made[1]["hashes"])


def test_short_long_and_between() -> None:
    assert [bool(each) for each in parts("ab " * (LONG // 3 - 2))] == [True, False, False, False]
    assert [bool(each) for each in parts("ab " * (LONG // 3), "cd " * 20)] == [True, True, True, True]
    assert [bool(each) for each in parts("ab " * SHORT, "c")] == [False, False, True, True]


def test_the_same_words_on_another_side_are_other_shingles() -> None:
    made = shingles(pl.Series(["the same words", ""]), pl.Series(["", "the same words"])).to_list()
    assert not set(made[0]["hashes"]) & set(made[1]["hashes"])


def test_languages_without_spaces_have_a_word_for_each_character() -> None:
    text = "今日は天気がとても良いので、公園まで散歩に行きませんか。" * 10
    assert len(spelled(text)[1]) == pytest.approx(28, abs=2)
    assert parts(text)[2] == len(spelled(text)[1])


def test_no_rows_have_no_shingles_in_a_thread_that_has_made_none_yet() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(shingles, pl.Series([], dtype=pl.String)).result().len() == 0
