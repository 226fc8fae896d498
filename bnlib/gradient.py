"""The backward pass of batch normalization: nine small steps, and the closed form they add up to.

The mean and the variance depend on every x of their channel, so each x reaches the loss by several
paths: the direct one through its own x_hat, one through the mean, and one through the variance. (A
fourth, through the mean to the variance, carries 0, since the centred values sum to 0.) Whoever
treats the statistics as constants keeps only the direct path.
"""

import numpy as np

from bnlib import blocks
from bnlib._batch import as_batch, as_weighted_batch
from bnlib._checks import (
    as_epsilon,
    as_variance,
    per_channel,
    per_channel_or_none,
    same_shape,
    wide,
)
from bnlib._typing import Array, ArrayLike, Axis, Statistics
from bnlib.moments import measure
from bnlib.transform import centre_and_divide, inverse_deviation

__all__ = [
    "batch_norm_backward",
    "batch_norm_backward_staged",
    "batch_norm_inference_backward",
]


def batch_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    epsilon: float = 1e-3,
    weights: ArrayLike | None = None,
    statistics: Statistics | tuple[ArrayLike, ArrayLike] | None = None,
    grad_mean: ArrayLike | None = None,
    grad_variance: ArrayLike | None = None,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `batch_norm`: the closed form.

        grad_beta  = sum(grad_y)
        grad_gamma = sum(grad_y * x_hat)
        grad_x     = gamma / sqrt(variance + epsilon)
                     * (grad_y - (grad_beta + x_hat * grad_gamma) / m)

    With weights, 1 / m becomes each value's share of the total weight. Where gamma has other axes
    than the statistics, it stands inside the sums of the last line:

        g      = gamma * grad_y
        grad_x = (g - (sum(g) + x_hat * sum(g * x_hat)) / m) / sqrt(variance + epsilon)

    Args:
        grad_y: gradient of the loss with respect to y, shape of x.
        x: the input that the forward pass saw, shape `(N, ..., C)`.
        gamma: shape `(C,)`; None means 1.
        axis: as in the forward pass.
        axes: as in the forward pass.
        epsilon: as in the forward pass.
        weights: as in the forward pass.
        statistics: `(mean, variance)` or `Moments`, which the forward pass returned; None computes
            them again. Those of another batch cannot be told, and give a wrong gradient.
        grad_mean: gradient with respect to the returned mean, of its shape, if the loss uses it.
        grad_variance: likewise for the returned variance.

    Returns:
        `(grad_x, grad_gamma, grad_beta)`: grad_x with the shape and dtype of x (float64 for
        integers), the others float64 of shape `(C,)`.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, an empty batch, or a negative epsilon, weight or variance.

    Paper: section 3, the six equations for the gradients; here solved for grad_x.

    >>> x = [[1.0], [3.0]]
    >>> grad_x, grad_gamma, grad_beta = batch_norm_backward([[1.0], [0.0]], x, epsilon=0)
    >>> grad_x.ravel(), grad_gamma, grad_beta
    (array([0., 0.]), array([-1.]), array([1.]))
    """
    batch = as_weighted_batch(x, axis, axes, weights)
    grad_y = same_shape("grad_y", grad_y, batch.x)
    epsilon = as_epsilon(epsilon)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    grad_mean = per_channel_or_none("grad_mean", grad_mean, batch.where)
    grad_variance = per_channel_or_none("grad_variance", grad_variance, batch.where)
    if statistics is not None:
        mean, variance, *_ = statistics
        mean = per_channel("mean", mean, batch.where)
        statistics = mean, as_variance(variance, batch.where)
    grads = propagate(
        batch, grad_y, gamma, epsilon, statistics, grad_mean, grad_variance
    )
    return grads[0], *(grad.reshape(batch.features.channels) for grad in grads[1:])


@blocks.fast_way
def propagate(batch, grad_y, gamma, epsilon, statistics, grad_mean, grad_variance):
    """The closed form, on checked arguments; vectors are shaped to broadcast against x."""
    mean, variance = statistics or measure(batch)
    inverse = inverse_deviation(variance, epsilon)
    x_hat = centre_and_divide(batch, mean, inverse)
    hide(x_hat, batch.share)
    grad_gamma, grad_beta = sums(grad_y, x_hat, batch.features)

    share = 1 / batch.count if batch.share is None else batch.share
    if batch.features is batch.where:  # gamma can wait until the end
        grad_x = grad_y - (share * grad_beta + x_hat * (share * grad_gamma))
        grad_x *= inverse if gamma is None else inverse * gamma
    else:
        grad_x_hat = grad_y if gamma is None else grad_y * gamma
        along, level = sums(grad_x_hat, x_hat, batch.where)
        grad_x = grad_x_hat - share * (level + x_hat * along)
        grad_x *= inverse
    if grad_mean is not None:
        grad_x += share * grad_mean
    if grad_variance is not None:
        grad_x += 2 * share * grad_variance * hide(batch.x - mean, batch.share)
    return grad_x.astype(batch.x.dtype, copy=False), grad_gamma, grad_beta


def batch_norm_backward_staged(
    grad_y: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient step by step through the chapter's graph.

    Nine steps forward, the same nine backward. Slower than `batch_norm_backward` and equal to it.

    Args: grad_y, x, gamma, axis and epsilon, as `batch_norm_backward`; gamma must be given.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `batch_norm_backward`.

    Raises: as `batch_norm_backward`.

    Paper: section 3, the six equations for the gradients, each split into single operations.

    >>> batch_norm_backward_staged([[1.0], [0.0]], [[1.0], [3.0]], [1.0], epsilon=0)[2]
    array([1.])
    """
    batch = as_weighted_batch(x, axis, None, None)
    x, where, m = batch.x, batch.where, batch.count
    grad_y = same_shape("grad_y", grad_y, x)
    gamma = per_channel("gamma", gamma, where)
    epsilon = as_epsilon(epsilon)

    def total(values):
        return values.sum(axis=where.axes, dtype=wide(x.dtype), keepdims=True)

    mean, _ = measure(batch)  # 1
    centred = x - mean  # 2
    squares = centred**2  # 3
    variance = total(squares) / m  # 4
    root = np.sqrt(variance + epsilon)  # 5
    reciprocal = 1 / root  # 6
    x_hat = centred * reciprocal  # 7, then 8: gamma * x_hat, and 9: + beta

    grad_beta = total(grad_y)  # 9
    grad_scaled = grad_y  # 9
    grad_gamma = total(grad_scaled * x_hat)  # 8
    grad_x_hat = grad_scaled * gamma  # 8
    grad_reciprocal = total(grad_x_hat * centred)  # 7
    grad_centred = grad_x_hat * reciprocal  # 7, the direct path
    grad_root = -grad_reciprocal / root**2  # 6
    grad_variance = grad_root / (2 * root)  # 5
    grad_squares = grad_variance / m  # 4
    grad_centred += 2 * centred * grad_squares  # 3, the path through the variance
    grad_mean = -total(grad_centred)  # 2
    grad_x = grad_centred + grad_mean / m  # 1, the path through the mean
    grads = (grad.reshape(where.channels) for grad in (grad_gamma, grad_beta))
    return grad_x.astype(x.dtype), *grads


def batch_norm_inference_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    axes: Axis | None = None,
    epsilon: float = 1e-3,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient where the statistics are constants: inference mode.

        grad_x = grad_y * gamma / sqrt(variance + epsilon)

    Args:
        grad_y: gradient of the loss with respect to y, shape of x.
        x: shape `(N, ..., C)`.
        mean: shape `(C,)`.
        variance: shape `(C,)`.
        gamma: shape `(C,)`; None means 1.
        axis: as in the forward pass.
        axes: as in the forward pass.
        epsilon: as in the forward pass.

    Returns:
        `(grad_x, grad_gamma, grad_beta)`, as `batch_norm_backward`.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when shapes do not fit, or variance or epsilon is negative.

    Paper: the derivative of Algorithm 2, line 11. This is what a frozen layer does in fine-tuning.

    >>> batch_norm_inference_backward([[2.0]], [[5.0]], [1.0], [4.0], epsilon=0)
    (array([[1.]]), array([4.]), array([2.]))
    """
    batch = as_batch("x", x, axis, axes)
    grad_y = same_shape("grad_y", grad_y, batch.x)
    mean = per_channel("mean", mean, batch.where)
    inverse = inverse_deviation(as_variance(variance, batch.where), as_epsilon(epsilon))
    gamma = per_channel_or_none("gamma", gamma, batch.features)

    x_hat = centre_and_divide(batch, mean, inverse)
    grad_gamma, grad_beta = sums(grad_y, x_hat, batch.features)
    grad_x = grad_y * inverse if gamma is None else grad_y * (inverse * gamma)
    grads = (grad.reshape(batch.features.channels) for grad in (grad_gamma, grad_beta))
    return grad_x.astype(batch.x.dtype, copy=False), *grads


def hide(values, share):
    """Put 0 where a weight of 0 hides NaN or infinity."""
    if share is not None:
        values[(share == 0) & ~np.isfinite(values)] = 0
    return values


def sums(grad, x_hat, where):
    """Add up `grad * x_hat` and `grad` in float64, shaped to broadcast against x."""
    products, dtype = grad * x_hat, x_hat.dtype
    return tuple(
        np.add.reduce(values, axis=where.axes, dtype=dtype, keepdims=True)
        for values in (products, grad)
    )
