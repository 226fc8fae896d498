"""Gradients of our own, that can be differentiated again."""

import tensorflow as tf

from bnlib.tf_ops._runtime import forward_mode


def differentiable(fast, plain):
    """Return a function with the values of `fast` and the gradients of `plain`, to any order.

    Where a `tf.autodiff.ForwardAccumulator` follows an argument, it is `plain` alone: forward mode
    looks at each op, and never at a gradient that replaces theirs.
    """

    @tf.custom_gradient
    def run(*arguments):
        def grad(*upstream):
            return gradients(plain, arguments, upstream)

        return fast(*arguments), grad

    def choose(*arguments):
        if forward_mode(arguments):
            return plain(*arguments)
        return run(*map(tf.identity, arguments))  # of this graph, not of one around it

    return choose


def gradients(function, arguments, upstream):
    """Return what flows back from the results of `function` to its arguments.

    In a graph by `tf.gradients`: while TensorFlow prepares a `tf.function` for forward mode, no
    tape records. There an upstream may be None, which stands for zeros.
    """
    arguments = [tf.identity(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        results = tf.nest.flatten(function(*arguments))
    pairs = zip(results, upstream, strict=True)
    pairs = [(result, flow) for result, flow in pairs if flow is not None]
    results, upstream = map(list, zip(*pairs, strict=True))
    if tf.executing_eagerly():
        return tape.gradient(results, arguments, upstream, unconnected_gradients="zero")
    return tf.gradients(results, arguments, upstream, unconnected_gradients="zero")


def cast_like(values, others):
    """Give each value the dtype of its partner."""
    return tuple(tf.cast(v, o.dtype) for v, o in zip(values, others, strict=True))
