"""The tiny network: its gradients, its losses, and that it learns."""

import numpy as np
import pytest
from gradients import assert_gradients

from bnlib import BatchNorm, DebiasedExponential, Exponential, Pooled
from bnlib.book.data import digits
from bnlib.book.network import (
    ACTIVATIONS,
    Activation,
    Conv2D,
    Dense,
    Network,
    accuracy,
    convolutional,
    dense,
    recalibrate,
    softmax_cross_entropy,
    squared_error,
    train,
)


def small(activation, norm, seed=0):
    rng = np.random.default_rng(seed)
    layers = [Dense(5, 7, rng, bias=None if norm else 0.1)]
    layers += [BatchNorm(7)] * norm + [Activation(activation), Dense(7, 3, rng)]
    return Network(layers)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("loss", [softmax_cross_entropy, squared_error])
def test_every_gradient_by_central_differences(activation, norm, loss):
    rng = np.random.default_rng(1)
    x = rng.normal(1, 2, (11, 5))
    y = (
        rng.integers(0, 3, 11)
        if loss is softmax_cross_entropy
        else rng.normal(size=(11, 3))
    )
    network = small(activation, norm)
    assert_gradients(network, x, lambda out: loss(out, y), rng, rel=2e-5, abs=1e-8)


def test_cross_entropy_is_stable_for_huge_logits():
    loss, grad = softmax_cross_entropy(
        np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 0])
    )
    assert loss == pytest.approx(5e3)
    assert np.all(np.isfinite(grad))


def test_cross_entropy_of_no_idea_is_ln_c():
    assert softmax_cross_entropy(np.zeros((4, 10)), np.arange(4))[0] == pytest.approx(
        np.log(10)
    )


def test_it_learns_the_digits_with_and_without_batch_norm():
    data = digits().flat
    x, x_test = data.x_train / 16, data.x_test / 16
    for norm in (False, True):
        rng = np.random.default_rng(0)
        layers = [
            Dense(64, 32, rng),
            *([BatchNorm(32, momentum=0.9)] if norm else []),
            Activation("tanh"),
        ]
        network = Network([*layers, Dense(32, 10, rng)])
        losses = train(
            network,
            x,
            data.y_train,
            softmax_cross_entropy,
            rate=0.5,
            steps=200,
            batch=64,
        )
        predicted = network(x_test, training=False).argmax(axis=1)
        assert np.mean(predicted == data.y_test) > 0.9
        assert losses[-20:].mean() < 0.3 * losses[:5].mean()
        assert len(network.norms) == norm


def test_the_same_seed_gives_the_same_run():
    data = digits().flat
    runs = []
    for _ in range(2):
        network = Network([Dense(64, 10, np.random.default_rng(3))])
        runs.append(
            train(
                network,
                data.x_train / 16,
                data.y_train,
                softmax_cross_entropy,
                rate=0.1,
                steps=30,
                batch=50,
                seed=4,
            )
        )
    np.testing.assert_array_equal(*runs)


def test_batches_visit_every_example_once_an_epoch():
    from bnlib.book.network import batches

    order = batches(12, 4, np.random.default_rng(0))
    epoch = np.concatenate([next(order) for _ in range(3)])
    assert sorted(epoch) == list(range(12))


def test_update_false_reaches_the_batch_norm_layers():
    network = small("tanh", norm=True)
    x = np.random.default_rng(1).normal(size=(8, 5))
    network(x, training=True, update=False)
    assert network.norms[0].population.updates == 0
    outputs = network.outputs(x, training=True)
    assert network.norms[0].population.updates == 1
    assert [o.shape[1] for o in outputs] == [7, 7, 7, 3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Activation("gelu"), "one of .*got 'gelu'"),
        (
            lambda: train(None, np.ones((3, 1)), None, None, rate=1, steps=1, batch=4),
            "at most the 3",
        ),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("norm", [None, BatchNorm], ids=["plain", "batch norm"])
def test_every_gradient_of_the_convolutional_network(norm):
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 2, (7, 8, 8, 1)), rng.integers(0, 10, 7)
    loss = lambda logits: softmax_cross_entropy(logits, y)  # noqa: E731
    checked = assert_gradients(convolutional(3, norm), x, loss, rng, rel=1e-4, abs=1e-7)
    assert checked == 1 + (3 * 3 + 2 if norm else 4 * 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_the_sum_over_the_kernel(stride):
    rng = np.random.default_rng(4)
    layer = Conv2D(2, 3, rng, stride=stride, bias=0.5)
    x, kernel = rng.normal(size=(2, 5, 7, 2)), layer.parameters["kernel"]
    y = layer(x, training=True)
    assert y.shape == (2, -(-5 // stride), -(-7 // stride), 3)
    for n, h, w, c in np.ndindex(y.shape):
        total = 0.5
        for i, j, d in np.ndindex(3, 3, 2):
            row, column = stride * h + i - 1, stride * w + j - 1
            if 0 <= row < 5 and 0 <= column < 7:
                total += x[n, row, column, d] * kernel[i, j, d, c]
        assert y[n, h, w, c] == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("norm", [None, BatchNorm])
def test_every_gradient_of_a_dense_network(norm, place):
    rng = np.random.default_rng(3)
    x, y = rng.normal(1, 2, (11, 5)), rng.integers(0, 3, 11)
    network = dense([5, 7, 13, 3], "tanh", seed=3, norm=norm, place=place)
    loss = lambda out: softmax_cross_entropy(out, y)  # noqa: E731
    assert_gradients(network, x, loss, rng, rel=2e-5, abs=1e-8)


def test_a_dense_network_has_its_norms_in_place():
    def kinds(**options):
        return [type(layer).__name__ for layer in dense([5, 7, 3], **options).layers]

    assert kinds() == ["Dense", "Activation", "Dense"]
    assert kinds(norm=BatchNorm) == ["Dense", "BatchNorm", "Activation", "Dense"]
    assert kinds(norm=BatchNorm, place="after")[1:3] == ["Activation", "BatchNorm"]
    before, after = (
        dense([5, 7, 3], norm=BatchNorm, place=place, seed=5).layers[0].parameters
        for place in ("before", "after")
    )
    assert "bias" not in before
    assert "bias" in after
    np.testing.assert_array_equal(before["kernel"], after["kernel"])
    with pytest.raises(ValueError, match="place must be"):
        dense([5, 7, 3], place="within")


def test_weights_have_the_deviation_that_was_asked_for():
    def deviations(**options):
        layers = dense([400, 300, 10], **options).layers
        return [
            layers[0].parameters["kernel"].std(),
            layers[-1].parameters["kernel"].std(),
        ]

    assert deviations() == pytest.approx([(2 / 400) ** 0.5, (1 / 300) ** 0.5], rel=0.05)
    assert deviations(activation="tanh")[0] == pytest.approx(0.05, rel=0.05)
    assert deviations(deviation=0.3) == pytest.approx([0.3, 0.3], rel=0.05)


def test_convolutional_networks_learn_the_digits():
    data = digits()
    x, x_test = (images[..., np.newaxis] / 16 for images in (data.x_train, data.x_test))
    network = convolutional(0, lambda channels: BatchNorm(channels, momentum=0.9))
    options = {"rate": 0.5, "steps": 84, "batch": 64}
    train(network, x, data.y_train, softmax_cross_entropy, **options)
    assert accuracy(network, x_test, data.y_test) > 0.93
    assert [len(norm.gamma) for norm in network.norms] == [8, 16, 32]


def test_the_weights_do_not_depend_on_the_norm():
    with_norm, without = convolutional(5), convolutional(5, None)
    kernels = [
        [
            layer.parameters["kernel"]
            for layer in network.layers
            if "kernel" in layer.parameters
        ]
        for network in (with_norm, without)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*kernels, strict=True))


class Memory:
    """A batch norm layer as readers write it, as far as `recalibrate` asks."""

    def __init__(self, channels):
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        assert not training
        return (x - self.moving_mean) / np.sqrt(self.moving_variance + 1e-3)


@pytest.mark.parametrize(
    "norm",
    [
        BatchNorm,
        lambda c: BatchNorm(c, population=Pooled(c)),
        lambda c: BatchNorm(c, population=DebiasedExponential(c, 0.9)),
        Memory,
    ],
    ids=["exponential", "pooled", "debiased", "a reader's"],
)
def test_recalibration_is_exact_in_every_layer_for_any_batches(norm):
    rng = np.random.default_rng(6)
    x, network = rng.normal(1, 2, (23, 8, 8, 1)), convolutional(7, norm)
    for cuts in ([], [1, 3, 10], range(1, 23)):
        recalibrate(network, np.split(x, cuts))
        h = x
        for layer in network.layers:
            if isinstance(layer, BatchNorm):
                mean, variance, count = layer.population.value()
                assert count == h[..., 0].size
            elif isinstance(layer, Memory):
                mean, variance = layer.moving_mean, layer.moving_variance
            if isinstance(layer, (BatchNorm, Memory)):
                np.testing.assert_allclose(mean, h.mean((0, 1, 2)), atol=1e-12)
                np.testing.assert_allclose(variance, h.var((0, 1, 2)), rtol=1e-12)
            h = layer(h, training=False)


def test_recalibration_leaves_weights_and_estimators():
    rng, network = np.random.default_rng(8), small("tanh", norm=True)
    kept = [
        (array, array.copy())
        for layer in network.layers
        for array in layer.parameters.values()
    ]
    recalibrate(network, [rng.normal(3, 2, (9, 5))])
    assert all(np.array_equal(now, before) for now, before in kept)
    population = network.norms[0].population
    assert type(population) is Exponential
    before, x = population.value(), rng.normal(3, 2, (9, 5))
    seen = network.layers[0](x, training=True).mean(axis=0)
    network(x, training=True)
    np.testing.assert_allclose(population.mean, 0.99 * before.mean + 0.01 * seen)


def test_recalibration_takes_channels_first():
    rng = np.random.default_rng(9)
    x, layer = rng.normal(1, 2, (5, 3, 7)), BatchNorm(3, axis=1)
    recalibrate(Network([layer]), np.split(x, [2]))
    np.testing.assert_allclose(layer.population.variance, x.var((0, 2)))


def test_recalibration_needs_a_batch():
    with pytest.raises(ValueError, match="at least one"):
        recalibrate(small("tanh", norm=True), [])
