"""Compare the norms of chapter 14 where they differ, and store what each run reached.

    python benchmarks/variants.py [PART ...] [--json bnlib/book/stored/variants.json]

Each part, a function below whose name begins with part_, takes one to four minutes of one core.
All networks are those of the book's wing, in float64, on the 8x8 digits, with plain gradient
descent; all settings of a part see the same seeds. See also `relatives.py`.
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

SEEDS = range(5)
SIZES = [2, 4, 8, 16, 64, 256]
EPOCHS = 6


def quick(channels):
    """Batch norm whose moving statistics follow soon."""
    return BatchNorm(channels, momentum=0.9)


def scaled(rate, batch, least=0.0):
    """Scale a rate that suits a batch of 64."""
    return max(rate * batch / 64, least)


def fit(network, x, y, *, rate, batch, seed, steps=None):
    """Train for some epochs or steps; some of these runs overflow."""
    steps = steps or EPOCHS * (len(x) // batch)
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    with np.errstate(all="ignore"):
        return train(network, x, y, softmax_cross_entropy, **options)


# Error against batch size, and batch renorm


def schedule(steps):
    """Batch renorm's limits as in its paper: those of batch norm first, then wider ones."""

    def limits(step):
        share = step / steps
        rmax = 1 + 2 * np.clip((share - 0.05) / 0.35, 0, 1)
        dmax = 5 * np.clip((share - 0.05) / 0.2, 0, 1)
        return float(rmax), float(dmax)

    return limits


def scheduled(batch):
    return lambda channels: norms.Renorm(
        channels, clipping=schedule(EPOCHS * (1347 // batch))
    )


BY_BATCH = {
    "none": lambda batch: None,
    "batch": lambda batch: BatchNorm,
    "renorm": scheduled,
    "ghost": lambda batch: lambda channels: norms.Ghost(channels, 16),
    "group": lambda batch: norms.group(10),
    "layer": lambda batch: norms.layer,
}


def by_batch(seed, *, make, batch, rate=None, steps=None):
    """Train five hidden layers; measure with the moving statistics, and with exact ones."""
    data = digits().flat
    x, x_test = data.x_train / 16, data.x_test / 16
    network = dense([64, *[100] * 5, 10], seed=seed, norm=make)
    rate = rate or scaled(0.1, batch, 0.004)
    losses = fit(
        network, x, data.y_train, rate=rate, batch=batch, seed=seed, steps=steps
    )
    found = {"moving": accuracy(network, x_test, data.y_test)}
    recalibrate(network, [x])
    found["exact"] = accuracy(network, x_test, data.y_test)
    return found | {"loss": round(float(np.mean(losses[-20:])), 4)}


def part_batch():
    settings = {
        f"{name} {batch}": {"make": make(batch), "batch": batch}
        for name, make in BY_BATCH.items()
        for batch in SIZES
        if name != "ghost" or batch > 16
    }
    gentle = {"batch": 256, "rate": 0.1, "steps": 4 * EPOCHS * (1347 // 256)}
    for name in ("none", "batch", "group", "layer"):
        settings[f"{name} gentle"] = {"make": BY_BATCH[name](256), **gentle}
    for rate in (0.001, 0.02):
        pair = {"make": BatchNorm, "batch": 2, "rate": rate}
        settings[f"batch 2 rate {rate}"] = pair
    return sweep(by_batch, settings, SEEDS, progress=True)


def part_renorm():
    steps = EPOCHS * (1347 // 4)

    def renorm(**options):
        return lambda channels: norms.Renorm(channels, **options)

    limits = schedule(steps)
    settings = {
        "batch norm": BatchNorm,
        "no limits": renorm(),
        "limits from the start": renorm(clipping=lambda step: (3.0, 5.0)),
        "schedule": renorm(clipping=limits),
    }
    for momentum in (0.0, 0.5, 0.9, 0.999):
        options = {"clipping": limits, "renorm_momentum": momentum}
        settings[f"momentum {momentum}"] = renorm(**options)
    settings = {name: {"make": make, "batch": 4} for name, make in settings.items()}
    return sweep(by_batch, settings, SEEDS, progress=True)


# Contrast

IMAGES = {
    "batch": quick,
    "instance": norms.instance,
    "early": lambda channels: (norms.instance if channels == 8 else quick)(channels),
    "but last": lambda channels: (quick if channels == 32 else norms.instance)(
        channels
    ),
    "last": lambda channels: (norms.instance if channels == 32 else quick)(channels),
    "halves": lambda channels: norms.Halves(channels, momentum=0.9),
    "group": norms.group(4),
}


def contrast(seed, *, norm):
    """Test under other contrasts; then let the contrast be what is asked for."""
    data = digits()
    x, x_test = (each[..., np.newaxis] / 16 for each in (data.x_train, data.x_test))
    options = {"rate": 0.3, "batch": 64, "steps": 210, "seed": seed}
    network = convolutional(seed, IMAGES[norm])
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
    network = convolutional(seed, IMAGES[norm])
    network.layers[-1] = Dense(32, 20, np.random.default_rng(seed))
    fit(network, x, data.y_train + 10 * pale, **options)
    guess = np.argmax(network(x_test, training=False), axis=1)
    found["digit"] = np.mean(guess % 10 == data.y_test)
    found["paleness"] = np.mean(guess // 10 == pale_test)
    return found


def part_contrast():
    settings = {norm: {"norm": norm} for norm in IMAGES}
    return sweep(contrast, settings, SEEDS, progress=True)


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
