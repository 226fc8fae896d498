"""Dynamic tanh: what stands in a norm's place and measures nothing."""

import numpy as np

from bnlib._batch import as_batch
from bnlib._checks import as_floating, per_channel_or_none, same_shape, wide
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.gradient import sums
from bnlib.transform import multiply_and_add

__all__: list[str] = []


def dynamic_tanh(
    x: ArrayLike,
    alpha: float = 0.5,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
) -> Array:
    """Squeeze each value by a tanh of learned steepness, then scale and shift.

        y = gamma * tanh(alpha * x) + beta

    No value looks at another, so there is nothing to average, and no epsilon.

    Args:
        x: shape `(N, ..., C)`, any real dtype. It may be empty.
        alpha: one learned number; the paper begins with 0.5, but tunes it for large language
            models.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, of gamma and beta.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, or an alpha that is not one number.

    Paper: Zhu, Chen, He, LeCun and Liu (2025), section 4.

    >>> dynamic_tanh([[0.0, 1.0, 1000.0]]).round(3)
    array([[0.   , 0.462, 1.   ]])
    """
    batch, alpha = as_batch("x", x, axis, None), _as_alpha(alpha)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    beta = per_channel_or_none("beta", beta, batch.features)
    y = multiply_and_add(_squeezed(batch, alpha), gamma, beta)
    return y.astype(batch.x.dtype, copy=False)


def dynamic_tanh_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    alpha: float = 0.5,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
) -> tuple[Array, float, Array, Array]:
    """Propagate a loss gradient through `dynamic_tanh`.

        slope      = gamma * grad_y * (1 - tanh(alpha * x)^2)
        grad_x     = alpha * slope
        grad_alpha = sum(slope * x)

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns:
        `(grad_x, grad_alpha, grad_gamma, grad_beta)`: grad_x with the shape and dtype of x,
        grad_alpha one number, the others float64 of the shape of gamma.

    Raises: as `dynamic_tanh`.

    >>> dynamic_tanh_backward([[1.0, 1.0]], [[0.0, 1000.0]])
    (array([[0.5, 0. ]]), 0.0, array([0., 1.]), array([1., 1.]))
    """
    batch, alpha = as_batch("x", x, axis, None), _as_alpha(alpha)
    grad_y = same_shape("grad_y", grad_y, batch.x)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    squeezed = _squeezed(batch, alpha)
    grads = sums(grad_y, squeezed, batch.features)
    slope = (grad_y if gamma is None else grad_y * gamma) * (1 - squeezed * squeezed)
    grad_x = (alpha * slope).astype(batch.x.dtype, copy=False)
    grads = (grad.reshape(batch.features.channels) for grad in grads)
    return grad_x, float(np.sum(slope * batch.x)), *grads


def _squeezed(batch, alpha):
    return np.tanh(alpha * batch.x.astype(wide(batch.x.dtype)))


def _as_alpha(alpha):
    alpha = as_floating("alpha", alpha)
    if alpha.ndim:
        raise ValueError(
            f"alpha must be one number for the whole layer; got shape {alpha.shape}. "
            "What differs from channel to channel is gamma."
        )
    return float(alpha)
