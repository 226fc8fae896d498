"""Time whole epochs of `fit` with Keras's layer and with ours: part of `make bench`.

How the data come decides whether the size of a batch is known when Keras traces the step, and so
which way through the layer is taken. Five ways are timed: arrays whose length is a multiple of the
batch size, and others; a `tf.data` of arrays, and of a generator; and one without the last, smaller
batch. The model is two convolutions, each with batch norm, on images of 112 x 112. Both take turns
in one process, epoch by epoch, after one that traces and is not counted.

    python benchmarks/fit.py [--rounds 5] [--json FILE]
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
SIDE, BATCH = 112, 32


def images(n):
    """Return so many images and labels."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, SIDE, SIDE, 3), "f4")
    return x, rng.integers(0, 10, n)


def dataset(n, *, drop_remainder=False):
    data = tf.data.Dataset.from_tensor_slices(images(n))
    return data.batch(BATCH, drop_remainder=drop_remainder)


def generated(n):
    """The same from a generator, of which not even the length is known."""
    x, y = images(n)
    signature = tf.TensorSpec(x.shape[1:]), tf.TensorSpec((), tf.int64)
    return tf.data.Dataset.from_generator(
        lambda: zip(x, y, strict=True), output_signature=signature
    ).batch(BATCH)


WAYS = {
    "96 images as arrays": lambda: images(96),
    "100 images as arrays": lambda: images(100),
    "100 images as tf.data": lambda: [dataset(100)],
    "100 images from a generator": lambda: [generated(100)],
    "100 images, drop_remainder": lambda: [dataset(100, drop_remainder=True)],
}


def model(kind, **settings):
    """Two convolutions, each with batch norm."""
    keras.utils.set_random_seed(0)
    built = keras.Sequential([keras.Input((SIDE, SIDE, 3))])
    for filters, strides in ((32, 1), (64, 2)):
        built.add(
            keras.layers.Conv2D(
                filters, 3, strides=strides, padding="same", use_bias=False
            )
        )
        built.add(kind())
        built.add(keras.layers.ReLU())
    built.add(keras.layers.GlobalAveragePooling2D())
    built.add(keras.layers.Dense(10))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile("sgd", loss, **settings)
    return built


def epochs(way, **settings):
    """Return {layer: a function that trains for one epoch}."""
    data, calls = WAYS[way](), {}
    for name, kind in LAYERS.items():
        network = model(kind, **settings)
        calls[name] = lambda network=network: network.fit(
            *data, batch_size=BATCH if len(data) == 2 else None, verbose=0
        )
    return calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    console, stored = Console(width=120), {}
    columns = Table("data", "ours", "Keras", "ratio", title="one epoch of fit")
    for way in WAYS:
        times = in_turn(epochs(way), options.rounds)
        ratio = f"{times['ours'] / times['Keras']:.2f}"
        columns.add_row(way, *(f"{t:.0f} ms" for t in times.values()), ratio)
        stored[way] = times
        console.print(f"{way}: {ratio}")
        keras.backend.clear_session()
    console.print(columns)
    if options.json:
        text = {"surroundings": surroundings(), "milliseconds": stored}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
