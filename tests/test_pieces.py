"""Ids of pieces, joined, against ids of the whole texts, for every family of tokenizers that is divided, and those that are not."""

import random
from itertools import pairwise
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from curate import pieces

SPECIAL = ["<|im_start|>", "<|im_end|>"]
PARTS = [
    "a", "the", "Hold", "pin", "x", "I", "'s", "'S", "'", "'ll", " ", " ", " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "1", "12345",
    "é", "e\u0301", "\u0301", "ß", "日本", "🙂", ".", "...", "/", "_", "A", "ABC", "Don't", *SPECIAL, "\0", "<", "|",
]  # fmt: skip
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
STEPS: dict[str, list[Any]] = {
    "GPT-2": [GPT2],
    "digits apart": [pre_tokenizers.Digits(individual_digits=True), GPT2],
    **{each: [pre_tokenizers.Split(Regex(each), "isolated"), BYTES] for each in sorted(pieces.EXPRESSIONS)},
    "removed": [pre_tokenizers.Split(Regex(min(pieces.EXPRESSIONS)), "removed", invert=True), BYTES],
}
CORPUS = ["Hold the pin, it's 15 seconds. Don't let the hub restart.", "naïve café 日本 🙂", "the pin the hub the x"] * 5


def texts(count: int, seed: int) -> list[str]:
    chosen = random.Random(seed)
    return ["".join(chosen.choices(PARTS, k=chosen.randrange(40))) for _ in range(count)]


def tokenizer(steps: list[Any], normalizer: Any = None, added: list[Any] | None = None) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        [*CORPUS, *texts(200, 1)],
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False),
    )
    made.add_tokens(added or [])
    return made


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["as it is", "NFC"])
def test_ids_of_pieces_are_those_of_the_whole(steps: str, normalizer: Any) -> None:
    added = [AddedToken("Hold", lstrip=True), AddedToken(" pin", single_word=False), AddedToken("<x>", rstrip=True)]
    backend = tokenizer(STEPS[steps], normalizer, added)
    assert pieces.divisible(backend)
    known: dict[str, Any] = {}
    for seed, count in ((2, 600), (3, 600), (4, 1)):  # the second and third time most pieces are known
        given = [*texts(count, seed), "", " ", "a", "a ", " a", "a b", "", "b c d"]
        ids, at = pieces.encode(given, backend, known)
        for text, (start, stop) in zip(given, pairwise(at), strict=True):
            assert ids[start:stop].tolist() == backend.encode(text, add_special_tokens=False).ids, repr(text)
    assert known and all(len(piece) <= pieces.LONG for piece in known)


@pytest.mark.parametrize("given", [[], [""], ["", ""], ["a"], [" "]])
def test_few_and_empty_texts(given: list[str]) -> None:
    backend = tokenizer([GPT2])
    cases: list[dict[str, Any] | None] = [{}, None]
    for known in cases:
        ids, at = pieces.encode(given, backend, known)
        assert [ids[start:stop].tolist() for start, stop in pairwise(at)] == [backend.encode(text).ids for text in given]


@pytest.mark.parametrize(
    "backend",
    [
        tokenizer([pre_tokenizers.Metaspace()]),
        tokenizer([BYTES]),
        tokenizer([pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        tokenizer([pre_tokenizers.Split(Regex(r"\p{L}+ \p{L}+"), "isolated"), GPT2]),
        tokenizer([pre_tokenizers.Split(Regex(min(pieces.EXPRESSIONS)), "merged_with_next"), BYTES]),
        tokenizer([GPT2], normalizers.Replace(" ", "▁")),
        tokenizer([GPT2], added=["the pin"]),
        tokenizer([GPT2], added=[AddedToken("hub", rstrip=True)]),
        tokenizer([GPT2], added=[AddedToken(" pin", single_word=True)]),
    ],
    ids=["metaspace", "no expression", "prefix space", "unknown expression", "merged", "normalizer", "two words", "rstrip", "single word"],
)
def test_what_may_look_over_a_border_is_not_divided(backend: Tokenizer) -> None:
    assert not pieces.divisible(backend)
    ids, at = pieces.encode(["Hold the pin", "the hub"], backend, None)
    assert [ids[at[0] : at[1]].tolist(), ids[at[1] : at[2]].tolist()] == [backend.encode(each).ids for each in ("Hold the pin", "the hub")]


def test_a_model_with_dropout_is_not_divided() -> None:
    backend = tokenizer([GPT2])
    backend.model.dropout = 0.1
    assert not pieces.divisible(backend)
