"""The layer: two modes, a memory, and gradients in both."""

import numpy as np
import pytest
from samples import friendly

from bnlib import (
    BatchNorm,
    Cumulative,
    Pooled,
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    batch_norm_inference_backward,
    moments,
    population,
)


def trained(x, **options):
    layer = BatchNorm(3, **options)
    if layer.gamma is not None:
        layer.gamma[:] = [2, -0.5, 3]
    if layer.beta is not None:
        layer.beta[:] = [1, 10, -4]
    layer(x, training=True)
    return layer


def test_training_uses_the_batch_and_feeds_the_population():
    x = friendly((8, 3))
    layer = BatchNorm(3, momentum=0.9)
    y = layer(x, training=True)
    np.testing.assert_array_equal(y, batch_norm(x, layer.gamma, layer.beta)[0])
    mean, variance, count = layer.population.value()
    np.testing.assert_allclose(mean, 0.1 * x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance, 0.9 + 0.1 * x.var(axis=0), rtol=1e-12)
    assert count == 8


def test_inference_uses_the_population_and_leaves_it_alone():
    x = friendly((8, 3))
    layer = trained(x)
    before = layer.state()
    y = layer(x[:1], training=False)
    mean, variance, _ = layer.population.value()
    np.testing.assert_array_equal(
        y, batch_norm_inference(x[:1], mean, variance, layer.gamma, layer.beta)
    )
    assert all(np.array_equal(before[k], v) for k, v in layer.state().items())


def test_update_false_looks_without_touching():
    x = friendly((8, 3))
    layer = trained(x)
    before = layer.state()
    y = layer(2 * x, training=True, update=False)
    np.testing.assert_array_equal(y, batch_norm(2 * x, layer.gamma, layer.beta)[0])
    assert all(np.array_equal(before[k], v) for k, v in layer.state().items())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "axis"), [((8, 3), -1), ((2, 3, 5, 7), 1)])
def test_backward_in_the_mode_of_the_forward_pass(training, shape, axis):
    x, grad_y = friendly(shape), np.random.default_rng(1).standard_normal(shape)
    layer = trained(x, axis=axis)
    mean, variance, _ = layer.population.value()
    layer(x, training=training)
    grad_x = layer.backward(grad_y)
    expected = (
        batch_norm_backward(grad_y, x, layer.gamma, axis=axis)
        if training
        else batch_norm_inference_backward(
            grad_y, x, mean, variance, layer.gamma, axis=axis
        )
    )
    np.testing.assert_array_equal(grad_x, expected[0])
    np.testing.assert_array_equal(layer.gradients["gamma"], expected[1])
    np.testing.assert_array_equal(layer.gradients["beta"], expected[2])


def test_backward_takes_no_statistics_a_second_time(monkeypatch):
    x, grad_y = friendly((8, 3)), np.random.default_rng(1).standard_normal((8, 3))
    expected = batch_norm_backward(grad_y, x, np.array([2, -0.5, 3]))[0]
    layer = trained(x)
    monkeypatch.setattr("bnlib.gradient.measure", None)
    np.testing.assert_array_equal(layer.backward(grad_y), expected)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_center_and_scale(center, scale):
    x = friendly((8, 3))
    layer = trained(x, center=center, scale=scale)
    wanted = {name for name, on in (("gamma", scale), ("beta", center)) if on}
    assert set(layer.parameters) == wanted
    layer.backward(np.random.default_rng(1).standard_normal((8, 3)))
    assert set(layer.gradients) == wanted
    twin = BatchNorm(3, center=center, scale=scale)
    twin.restore(layer.state())
    np.testing.assert_array_equal(twin(x, training=False), layer(x, training=False))


def test_it_can_be_given_another_memory():
    x = friendly((9, 3))
    layer = BatchNorm(3, population=Pooled(3))
    for piece in (x[:2], x[2:5], x[5:]):
        layer(piece, training=True)
    np.testing.assert_allclose(
        layer.population.value().variance, x.var(axis=0), rtol=1e-12
    )


def test_a_masked_batch():
    x = friendly((8, 3))
    mask = np.arange(8) < 5
    layer = BatchNorm(3, population=Cumulative(3))
    layer(x, training=True, weights=mask)
    np.testing.assert_allclose(
        layer.population.value().mean, moments(x[:5]).mean, rtol=1e-13
    )
    assert layer.population.value().count == 5
    grad_y = np.random.default_rng(1).standard_normal((8, 3))
    np.testing.assert_array_equal(
        layer.backward(grad_y),
        batch_norm_backward(grad_y, x, np.ones(3), weights=mask)[0],
    )


def test_state_round_trip_through_a_file(tmp_path):
    x = friendly((8, 3))
    layer = trained(x)
    np.savez(tmp_path / "layer.npz", **layer.state())
    twin = BatchNorm(3)
    twin.restore(dict(np.load(tmp_path / "layer.npz")))
    for training in (False, True, False):
        np.testing.assert_array_equal(
            twin(x, training=training), layer(x, training=training)
        )


def test_a_failed_restore_changes_nothing():
    layer = trained(friendly((8, 3)))
    before = layer.state()
    other = trained(friendly((8, 3), seed=9)).state()
    for broken in (
        {**other, "gamma": np.ones(4)},
        {k: v for k, v in other.items() if k != "beta"},
        {**other, "mean": np.ones(4)},
        {**other, "moving_mean": np.ones(3)},
    ):
        with pytest.raises(ValueError, match="state"):
            layer.restore(broken)
        assert all(np.array_equal(before[k], v) for k, v in layer.state().items())


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: BatchNorm(3)(np.ones((2, 3))), TypeError, "training"),
        (
            lambda: BatchNorm(3)(np.ones((2, 3)), training=None),
            TypeError,
            "True or False; got None",
        ),
        (lambda: BatchNorm(3)(np.ones((2, 3)), training=1), TypeError, "got 1"),
        (
            lambda: BatchNorm(3).backward(np.ones((2, 3))),
            ValueError,
            "call the layer first",
        ),
        (
            lambda: BatchNorm(3)(np.ones((2, 4)), training=True),
            ValueError,
            r"shape \(4,\)",
        ),
        (
            lambda: BatchNorm(3)(np.ones((0, 3)), training=True),
            ValueError,
            "none to average",
        ),
        (lambda: BatchNorm(3, momentum=2), ValueError, r"\[0, 1\]"),
        (lambda: BatchNorm(3, epsilon=-1), ValueError, "at least 0"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_nan_batch_does_not_reach_the_memory():
    layer = trained(friendly((8, 3)))
    before = layer.state()
    x = friendly((8, 3))
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="would never leave"):
        layer(x, training=True)
    assert all(np.array_equal(before[k], v) for k, v in layer.state().items())


@pytest.mark.parametrize(
    "text",
    [
        "BatchNorm(3, axis=-1, momentum=0.99, epsilon=0.001)",
        "BatchNorm(3, axis=1, momentum=0.9, epsilon=0.0, center=False)",
        "BatchNorm(3, axis=-1, epsilon=0.001, scale=False, population=Cumulative(3))",
        "BatchNorm(3, axis=-1, epsilon=0.001, population=Pooled(3, bessel=True))",
        "BatchNorm(3, axis=-1, epsilon=0.001, "
        "population=DebiasedExponential(3, momentum=0.9, bessel=True))",
        "BatchNorm(3, axis=-1, epsilon=0.001, "
        "population=Exponential(3, momentum=0.9, bessel=True))",
    ],
)
def test_a_layer_shows_what_makes_an_equal_one(text):
    names = {"BatchNorm": BatchNorm} | vars(population)
    assert repr(eval(text, names)) == text
    assert repr(population.Cumulative((2, 3))) == "Cumulative((2, 3))"
