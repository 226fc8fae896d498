"""What the statistics make of a distribution, where they come from, and how few examples do."""

import numpy as np

from bnlib import BatchNorm
from bnlib.book.claims._base import (
    Experiment,
    Norm,
    batch_norm,
    learn,
    score,
    standardised,
)
from bnlib.book.network import accuracy, convolutional, dense


def shapes(seed, place):
    """Measure skewness and excess kurtosis before and after batch norm, medians over channels."""
    network = dense([64, 100, 100, 10], seed=seed, norm=batch_norm)
    learn(network, seed=seed, rate=0.1, steps=210)
    outputs = network.outputs(standardised().x_train, training=True, update=False)
    x = {
        "pixels": standardised().x_train,
        "sums": outputs[3],
        "behind ReLU": outputs[2],
    }[place]
    x = x[:, x.std(axis=0) > 1e-3]
    y = BatchNorm(x.shape[1], epsilon=1e-9)(x, training=True)
    before, after = _third_and_fourth(x), _third_and_fourth(y)
    return {
        "kurtosis before": float(np.median(before[1])),
        "kurtosis after": float(np.median(after[1])),
        "changed": float(np.abs(after - before).max() / np.abs(before).max()),
        "mean": float(np.abs(y.mean(axis=0)).max()),
        "far from Gaussian": float(
            np.mean((np.abs(after[0]) > 0.5) | (np.abs(after[1]) > 1))
        ),
    }


def _third_and_fourth(x):
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.array([np.mean(z * z * z, axis=0), np.mean(z * z * z * z, axis=0) - 3])


SHAPES = Experiment(
    shapes, {p: {"place": p} for p in ("pixels", "sums", "behind ReLU")}
)


def whole(seed, momentum, recalibrated=False):
    """Train, let the layers see 30 batches of digits 0 to 4 without learning, and look."""
    data = standardised()
    network = dense(
        [64, 100, 100, 10], seed=seed, norm=lambda c: BatchNorm(c, momentum=momentum)
    )
    learn(network, seed=seed, rate=0.1, steps=210)
    first = float(accuracy(network, data.x_test, data.y_test))
    rng, some = np.random.default_rng(seed), data.x_train[data.y_train < 5]
    for _ in range(30):
        network(some[rng.choice(len(some), 64)], training=True)
    if recalibrated:
        score(network)
    used = [layer.population.value() for layer in network.norms]
    last = float(accuracy(network, data.x_test, data.y_test))
    exact = score(network)
    true = [layer.population.value() for layer in network.norms]
    off = [
        np.abs(u.mean - t.mean) / np.sqrt(t.variance + 1e-3)
        for u, t in zip(used, true, strict=True)
    ]
    return {
        "accuracy": first,
        "after the five": last,
        "exact": exact,
        "off": float(np.mean(off)),
    }


WHOLE = Experiment(
    whole,
    {
        "momentum 0.9": {"momentum": 0.9},
        "momentum 0.99": {"momentum": 0.99},
        "recalibrated": {"momentum": 0.9, "recalibrated": True},
    },
)


def small(seed, norm, batch, steps, images=False):
    """Train with batches of a size; the accuracy by exact statistics."""
    kinds = {
        "none": None,
        "batch": lambda c: Norm(c),
        "group": lambda c: Norm(c, groups=c // 4 if images else 10),
    }
    if images:
        network = convolutional(seed, kinds[norm])
        data = standardised()
        x, x_test = (v.reshape(-1, 8, 8, 1) for v in (data.x_train, data.x_test))
        data = data._replace(x_train=x, x_test=x_test)
    else:
        network, data = dense([64, *[50] * 4, 10], seed=seed, norm=kinds[norm]), None
    rate = 0.05 if images else max(0.1 * batch / 64, 0.004)
    learn(network, seed=seed, rate=rate, steps=steps, batch=batch, data=data)
    return {"accuracy": score(network, data)}


SMALL = Experiment(
    small,
    {
        f"{norm}, batches of {batch}": {"norm": norm, "batch": batch, "steps": steps}
        for batch, steps in ((2, 2000), (64, 210))
        for norm in ("none", "batch", "group")
    }
    | {
        f"{norm}, images, batches of 2": {
            "norm": norm,
            "batch": 2,
            "steps": 800,
            "images": True,
        }
        for norm in ("batch", "group")
    },
)
