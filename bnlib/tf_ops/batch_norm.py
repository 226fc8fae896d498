"""Batch norm by the statistics of the batch, on tensors: training mode, with its gradient.

A kernel is a module with two pure functions:

    forward(batch, gamma, beta) -> (y, mean, variance, saved)
    backward(batch, saved, grad_y, gamma) -> (grad_x, grad_gamma, grad_beta)

`batch` is a `Batch`, the arguments after their checks. Mean and variance are float64. What backward
needs besides is in `saved`, so that forward may stand in a branch of `tf.cond`.

- `_float64` is the formula: right for any data, weights and axes, and slow on large arrays.
- `_float32` adds up short runs in float32: fast, and as right as float32 can be.
- `_fused` is TensorFlow's kernel, its answer taken as it is.
- `_fused_or_float64` looks at that answer, and goes to `_float64` where it has lost digits.
"""

import tensorflow as tf

from bnlib._typing import Axis, Tensor
from bnlib.moments import Moments
from bnlib.tf_ops import _float32, _float64, _fused, _fused_or_float64
from bnlib.tf_ops._affine import FUSED_DTYPES, LARGE
from bnlib.tf_ops._autodiff import cast_like, differentiable, gradients
from bnlib.tf_ops._batch import checked_batch
from bnlib.tf_ops._checks import gamma_and_beta
from bnlib.tf_ops._runtime import forward_mode, inside_xla, no_autograph, on_gpu
from bnlib.tf_ops._shapes import has_at_least
from bnlib.tf_ops.moments import measure_whole

__all__ = ["batch_norm", "fused_batch_norm"]


@no_autograph
def batch_norm(
    x: Tensor,
    gamma: Tensor = None,
    beta: Tensor = None,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
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
        axis: the axis, or tuple of axes, that is kept: that of gamma and beta.
        axes: the axis, or tuple of axes, averaged over; mean and variance then have the shape of
            all others. None averages over all but `axis`. For `(N, H, W, C)`, (1, 2) is instance
            norm, and (1, 2, 3) layer norm; Keras's layer norm over these has `axis` (1, 2, 3) too.
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
    batch = checked_batch(x, axis, axes, weights=weights, epsilon=epsilon)
    vectors = gamma_and_beta(batch.x, batch.features, gamma, beta)
    y, statistics = normalize_batch(batch, *vectors)
    return y, statistics.mean, statistics.variance


@no_autograph
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
    batch = checked_batch(x, axis, None, epsilon=epsilon)
    if batch.x.dtype not in FUSED_DTYPES:
        raise TypeError(
            "x must be float16, bfloat16 or float32 for the fused kernel; got "
            f"{batch.x.dtype.name}. Use batch_norm."
        )
    if len(batch.where.axis) != 1:
        raise ValueError(
            f"axis must be one axis for the fused kernel; got {axis!r}. Use batch_norm."
        )
    vectors = gamma_and_beta(batch.x, batch.features, gamma, beta)
    y, statistics = normalize_batch(batch, *vectors, fused=True)
    return y, statistics.mean, statistics.variance


@no_autograph
def normalize_batch(batch, gamma, beta, *, fused=None, through_statistics=True):
    """Run the kernel that fits a checked batch, and give it its gradient.

    Args:
        batch: the `Batch`.
        gamma: tensor of shape `features.channels`.
        beta: likewise.
        fused: None chooses a fast kernel where it pays, and looks at its answer; True takes the
            fused kernel's answer as it is; False is float64.
        through_statistics: False where the gradient of mean and variance will not be asked for.

    Returns:
        `(y, Moments)`; of all replicas where these are synchronized.
    """
    if forward_mode((batch.x, gamma, beta)):
        # it follows each op, and none of the gradients that we give below
        y, *_, statistics = _float64.forward(batch, gamma, beta)
        return y, statistics
    run = _with_gradient(_kernel_for(batch, fused), batch)
    y, mean, variance, *count = run(batch.x, gamma, beta)
    if through_statistics:
        connected = differentiable(
            lambda *_: (mean, variance),
            lambda *tensors: measure_whole(batch.with_tensors(*tensors))[:2],
        )
        mean, variance = connected(*batch.tensors())
    return y, Moments(mean, variance, *count or [batch.count])


def _kernel_for(batch, fused):
    """Choose the kernel, a module with `forward` and `backward`."""
    one_axis = batch.where == batch.features and len(batch.where.axis) == 1
    alike = batch.share is None and not batch.synchronized
    fits = batch.x.dtype in FUSED_DTYPES and one_axis and alike
    if fused is False or not fits:
        return _float64
    if fused:
        return _fused
    if not has_at_least(batch.x, LARGE):
        return _float64
    return _fused_or_float64 if on_gpu() and not inside_xla() else _float32


def _with_gradient(kernel, batch):
    """Return a function of x, gamma and beta, differentiable by them to any order.

    It returns y, mean and variance, and after them the number of values on all replicas, where that
    is not `batch.count`. It gives no gradient of the statistics; `normalize_batch` does.
    """
    _, *others = batch.tensors()

    def formula(x, gamma, beta, *others):
        return _float64.forward(batch.with_tensors(x, *others), gamma, beta)[0]

    @tf.custom_gradient
    def run(x, gamma, beta):
        # Tapes are kept out of the kernel: they would follow its tf.cond, which TensorFlow cannot
        # differentiate twice, though the gradient is the one below.
        kept = batch._replace(x=tf.stop_gradient(x))
        vectors = (tf.stop_gradient(v) for v in (gamma, beta))
        y, mean, variance, saved = kernel.forward(kept, *vectors)

        def backward(grad_y, x, gamma, beta, *_):
            given = (tf.stop_gradient(v) for v in (grad_y, gamma))
            grads = kernel.backward(kept, saved, *given)
            return cast_like(grads, (x, gamma, beta))

        def backward_of_formula(grad_y, *arguments):
            return gradients(formula, arguments, [grad_y])[:3]

        def grad(grad_y, *_):
            whole = differentiable(backward, backward_of_formula)
            return whole(grad_y, x, gamma, beta, *others)

        whole = [saved.count] if batch.synchronized else []
        return (y, mean, variance, *filter(tf.is_tensor, whole)), grad

    return run
