"""Each verdict is borne out by its numbers, kept or run again; a wrong verdict is found."""

import dataclasses
import functools

import numpy as np
import pytest
from facts import ROOT

from bnlib.book.claims import LEDGER, Claim, verdict, weigh
from bnlib.book.claims._base import Norm, standardised
from bnlib.book.claims._depth import Recurrent, Residual
from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.claims._noise import Dropout
from bnlib.book.claims._weighing import FAILS, HOLDS, PARTLY, UNTOLD
from bnlib.book.data import stored
from bnlib.book.experiments import by_setting, fingerprint, sweep
from bnlib.book.network import Activation, Dense, Network, recalibrate

KEPT = stored("claims")
VERDICTS = {HOLDS, PARTLY, FAILS, UNTOLD}
TEXT = (ROOT / "text/part3/16_claims.md").read_text(encoding="utf-8")


# The rule


@pytest.mark.parametrize(
    ("shares", "controls", "expected"),
    [
        ([1, 7 / 8], [], HOLDS),
        ([1, 6 / 8], [], PARTLY),
        ([1, 0], [1], PARTLY),
        ([0, 1 / 8], [1], FAILS),
        ([0, 2 / 8], [], UNTOLD),
        ([0.5], [], UNTOLD),
        ([1], [6 / 8], UNTOLD),
        ([0], [0], UNTOLD),
    ],
)
def test_verdicts_follow_the_rule(shares, controls, expected):
    assert verdict(shares, controls) == expected


def records(*pairs):
    return [
        {"setting": name, "seed": seed, "y": value}
        for name, values in pairs
        for seed, value in enumerate(values)
    ]


A = Claim(
    "a",
    "a beats b",
    "",
    "",
    "",
    "",
    {"here": lambda of: of("y", "a") > of("y", "b")},
    HOLDS,
    "",
)


def test_a_claim_is_weighed_pair_by_pair():
    weighed = weigh(A, records(("a", [3, 1, 5, 7]), ("b", [2, 2, 4, 6])))
    assert weighed.shares == {"here": 0.75}
    assert weighed.rows == [["here", "3 of 4"]]
    assert weighed.verdict == UNTOLD
    assert weighed.possible == {HOLDS, FAILS, UNTOLD}


# The ledger


def unlike_numbers(claim, kept):
    """Return whether the stated verdict is another than the one that follows from records."""
    return claim.stated != weigh(claim, kept).verdict


@pytest.mark.parametrize("claim", LEDGER.values(), ids=lambda claim: claim.key)
def test_the_stored_records_bear_out_the_verdict(claim):
    kept = KEPT["records"][claim.experiment]
    assert not unlike_numbers(claim, kept)
    for wrong in VERDICTS - {claim.stated}:  # planted
        assert unlike_numbers(dataclasses.replace(claim, stated=wrong), kept)


@functools.cache
def again(name):
    """Run an experiment with two seeds."""
    return sweep(EXPERIMENTS[name].run, EXPERIMENTS[name].settings, seeds=(0, 1))


def contradictions(claim, found):
    """List the predictions that came true in all of a few seeds and are false in store, or so."""
    kept, now = weigh(claim, KEPT["records"][claim.experiment]), weigh(claim, found)
    both = {**kept.shares, **kept.controls}, {**now.shares, **now.controls}
    return [
        name
        for name, share in both[0].items()
        if abs(share - 0.5) >= 3 / 8 and abs(share - both[1][name]) > 0.8
    ]


@pytest.mark.parametrize("claim", LEDGER.values(), ids=lambda claim: claim.key)
def test_the_experiments_run_again_bear_out_the_verdict(claim):
    found = again(claim.experiment)
    assert contradictions(claim, found) == []
    assert claim.stated in weigh(claim, found).possible or claim.stated == UNTOLD


@pytest.mark.parametrize("key", ["shift", "decay", "gaussian", "fourteen", "tuned"])
def test_a_wrong_verdict_is_found_by_running_again(key):
    possible = weigh(LEDGER[key], again(LEDGER[key].experiment)).possible
    assert possible == {LEDGER[key].stated}


def test_numbers_that_turn_are_found():
    claim = LEDGER["shift"]
    turned = [
        {
            **record,
            "accuracy": 1 - record["accuracy"] * (record["setting"] != "batch norm"),
        }
        for record in again("shifted")
    ]
    assert contradictions(claim, turned)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_all_seeds_run_again_bear_out_the_verdicts(name):
    experiment = EXPERIMENTS[name]
    found = sweep(experiment.run, experiment.settings, seeds=range(KEPT["seeds"]))
    for claim in LEDGER.values():
        if claim.experiment == name:
            assert contradictions(claim, found) == []
            if claim.stated != UNTOLD:  # another processor may turn one seed of them
                assert weigh(claim, found).verdict == claim.stated


def test_the_ledger_is_whole():
    assert {claim.experiment for claim in LEDGER.values()} == set(EXPERIMENTS)
    assert set(KEPT["records"]) == set(EXPERIMENTS)
    assert KEPT["fingerprint"] == fingerprint(ROOT / "benchmarks/claims.py")
    for key, claim in LEDGER.items():
        assert f"({claim.section})=" in TEXT
        assert f'"{key}"' in TEXT, f"{key} is weighed in no section"
        assert all([claim.gist, claim.who, claim.refuted_if, claim.conditions])
        assert claim.stated in VERDICTS


# What the experiments are made of


def check_gradients(layer, x, seed=0, step=1e-6):
    """Compare `backward` with central differences in a random direction, for all parameters."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=layer(x, training=True).shape)

    def loss(x):
        return np.sum(weights * layer(x, training=True))

    loss(x)
    grad_x, analytic = layer.backward(weights), {}
    analytic |= {name: g.copy() for name, g in layer.gradients.items()}
    for name, value in layer.parameters.items():
        direction = rng.normal(size=value.shape)
        value += step * direction
        high = loss(x)
        value -= 2 * step * direction
        low = loss(x)
        value += step * direction
        assert np.sum(analytic[name] * direction) == pytest.approx(
            (high - low) / (2 * step), rel=1e-5, abs=1e-6
        ), name
    return grad_x, loss


OPTIONS = [{}, {"centre": False}, {"divide": False}, {"ghost": 4}, {"groups": 3}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(8, 6), (8, 3, 5, 6)])
def test_the_gradients_of_the_norm(options, shape):
    rng = np.random.default_rng(1)
    layer, x = Norm(6, **options), rng.normal(2, 3, shape)
    layer.parameters["gamma"][:] = rng.normal(1, 0.3, 6)
    grad_x, loss = check_gradients(layer, x)
    direction, step = rng.normal(size=shape), 1e-6
    numeric = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
    assert np.sum(grad_x * direction) == pytest.approx(numeric, rel=1e-5, abs=1e-6)


def test_the_norm_remembers_what_recalibration_gives_it():
    x = np.random.default_rng(0).normal(2, 3, (50, 6))
    for options in ({}, {"centre": False}, {"divide": False}):
        network = Network([Norm(6, **options)])
        recalibrate(network, [x])
        np.testing.assert_allclose(
            network(x, training=False), network(x, training=True), atol=1e-12
        )


def test_noise_is_new_at_every_call_and_absent_from_inference():
    layer = Norm(3, noise=0.5, rng=np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(20, 3))
    assert not np.allclose(layer(x, training=True), layer(x, training=True))
    np.testing.assert_array_equal(layer(x, training=False), layer(x, training=False))


@pytest.mark.parametrize("where", ["", "input", "both"])
def test_the_gradients_through_time(where):
    rng = np.random.default_rng(2)
    check_gradients(
        Recurrent(3, 4, rng, where=where, times=5), rng.normal(size=(7, 5, 3))
    )


def test_the_gradient_passes_beside_a_residual_layer():
    rng = np.random.default_rng(3)
    layer, x = Residual([Dense(4, 4, rng), Activation("tanh")]), rng.normal(size=(5, 4))
    weights, direction, step = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), 1e-6
    ends = [
        np.sum(weights * layer(x + s * direction, training=True)) for s in (step, -step)
    ]
    layer(x, training=True)
    assert np.sum(layer.backward(weights) * direction) == pytest.approx(
        (ends[0] - ends[1]) / (2 * step), rel=1e-5
    )


def test_dropout_keeps_the_mean():
    layer = Dropout(0.5, np.random.default_rng(0))
    x = np.ones((1000, 20))
    assert layer(x, training=True).mean() == pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(layer(x, training=False), x)


def test_the_digits_are_standardised_together():
    x = standardised().x_train
    assert (x.mean(), x.std()) == pytest.approx((0, 1))


def test_settings_share_their_seeds():
    for name, found in KEPT["records"].items():
        for measure in set(found[0]) - {"setting", "seed"}:
            assert set(by_setting(found, measure)) == set(EXPERIMENTS[name].settings)
