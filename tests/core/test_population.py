"""Population estimators: definitions, limits, and a state that survives a round trip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import batches, friendly

from bnlib import (
    Cumulative,
    DebiasedExponential,
    Exponential,
    Moments,
    Pooled,
    Population,
    moments,
)

ALL = [Exponential, DebiasedExponential, Cumulative, Pooled]


def stream(seed=0, sizes=(2, 3, 7, 5, 2, 11)):
    x = friendly((sum(sizes), 3), seed=seed)
    return x, [moments(piece) for piece in np.split(x, np.cumsum(sizes)[:-1])]


# Definitions.


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_exponential_is_the_recurrence_of_keras(momentum):
    population = Exponential(3, momentum)
    mean, variance = np.zeros(3), np.ones(3)
    for batch in stream()[1]:
        population.update(batch)
        mean = momentum * mean + (1 - momentum) * batch.mean
        variance = momentum * variance + (1 - momentum) * batch.variance
    np.testing.assert_allclose(population.value().mean, mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(population.value().variance, variance, rtol=1e-12)


@given(st.floats(0, 0.9999), st.integers(1, 300))
def test_of_the_start_momentum_to_the_t_is_left(momentum, t):
    population = Exponential(1, momentum)
    for _ in range(t):
        population.update(Moments(np.array([3.0]), np.array([0.0]), 8))
    np.testing.assert_allclose(
        population.value().variance, momentum**t, rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(
        population.value().mean, 3 * (1 - momentum**t), rtol=1e-9
    )


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.999])
def test_debiased_is_the_average_from_zero_divided_by_what_it_has_seen(momentum):
    population = DebiasedExponential(3, momentum)
    mean, variance = np.zeros(3), np.zeros(3)
    for t, batch in enumerate(stream()[1], start=1):
        population.update(batch)
        mean = momentum * mean + (1 - momentum) * batch.mean
        variance = momentum * variance + (1 - momentum) * batch.variance
        np.testing.assert_allclose(
            population.value().mean, mean / (1 - momentum**t), rtol=1e-9
        )
        np.testing.assert_allclose(
            population.value().variance, variance / (1 - momentum**t), rtol=1e-9
        )


def test_debiased_with_momentum_1_is_the_plain_average():
    a, b = DebiasedExponential(3, 1.0), Cumulative(3)
    for batch in stream()[1]:
        a.update(batch)
        b.update(batch)
    np.testing.assert_allclose(a.value().mean, b.value().mean, rtol=1e-12)


def test_cumulative_is_the_average_of_the_batches():
    _, parts = stream()
    population = Cumulative(3)
    for batch in parts:
        population.update(batch)
    np.testing.assert_allclose(
        population.value().mean, np.mean([b.mean for b in parts], axis=0), rtol=1e-12
    )
    np.testing.assert_allclose(
        population.value().variance,
        np.mean([b.variance for b in parts], axis=0),
        rtol=1e-12,
    )


@given(batches, st.lists(st.integers(0, 13), max_size=4))
def test_pooled_does_not_care_how_the_data_were_split(x, cuts):
    population = Pooled(3)
    for piece in np.split(x, sorted(cuts)):
        if len(piece):
            population.update(moments(piece))
    whole = moments(x)
    np.testing.assert_allclose(
        population.value().mean, whole.mean, rtol=1e-12, atol=1e-10
    )
    np.testing.assert_allclose(
        population.value().variance, whole.variance, rtol=1e-9, atol=1e-9
    )
    assert population.value().count == whole.count


@pytest.mark.parametrize("estimator", [Exponential, DebiasedExponential, Cumulative])
def test_the_others_do_care(estimator):
    """Split invariance is what Pooled alone has; else the test above proves nothing."""
    x, parts = stream()
    cut, whole = estimator(3), estimator(3)
    for batch in parts:
        cut.update(batch)
    whole.update(moments(x))
    assert not np.allclose(cut.value().variance, whole.value().variance, rtol=1e-2)


# Bessel's factor.


@pytest.mark.parametrize("m", [2, 3, 8, 32])
def test_bessel_multiplies_each_batch_by_m_over_m_minus_1(m):
    batch = moments(friendly((m, 3)))
    plain, corrected = Exponential(3, 0.0), Exponential(3, 0.0, bessel=True)
    plain.update(batch)
    corrected.update(batch)
    np.testing.assert_allclose(
        corrected.value().variance, plain.value().variance * m / (m - 1)
    )
    np.testing.assert_array_equal(corrected.value().mean, plain.value().mean)


def test_bessel_on_the_pooled_variance_uses_all_values():
    x, parts = stream()
    population = Pooled(3, bessel=True)
    for batch in parts:
        population.update(batch)
    np.testing.assert_allclose(
        population.value().variance, x.var(axis=0, ddof=1), rtol=1e-12
    )


def test_bessel_of_a_single_value_leaves_the_variance_alone():
    population = Exponential(3, 0.5, bessel=True)
    population.update(moments(friendly((1, 3))))
    np.testing.assert_array_equal(population.value().variance, 1)
    assert not np.allclose(population.value().mean, 0)


def test_bessel_removes_the_bias_of_small_batches():
    rng = np.random.default_rng(0)
    plain, corrected = Cumulative(1), Cumulative(1, bessel=True)
    for _ in range(4000):
        batch = moments(rng.normal(size=(4, 1)))
        plain.update(batch)
        corrected.update(batch)
    assert plain.value().variance[0] == pytest.approx(0.75, abs=0.03)
    assert corrected.value().variance[0] == pytest.approx(1.0, abs=0.03)


# State.


@pytest.mark.parametrize("estimator", ALL)
def test_before_the_first_update_it_is_0_and_1(estimator):
    mean, variance, count = estimator(3).value()
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(variance, 1)
    assert count == 0


@pytest.mark.parametrize("estimator", ALL)
def test_state_round_trip_is_exact_and_training_goes_on_alike(estimator, tmp_path):
    _, parts = stream()
    one = estimator(3)
    for batch in parts[:3]:
        one.update(batch)
    np.savez(tmp_path / "state.npz", **one.state())
    other = estimator(3)
    other.restore(dict(np.load(tmp_path / "state.npz")))
    for batch in parts[3:]:
        one.update(batch)
        other.update(batch)
    for a, b in zip(one.state().values(), other.state().values(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("estimator", ALL)
def test_what_it_returns_is_a_copy(estimator):
    population = estimator(3)
    population.update(stream()[1][0])
    before = population.value()
    population.value().mean[:] = 99
    population.state()["variance"][:] = 99
    for got, expected in zip(population.value(), before, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("estimator", ALL)
def test_an_empty_batch_changes_nothing(estimator):
    population = estimator(3)
    before = population.state()
    population.update(Moments(np.full(3, np.nan), np.full(3, np.nan), 0))
    assert all(np.array_equal(before[k], v) for k, v in population.state().items())


@pytest.mark.parametrize("estimator", ALL)
def test_a_nan_is_refused_and_nothing_is_lost(estimator):
    population = estimator(3)
    population.update(stream()[1][0])
    before = population.state()
    with pytest.raises(ValueError, match=r"must be finite.*would never leave"):
        population.update(Moments(np.array([0, np.nan, 0]), np.ones(3), 8))
    assert all(np.array_equal(before[k], v) for k, v in population.state().items())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Exponential(3, 1.5), ValueError, r"\[0, 1\].*got 1.5"),
        (lambda: Exponential(3, -0.1), ValueError, r"\[0, 1\]"),
        (lambda: Exponential(3, None), TypeError, r"momentum.*Cumulative"),
        (
            lambda: Pooled(3).update(moments(np.ones((2, 4)))),
            ValueError,
            r"shape \(3,\)",
        ),
        (lambda: Pooled(3).restore({}), ValueError, "state must hold"),
        (lambda: Pooled(3).restore(Pooled(4).state()), ValueError, "must have shape"),
        (
            lambda: Population(3).update(moments(np.ones((2, 3)))),
            TypeError,
            "has no rate",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
