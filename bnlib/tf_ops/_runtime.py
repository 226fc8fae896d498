"""What TensorFlow knows about the code that it runs, and says to itself only."""

import tensorflow as tf

# AutoGraph rewrites Python that depends on the value of a tensor; no Python here does
no_autograph = tf.autograph.experimental.do_not_convert


def inside_xla():
    """Whether the code being traced will be compiled by XLA, where the fused kernel is slow."""
    if tf.executing_eagerly():
        return False
    try:
        from tensorflow.python.ops import control_flow_util
    except ImportError:
        return False
    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def forward_mode(tensors):
    """Whether a `tf.autodiff.ForwardAccumulator` follows one of the tensors here."""
    try:
        from tensorflow.python.eager import forwardprop_util
    except ImportError:
        return False
    return bool(forwardprop_util.pack_tangents(list(tensors)).tangents)


def on_gpu():
    """Whether there is a GPU that may be used, which then does the work."""
    return bool(tf.config.get_visible_devices("GPU"))
