"""Time a convolution in Keras with each norm behind it, and store the medians.

python benchmarks/norm_times.py     # half a minute, on a quiet machine
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

from bnlib.book.experiments import keep
from bnlib.book.timing import in_turn

STORED = Path(__file__).parents[1] / "bnlib/book/stored/norm_times.json"
SHAPE = 32, 16, 16, 64
LAYERS = {
    "none": None,
    "batch": keras.layers.BatchNormalization,
    "group": lambda: keras.layers.GroupNormalization(8),
    "layer": keras.layers.LayerNormalization,
}


def calls(make, x):
    """Make a training step and an inference of a convolution with a norm, both compiled."""
    parts = [keras.Input(SHAPE[1:]), keras.layers.Conv2D(64, 3, padding="same")]
    model = keras.Sequential([*parts, *([make()] if make else [])])

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x, training=True) ** 3)
        return tape.gradient(loss, model.trainable_variables)

    return tf.function(step), tf.function(lambda: model(x, training=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, default=STORED)
    options = parser.parse_args()
    x = tf.constant(np.random.default_rng(0).normal(size=SHAPE), "float32")
    pairs = {name: calls(make, x) for name, make in LAYERS.items()}
    step, inference = (
        in_turn({name: pair[k] for name, pair in pairs.items()}, options.rounds)
        for k in (0, 1)
    )
    keep(options.json, __file__, step=step, inference=inference, shape=SHAPE)


if __name__ == "__main__":
    main()
