"""How large arrays are computed: by which loops, in how many threads."""

import importlib

from bnlib._extras import DISTRIBUTION

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
        ValueError: for an unknown engine, or fewer than 1 thread.

    >>> use(threads=1)
    >>> use("numpy", threads="all")
    """
    global _engine, _threads
    if engine not in (None, "numpy", "numba"):
        raise ValueError(f'engine must be "numpy" or "numba"; got {engine!r}.')
    if threads not in (None, "all") and not (isinstance(threads, int) and threads > 0):
        raise ValueError(f'threads must be at least 1, or "all"; got {threads!r}.')
    if engine is not None:
        try:
            importlib.import_module(f"bnlib.blocks._{engine}")
        except ImportError as error:
            raise ImportError(
                f'engine="numba" needs numba: pip install "{DISTRIBUTION}[fast]".'
            ) from error
        _engine = engine
    if threads is not None:
        _threads = threads


def engine_in_use():
    """Return the name of the engine."""
    return _engine


def most_threads(cores):
    """Return how many threads may run on so many cores."""
    return min(cores if isinstance(_threads, str) else _threads, 8)
