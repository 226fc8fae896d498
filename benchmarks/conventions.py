"""Measure what a wrong epsilon, momentum or Bessel's factor costs a deep network; for chapter 12.

    python benchmarks/conventions.py [--seeds 3] [--json bnlib/book/stored/conventions.json]

Two networks learn the digits: the book's, with three batch norm layers, and one with twelve. In
training a layer uses its batch alone, so the weights do not depend on the momentum, nor on Bessel's
factor: one run is looked at with several moving statistics. The layers keep the last batch
(momentum 0), and the averages are kept beside them. It takes about ten minutes of one core.
"""

import argparse
import datetime
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from bnlib.book.convnet import as_images, convolutional

STORED = Path(__file__).parents[1] / "bnlib/book/stored/conventions.json"
NORM = keras.layers.BatchNormalization
EPSILONS = 1e-5, 1e-3
# name: share of the old value, Bessel's factor
AVERAGES = {
    "0.9": (0.9, False),
    "0.9, Bessel": (0.9, True),
    "0.1": (0.1, False),
    "0.99": (0.99, False),
}
# network, batch, rate, weight decay, epsilons
SETTINGS = [
    ("three", 64, 0.5, 0.0, EPSILONS),
    ("twelve", 64, 0.1, 0.0, EPSILONS),
    ("twelve", 64, 0.1, 0.05, EPSILONS),
    ("three", 8, 0.0625, 0.0, EPSILONS[:1]),
    ("twelve", 8, 0.0125, 0.0, EPSILONS[:1]),
    ("three", 2, 0.015625, 0.0, EPSILONS[:1]),
]
EPOCHS, WARM = 10, 6  # after WARM epochs somebody moves the model


def deep(seed, norm):
    """Make twelve convolutions of 16 to 64 channels, each with batch norm and ReLU."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for channels in (16, 32, 64):
        for place in range(4):
            stride = 2 if place == 0 and channels > 16 else 1
            model.add(
                keras.layers.Conv2D(
                    channels,
                    3,
                    stride,
                    padding="same",
                    use_bias=False,
                    kernel_initializer="he_normal",
                )
            )
            model.add(norm())
            model.add(keras.layers.ReLU())
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(10))
    return model


MAKERS = {"three": convolutional, "twelve": deep}


def norms_of(model):
    return [layer for layer in model.layers if isinstance(layer, NORM)]


def step_of(model, rate, decay):
    """Return one step of training; kernels of convolutions decay."""
    losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(jit_compile=False, reduce_retracing=True)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = losses(y, model(x, training=True))
        weights = [w.value for w in model.trainable_weights]
        for w, g in zip(weights, tape.gradient(loss, weights), strict=True):
            w.assign_sub(rate * (g + decay * w if w.shape.rank == 4 else g))
        return [
            (layer.moving_mean.value, layer.moving_variance.value)
            for layer in norms_of(model)
        ]

    return step


def accuracy(model, averages, data):
    """Return the held-out accuracy with these statistics."""
    for layer, (mean, variance) in zip(norms_of(model), averages, strict=True):
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
    _, _, x, y = data
    return round(float(np.mean(np.argmax(model(x, training=False), axis=1) == y)), 4)


def logits(model, data):
    return np.asarray(model(data[2], training=False))


def counts_of(model, size):
    """Return how many values a channel has in a batch, for each layer."""
    return [size * np.prod(layer.input.shape[1:-1]) for layer in norms_of(model)]


def one_run(name, size, rate, decay, seed, epsilon=1e-5, epochs=EPOCHS):
    """Train, and look with each average after each epoch; all start alike after WARM epochs."""
    data = as_images()
    model = MAKERS[name](seed, norm=lambda: NORM(momentum=0.0, epsilon=epsilon))
    step = step_of(model, rate, decay)
    counts = counts_of(model, size)
    order = np.random.default_rng(seed)
    x, y = data[0], data[1]
    start = [
        (np.zeros(n.moving_mean.shape), np.ones(n.moving_mean.shape))
        for n in norms_of(model)
    ]
    kept = dict.fromkeys(AVERAGES, start)
    found = {each: [] for each in AVERAGES}
    for epoch in range(epochs):
        if epoch == WARM:  # until then there was one model, with 0.9
            kept = dict.fromkeys(AVERAGES, kept["0.9"])
        shuffled = order.permutation(len(x))[: len(x) // size * size].reshape(-1, size)
        for batch in shuffled:
            now = [(m.numpy(), v.numpy()) for m, v in step(x[batch], y[batch])]
            for each, (old, bessel) in AVERAGES.items():
                kept[each] = [
                    (
                        old * mean + (1 - old) * m,
                        old * variance
                        + (1 - old) * v * (count / (count - 1) if bessel else 1),
                    )
                    for (mean, variance), (m, v), count in zip(
                        kept[each], now, counts, strict=True
                    )
                ]
        for each, averages in kept.items():
            found[each].append(accuracy(model, averages, data))
    right = accuracy(model, kept["0.9"], data)
    before, costs = logits(model, data), {}
    for other in EPSILONS:
        for layer in norms_of(model):
            layer.epsilon = other
        after = logits(model, data)
        costs[f"{other:g}"] = {
            "error": float(np.abs(after - before).max() / before.std()),
            "accuracy": accuracy(model, kept["0.9"], data),
            "changed": int(np.sum(after.argmax(1) != before.argmax(1))),
        }
    smallest = min(float(np.min(variance)) for _, variance in kept["0.9"])
    return {"epochs": found, "right": right, "epsilon": costs, "smallest": smallest}


def main():
    from core import surroundings  # beside this file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    runs = []
    pairs = [(setting, epsilon) for *setting, each in SETTINGS for epsilon in each]
    for (name, size, rate, decay), epsilon in track(pairs, "training"):
        for seed in range(options.seeds):
            run = one_run(name, size, rate, decay, seed, epsilon)
            about = {"network": name, "batch": size, "rate": rate, "decay": decay}
            about |= {"seed": seed, "trained with": f"{epsilon:g}"}
            runs.append(about | run)
            keras.backend.clear_session()
    made = {"day": f"{datetime.date.today()}", "surroundings": surroundings()}
    text = json.dumps(made | {"warm": WARM, "runs": runs}, separators=(",", ":"))
    options.json.write_text(text.replace('{"network', '\n{"network') + "\n")


if __name__ == "__main__":
    main()
