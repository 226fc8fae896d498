"""Is it the shift, the smoothness, or the variance? Three experiments on the cause."""

import numpy as np

from bnlib.book.claims._base import (
    Experiment,
    Norm,
    batch_norm,
    learn,
    score,
    standardised,
    steps_to,
)
from bnlib.book.data import digits
from bnlib.book.network import Activation, dense, softmax_cross_entropy


def shifted(seed, norm, rate, noise=0.0, each=0.0):
    """Train eight ReLU layers; measure accuracy, and how far the last sums' means move."""
    rng = np.random.default_rng(1000 + seed)

    def noisy(channels):
        return Norm(channels, noise=noise, each=each, rng=rng)

    network = dense([64, *[50] * 8, 10], seed=seed, norm=noisy if norm else None)
    probe, seen = standardised().x_train[:256], []
    last = [
        k for k, layer in enumerate(network.layers) if isinstance(layer, Activation)
    ][-1]

    def look(step):
        if 10 <= step < 210 and step % 10 < 2:
            layers, x = network.layers[:last], probe
            for layer in layers:
                x = layer(x, training=True)
            seen.append(x.mean(axis=0))

    learn(network, seed=seed, rate=rate, steps=210, after=look)
    pairs = zip(seen[::2], seen[1::2], strict=True)
    moved = np.mean([np.abs(b - a).mean() for a, b in pairs])
    return {"accuracy": score(network), "moved": float(moved)}


SHIFTED = Experiment(
    shifted,
    {
        "none": {"norm": False, "rate": 0.1},
        "none, rate 0.3": {"norm": False, "rate": 0.3},
        "batch norm": {"norm": True, "rate": 1.0},
        "noise 0.5": {"norm": True, "noise": 0.5, "rate": 0.3},
        "noise 1.0": {"norm": True, "noise": 1.0, "rate": 0.3},
        "noise 1.5": {"norm": True, "noise": 1.5, "rate": 0.3},
        "noise 0.5, 0.1 each": {"norm": True, "noise": 0.5, "each": 0.1, "rate": 1.0},
        "noise 0.5, 0.5 each": {"norm": True, "noise": 0.5, "each": 0.5, "rate": 1.0},
    },
    grid=(0.03, 0.1, 0.3, 1.0, 3.0),
    untuned=("none, rate 0.3",),
)


LENGTHS = 0.05, 0.1, 0.2, 0.4  # steps along the gradient


def landscape(seed, activation, depth, norm, rate):
    """Walk from points of a training along the gradient: how much does the gradient change?"""
    sizes = [64, *[50] * depth, 10]
    network = dense(sizes, activation, seed=seed, norm=batch_norm if norm else None)
    data, found = standardised(), []
    x, y = data.x_train[:128], data.y_train[:128]

    def look(step):
        if step % 10 == 0 and step <= 100:
            found.append(_along(network, x, y))

    learn(network, seed=seed, rate=rate, steps=100, batch=128, after=look)
    return {
        "accuracy": score(network),
        "gradient change": float(np.median(found[1:])),
        "gradient change at step 0": float(found[0]),
    }


def _along(network, x, y):
    """Return the gradient's greatest change, relative to its size and to the way."""
    values = [
        (layer, name) for layer in network.layers for name in sorted(layer.parameters)
    ]
    start = [layer.parameters[name].copy() for layer, name in values]

    def at(length, direction):
        for (layer, name), value, move in zip(values, start, direction, strict=True):
            layer.parameters[name][...] = value - length * move
        logits = network(x, training=True, update=False)
        network.backward(softmax_cross_entropy(logits, y)[1])
        return [layer.gradients[name].copy() for layer, name in values]

    first, changes = at(0, [0] * len(start)), []
    size = np.sqrt(sum(np.sum(g**2) for g in first))
    for length in LENGTHS:
        there = at(length, first)
        change = sum(np.sum((a - b) ** 2) for a, b in zip(there, first, strict=True))
        changes.append(np.sqrt(change) / (length * size))
    at(0, [0] * len(start))
    return max(changes)


# the rates at which 80 % are right after 100 steps, on average over seeds 100 and 101,
# of 0.03, 0.1, 0.3, 1, 3 and 10
LEARNS = {
    "relu 5, none": (0.03, 0.1),
    "relu 5, batch norm": (0.03, 0.1, 0.3, 1.0, 3.0),
    "tanh 5, none": (0.03, 0.1, 0.3),
    "tanh 5, batch norm": (0.03, 0.1, 0.3, 1.0, 3.0),
    "sigmoid 2, none": (1.0, 3.0),
    "sigmoid 2, batch norm": (0.1, 0.3, 1.0, 3.0, 10.0),
}

LANDSCAPE = Experiment(
    landscape,
    {
        f"{name}, {rate:g}": {
            "activation": name.split()[0],
            "depth": int(name.split(",")[0].split()[1]),
            "norm": name.endswith("batch norm"),
            "rate": rate,
        }
        for name, rates in LEARNS.items()
        for rate in rates
    },
    seeds=tuple(range(300, 308)),
)


def halves(seed, norm, rate, **options):
    """Count steps to 90 % in R2RT's network: sigmoid, weights of deviation 1, raw pixels."""
    rng = np.random.default_rng(1000 + seed)

    def half(channels):
        return Norm(channels, rng=rng, **options)

    network = dense(
        [64, 100, 100, 10],
        "sigmoid",
        seed=seed,
        norm=half if norm else None,
        deviation=1.0,
    )
    steps = steps_to(network, 0.9, seed=seed, rate=rate, steps=600, data=digits().flat)
    return {"steps": steps}


HALVES = Experiment(
    halves,
    {
        "none": {"norm": False, "rate": 0.6},
        "only the mean": {"norm": True, "divide": False, "rate": 2.0},
        "only the size": {"norm": True, "centre": False, "rate": 2.0},
        "batch norm": {"norm": True, "rate": 6.0},
        "noise 0.5": {"norm": True, "noise": 0.5, "rate": 6.0},
        "noise 1.0": {"norm": True, "noise": 1.0, "rate": 2.0},
        "noise 1.5": {"norm": True, "noise": 1.5, "rate": 6.0},
    },
    grid=(0.2, 0.6, 2.0, 6.0, 20.0),
    aim=lambda record: -record["steps"],
)
