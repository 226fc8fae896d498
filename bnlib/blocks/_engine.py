"""Which module has the loops of `bnlib.blocks`: `_numpy`, or `_numba` if you ask for it."""

import importlib

import numpy as np

from bnlib._extras import DISTRIBUTION
from bnlib.blocks import _numpy

_engine = _numpy


def use(engine: str = "numpy", *, threads: int | None = None) -> None:
    """Choose how large arrays are computed; the numbers agree to rounding.

    Args:
        engine: "numpy", or "numba" for compiled loops: needs `pip install "bnlib-book[fast]"`, and
            some seconds at the first call of each kind.
        threads: how many threads; None means one for each core; at most 8.

    Raises:
        ImportError: when numba is not installed.
        ValueError: for an unknown engine, or fewer than 1 thread.

    >>> use(threads=1)
    >>> use()
    """
    global _engine
    if engine not in ("numpy", "numba"):
        raise ValueError(f'engine must be "numpy" or "numba"; got {engine!r}.')
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be at least 1; got {threads}.")
    try:
        module = importlib.import_module(f"bnlib.blocks._{engine}")
    except ImportError as error:
        raise ImportError(
            f'engine="numba" needs numba: pip install "{DISTRIBUTION}[fast]".'
        ) from error
    module.set_threads(threads)
    _engine = module


def kernels(x):
    """The module that has the loops for x; numba has no float16."""
    return _numpy if x.dtype == np.float16 else _engine
