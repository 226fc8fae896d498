"""Inputs that are not those of the training: pushed by an adversary, or from another domain."""

import numpy as np

from bnlib.book.claims._base import Experiment, batch_norm, learn, score, standardised
from bnlib.book.network import (
    accuracy,
    convolutional,
    recalibrate,
    softmax_cross_entropy,
)

PUSHES = 0.1, 0.2, 0.4


def attacked(seed, norm, rate):
    """Train, then push each pixel by a step along the sign of the loss gradient (FGSM)."""
    data = _images()
    network = convolutional(seed, batch_norm if norm else None)
    learn(network, seed=seed, rate=rate, steps=300, data=data)
    clean = score(network, data)
    logits = network(data.x_test, training=False)
    sign = np.sign(network.backward(softmax_cross_entropy(logits, data.y_test)[1]))
    pushed = [
        float(accuracy(network, data.x_test + p * sign, data.y_test)) for p in PUSHES
    ]
    noise = np.random.default_rng(seed).choice([-1, 1], data.x_test.shape)
    random = accuracy(network, data.x_test + PUSHES[-1] * noise, data.y_test)
    return {"clean": clean, "pushed": pushed, "random": float(random)}


def _images():
    data = standardised()
    x, x_test = (v.reshape(-1, 8, 8, 1) for v in (data.x_train, data.x_test))
    return data._replace(x_train=x, x_test=x_test)


ATTACKED = Experiment(
    attacked,
    {
        "none": {"norm": False, "rate": 0.3},
        "batch norm": {"norm": True, "rate": 3.0},
    },
    grid=(0.1, 0.3, 1.0, 3.0, 10.0),
    aim=lambda record: record["clean"],
)


TARGETS = "same", "dim", "inverted", "noisy", "same, only 0 and 1", "dim, only 0 and 1"


def moved(seed):
    """Train a convolutional network; score each domain before and after re-estimation.

    The statistics come from training images, changed as the test images are, without labels.
    `crossed` is the score of dim images with statistics of noisy ones.
    """
    data = _images()
    x, x_test = data.x_train, data.x_test
    low, high = x.min(), x.max()
    network = convolutional(seed, batch_norm)
    learn(network, seed=seed, rate=0.3, steps=210, data=data)
    rng = np.random.default_rng(seed)

    def domains(x, y):
        dim, few = low + (x - low) * 0.3, y < 2
        noisy = x + rng.normal(0, 1, x.shape)
        whole = [(x, y), (dim, y), (low + high - x, y), (noisy, y)]
        return [*whole, (x[few], y[few]), (dim[few], y[few])]

    seen, scored = domains(x, data.y_train), domains(x_test, data.y_test)
    score(network, data)  # leaves the statistics of the source
    before, after = [float(accuracy(network, *pair)) for pair in scored], []
    for (there, _), pair in zip(seen, scored, strict=True):
        recalibrate(network, [there])
        after.append(float(accuracy(network, *pair)))
    noisy, dim = seen[TARGETS.index("noisy")][0], scored[TARGETS.index("dim")]
    recalibrate(network, [noisy])
    crossed = float(accuracy(network, *dim))
    return {"before": before, "after": after, "crossed": crossed}


MOVED = Experiment(moved, {"batch norm": {}})
