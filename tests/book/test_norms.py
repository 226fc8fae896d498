"""The other norms as layers: their gradients, their two modes, and what they refuse."""

import math

import numpy as np
import pytest
from gradients import assert_gradients

from bnlib import BatchNorm, variants
from bnlib.book import norms
from bnlib.book.network import (
    Dense,
    Network,
    convolutional,
    dense,
    recalibrate,
    softmax_cross_entropy,
)

RNG = np.random.default_rng(3)
X, IMAGES = RNG.normal(1, 2, (8, 5)), RNG.normal(1, 2, (8, 8, 8, 1))
LABELS = RNG.integers(0, 10, 8)
ALONE = {
    "layer": norms.layer,
    "group": norms.group(2),
    "rms": norms.rms,
    "squash": norms.squash,
}
KINDS = ["weight norm", "standardised", "scaled", "spectral"]


def loss(logits):
    return softmax_cross_entropy(logits, LABELS)


def vary(network):
    """Give all parameters values of their own."""
    for layer in network.layers:
        for value in layer.parameters.values():
            value += RNG.normal(0, 0.1, value.shape)
    return network


@pytest.mark.parametrize("name", [*ALONE, "ghost"])
def test_gradients_of_dense_networks(name):
    make = ALONE.get(name, lambda channels: norms.Ghost(channels, 4))
    network = vary(dense([5, 6, 6, 10], "tanh", norm=make))
    assert assert_gradients(network, X.copy(), loss, RNG, rel=1e-5, abs=1e-8) > 6


@pytest.mark.parametrize("make", [norms.instance, norms.group(4), norms.Halves])
def test_gradients_of_convolutional_networks(make):
    network = vary(convolutional(0, make))
    assert_gradients(network, IMAGES.copy(), loss, RNG, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_norms_of_weights(kind):
    network = dense([5, 6, 6, 10], "tanh")
    network.layers = [
        norms.reweighted(each, kind) if isinstance(each, Dense) else each
        for each in network.layers
    ]
    for _ in range(200):  # the singular vectors are found
        network(X, training=True)
    assert_gradients(network, X.copy(), loss, RNG, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ALONE)
def test_norms_of_one_example_ask_no_other(name):
    network = dense([5, 6, 6, 10], norm=ALONE[name])
    together = network(X, training=True)
    np.testing.assert_array_equal(network(X, training=False), together)
    np.testing.assert_allclose(network(X[:1], training=True), together[:1])


def test_ghost_is_batch_norm_of_each_part_and_of_all_in_inference():
    ghost, whole = norms.Ghost(5, 4, momentum=0.5), BatchNorm(5, momentum=0.5)
    parts = np.concatenate([whole(part, training=True) for part in (X[:4], X[4:])])
    np.testing.assert_allclose(ghost(X, training=True), parts)
    np.testing.assert_allclose(ghost(X, training=False), whole(X, training=False))


def test_renorm_infers_as_batch_norm_does():
    """Whatever its limits and its other momentum are."""
    known = BatchNorm(5, momentum=0.7)
    for options in ({}, {"renorm_momentum": 0.2, "clipping": lambda step: (3.0, 5.0)}):
        renorm = norms.Renorm(5, momentum=0.7, **options)
        for layer in (renorm, known) if not options else (renorm,):
            layer(X, training=True)
        np.testing.assert_allclose(renorm(X, training=False), known(X, training=False))


def test_renorm_in_training():
    plain = norms.Renorm(5, clipping=lambda step: (1.0, 0.0))
    np.testing.assert_allclose(
        plain(X, training=True), BatchNorm(5)(X, training=True), rtol=1e-12
    )
    grad = RNG.normal(size=X.shape)
    population = np.full(5, 0.5), np.full(5, 2.0)
    free = norms.Renorm(5)
    free.population = population
    y = free(X, training=True)  # no limits: the population's statistics
    np.testing.assert_allclose(y, (X - 0.5) / np.sqrt(2.001), rtol=1e-12)
    options = {"rmax": math.inf, "rmin": 0.0, "dmax": math.inf}
    expected = variants.batch_renorm_backward(
        grad, X, *population, np.ones(5), **options
    )
    np.testing.assert_array_equal(free.backward(grad), expected[0])
    np.testing.assert_array_equal(free.gradients["gamma"], expected[1])


def test_renorm_has_two_momentums_and_a_schedule():
    steps = []

    def clipping(step):
        steps.append(step)
        return 3.0, 5.0

    renorm = norms.Renorm(5, momentum=0.7, renorm_momentum=0.2, clipping=clipping)
    renorm(X, training=True)
    np.testing.assert_allclose(renorm.moving_mean, 0.3 * X.mean(axis=0))
    np.testing.assert_allclose(renorm.population[0], 0.8 * X.mean(axis=0))
    np.testing.assert_allclose(renorm.population[1], 0.2 + 0.8 * X.var(axis=0))
    renorm(X, training=False)
    renorm(X, training=True)
    assert steps == [0, 1]


def test_halves_are_instance_norm_and_batch_norm():
    images = RNG.normal(1, 2, (4, 3, 3, 5))
    y = norms.Halves(5)(images, training=True)
    alone = norms.instance(2)(images[..., :2], training=True)
    np.testing.assert_array_equal(y[..., :2], alone)
    together = BatchNorm(3)(images[..., 2:], training=True)
    np.testing.assert_array_equal(y[..., 2:], together)


@pytest.mark.parametrize("make", [norms.Renorm, lambda c: norms.Ghost(c, 4)])
def test_recalibration_knows_them(make):
    network = Network([make(5)])
    recalibrate(network, [X[:3], X[3:]])
    np.testing.assert_allclose(network.layers[0].moving_mean, X.mean(axis=0))
    np.testing.assert_allclose(network.layers[0].moving_variance, X.var(axis=0))


def test_what_the_norms_of_weights_are():
    kernel = RNG.normal(1, 2, (7, 5))
    layers = {}
    for kind in KINDS:
        linear = Dense(7, 5, RNG)
        linear.parameters["kernel"] = kernel.copy()
        layers[kind] = norms.reweighted(linear, kind)
    np.testing.assert_allclose(layers["weight norm"].kernel(), kernel)
    np.testing.assert_allclose(
        layers["standardised"].kernel().mean(axis=0), 0, atol=1e-12
    )
    gain = (2 / (1 - 1 / np.pi)) ** 0.5
    np.testing.assert_allclose(
        layers["scaled"].kernel().std(axis=0), gain / 7**0.5, rtol=1e-4
    )
    for _ in range(100):
        spectral = layers["spectral"].kernel()
    assert np.linalg.norm(spectral, 2) == pytest.approx(1)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be 'weight norm'"):
        norms.reweighted(Dense(2, 2, RNG), "batch")
