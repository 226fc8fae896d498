"""The checks of the core for tensors, whose shapes may be unknown until they run."""

import math

import tensorflow as tf

from bnlib.axes import layout

WIDE = tf.float64  # the dtype of statistics and sums
DENSE = {
    tf.RaggedTensor: "Pad it with to_tensor(), and hide the padding: "
    "tf.sequence_mask(x.row_lengths()) is the layer's mask, and the weights of batch_norm.",
    tf.SparseTensor: "Make it one with tf.sparse.to_dense(x).",
}
as_it_is = (
    tf.autograph.experimental.do_not_convert
)  # no Python here depends on a tensor's value


def as_floating(name, value):
    """Return `value` as a floating tensor; integers and booleans become float64.

    Raises:
        TypeError: for complex numbers and strings, for ragged and sparse tensors.
    """
    if isinstance(value, tuple(DENSE)):
        kind = next(kind for kind in DENSE if isinstance(value, kind))
        raise TypeError(
            f"{name} must be a dense tensor; got a {kind.__name__}. {DENSE[kind]}"
        )
    value = tf.convert_to_tensor(value)
    if value.dtype.is_integer or value.dtype.is_bool:
        return tf.cast(value, WIDE)
    if not value.dtype.is_floating:
        raise TypeError(
            f"{name} must hold real numbers; got dtype {value.dtype.name}. "
            "Convert it first, for example with tf.cast(x, tf.float32)."
        )
    return value


def layout_of(x, axis):
    """Return the `Layout` of x; dimensions that are not known yet are None.

    Raises:
        ValueError: when not even the number of dimensions is known.
    """
    if x.shape.rank is None:
        raise ValueError(
            "x must have a known number of dimensions; got a tensor of unknown rank. "
            "Set it with tf.ensure_shape(x, [None, ..., C])."
        )
    return layout(x.shape.as_list(), axis)


def dims(x):
    """Return the shape of x: a number where it is known, else a scalar tensor."""
    known = x.shape.as_list()
    if None not in known:
        return known
    found = tf.shape(x)
    return [found[i] if n is None else n for i, n in enumerate(known)]


def values_per_channel(x, where):
    """Return how many values each channel has: an integer where known, else a float64 scalar."""
    sizes = [dims(x)[a] for a in where.axes]
    if all(isinstance(n, int) for n in sizes):
        return math.prod(sizes)
    return tf.cast(tf.reduce_prod(tf.stack(sizes)), WIDE)


def beside(vector, x, where):
    """Shape a vector of channels so that it broadcasts against x."""
    if where.axis == (x.shape.rank - 1,):
        return vector
    sizes = dims(x)
    shape = [n if a in where.axis else 1 for a, n in enumerate(sizes)]
    return tf.reshape(vector, shape)


def per_channel(name, value, where, default=None):
    """Return `value` as a tensor of shape `where.channels`, or None where None is allowed.

    Raises:
        ValueError: when the shape differs.
    """
    if value is None and default is not None:
        return None
    value = as_floating(name, value)
    if not value.shape.is_compatible_with(where.channels):
        raise ValueError(
            f"{name} must have shape {where.channels}, one value per channel on axis "
            f"{where.axis}; got shape {tuple(value.shape)}. Check `axis`, or reshape {name}."
        )
    return value


def parameters(x, where, gamma, beta):
    """Return gamma and beta as tensors: ones and zeros where they are None."""
    sizes = [dims(x)[a] for a in where.axis]
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
    gamma = per_channel("gamma", gamma, where, default=1)
    beta = per_channel("beta", beta, where, default=0)
    return (
        tf.ones(sizes, dtype) if gamma is None else gamma,
        tf.zeros(sizes, dtype) if beta is None else beta,
    )


def inside_xla():
    """Whether the code being traced will be compiled by XLA, where the fused kernel is slow."""
    if tf.executing_eagerly():
        return False
    try:  # TensorFlow says it to itself only
        from tensorflow.python.ops import control_flow_util
    except ImportError:
        return False
    graph = tf.compat.v1.get_default_graph()
    return bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def forward_mode(tensors):
    """Whether a `tf.autodiff.ForwardAccumulator` follows one of the tensors here."""
    try:  # TensorFlow says this, too, to itself only
        from tensorflow.python.eager import forwardprop_util
    except ImportError:
        return False
    return bool(forwardprop_util.pack_tangents(list(tensors)).tangents)
