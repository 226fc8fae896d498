"""Repeat two comparisons of chapter 13 under Adam instead of plain gradient descent.

    python benchmarks/adam.py [--json bnlib/book/stored/adam.json]

The plateau's three layers of sigmoids, from sound weights, and two layers of ReLU; digits with
standardised pixels, float64. It takes about a minute of one core.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from experiments import (
    THREE,
    data_of,
    first_at,
    remember,
    rounded,
    score,
    told,
    watched,
)

from bnlib.book.experiments import keep, sweep
from bnlib.book.network import dense

STORED = Path(__file__).parents[1] / "bnlib/book/stored/adam.json"
NETWORKS = {
    "sigmoid": {"deviation": 0.4} | THREE,
    "relu": {"sizes": [64, 100, 100, 10], "activation": "relu", "batch": 64},
}
RATES = [0.002, 0.004, 0.008, 0.016, 0.032, 0.064]


def adam(net, first=0.9, second=0.999, epsilon=1e-8):
    """Return a step of Adam, to stand in for the network's own."""
    moments, taken = {}, 0

    def step(rate):
        nonlocal taken
        taken += 1
        for place, layer in enumerate(net.layers):
            for name, value in layer.parameters.items():
                gradient = layer.gradients[name]
                mean, square = moments.setdefault(
                    (place, name), [np.zeros_like(value), np.zeros_like(value)]
                )
                mean += (1 - first) * (gradient - mean)
                square += (1 - second) * (gradient**2 - square)
                size = np.sqrt(square / (1 - second**taken)) + epsilon
                value -= rate * mean / (1 - first**taken) / size

    return step


def reach(seed, sizes, activation, norm, rate, batch, deviation=None, steps=80):
    """Train by Adam, and look at each step as in inference."""
    data, norm = data_of("standardised"), remember if norm else None
    net = dense(sizes, activation, seed=seed, norm=norm, deviation=deviation)
    net.step = adam(net)
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    seen = watched(net, data, lambda: score(net, data), 1, **options)
    found = {f"to {t}": first_at(seen, t / 100, 1) for t in (90, 95)}
    return found | {"last": rounded(seen[-1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    settings = {
        f"{name} {norm} {rate}": network | {"norm": norm, "rate": rate}
        for name, network in NETWORKS.items()
        for norm in (False, True)
        for rate in RATES
    }
    runs = sweep(told(reach), settings, range(6), progress=True)
    keep(parser.parse_args().json, __file__, runs=runs)


if __name__ == "__main__":
    main()
