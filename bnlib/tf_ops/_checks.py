"""The checks of the core for tensors, whose shapes may be unknown until they run."""

import tensorflow as tf

from bnlib.axes import layout
from bnlib.tf_ops._shapes import static_or_dynamic_shape

NOT_DENSE = {
    tf.RaggedTensor: "Pad it with to_tensor(), and hide the padding: "
    "tf.sequence_mask(x.row_lengths()) is the layer's mask, and the weights of batch_norm.",
    tf.SparseTensor: "Make it one with tf.sparse.to_dense(x).",
}


def as_floating(name, value):
    """Return `value` as a floating tensor; integers and booleans become float64.

    Raises:
        TypeError: for complex numbers and strings, for ragged and sparse tensors.
    """
    if isinstance(value, tuple(NOT_DENSE)):
        kind = next(kind for kind in NOT_DENSE if isinstance(value, kind))
        raise TypeError(
            f"{name} must be a dense tensor; got a {kind.__name__}. {NOT_DENSE[kind]}"
        )
    value = tf.convert_to_tensor(value)
    if value.dtype.is_integer or value.dtype.is_bool:
        return tf.cast(value, tf.float64)
    if not value.dtype.is_floating:
        raise TypeError(
            f"{name} must hold real numbers; got dtype {value.dtype.name}. "
            "Convert it first, for example with tf.cast(x, tf.float32)."
        )
    return value


def layouts(x, axis, axes=None):
    """Return the `Layout` of the statistics of x, and that of gamma and beta.

    They are the same unless `axes` names other axes to average over than all but `axis`.
    Dimensions that are not known yet are None.

    Raises:
        ValueError: when not even the number of dimensions is known.
    """
    if x.shape.rank is None:
        raise ValueError(
            "x must have a known number of dimensions; got a tensor of unknown rank. "
            "Set it with tf.ensure_shape(x, [None, ..., C])."
        )
    shape = x.shape.as_list()
    features = layout(shape, axis)
    return (features if axes is None else layout(shape, axes=axes)), features


def per_channel(name, value, where):
    """Return `value` as a tensor of shape `where.channels`.

    Raises:
        ValueError: when the shape differs.
    """
    value = as_floating(name, value)
    if not value.shape.is_compatible_with(where.channels):
        raise ValueError(
            f"{name} must have shape {where.channels}, one value per channel on axis "
            f"{where.axis}; got shape {tuple(value.shape)}. Check `axis`, or reshape {name}."
        )
    return value


def gamma_and_beta(x, features, gamma, beta):
    """Return gamma and beta as tensors: ones and zeros where they are None."""
    sizes = [static_or_dynamic_shape(x)[a] for a in features.axis]
    dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
    return (
        tf.ones(sizes, dtype)
        if gamma is None
        else per_channel("gamma", gamma, features),
        tf.zeros(sizes, dtype) if beta is None else per_channel("beta", beta, features),
    )
