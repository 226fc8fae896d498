"""Batch norm by the statistics of the batch, on tensors: training mode, with its gradient."""

import tensorflow as tf

from bnlib._checks import as_epsilon
from bnlib._typing import Axis, Tensor
from bnlib.moments import Moments
from bnlib.tf_ops._affine import NARROW, differentiable, gradients
from bnlib.tf_ops._checks import (
    as_floating,
    as_it_is,
    forward_mode,
    layout_of,
    parameters,
)
from bnlib.tf_ops._kernels import Fused, Wide, fast_kernel
from bnlib.tf_ops._weights import refuse_nothing, shares

__all__ = ["batch_norm", "fused_batch_norm"]


@as_it_is
def batch_norm(
    x: Tensor,
    gamma: Tensor = None,
    beta: Tensor = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
    weights: Tensor = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a batch by its own statistics, then scale and shift: training mode.

    Large narrow arrays go through a fast kernel, which adds up short runs in float32: the variance
    is right to 1e-6 of itself and the mean to 4e-6 deviations, for any number of values. Where a
    channel's mean lies more than 16 deviations from 0, that kernel has lost digits, and mean and
    variance are computed again in float64. In forward mode everything is.

    Args:
        x: shape `(N, ..., C)`, any real dtype; N and the like may be unknown.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: guard inside the root; Keras's default 1e-3.
        weights: as in `moments`. They weigh the statistics, every position is still normalised, and
            they receive no gradient.

    Returns:
        `(y, mean, variance)`: y with the shape and dtype of x (float64 for integers), the biased
        batch statistics as float64, shape `(C,)`. Gradients flow through all three.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, an empty batch, or a negative epsilon or weight.

    Paper: Algorithm 1.
    """
    x = as_floating("x", x)
    where = layout_of(x, axis)
    share, count = shares(weights, x, where)
    refuse_nothing(count, x)
    given = parameters(x, where, gamma, beta)
    return train(x, *given, where, as_epsilon(epsilon), share, count)[:3]


@as_it_is
def fused_batch_norm(
    x: Tensor,
    gamma: Tensor = None,
    beta: Tensor = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a batch with TensorFlow's fused kernel, whose answer is taken as it is.

    The fastest way outside XLA, and exact to float32 while the mean is not large beside the
    deviation: at a mean of 1e4 deviations y is off by .002, at 1e6 by 1.

    Args:
        x: shape `(N, ..., C)`, float16, bfloat16 or float32.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis that is kept.
        epsilon: guard inside the root.

    Returns:
        `(y, mean, variance)`, as `batch_norm`; the variance is the biased one.

    Raises:
        TypeError: for a dtype, ValueError: for several axes, that the kernel does not take.

    Source: `tf.raw_ops.FusedBatchNormV3`.
    """
    x = as_floating("x", x)
    where = layout_of(x, axis)
    if x.dtype not in NARROW:
        raise TypeError(
            f"x must be float16, bfloat16 or float32 for the fused kernel; got {x.dtype.name}. "
            "Use batch_norm."
        )
    if len(where.axis) != 1:
        raise ValueError(
            f"axis must be one axis for the fused kernel; got {axis!r}. Use batch_norm."
        )
    share, count = shares(None, x, where)
    refuse_nothing(count, x)
    given = parameters(x, where, gamma, beta)
    return train(x, *given, where, as_epsilon(epsilon), share, count, fused=True)[:3]


@as_it_is
def train(
    x,
    gamma,
    beta,
    where,
    epsilon,
    share,
    count,
    *,
    fused=None,
    synchronized=False,
    through_statistics=True,
):
    """Run the kernel that suits, for checked arguments.

    `fused=None` chooses a fast kernel where it pays, and looks at its answer; True takes the fused
    kernel's answer as it is; False is float64. With `synchronized` all replicas are one batch.
    Without `through_statistics` the caller must not ask for the gradient of mean and variance.

    Returns:
        `(y, mean, variance, count)`; the count is that of all replicas, if asked.
    """
    if forward_mode((x, gamma, beta)):  # which looks at each op: see `differentiable`
        wide = Wide(x, where, epsilon, share, count, synchronized=synchronized)
        return *wide.forward(gamma, beta), wide.batch.count
    still = tf.stop_gradient(x)  # a tape that looked into tf.cond twice would fail
    wide = Wide(still, where, epsilon, share, count, synchronized=synchronized)
    fast = fast_kernel(wide, fused and not synchronized)
    if fused is False or synchronized or share is not None or fast is None:
        run = _alone(wide, wide)
    else:
        doubtful = isinstance(fast, Fused) and not fused
        run = _judged(fast, wide) if doubtful else _alone(fast, wide)
    y, mean, variance = run(x, gamma, beta)
    if through_statistics:
        connected = differentiable(
            lambda *_: (mean, variance), lambda *given: wide.on(*given).moments()[:2]
        )
        mean, variance = connected(x, *wide.given())
    return y, mean, variance, wide.batch.count if synchronized else count


def _alone(kernel, wide):
    """Return the differentiable function of one kernel."""

    @tf.custom_gradient
    def run(x, gamma, beta):
        y, mean, variance = kernel.forward(*map(tf.stop_gradient, (gamma, beta)))

        def backward(grad_y, gamma):
            return kernel.backward(*map(tf.stop_gradient, (grad_y, gamma)))

        def grad(grad_y, *_):  # the statistics have their own, see `train`
            return _backward(backward, wide)(grad_y, x, gamma, beta)

        return (y, *_wide(mean, variance)), grad

    return run


def _judged(fast, wide):
    """Return a function that runs `fast`, and `wide` where that cannot be trusted."""

    @tf.custom_gradient
    def run(x, gamma, beta):
        still = tf.stop_gradient(gamma), tf.stop_gradient(beta)
        y, mean, variance = fast.forward(*still)
        mean, variance = _wide(mean, variance)
        y, mean, variance = tf.cond(
            fast.trusted,
            lambda: (y, mean, variance),
            lambda: wide.forward(*still),
        )
        wide.batch = Moments(mean, variance, wide.count)

        def backward(grad_y, gamma):
            grad_y, gamma = tf.stop_gradient(grad_y), tf.stop_gradient(gamma)
            return tf.cond(
                fast.trusted,
                lambda: _like(fast.backward(grad_y, gamma), x, gamma, beta),
                lambda: _like(wide.backward(grad_y, gamma), x, gamma, beta),
            )

        def grad(grad_y, *_):
            return _backward(backward, wide)(grad_y, x, gamma, beta)

        return (y, mean, variance), grad

    return run


def _backward(fast, wide):
    """Make a backward pass differentiable in its turn, as the gradient of the plain formula."""

    def output(x, gamma, beta, *given):
        return wide.on(x, *given).forward(gamma, beta)[0]

    def plain(grad_y, *arguments):
        return gradients(output, arguments, [grad_y])[:3]

    def run(grad_y, x, gamma, beta, *_):
        return _like(fast(grad_y, gamma), x, gamma, beta)

    whole = differentiable(run, plain)
    return lambda *arguments: whole(*arguments, *wide.given())


def _like(grads, *values):
    return tuple(tf.cast(g, v.dtype) for g, v in zip(grads, values, strict=True))


def _wide(*values):
    return tuple(tf.cast(value, tf.float64) for value in values)
