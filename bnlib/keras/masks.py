"""How much each value counts: a mask of Keras becomes weights, and these become shares."""

import tensorflow as tf

from bnlib.tf_ops._replicas import all_sum
from bnlib.tf_ops._shapes import broadcast_channels
from bnlib.tf_ops._weights import shares

__all__: list[str] = []


def shares_of_mask(mask, x, where):
    """Return shares and sums for a mask of Keras, whose channels may differ in their sums.

    A mask that Keras made goes along all axes but the last, whichever are kept; one by hand may go
    along the axes that are averaged over. Where a mask fits both, it is read as the latter.
    """
    mask = None if mask is None else tf.convert_to_tensor(mask)
    if mask is None or mask.shape.is_compatible_with([x.shape[a] for a in where.axes]):
        return shares(mask, x, where)
    if not mask.shape.is_compatible_with(x.shape[:-1]):
        return shares(mask, x, where)
    weights = tf.broadcast_to(tf.cast(mask[..., tf.newaxis], tf.float64), tf.shape(x))
    total = tf.reduce_sum(weights, where.axes)
    beside_x = broadcast_channels(total, x, where)
    return tf.math.divide_no_nan(weights, beside_x), total


def values_with_weight(batch, count):
    """Return how many values of each channel have a weight above 0.

    That is `count` where there are no weights. It is of all replicas, as `count` is, where these
    are synchronized.
    """
    if batch.share is None:
        return count
    seen = tf.reduce_sum(tf.cast(batch.share > 0, tf.float64), batch.where.axes)
    return all_sum(seen) if batch.synchronized else seen
