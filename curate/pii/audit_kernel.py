"""The loop of the audit, compiled: which runs of words of a buffer are on the leak list. One file, see `curate/compiled.py`."""

from typing import Any

import numpy as np

from curate.compiled import compiled

_U = np.uint64
_GAP = 16  # characters between two words of one value


@compiled
def _round(v0: Any, v1: Any, v2: Any, v3: Any) -> Any:
    v0 = v0 + v1
    v1 = ((v1 << _U(13)) | (v1 >> _U(51))) ^ v0
    v0 = (v0 << _U(32)) | (v0 >> _U(32))
    v2 = v2 + v3
    v3 = ((v3 << _U(16)) | (v3 >> _U(48))) ^ v2
    v0 = v0 + v3
    v3 = ((v3 << _U(21)) | (v3 >> _U(43))) ^ v0
    v2 = v2 + v1
    v1 = ((v1 << _U(17)) | (v1 >> _U(47))) ^ v2
    v2 = (v2 << _U(32)) | (v2 >> _U(32))
    return v0, v1, v2, v3


@compiled
def sip(data: Any, size: int, k0: Any, k1: Any) -> Any:
    """SipHash-2-4 of the first `size` bytes of `data` (u8), key halves u64: as `siphash.py`."""
    v0, v1 = k0 ^ _U(0x736F6D6570736575), k1 ^ _U(0x646F72616E646F6D)
    v2, v3 = k0 ^ _U(0x6C7967656E657261), k1 ^ _U(0x7465646279746573)
    for at in range(size // 8 + 1):
        word = _U(0)
        for place in range(8):
            if at * 8 + place < size:
                word |= _U(data[at * 8 + place]) << _U(8 * place)
        if at == size // 8:
            word |= _U(size & 0xFF) << _U(56)
        v3 ^= word
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
        v0 ^= word
    v2 ^= _U(0xFF)
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@compiled
def _word(byte: Any) -> bool:
    return bool((97 <= byte <= 122) or (48 <= byte <= 57) or byte >= 128)


@compiled
def _position(hashes: Any, screen: Any, value: Any) -> int:
    """Where `value` stands in the sorted hashes; -1 if nowhere. `screen` has a bit for each hash, by its lowest 20 bits."""
    low = value & _U(0xFFFFF)
    if not (screen[low >> _U(3)] >> (low & _U(7))) & _U(1):
        return -1
    first, last = 0, len(hashes)
    while first < last:
        middle = (first + last) // 2
        if hashes[middle] < value:
            first = middle + 1
        else:
            last = middle
    return first if first < len(hashes) and hashes[first] == value else -1


@compiled
def search(data: Any, k0: Any, k1: Any, lengths: Any, hashes: Any, screen: Any, out: Any) -> int:
    """Every listed run of whole words in `data` (u8; lower case; byte 0 parts texts), as rows (start, index of hash) of `out` (i64).

    `lengths[n]` says whether a listed compact form has n bytes; the last stands for the beginnings of longer ones. Returns how many were
    found, of which `out` holds as many as fit.
    """
    longest = len(lengths) - 1
    compact = np.empty(longest, np.uint8)
    found = 0
    for start in range(len(data)):
        if not _word(data[start]) or (start and _word(data[start - 1])):
            continue
        size, at, gap = 0, start, 0
        while at < len(data) and data[at] != 0 and size < longest and gap <= _GAP:
            if not _word(data[at]):
                gap += 1
                at += 1
                continue
            gap = 0
            compact[size] = data[at]
            size += 1
            at += 1
            ends = at == len(data) or not _word(data[at])
            if lengths[size] and (ends or size == longest):
                place = _position(hashes, screen, sip(compact, size, k0, k1))
                if place >= 0:
                    if found < len(out):
                        out[found, 0], out[found, 1] = start, place
                    found += 1
    return found
