"""Time an answer with batch norm and without it, folded away: part of `make bench`.

Six equal layers of one kind, each with batch norm at inference and ReLU, are built of TensorFlow's
own functions, and so are their folds. Both take turns in one process, and both give the same
outputs, which is checked. The figure is the time folded over the time with batch norm.

    python benchmarks/fold.py [--rounds 15] [--json FILE]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf
from core import surroundings
from rich.console import Console
from rich.table import Table

from bnlib import fold
from bnlib.book.timing import in_turn

DEPTH, SHAPE = 6, (8, 56, 56, 64)


def convolution(x, kernel):
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def depthwise(x, kernel):
    return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")


# the layer, its kernel's shape, its fan-in, the axes of the kernel that hold the channels
KINDS = {
    "3x3 convolution": (convolution, (3, 3, 64, 64), 576, -1),
    "1x1 convolution": (convolution, (1, 1, 64, 64), 64, -1),
    "depthwise 3x3 convolution": (depthwise, (3, 3, 64, 1), 9, (-2, -1)),
    "dense": (tf.matmul, (1024, 1024), 1024, -1),
}
DENSE = (64, 1024)
MODES = {"tf.function": False, "XLA": True}


def networks(kind):
    """Return the network with batch norm, its fold, and an input for both."""
    layer, shape, fan_in, axis = KINDS[kind]
    rng = np.random.default_rng(0)
    apart, folded = [], []
    for _ in range(DEPTH):
        kernel = rng.normal(0, (2 / fan_in) ** 0.5, shape)
        channels = shape[-1] if axis == -1 else shape[-2]
        mean, beta = rng.normal(size=(2, channels))
        variance, gamma = rng.uniform(0.5, 2, size=(2, channels))
        apart.append(
            [
                tf.Variable(a, dtype=tf.float32)
                for a in (kernel, mean, variance, beta, gamma)
            ]
        )
        new = fold(kernel, None, mean, variance, gamma, beta, axis=axis)
        folded.append([tf.Variable(a, dtype=tf.float32) for a in new])

    def with_batch_norm(x):
        for kernel, *rest in apart:
            x = tf.nn.relu(tf.nn.batch_normalization(layer(x, kernel), *rest, 1e-3))
        return x

    def without(x):
        for kernel, bias in folded:
            x = tf.nn.relu(tf.nn.bias_add(layer(x, kernel), bias))
        return x

    x = tf.constant(rng.normal(size=DENSE if kind == "dense" else SHAPE), tf.float32)
    return with_batch_norm, without, x


def measure(kind, rounds):
    """Return {mode: {"with batch norm" or "folded": milliseconds}}."""
    before, after, x = networks(kind)
    found = {}
    for mode, compiled in MODES.items():
        calls = {
            name: tf.function(each, jit_compile=compiled)
            for name, each in [("with batch norm", before), ("folded", after)]
        }
        outputs = [call(x).numpy() for call in calls.values()]
        np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-3 * outputs[0].std())
        run = {name: lambda call=call: call(x).numpy() for name, call in calls.items()}
        found[mode] = in_turn(run, rounds)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    stored = {}
    table = Table("six layers of", "mode", "with BN", "folded", "folded / with BN")
    for kind in KINDS:
        stored[kind] = measure(kind, options.rounds)
        for mode, (before, after) in ((m, t.values()) for m, t in stored[kind].items()):
            cells = [f"{before:.2f} ms", f"{after:.2f} ms", f"{after / before:.2f}"]
            table.add_row(kind, mode, *cells)
    Console(width=100).print(table)
    if options.json:
        text = {"surroundings": surroundings(), "milliseconds": stored}
        options.json.write_text(json.dumps(text, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
