"""The accuracy that is promised does not depend on the processor, nor on the number of threads.

Each sweep runs in a process that is told to do without what another processor lacks; see
benchmarks/accuracy.py, which also prints the whole table. What the bounds promise stands in
`bnlib.blocks`. Tensors have test_tensor_processors.py.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks.accuracy import PAIRS, PROCESSORS, ROOT, imitate
from bnlib import blocks

# errors of y and of the mean in deviations, of the variance in itself
BOUNDS = {"y": 6e-7, "mean": 4e-7, "variance": 1e-6}
ALL = [pair for pair in PAIRS if not pair[1].startswith("tf_ops")]
QUICK = [
    ("SSE (Prescott)", "numpy"),
    ("AVX2 (Haswell)", "numpy"),
    ("AVX2 (Zen)", "numpy"),
    ("AVX-512 (SkylakeX)", "numpy"),
    ("8 threads", "numpy"),
    ("AVX2 (Haswell)", "numba"),
]


def excesses(processor, subject, *options):
    found = imitate(processor, subject, *options)
    assert set(found) == set(BOUNDS)
    return {name: worst for name, worst in found.items() if worst[0] > BOUNDS[name]}


@pytest.mark.parametrize(
    ("processor", "subject"), [pair for pair in QUICK if pair in ALL]
)
def test_the_bounds_hold_on_other_processors(processor, subject):
    assert excesses(processor, subject, "--quick") == {}


@pytest.mark.slow
@pytest.mark.parametrize(("processor", "subject"), ALL)
def test_the_bounds_hold_on_every_processor(processor, subject):
    assert excesses(processor, subject) == {}


LOOKS = """
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from threadpoolctl import threadpool_info
import numpy
print(*(i["architecture"] for i in threadpool_info() if i["internal_api"] == "openblas"),
      *(name for name in __cpu_dispatch__ if __cpu_features__[name]))
"""


@pytest.mark.skipif("SSE (Prescott)" not in PROCESSORS, reason="not an x86 processor")
@pytest.mark.parametrize(
    ("processor", "cores", "lacking"),
    [
        ("SSE (Prescott)", {"Prescott", "Katmai"}, "AVX|X86_V[34]"),
        ("AVX2 (Haswell)", {"Haswell"}, "AVX512|X86_V4"),
    ],
)
def test_an_imitation_is_one(processor, cores, lacking):
    """NumPy and OpenBLAS do without what the imitated processor has not."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOKS],
        env=os.environ | PROCESSORS[processor],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    core, *features = done.stdout.split()
    assert core in cores
    assert [name for name in features if re.search(lacking, name)] == []


def test_the_sweep_finds_what_it_is_for():
    """The textbook in float32 keeps none of the bounds."""

    def textbook(x, axis):
        axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        mean = x.mean(axes, keepdims=True)
        variance = (x * x).mean(axes, keepdims=True) - mean**2
        return (x - mean) / np.sqrt(variance), mean, variance.ravel()

    worst = accuracy.errors(
        textbook, accuracy.two_levels((3, 20_480), 0.5, 0.3, 1000.1), 0
    )
    assert all(
        error > 3 * bound for error, bound in zip(worst, BOUNDS.values(), strict=True)
    )


def test_the_library_says_the_bound():
    said = re.search(
        r"variance to ([\d.e-]+) of itself", " ".join(blocks.__doc__.split())
    )
    assert float(said[1]) == BOUNDS["variance"]
    assert (ROOT / "benchmarks/accuracy.py").is_file()
