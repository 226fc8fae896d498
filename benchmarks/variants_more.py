"""Add rates, longer training and Adam to the comparisons of chapter 14, and store the runs.

    python benchmarks/variants_more.py [PART ...] [--json bnlib/book/stored/variants_more.json]

The runs are those of `benchmarks/variants.py`, with the same seeds; its records and those of the
parts `batch`, `contrast` and `attention` make one comparison. All parts take three minutes.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import variants
from adam import adam

from bnlib.book import norms
from bnlib.book.data import digits
from bnlib.book.experiments import store_parts, sweep
from bnlib.book.network import accuracy, convolutional
from bnlib.book.sequences import attentive


def part_attention():
    settings = variants.at_rates(dict.fromkeys(variants.TOKENS, (0.3,)))
    return sweep(variants.tokens, settings, variants.SEEDS, progress=True)


def part_batch():
    settings = variants.at_sizes({2: {"batch": (0.0003, 0.001)}})
    return sweep(variants.by_batch, settings, variants.SEEDS, progress=True)


def part_contrast():
    rates = dict.fromkeys(variants.CONTRAST, (2.0, 5.0)) | {"group": (0.5, 2.0)}
    return sweep(
        variants.contrast, variants.at_rates(rates), variants.SEEDS, progress=True
    )


def long(seed, *, name, rate):
    """Train the convolutional network for twenty epochs; test it on the digits as they are."""
    data, (x, x_test) = digits(), variants.images()
    network = convolutional(seed, variants.CONTRAST[name])
    options = {"epochs": 20, "batch": 64, "rate": rate, "seed": seed}
    variants.fit(network, x, data.y_train, **options)
    return {"test": accuracy(network, x_test, data.y_test)}


def part_long():
    rates = {"batch": (0.5, 1.0, 2.0, 5.0), "instance": (1.0, 2.0, 3.0, 5.0)}
    return sweep(long, variants.at_rates(rates), variants.SEEDS, progress=True)


ADAM = {
    "none": None,
    "batch": variants.quick,
    "layer": norms.layer,
    "rms": norms.rms,
}


def tokens(seed, *, name, rate):
    """Train the network with attention by Adam."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    network = attentive(ADAM[name], seed)
    network.step = adam(network)
    options = {"epochs": 10, "batch": 64, "rate": rate, "seed": seed}
    variants.fit(network, x, data.y_train, **options)
    return {"test": accuracy(network, x_test, data.y_test)}


def part_adam():
    settings = variants.at_rates(dict.fromkeys(ADAM, (0.001, 0.003, 0.01, 0.03, 0.1)))
    return sweep(tokens, settings, variants.SEEDS, progress=True)


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
