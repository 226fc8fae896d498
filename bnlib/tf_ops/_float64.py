"""The formula in float64: right for any data, weights and axes, and slow on large arrays."""

import tensorflow as tf

from bnlib.tf_ops._affine import normalize_scale_shift
from bnlib.tf_ops._replicas import all_sums
from bnlib.tf_ops._shapes import broadcast_channels
from bnlib.tf_ops.moments import measure_whole


def forward(batch, gamma, beta):
    """Return `(y, mean, variance, saved)`; saved are the `Moments`, of all replicas if asked."""
    saved = measure_whole(batch)
    gamma, beta = (tf.cast(v, tf.float64) for v in (gamma, beta))
    inverse = _inverse(batch, saved)
    y = normalize_scale_shift(batch, saved.mean, inverse, gamma, beta)
    return y, saved.mean, saved.variance, saved


def backward(batch, saved, grad_y, gamma):
    """Return `(grad_x, grad_gamma, grad_beta)`, the last two of this replica alone."""
    x, where, features, *_ = batch
    inverse, centred = _inverse(batch, saved), _centred(batch, saved)
    grad, gamma = tf.cast(grad_y, tf.float64), tf.cast(gamma, tf.float64)
    if features == where:  # each mean is over one gamma, which leaves it
        grad_x, total, product = _through_statistics(
            batch, saved, grad, centred, inverse
        )
        grad_x *= broadcast_channels(gamma * inverse, x, where)
        return tf.cast(grad_x, x.dtype), product * inverse, total
    scale = broadcast_channels(inverse, x, where)
    grad_gamma = tf.reduce_sum(grad * centred * scale, features.axes)
    grad_beta = tf.reduce_sum(grad, features.axes)
    grad *= broadcast_channels(gamma, x, features)
    grad_x, *_ = _through_statistics(batch, saved, grad, centred, inverse)
    return tf.cast(grad_x * scale, x.dtype), grad_gamma, grad_beta


def _through_statistics(batch, saved, grad, centred, inverse):
    """Section 3 of the paper, solved for grad_x, but for the last factor; see `bnlib.gradient`.

    Return that, and this replica's sums of grad and of grad * centred.
    """
    x, where = batch.x, batch.where
    sums = tf.reduce_sum(grad, where.axes), tf.reduce_sum(grad * centred, where.axes)
    whole = all_sums(*sums) if batch.synchronized else sums
    total, slope = (broadcast_channels(v, x, where) for v in whole)
    slope *= broadcast_channels(tf.square(inverse), x, where)
    grad_x = grad - _share(batch, saved) * (total + centred * slope)
    return grad_x, *sums


def _inverse(batch, saved):
    return tf.math.rsqrt(saved.variance + batch.epsilon)


def _centred(batch, saved):
    """Return x - mean, and 0 for what is not finite and has no weight."""
    mean = broadcast_channels(saved.mean, batch.x, batch.where)
    centred = tf.cast(batch.x, tf.float64) - mean
    if batch.share is None:
        return centred
    hidden = (batch.share == 0) & ~tf.math.is_finite(centred)
    return tf.where(hidden, tf.zeros_like(centred), centred)


def _share(batch, saved):
    """Return what part of the mean each value is: of all replicas' mean, if asked."""
    if batch.share is None:
        if isinstance(saved.count, int) and saved.count:
            return 1 / saved.count
        return tf.math.reciprocal_no_nan(tf.cast(saved.count, tf.float64))
    local, whole = (tf.cast(v, tf.float64) for v in (batch.count, saved.count))
    part = tf.math.divide_no_nan(local, whole)
    if part.shape.rank:  # a mask may leave each channel its own count
        part = broadcast_channels(part, batch.x, batch.where)
    return batch.share * part
