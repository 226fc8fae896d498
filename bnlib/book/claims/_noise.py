"""What the noise of a batch does, beside dropout."""

import functools

import numpy as np

from bnlib.book.claims._base import (
    Experiment,
    Norm,
    batch_norm,
    learn,
    score,
    standardised,
)
from bnlib.book.data import digits
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


def few(count, seed, data=None):
    """Return the digits with `count` to train on, drawn by the seed."""
    data = data or standardised()
    rows = np.random.default_rng(seed).permutation(len(data.x_train))[:count]
    return data._replace(x_train=data.x_train[rows], y_train=data.y_train[rows])


@functools.cache
def pixels(largest):
    """Return the digits with pixels from 0 to `largest`."""
    data = digits().flat
    x_train, x_test = (x * (largest / 16) for x in (data.x_train, data.x_test))
    return data._replace(x_train=x_train, x_test=x_test)


def by_draws(run, seed, draws):
    """Return the mean accuracy of several runs, each with digits and weights of its own."""
    found = [run(draws * seed + draw) for draw in range(draws)]
    return float(np.mean(found))


COUNT = 100  # digits to train on


def overfitted(seed, norm, rate, dropout=0.0, largest=None):
    """Train two ReLU layers on 100 digits until they are all right; the mean of six draws.

    Pixels are standardised, or from 0 to `largest`.
    """
    own = []

    def run(seed):
        data = few(COUNT, seed, pixels(largest) if largest else None)
        network = _two_layers(seed, batch_norm if norm else None, dropout)
        learn(network, seed=seed, rate=rate, steps=240, batch=32, data=data)
        right = score(network, data)
        own.append(float(accuracy(network, data.x_train, data.y_train)))
        return right

    return {"accuracy": by_draws(run, seed, 6), "on its own": min(own)}


def _two_layers(seed, norm, dropout):
    network = dense([64, 100, 100, 10], seed=seed, norm=norm)
    if dropout:  # behind the first activation, so before the second norm
        rng = np.random.default_rng(10_000 + seed)
        network.layers.insert(3 if norm else 2, Dropout(dropout, rng))
    return network


OVERFITTED = Experiment(
    overfitted,
    {
        "none": {"norm": False, "rate": 0.5},
        "none, dropout": {"norm": False, "dropout": 0.5, "rate": 0.2},
        "batch norm": {"norm": True, "rate": 2.0},
        "batch norm, dropout": {"norm": True, "dropout": 0.5, "rate": 0.5},
        "none, pixels 0 to 16": {"norm": False, "largest": 16, "rate": 0.02},
        "none, pixels 0 to 1": {"norm": False, "largest": 1, "rate": 0.5},
    },
    grid=(0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
    grids={
        "batch norm": (0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        "none, pixels 0 to 16": (0.002, 0.005, 0.01, 0.02, 0.05, 0.1),
        "none, pixels 0 to 1": (0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
    },
)


def ghosts(seed, ghost, rate, dropout=0.0):
    """Train on 100 digits in batches of 64, parts of `ghost` share statistics; six draws."""

    def norm(channels):
        return Norm(channels, ghost=ghost)

    def run(seed):
        data, network = few(COUNT, seed), _two_layers(seed, norm, dropout)
        learn(network, seed=seed, rate=rate, steps=200, batch=64, data=data)
        return score(network, data)

    return {"accuracy": by_draws(run, seed, 6)}


GHOSTS = Experiment(
    ghosts,
    {
        f"ghost {n}": {"ghost": n, "rate": rate}
        for n, rate in ((2, 0.2), (4, 0.2), (8, 0.5), (16, 2.0), (64, 2.0))
    }
    | {"ghost 64, dropout": {"ghost": 64, "dropout": 0.5, "rate": 0.5}},
    grid=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
    grids={
        "ghost 16": (0.2, 0.5, 1.0, 2.0, 5.0),
        "ghost 64": (0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
        "ghost 64, dropout": (0.2, 0.5, 1.0, 2.0, 5.0),
    },
)
