"""Time bnlib's Keras layer beside Keras's own: part of `make bench`.

A step is forward, backward and the update of the moving statistics. In the mode "batch None" the
number of examples is not known when the step is traced, as in `fit` on most data. Both layers take
turns in one process; the figure is the median over the rounds, the ratio is ours to Keras's.

    python benchmarks/layer.py [--rounds 9] [--shapes 56] [--json FILE]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from core import surroundings
from rich.console import Console
from rich.table import Table

from bnlib.book.timing import in_turn
from bnlib.keras import BatchNormalization

LAYERS = {"ours": BatchNormalization, "Keras": keras.layers.BatchNormalization}
MODES = {
    "eager": lambda f, shape: f,
    "tf.function": lambda f, shape: tf.function(f),
    "tf.function, batch None": lambda f, shape: tf.function(
        f, input_signature=[tf.TensorSpec([None, *shape[1:]])] * 2
    ),
    "XLA": lambda f, shape: tf.function(f, jit_compile=True),
}
SHAPES = [
    (32, 100),
    (256, 512),
    (8192, 1024),
    (64, 56, 56, 64),
    (32, 112, 112, 64),
    (32, 56, 56, 64),
    (32, 28, 28, 128),
    (32, 14, 14, 256),
    (32, 7, 7, 2048),
]


def calls(shape):
    """Return {(phase, mode, layer): a function without arguments}."""
    rng, found = np.random.default_rng(0), {}
    x, grad_y = (tf.constant(rng.standard_normal(shape, "f4") + k) for k in (0.5, 0))
    for name, make in LAYERS.items():
        layer = make()
        layer.build(shape)

        def step(x, grad_y, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            values = [x, layer.gamma.value, layer.beta.value]
            return tape.gradient(y, values, grad_y)

        def inference(x, grad_y, layer=layer):
            return layer(x, training=False)

        for phase, function in (("training step", step), ("inference", inference)):
            for mode, wrap in MODES.items():
                run = wrap(function, shape)
                found[phase, mode, name] = lambda run=run: tf.nest.flatten(
                    run(x, grad_y)
                )[0].numpy()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--shapes", default="", help="only shapes that contain this")
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    console, stored = Console(width=150), {}
    for shape in (s for s in SHAPES if options.shapes in str(s)):
        times = in_turn(calls(shape), options.rounds)
        columns = Table("phase", "mode", "ours", "Keras", "ratio", title=str(shape))
        for phase, mode in dict.fromkeys(key[:2] for key in times):
            ours, other = (times[phase, mode, name] for name in LAYERS)
            cells = f"{ours:.2f} ms", f"{other:.2f} ms", f"{ours / other:.2f}"
            columns.add_row(phase, mode, *cells)
        console.print(columns)
        stored[str(shape)] = {", ".join(key): value for key, value in times.items()}
    if options.json:
        text = {"surroundings": surroundings(), "milliseconds": stored}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
