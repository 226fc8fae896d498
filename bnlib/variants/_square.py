"""Norms that divide by the root mean square: the same formula with the mean held at 0.

The mean of the squares is `variance + mean^2`, so `bnlib.moments` measures it.
"""

from bnlib._batch import as_weighted_batch
from bnlib._checks import as_epsilon, per_channel_or_none, same_shape
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.gradient import sums
from bnlib.moments import measure
from bnlib.transform import centre_and_divide, inverse_deviation, multiply_and_add

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
