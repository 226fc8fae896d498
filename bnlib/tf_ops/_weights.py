"""How much each value counts: weights become shares that sum to 1."""

import tensorflow as tf

from bnlib.tf_ops._checks import as_floating
from bnlib.tf_ops._shapes import static_or_dynamic_shape, values_per_channel


def shares(weights, x, where):
    """Return the weights beside x, scaled to sum to 1, and their sum.

    Without weights return None, and the number of values per channel.

    Raises:
        ValueError: when the weights do not fit, or are negative and that can be seen.
    """
    if weights is None:
        return None, values_per_channel(x, where)
    weights = tf.cast(as_floating("weights", weights), tf.float64)
    weights = _aligned(weights, x, where)
    if tf.executing_eagerly() and not bool(tf.reduce_all(weights >= 0)):
        raise ValueError(
            f"weights must be at least 0; got a minimum of {tf.reduce_min(weights)}. "
            "Use 0 to leave a value out."
        )
    total = tf.reduce_sum(weights)
    return tf.math.divide_no_nan(weights, total), total


def _aligned(weights, x, where):
    """Line the weights up with the averaged axes, from the left, and broadcast them over x."""
    shape = static_or_dynamic_shape(x)
    sizes = [shape[a] for a in where.axes]
    rank = weights.shape.rank
    full = [1] * len(sizes)
    if rank is not None and 0 < rank <= len(sizes):
        full[:rank] = static_or_dynamic_shape(weights)
    pairs = zip(full, sizes, strict=True)
    wrong = any(
        isinstance(f, int) and isinstance(s, int) and f not in (1, s) for f, s in pairs
    )
    if not rank or rank > len(sizes) or wrong:
        raise ValueError(
            f"weights must have shape ({sizes[0] if sizes else 'N'},), one per example, or that "
            f"of x without axis {where.axis}; got {tuple(weights.shape)} for x {tuple(x.shape)}."
        )
    weights = tf.broadcast_to(tf.reshape(weights, full), sizes)
    return tf.reshape(
        weights, [1 if a in where.axis else n for a, n in enumerate(shape)]
    )
