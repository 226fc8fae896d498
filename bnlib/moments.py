"""Per-channel mean and variance, and how to pool them.

Two functions hold all the statistics of batch normalization. Sums run in float64 over values that
have been centred first: float32 sums lose the variance long before the data look unusual.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from bnlib import blocks
from bnlib._batch import as_weighted_batch
from bnlib._checks import wide
from bnlib._typing import Array, ArrayLike, Axis, Statistics

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
    x: ArrayLike,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    weights: ArrayLike | None = None,
) -> Moments:
    """Compute the mean and the biased variance of each channel.

        mean = sum(x) / m        variance = sum((x - mean)^2) / m

    Sums run in float64. What the first mean lost to rounding is the mean of `x - mean`: a second
    pass measures it and takes it out, the corrected two-pass algorithm. `E[x^2] - E[x]^2` is never
    used: in float32 it loses every digit once the mean is a thousand times the deviation.

    Args:
        x: shape `(N, ..., C)`, any real dtype. Never modified.
        axis: the axis, or tuple of axes, that is kept.
        axes: the axis, or tuple of axes, averaged over; all others are then kept, whatever `axis`
            is. None averages over all but `axis`.
        weights: how much each value counts: the shape of the averaged axes, or of the first of
            them, which is `(N,)` for batch norm, one per example. A boolean mask works. Where a
            weight is 0, x may hold anything, NaN too.

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
    batch = as_weighted_batch(x, axis if axes is None else -1, axes, weights)
    mean, variance = measure(batch)
    channels = batch.where.channels
    return Moments(mean.reshape(channels), variance.reshape(channels), batch.count)


@blocks.fast_way
def measure(batch):
    """Return mean and variance of a checked batch, shaped to broadcast against x."""
    x = batch.x if batch.share is None else np.where(batch.share > 0, batch.x, 0)
    with np.errstate(invalid="ignore"):  # NaN and infinity stay in their channel
        rough = average(x, batch)
        rough[~np.isfinite(rough)] = 0
        centred = x - rough
        residue = average(centred, batch)  # what the rough mean missed
        centred -= residue
        return rough + residue, average(centred * centred, batch)


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
    if not 0 < counts.sum() < np.inf:
        raise ValueError(
            "parts must be Moments of at least one value in all; got counts "
            f"{counts.tolist()}. Leave out a merge of nothing."
        )
    between = moments(means, axes=0, weights=counts)
    within = moments(variances, axes=0, weights=counts)
    return Moments(
        between.mean, within.mean + between.variance, sum(part[2] for part in parts)
    )


def average(values, batch):
    """Average in float64 over the axes of a batch, leaving them with length 1."""
    weighted = values if batch.share is None else batch.share * values
    dtype = wide(values.dtype)
    total = np.add.reduce(weighted, axis=batch.where.axes, dtype=dtype, keepdims=True)
    return total / batch.count if batch.share is None else total
