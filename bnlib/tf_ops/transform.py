"""Normalise, scale and shift tensors by statistics that are given: inference mode."""

import tensorflow as tf

from bnlib._checks import as_epsilon
from bnlib._typing import Axis, Tensor
from bnlib.tf_ops._affine import normalize_scale_shift
from bnlib.tf_ops._batch import Batch
from bnlib.tf_ops._checks import as_floating, layouts, per_channel
from bnlib.tf_ops._runtime import no_autograph
from bnlib.tf_ops._shapes import broadcast_channels

__all__ = ["batch_norm_inference", "normalize", "scale_and_shift"]


@no_autograph
def normalize(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    epsilon: float = 1e-3,
) -> Tensor:
    """Centre each channel and divide it by its standard deviation, guarded by epsilon.

        x_hat = (x - mean) / sqrt(variance + epsilon)

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        mean: shape `(C,)`.
        variance: shape `(C,)`.
        axis: the axis, or tuple of axes, that is kept.
        axes: the axis, or tuple of axes, that the statistics were averaged over; `mean` and
            `variance` then have the shape of all others. None is all but `axis`.
        epsilon: guard inside the root.

    Returns:
        x_hat, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape or a negative epsilon.

    Paper: Algorithm 1, line 3.
    """
    return batch_norm_inference(
        x, mean, variance, axis=axis, axes=axes, epsilon=epsilon
    )


@no_autograph
def scale_and_shift(
    x_hat: Tensor, gamma: Tensor = None, beta: Tensor = None, *, axis: Axis = -1
) -> Tensor:
    """Multiply each channel by gamma and add beta.

    Args:
        x_hat: shape `(N, ..., C)`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that gamma and beta run along.

    Returns:
        y, shape and dtype of x_hat.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when gamma or beta does not have one value per channel.

    Paper: Algorithm 1, line 4.
    """
    y = as_floating("x_hat", x_hat)
    _, features = layouts(y, axis)
    if gamma is not None:
        gamma = tf.cast(per_channel("gamma", gamma, features), y.dtype)
        y = y * broadcast_channels(gamma, y, features)
    if beta is not None:
        beta = tf.cast(per_channel("beta", beta, features), y.dtype)
        y = y + broadcast_channels(beta, y, features)
    return y


@no_autograph
def batch_norm_inference(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor = None,
    beta: Tensor = None,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    epsilon: float = 1e-3,
) -> Tensor:
    """Normalise by given statistics, then scale and shift: inference mode.

        y = (x - mean) * (gamma / sqrt(variance + epsilon)) + beta

    in this order: `x * a + b`, as `tf.nn.batch_normalization` has it, subtracts two large numbers
    where the mean is large.

    Args:
        x: shape `(N, ..., C)`, any real dtype; N may be 0, 1 or unknown.
        mean: shape `(C,)`, usually the `moving_mean`; float64 is used in full.
        variance: shape `(C,)`, usually the `moving_variance`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that is kept: that of gamma and beta.
        axes: the axis, or tuple of axes, that the statistics were averaged over; `mean` and
            `variance` then have the shape of all others. None is all but `axis`.
        epsilon: guard inside the root; Keras's default 1e-3.

    Returns:
        y, shape and dtype of x (float64 for integers). All arguments receive gradients.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape or a negative epsilon.

    Paper: Algorithm 2, line 11.
    """
    x = as_floating("x", x)
    where, features = layouts(x, axis, axes)
    batch = Batch(x, where, features, as_epsilon(epsilon))
    given = [
        value if value is None else per_channel(name, value, layout)
        for name, value, layout in (
            ("mean", mean, where),
            ("variance", variance, where),
            ("gamma", gamma, features),
            ("beta", beta, features),
        )
    ]
    all_float32 = all(v is None or v.dtype == tf.float32 for v in given)
    if not all_float32 or x.dtype == tf.float64:
        given = [v if v is None else tf.cast(v, tf.float64) for v in given]
    mean, variance, gamma, beta = given
    inverse = tf.math.rsqrt(variance + batch.epsilon)
    return normalize_scale_shift(batch, mean, inverse, gamma, beta)
