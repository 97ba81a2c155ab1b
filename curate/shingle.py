"""Texts to sets of shingles, the one meaning of "alike" in Finery, for whole columns at once.

A shingle is three words in a row or, in a short text, five characters in a row. Words are runs of letters and digits; every other
character that is not white space, and every character of a script written without spaces, is a word of its own, so digits, operators and
brackets count. Up to `SHORT` characters a text has character shingles, from `LONG` characters on word shingles, and between the two it has
both: two texts can always be compared by what both have (see `likeness.py` for how, and docs/near-duplicates.md for why).

Texts are folded here (`record.fold`: NFKC, lower case, white space). The two sides of a row, prompt and answer, have shingles of their own:
none runs from one into the other, and the same words on different sides are different shingles.
"""

import threading
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from curate import letters, record
from curate.compiled import compiled
from curate.memory import Exported, as_lists, one_view, owned, starts, text_places

CHARACTERS = 5  # of a shingle of a short text
WORDS = 3  # of a shingle of a long text
LONG = 256  # characters: from here on a text has word shingles
SHORT = 512  # characters: below, it has character shingles
SHINGLING = f"3: {WORDS} words from {LONG} characters on, {CHARACTERS} characters below {SHORT}"  # renew the number when hashes change
PARTS = 4  # character shingles of the prompt, of the answer, word shingles of the prompt, of the answer
SET = pl.Struct({"hashes": pl.List(pl.UInt32()), "parts": pl.Array(pl.UInt32(), PARTS)})

_ODD, _MIX = letters.ODD, letters.MIX
MOST_BITS = 20  # of a hash by which sets are sorted into buckets
_scratch = threading.local()  # of each thread, used again: memory that is new costs more to get than to fill


def shingles(prompts: pl.Series, answers: pl.Series | None = None) -> pl.Series:
    """The shingle sets of rows: a struct of `hashes` (list[u32]) and `parts` (four sizes) for each.

    The hashes are those of the parts one after the other (character shingles of the prompt, of the answer, word shingles of the prompt,
    of the answer), each part sorted and without repeats. Null is an empty text; an empty row has no shingle. A side shorter than one
    shingle is one shingle.

    >>> shingles(pl.Series(["Where is my card?", ""])).struct.field("parts").to_list()
    [[13, 0, 0, 0], [0, 0, 0, 0]]
    """
    count = len(prompts)
    answers = pl.repeat("", count, dtype=pl.String, eager=True) if answers is None else answers
    places = _places(prompts.fill_null(""), answers.fill_null(""))
    size = sum(int((last - first).sum()) for first, last in (places.prompts, places.answers))
    values, sizes = _room(2 * size + PARTS * count), np.zeros((count, PARTS), dtype=np.uint32)
    tables = letters.FOLDED, letters.CODES, letters.CLASSES
    used = _shingle_rows(places.data, *places.prompts, *places.answers, *tables, values, sizes)
    hashes = as_lists(owned(values[:used]), sizes.sum(axis=1, dtype=np.int64))
    return pl.DataFrame({"hashes": hashes, "parts": pl.Series(sizes)}).to_struct("shingles").cast(SET)


def _room(size: int) -> np.ndarray:
    """At least so many u32 that nobody else in this thread needs now."""
    values: np.ndarray = getattr(_scratch, "values", np.empty(0, dtype=np.uint32))
    if values.size < size:
        values = _scratch.values = np.empty(size, dtype=np.uint32)
    return values


class _Places(NamedTuple):
    """UTF-8 of the texts of both sides, read where it lies, and where each starts and ends in `data`."""

    data: np.ndarray
    prompts: tuple[np.ndarray, np.ndarray]
    answers: tuple[np.ndarray, np.ndarray]
    held: tuple[np.ndarray, ...]  # keeps the memory


def _places(*sides: pl.Series) -> _Places:
    """Texts that cannot be folded character by character are folded here, which is slow: only their words that are not ASCII are."""
    found, memory = [], []
    for texts in sides:
        first, last, held = text_places(texts)
        data, base = one_view(held)
        hard = letters.hard_texts(data, first - base, last - base, letters.HARD)
        if len(hard):
            folded, ends = _folded(data, first[hard] - base, last[hard] - base)
            first[hard], last[hard] = folded.ctypes.data + np.concatenate((ends[:1] * 0, ends[:-1])), folded.ctypes.data + ends
            held.append(folded)
        found.append((first, last))
        memory += held
    data, base = one_view(memory)
    prompts, answers = ((first - base, last - base) for first, last in found)
    return _Places(data, prompts, answers, tuple(memory))


def _folded(data: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texts after `record.fold_letters`: UTF-8, one after the other, and where each ends."""
    words = begin, end, _ = letters.odd_words(data, first, last)
    parts = [None, owned(starts(end - begin)), owned(letters.cut_out(data, begin, end))]
    cut = pl.Series(Exported(pa.Array.from_buffers(pa.large_string(), len(begin), parts)))
    other_first, other_last, held = text_places(record.fold_letters(cut))
    other, base = one_view(held)
    return letters.put_in(data, first, last, words, (other, other_first - base, other_last - base))


def spelled(prompt: str, answer: str = "") -> tuple[set[str], set[str]]:
    """The shingles of one row in letters, by characters and by words: for people and tests, `shingles` is for columns.

    >>> sorted(spelled("Pay 12+35.")[0])
    ['prompt: " 12+3"', 'prompt: "12+35"', 'prompt: "2+35."', 'prompt: "ay 12"', 'prompt: "pay 1"', 'prompt: "y 12+"']
    """
    folded = pl.DataFrame({"text": [prompt, answer]}).select(record.fold(pl.col("text")))["text"].to_list()
    sides = tuple(zip(("prompt", "answer"), folded, strict=True))
    count = sum(len(text) for text in folded)
    by_characters = {f'{side}: "{each}"' for side, text in sides for each in _windows(list(text), CHARACTERS, "")}
    by_words = {f'{side}: "{each}"' for side, text in sides for each in _windows(_words(text), WORDS, " ")}
    return by_characters if count < SHORT else set(), by_words if count >= LONG else set()


def _windows(parts: list[str], width: int, between: str) -> list[str]:
    return [between.join(parts[at : at + width]) for at in range(max(len(parts) - width + 1, 1))] if parts else []


def _words(folded: str) -> list[str]:
    apart = (f" {char} " if char != " " and letters.is_alone(char) else char for char in folded)
    return [word for word in "".join(apart).split(" ") if word]


@compiled
def _shingle_rows(
    data: np.ndarray,
    prompt_from: np.ndarray,
    prompt_to: np.ndarray,
    answer_from: np.ndarray,
    answer_to: np.ndarray,
    folded: np.ndarray,
    codes: np.ndarray,
    classes: np.ndarray,
    values: np.ndarray,
    sizes: np.ndarray,
) -> int:
    """Fill `values` and `sizes`; returns how many values there are."""
    longest = 0
    for row in range(len(sizes)):
        longest = max(longest, prompt_to[row] - prompt_from[row], answer_to[row] - answer_from[row])
    points, kinds = np.empty(longest, dtype=np.uint32), np.empty(longest, dtype=np.uint8)
    words, used, room = np.empty((2, longest + 2), dtype=np.uint64), 0, _sorting_room(longest)
    for row in range(len(sizes)):
        of_prompt, prompt_words = letters.words(data, prompt_from[row], prompt_to[row], codes, words[0])
        of_answer, answer_words = letters.words(data, answer_from[row], answer_to[row], codes, words[1])
        if of_prompt + of_answer < SHORT:
            for side, first, last in ((0, prompt_from[row], prompt_to[row]), (1, answer_from[row], answer_to[row])):
                size = letters.read(data, first, last, folded, classes, points, kinds)
                sizes[row, side] = _character_shingles(points, kinds, size, side, values, used, room)
                used += sizes[row, side]
        if of_prompt + of_answer >= LONG:
            for side, found in ((0, prompt_words), (1, answer_words)):
                sizes[row, 2 + side] = _word_shingles(words[side], found, side, values, used, room)
                used += sizes[row, 2 + side]
    return used


@compiled
def _word_shingles(words: np.ndarray, size: int, side: int, values: np.ndarray, used: int, room: tuple[np.ndarray, np.ndarray]) -> int:
    """Write the distinct hashes of windows of three words at `used`; returns how many. One or two words are one window."""
    if size == 0:
        return 0
    for at in range(size):
        words[at] = (words[at] ^ (words[at] >> np.uint64(32))) * _MIX
    if size < WORDS:
        first = np.uint64(side + 1) if size == 1 else np.uint64(side + 1) * _ODD + words[0]
        values[used] = _spread(first * _ODD + words[size - 1])
        return 1
    for at in range(size - WORDS + 1):
        values[used + at] = _spread((words[at] * _ODD + words[at + 1]) * _ODD + words[at + 2])
    return _distinct(values, used, size - WORDS + 1, room)


@compiled
def _spread(value: np.uint64) -> np.uint32:
    """Two rounds of multiply and shift: every bit of the input reaches the upper half, which is the hash."""
    value ^= value >> np.uint64(32)
    value *= _MIX
    value ^= value >> np.uint64(32)
    value *= _MIX
    return np.uint32(value >> np.uint64(32))


@compiled
def _character_shingles(
    points: np.ndarray, kinds: np.ndarray, size: int, side: int, values: np.ndarray, used: int, room: tuple[np.ndarray, np.ndarray]
) -> int:
    """Fold the white space of a text and write the distinct hashes of windows of five characters at `used`; returns how many."""
    count, gap = 0, False
    for at in range(size):
        if kinds[at] == 0:
            gap = count > 0
            continue
        if gap:
            points[count] = 32
            count += 1
            gap = False
        points[count] = points[at]
        count += 1
    if count == 0:
        return 0
    if count < CHARACTERS:
        mixed = np.uint64(side + 1)
        for at in range(count):
            mixed = mixed * _ODD + np.uint64(points[at])
        values[used] = _spread(mixed)
        return 1
    for start in range(count - CHARACTERS + 1):
        mixed = np.uint64(side + 1)
        for at in range(CHARACTERS):  # a constant, so that the compiler can unroll it
            mixed = mixed * _ODD + np.uint64(points[start + at])
        values[used + start] = _spread(mixed)
    return _distinct(values, used, count - CHARACTERS + 1, room)


@compiled
def _distinct(values: np.ndarray, start: int, count: int, room: tuple[np.ndarray, np.ndarray]) -> int:
    """Sort values[start : start + count] and close the gaps of repeats; returns how many are left. `room` is `_sorting_room`.

    Hashes are even, so one pass puts them into twice as many buckets as there are hashes, nearly in order, and insertion does the rest:
    on sets of 60 to 1,000 hashes in half to three quarters of the time of two radix passes.
    (Everything is unsigned: a place that cannot be negative is not checked for it.)
    """
    other, heads = room
    first, many, one = np.uint64(start), np.uint64(count), np.uint64(1)
    bits = np.uint64(4)
    while one << bits < many and bits < MOST_BITS:
        bits += one
    bits += one
    shift, total = np.uint64(32) - bits, np.uint32(0)
    heads[: (one << bits) + one] = 0
    for at in range(first, first + many):
        heads[(np.uint64(values[at]) >> shift) + one] += np.uint32(1)
    for at in range(one << bits):
        total += heads[at]
        heads[at] = total
    for at in range(first, first + many):
        bucket = np.uint64(values[at]) >> shift
        other[heads[bucket]] = values[at]
        heads[bucket] += np.uint32(1)
    for at in range(one, many):
        value, to = other[at], np.uint64(at)
        while to > 0 and other[to - one] > value:
            other[to] = other[to - one]
            to -= one
        other[to] = value
    kept, before = first, other[0]
    values[first] = before
    for at in range(one, many):
        value = other[at]
        kept += np.uint64(value != before)
        values[kept] = before = value
    return int(kept - first) + 1


@compiled
def _sorting_room(longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Memory to sort sets of at most so many hashes: the hashes by bucket, and where each bucket is."""
    buckets = 32
    while buckets < 2 * longest and buckets < 2 << MOST_BITS:
        buckets *= 2
    return np.empty(longest, dtype=np.uint32), np.empty(buckets + 1, dtype=np.uint32)
