"""What the noise of a batch does, beside dropout and beside more data."""

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


def few(count, seed):
    """Return the digits with `count` to train on, drawn by the seed."""
    data = standardised()
    rows = np.random.default_rng(seed).permutation(len(data.x_train))[:count]
    return data._replace(x_train=data.x_train[rows], y_train=data.y_train[rows])


def overfitted(seed, norm, batch=32, dropout=0.0, epochs=40):
    """Train two ReLU layers on 200 digits until they are all right."""
    data, rng = few(200, seed), np.random.default_rng(1000 + seed)
    network = dense([64, 100, 100, 10], seed=seed, norm=batch_norm if norm else None)
    if dropout:  # behind the first activation, so before the second norm
        place = 3 if norm else 2
        network.layers.insert(place, Dropout(dropout, rng))
    steps = epochs * (200 // batch)
    learn(
        network, seed=seed, rate=0.1 * batch / 32, steps=steps, batch=batch, data=data
    )
    moving = float(accuracy(network, data.x_test, data.y_test))
    ratio = 1.0
    if norm:
        kept = network.norms[1].population.value().variance
    right = score(network, data)
    if norm:
        ratio = float(
            np.mean(kept) / np.mean(network.norms[1].population.value().variance)
        )
    return {
        "accuracy": right,
        "moving": moving,
        "variance ratio": ratio,
        "on its own": float(accuracy(network, data.x_train, data.y_train)),
    }


OVERFITTED = Experiment(
    overfitted,
    {
        "none": {"norm": False},
        "dropout": {"norm": False, "dropout": 0.5},
        "batch norm": {"norm": True},
        "batch norm, full batch": {"norm": True, "batch": 200, "epochs": 160},
        "none, full batch": {"norm": False, "batch": 200, "epochs": 160},
        "batch norm, dropout": {"norm": True, "dropout": 0.5},
    },
)


def ghosts(seed, ghost):
    """Train on 200 digits in batches of 64, whose parts of `ghost` share statistics."""
    data = few(200, seed)

    def norm(channels):
        return Norm(channels, ghost=ghost)

    network = dense([64, 100, 100, 10], seed=seed, norm=norm)
    learn(network, seed=seed, rate=0.2, steps=200, batch=64, data=data)
    return {"accuracy": score(network, data)}


GHOSTS = Experiment(ghosts, {f"ghost {n}": {"ghost": n} for n in (2, 4, 8, 16, 64)})


class Slower:
    """A dense layer whose kernel learns at a 256th of the rate, as it would for inputs / 16."""

    def __init__(self, layer):
        self.layer, self.parameters = layer, layer.parameters

    def __call__(self, x, *, training):
        return self.layer(x, training=training)

    def backward(self, grad):
        grad_x = self.layer.backward(grad)
        self.gradients = dict(self.layer.gradients)
        self.gradients["kernel"] = self.gradients["kernel"] / 256
        return grad_x


def inputs(seed, way, steps=400):
    """Train on 100 digits: pixels 0 to 16 as they are, divided by 16, or standardised."""
    rows = np.random.default_rng(seed).permutation(1347)[:100]
    data = digits().flat
    mean, deviation = data.x_train[rows].mean(axis=0), data.x_train[rows].std(axis=0)
    change = {
        "raw": lambda x: x,
        "raw, weights to match": lambda x: x,
        "scaled": lambda x: x / 16,
        "standardised": lambda x: (x - mean) / (deviation + 0.1),
    }[way]
    data = data._replace(
        x_train=change(data.x_train[rows]),
        y_train=data.y_train[rows],
        x_test=change(data.x_test),
    )
    network = dense([64, 100, 100, 10], seed=seed)
    if "match" in way:
        network.layers[0].parameters["kernel"] /= 16
        network.layers[0] = Slower(network.layers[0])
    rate = {"raw": 0.002, "standardised": 0.05}.get(way, 0.2)
    learn(network, seed=seed, rate=rate, steps=steps, batch=25, data=data)
    own = float(accuracy(network, data.x_train, data.y_train))
    return {
        "accuracy": float(accuracy(network, data.x_test, data.y_test)),
        "on its own": own,
    }


WAYS = "raw", "raw, weights to match", "scaled", "standardised"
INPUTS = Experiment(inputs, {way: {"way": way} for way in WAYS})
