"""Texts to sets of shingles, the one meaning of "alike" in Finery, for whole columns at once.

A shingle is three words in a row or, in a short text, five characters in a row. Words are runs of letters and digits; every other
character that is not white space, and every character of a script written without spaces, is a word of its own, so digits, operators and
brackets count. Up to `SHORT` characters a text has character shingles, from `LONG` characters on word shingles, and between the two it has
both: two texts can always be compared by what both have (see `likeness.py` for how, and docs/near-duplicates.md for why).

Texts are folded here (`record.fold`: NFKC, lower case, white space). The two sides of a row, prompt and answer, have shingles of their own:
none runs from one into the other, and the same words on different sides are different shingles.
"""

import unicodedata
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from curate import record
from curate.compiled import compiled

CHARACTERS = 5  # of a shingle of a short text
WORDS = 3  # of a shingle of a long text
LONG = 256  # characters: from here on a text has word shingles
SHORT = 512  # characters: below, it has character shingles
SHINGLING = f"1: {WORDS} words from {LONG} characters on, {CHARACTERS} characters below {SHORT}"  # renew the number when hashes change
PARTS = 4  # character shingles of the prompt, of the answer, word shingles of the prompt, of the answer
SET = pl.Struct({"hashes": pl.List(pl.UInt32()), "parts": pl.Array(pl.UInt32(), PARTS)})

TABLE = 0x3100  # code points below are folded and told apart by table
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_MIX = np.uint64(0xD6E8FEB86659FD93)  # an odd multiplier that spreads bits well (Degski's 64-bit mixer)


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
    sides = (*_bytes(prompts), *_bytes(answers))
    most = 2 * (len(sides[0]) + len(sides[3])) + PARTS * count
    memory, sizes = pa.allocate_buffer(4 * most, resizable=True), np.zeros((count, PARTS), dtype=np.uint32)
    used = _shingle_rows(*sides, FOLDED, CLASSES, np.frombuffer(memory, dtype=np.uint32), sizes)
    memory.resize(4 * used, shrink_to_fit=True)
    hashes = as_lists(memory, sizes.sum(axis=1, dtype=np.int64))
    return pl.DataFrame({"hashes": hashes, "parts": pl.Series(sizes)}).to_struct("shingles").cast(SET)


def _fold_table() -> np.ndarray:
    """What each code point below `TABLE` folds to; 0 where that depends on its neighbours or is more than one character."""
    table = np.zeros(TABLE, dtype=np.uint32)
    for point in range(1, TABLE):
        char = chr(point)
        folded = unicodedata.normalize("NFKC", char).lower()
        if point >= 0x80 and (char.isspace() or folded == " "):
            table[point] = 32
        elif len(folded) == 1 and not unicodedata.combining(char) and unicodedata.category(char)[0] not in "CM" and folded not in "σς":
            table[point] = ord(folded)
    table[1:0x80] = [ord(chr(point).lower()) for point in range(1, 0x80)]
    return table


def _bytes(texts: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UTF-8 of all texts, and where each starts and ends in it. Texts that `FOLDED` cannot fold are folded here, which is slow: they follow
    behind the others."""
    texts = texts.fill_null("")
    data, ends = _buffers(texts)
    first, last = ends[:-1], ends[1:]
    hard = _hard(data, first, last, FOLDED)
    if len(hard):
        folded = texts.gather(hard).to_frame("text").select(record.fold(pl.col("text")))["text"]
        more, ends = _buffers(folded)
        first, last = first.copy(), last.copy()
        first[hard], last[hard] = ends[:-1] + len(data), ends[1:] + len(data)
        data = np.concatenate((data, more))
    return data, first, last


def _buffers(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    arrow = texts.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
    _, offsets, data = arrow.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
    return np.frombuffer(data or b"", dtype=np.uint8), ends


@compiled
def _hard(data: np.ndarray, first: np.ndarray, last: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The texts with a character that cannot be folded by itself."""
    out, count = np.empty(len(first), dtype=np.int64), 0
    for row in range(len(first)):
        for at in range(first[row], last[row]):
            if data[at] < 0xC0:
                continue  # ASCII, or not the first byte of a character
            point, _ = _decoded(data, at)
            plain = 0x3400 <= point < 0xA000 or 0xAC00 <= point < 0xD7A4  # ideographs and Hangul fold to themselves
            if not plain and (point >= TABLE or table[point] == 0):
                out[count] = row
                count += 1
                break
    return out[:count]


def owned(values: np.ndarray) -> pa.Buffer:
    """A copy in Arrow's memory."""
    buffer = pa.allocate_buffer(values.nbytes)
    np.frombuffer(buffer, dtype=np.uint8)[:] = np.ascontiguousarray(values).view(np.uint8).ravel()
    return buffer


def as_lists(values: pa.Buffer, sizes: np.ndarray) -> pl.Series:
    """list[u32] from u32 values and the size of each list.

    The memory is Arrow's own. Were it numpy's, freeing it would need Python's lock; polars frees from its own threads while it holds
    that lock to pickle a frame, and a worker process would wait for itself.
    """
    numbers = pa.Array.from_buffers(pa.uint32(), values.size // 4, [None, values])
    lists = pa.LargeListArray.from_buffers(pa.large_list(pa.uint32()), len(sizes), [None, owned(starts(sizes))], children=[numbers])
    series = pl.from_arrow(lists)
    assert isinstance(series, pl.Series)
    return series


def starts(sizes: np.ndarray) -> np.ndarray:
    """[0, s0, s0 + s1, …]: one longer than `sizes`."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)))


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
    apart = (f" {char} " if char != " " and _alone(np.uint32(ord(char))) else char for char in folded)
    return [word for word in "".join(apart).split(" ") if word]


@compiled
def _shingle_rows(
    prompts: np.ndarray,
    prompt_from: np.ndarray,
    prompt_to: np.ndarray,
    answers: np.ndarray,
    answer_from: np.ndarray,
    answer_to: np.ndarray,
    table: np.ndarray,
    classes: np.ndarray,
    values: np.ndarray,
    sizes: np.ndarray,
) -> int:
    """Fill `values` and `sizes`; returns how many values there are."""
    longest = 0
    for row in range(len(sizes)):
        longest = max(longest, prompt_to[row] - prompt_from[row] + answer_to[row] - answer_from[row])
    points, words, used = np.empty((2, SHORT), dtype=np.uint32), np.empty(longest + 2, dtype=np.uint32), 0
    for row in range(len(sizes)):
        of_prompt, first = _read(prompts, prompt_from[row], prompt_to[row], 0, table, classes, points[0], words, 0)
        of_answer, second = _read(answers, answer_from[row], answer_to[row], 1, table, classes, points[1], words, first)
        if of_prompt + of_answer < SHORT:
            sizes[row, 0] = _character_shingles(points[0], of_prompt, 0, values, used)
            used += sizes[row, 0]
            sizes[row, 1] = _character_shingles(points[1], of_answer, 1, values, used)
            used += sizes[row, 1]
        if of_prompt + of_answer >= LONG:
            for part, start, found in ((2, 0, first), (3, first, second)):
                if found:
                    count = _distinct(words, start, found)
                    values[used : used + count] = words[start : start + count]
                    sizes[row, part] = count
                    used += count
    return used


@compiled
def _read(  # noqa: PLR0912, PLR0915 one loop, compiled
    data: np.ndarray,
    at: int,
    stop: int,
    side: int,
    table: np.ndarray,
    classes: np.ndarray,
    points: np.ndarray,
    words: np.ndarray,
    used: int,
) -> tuple[int, int]:
    """Decode and fold a text: its first characters into `points`, the hashes of its windows of three words into `words` at `used`.

    Returns how many characters and how many windows there are. What `table` does not know was folded before and stays.
    """
    count, found, seen, gap, within = 0, 0, 0, False, False
    word, first, second = np.uint64(0), np.uint64(0), np.uint64(side + 1)
    while at < stop:
        point = np.int64(data[at])
        if point < 0x80:
            at += 1
        else:
            point, width = _decoded(data, at)
            at += width
        if point < TABLE:
            if table[point] != 0:
                point = np.int64(table[point])
            kind = classes[point] if point < TABLE else np.uint8(1 + _alone(np.uint32(point)))
        else:
            kind = np.uint8(1 + _alone(np.uint32(point)))
        if within and kind != 1:  # a word ends
            word = (word ^ (word >> np.uint64(32))) * _MIX
            mixed = (first * _ODD + second) * _ODD + word
            first, second, within = second, word, False
            seen += 1
            words[used + found] = _spread(mixed)
            found += seen >= WORDS
        if kind == 0:
            gap = count > 0
            continue
        if gap:
            if count < len(points):
                points[count] = 32
            count += 1
            gap = False
        if count < len(points):
            points[count] = point
        count += 1
        if kind == 1:
            word = (word ^ (word >> np.uint64(29))) * _ODD + np.uint64(point) if within else np.uint64(point)
            within = True
        else:
            word = (np.uint64(point) ^ (np.uint64(point) >> np.uint64(32))) * _MIX
            mixed = (first * _ODD + second) * _ODD + word
            first, second = second, word
            seen += 1
            words[used + found] = _spread(mixed)
            found += seen >= WORDS
    if within:
        word = (word ^ (word >> np.uint64(32))) * _MIX
        mixed = (first * _ODD + second) * _ODD + word
        seen += 1
        words[used + found] = _spread(mixed)
        found += seen >= WORDS
    if seen and not found:
        found = 1  # of one or two words: the window that ends with the last
    return count, found


@compiled
def _decoded(data: np.ndarray, at: int) -> tuple[np.int64, int]:
    """The UTF-8 character at a place, and how many bytes it has."""
    byte = np.int64(data[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | np.int64(data[at + 1]) & 0x3F, 2
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | np.int64(data[at + 2]) & 0x3F, 3
    high = (byte & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
    return high | (np.int64(data[at + 2]) & 0x3F) << 6 | np.int64(data[at + 3]) & 0x3F, 4


@compiled
def _spread(value: np.uint64) -> np.uint32:
    """Two rounds of multiply and shift: every bit of the input reaches the upper half, which is the hash."""
    value ^= value >> np.uint64(32)
    value *= _MIX
    value ^= value >> np.uint64(32)
    value *= _MIX
    return np.uint32(value >> np.uint64(32))


@compiled
def _character_shingles(points: np.ndarray, count: int, side: int, values: np.ndarray, used: int) -> int:
    """Write the distinct hashes of windows of five characters at `used`; returns how many."""
    if count == 0:
        return 0
    width = min(CHARACTERS, count)
    for start in range(count - width + 1):
        mixed = np.uint64(side + 1)
        for at in range(width):
            mixed = mixed * _ODD + np.uint64(points[start + at])
        values[used + start] = _spread(mixed)
    return _distinct(values, used, count - width + 1)


@compiled
def _alone(point: np.uint32) -> bool | np.bool:
    """Is this character a word of its own? Punctuation, operators, symbols, and scripts that put no spaces between words."""
    if point < 0x80:
        return not (48 <= point <= 57 or 97 <= point <= 122 or point == 95)
    if point < 0xC0 or point in (0xD7, 0xF7):
        return point not in (0xAA, 0xB5, 0xBA)
    if point < 0x0E00:
        return False
    return (
        point < 0x0F00  # Thai, Lao
        or 0x1000 <= point < 0x10A0  # Burmese
        or 0x1780 <= point < 0x1800  # Khmer
        or 0x2000 <= point < 0x2C00  # punctuation, currencies, arrows, mathematics, boxes, symbols
        or 0x2E80 <= point < 0xAC00  # Chinese, Japanese and their punctuation
        or 0xF900 <= point < 0xFB00
        or 0xFE10 <= point < 0xFE70
        or 0xFF00 <= point < 0xFFF0
        or 0x1F000 <= point < 0x40000  # pictures, rare ideographs
    )


@compiled
def _distinct(values: np.ndarray, start: int, count: int) -> int:
    """Sort values[start : start + count] and close the gaps of repeats; returns how many are left."""
    part = values[start : start + count]
    _sort(part)
    kept = 1
    for at in range(1, count):
        if part[at] != part[kept - 1]:
            part[kept] = part[at]
            kept += 1
    return kept


@compiled
def _sort(part: np.ndarray) -> None:
    """Sort hashes: two radix passes over their upper 16 bits, then insertion. Hashes are even, so little is left to insert; measured
    five times as fast as a comparison sort on sets of 200."""
    count = len(part)
    if count > 24:
        other = np.empty(count, dtype=np.uint32)
        low, high = np.zeros(257, dtype=np.int64), np.zeros(257, dtype=np.int64)
        for at in range(count):
            low[(part[at] >> np.uint32(16) & np.uint32(255)) + 1] += 1
            high[(part[at] >> np.uint32(24)) + 1] += 1
        for at in range(256):
            low[at + 1] += low[at]
            high[at + 1] += high[at]
        for at in range(count):
            digit = part[at] >> np.uint32(16) & np.uint32(255)
            other[low[digit]] = part[at]
            low[digit] += 1
        for at in range(count):
            digit = other[at] >> np.uint32(24)
            part[high[digit]] = other[at]
            high[digit] += 1
    for at in range(1, count):
        value, to = part[at], at
        while to > 0 and part[to - 1] > value:
            part[to] = part[to - 1]
            to -= 1
        part[to] = value


def _class_table() -> np.ndarray:
    alone = cast(Any, _alone).py_func  # as plain Python: the first compiled call is not worth a start
    return np.array([0 if point == 32 or 9 <= point <= 13 else 1 + alone(point) for point in range(TABLE)], dtype=np.uint8)


FOLDED = _fold_table()
CLASSES = _class_table()  # 0: white space, 1: part of a word, 2: a word of its own
