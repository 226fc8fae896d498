"""The line through x that every kernel ends with: normalise, scale and shift in one step."""

import tensorflow as tf

from bnlib.tf_ops._autodiff import differentiable
from bnlib.tf_ops._runtime import inside_xla
from bnlib.tf_ops._shapes import (
    along_row,
    broadcast_channels,
    has_at_least,
    image,
    image_of_rows,
    rows_of,
)

LARGE = 1 << 14  # numbers in x, from which float64 costs too much
LARGE_FOR_FUSED = 1 << 19  # and from which the fused kernel pays, with given statistics
FUSED_DTYPES = (tf.float16, tf.bfloat16, tf.float32)


def normalize_scale_shift(batch, mean, inverse, gamma, beta):
    """Compute (x - mean) * inverse * gamma + beta, in the dtype of x.

    Args:
        batch: the `Batch` that x, `where` and `features` are taken from.
        mean: shape `where.channels`.
        inverse: 1 / sqrt(variance + epsilon), likewise.
        gamma: shape `features.channels`; None means 1.
        beta: likewise; None means 0.
    """
    x, where, features, *_ = batch
    if features == where:
        multiplier = inverse if gamma is None else gamma * inverse
        return affine(x, mean, multiplier, beta, where)
    mean, inverse = (_channels(x, v, where) for v in (mean, inverse))
    y = (tf.cast(x, tf.float64) - mean) * inverse
    if gamma is not None:
        y *= _channels(x, gamma, features)
    if beta is not None:
        y += _channels(x, beta, features)
    return tf.cast(y, x.dtype)


def _channels(x, vector, where):
    """Shape a float64 vector of channels so that it broadcasts against x."""
    return broadcast_channels(tf.cast(vector, tf.float64), x, where)


def affine(x, mean, multiplier, shift, where):
    """Compute (x - mean) * multiplier + shift; no shift is None.

    The three vectors may be float64 where x is narrower. A small x is then computed in float64. A
    large one stays in float32: its mean is split into `high`, which float32 holds and `x - high`
    meets without loss where x is near, and a rest, which goes into the shift.
    """
    work = tf.float32 if x.dtype in FUSED_DTYPES else x.dtype
    if mean.dtype != work and not has_at_least(x, LARGE):
        work = mean.dtype
    high = tf.cast(mean, work)
    shift = tf.zeros_like(mean) if shift is None else shift
    if mean.dtype != work:
        shift = shift + (tf.cast(high, tf.float64) - mean) * multiplier
    vectors = high, tf.cast(multiplier, work), tf.cast(shift, work)

    def plain(x, *vectors):
        high, multiplier, shift = (broadcast_channels(v, x, where) for v in vectors)
        return tf.cast((tf.cast(x, work) - high) * multiplier + shift, x.dtype)

    def fast(x, *vectors):
        if rows is None:
            picture, _ = image(x, where)
        else:
            vectors = [along_row(v, x, where, rows[1]) for v in vectors]
            picture = image_of_rows(x, where, *rows)
        high, multiplier, shift = vectors
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=picture,
            scale=multiplier,
            offset=shift,
            mean=high,
            variance=tf.ones_like(high),
            epsilon=0.0,
            is_training=False,
        )
        return tf.reshape(y, tf.shape(x))

    if x.dtype not in FUSED_DTYPES or len(where.axis) != 1:
        return plain(x, *vectors)
    last = where.axis[0] == x.shape.rank - 1
    rows = None if last else rows_of(x, where)
    pays = has_at_least(x, LARGE_FOR_FUSED) and (last or rows is not None)
    if pays and not inside_xla():
        return differentiable(fast, plain)(x, *vectors)
    return plain(x, *vectors)
