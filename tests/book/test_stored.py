"""The stored runs of the chapters come again: a few of them, and those that are calm."""

import pytest

from benchmarks import experiments, network
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


CALM_OF_13 = [  # part, setting, run
    ("plateau", "plateau True", experiments.reach),
    ("start", "True 0.25 0.1", experiments.start),
    ("place", "relu before 0.1", experiments.place),
    ("encoder", "all but the first 1", experiments.encoder),
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "setting", "run"), CALM_OF_13)
def test_runs_of_chapter_13_come_again(part, setting, run):
    records = stored("experiments")[part]
    [kept] = [r for r in records if (r["setting"], r["seed"]) == (setting, 0)]
    wanted = run.__code__.co_varnames[1 : run.__code__.co_argcount]
    again = run(0, **{name: kept[name] for name in wanted if name in kept})
    measure = "level" if part == "encoder" else "last"
    assert again[measure] == pytest.approx(kept[measure], abs=0.01)
