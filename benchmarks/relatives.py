"""Train with the relatives of batch norm, each at several rates, and store what each run reached.

    python benchmarks/relatives.py [PART ...] [--json bnlib/book/stored/relatives.json]

Each part, a function below whose name begins with part_, takes one to four minutes of one core.
All networks are those of the book's wing, in float64, on the 8x8 digits, with plain gradient
descent; all settings of a part see the same seeds. See also `variants.py`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bnlib import BatchNorm
from bnlib.book import norms
from bnlib.book.data import digits
from bnlib.book.experiments import store_parts, sweep
from bnlib.book.network import (
    Dense,
    accuracy,
    convolutional,
    dense,
    softmax_cross_entropy,
    train,
)
from bnlib.book.sequences import attentive, recurrent

SEEDS = range(5)


def quick(channels):
    """Batch norm whose moving statistics follow soon."""
    return BatchNorm(channels, momentum=0.9)


def small(channels):
    """The same, with gamma started at 0.1."""
    norm = quick(channels)
    norm.gamma = np.full(channels, 0.1)
    return norm


def fit(network, x, y, **options):
    """Train; some of these runs overflow."""
    with np.errstate(all="ignore"):
        return train(network, x, y, softmax_cross_entropy, **options)


# Images, two at a time

IMAGES = {"none": None, "batch": quick, "group": norms.group(4)}


def images(seed, *, norm, rate):
    """Train the book's convolutional network for three epochs with two images in a batch."""
    data = digits()
    x, x_test = (each[..., np.newaxis] / 16 for each in (data.x_train, data.x_test))
    network = convolutional(seed, IMAGES[norm])
    fit(network, x, data.y_train, rate=rate, batch=2, steps=2019, seed=seed)
    return {"test": accuracy(network, x_test, data.y_test)}


def part_images():
    settings = {
        f"{norm} {rate}": {"norm": norm, "rate": rate}
        for norm in IMAGES
        for rate in (0.01, 0.02, 0.05, 0.1)
    }
    return sweep(images, settings, SEEDS, progress=True)


# Sequences

KINDS = {"none": None, "batch": quick, "batch, 0.1": small, "layer": norms.layer}


def rows(seed, *, norm, batch, rate):
    """Read the digits row by row, for six epochs; the rate is that of a batch of 64."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    network = recurrent(KINDS[norm], seed)
    options = {"rate": rate * batch / 64, "steps": 6 * (len(x) // batch)}
    fit(network, x, data.y_train, batch=batch, seed=seed, **options)
    if not norm.startswith("batch"):
        return {"test": accuracy(network, x_test, data.y_test), "together": None}
    found = {}
    for name, together in (("test", False), ("together", True)):
        network.layers[0].measure(x, together=together)
        found[name] = accuracy(network, x_test, data.y_test)
    return found


def part_recurrent():
    settings = {
        f"{norm} {batch} {rate}": {"norm": norm, "batch": batch, "rate": rate}
        for norm in KINDS
        for batch in (64, 4)
        for rate in (0.2, 0.5)
    }
    return sweep(rows, settings, SEEDS, progress=True)


TOKENS = {
    "none": None,
    "batch": quick,
    "layer": norms.layer,
    "rms": norms.rms,
    "tanh": norms.squash,
}


def tokens(seed, *, norm, batch, rate, steps):
    """Read the eight rows of a digit as eight tokens."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    network = attentive(TOKENS[norm], seed)
    options = {"rate": rate, "batch": batch, "steps": steps, "seed": seed}
    fit(network, x, data.y_train, **options)
    return {"test": accuracy(network, x_test, data.y_test)}


def part_attention():
    settings = {
        f"{norm} 64 {rate}": {"norm": norm, "batch": 64, "rate": rate, "steps": 630}
        for norm in TOKENS
        for rate in (0.05, 0.1, 0.2)
    }
    settings |= {  # six epochs
        f"{norm} 2 {rate}": {"norm": norm, "batch": 2, "rate": rate, "steps": 4038}
        for norm in ("batch", "layer")
        for rate in (0.01, 0.03)
    }
    return sweep(tokens, settings, SEEDS, progress=True)


# Norms of weights

WEIGHTS = {  # the norm of activations, the norm of weights
    "none": (None, None),
    "batch": (quick, None),
    "layer": (norms.layer, None),
    "weight": (None, "weight norm"),
    "standardised, group": (norms.group(10), "standardised"),
    "scaled": (None, "scaled"),
}


def weights(seed, *, kind, rate):
    """Train sixteen hidden layers with ReLU for ten epochs; measure the first batch's spread."""
    data = digits().flat
    mean, deviation = data.x_train.mean(), data.x_train.std()
    x, x_test = ((each - mean) / deviation for each in (data.x_train, data.x_test))
    norm, reweight = WEIGHTS[kind]
    network = dense([64, *[100] * 16, 10], seed=seed, norm=norm)
    if reweight:
        network.layers[:-1] = [
            norms.reweighted(layer, reweight) if isinstance(layer, Dense) else layer
            for layer in network.layers[:-1]
        ]
    spread = network.outputs(x[:64], training=True)[-3].std()
    fit(network, x, data.y_train, rate=rate, batch=64, steps=210, seed=seed)
    return {"test": accuracy(network, x_test, data.y_test), "spread": spread}


def part_weights():
    settings = {
        f"{kind} {rate}": {"kind": kind, "rate": rate}
        for kind in WEIGHTS
        for rate in (0.01, 0.02, 0.05, 0.1, 0.2)
    }
    settings["batch 0.4"] = {"kind": "batch", "rate": 0.4}
    return sweep(weights, settings, SEEDS, progress=True)


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
