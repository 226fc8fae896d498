"""Compare the norms of chapter 14, each at rates of its own, and store what each run reached.

    python benchmarks/variants.py [PART ...] [--json bnlib/book/stored/variants.json]

Each part, a function below whose name begins with part_, takes half a minute to three minutes of
one core. All networks are those of the book's wing, in float64, on the 8x8 digits, with plain
gradient descent; all settings of a part see the same seeds. A setting is called `NAME RATE`.
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
    recalibrate,
    softmax_cross_entropy,
    train,
)
from bnlib.book.sequences import attentive, recurrent

SEEDS = range(5)


def quick(channels):
    """Batch norm whose moving statistics follow soon."""
    return BatchNorm(channels, momentum=0.9)


def fit(network, x, y, *, epochs, batch, **options):
    """Train; some of these runs overflow."""
    options |= {"batch": batch, "steps": epochs * (len(x) // batch)}
    with np.errstate(all="ignore"):
        return train(network, x, y, softmax_cross_entropy, **options)


def at_rates(rates):
    """Make a setting of each name and each of its rates."""
    return {
        f"{name} {rate}": {"name": name, "rate": rate}
        for name, own in rates.items()
        for rate in own
    }


def at_sizes(rates):
    """Make a setting of each batch size, each name and each of its rates."""
    return {
        f"{name} {batch} {rate}": {"name": name, "batch": batch, "rate": rate}
        for batch, names in rates.items()
        for name, own in names.items()
        for rate in own
    }


def images():
    """Return the digits with a channel and from 0 to 1: those to train with, those to test."""
    data = digits()
    return [each[..., np.newaxis] / 16 for each in (data.x_train, data.x_test)]


# Error against batch size, and batch renorm

EPOCHS = 3


def schedule(steps):
    """Batch renorm's limits as in its paper: those of batch norm first, then wider ones."""

    def limits(step):
        share = step / steps
        rmax = 1 + 2 * np.clip((share - 0.05) / 0.35, 0, 1)
        dmax = 5 * np.clip((share - 0.05) / 0.2, 0, 1)
        return float(rmax), float(dmax)

    return limits


def renorm(batch, **options):
    """Batch renorm, on schedule if not told otherwise."""
    options = {"clipping": schedule(EPOCHS * (1347 // batch))} | options
    return lambda channels: norms.Renorm(channels, **options)


def five_layers(seed, *, norm, batch, rate):
    """Train five hidden layers; all statistics that are remembered are exact at the end."""
    data = digits().flat
    x, x_test = data.x_train / 16, data.x_test / 16
    network = dense([64, *[100] * 5, 10], seed=seed, norm=norm)
    fit(network, x, data.y_train, epochs=EPOCHS, batch=batch, rate=rate, seed=seed)
    recalibrate(network, [x])
    return {"test": accuracy(network, x_test, data.y_test)}


BY_BATCH = {
    "none": None,
    "batch": BatchNorm,
    "group": norms.group(10),
    "ghost": lambda channels: norms.Ghost(channels, 16),
}


def by_batch(seed, *, name, **options):
    """Train with one of the norms, or with renorm."""
    norm = renorm(options["batch"]) if name == "renorm" else BY_BATCH[name]
    return five_layers(seed, norm=norm, **options)


RATES = {
    2: {
        "none": (0.003, 0.01, 0.03, 0.1),
        "batch": (0.003, 0.01, 0.03),
        "group": (0.001, 0.003, 0.01, 0.03),
        "renorm": (0.001, 0.003, 0.01, 0.03),
    },
    4: {
        "none": (0.003, 0.01, 0.03, 0.1),
        "batch": (0.003, 0.01, 0.03, 0.1),
        "group": (0.003, 0.01, 0.03, 0.1),
    },
    8: {
        "none": (0.01, 0.03, 0.1, 0.3),
        "batch": (0.01, 0.03, 0.1, 0.3),
        "group": (0.003, 0.01, 0.03, 0.1),
    },
    16: {
        "none": (0.01, 0.03, 0.1, 0.3),
        "batch": (0.03, 0.1, 0.3, 1.0),
        "group": (0.01, 0.03, 0.1, 0.3),
    },
    64: {
        "none": (0.03, 0.1, 0.3),
        "batch": (0.1, 0.3, 1.0, 3.0),
        "ghost": (0.1, 0.3, 1.0, 3.0),
        "group": (0.03, 0.1, 0.3),
    },
}


def part_batch():
    return sweep(by_batch, at_sizes(RATES), SEEDS, progress=True)


RENORM = {
    "no limits": {"clipping": None},
    "momentum 0": {"renorm_momentum": 0.0},
    "momentum 0.99": {"renorm_momentum": 0.99},
    "momentum 0.999": {"renorm_momentum": 0.999},
}


def fours(seed, *, name, rate):
    """Train with batch renorm and four examples in a batch."""
    return five_layers(seed, norm=renorm(4, **RENORM[name]), batch=4, rate=rate)


def part_renorm():
    settings = at_rates(dict.fromkeys(RENORM, (0.01, 0.03, 0.1, 0.3)))
    return sweep(fours, settings, SEEDS, progress=True)


# Images

TWO = {"none": None, "batch": quick, "group": norms.group(4)}


def two_images(seed, *, name, rate):
    """Train the book's convolutional network for two epochs with two images in a batch."""
    data, (x, x_test) = digits(), images()
    network = convolutional(seed, TWO[name])
    fit(network, x, data.y_train, epochs=2, batch=2, rate=rate, seed=seed)
    return {"test": accuracy(network, x_test, data.y_test)}


def part_images():
    rates = {
        "none": (0.02, 0.05, 0.1, 0.2),
        "batch": (0.02, 0.05, 0.1, 0.2),
        "group": (0.02, 0.05, 0.1),
    }
    return sweep(two_images, at_rates(rates), SEEDS, progress=True)


CONTRAST = {
    "batch": quick,
    "instance": norms.instance,
    "first": lambda channels: (norms.instance if channels == 8 else quick)(channels),
    "last": lambda channels: (norms.instance if channels == 32 else quick)(channels),
    "halves": lambda channels: norms.Halves(channels, momentum=0.9),
    "group": norms.group(4),
}


def contrast(seed, *, name, rate):
    """Test under other contrasts; then let the contrast be what is asked for."""
    data, (x, x_test) = digits(), images()
    options = {"epochs": 6, "batch": 64, "rate": rate, "seed": seed}
    network = convolutional(seed, CONTRAST[name])
    fit(network, x, data.y_train, **options)
    found = {
        f"contrast {c}": accuracy(network, c * x_test, data.y_test)
        for c in (1, 0.5, 0.25)
    }
    rng = np.random.default_rng(100 + seed)
    pale, pale_test = (rng.random(len(each)) < 0.5 for each in (x, x_test))
    x, x_test = (
        each * np.where(halved, 0.5, 1)[:, None, None, None]
        for each, halved in ((x, pale), (x_test, pale_test))
    )
    network = convolutional(seed, CONTRAST[name])
    network.layers[-1] = Dense(32, 20, np.random.default_rng(seed))
    fit(network, x, data.y_train + 10 * pale, **options)
    guess = np.argmax(network(x_test, training=False), axis=1)
    found["digit"] = np.mean(guess % 10 == data.y_test)
    found["paleness"] = np.mean(guess // 10 == pale_test)
    return found


def part_contrast():
    rates = dict.fromkeys(CONTRAST, (0.3, 1.0, 3.0, 10.0))
    rates |= {"group": (0.1, 0.3, 1.0, 3.0)}
    return sweep(contrast, at_rates(rates), SEEDS, progress=True)


# Sequences


def small(channels):
    """Batch norm whose gamma starts at 0.1."""
    norm = quick(channels)
    norm.gamma = np.full(channels, 0.1)
    return norm


STEPS = {"none": None, "batch": quick, "batch, 0.1": small, "layer": norms.layer}


def rows(seed, *, name, batch, rate):
    """Read the digits row by row, for six epochs, or two if the batches are small."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    network = recurrent(STEPS[name], seed)
    options = {"epochs": 6 if batch == 64 else 2, "batch": batch, "rate": rate}
    fit(network, x, data.y_train, seed=seed, **options)
    if not name.startswith("batch"):
        return {"test": accuracy(network, x_test, data.y_test), "together": None}
    found = {}
    for measure, together in (("test", False), ("together", True)):
        network.layers[0].measure(x, together=together)
        found[measure] = accuracy(network, x_test, data.y_test)
    return found


RECURRENT = {
    64: {
        "none": (0.1, 0.2, 0.5, 1.0),
        "batch": (0.1, 0.2, 0.5, 1.0, 2.0),
        "batch, 0.1": (0.1, 0.2, 0.5, 1.0, 2.0),
        "layer": (0.1, 0.2, 0.5, 1.0),
    },
    4: {
        "none": (0.01, 0.03, 0.1),
        "batch": (0.01, 0.03, 0.1),
        "layer": (0.003, 0.01, 0.03, 0.1),
    },
}


def part_recurrent():
    return sweep(rows, at_sizes(RECURRENT), SEEDS, progress=True)


TOKENS = {  # before attention, before the dense part, at the end
    "none": None,
    "batch": (quick, quick, quick),
    "layer": (norms.layer, norms.layer, norms.layer),
    "rms": (norms.rms, norms.rms, norms.rms),
    "tanh": (norms.squash, norms.squash, norms.squash),
    "batch first": (quick, norms.layer, norms.layer),
    "batch second": (norms.layer, quick, norms.layer),
    "batch last": (norms.layer, norms.layer, quick),
}


def tokens(seed, *, name, rate):
    """Read the eight rows of a digit as eight tokens, for ten epochs."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    left = iter(TOKENS[name] or ())
    norm = TOKENS[name] and (lambda width: next(left)(width))  # called three times
    network = attentive(norm, seed)
    options = {"epochs": 10, "batch": 64, "rate": rate, "seed": seed}
    losses = fit(network, x, data.y_train, **options)
    return {
        "test": accuracy(network, x_test, data.y_test),
        "loss": float(np.mean(losses[-21:])),
    }


def part_attention():
    rates = dict.fromkeys(TOKENS, (0.1, 0.2, 0.4, 0.8)) | {"none": (0.1, 0.2, 0.4)}
    return sweep(tokens, at_rates(rates), SEEDS, progress=True)


# Norms of weights

WEIGHTS = {  # the norm of activations, the norm of weights
    "none": (None, None),
    "batch": (quick, None),
    "group": (norms.group(10), None),
    "weight": (None, "weight norm"),
    "standardised, group": (norms.group(10), "standardised"),
    "scaled": (None, "scaled"),
}


def weights(seed, *, name, rate):
    """Train sixteen hidden layers with ReLU for ten epochs; measure the first batch's spread."""
    data = digits().flat
    mean, deviation = data.x_train.mean(), data.x_train.std()
    x, x_test = ((each - mean) / deviation for each in (data.x_train, data.x_test))
    norm, reweight = WEIGHTS[name]
    network = dense([64, *[100] * 16, 10], seed=seed, norm=norm)
    if reweight:
        network.layers[:-1] = [
            norms.reweighted(layer, reweight) if isinstance(layer, Dense) else layer
            for layer in network.layers[:-1]
        ]
    spread = network.outputs(x[:64], training=True)[-3].std()
    fit(network, x, data.y_train, epochs=10, batch=64, rate=rate, seed=seed)
    return {"test": accuracy(network, x_test, data.y_test), "spread": spread}


def part_weights():
    rates = dict.fromkeys(WEIGHTS, (0.01, 0.02, 0.03, 0.05, 0.1))
    rates |= {"batch": (0.1, 0.2, 0.4, 0.8)}
    return sweep(weights, at_rates(rates), SEEDS, progress=True)


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
