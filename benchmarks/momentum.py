"""Measure how far moving variances are from the exact ones, by momentum: chapter 6 shows it.

A dense network with two hidden layers is trained with several seeds, once where the variances are
large (pixels from 0 to 16, weights that suit ReLU) and once where they are small (pixels from 0 to
1, weights of deviation 0.05). Every momentum listens to the same training. At each of the ends the
error of a momentum is the root mean square of (moving variance / exact variance - 1), over all
channels of both layers. Chosen momentums, one for each end, are those of the chapter's rule.

    OPENBLAS_NUM_THREADS=1 python benchmarks/momentum.py [--seeds 3] [--json FILE]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from core import surroundings

from bnlib import BatchNorm, Population, moments
from bnlib.book.data import digits
from bnlib.book.network import (
    Activation,
    Dense,
    Network,
    softmax_cross_entropy,
    train,
)

GRID = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
ENDS = [100, 300, 2000, 8000]
STORED = Path(__file__).parents[1] / "bnlib/book/stored/momentum.json"

# name: (factor of the pixels, deviation of the weights, None for ReLU's, learning rate)
SETTINGS = {"large": (16, None, 0.5), "small": (1, 0.05, 0.1)}


class Sweep(Population):
    """Moving averages from 0 and 1 with many momentums at once, one row each."""

    def __init__(self, channels):
        super().__init__((1, channels))

    def update(self, batch):
        """Blend each row with its momentum."""
        self.updates += 1
        old, new = self.momentums, 1 - self.momentums
        self.mean = old * self.mean + new * batch.mean
        self.variance = old * self.variance + new * batch.variance

    def errors(self, exact):
        """Return ratio - 1 for each momentum and channel: as it is, and debiased."""
        left = self.momentums**self.updates
        debiased = (self.variance - left) / (1 - left)
        return self.variance / exact - 1, debiased / exact - 1


def choose(steps, variance):
    """Apply the rule for layers that cannot debias."""
    return min(0.99, (variance / 100) ** (1 / steps))


def exact_variances(network, data):
    """Return the variances that one batch of all data gives, layer by layer."""
    h, found = data, []
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            found.append(moments(h).variance)
            h = layer(h, training=True, update=False)
        else:
            h = layer(h, training=True)
    return found


def sweep(seed, factor, deviation, rate):
    """Train once, and return the errors at each end."""
    split = digits().flat
    data, rng, layers = split.x_train / 16 * factor, np.random.default_rng(seed), []
    for inputs in (64, 32):
        scale = deviation or (2 / inputs) ** 0.5
        layers += [
            Dense(inputs, 32, rng, bias=None, deviation=scale),
            BatchNorm(32, population=Sweep(32)),
            Activation("relu"),
        ]
    network = Network([*layers, Dense(32, 10, rng)])
    smallest = min(map(np.median, exact_variances(network, data)))
    chosen = [choose(end, smallest) for end in ENDS]
    for norm in network.norms:
        norm.population.momentums = np.array([*GRID, *chosen])[:, np.newaxis]
    found = {"seed": seed, "smallest": smallest, "chosen": chosen}
    found |= {"moving": [], "debiased": []}

    def look(step):
        if step in ENDS:
            exact = exact_variances(network, data)
            pairs = zip(network.norms, exact, strict=True)
            both = [norm.population.errors(variance) for norm, variance in pairs]
            for name, errors in zip(
                ("moving", "debiased"), zip(*both, strict=True), strict=True
            ):
                squares = np.concatenate(errors, axis=1) ** 2
                found[name].append(np.sqrt(squares.mean(axis=1)).tolist())

    options = {"rate": rate, "steps": ENDS[-1], "batch": 64, "seed": seed}
    train(network, data, split.y_train, softmax_cross_entropy, after=look, **options)
    return found


def rounded(value):
    """Keep four digits of every number."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    runs = {
        name: [rounded(sweep(seed, *setting)) for seed in range(options.seeds)]
        for name, setting in SETTINGS.items()
    }
    stored = {"surroundings": surroundings(), "momentums": GRID, "ends": ENDS} | runs
    options.json.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
