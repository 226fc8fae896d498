"""Time one block under XLA with Keras's layer and with ours: why a network's step gains nothing.

The block is a convolution, batch norm and a ReLU, forward and backward. It is timed whole, without
the ReLU, and without the gradient of the kernel. For that gradient XLA puts the gradient of the
convolution's output in another order; `reads` says how many arrays the loop that does so reads: 1
if it copies what another loop has stored, several if it computes all of it once more.

    python benchmarks/xla.py [--runs 5] [--rounds 15] [--json FILE]
"""

import argparse
import os
import re
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track

import bnlib.keras
from bnlib.book.experiments import STORED, keep
from bnlib.book.timing import in_turn

SHAPE, CHANNELS = (64, 32, 32, 3), 32
KINDS = {
    "Keras": keras.layers.BatchNormalization,
    "ours": bnlib.keras.BatchNormalization,
}
BLOCKS = {
    "convolution, norm": {"relu": False, "kernel": True},
    "convolution, norm, ReLU": {"relu": True, "kernel": True},
    "the same, no gradient of the kernel": {"relu": True, "kernel": False},
}


def block(kind, *, relu, kernel):
    """Return a block's step, compiled: the gradients of its input and of what is trained."""
    convolution = keras.layers.Conv2D(CHANNELS, 3, padding="same", use_bias=False)
    parts = [convolution, KINDS[kind](), *([keras.layers.ReLU()] if relu else [])]
    model = keras.Sequential([keras.Input(SHAPE[1:]), *parts])
    trained = [v.value for v in model.trainable_variables][0 if kernel else 1 :]

    @tf.function(jit_compile=True)
    def step(x, grad_y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
        return tape.gradient(y, [x, *trained], grad_y)

    return step


def reads_of_reordering(step, *arrays):
    """Return how many arrays the loop reads that reorders the gradient; 0 where there is none."""
    text = step.experimental_get_compiler_ir(*arrays)(stage="optimized_hlo")
    _, height, width, _ = SHAPE
    shape = f"f32[{height},{width},{SHAPE[0]},{CHANNELS}]"
    found = re.search(rf"= {re.escape(shape)}\S* fusion\(([^)]*)\)", text)
    return found[1].count("%") if found else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=STORED / "xla.json")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    shapes = SHAPE, (*SHAPE[:3], CHANNELS)
    x, grad_y = (tf.constant(rng.standard_normal(s, "f4")) for s in shapes)
    steps = {
        (name, kind): block(kind, **settings)
        for name, settings in BLOCKS.items()
        for kind in KINDS
    }
    reads = {name: {} for name in BLOCKS}
    for (name, kind), step in steps.items():
        reads[name][kind] = reads_of_reordering(step, x, grad_y)
    calls = {
        key: lambda step=step: step(x, grad_y)[0].numpy() for key, step in steps.items()
    }
    ratios = {name: [] for name in BLOCKS}
    for _ in track(range(options.runs), "runs"):
        times = in_turn(calls, options.rounds)
        for name in BLOCKS:
            ratios[name].append(times[name, "ours"] / times[name, "Keras"])
    Console().print(ratios, reads)
    keep(options.json, __file__, ratios=ratios, reads=reads)


if __name__ == "__main__":
    main()
