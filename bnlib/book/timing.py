"""How the times of the book are taken, and what is stored beside them."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import bnlib
from bnlib.blocks._numpy import CORES

__all__ = ["in_turn", "surroundings"]

# what decides how TensorFlow and NumPy compute, where it is set
SETTINGS = (
    "TF_ENABLE_ONEDNN_OPTS",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
    "NUMBA_CPU_NAME",
)


def in_turn(
    calls: dict[str, Callable[[], Any]], rounds: int, together: int = 1
) -> dict[str, float]:
    """Time calls in turn, A B C A B C, so that whatever else the machine does hits them alike.

    Args:
        calls: dict of functions without arguments.
        rounds: how many are counted; one more, which may compile, comes first.
        together: how often each is called in a round.

    Returns:
        The median milliseconds of each call, by name.
    """
    times = {name: [] for name in calls}
    for counted in [False] + [True] * rounds:
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(together):
                result = call()
            if counted:
                times[name].append(1e3 * (time.perf_counter() - start) / together)
            del result
    return {name: statistics.median(values) for name, values in times.items()}


def surroundings() -> dict[str, Any]:
    """Tell what times depend on: versions and processor, and nothing that names the machine.

    Returns:
        A dict: `versions` of the libraries, `cpu`, `cores`, and the `settings` that are set.
    """
    names = (
        "numpy",
        "numba",
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "torch",
        "jax",
    )
    versions = {"bnlib": bnlib.__version__}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "cpu": platform.processor() or platform.machine(),
        "cores": CORES,
        "settings": {n: os.environ[n] for n in SETTINGS if n in os.environ},
    }
