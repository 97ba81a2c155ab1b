"""Texts to sets of shingles, the one meaning of "alike" in Finery, for whole columns at once.

A shingle is three words in a row or, in a short text, five characters in a row. Words are runs of letters and digits; every other
character that is not white space, and every character of a script written without spaces, is a word of its own, so digits, operators and
brackets count. Up to `SHORT` characters a text has character shingles, from `LONG` characters on word shingles, and between the two it has
both: two texts can always be compared by what both have (see `likeness.py` for how, and docs/near-duplicates.md for why).

Texts are folded here (`record.fold`: NFKC, lower case, white space). The two sides of a row, prompt and answer, have shingles of their own:
none runs from one into the other, and the same words on different sides are different shingles.
"""

import unicodedata

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
    memory, sizes = pa.allocate_buffer(4 * most), np.zeros((count, PARTS), dtype=np.uint32)  # what is not written takes no memory
    used = _shingle_rows(*sides, FOLDED, np.frombuffer(memory, dtype=np.uint32), sizes)
    hashes = as_lists(memory.slice(0, 4 * used), sizes.sum(axis=1, dtype=np.int64))
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


TABLE = 0x3100
FOLDED = _fold_table()


def _bytes(texts: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """UTF-8 of all texts, and where each starts and ends in it. Texts that `FOLDED` cannot fold are folded here, which is slow: they follow
    behind the others."""
    texts = texts.fill_null("")
    data, ends = _buffers(texts)
    first, last = ends[:-1], ends[1:]
    wide = np.flatnonzero(data >= 0x80)
    hard = _hard(data, last, wide, FOLDED) if len(wide) else wide
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
def _hard(data: np.ndarray, last: np.ndarray, wide: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The texts (which end at `last`) with a character that cannot be folded by itself; `wide` are the places of bytes other than ASCII."""
    out, count, row = np.empty(len(wide), dtype=np.int64), 0, 0
    for at in wide:
        if data[at] & 0xC0 == 0x80:
            continue  # not the first byte of a character
        while last[row] <= at:
            row += 1
        point, _ = _decoded(data, at)
        plain = 0x3400 <= point < 0xA000 or 0xAC00 <= point < 0xD7A4  # ideographs and Hangul fold to themselves
        if not plain and (point >= TABLE or table[point] == 0) and (count == 0 or out[count - 1] != row):
            out[count] = row
            count += 1
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
    ['prompt: "12+35"', 'prompt: "2+35."', 'prompt: " 12+3"', 'prompt: "ay 12"', 'prompt: "pay 1"', 'prompt: "y 12+"']
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
    values: np.ndarray,
    sizes: np.ndarray,
) -> int:
    """Fill `values` and `sizes`; returns how many values there are."""
    longest = 0
    for row in range(len(sizes)):
        longest = max(longest, prompt_to[row] - prompt_from[row], answer_to[row] - answer_from[row])
    prompt, answer = np.empty(longest, dtype=np.uint32), np.empty(longest, dtype=np.uint32)
    used = 0
    for row in range(len(sizes)):
        of_prompt = _code_points(prompts, prompt_from[row], prompt_to[row], prompt, table)
        of_answer = _code_points(answers, answer_from[row], answer_to[row], answer, table)
        if of_prompt + of_answer < SHORT:
            sizes[row, 0] = _character_shingles(prompt, of_prompt, 0, values, used)
            used += sizes[row, 0]
            sizes[row, 1] = _character_shingles(answer, of_answer, 1, values, used)
            used += sizes[row, 1]
        if of_prompt + of_answer >= LONG:
            sizes[row, 2] = _word_shingles(prompt, of_prompt, 0, values, used)
            used += sizes[row, 2]
            sizes[row, 3] = _word_shingles(answer, of_answer, 1, values, used)
            used += sizes[row, 3]
    return used


@compiled
def _code_points(data: np.ndarray, start: int, stop: int, points: np.ndarray, table: np.ndarray) -> int:
    """Decode UTF-8 and fold; returns the number of characters. What `table` does not know was folded before and stays."""
    count, at, gap = 0, start, False
    while at < stop:
        point, width = _decoded(data, at)
        at += width
        if 0 < point < TABLE and table[point] != 0:
            point = np.int64(table[point])
        if point == 32 or 9 <= point <= 13:
            gap = count > 0
            continue
        if gap:
            points[count] = 32
            count += 1
            gap = False
        points[count] = point
        count += 1
    return count


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
def _word_shingles(points: np.ndarray, count: int, side: int, values: np.ndarray, used: int) -> int:
    """Write the distinct hashes of windows of three words at `used`; returns how many."""
    if count == 0:
        return 0
    first, second, words, found, at = np.uint64(0), np.uint64(side + 1), 0, 0, 0
    while at < count:
        if points[at] == 32:
            at += 1
            continue
        word = np.uint64(points[at])
        at += 1
        if not _alone(np.uint32(word)):
            while at < count and points[at] != 32 and not _alone(points[at]):
                word = (word ^ (word >> np.uint64(29))) * _ODD + np.uint64(points[at])
                at += 1
        word = (word ^ (word >> np.uint64(32))) * _MIX
        words += 1
        mixed = (first * _ODD + second) * _ODD + word
        first, second = second * np.uint64(side + 1), word
        if words >= WORDS:
            values[used + found] = _spread(mixed)
            found += 1
    if found == 0:
        values[used] = _spread(first * _ODD + second)
        found = 1
    return _distinct(values, used, found)


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
