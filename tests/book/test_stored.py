"""The stored runs of the chapters come again: a few of them, and those that are calm."""

import pytest

from benchmarks import experiments, network, relatives, variants
from bnlib.book.claims import EXPERIMENTS
from bnlib.book.data import stored
from bnlib.book.experiments import by_setting, sweep

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
    ("name", "measure", "settings"),
    [
        ("shifted", "accuracy", ("noise 0.5",)),
        ("overfitted", "accuracy", ("batch norm",)),
        ("tuned", "effective", ("hidden 0.1, last 0.1", "hidden 1.0, last 0.1")),
        ("deep", "accuracy", ("sigmoid 20, batch norm",)),
    ],
)
def test_runs_of_chapter_16_come_again(name, measure, settings):
    experiment, seeds = EXPERIMENTS[name], (0, 7)
    calm = {setting: experiment.settings[setting] for setting in settings}
    now = by_setting(sweep(experiment.run, calm, seeds), measure)
    kept = by_setting(stored("claims")["records"][name], measure)
    for setting in settings:
        assert now[setting] == pytest.approx(kept[setting][list(seeds)], rel=0.02)


CALM_OF_13 = [  # part, setting, run, measure
    ("plateau", "standardised 0.4 True 1.2", experiments.reach, "last"),
    ("start", "True 0.25 0.1", experiments.start, "last"),
    ("place", "relu before 0.1", experiments.place, "last"),
    ("encoder", "all but the first 1 0.05", experiments.encoder, "level"),
    ("output", "classes 64 True 0.4", experiments.output, "loss"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "setting", "run", "measure"), CALM_OF_13)
def test_runs_of_chapter_13_come_again(part, setting, run, measure):
    records = stored("experiments")[part]
    [kept] = [r for r in records if (r["setting"], r["seed"]) == (setting, 0)]
    wanted = run.__code__.co_varnames[1 : run.__code__.co_argcount]
    again = run(0, **{name: kept[name] for name in wanted if name in kept})
    assert again[measure] == pytest.approx(kept[measure], abs=0.01)


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
