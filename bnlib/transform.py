"""Normalise, then scale and shift: the transform itself.

`batch_norm` is Algorithm 1 of the paper, line for line. What it adds is care about rounding: the
difference `x - mean` is taken first and in float64, since `x * inv + (beta - mean * inv)` subtracts
two large numbers and keeps only their rounding errors.
"""

import numpy as np

from bnlib import blocks
from bnlib._checks import as_epsilon, as_floating, per_channel, wide
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.axes import layout
from bnlib.moments import moments

__all__ = ["batch_norm", "batch_norm_inference", "normalize", "scale_and_shift"]


def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Array:
    """Bring each channel to mean 0 and variance 1.

        x_hat = (x - mean) / sqrt(variance + epsilon)

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        mean: shape `(C,)`.
        variance: shape `(C,)`, not negative.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: guard inside the root; Keras's default 1e-3.

    Returns:
        x_hat, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, a negative variance or a negative epsilon.

    Paper: Algorithm 1, line 3.

    >>> normalize([[1.0], [3.0]], [2.0], [1.0], epsilon=0)
    array([[-1.],
           [ 1.]])
    """
    x = as_floating("x", x)
    where = layout(x.shape, axis)
    mean = per_channel("mean", mean, where)
    inverse = multiplier(None, variance, epsilon, where)
    with np.errstate(invalid="ignore"):  # infinity - infinity: NaN, in its own channel
        return ((x - mean.astype(wide(x.dtype))) * inverse).astype(x.dtype)


def scale_and_shift(
    x_hat: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
) -> Array:
    """Give each channel the scale and offset that the network has learned.

        y = gamma * x_hat + beta

    Args:
        x_hat: shape `(N, ..., C)`, any real dtype.
        gamma: shape `(C,)`; None leaves the scale alone.
        beta: shape `(C,)`; None leaves the offset alone.
        axis: the axis, or tuple of axes, that gamma and beta run along.

    Returns:
        y, a new array with the shape and dtype of x_hat (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when gamma or beta does not have one value per channel.

    Paper: Algorithm 1, line 4.

    >>> scale_and_shift([[-1.0], [1.0]], gamma=[3.0], beta=[10.0])
    array([[ 7.],
           [13.]])
    """
    x_hat = as_floating("x_hat", x_hat)
    where = layout(x_hat.shape, axis)
    y = x_hat.astype(wide(x_hat.dtype))
    if gamma is not None:
        y *= per_channel("gamma", gamma, where)
    if beta is not None:
        y += per_channel("beta", beta, where)
    return y.astype(x_hat.dtype)


def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
    weights: ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """Normalise a batch by its own statistics, then scale and shift: training mode.

    Args:
        x: shape `(N, ..., C)`, any real dtype. Never modified.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: guard inside the root; Keras's default 1e-3.
        weights: as in `moments`. They weigh the statistics; every position is still normalised.

    Returns:
        `(y, mean, variance)`: y with the shape and dtype of x (float64 for integers), the biased
        batch statistics as float64, shape `(C,)`.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, an empty batch, or a negative epsilon or weight.

    Paper: Algorithm 1.

    >>> y, mean, variance = batch_norm([[1.0], [3.0]], gamma=[2.0], beta=[5.0], epsilon=0)
    >>> y.ravel(), mean, variance
    (array([3., 7.]), array([2.]), array([1.]))
    """
    x = as_floating("x", x)
    mean, variance, _ = moments(x, axis=axis, weights=weights)
    y = batch_norm_inference(x, mean, variance, gamma, beta, axis=axis, epsilon=epsilon)
    return y, mean, variance


def batch_norm_inference(
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Array:
    """Normalise by given statistics, then scale and shift: inference mode.

    Each example is treated alone, so a batch of one is as good as any.

    Args:
        x: shape `(N, ..., C)`, any real dtype; N may be 0 or 1.
        mean: shape `(C,)`, usually the `moving_mean`.
        variance: shape `(C,)`, usually the `moving_variance`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: guard inside the root; Keras's default 1e-3.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, a negative variance or a negative epsilon.

    Paper: Algorithm 2, line 11, in the order that does not cancel.

    >>> batch_norm_inference([[4.0]], [2.0], [1.0], gamma=[3.0], epsilon=0)
    array([[6.]])
    """
    x = as_floating("x", x)
    where = layout(x.shape, axis)
    if blocks.suits(x, where):
        inverse = multiplier(None, variance, epsilon, where)
        y = blocks.transform(x, where, mean, inverse, gamma, beta)
        if y is not None:
            return y
    x_wide = x.astype(wide(x.dtype))  # so that y is rounded once, at the end
    x_hat = normalize(x_wide, mean, variance, axis=axis, epsilon=epsilon)
    return scale_and_shift(x_hat, gamma, beta, axis=axis).astype(x.dtype)


def multiplier(gamma, variance, epsilon, where):
    """Compute gamma / sqrt(variance + epsilon) in float64, shaped to broadcast."""
    variance = per_channel("variance", variance, where)
    if np.any(variance < 0):
        raise ValueError(
            f"variance must not be negative; got a minimum of {np.min(variance)}. "
            "E[x^2] - E[x]^2 does that when it rounds: use bnlib.moments."
        )
    inverse = 1 / np.sqrt(variance.astype(wide(variance.dtype)) + as_epsilon(epsilon))
    return inverse if gamma is None else inverse * per_channel("gamma", gamma, where)
