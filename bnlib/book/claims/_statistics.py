"""How near to the training set's statistics those are that inference uses."""

import numpy as np

from bnlib import BatchNorm
from bnlib.book.claims._base import Experiment, learn, score, standardised
from bnlib.book.network import accuracy, dense


def whole(seed, momentum, steps):
    """Train as usual, and compare the layers' statistics with those of the whole training set."""
    data = standardised()
    network = dense(
        [64, 100, 100, 10], seed=seed, norm=lambda c: BatchNorm(c, momentum=momentum)
    )
    learn(network, seed=seed, rate=0.1, steps=steps)
    used = [layer.population.value() for layer in network.norms]
    right = float(accuracy(network, data.x_test, data.y_test))
    exact = score(network)
    true = [layer.population.value() for layer in network.norms]
    off, apart = [], []
    for u, t in zip(used, true, strict=True):
        deviation = np.sqrt(t.variance + 1e-3)
        off.append(np.abs(u.mean - t.mean) / deviation)
        apart.append(np.abs(np.sqrt(u.variance + 1e-3) / deviation - 1))
    return {
        "accuracy": right,
        "exact": exact,
        "mean off": float(np.mean(off)),
        "deviation off": float(np.mean(apart)),
    }


WHOLE = Experiment(
    whole,
    {
        "momentum 0.99, 210 steps": {"momentum": 0.99, "steps": 210},
        "momentum 0.99, 630 steps": {"momentum": 0.99, "steps": 630},
        "the last batch alone": {"momentum": 0.0, "steps": 630},
    },
)
