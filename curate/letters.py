"""Letters: UTF-8 to folded characters, each with its class (white space, part of a word, a word of its own), in compiled loops.

Folding is that of `record.fold`: NFKC, lower case. What depends on its neighbours (combining marks, a final sigma) is folded before.
"""

import unicodedata
from typing import Any, cast

import numpy as np

from curate.compiled import compiled

TABLE = 0x3100  # code points below are folded and told apart by table
SPACE, LETTER, ALONE = 0, 1, 2  # classes: white space, part of a word, a word of its own
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
MIX = np.uint64(0xD6E8FEB86659FD93)  # an odd multiplier that spreads bits well (Degski's 64-bit mixer)
TURN = np.uint64(23)  # bits by which the hash of a word turns with each letter: any odd number goes through all 64 places


def _fold_table() -> np.ndarray:
    """What each code point below `TABLE` folds to; 0 where that depends on its neighbours or is more than one character."""
    table = np.zeros(TABLE, dtype=np.uint32)
    for point in range(1, TABLE):
        char = chr(point)
        folded = unicodedata.normalize("NFKC", char).lower()
        if point >= 0x80 and (char.isspace() or folded == " "):
            table[point] = 32
        elif len(folded) == 1 and not _joins(char) and folded not in "σς":
            table[point] = ord(folded)
    table[1:0x80] = [ord(chr(point).lower()) for point in range(1, 0x80)]
    return table


def _joins(char: str) -> bool:
    """May it become one with the character before it? Marks and Korean vowels and finals do; of what is not assigned yet, nobody knows."""
    return bool(unicodedata.combining(char)) or unicodedata.category(char) in ("Mn", "Mc", "Me", "Cn") or 0x1100 <= ord(char) < 0x1200


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


def _class_table(folded: np.ndarray) -> np.ndarray:
    """The class of what each code point below `TABLE` folds to."""
    alone = cast(Any, _alone).py_func  # as plain Python: the first compiled call is not worth a start
    return np.array([SPACE if point == 32 or 9 <= point <= 13 else LETTER + alone(point) for point in folded.tolist()], dtype=np.uint8)


def _code(point: Any, kind: Any) -> Any:
    """A random number (u64) for a folded character and its class (u64), or for each of two arrays; its lowest two bits are the class."""
    mixed = (point + ODD) * MIX
    mixed = (mixed ^ (mixed >> np.uint64(32))) * MIX
    return (mixed ^ (mixed >> np.uint64(32))) << np.uint64(2) | kind


FOLDED = _fold_table()
HARD = FOLDED == 0
FOLDED[HARD] = np.flatnonzero(HARD)  # folded before it is read
CLASSES = _class_table(FOLDED)
CODES = _code(FOLDED.astype(np.uint64), CLASSES.astype(np.uint64))
_code_of = compiled(_code)


def is_alone(char: str) -> bool:
    """Is a folded character a word of its own?"""
    return bool(_alone(np.uint32(ord(char))))


@compiled
def hard_texts(data: np.ndarray, first: np.ndarray, last: np.ndarray, hard: np.ndarray) -> np.ndarray:
    """The texts with a character that cannot be folded by itself."""
    out, count = np.empty(len(first), dtype=np.int64), 0
    for row in range(len(first)):
        bits = np.uint8(0)
        for byte in range(np.uint64(first[row]), np.uint64(last[row])):  # unsigned: a place that cannot be negative is not checked for it
            bits = np.uint8(bits | data[byte])
        if bits < 0x80:
            continue  # ASCII: nearly all texts, and a loop without a branch
        for at in range(first[row], last[row]):
            if data[at] < 0xC0:
                continue  # ASCII, or not the first byte of a character
            point, _ = _decoded(data, at)
            # Ideographs, Hangul and emoji fold to themselves.
            plain = 0x3400 <= point < 0xA000 or 0xAC00 <= point < 0xD7A4 or 0x1F300 <= point < 0x1FB00
            if not plain and (point >= TABLE or hard[point]):
                out[count] = row
                count += 1
                break
    return out[:count]


@compiled
def odd_words(data: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(where words begin that are not ASCII, where they end, how many each text has). They lie between ASCII's white space and control
    characters, over which no folding reaches: what these become is the same without the words around."""
    count = 0
    for row in range(len(first)):
        for at in range(first[row], last[row]):
            count += data[at] >= 0x80
    begin, end, of_text, found = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64), np.zeros(len(first), dtype=np.int64), 0
    for row in range(len(first)):
        start, odd = first[row], False
        for at in range(first[row], last[row] + 1):
            if at < last[row] and data[at] > 0x20:
                odd |= data[at] >= 0x80
                continue
            if odd:
                begin[found], end[found] = start, at
                found += 1
                of_text[row] += 1
            start, odd = at + 1, False
    return begin[:found], end[:found], of_text


@compiled
def cut_out(data: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """These stretches, one after the other."""
    out, at = np.empty((end - begin).sum(), dtype=np.uint8), 0
    for each in range(len(begin)):
        for byte in range(begin[each], end[each]):
            out[at] = data[byte]
            at += 1
    return out


@compiled
def put_in(
    data: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    words: tuple[np.ndarray, np.ndarray, np.ndarray],
    others: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """The texts with others for some of their words (as `odd_words` gives them; others as memory, beginnings and ends), as UTF-8, and
    where each text ends in it."""
    (begin, end, of_text), (other, other_begin, other_end) = words, others
    out = np.empty((last - first).sum() + (other_end - other_begin).sum(), dtype=np.uint8)
    ends, size, word = np.empty(len(first), dtype=np.int64), 0, 0
    for row in range(len(first)):
        at = first[row]
        for _ in range(of_text[row]):
            for byte in range(at, begin[word]):
                out[size] = data[byte]
                size += 1
            for byte in range(other_begin[word], other_end[word]):
                out[size] = other[byte]
                size += 1
            at = end[word]
            word += 1
        for byte in range(at, last[row]):
            out[size] = data[byte]
            size += 1
        ends[row] = size
    return out, ends


@compiled
def read(data: np.ndarray, at: int, stop: int, folded: np.ndarray, classes: np.ndarray, points: np.ndarray, kinds: np.ndarray) -> int:
    """Decode and fold a text into `points`, with the class of each character in `kinds`; returns how many there are."""
    count = 0
    while at < stop:
        point = np.int64(data[at])
        if point < 0x80:
            at += 1
        else:
            point, width = _decoded(data, at)
            at += width
        if point < TABLE:
            points[count] = folded[point]
            kinds[count] = classes[point]
        else:
            points[count] = point
            kinds[count] = LETTER + _alone(np.uint32(point))
        count += 1
    return count


@compiled
def words(data: np.ndarray, first: int, stop: int, codes: np.ndarray, out: np.ndarray) -> tuple[int, int]:
    """Write a hash for each word of a text into `out`; returns how many characters the folded text has, and how many words.

    No branch depends on where words end: the processor could not foretell it. What is not a word's end is written over by what follows.
    (Everything is unsigned: a place that cannot be negative is not checked for it.)
    """
    none, one = np.uint64(0), np.uint64(1)
    count, found, within, before, word = none, none, none, none, none
    at, end = np.uint64(first), np.uint64(stop)
    while at < end:
        point = np.uint64(data[at])
        if point < 0x80:
            at += one
            code = codes[point]
        else:
            wide, width = _decoded(data, int(at))
            point = np.uint64(wide)
            at += np.uint64(width)
            code = codes[point] if point < TABLE else _code_of(point, np.uint64(LETTER + _alone(np.uint32(point))))
        letter, alone = code & one, code >> one & one
        solid = letter | alone
        out[found] = word
        found += within & ~letter
        out[found] = code
        found += alone
        word = ((word << TURN | word >> (np.uint64(64) - TURN)) + code) & (none - letter)
        count += solid | before  # the first white space after a word is the one that folding leaves
        before, within = solid, letter
    out[found] = word
    return int(count - np.uint64(count > none and before == none)), int(found + within)
