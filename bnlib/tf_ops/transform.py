"""Normalise, scale and shift tensors by statistics that are given: inference mode."""

import tensorflow as tf

from bnlib._checks import as_epsilon
from bnlib._typing import Axis, Tensor
from bnlib.tf_ops._affine import affine
from bnlib.tf_ops._checks import (
    WIDE,
    as_floating,
    as_it_is,
    beside,
    layout_of,
    per_channel,
)

__all__ = ["batch_norm_inference", "normalize", "scale_and_shift"]


@as_it_is
def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """Centre each channel and divide it by its standard deviation, guarded by epsilon.

        x_hat = (x - mean) / sqrt(variance + epsilon)

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        mean: shape `(C,)`.
        variance: shape `(C,)`.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: guard inside the root.

    Returns:
        x_hat, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape or a negative epsilon.

    Paper: Algorithm 1, line 3.
    """
    return batch_norm_inference(x, mean, variance, axis=axis, epsilon=epsilon)


@as_it_is
def scale_and_shift(
    x_hat: Tensor, gamma: Tensor = None, beta: Tensor = None, *, axis: Axis = -1
) -> Tensor:
    """Multiply each channel by gamma and add beta.

    Args:
        x_hat: shape `(N, ..., C)`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that gamma and beta run along.

    Returns:
        y, shape and dtype of x_hat.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when gamma or beta does not have one value per channel.

    Paper: Algorithm 1, line 4.
    """
    y = as_floating("x_hat", x_hat)
    where = layout_of(y, axis)
    if gamma is not None:
        gamma = tf.cast(per_channel("gamma", gamma, where), y.dtype)
        y = y * beside(gamma, y, where)
    if beta is not None:
        beta = tf.cast(per_channel("beta", beta, where), y.dtype)
        y = y + beside(beta, y, where)
    return y


@as_it_is
def batch_norm_inference(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor = None,
    beta: Tensor = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Tensor:
    """Normalise by given statistics, then scale and shift: inference mode.

        y = (x - mean) * (gamma / sqrt(variance + epsilon)) + beta

    in this order: `x * a + b`, as `tf.nn.batch_normalization` has it, subtracts two large numbers
    where the mean is large.

    Args:
        x: shape `(N, ..., C)`, any real dtype; N may be 0, 1 or unknown.
        mean: shape `(C,)`, usually the `moving_mean`; float64 is used in full.
        variance: shape `(C,)`, usually the `moving_variance`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: guard inside the root; Keras's default 1e-3.

    Returns:
        y, shape and dtype of x (float64 for integers). All arguments receive gradients.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape or a negative epsilon.

    Paper: Algorithm 2, line 11.
    """
    x = as_floating("x", x)
    where, epsilon = layout_of(x, axis), as_epsilon(epsilon)
    given = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta}
    given = {
        name: per_channel(name, value, where)
        for name, value in given.items()
        if value is not None
    }
    narrow = all(value.dtype == tf.float32 for value in given.values())
    if not narrow or x.dtype == WIDE:
        given = {name: tf.cast(value, WIDE) for name, value in given.items()}
    multiplier = tf.math.rsqrt(given["variance"] + epsilon)
    if gamma is not None:
        multiplier = multiplier * given["gamma"]
    return affine(x, given["mean"], multiplier, given.get("beta"), where)
