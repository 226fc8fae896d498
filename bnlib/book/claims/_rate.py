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
FACTORS = 0.0, 0.1, 1.0, 10.0, 100.0  # times He's deviation


def starts(seed, norm, rate):
    """Train four ReLU layers from weights of each size; 0 means that all are equal.

    `moved` is how far the hidden kernel that went farthest went, relative to its size at the start.
    """
    found, moved = [], []
    for factor in FACTORS:
        network = dense(FOUR, seed=seed, norm=batch_norm if norm else None)
        for layer in network.layers[:-1]:
            if isinstance(layer, Dense):
                kernel = layer.parameters["kernel"]
                kernel *= factor
                kernel += 0.1 * (factor == 0)
        kernels = [x for x in network.layers[:-1] if isinstance(x, Dense)]
        first = [layer.parameters["kernel"].copy() for layer in kernels]
        learn(network, seed=seed, rate=rate, steps=210)
        with np.errstate(all="ignore"):
            ways = [
                np.linalg.norm(layer.parameters["kernel"] - start)
                / np.linalg.norm(start)
                for layer, start in zip(kernels, first, strict=True)
            ]
        found.append(score(network))
        way = float(max(ways))
        moved.append(way if way < FAR else FAR)  # nan, too, where a run overflowed
    return {"accuracy": found, "moved": moved}


STARTS = Experiment(
    starts,
    {
        "none": {"norm": False, "rate": 0.3},
        "batch norm": {"norm": True, "rate": 0.3},
    },
    grid=(0.1, 0.3, 1.0),
    aim=lambda record: record["accuracy"][FACTORS.index(1.0)],
)


def tuned(seed, rate, last):
    """Train hidden layers at `rate`, the last at `last`; measure the effective rate at the end."""
    network = dense(FOUR, seed=seed, norm=batch_norm)
    for _ in _steps(network, seed, 210):
        for layer in network.layers:
            of_hidden = layer is not network.layers[-1] and isinstance(layer, Dense)
            for name, value in layer.parameters.items():
                value -= (rate if of_hidden else last) * layer.gradients[name]
    kernels = [each for each in network.layers[:-1] if isinstance(each, Dense)]
    sizes = [np.sum(each.parameters["kernel"] ** 2) for each in kernels]
    return {"accuracy": score(network), "effective": float(rate / np.mean(sizes))}


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
