"""How deep a dense network learns, with batch norm and without."""

import numpy as np

from bnlib.book.claims._base import Experiment, batch_norm, learn, standardised
from bnlib.book.network import dense


def deep(seed, activation, depth, norm, rate, steps=150):
    """Train a deep dense network of 50 units a layer; score the test digits as one batch."""
    sizes = [64, *[50] * depth, 10]
    network = dense(sizes, activation, seed=seed, norm=batch_norm if norm else None)
    learn(network, seed=seed, rate=rate, steps=steps)
    data = standardised()
    with np.errstate(all="ignore"):
        logits = network(data.x_test, training=True)
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == data.y_test))}


DEEP = Experiment(
    deep,
    {
        f"{activation} {depth}, {'batch norm' if norm else 'none'}": {
            "activation": activation,
            "depth": depth,
            "norm": norm,
            "rate": rate,
        }
        for activation, depth, norm, rate in (
            ("sigmoid", 20, False, 0.003),
            ("sigmoid", 20, True, 0.1),
            ("relu", 20, False, 0.01),
            ("relu", 20, True, 0.3),
            ("relu", 50, False, 0.01),
            ("relu", 50, True, 0.1),
        )
    }
    | {
        f"relu 50, {'batch norm' if norm else 'none'}, 450 steps": {
            "activation": "relu",
            "depth": 50,
            "norm": norm,
            "rate": rate,
            "steps": 450,
        }
        for norm, rate in ((False, 0.01), (True, 0.03))
    },
    grid=(0.003, 0.01, 0.03, 0.1, 0.3),
    grids={
        "relu 20, batch norm": (0.01, 0.03, 0.1, 0.3, 1.0),
        "relu 50, none, 450 steps": (0.003, 0.01, 0.03),
        "relu 50, batch norm, 450 steps": (0.01, 0.03, 0.1, 0.3),
    },
)
