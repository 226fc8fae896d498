"""The stored runs of the chapters come again: a few of them, and those that are calm."""

import importlib
from pathlib import Path

import pytest

from benchmarks import experiments, network, variants
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
    experiment, seeds = EXPERIMENTS[name], EXPERIMENTS[name].seeds[::7]
    calm = {setting: experiment.settings[setting] for setting in settings}
    now = by_setting(sweep(experiment.run, calm, seeds), measure)
    kept = by_setting(stored("claims")["records"][name], measure)
    for setting in settings:
        assert now[setting] == pytest.approx(kept[setting][::7], rel=0.02)


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
@pytest.mark.parametrize("setting", ["sigmoid True 0.004", "relu False 0.002"])
def test_runs_under_adam_come_again(monkeypatch, setting):
    monkeypatch.syspath_prepend(str(Path(experiments.__file__).parent))
    run = importlib.import_module("adam").reach
    [kept] = [
        each
        for each in stored("adam")["runs"]
        if (each["setting"], each["seed"]) == (setting, 0)
    ]
    wanted = run.__code__.co_varnames[1 : run.__code__.co_argcount]
    again = run(0, **{name: kept[name] for name in wanted if name in kept})
    assert again["last"] == pytest.approx(kept["last"], abs=0.01)


CALM_OF_14 = [  # part, setting, seed, run, what its setting says beside its name
    ("batch", "group 16 0.03", 1, variants.by_batch, {"batch": 16}),
    ("contrast", "first 0.3", 0, variants.contrast, {}),
    ("attention", "batch 0.4", 3, variants.tokens, {}),
    ("weights", "batch 0.2", 1, variants.weights, {}),
    ("recurrent", "layer 64 0.2", 2, variants.rows, {"batch": 64}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "setting", "seed", "run", "options"), CALM_OF_14)
def test_runs_of_chapter_14_come_again(part, setting, seed, run, options):
    name, rate = setting.split()[0], float(setting.split()[-1])
    [kept] = [
        record
        for record in stored("variants")[part]
        if (record["setting"], record["seed"]) == (setting, seed)
    ]
    for measure, value in run(seed, name=name, rate=rate, **options).items():
        assert value == pytest.approx(kept[measure], abs=0.02)
