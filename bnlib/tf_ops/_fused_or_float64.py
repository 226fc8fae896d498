"""TensorFlow's fused kernel where its answer can be believed, and float64 where it cannot.

This is for a GPU. Which of the two ran is known only when the batch is there, so it is saved for
the gradient, beside what both of them need.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from bnlib.moments import Moments
from bnlib.tf_ops import _float64, _fused
from bnlib.tf_ops._digits import MANY, means_are_near_zero


class Saved(NamedTuple):
    """What the gradient needs: which kernel ran, and what each of them saves."""

    trusted: Any
    fused: Any
    moments: Moments


def forward(batch, gamma, beta):
    """Return `(y, mean, variance, saved)`."""
    *answer, saved = _fused.forward(batch, gamma, beta)
    _, mean, variance = answer
    few = tf.cast(batch.count, tf.float32) <= MANY
    trusted = few & means_are_near_zero(mean, variance + batch.epsilon)
    y, mean, variance = tf.cond(
        trusted,
        lambda: tuple(answer),
        lambda: _float64.forward(batch, gamma, beta)[:3],
    )
    moments = Moments(mean, variance, batch.count)
    return y, mean, variance, Saved(trusted, saved, moments)


def backward(batch, saved, grad_y, gamma):
    """Return `(grad_x, grad_gamma, grad_beta)`."""

    def fused():
        grad_x, *others = _fused.backward(batch, saved.fused, grad_y, gamma)
        return grad_x, *(tf.cast(v, tf.float64) for v in others)

    def float64():
        return _float64.backward(batch, saved.moments, grad_y, gamma)

    return tf.cond(saved.trusted, fused, float64)
