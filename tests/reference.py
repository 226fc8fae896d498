"""Slow and obvious: batch normalization by loops over Python numbers, in exact arithmetic.

`Fraction` holds every float exactly, so these sums round nothing until the last conversion. They
are the oracle for the accuracy tests, and share no code with bnlib. They need NumPy alone.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["channel_values", "loop_batch_norm", "loop_moments", "textbook_batch_norm"]


def channel_values(x: ArrayLike, axis: int = -1) -> Iterator[list[float]]:
    """Take an array apart, channel by channel.

    Args:
        x: array of any shape with C channels, of any real dtype.
        axis: the axis of the channels.

    Yields:
        C lists: the values of one channel, in memory order.
    """
    x = np.moveaxis(np.asarray(x), axis, -1)
    for c in range(x.shape[-1]):
        yield [float(v) for v in x[..., c].ravel()]


def loop_moments(
    x: ArrayLike, axis: int = -1, weights: Sequence[float] | None = None
) -> tuple[list[Fraction], list[Fraction]]:
    """Compute mean and biased variance of each channel, exactly.

    Args:
        x: array of any shape with C channels, of any real dtype.
        axis: the axis of the channels.
        weights: one number for each value of a channel, the same for all channels; by default 1.

    Returns:
        The C means and the C variances.
    """
    means, variances = [], []
    for values in channel_values(x, axis):
        values = [Fraction(v) for v in values]
        shares = [
            Fraction(w) for w in ([1] * len(values) if weights is None else weights)
        ]
        total = sum(shares)
        mean = sum(w * v for w, v in zip(shares, values, strict=True)) / total
        squares = sum(w * (v - mean) ** 2 for w, v in zip(shares, values, strict=True))
        means.append(mean)
        variances.append(squares / total)
    return means, variances


def loop_batch_norm(
    x: ArrayLike,
    gamma: Sequence[float],
    beta: Sequence[float],
    axis: int = -1,
    epsilon: float = 1e-3,
) -> NDArray[np.float64]:
    """Normalise in training mode, one value at a time.

    Args:
        x: array of any shape with C channels, of any real dtype.
        gamma: the C scales.
        beta: the C offsets.
        axis: the axis of the channels.
        epsilon: what is added to the variance inside the root.

    Returns:
        The output, of the shape of `x`.
    """
    means, variances = loop_moments(x, axis)
    moved = np.moveaxis(np.asarray(x), axis, -1)
    y = np.empty(moved.shape, dtype=np.float64)
    for index in np.ndindex(moved.shape):
        c = index[-1]
        centred = float(Fraction(float(moved[index])) - means[c])
        y[index] = gamma[c] * centred / sqrt(float(variances[c]) + epsilon) + beta[c]
    return np.moveaxis(y, -1, axis)


def textbook_batch_norm(
    x: NDArray[np.floating],
    gamma: ArrayLike,
    beta: ArrayLike,
    axes: int | tuple[int, ...],
    epsilon: float = 1e-3,
) -> NDArray[np.floating]:
    """Normalise as most tutorials do: right on friendly data, and not on `samples.hard_rows`.

    Args:
        x: array of any shape, of a float type, in which all is computed.
        gamma: scales that broadcast against `x`.
        beta: offsets that broadcast against `x`.
        axes: the axes that are averaged over.
        epsilon: what is added to the variance inside the root.

    Returns:
        The output, of the shape of `x`.
    """
    mean = x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
