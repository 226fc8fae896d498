"""The backward pass of batch normalization: nine small steps, and the closed form they add up to.

The mean and the variance depend on every x of their channel, so each x reaches the loss by three
roads: through its own x_hat, through the mean, and through the variance. Whoever treats the
statistics as constants keeps only the first.
"""

import numpy as np

from bnlib import blocks
from bnlib._checks import as_epsilon, as_floating, per_channel, same_shape, wide
from bnlib._typing import Array, ArrayLike, Axis, Statistics
from bnlib.axes import layout
from bnlib.moments import moments, shares
from bnlib.transform import multiplier, normalize

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

    With weights, 1 / m becomes each value's share of the total weight.

    Args:
        grad_y: gradient of the loss with respect to y, shape of x.
        x: the input that the forward pass saw, shape `(N, ..., C)`.
        gamma: shape `(C,)`; None means 1.
        axis: the axis, or tuple of axes, that is kept.
        epsilon: as in the forward pass.
        weights: as in the forward pass.
        statistics: `(mean, variance)` or `Moments`, which the forward pass returned; None computes
            them again. Those of another batch cannot be told, and give a wrong gradient.
        grad_mean: gradient with respect to the returned mean, shape `(C,)`, if the loss uses it.
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
    x = as_floating("x", x)
    grad_y = same_shape("grad_y", grad_y, x)
    where = layout(x.shape, axis)
    share, count = shares(weights, x.shape, where)
    statistics = None if statistics is None else tuple(statistics[:2])
    if share is None and blocks.suits(x, where):
        vectors = statistics, gamma, grad_mean, grad_variance
        fast = blocks.backward(grad_y, x, where, as_epsilon(epsilon), *vectors)
        if fast is not None:
            return fast
    mean, variance = statistics or moments(x, axis=axis, weights=weights)[:2]
    x_hat = _x_hat(x, mean, variance, axis, epsilon, share)
    share = 1 / count if share is None else share

    grad_gamma, grad_beta = _parameter_gradients(grad_y, x_hat, where)
    grad_x = grad_y - share * (grad_beta + x_hat * grad_gamma)
    grad_x *= multiplier(gamma, variance, epsilon, where)
    if grad_mean is not None:
        grad_x += share * per_channel("grad_mean", grad_mean, where)
    if grad_variance is not None:
        slope = 2 * share * per_channel("grad_variance", grad_variance, where)
        grad_x += slope * (x - np.reshape(mean, where.broadcast))
    return grad_x.astype(x.dtype), _flat(grad_gamma, where), _flat(grad_beta, where)


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

    Args: as `batch_norm_backward`, without weights; gamma must be given.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `batch_norm_backward`.

    Raises: as `batch_norm_backward`.

    Paper: section 3, the six equations for the gradients, each split into single operations.

    >>> batch_norm_backward_staged([[1.0], [0.0]], [[1.0], [3.0]], [1.0], epsilon=0)[2]
    array([1.])
    """
    x = as_floating("x", x)
    grad_y = same_shape("grad_y", grad_y, x)
    where = layout(x.shape, axis)
    gamma = per_channel("gamma", gamma, where)
    m = shares(None, x.shape, where)[1]

    def total(values):
        return values.sum(axis=where.axes, dtype=wide(x.dtype), keepdims=True)

    mean = moments(x, axis=axis).mean.reshape(where.broadcast)  # 1
    centred = x - mean  # 2
    squares = centred**2  # 3
    variance = total(squares) / m  # 4
    root = np.sqrt(variance + as_epsilon(epsilon))  # 5
    inverse = 1 / root  # 6
    x_hat = centred * inverse  # 7, then 8: gamma * x_hat, and 9: + beta

    grad_beta = total(grad_y)  # 9
    grad_scaled = grad_y  # 9
    grad_gamma = total(grad_scaled * x_hat)  # 8
    grad_x_hat = grad_scaled * gamma  # 8
    grad_inverse = total(grad_x_hat * centred)  # 7
    grad_centred = grad_x_hat * inverse  # 7, the first road
    grad_root = -grad_inverse / root**2  # 6
    grad_variance = grad_root / (2 * root)  # 5
    grad_squares = grad_variance / m  # 4
    grad_centred += 2 * centred * grad_squares  # 3, the road through the variance
    grad_mean = -total(grad_centred)  # 2
    grad_x = grad_centred + grad_mean / m  # 1, the road through the mean
    return grad_x.astype(x.dtype), _flat(grad_gamma, where), _flat(grad_beta, where)


def batch_norm_inference_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
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
        axis: the axis, or tuple of axes, that is kept.
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
    x = as_floating("x", x)
    grad_y = same_shape("grad_y", grad_y, x)
    where = layout(x.shape, axis)
    x_hat = _x_hat(x, mean, variance, axis, epsilon)
    grad_gamma, grad_beta = _parameter_gradients(grad_y, x_hat, where)
    grad_x = grad_y * multiplier(gamma, variance, epsilon, where)
    return grad_x.astype(x.dtype), _flat(grad_gamma, where), _flat(grad_beta, where)


def _x_hat(x, mean, variance, axis, epsilon, share=None):
    """Normalise in float64; what a weight of 0 hides becomes 0."""
    x = x.astype(wide(x.dtype))
    x_hat = normalize(x, mean, variance, axis=axis, epsilon=epsilon)
    if share is None:
        return x_hat
    return np.where((share == 0) & ~np.isfinite(x_hat), 0, x_hat)


def _parameter_gradients(grad_y, x_hat, where):
    """Sum over the batch: `(grad_gamma, grad_beta)`, shaped to broadcast."""
    grad_gamma = (grad_y * x_hat).sum(axis=where.axes, keepdims=True)
    grad_beta = grad_y.sum(axis=where.axes, dtype=x_hat.dtype, keepdims=True)
    return grad_gamma, grad_beta


def _flat(statistic, where):
    return statistic.reshape(where.channels)
