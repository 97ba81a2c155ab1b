"""Functions compiled to machine code, once for each machine: the loops of the near-duplicate search.

They let go of Python's lock, and numba keeps them under `__pycache__`: only the first start after a change compiles, some seconds in all.
They take numbers and numpy arrays.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding
import numba
import xxhash

from curate.stage import default_workers

__all__ = ["compiled", "in_threads"]
_HERE = Path(__file__).parent


def _sources() -> str:
    """A hash of every module with compiled functions: numba itself sees a change of a function's own file, not of what it calls."""
    texts = (path.read_bytes() for path in sorted(_HERE.glob("*.py")))
    return xxhash.xxh3_64_hexdigest(b"".join(text for text in texts if b"compiled" in text))


numba.config.CACHE_DIR = str(  # type: ignore[attr-defined]
    _HERE / "__pycache__" / f"compiled-{_sources()}"
)
# LLVM takes half of AVX-512's width for fear of a lower clock; here the whole signs a quarter faster.
numba.config.CPU_FEATURES = (  # type: ignore[attr-defined]
    f"{llvmlite.binding.get_host_cpu_features().flatten()},-prefer-256-bit"
)
T = TypeVar("T")
U = TypeVar("U")

if "scipy.linalg" not in sys.modules:  # numba looks there for matrix products, which no loop here has: a sixth of a second of every start
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        import numba.np.arraymath
    finally:
        del sys.modules["scipy.linalg"]


def compiled(function: T) -> T:
    """numba's `njit` with what this module's docstring says."""
    made: Any = numba.njit(nogil=True, cache=True)
    return cast(T, made(function))


def in_threads(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """work(item) for all items, in order, on all cores. For functions that let go of Python's lock, as the compiled ones here do."""
    with ThreadPoolExecutor(default_workers()) as pool:
        yield from pool.map(work, items)
