"""Inputs that are not those of the training: pushed by an adversary, or from another domain."""

import numpy as np

from bnlib.book.claims._base import Experiment, batch_norm, learn, score, standardised
from bnlib.book.network import (
    accuracy,
    convolutional,
    dense,
    recalibrate,
    softmax_cross_entropy,
)

PUSHES = 0.1, 0.2, 0.4


def attacked(seed, norm, images=False):
    """Train, then push each pixel by a step along the sign of the loss gradient (FGSM)."""
    data = standardised()
    make = batch_norm if norm else None
    if images:
        network = convolutional(seed, make)
        x, x_test = (v.reshape(-1, 8, 8, 1) for v in (data.x_train, data.x_test))
        data = data._replace(x_train=x, x_test=x_test)
    else:
        network = dense([64, 100, 100, 10], seed=seed, norm=make)
    learn(network, seed=seed, rate=0.3 if images else 0.1, steps=300, data=data)
    clean = score(network, data)
    logits = network(data.x_test, training=False)
    sign = np.sign(network.backward(softmax_cross_entropy(logits, data.y_test)[1]))
    pushed = [
        float(accuracy(network, data.x_test + p * sign, data.y_test)) for p in PUSHES
    ]
    noise = np.random.default_rng(seed).choice([-1, 1], data.x_test.shape)
    return {
        "clean": clean,
        "pushed": pushed,
        "random": float(
            accuracy(network, data.x_test + PUSHES[-1] * noise, data.y_test)
        ),
    }


ATTACKED = Experiment(
    attacked,
    {
        f"{kind}, {name}": {"norm": norm, "images": images}
        for kind, images in (("dense", False), ("images", True))
        for name, norm in (("none", False), ("batch norm", True))
    },
)


TARGETS = "same", "dim", "inverted", "noisy", "same, only 0 and 1", "dim, only 0 and 1"


def moved(seed):
    """Train a convolutional network; score each domain before and after re-estimation."""
    data = standardised()
    low, high = data.x_train.min(), data.x_train.max()
    x, x_test = (v.reshape(-1, 8, 8, 1) for v in (data.x_train, data.x_test))
    data = data._replace(x_train=x, x_test=x_test)
    network = convolutional(seed, batch_norm)
    learn(network, seed=seed, rate=0.3, steps=210, data=data)
    noise = np.random.default_rng(seed).normal(0, 1, x_test.shape)
    dim, few = low + (x_test - low) * 0.3, data.y_test < 2
    everyone = np.ones_like(few)
    domains = [
        (x_test, everyone),
        (dim, everyone),
        (low + high - x_test, everyone),
        (x_test + noise, everyone),
        (x_test, few),
        (dim, few),
    ]
    pairs = [(images[rows], data.y_test[rows]) for images, rows in domains]
    score(network, data)  # leaves the statistics of the source
    before, after = [float(accuracy(network, *pair)) for pair in pairs], []
    for there, y in pairs:
        recalibrate(network, [there])
        after.append(float(accuracy(network, there, y)))
    return {"before": before, "after": after}


MOVED = Experiment(moved, {"batch norm": {}})
