"""Keras's layer and ours, side by side."""

import keras
import numpy as np
import tensorflow as tf
from samples import friendly

from bnlib.keras import BatchNormalization

Keras = keras.layers.BatchNormalization
# Keras computes in float32 at least, and so do we; both round to 16 bits at the end
TOLERANCE = {"float16": 2**-9, "bfloat16": 2**-6, "float32": 2e-5, "float64": 1e-12}


def pair(**settings):
    """Keras's layer and ours, with the same settings."""
    return Keras(**settings), BatchNormalization(**settings)


def sample(shape, axis=-1, seed=0):
    """Values whose channels differ in mean and scale, wherever the channels are."""
    moved = np.moveaxis(np.empty(shape), axis, -1).shape
    return np.moveaxis(friendly(moved, np.float64, seed), -1, axis)


def wide(value):
    return np.asarray(keras.ops.cast(value, "float64"))


def assert_close(mine, others, tolerance=1e-5):
    """Compare lists of arrays, each with its largest value; a tolerance for each, or for all."""
    for a, b in zip(mine, others, strict=True):
        assert tf.convert_to_tensor(a).shape == tf.convert_to_tensor(b).shape
        limit = tolerance or TOLERANCE[tf.convert_to_tensor(b).dtype.name]
        a, b = wide(a), wide(b)
        largest = np.abs(b[np.isfinite(b)]).max(initial=1e-3)
        np.testing.assert_allclose(a, b, rtol=0, atol=limit * largest)


def step(layer, x, grad_y, **call):
    """One step of training: output and gradients."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, **call)
    sources = [x, *(v.value for v in layer.trainable_variables)]
    return [y, *tape.gradient(y, sources, tf.cast(grad_y, y.dtype))]
