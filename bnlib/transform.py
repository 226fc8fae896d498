"""Normalise, then scale and shift: the transform itself.

`batch_norm` is Algorithm 1 of the paper. What it adds is care about rounding: the
difference `x - mean` is taken first and in float64, since `x * inv + (beta - mean * inv)` subtracts
two large numbers and keeps only their rounding errors.
"""

import numpy as np

from bnlib import blocks
from bnlib._batch import as_batch, as_weighted_batch
from bnlib._checks import (
    as_epsilon,
    as_variance,
    per_channel,
    per_channel_or_none,
    wide,
)
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.moments import measure

__all__ = ["batch_norm", "batch_norm_inference", "normalize", "scale_and_shift"]


def normalize(
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    epsilon: float = 1e-3,
) -> Array:
    """Bring each channel to mean 0 and variance 1.

        x_hat = (x - mean) / sqrt(variance + epsilon)

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        mean: shape `(C,)`; with `axes`, that of the axes not in it.
        variance: likewise, not negative.
        axis: the axis, or tuple of axes, that mean and variance run along.
        axes: the axis, or tuple of axes, that mean and variance were averaged over; they run along
            all others then, whatever `axis` is.
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
    batch = as_batch("x", x, axis if axes is None else -1, axes)
    mean = per_channel("mean", mean, batch.where)
    inverse = inverse_deviation(as_variance(variance, batch.where), as_epsilon(epsilon))
    return centre_and_divide(batch, mean, inverse).astype(batch.x.dtype, copy=False)


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
    batch = as_batch("x_hat", x_hat, axis, None)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    beta = per_channel_or_none("beta", beta, batch.features)
    y = batch.x.astype(wide(batch.x.dtype))
    return multiply_and_add(y, gamma, beta).astype(batch.x.dtype, copy=False)


def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    epsilon: float = 1e-3,
    weights: ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """Normalise a batch by its own statistics, then scale and shift: training mode.

    Args:
        x: shape `(N, ..., C)`, any real dtype. Never modified.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, of gamma and beta.
        axes: the axis, or tuple of axes, averaged over. None averages over all but `axis`. For
            `(N, H, W, C)`, (1, 2) is instance norm, and (1, 2, 3) layer norm; PyTorch's layer norm
            over these has `axis` (1, 2, 3) too.
        epsilon: guard inside the root; Keras's default 1e-3.
        weights: as in `moments`. They weigh the statistics; every position is still normalised.

    Returns:
        `(y, mean, variance)`: y with the shape and dtype of x (float64 for integers), the biased
        batch statistics as float64, shape `(C,)`, or that of the axes not in `axes`.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, an empty batch, or a negative epsilon or weight.

    Paper: Algorithm 1.

    >>> y, mean, variance = batch_norm([[1.0], [3.0]], gamma=[2.0], beta=[5.0], epsilon=0)
    >>> y.ravel(), mean, variance
    (array([3., 7.]), array([2.]), array([1.]))
    """
    batch = as_weighted_batch(x, axis, axes, weights)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    beta = per_channel_or_none("beta", beta, batch.features)
    epsilon = as_epsilon(epsilon)
    mean, variance = measure(batch)
    y = apply(batch, mean, inverse_deviation(variance, epsilon), gamma, beta)
    channels = batch.where.channels
    return y, mean.reshape(channels), variance.reshape(channels)


def batch_norm_inference(
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
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
        axis: the axis, or tuple of axes, of gamma and beta.
        axes: the axis, or tuple of axes, that mean and variance were averaged over; they have the
            shape of all others. None is all but `axis`.
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
    batch = as_batch("x", x, axis, axes)
    mean = per_channel("mean", mean, batch.where)
    inverse = inverse_deviation(as_variance(variance, batch.where), as_epsilon(epsilon))
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    beta = per_channel_or_none("beta", beta, batch.features)
    return apply(batch, mean, inverse, gamma, beta)


# The same on checked arguments; vectors are shaped to broadcast, y is rounded once, at the end.


@blocks.fast_way
def apply(batch, mean, inverse, gamma, beta):
    """Return gamma * (x - mean) * inverse + beta; gamma and beta may be None."""
    x_hat = centre_and_divide(batch, mean, inverse)
    return multiply_and_add(x_hat, gamma, beta).astype(batch.x.dtype, copy=False)


def centre_and_divide(batch, mean, inverse):
    """Return x_hat in float64; `inverse` is 1 / deviation."""
    with np.errstate(invalid="ignore"):  # infinity - infinity: NaN, in its own channel
        x_hat = np.subtract(batch.x, mean, dtype=wide(batch.x.dtype))
        x_hat *= inverse
    return x_hat


def multiply_and_add(y, gamma, beta):
    """Scale and shift y where it stands."""
    if gamma is not None:
        y *= gamma
    if beta is not None:
        y += beta
    return y


def inverse_deviation(variance, epsilon):
    """Return 1 / sqrt(variance + epsilon)."""
    return 1 / np.sqrt(variance + epsilon)
