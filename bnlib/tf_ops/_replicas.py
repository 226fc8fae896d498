"""The replicas of a `tf.distribute` strategy, as the code on one of them sees them."""

import tensorflow as tf


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
