"""Moments on tensors: of one batch, of several, and over all replicas of a strategy."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from bnlib._typing import Axis, Tensor
from bnlib.moments import Moments
from bnlib.tf_ops._batch import checked_batch
from bnlib.tf_ops._replicas import all_parts, number_of_replicas
from bnlib.tf_ops._runtime import no_autograph
from bnlib.tf_ops._shapes import broadcast_channels, static_or_dynamic_shape

__all__ = ["merge_moments", "moments", "sync_moments"]


@no_autograph
def moments(
    x: Tensor, *, axis: Axis = -1, axes: Axis | None = None, weights: Tensor = None
) -> Any:
    """Compute the mean and the biased variance of each channel, in float64.

        mean = sum(x) / m        variance = sum((x - mean)^2) / m

    Gradients flow through both. `tf.nn.moments` sums float32 in float32 and loses the variance
    once the mean is large: 35230 instead of 1 for a mean of a million.

    Args:
        x: shape `(N, ..., C)`, any real dtype; N and the like may be unknown.
        axis: the axis, or tuple of axes, that is kept.
        axes: the axis, or tuple of axes, averaged over; all others are then kept. None averages
            over all but `axis`.
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
    return measure(checked_batch(x, axis, axes, weights=weights))


def measure(batch):
    """Return the `Moments` of a batch on this replica; zeros where there is nothing to average."""
    x = tf.cast(batch.x, tf.float64)
    if batch.share is not None:
        x = tf.where(batch.share > 0, x, tf.zeros_like(x))
    mean = _average(x, batch)
    centred = x - broadcast_channels(mean, x, batch.where)
    if batch.x.dtype == tf.float64:
        # what the first mean lost to rounding; for narrower x that is nothing
        residue = tf.stop_gradient(_average(centred, batch))
        residue = tf.where(tf.math.is_finite(residue), residue, tf.zeros_like(residue))
        mean += residue
        centred -= broadcast_channels(residue, x, batch.where)
    variance = _average(tf.square(centred), batch)
    return Moments(mean, variance, batch.count)


def measure_whole(batch):
    """Return the `Moments` of a batch; of all replicas' batches, where they are synchronized."""
    local = measure(batch)
    return sync_moments(local) if batch.synchronized else local


def _average(x, batch):
    """Average float64 values over the axes that are not kept; 0 for no values."""
    axes, count = batch.where.axes, batch.count
    if batch.share is not None:
        return tf.reduce_sum(batch.share * x, axes)
    if isinstance(count, int) and count:
        return tf.reduce_mean(x, axes)
    return tf.math.divide_no_nan(tf.reduce_sum(x, axes), tf.cast(count, tf.float64))


@no_autograph
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
        tf.stack([tf.cast(v, tf.float64) for v in values])
        for values in zip(*parts, strict=True)
    )
    return pool(means, variances, counts)


@no_autograph
def sync_moments(local: Any) -> Any:
    """Pool the moments of all replicas: each gets those of the whole batch.

    Call it inside `strategy.run`. Count, mean and variance of every replica travel to all others,
    in one exchange, and each merges them; never `E[x^2] - E[x]^2`, which loses the variance. A
    replica without values may give count 0.

    Args:
        local: this replica's `Moments`.

    Returns:
        `Moments` of the values on all replicas; `local` itself where there are no replicas.
        Gradients flow through them to all replicas.

    Source: Chan, Golub and LeVeque (1983), equation 2.1.
    """
    if number_of_replicas() == 1:
        return local
    return pool(*all_parts(*(tf.cast(value, tf.float64) for value in local)))


def pool(means, variances, counts):
    """Merge by Chan's rule: arguments with one row for each part."""
    # no axes are missing where each channel has a count of its own
    missing = means.shape.rank - counts.shape.rank
    counts = tf.reshape(counts, [*static_or_dynamic_shape(counts), *[1] * missing])
    means, variances = (
        tf.where(counts > 0, values, tf.zeros_like(values))
        for values in (means, variances)
    )
    count = tf.reduce_sum(counts, 0)
    mean = tf.math.divide_no_nan(tf.reduce_sum(counts * means, 0), count)
    squares = tf.reduce_sum(counts * (variances + tf.square(means - mean)), 0)
    variance = tf.math.divide_no_nan(squares, count)
    return Moments(mean, variance, tf.reshape(count, []) if missing else count)
