"""How large arrays are computed: by which loops, in how many threads."""

import importlib
from numbers import Integral

from bnlib._extras import needed

_engine: str = "numpy"
_threads: int | str = "all"


def use(engine: str | None = None, *, threads: int | str | None = None) -> None:
    """Choose how large arrays are computed; the numbers agree to rounding.

    What is not named stays as it is.

    Args:
        engine: "numpy", as at the start, or "numba" for compiled loops: needs `pip install
            "bnlib-book[fast]"`, and some seconds at the first call of each kind.
        threads: how many threads, at most 8; "all", as at the start, is one for each core.

    Raises:
        ImportError: when numba is not installed.
        TypeError: for a number of threads that is no integer.
        ValueError: for an unknown engine, or fewer than 1 thread.

    >>> use(threads=1)
    >>> use("numpy", threads="all")
    """
    global _engine, _threads
    if engine not in (None, "numpy", "numba"):
        raise ValueError(f'engine must be "numpy" or "numba"; got {engine!r}.')
    if threads not in (None, "all"):
        threads = _as_number(threads)
    if engine is not None:
        with needed('engine="numba"', "fast"):
            importlib.import_module(f"bnlib.blocks._{engine}")
        _engine = engine
    if threads is not None:
        _threads = threads


def _as_number(threads):
    if isinstance(threads, bool) or not isinstance(threads, Integral):
        raise TypeError(f'threads must be an integer, or "all"; got {threads!r}.')
    if threads < 1:
        raise ValueError(f'threads must be at least 1, or "all"; got {threads}.')
    return int(threads)


def engine_in_use():
    """Return the name of the engine."""
    return _engine


def most_threads(cores):
    """Return how many threads may run on so many cores."""
    threads = _threads
    return min(cores if isinstance(threads, str) else threads, 8)
