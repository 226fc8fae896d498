"""The stored runs of the chapters come again: a few of them, and those that are calm."""

import pytest

from benchmarks import network, relatives, variants
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "setting", "seed", "run", "options"),
    [
        ("variants_contrast", "early", 0, variants.contrast, {"norm": "early"}),
        ("variants_contrast", "halves", 4, variants.contrast, {"norm": "halves"}),
        (
            "relatives_weights",
            "batch 0.1",
            1,
            relatives.weights,
            {"kind": "batch", "rate": 0.1},
        ),
        (
            "relatives_recurrent",
            "layer 64 0.5",
            2,
            relatives.rows,
            {"norm": "layer", "batch": 64, "rate": 0.5},
        ),
    ],
)
def test_runs_of_chapter_14_come_again(name, setting, seed, run, options):
    [record] = [
        each
        for each in stored(name)["records"]
        if (each["setting"], each["seed"]) == (setting, seed)
    ]
    for measure, value in run(seed, **options).items():
        assert value == pytest.approx(record[measure], abs=0.02)
