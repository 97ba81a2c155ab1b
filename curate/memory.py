"""Arrow's memory as numpy arrays and back, without copies: what compiled loops read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

VIEW = np.dtype(
    [("size", "<i4"), ("prefix", "<i4"), ("buffer", "<i4"), ("offset", "<i4")]
)  # Arrow's string view, of a text that is not inline
INLINE = 12  # bytes: a text of so many lies in its view, behind the size


@dataclass(frozen=True)
class Exported:
    """Arrow's data without its type. polars takes it as it is, where for pyarrow's own types it first loads pyarrow.compute."""

    data: pa.Array | pa.RecordBatch

    def __arrow_c_array__(self, schema: object = None) -> tuple[object, object]:
        """Arrow's C interface."""
        exported: tuple[object, object] = self.data.__arrow_c_array__(schema)
        return exported


def one_view(pieces: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """One read-only array from the lowest of some arrays of one type to the highest, and its address: item 0 lies there.

    Only what belongs to one of the pieces may be read through it; whoever reads keeps the pieces.
    """
    lowest = min(pieces, key=lambda each: each.ctypes.data)
    base, highest = lowest.ctypes.data, max(each.ctypes.data + each.nbytes for each in pieces)
    shape = ((highest - base) // lowest.itemsize,)
    return np.lib.stride_tricks.as_strided(lowest, shape=shape, strides=(lowest.itemsize,), writeable=False), base


def text_places(texts: pl.Series) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """The addresses (i64) at which the UTF-8 of each text starts and ends, and the memory (u8) that it lies in. No text may be null."""
    arrow = texts.to_arrow(compat_level=pl.CompatLevel.newest())
    _, views, *data = arrow.buffers()
    held = [
        np.zeros(1, dtype=np.uint8),
        *(np.frombuffer(each, dtype=np.uint8) for each in (views, *data) if each is not None and each.size),
    ]
    if not len(arrow):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), held
    at = np.frombuffer(views, dtype=VIEW)[arrow.offset : arrow.offset + len(arrow)]
    first = views.address + VIEW.itemsize * (arrow.offset + np.arange(len(arrow))) + 4
    outside = np.flatnonzero(at["size"] > INLINE)
    addresses = np.array([each.address for each in data], dtype=np.int64)
    first[outside] = addresses[at["buffer"][outside]] + at["offset"][outside]
    return first, first + at["size"], held


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
    return pl.Series(Exported(lists))


def starts(sizes: np.ndarray) -> np.ndarray:
    """[0, s0, s0 + s1, …]: one longer than `sizes`."""
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes, dtype=np.int64)))
