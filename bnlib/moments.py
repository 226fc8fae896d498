"""Per-channel mean and variance, and how to pool them.

Two functions hold all the statistics of batch normalization. Sums run in float64 over values that
have been centred first: float32 sums lose the variance long before the data look unusual.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bnlib import blocks
from bnlib._checks import as_floating, wide
from bnlib._typing import Array, ArrayLike, Axis, Statistics
from bnlib.axes import layout

__all__ = ["Moments", "merge_moments", "moments"]


class Moments(NamedTuple):
    """Mean and variance of each channel, and how many values they were taken from.

    Attributes:
        mean: shape `(C,)`, float64.
        variance: shape `(C,)`, float64; the biased one, sum of squares divided by `count`.
        count: values per channel, or the sum of the weights.
    """

    mean: Array
    variance: Array
    count: float


def moments(
    x: ArrayLike, *, axis: Axis = -1, weights: ArrayLike | None = None
) -> Moments:
    """Compute the mean and the biased variance of each channel.

        mean = sum(x) / m        variance = sum((x - mean)^2) / m

    Sums run in float64. What the first mean lost to rounding is the mean of `x - mean`: a second
    pass measures it and takes it out, the corrected two-pass algorithm. `E[x^2] - E[x]^2` is never
    used: in float32 it loses every digit once the mean is a thousand times the deviation.

    Args:
        x: shape `(N, ..., C)`, any real dtype. Never modified.
        axis: the axis, or tuple of axes, that is kept.
        weights: how much each example counts: shape `(N,)`, or the shape of x without `axis`. A
            boolean mask works. Where a weight is 0, x may hold anything, NaN too.

    Returns:
        `Moments`, float64 whatever the dtype of x (longdouble for longdouble): the variance of
        float32 values near 1e25 does not fit in float32.

    Raises:
        TypeError: when x or weights do not hold real numbers.
        ValueError: when there is nothing to average, or the weights do not fit, are negative, or
            sum to 0.

    Paper: Algorithm 1, lines 1 and 2. Method: Chan, Golub and LeVeque (1983), equation 1.7.

    >>> mean, variance, count = moments([[1.0, 10.0], [3.0, 10.0]])
    >>> mean, variance, count
    (array([ 2., 10.]), array([1., 0.]), 2)
    """
    x = as_floating("x", x)
    where = layout(x.shape, axis)
    share, count = shares(weights, x.shape, where)
    if share is None and blocks.suits(x, where):
        return Moments(*blocks.moments(x, where), count)
    if share is not None:
        x = np.where(share > 0, x, 0)
    with np.errstate(invalid="ignore"):  # NaN and infinity stay in their channel
        rough = average(x, where.axes, share)
        centred = x - np.where(np.isfinite(rough), rough, 0)
        residue = average(centred, where.axes, share)  # what the rough mean missed
        mean = rough + np.where(np.isfinite(rough), residue, 0)
        variance = average((centred - residue) ** 2, where.axes, share)
    channels = where.channels
    return Moments(mean.reshape(channels), variance.reshape(channels), count)


def merge_moments(parts: Iterable[Statistics]) -> Moments:
    """Pool the moments of several batches into those of all their values together.

        mean = average of the means        variance = average of the variances
                                                      + variance of the means

    each weighted by `count`. The result is exact, however the data were split. The second term of
    the variance is the one that averaging variances forgets.

    Args:
        parts: `Moments` of equal shapes. Those with count 0 are ignored.

    Returns:
        `Moments` of the union.

    Raises:
        ValueError: when there are no parts, their shapes differ, or no part has a positive count.

    Source: Chan, Golub and LeVeque (1983), equation 2.1; the law of total variance.

    >>> merge_moments([moments([[0.0], [2.0]]), moments([[10.0], [12.0]])])
    Moments(mean=array([6.]), variance=array([26.]), count=4)
    """
    parts = list(parts)
    shapes = {np.shape(value) for part in parts for value in part[:2]}
    if len(shapes) != 1:
        raise ValueError(
            "parts must be Moments of one shape, and at least one of them; "
            f"got {len(parts)} parts of shapes {sorted(shapes)}. "
            "Give each batch the same channels."
        )
    means, variances, counts = (np.stack(values) for values in zip(*parts, strict=True))
    kept = tuple(range(1, means.ndim))
    between = moments(means, axis=kept, weights=counts)
    within = moments(variances, axis=kept, weights=counts)
    return Moments(
        between.mean, within.mean + between.variance, sum(part.count for part in parts)
    )


def average(x, axes, share):
    """Average over `axes` in float64, leaving them with length 1."""
    if share is None:
        return x.mean(axis=axes, dtype=wide(x.dtype), keepdims=True)
    return (share * x).sum(axis=axes, dtype=wide(x.dtype), keepdims=True)


def shares(weights, shape, where):
    """Return the weights beside x, scaled to sum to 1, and their sum; None for no weights."""
    sizes = tuple(shape[a] for a in where.axes)
    if not sizes or 0 in sizes:
        raise ValueError(
            f"moments needs at least one value per channel; x of shape {shape} leaves none to "
            f"average once axis {where.axis} is kept. Skip an empty batch; give a single row a "
            "batch axis, x[np.newaxis]."
        )
    if weights is None:
        return None, math.prod(sizes)
    weights = np.broadcast_to(_aligned(as_floating("weights", weights), sizes), sizes)
    total = weights.sum(dtype=wide(weights.dtype))
    if not (np.all(weights >= 0) and 0 < total < np.inf):
        raise ValueError(
            f"weights must be finite, at least 0, and not all 0; got minimum {weights.min()} and "
            f"sum {total}. Leave out a batch whose weights are all 0."
        )
    beside_x = tuple(1 if a in where.axis else n for a, n in enumerate(shape))
    return (weights / total).reshape(beside_x), float(total)


def _aligned(weights, sizes):
    """Line the weights up with the averaged axes, from the left: (N,) weighs whole examples."""
    full = weights.shape + (1,) * (len(sizes) - weights.ndim)
    fits = len(full) == len(sizes) and all(
        f in (1, s) for f, s in zip(full, sizes, strict=True)
    )
    if weights.ndim == 0 or not fits:
        raise ValueError(
            f"weights must have shape {sizes[:1]} (one per example) or {sizes} (one per position); "
            f"got {weights.shape}."
        )
    return weights.reshape(full)
