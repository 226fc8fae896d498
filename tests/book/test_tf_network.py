"""The networks with `tf.nn` alone are those in NumPy and in Keras, and train as they do."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnlib import BatchNorm
from bnlib.book import network
from bnlib.book.convnet import as_images, convolutional
from bnlib.book.network import accuracy
from bnlib.book.tf_network import (
    Deep,
    FusedNorm,
    Network,
    PlainNorm,
    SafeNorm,
    deep_in_keras,
    singly,
    train,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.normal([3, -1, 40], [2, 0.5, 9], (5, 3, 7, 3))


@pytest.mark.parametrize(
    ("norm", "dtype", "factor", "tolerance"),
    [
        (PlainNorm, "float64", 1, 1e-10),
        (SafeNorm, "float64", 1, 1e-10),
        (SafeNorm, "float32", 1, 1e-4),
        (FusedNorm, "float32", 105 / 104, 1e-4),
    ],
)
def test_a_norm_is_the_layer_of_part_one(norm, dtype, factor, tolerance):
    mine, oracle = norm(3, dtype, momentum=0.75), BatchNorm(3, momentum=0.75)
    x = tf.constant(IMAGES, dtype)
    for _ in range(3):
        y, expected = mine(x, training=True), oracle(IMAGES, training=True)
        assert np.allclose(y, expected, atol=tolerance)
    mean, variance, *_ = oracle.population.value()
    start = 0.75**3
    variance = start + factor * (variance - start)
    assert np.allclose(mine.moving_mean, mean, rtol=tolerance)
    assert np.allclose(mine.moving_variance, variance, rtol=tolerance)
    y = mine(x[:1], training=False)
    expected = (IMAGES[:1] - mean) / np.sqrt(variance + 1e-3)
    assert np.allclose(y, expected, atol=tolerance)
    assert len(mine.trainable_variables) == 2


@pytest.mark.parametrize("norm", [PlainNorm, FusedNorm, SafeNorm])
def test_without_updates_nothing_is_remembered(norm):
    mine = norm(3, update=False)
    mine(tf.constant(IMAGES, tf.float32), training=True)
    assert not np.any(mine.moving_mean)
    assert np.all(mine.moving_variance == 1)


def test_the_network_is_the_one_in_numpy_and_in_keras():
    x, *_ = as_images("float64")
    net, twin = Network(PlainNorm, seed=3), network.convolutional(3, BatchNorm)
    norm = functools.partial(keras.layers.BatchNormalization, dtype="float64")
    model = convolutional(3, norm, dtype="float64")
    outputs = [
        net(x[:20], training=True),
        twin(x[:20], training=True),
        model(x[:20], training=True),
    ]
    for other in outputs[1:]:
        assert np.allclose(outputs[0], other, atol=1e-9)


def test_training_takes_the_steps_of_plain_gradient_descent():
    x, y, *_ = as_images("float64")
    net = Network(functools.partial(PlainNorm, momentum=0.9), first=True)
    model = keras.Sequential(
        [
            keras.layers.BatchNormalization(momentum=0.9, dtype="float64"),
            convolutional(
                0,
                lambda: keras.layers.BatchNormalization(momentum=0.9, dtype="float64"),
                dtype="float64",
            ),
        ]
    )
    model.build((None, 8, 8, 1))
    for each in (net, model):
        train(each, x[:160], y[:160], steps=3, seed=1)  # into a second epoch
    assert np.allclose(
        net(x[:9], training=False), model(x[:9], training=False), atol=1e-6
    )


def test_scores():
    def shifted(x, training):
        return tf.one_hot(x[:, 0] + int(training), 4)

    x, y = np.arange(3)[:, np.newaxis], np.array([0, 1, 0])
    assert accuracy(shifted, x, y) == singly(shifted, x, y) == 2 / 3
    assert accuracy(shifted, x, y, training=True) == 0


@pytest.mark.parametrize("normalized", [True, False])
def test_the_deep_network_has_twenty_layers_at_both_levels(normalized):
    net = Deep(PlainNorm if normalized else None)
    model = deep_in_keras(normalized)
    x = as_images()[0][:4]
    assert net(x, training=True).shape == model(x, training=True).shape == (4, 10)
    count = sum(int(tf.size(v)) for v in net.trainable_variables)
    assert count == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("Conv2D") == 19
    assert kinds.count("BatchNormalization") == (20 if normalized else 0)


def test_he_weights_have_their_deviation():
    kernel = Deep(None, deviation=None).kernels[-1].numpy()
    assert np.isclose(kernel.std(), (2 / (9 * kernel.shape[2])) ** 0.5, rtol=0.02)
    assert np.isclose(Deep(None).kernels[-1].numpy().std(), 0.05, rtol=0.02)
