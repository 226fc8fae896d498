"""The replicas of a `tf.distribute` strategy, as the code on one of them sees them.

What costs is that replicas wait for each other, once for each exchange, and hardly how much they
exchange. So what can travel together does.
"""

import math

import tensorflow as tf

from bnlib.tf_ops._shapes import static_or_dynamic_shape


def number_of_replicas():
    """How many replicas run this code; 1 outside `strategy.run`."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def all_sum(value):
    """Add up over the replicas."""
    if number_of_replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, value
    )


def all_sums(*values):
    """Add up several values of one dtype over the replicas, in one exchange."""
    if number_of_replicas() == 1:
        return values
    return _unpacked(all_sum(_packed(values)), values)


def all_parts(*values):
    """Return each value as it is on every replica, along a new first axis, in one exchange.

    It is a sum of tables with a row for each replica, all rows 0 but its own: nothing is rounded,
    and gradients flow. `all_gather` takes two exchanges between workers, the first for the sizes.
    """
    number = number_of_replicas()
    if number == 1:
        return [value[tf.newaxis] for value in values]
    place = tf.distribute.get_replica_context().replica_id_in_sync_group
    own = tf.range(number)[:, tf.newaxis] == place
    packed = _packed(values)
    # not a product with 0 and 1, which would carry a NaN to all rows
    table = tf.where(own, packed, tf.zeros_like(packed))
    return _unpacked(all_sum(table), values, number)


def _packed(values):
    return tf.concat([tf.reshape(value, [-1]) for value in values], 0)


def _unpacked(packed, values, *rows):
    """Cut the last axis into pieces with the shapes of the values."""
    shapes = [static_or_dynamic_shape(value) for value in values]
    sizes = [math.prod(shape) for shape in shapes]
    pieces = tf.split(packed, sizes, axis=-1, num=len(values))
    pairs = zip(pieces, shapes, strict=True)
    return [tf.reshape(piece, [*rows, *shape]) for piece, shape in pairs]
