"""Starts; and what a rate means when only directions count."""

import numpy as np

from bnlib import BatchNorm
from bnlib.book.claims._base import (
    Experiment,
    batch_norm,
    learn,
    score,
    standardised,
)
from bnlib.book.network import Dense, batches, dense, softmax_cross_entropy

FOUR = [64, 50, 50, 50, 50, 10]
FAR = 1e6


def starts(seed, norm, factor, rate):
    """Train four ReLU layers from weights of He's deviation times a factor; 0: all are equal.

    `moved` is how far the hidden kernel that went farthest went, relative to its size at the start.
    """
    network = dense(FOUR, seed=seed, norm=batch_norm if norm else None)
    kernels = [each for each in network.layers[:-1] if isinstance(each, Dense)]
    for layer in kernels:
        kernel = layer.parameters["kernel"]
        kernel *= factor
        kernel += 0.1 * (factor == 0)
    first = [layer.parameters["kernel"].copy() for layer in kernels]
    learn(network, seed=seed, rate=rate, steps=210)
    with np.errstate(all="ignore"):
        ways = [
            np.linalg.norm(layer.parameters["kernel"] - start) / np.linalg.norm(start)
            for layer, start in zip(kernels, first, strict=True)
        ]
    way = float(max(ways))
    # not a number where a run overflowed
    return {"accuracy": score(network), "moved": way if way < FAR else FAR}


OWN_RATES = {  # the best of a grid, by factor: without batch norm, and with it
    0.0: (0.01, 1.0),
    0.1: (0.1, 0.03),
    1.0: (0.3, 0.3),
    10.0: (1e-4, 3.0),
    100.0: (1e-7, 3.0),
}

STARTS = Experiment(
    starts,
    {
        f"{factor:g}, {'batch norm' if norm else 'none'}": {
            "norm": norm,
            "factor": factor,
            "rate": rate,
        }
        for factor, rates in OWN_RATES.items()
        for norm, rate in zip((False, True), rates, strict=True)
    }
    | {
        f"{factor:g}, rate 0.3": {"norm": True, "factor": factor, "rate": 0.3}
        for factor in (10.0, 100.0)
    },
    grid=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    grids={
        "0.1, none": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        "10, none": (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
        "100, none": (1e-9, 1e-8, 1e-7, 1e-6),
    },
    untuned=("10, rate 0.3", "100, rate 0.3"),
)


def tuned(seed, rate, last, norm=True):
    """Train hidden layers at `rate`, the last at `last`; measure the effective rate at the end.

    The effective rate is 0 where the weights overflowed.
    """
    network = dense(FOUR, seed=seed, norm=batch_norm if norm else None)
    for _ in _steps(network, seed, 210):
        for layer in network.layers:
            of_hidden = layer is not network.layers[-1] and isinstance(layer, Dense)
            for name, value in layer.parameters.items():
                value -= (rate if of_hidden else last) * layer.gradients[name]
    kernels = [each for each in network.layers[:-1] if isinstance(each, Dense)]
    with np.errstate(all="ignore"):
        size = np.mean([np.sum(each.parameters["kernel"] ** 2) for each in kernels])
    effective = float(rate / size) if np.isfinite(size) else 0.0
    return {"accuracy": score(network), "effective": effective}


def _steps(network, seed, steps):
    """Yield after each backward pass; the caller moves the parameters."""
    data = standardised()
    order = batches(len(data.x_train), 64, np.random.default_rng(seed))
    with np.errstate(all="ignore"):
        for step in range(steps):
            rows = next(order)
            logits = network(data.x_train[rows], training=True)
            network.backward(softmax_cross_entropy(logits, data.y_train[rows])[1])
            yield step


TUNED = Experiment(
    tuned,
    {
        f"hidden {rate}, last {last}": {"rate": rate, "last": last}
        for rate, last in (
            *((rate, 0.1) for rate in (0.1, 1.0, 10.0, 100.0)),
            *((rate, rate) for rate in (10.0, 100.0)),
        )
    }
    | {
        f"none, hidden {rate}, last 0.1": {"rate": rate, "last": 0.1, "norm": False}
        for rate in (0.1, 1.0, 10.0, 100.0)
    },
)


def decayed(seed, epsilon, rate=0.5, decay=0.01, steps=100):
    """Train with weight decay, and again without, at a rate that grows instead.

    One step of decay shrinks the weights by 1 - rate * decay. If only their direction counts, then
    so does leaving them long and raising the rate by that factor, squared, at every step.
    """

    def bare(channels):
        return BatchNorm(channels, momentum=0.9, epsilon=epsilon)

    shrink, answers, sizes = 1 - rate * decay, [], []
    for grows in (False, True, None):
        network = dense(FOUR, "tanh", seed=seed, norm=bare if epsilon else None)
        for step in _steps(network, seed, steps):
            for layer in network.layers:
                hidden = layer is not network.layers[-1] and isinstance(layer, Dense)
                for name, value in layer.parameters.items():
                    turned = rate
                    if hidden and name == "kernel":
                        value *= shrink if grows is False else 1
                        turned = rate * shrink ** (-2 * step - 1) if grows else rate
                    value -= turned * layer.gradients[name]
        accuracy = score(network)
        logits = network(standardised().x_test, training=False)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        answers.append((accuracy, odds / odds.sum(axis=1, keepdims=True)))
        sizes.append(float(np.linalg.norm(network.layers[0].parameters["kernel"])))
    (right, decay_says), (_, growth_says), (left, neither) = answers
    return {
        "accuracy": right,
        "accuracy without decay": left,
        "answers differ": float(np.abs(decay_says - growth_says).max()),
        "without decay": float(np.abs(decay_says - neither).max()),
        "weights": sizes,
    }


DECAYED = Experiment(
    decayed,
    {
        "none": {"epsilon": None},
        "epsilon 1e-12": {"epsilon": 1e-12},
        "epsilon 1e-5": {"epsilon": 1e-5},
        "epsilon 1e-3": {"epsilon": 1e-3},
    },
)
