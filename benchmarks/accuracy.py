"""Look for the worst rounding errors of bnlib, on this processor and on imitations of others.

    python benchmarks/accuracy.py                        the table: every subject, every processor
    python benchmarks/accuracy.py numpy                  one subject on this processor, as JSON

How a library adds up depends on the processor: how many numbers run side by side, whether products
are fused, how many threads share the work. So each subject is swept in a process of its own that
is told to do without what another processor has not. Data of two levels are the hardest: equal
numbers round the same way each time, and their errors do not cancel.
"""

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

try:
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
except ImportError:  # NumPy 1
    from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = "clear", "numpy", "numba", "tf_ops", "tf_ops under XLA"
# name: (shape, axis) for n values a channel, or about so many
LAYOUTS = {
    "channels last": lambda n: ((n, 3), -1),
    "64 channels last": lambda n: ((n // 4, 64), -1),
    "one row a channel": lambda n: ((3, n), 0),
    "few examples, channels first": lambda n: ((5, 3, n // 5), 1),
    "many examples, channels first": lambda n: ((n // 301 + 1, 7, 301), 1),
    "small pictures, channels first": lambda n: ((n // 20 + 1, 7, 20), 1),
}
LENGTHS = 8192, 20_011, 20_480, 131_073
OFFSETS = 0, 0.4, 0.9, 1.01, 1.5, 1.99, 2.05, 10, 15.9, 1000.1  # means, in deviations
# share of the upper level, deviation
LEVELS = ((0.5, 1.0), (0.5, 0.3), (0.1, 1 / 3), (0.01, 0.1))


def threads(number):
    """Return the environment in which each library takes so many threads."""
    libraries = (f"{name}_NUM" for name in ("OPENBLAS", "OMP", "NUMBA", "BNLIB"))
    names = (f"{name}_THREADS" for name in (*libraries, "TF_NUM_INTRAOP"))
    return dict.fromkeys(names, str(number))


def without(*levels):
    """Return the name of each of NumPy's sets of instructions of these levels, if it is there."""
    off = os.environ.get("NPY_DISABLE_CPU_FEATURES", "").replace(",", " ").split()
    return " ".join(
        name
        for name in __cpu_dispatch__
        if (__cpu_features__[name] or name in off)
        and any(level in name for level in levels)
    )


AVX512, AVX2 = ("AVX512", "X86_V4"), ("AVX512", "X86_V4", "X86_V3", "AVX2", "FMA3")
# name: the environment of a process that imitates it
PROCESSORS = {
    "this one": {},
    "SSE (Prescott)": {
        "OPENBLAS_CORETYPE": "Prescott",
        "NPY_DISABLE_CPU_FEATURES": without(*AVX2),
        "NUMBA_CPU_NAME": "nehalem",
        "NUMBA_CPU_FEATURES": "",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "AVX2 (Haswell)": {
        "OPENBLAS_CORETYPE": "Haswell",
        "NPY_DISABLE_CPU_FEATURES": without(*AVX512),
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "AVX2 (Zen)": {
        "OPENBLAS_CORETYPE": "Zen",
        "NPY_DISABLE_CPU_FEATURES": without(*AVX512),
        "NUMBA_CPU_NAME": "znver1",
        "NUMBA_CPU_FEATURES": "",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "AVX-512 (SkylakeX)": {
        "OPENBLAS_CORETYPE": "SkylakeX",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    },
}
if platform.machine().lower() not in ("x86_64", "amd64"):
    PROCESSORS = {"this one": {}}  # the others are of another kind
elif not __cpu_features__["AVX512F"]:
    del PROCESSORS["AVX-512 (SkylakeX)"]  # nobody can imitate what is not there
PROCESSORS |= {
    "oneDNN on": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "oneDNN off": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "1 thread": threads(1),
    "2 threads": threads(2),
    "8 threads": threads(8),
}


# TensorFlow's own kernels were compiled for one kind of processor; only oneDNN looks at it
FIXED = "SSE (Prescott)", "AVX2 (Zen)", "AVX-512 (SkylakeX)"
# "clear" is float64, which needs no looking for the worst; oneDNN is TensorFlow's alone
PAIRS = [
    (processor, subject)
    for processor, subject in itertools.product(PROCESSORS, SUBJECTS)
    if subject != "clear" or processor in ("this one", "SSE (Prescott)")
    if "oneDNN" not in processor or subject.startswith("tf")
    if not subject.startswith("tf") or processor not in FIXED
]


def two_levels(shape, share, deviation, offset):
    """Return float32 numbers of two levels, `offset` deviations away from 0."""
    upper = np.random.default_rng(0).random(shape) < share
    x = (upper - share) / np.sqrt(share * (1 - share))
    return ((x + offset) * deviation).astype(np.float32)


def functions(subject):
    """Return `batch_norm(x, axis)`, in which the subject takes part."""
    if subject.startswith("tf_ops"):
        import tensorflow as tf

        from bnlib.tf_ops import batch_norm

        # known shapes at first, and unknown ones once several of a kind have come
        compiled = subject.endswith("XLA") or None
        step = tf.function(batch_norm, jit_compile=compiled, reduce_retracing=True)
        return lambda x, axis: [
            v.numpy() for v in step(tf.constant(x), axis=axis, epsilon=0.0)
        ]
    from bnlib import batch_norm, blocks

    if subject == "clear":
        blocks.SMALLEST = sys.maxsize
    else:
        limit = os.environ.get("BNLIB_NUM_THREADS")
        blocks.use(subject, threads=limit and int(limit))
    return lambda x, axis: batch_norm(x, axis=axis, epsilon=0.0)


def errors(batch_norm, x, axis):
    """Return the errors of y and of the mean, in deviations, and of the variance, of itself.

    That of y is divided by 1 + |y|, and what rounding y to float32 costs is not counted.
    """
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    exact = x.astype(np.float64)
    first = exact.mean(axes, keepdims=True)
    exact -= first  # what is left is small, so float64 is exact enough
    rest = exact.mean(axes, keepdims=True)
    variance = ((exact - rest) ** 2).mean(axes)
    y, mean, found = batch_norm(x, axis)
    scale = np.sqrt(variance).reshape(first.shape)
    off = (np.asarray(mean, float).reshape(first.shape) - first - rest) / scale
    truth = (exact - rest) / scale
    lost = np.maximum(np.abs(y - truth) - np.spacing(np.abs(y)) / 2, 0)
    return (
        float(np.max(lost / (1 + np.abs(truth)))),
        float(np.max(np.abs(off))),
        float(np.max(np.abs(found / variance - 1))),
    )


def sweep(subject, lengths=LENGTHS):
    """Return the worst errors of a subject, by name, and the batch on which each was met."""
    batch_norm = functions(subject)
    worst = dict.fromkeys(("y", "mean", "variance"), (0.0, ""))
    for length, (name, layout), offset, (share, deviation) in itertools.product(
        lengths, LAYOUTS.items(), OFFSETS, LEVELS
    ):
        shape, axis = layout(length)
        x = two_levels(shape, share, deviation, offset)
        where = (
            f"{shape}, {name}, mean {offset} deviations of {deviation:.2f}, {share:.0%}"
        )
        for key, error in zip(worst, errors(batch_norm, x, axis), strict=True):
            worst[key] = max(worst[key], (error, where))
    return worst


def imitate(processor, subject, *options):
    """Sweep a subject in a process that imitates a processor."""
    environment = {
        name: value for name, value in os.environ.items() if "OPENBLAS" not in name
    }
    environment |= PROCESSORS[processor] | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, subject, *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{subject} on {processor}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def show_table(file=None):
    """Print, and store, the worst errors of each subject on each processor that matters to it."""
    from core import surroundings
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    console, stored = Console(width=110), {}
    table = Table("processor", "subject", "y", "mean", "variance", title="worst errors")
    for processor, subject in track(PAIRS, "Sweeping", console=console, transient=True):
        found = imitate(processor, subject)
        table.add_row(processor, subject, *(f"{e:.1e}" for e, _ in found.values()))
        stored.setdefault(subject, {})[processor] = found
    console.print(table)
    if file:
        text = {"surroundings": surroundings(), "errors": stored}
        file.write_text(json.dumps(text, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subject", nargs="?", choices=SUBJECTS)
    parser.add_argument("--quick", action="store_true", help="two lengths only")
    parser.add_argument("--json", type=Path, help="store the table here")
    options = parser.parse_args()
    if options.subject is None:
        return show_table(options.json)
    lengths = LENGTHS[1:2] if options.quick else LENGTHS
    return print(json.dumps(sweep(options.subject, lengths)))


if __name__ == "__main__":
    main()
