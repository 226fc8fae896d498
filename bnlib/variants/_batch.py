"""Batch norm of parts of a batch, and batch norm brought close to the population's."""

import math
from numbers import Real

import numpy as np

from bnlib._checks import (
    as_epsilon,
    as_floating,
    as_variance,
    per_channel,
    same_shape,
)
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.axes import layout
from bnlib.gradient import batch_norm_backward
from bnlib.moments import Moments, moments
from bnlib.transform import batch_norm, batch_norm_inference
from bnlib.variants._checks import as_channels, as_divisor

__all__: list[str] = []


def ghost_batch_norm(
    x: ArrayLike,
    size: int,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> Array:
    """Cut a batch into ghosts of so many examples, and batch-normalise each apart.

    What each replica does when batch norm is not synchronised, on one device. `virtual_batch_size`
    of TensorFlow 1 and of `bnlib.keras` cuts otherwise: every (N / size)th example is in one ghost.

    Args:
        x: shape `(N, ..., C)`, the examples on axis 0.
        size: examples in a ghost, neighbours in x; must divide N. The paper's is 128.
        gamma: shape `(C,)`, the same for all ghosts; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, of the channels.
        epsilon: guard inside the root; 1e-3, as `bnlib.batch_norm`. The paper gives no value.

    Returns:
        y, shape and dtype of x (float64 for integers).

    Raises:
        TypeError: when an argument does not hold real numbers, or size is no integer.
        ValueError: for a wrong shape, a size that does not divide N, or a negative epsilon.

    Paper: Hoffer, Hubara and Soudry (2017), algorithm 1, training phase.

    >>> ghost_batch_norm([[1.0], [3.0], [10.0], [50.0]], size=2, epsilon=0).ravel()
    array([-1.,  1., -1.,  1.])
    """
    x = as_floating("x", x)
    split, options = _haunted(x.shape, size, axis)
    y, *_ = batch_norm(x.reshape(split), gamma, beta, epsilon=epsilon, **options)
    return y.reshape(x.shape)


def ghost_batch_norm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    size: int,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `ghost_batch_norm`.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: `(grad_x, grad_gamma, grad_beta)`, as `bnlib.batch_norm_backward`.

    Raises: as `ghost_batch_norm`.

    >>> x = [[-1.0], [0.0], [1.0], [7.0], [8.0], [9.0]]
    >>> grad_y = [[0.0], [1.0], [5.0], [1.0], [1.0], [1.0]]
    >>> ghost_batch_norm_backward(grad_y, x, 3, epsilon=0)[0].ravel().round(3) + 0
    array([ 0.612, -1.225,  0.612,  0.   ,  0.   ,  0.   ])
    """
    x = as_floating("x", x)
    grad_y = same_shape("grad_y", grad_y, x)
    split, options = _haunted(x.shape, size, axis)
    grad_x, *grads = batch_norm_backward(
        grad_y.reshape(split), x.reshape(split), gamma, epsilon=epsilon, **options
    )
    return grad_x.reshape(x.shape), *grads


def _haunted(shape, size, axis):
    """Split the examples in two axes, ghosts and members; say what batch norm then does."""
    channels = tuple(a + 1 for a in as_channels(axis, len(shape)))
    size = as_divisor("size", size, shape[0], "examples")
    split = shape[0] // size, size, *shape[1:]
    averaged = tuple(a for a in range(1, len(split)) if a not in channels)
    return split, {"axis": channels, "axes": averaged}


def batch_renorm(
    x: ArrayLike,
    moving_mean: ArrayLike,
    moving_variance: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
    rmax: float = 3.0,
    rmin: float | None = None,
    dmax: float = 5.0,
) -> tuple[Array, Moments]:
    """Normalise by the batch, then go over to the statistics of the population, within limits.

        sigma = sqrt(variance + epsilon), and moving_sigma likewise
        r = clip(sigma / moving_sigma, rmin, rmax)
        d = clip((mean - moving_mean) / moving_sigma, -dmax, dmax)
        y = gamma * ((x - mean) / sigma * r + d) + beta

    It is batch norm with `gamma * r` and `gamma * d + beta`. With `rmax=1, dmax=0` it is plain
    batch norm; where no limit is met y is that of inference. The gradient takes r and d as
    constants.

    Args:
        x: shape `(N, ..., C)`, any real dtype.
        moving_mean: shape `(C,)`, as before this batch; what comes back updates it.
        moving_variance: likewise. The paper and Keras's layer keep a moving deviation instead:
            its square, less epsilon, belongs here.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        axis: the axis, or tuple of axes, of the channels.
        epsilon: guard inside both roots; Keras's default 1e-3.
        rmax: upper limit of r. The paper begins with 1 and ends with 3.
        rmin: lower limit of r; None is 1 / rmax, as in the paper. Keras has none unless it is
            named.
        dmax: limit of d. The paper begins with 0 and ends with 5. `math.inf` is no limit.

    Returns:
        `(y, moments)`: y with the shape and dtype of x (float64 for integers), and the batch's own
        `Moments`.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, an empty batch, a negative epsilon or variance, or limits
            that leave nothing between them.

    Paper: Ioffe (2017), algorithm 1.

    >>> y, batch = batch_renorm([[1.0], [3.0]], moving_mean=[0.0], moving_variance=[4.0], epsilon=0)
    >>> y.ravel(), batch.mean
    (array([0.5, 1.5]), array([2.]))
    """
    population, limits = (moving_mean, moving_variance), (rmax, rmin, dmax)
    batch, r, d = _correction(x, axis, population, epsilon, limits)
    gamma, beta = _renormed(x, axis, gamma, beta, r, d)
    options = {"axis": axis, "epsilon": epsilon}
    y = batch_norm_inference(x, batch.mean, batch.variance, gamma, beta, **options)
    return y, batch


def batch_renorm_backward(
    grad_y: ArrayLike,
    x: ArrayLike,
    moving_mean: ArrayLike,
    moving_variance: ArrayLike,
    gamma: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-3,
    rmax: float = 3.0,
    rmin: float | None = None,
    dmax: float = 5.0,
) -> tuple[Array, Array, Array]:
    """Propagate a loss gradient through `batch_renorm`, with r and d held constant.

        grad_beta  = sum(grad_y)
        grad_gamma = sum(grad_y * (x_hat * r + d))
        grad_x     = that of batch norm, for gamma * r

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns:
        `(grad_x, grad_gamma, grad_beta)`, as `bnlib.batch_norm_backward`. The moving statistics get
        none.

    Raises: as `batch_renorm`.

    Paper: Ioffe (2017), section 3, the equations after algorithm 1.

    >>> batch_renorm_backward([[1.0], [0.0]], [[1.0], [3.0]], [0.0], [4.0], epsilon=0)[1:]
    (array([0.5]), array([1.]))
    """
    population, limits = (moving_mean, moving_variance), (rmax, rmin, dmax)
    batch, r, d = _correction(x, axis, population, epsilon, limits)
    scale, _ = _renormed(x, axis, gamma, None, r, d)
    options = {"axis": axis, "epsilon": epsilon, "statistics": batch}
    grad_x, along, grad_beta = batch_norm_backward(grad_y, x, scale, **options)
    return grad_x, r * along + d * grad_beta, grad_beta


def _correction(x, axis, population, epsilon, limits):
    """Return the moments of the batch, and r and d of each channel."""
    batch, where = moments(x, axis=axis), layout(np.shape(x), axis)
    mean, variance = (
        per_channel(name, value, where).reshape(where.channels)
        for name, value in zip(
            ("moving_mean", "moving_variance"), population, strict=True
        )
    )
    as_variance(variance, where)  # not negative
    epsilon = as_epsilon(epsilon)
    moving_sigma = np.sqrt(variance + epsilon)
    r = np.sqrt(batch.variance + epsilon) / moving_sigma
    d = (batch.mean - mean) / moving_sigma
    rmin, rmax, dmax = _as_limits(*limits)
    return batch, np.clip(r, rmin, rmax), np.clip(d, -dmax, dmax)


def _as_limits(rmax, rmin, dmax):
    """Return the limits in the order of size, rmin filled in."""
    rmax, dmax = _as_limit("rmax", rmax), _as_limit("dmax", dmax)
    rmin = (1 / rmax if rmax else math.inf) if rmin is None else _as_limit("rmin", rmin)
    if rmin > rmax:
        raise ValueError(
            f"rmax must be at least rmin, which is 1 / rmax where it is not given; got rmax={rmax} "
            f"and rmin={rmin:g}. Use rmax=1 to leave the scale to the batch."
        )
    return rmin, rmax, dmax


def _as_limit(name, value):
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(
            f"{name} must be one real number; got {value!r}. Use math.inf for no limit."
        )
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0; got {value}.")
    return float(value)


def _renormed(x, axis, gamma, beta, r, d):
    """Return the gamma and beta with which batch norm is batch renorm."""
    where = layout(np.shape(x), axis)
    gamma, beta = (
        default
        if value is None
        else per_channel(name, value, where).reshape(where.channels)
        for name, value, default in (("gamma", gamma, 1), ("beta", beta, 0))
    )
    return gamma * r, gamma * d + beta
