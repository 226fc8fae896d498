"""The stored runs of the chapters come again: a few of them, and those that are calm."""

import pytest

from benchmarks import network
from bnlib.book.data import stored

CALM = [  # activation, norm, depth
    ("tanh", False, 7),
    ("tanh", True, 7),
    ("relu", True, 14),
]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "norm", "depth"), CALM)
def test_runs_of_chapter_1_come_again(activation, norm, depth):
    setting = {"activation": activation, "norm": norm, "depth": depth, "factor": 1}
    setting["rate"] = 0.05
    [record] = [
        each for each in stored("network")["runs"] if setting.items() <= each.items()
    ]
    ways = [network.epochs(network.standardised(), **setting, seed=s) for s in (0, 7)]
    kept = [record["accuracies"][seed] for seed in (0, 7)]
    assert [way[-1] for way in ways] == pytest.approx(kept, abs=0.02)
