"""What the noise of a batch does, beside dropout."""

import numpy as np

from bnlib.book.claims._base import (
    Experiment,
    Norm,
    batch_norm,
    learn,
    score,
    standardised,
)
from bnlib.book.network import accuracy, dense


class Dropout:
    """Put 0 in place of a share of the values in training, and enlarge the others."""

    def __init__(self, share, rng):
        self.share, self.rng, self.parameters, self.gradients = share, rng, {}, {}

    def __call__(self, x, *, training):
        kept = self.rng.random(x.shape) >= self.share
        self.mask = kept / (1 - self.share) if training else 1.0
        return x * self.mask

    def backward(self, grad):
        return grad * self.mask


def few(count, seed):
    """Return the digits with `count` to train on, drawn by the seed."""
    data = standardised()
    rows = np.random.default_rng(seed).permutation(len(data.x_train))[:count]
    return data._replace(x_train=data.x_train[rows], y_train=data.y_train[rows])


def overfitted(seed, norm, rate, dropout=0.0):
    """Train two ReLU layers on 200 digits until they are all right."""
    data, rng = few(200, seed), np.random.default_rng(1000 + seed)
    network = dense([64, 100, 100, 10], seed=seed, norm=batch_norm if norm else None)
    if dropout:  # behind the first activation, so before the second norm
        network.layers.insert(3 if norm else 2, Dropout(dropout, rng))
    learn(network, seed=seed, rate=rate, steps=240, batch=32, data=data)
    right = score(network, data)
    own = float(accuracy(network, data.x_train, data.y_train))
    return {"accuracy": right, "on its own": own}


OVERFITTED = Experiment(
    overfitted,
    {
        "none": {"norm": False, "rate": 0.5},
        "none, dropout": {"norm": False, "dropout": 0.5, "rate": 0.1},
        "batch norm": {"norm": True, "rate": 0.2},
    },
    grid=(0.05, 0.1, 0.2, 0.5, 1.0),
)


def ghosts(seed, ghost, rate, dropout=0.0):
    """Train on 200 digits in batches of 64, whose parts of `ghost` share statistics."""
    data, rng = few(200, seed), np.random.default_rng(1000 + seed)

    def norm(channels):
        return Norm(channels, ghost=ghost)

    network = dense([64, 100, 100, 10], seed=seed, norm=norm)
    if dropout:
        network.layers.insert(3, Dropout(dropout, rng))
    learn(network, seed=seed, rate=rate, steps=200, batch=64, data=data)
    return {"accuracy": score(network, data)}


GHOSTS = Experiment(
    ghosts,
    {
        f"ghost {n}": {"ghost": n, "rate": rate}
        for n, rate in ((2, 0.05), (4, 0.2), (8, 0.2), (16, 2.0), (64, 1.0))
    }
    | {"ghost 64, dropout": {"ghost": 64, "dropout": 0.5, "rate": 1.0}},
    grid=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
)
