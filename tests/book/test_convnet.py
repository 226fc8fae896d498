"""The book's network in Keras: the one of Part I, number by number."""

import keras
import numpy as np
import pytest

from bnlib import BatchNorm
from bnlib.book import network
from bnlib.book.convnet import as_images, convolutional
from bnlib.book.data import digits

FLOAT64 = {"dtype": "float64"}


def wide(**options):
    return lambda: keras.layers.BatchNormalization(**options, **FLOAT64)


@pytest.mark.parametrize("seed", [0, 3])
def test_it_computes_what_the_network_of_part_one_computes(seed):
    x = as_images("float64")[0][:20]
    ours = network.convolutional(seed)
    theirs = convolutional(seed, wide(), **FLOAT64)
    for training in (True, False):
        found = theirs(x, training=training)
        np.testing.assert_allclose(found, ours(x, training=training), atol=1e-12)
        assert found.dtype == "float64"


def test_without_batch_norm_too():
    x = as_images("float64")[0][:20]
    found = convolutional(1, None, **FLOAT64)(x)
    expected = network.convolutional(1, None)(x, training=False)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_it_learns_what_the_network_of_part_one_learns():
    x, y, *_ = as_images("float64")
    theirs = convolutional(0, wide(momentum=0.9), **FLOAT64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
    ours = network.convolutional(0, lambda channels: BatchNorm(channels, momentum=0.9))
    for step in range(3):
        rows = slice(64 * step, 64 * step + 64)
        theirs.train_on_batch(x[rows], y[rows])
        _, grad = network.softmax_cross_entropy(ours(x[rows], training=True), y[rows])
        ours.backward(grad)
        ours.step(0.5)
    found = theirs(x[:50], training=False)
    np.testing.assert_allclose(found, ours(x[:50], training=False), atol=1e-8)


def test_its_layers_have_names_and_other_images_have_other_first_kernels():
    model = convolutional(shape=(12, 12, 3))
    names = {layer.name for layer in model.layers}
    assert {"conv_1", "norm_3", "head"} <= names
    assert model.get_layer("conv_1").kernel.shape == (3, 3, 3, 8)
    assert model(np.zeros((2, 12, 12, 3))).shape == (2, 10)
    kernels = [
        convolutional(0).get_layer("conv_2").kernel,
        model.get_layer("conv_2").kernel,
    ]
    np.testing.assert_array_equal(*kernels)


def test_the_images_are_the_digits_from_0_to_1():
    x_train, y_train, x_test, y_test = as_images()
    assert x_train.dtype == np.float32
    assert x_train.max() == 1
    data = digits()
    np.testing.assert_allclose(x_test[..., 0] * 16, data.x_test, atol=1e-5)
    assert np.array_equal(y_train, data.y_train)
    assert len(y_test) == 450
