"""Time whole training steps, and the memory of one layer: part of `make bench`.

A small CNN and ResNet50 are trained for a step with Keras's layers and with ours, the CNN also
without batch norm, in turn in one process. ResNet50 is not timed under XLA, which takes minutes to
compile it. Memory is the peak above what was held before a training step of one layer, x and y's
gradient included in the latter, in a process of its own for each layer.

    python benchmarks/models.py [--rounds 9] [--json FILE]
"""

import argparse
import json
import os
import subprocess
import sys
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

import bnlib.keras
from bnlib.book.timing import in_turn

KINDS = {
    "none": None,
    "Keras": keras.layers.BatchNormalization,
    "ours": bnlib.keras.BatchNormalization,
}
MODES = ("eager", "tf.function", "XLA")
MEMORY_SHAPE = (32, 56, 56, 64)


def cnn(kind):
    """Three convolutions, each with batch norm or without."""
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (32, 64, 128):
        model.add(keras.layers.Conv2D(filters, 3, padding="same", use_bias=not kind))
        if kind:
            model.add(kind())
        model.add(keras.layers.ReLU())
        model.add(keras.layers.MaxPooling2D())
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(10))
    return model, 64


def resnet50(kind):
    """ResNet50 on images of 64 x 64, with Keras's layers or ours."""
    model = keras.applications.ResNet50(
        weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None
    )
    ours = kind is bnlib.keras.BatchNormalization
    return bnlib.keras.swap_in(model) if ours else model, 32


def step(model, batch, mode):
    """Return a function without arguments that does one step of gradient descent."""
    optimizer = keras.optimizers.SGD(1e-3)
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((batch, *model.input_shape[1:]), "f4"))
    labels = tf.constant(rng.integers(0, 10, batch))

    def train(x, labels):
        with tf.GradientTape() as tape:
            value = loss(labels, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(value, [v.value for v in variables]), variables)
        return value

    if mode != "eager":
        train = tf.function(train, jit_compile=mode == "XLA")
    return lambda: train(x, labels).numpy()


def timed(make, kinds, modes, rounds):
    """Return {(mode, kind): milliseconds} of whole steps."""
    calls = {}
    for mode in modes:
        for name in kinds:
            keras.utils.set_random_seed(0)
            calls[mode, name] = step(*make(KINDS[name]), mode)
    return in_turn(calls, rounds)


def held(reset=False):
    """Return the peak of resident memory in bytes; `reset` starts it anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(s for s in lines if s.startswith("VmHWM")).split()[1])


def memory_here(name, mode):
    """Return the peak of one layer's training step here, in multiples of its input."""
    layer = KINDS[name]()
    layer.build(MEMORY_SHAPE)
    x, grad_y = tf.random.normal((2, *MEMORY_SHAPE))

    def train(x, grad_y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        values = [x, layer.gamma.value, layer.beta.value]
        return y, tape.gradient(y, values, grad_y)

    run = train if mode == "eager" else tf.function(train, jit_compile=mode == "XLA")
    for _ in range(3):
        run(x, grad_y)
    before = held(reset=True)
    for _ in range(3):
        run(x, grad_y)
    return (held() - before) / (4 * np.prod(MEMORY_SHAPE))


def memory(name, mode):
    """Run `memory_here` in a process of its own, where freed blocks leave the process at once."""
    command = [sys.executable, __file__, "--memory", name, mode]
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "TF_ENABLE_ONEDNN_OPTS": "0"}
    ended = subprocess.run(
        command, check=True, capture_output=True, env=os.environ | settings
    )
    return float(ended.stdout)


def report(console, title, found):
    """Print milliseconds; for the CNN also what batch norm adds, ours to Keras's."""
    columns = Table(
        "mode", "none", "Keras", "ours", "ours / Keras", "added", title=title
    )
    for mode in dict.fromkeys(mode for mode, _ in found):
        none, other, ours = (found.get((mode, name)) for name in KINDS)
        added = f"{(ours - none) / (other - none):.2f}" if none else "-"
        cells = [f"{v:.1f} ms" if v else "-" for v in (none, other, ours)]
        columns.add_row(mode, *cells, f"{ours / other:.2f}", added)
    console.print(columns)
    return {", ".join(key): value for key, value in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="store the figures here")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print(memory_here(*options.memory))
        return
    console = Console(width=120)
    stored = {
        "CNN": report(
            console,
            "a CNN's training step, 64 images of 32 x 32",
            timed(cnn, KINDS, MODES, options.rounds),
        ),
        "ResNet50": report(
            console,
            "ResNet50's training step, 32 images of 64 x 64",
            timed(resnet50, ("Keras", "ours"), ["tf.function"], options.rounds),
        ),
    }
    columns = Table("mode", "Keras", "ours", title=f"peak memory / x {MEMORY_SHAPE}")
    peaks = {}
    for mode in MODES:
        other, ours = (memory(name, mode) for name in ("Keras", "ours"))
        peaks |= {f"{mode}, Keras": other, f"{mode}, ours": ours}
        columns.add_row(mode, f"{other:.1f}", f"{ours:.1f}")
    console.print(columns)
    if options.json:
        text = {"surroundings": surroundings(), "milliseconds": stored, "memory": peaks}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
