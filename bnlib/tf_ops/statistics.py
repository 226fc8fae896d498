"""Moments on tensors: of one batch, of several, and over all replicas of a strategy."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from bnlib._typing import Axis, Tensor
from bnlib.moments import Moments
from bnlib.tf_ops._checks import (
    WIDE,
    as_floating,
    as_it_is,
    beside,
    layout_of,
)
from bnlib.tf_ops._weights import refuse_nothing, shares

__all__ = ["merge_moments", "moments", "sync_moments"]


@as_it_is
def moments(x: Tensor, *, axis: Axis = -1, weights: Tensor = None) -> Any:
    """Compute the mean and the biased variance of each channel, in float64.

        mean = sum(x) / m        variance = sum((x - mean)^2) / m

    Gradients flow through both. `tf.nn.moments` sums float32 in float32 and loses the variance
    once the mean is large: 35230 instead of 1 for a mean of a million.

    Args:
        x: shape `(N, ..., C)`, any real dtype; N and the like may be unknown.
        axis: the axis, or tuple of axes, that is kept.
        weights: how much each example counts: shape `(N,)`, or the shape of x without `axis`. A
            boolean mask works. Where a weight is 0, x may hold anything, NaN too.

    Returns:
        `Moments` of float64 tensors; `count` is a number where the shape is known, else a tensor.
        In a graph, an empty batch and weights that sum to 0 have count 0, mean 0 and variance 0.

    Raises:
        TypeError: when x or weights do not hold real numbers.
        ValueError: when there is nothing to average and that is known, or weights do not fit or
            are negative.

    Paper: Algorithm 1, lines 1 and 2. Method: Chan, Golub and LeVeque (1983), equation 1.7.
    """
    x = as_floating("x", x)
    where = layout_of(x, axis)
    share, count = shares(weights, x, where)
    refuse_nothing(count, x)
    return measure(x, where, share, count)


def measure(x, where, share, count):
    """Return the `Moments` of checked arguments; zeros where there is nothing to average."""
    x_wide = tf.cast(x, WIDE)
    if share is not None:
        x_wide = tf.where(share > 0, x_wide, tf.zeros_like(x_wide))
    mean = average(x_wide, where, share, count)
    centred = x_wide - beside(mean, x, where)
    if x.dtype == WIDE:  # what the first mean lost to rounding; nothing for narrower x
        residue = tf.stop_gradient(average(centred, where, share, count))
        residue = tf.where(tf.math.is_finite(residue), residue, tf.zeros_like(residue))
        mean, centred = mean + residue, centred - beside(residue, x, where)
    variance = average(tf.square(centred), where, share, count)
    return Moments(mean, variance, count)


def average(x, where, share, count):
    """Average float64 values over the axes that are not kept; 0 for no values."""
    if share is not None:
        return tf.reduce_sum(share * x, where.axes)
    if isinstance(count, int) and count:
        return tf.reduce_mean(x, where.axes)
    return tf.math.divide_no_nan(tf.reduce_sum(x, where.axes), tf.cast(count, WIDE))


@as_it_is
def merge_moments(parts: Iterable[Any]) -> Any:
    """Pool the moments of several batches into those of all their values together.

        mean = average of the means        variance = average of the variances
                                                      + variance of the means

    Args:
        parts: `Moments` of equal shapes. Those with count 0 are ignored.

    Returns:
        `Moments` of the union.

    Raises:
        ValueError: when there are no parts, or their shapes differ.

    Source: Chan, Golub and LeVeque (1983), equation 2.1; the law of total variance.
    """
    parts = list(parts)
    shapes = {tuple(tf.convert_to_tensor(v).shape) for part in parts for v in part[:2]}
    if len({shape for shape in shapes if None not in shape}) > 1 or not parts:
        raise ValueError(
            "parts must be Moments of one shape, and at least one of them; got "
            f"{len(parts)} of shapes {sorted(shapes)}. Give each batch the same channels."
        )
    means, variances, counts = (
        tf.stack([tf.cast(v, WIDE) for v in values])
        for values in zip(*parts, strict=True)
    )
    return pool(means, variances, counts, lambda terms: tf.reduce_sum(terms, 0))


@as_it_is
def sync_moments(local: Any) -> Any:
    """Pool the moments of all replicas: each gets those of the whole batch.

    Call it inside `strategy.run`. What travels is the count, the mean times the count, and then
    the centred squares; never `E[x^2] - E[x]^2`, which loses the variance. A replica without
    values may give count 0.

    Args:
        local: this replica's `Moments`.

    Returns:
        `Moments` of the values on all replicas; `local` itself where there are no replicas.
        Gradients flow through them to all replicas.

    Source: Chan, Golub and LeVeque (1983), equation 2.1.
    """
    if replicas() == 1:
        return local
    mean, variance, count = (tf.cast(value, WIDE) for value in local)
    return pool(mean, variance, count, all_sum)


def pool(means, variances, counts, total):
    """Merge by Chan's rule; `total` adds up over the parts, wherever they are."""
    # 0 where channels have their own counts
    missing = means.shape.rank - counts.shape.rank
    counts = tf.reshape(counts, [*counts.shape, *[1] * missing])
    means, variances = (
        tf.where(counts > 0, values, tf.zeros_like(values))
        for values in (means, variances)
    )
    count = total(counts)
    mean = tf.math.divide_no_nan(total(counts * means), count)
    squares = total(counts * (variances + tf.square(means - mean)))
    variance = tf.math.divide_no_nan(squares, count)
    return Moments(mean, variance, tf.reshape(count, []) if missing else count)


def replicas():
    """How many replicas run this code; 1 outside `strategy.run`."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def all_sum(value):
    """Add up over the replicas."""
    if replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, value
    )
