"""Time one batch norm layer beside one pass over its input, and count what each way moves.

The layer of the chapter on TensorFlow's functions: (32, 56, 56, 64), float32, on the CPU. All ways
take turns; the figure is the least of the rounds, which a busy machine spoils least. One pass reads
an array and writes another, with as many threads as the layer has. What XLA makes of a function
depends on the processor, so its reads and writes are counted here and not in the chapter.

    TF_ENABLE_ONEDNN_OPTS=1 python benchmarks/moves.py [--rounds 40] [--json FILE]
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # before core has its own wish

import numpy as np
import tensorflow as tf
from core import surroundings
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib import tf_ops
from bnlib.book.kernels import graph_traffic, xla_traffic

SHAPE, EPSILON = (32, 56, 56, 64), 1e-3


def two_functions(x):
    mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
    return tf.nn.batch_normalization(x, mean, variance, None, None, EPSILON)


def fused(x):
    ones = tf.ones(x.shape[-1])
    return tf.raw_ops.FusedBatchNormV3(
        x=x, scale=ones, offset=0 * ones, mean=[], variance=[], epsilon=EPSILON
    ).y


def ours(x):
    return tf_ops.batch_norm(x, epsilon=EPSILON)[0]


def step(forward):
    """Return the function that runs forward and backward."""

    def both(x, grad_y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward(x)
        return y, tape.gradient(y, x, grad_y)

    return both


def calls(x, grad_y):
    """Return {way: {phase: function without arguments}}."""
    found = {"one pass": {"pass": tf.function(tf.negative)}}
    for name, forward in [
        ("two functions", two_functions),
        ("fused", fused),
        ("bnlib", ours),
    ]:
        whole = step(forward)
        if name == "two functions":
            found["two functions, eager"] = {"forward": forward, "step": whole}
        for mode, xla in [("tf.function", False), ("XLA", True)]:
            found[f"{name}, {mode}"] = {
                "forward": tf.function(forward, jit_compile=xla),
                "step": tf.function(whole, jit_compile=xla),
            }
    given = {"pass": (x,), "forward": (x,), "step": (x, grad_y)}
    return {
        (name, phase): lambda run=run, phase=phase: run(*given[phase])
        for name, phases in found.items()
        for phase, run in phases.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, grad_y = (
        tf.constant(rng.standard_normal(SHAPE, dtype="f4") + np.float32(0.5))
        for _ in range(2)
    )
    ways, least = calls(x, grad_y), {}
    for call in ways.values():  # traced and compiled
        call()
    for _ in track(range(options.rounds), "rounds"):
        for key, call in ways.items():
            start = time.perf_counter()
            result = call()
            taken = 1e3 * (time.perf_counter() - start)
            least[key] = min(taken, least.get(key, taken))
            del result
    milliseconds = {}
    for (name, phase), value in least.items():
        milliseconds.setdefault(name, {})[phase] = value
    moved = {
        f"{name}, {mode}": {
            "forward": count(forward, x),
            "step": count(step(forward), x, grad_y),
        }
        for name, forward in [("two functions", two_functions), ("fused", fused)]
        for mode, count in [("tf.function", graph_traffic), ("XLA", xla_traffic)]
    }
    shown = Table("way", "phase", "ms", "passes", "reads and writes")
    for (name, phase), value in least.items():
        passes = value / milliseconds["one pass"]["pass"]
        counted = moved.get(name, {}).get(phase, "")
        shown.add_row(name, phase, f"{value:.2f}", f"{passes:.1f}", str(counted))
    Console(width=120).print(shown)
    if options.json:
        stored = {
            "surroundings": surroundings(),
            "shape": SHAPE,
            "milliseconds": milliseconds,
            "reads and writes": moved,
        }
        options.json.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
