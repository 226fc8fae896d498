"""Train the networks of chapter 1, with and without batch norm, and store what each run reached.

    python benchmarks/network.py [--seeds 8] [--json bnlib/book/stored/network.json]

Runs at high rates are chaotic: another processor, or the fourteenth digit of a weight, leads them
elsewhere. So the chapter reads what was stored, and trains one calm pair itself. It takes about
five minutes of one core.
"""

import argparse
import datetime
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
from rich.progress import track

from bnlib import BatchNorm
from bnlib.book.data import digits
from bnlib.book.network import (
    Activation,
    Dense,
    Network,
    accuracy,
    softmax_cross_entropy,
    train,
)

STORED = Path(__file__).parents[1] / "bnlib/book/stored/network.json"
SOUND = {"tanh": lambda n: 5 / 3 / n**0.5, "relu": lambda n: (2 / n) ** 0.5}
RATES = [0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.8, 1.6, 3.2]
FEWER = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]  # rates for weights that are not sound
FACTORS = [0.25, 0.5, 2, 4]  # on sound weights; 1 is in the sweep of rates
DEPTHS = [7, 14]
LONGER = "relu", 14
EPOCHS, STEPS, BATCH, UNITS = 10, 21, 64, 30  # steps an epoch


def standardised():
    """Return the digits as chapter 1 standardises them, and their labels."""
    data = digits().flat
    mean, deviation = data.x_train.mean(), data.x_train.std()
    x_train, x_test = ((x - mean) / deviation for x in (data.x_train, data.x_test))
    return data._replace(x_train=x_train, x_test=x_test)


def build(activation, norm, depth, factor, seed):
    """Build the network of chapter 1, with `factor` times the sound weights."""
    rng, layers, inputs = np.random.default_rng(seed), [], 64
    for _ in range(depth):
        deviation = factor * SOUND[activation](inputs)
        layers.append(Dense(inputs, UNITS, rng, deviation=deviation))
        layers += [BatchNorm(UNITS, momentum=0.9)] if norm else []
        layers.append(Activation(activation))
        inputs = UNITS
    return Network([*layers, Dense(inputs, 10, rng)])


def epochs(data, activation, norm, depth, factor, rate, seed, *, number=EPOCHS):
    """Train, and return the held-out accuracy before the first epoch and after each."""
    network, found = build(activation, norm, depth, factor, seed), []

    def look(step):
        if step % STEPS == 0:
            found.append(round(accuracy(network, data.x_test, data.y_test), 4))

    loss, steps = softmax_cross_entropy, number * STEPS
    options = {"rate": rate, "steps": steps, "batch": BATCH, "seed": seed}
    with np.errstate(all="ignore"):  # some of these runs overflow
        train(network, data.x_train, data.y_train, loss, **options, after=look)
    return found


def sweep(seeds):
    """Return one record per setting: what each seed reached, and its way there at the best rate."""
    networks = itertools.product(SOUND, (False, True), DEPTHS, [1])
    scaled = itertools.product(SOUND, (False, True), [7], FACTORS)
    settings = [
        dict(zip(("activation", "norm", "depth", "factor", "rate"), each, strict=True))
        for *network, rates in [
            *((*network, RATES) for network in networks),
            *((*network, FEWER) for network in scaled),
        ]
        for each in itertools.product(*([value] for value in network), rates)
    ]
    data, runs, best = standardised(), [], {}
    for setting in track(settings, "training"):
        several = range(seeds if setting["factor"] == 1 else seeds // 2)
        ways = [epochs(data, **setting, seed=seed) for seed in several]
        runs.append(setting | {"accuracies": [way[-1] for way in ways]})
        network = tuple(setting.values())[:-1]
        middle = statistics.median(way[-1] for way in ways)
        if middle > best.get(network, (0,))[0]:
            best[network] = middle, setting | {"epochs": ways}
    best = [record for _, record in best.values()]
    return {"runs": runs, "best": best, "longer": longer(data, best)}


def longer(data, best):
    """Train the deep ReLU networks four times as long, at the best rates."""
    deep = [each for each in best if (each["activation"], each["depth"]) == LONGER]
    records = []
    for each in track(deep, "training longer"):
        setting = {name: value for name, value in each.items() if name != "epochs"}
        several = range(len(each["epochs"]))
        ways = [
            epochs(data, **setting, seed=seed, number=4 * EPOCHS) for seed in several
        ]
        records.append(setting | {"accuracies": [way[-1] for way in ways]})
    return records


def main():
    from core import surroundings

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    made = {"day": f"{datetime.date.today()}", "surroundings": surroundings()}
    stored = made | sweep(options.seeds)
    text = json.dumps(stored, separators=(",", ":")).replace('{"activ', '\n{"activ')
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
