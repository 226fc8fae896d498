"""Norms that divide by the root mean square: the same formula with the mean held at 0.

The mean of the squares is `variance + mean^2`, so `bnlib.moments` measures it.
"""

import numpy as np

from bnlib._batch import as_weighted_batch
from bnlib._checks import as_epsilon, as_floating, per_channel_or_none, same_shape
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.gradient import sums
from bnlib.moments import measure
from bnlib.transform import centre_and_divide, inverse_deviation, multiply_and_add
from bnlib.variants._checks import space

__all__: list[str] = []


def rms_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-6,
) -> Array:
    """Divide each example by its root mean square, then scale: layer norm without the mean.

        y = gamma * x / sqrt(mean(x^2) + epsilon)

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        gamma: the shape of the normalised axes, in ascending order; None means 1.
        axis: the axis, or tuple of axes, averaged over: gamma runs along the same ones.
        epsilon: guard inside the root. The paper's formula has none, and its code adds 1e-8 outside
            of the root. 1e-6 is Keras's, Flax's and T5's; PyTorch's is the resolution of the dtype,
            1.2e-7 for float32, and ONNX's 1e-5.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, nothing to average, or a negative epsilon.

    Paper: Zhang and Sennrich (2019), section 4, equation 4.

    >>> rms_norm([[1.0, 7.0]], epsilon=0)
    array([[0.2, 1.4]])
    """
    batch, _, x_hat = _divided(x, axis, axis, epsilon)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    return multiply_and_add(x_hat, gamma, None).astype(batch.x.dtype, copy=False)


def rms_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-6,
) -> tuple[Array, Array]:
    """Propagate a loss gradient through `rms_norm`.

        g      = gamma * grad_y
        grad_x = (g - x_hat * mean(g * x_hat)) / sqrt(mean(x^2) + epsilon)

    Layer norm's, without the term of the mean.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: `(grad_x, grad_gamma)`: grad_x with the shape and dtype of x, grad_gamma float64.

    Raises: as `rms_norm`.

    >>> grad_x, grad_gamma = rms_norm_backward([[5.0, 0.0]], [[1.0, 7.0]], epsilon=0)
    >>> grad_x, grad_gamma
    (array([[ 0.98, -0.14]]), array([1., 0.]))
    """
    batch, inverse, x_hat = _divided(x, axis, axis, epsilon)
    grad_y = same_shape("grad_y", grad_y, batch.x)
    gamma = per_channel_or_none("gamma", gamma, batch.features)
    grad_gamma, _ = sums(grad_y, x_hat, batch.features)
    grad_x = _propagate(batch, grad_y, gamma, inverse, x_hat)
    return grad_x, grad_gamma.reshape(batch.features.channels)


def _divided(x, axis, axes, epsilon):
    """Return the batch, 1 / its root mean square, and x_hat in float64."""
    batch, epsilon = as_weighted_batch(x, axis, axes, None), as_epsilon(epsilon)
    mean, variance = measure(batch)
    inverse = inverse_deviation(variance + mean * mean, epsilon)
    return batch, inverse, centre_and_divide(batch, 0, inverse)


def _propagate(batch, grad_y, gamma, inverse, x_hat):
    """Return the gradient with respect to x."""
    grad_x_hat = grad_y if gamma is None else grad_y * gamma
    along, _ = sums(grad_x_hat, x_hat, batch.where)
    grad_x = (grad_x_hat - x_hat * (along / batch.count)) * inverse
    return grad_x.astype(batch.x.dtype, copy=False)


def pixel_norm(x: ArrayLike, *, axis: Axis = -1, epsilon: float = 1e-8) -> Array:
    """Divide each pixel by the root mean square of its channels.

    It is `rms_norm` over the channels, without gamma, at each place by itself.

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        axis: the axis of the channels.
        epsilon: guard inside the root; the paper's 1e-8.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for nothing to average, or a negative epsilon.

    Paper: Karras, Aila, Laine and Lehtinen (2018), section 4.2.

    >>> pixel_norm([[1.0, 7.0], [-2.0, 14.0]], epsilon=0)
    array([[ 0.2,  1.4],
           [-0.2,  1.4]])
    """
    return rms_norm(x, axis=axis, epsilon=epsilon)


def pixel_norm_backward(
    grad_y: ArrayLike, x: ArrayLike, *, axis: Axis = -1, epsilon: float = 1e-8
) -> Array:
    """Propagate a loss gradient through `pixel_norm`.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: grad_x alone, with the shape and dtype of x: nothing is learned here.

    Raises: as `pixel_norm`.

    >>> pixel_norm_backward([[5.0, 0.0]], [[1.0, 7.0]], epsilon=0)
    array([[ 0.98, -0.14]])
    """
    return rms_norm_backward(grad_y, x, axis=axis, epsilon=epsilon)[0]


def filter_response_norm(
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    tau: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-6,
) -> Array:
    """Divide each channel of each example by its root mean square over space; then a threshold.

        y = max(gamma * x / sqrt(mean(x^2) + epsilon) + beta, tau)

    Instance norm without the mean. The thresholded linear unit (TLU) that follows stands for the
    ReLU: where nothing centres x, 0 is no natural threshold, so tau is learned.

    Args:
        x: shape `(N, ..., C)`, with at least one axis of space.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        tau: shape `(C,)`; None leaves the threshold out. Zeros make it a ReLU.
        axis: the axis, or tuple of axes, of the channels.
        epsilon: guard inside the root; the paper's 1e-6. Where space is one place the paper learns
            it, from 1e-4: with 1e-6, only the sign of x would be left.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, no axis of space, or a negative epsilon.

    Paper: Singh and Krishnan (2020), section 3.

    >>> x = [[[1.0], [7.0]]]  # one example, two places, one channel
    >>> filter_response_norm(x, tau=[0.5], epsilon=0).ravel()
    array([0.5, 1.4])
    """
    batch, _, x_hat = _over_space(x, axis, epsilon)
    _, y, tau = _before_threshold(batch, x_hat, gamma, beta, tau)
    return np.maximum(y, tau).astype(batch.x.dtype, copy=False)


def filter_response_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    tau: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-6,
) -> tuple[Array, Array, Array, Array]:
    """Propagate a loss gradient through `filter_response_norm`.

    Where y lies below the threshold, the gradient is tau's; elsewhere, and where the two are equal,
    it goes on as in `rms_norm_backward`. What the threshold hides depends on beta: give it too.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns:
        `(grad_x, grad_gamma, grad_beta, grad_tau)`: grad_x with the shape and dtype of x, the
        others float64 of shape `(C,)`.

    Raises: as `filter_response_norm`.

    >>> grad_y, x = [[[1.0], [2.0]]], [[[1.0], [7.0]]]
    >>> filter_response_norm_backward(grad_y, x, tau=[0.5], epsilon=0)[1:]
    (array([2.8]), array([2.]), array([1.]))
    """
    batch, inverse, x_hat = _over_space(x, axis, epsilon)
    grad_y = same_shape("grad_y", grad_y, batch.x)
    gamma, y, tau = _before_threshold(batch, x_hat, gamma, beta, tau)
    hidden = y < tau
    _, grad_tau = sums(np.where(hidden, grad_y, 0), x_hat, batch.features)
    grad_y = np.where(hidden, 0, grad_y)
    grad_gamma, grad_beta = sums(grad_y, x_hat, batch.features)
    grad_x = _propagate(batch, grad_y, gamma, inverse, x_hat)
    grads = grad_gamma, grad_beta, grad_tau
    return grad_x, *(grad.reshape(batch.features.channels) for grad in grads)


def _over_space(x, axis, epsilon):
    x = as_floating("x", x)
    return _divided(x, axis, space(x.shape, axis), epsilon)


def _before_threshold(batch, x_hat, gamma, beta, tau):
    """Check what is learned; return gamma, what the threshold is laid on, and tau."""
    gamma, beta, tau = (
        per_channel_or_none(name, value, batch.features)
        for name, value in (("gamma", gamma), ("beta", beta), ("tau", tau))
    )
    y = multiply_and_add(x_hat.copy(), gamma, beta)
    return gamma, y, -np.inf if tau is None else tau
