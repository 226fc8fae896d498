"""Run some experiments of chapter 13 again, each network at a rate of its own.

    python benchmarks/fair.py [PART ...] [--json bnlib/book/stored/fair.json]

The runs are those of `benchmarks/experiments.py`, with more rates (some best ones
are still the highest or lowest tried), and the plateau's network with sounder weights. It takes
about five minutes of one core.
"""

import itertools

import experiments
from experiments import told

from bnlib.book.experiments import store_parts, sweep

DEVIATIONS = {0.1: 1500, 0.3: 600, 0.4: 600}  # of the weights, and how many steps
PLATEAU_RATES = [0.3, 0.6, 1.2, 2.4, 4.8, 9.6]


def part_plateau():
    three = itertools.product(DEVIATIONS, (False, True), PLATEAU_RATES)
    settings = {
        f"{d} {n} {r}": experiments.PLATEAU
        | {
            "deviation": d,
            "norm": n,
            "rate": r,
            "steps": 600 if n else DEVIATIONS[d],
        }
        for d, n, r in three
    }
    return sweep(told(short(experiments.reach)), settings, range(6), progress=True)


def short(run):
    """Leave out the curve, which is long."""
    return lambda seed, **setting: {
        name: value for name, value in run(seed, **setting).items() if name != "curve"
    }


def part_elu():
    four = itertools.product((False, True), (False, True), (0.2, 0.8))
    settings = {
        f"start {he} {n} {r}": {
            "depth": 5,
            "he": he,
            "norm": n,
            "rate": r,
            "epochs": 25,
        }
        for he, n, r in four
    }
    for depth, n, r in itertools.product((1, 2, 4, 8), (False, True), (0.2, 0.8)):
        settings[f"depth {depth} {n} {r}"] = {
            "depth": depth,
            "he": True,
            "norm": n,
            "rate": r,
            "epochs": 10,
        }
    return sweep(told(experiments.elu), settings, range(6), progress=True)


def part_place():
    both = itertools.product(("none", "before", "after"), (1, 2, 4))
    settings = {
        f"sigmoid {w} {r}": {"activation": "sigmoid", "where": w, "rate": r}
        for w, r in both
    }
    return sweep(told(experiments.place), settings, range(8), progress=True)


def part_output():
    four = itertools.product(
        ("classes", "regression"), (False, True), (4, 64), (0.05, 0.2)
    )
    settings = {
        f"{t} {n} {b} {r}": {"task": t, "normed": n, "batch": b, "rate": r}
        for t, n, b, r in four
    }
    return sweep(told(experiments.output), settings, range(6), progress=True)


def part_dropout():
    settings = {
        f"{name} {rate}": {"norm": norm, "drops": drops, "rate": rate}
        for name, (norm, drops) in experiments.DROPS.items()
        for rate in (0.1, 0.4, 0.8)
    }
    return sweep(told(experiments.dropout), settings, range(8), progress=True)


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
