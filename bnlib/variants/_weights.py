"""Norms of weights: they change the kernel, and never see a batch."""

import operator

import numpy as np

from bnlib._checks import as_epsilon, as_floating, per_channel, same_shape, wide
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.axes import canonical_axes, layout
from bnlib.gradient import batch_norm_backward
from bnlib.transform import batch_norm

__all__: list[str] = []


def weight_norm(v: ArrayLike, g: ArrayLike, *, axis: Axis = -1) -> Array:
    """Give each output's weights a length of their own: direction and length learned apart.

        kernel = g * v / |v|

    Args:
        v: the direction, a kernel `(..., inputs, outputs)`; its length does not matter.
        g: the lengths, one for each output; shape `(outputs,)`. `|v|` leaves the kernel as it is.
        axis: the axis of the outputs: -1 in Keras; 0 in PyTorch, whose `dim` it is.

    Returns:
        The kernel, shape and dtype of v.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, or an output whose weights are all 0.

    Paper: Salimans and Kingma (2016), equation 2.

    >>> weight_norm([[3.0, 0.0], [4.0, 2.0]], [10.0, 1.0])
    array([[6., 0.],
           [8., 1.]])
    """
    v, g, _, direction = _directed(v, g, axis)
    return (g * direction).astype(v.dtype, copy=False)


def weight_norm_backward(
    grad_kernel: ArrayLike, v: ArrayLike, g: ArrayLike, *, axis: Axis = -1
) -> tuple[Array, Array]:
    """Propagate a loss gradient through `weight_norm`.

        grad_g = sum(grad_kernel * v) / |v|
        grad_v = g / |v| * (grad_kernel - grad_g * v / |v|)

    grad_v is at right angles to v, so that each step of gradient descent makes v longer.

    Args: grad_kernel, the gradient with respect to the kernel; the others as in the forward pass.

    Returns: `(grad_v, grad_g)`: grad_v with the shape and dtype of v, grad_g float64.

    Raises: as `weight_norm`.

    Paper: Salimans and Kingma (2016), equation 3.

    >>> weight_norm_backward([[5.0], [0.0]], [[3.0], [4.0]], [10.0])
    (array([[ 6.4],
           [-4.8]]), array([3.]))
    """
    v, g, length, direction = _directed(v, g, axis)
    grad_kernel = same_shape("grad_kernel", grad_kernel, v)
    where = layout(v.shape, axis)
    grad_g = _total(grad_kernel * direction, where)
    grad_v = g / length * (grad_kernel - grad_g * direction)
    return grad_v.astype(v.dtype, copy=False), grad_g.reshape(where.channels)


def weight_standardization(
    kernel: ArrayLike, *, axis: Axis = -1, epsilon: float = 1e-5
) -> Array:
    """Give each output's weights mean 0 and variance 1: `batch_norm` of the kernel.

    Args:
        kernel: shape `(..., inputs, outputs)`.
        axis: the axis of the outputs: -1 in Keras, 0 in PyTorch.
        epsilon: guard inside the root. The authors' code adds 1e-5 to the deviation, outside of the
            root, and takes Bessel's variance.

    Returns:
        The standardised kernel, shape and dtype of kernel.

    Raises:
        TypeError: when kernel does not hold real numbers.
        ValueError: for a kernel without inputs, or a negative epsilon.

    Paper: Qiao, Wang, Liu, Shen and Yuille (2019).

    >>> weight_standardization([[1.0, 10.0], [3.0, 50.0]], epsilon=0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    kernel, _ = _as_kernel(kernel, axis)
    return batch_norm(kernel, axis=axis, epsilon=epsilon)[0]


def weight_standardization_backward(
    grad_y: ArrayLike, kernel: ArrayLike, *, axis: Axis = -1, epsilon: float = 1e-5
) -> Array:
    """Propagate a loss gradient through `weight_standardization`.

    Args: grad_y, the gradient with respect to the new kernel; the others as in the forward pass.

    Returns: grad_kernel alone, with the shape and dtype of kernel.

    Raises: as `weight_standardization`.

    >>> grad_y, kernel = [[0.0], [1.0], [5.0]], [[-1.0], [0.0], [1.0]]
    >>> weight_standardization_backward(grad_y, kernel, epsilon=0).ravel().round(3)
    array([ 0.612, -1.225,  0.612])
    """
    kernel, _ = _as_kernel(kernel, axis)
    return batch_norm_backward(grad_y, kernel, axis=axis, epsilon=epsilon)[0]


def scaled_weight_standardization(
    kernel: ArrayLike,
    gain: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-4,
) -> Array:
    """Give each output's weights mean 0 and sum of squares `gain^2`: for nets without norms.

        y = gain * (kernel - mean) / sqrt(fan_in * variance + epsilon)

    Inputs of variance 1 then give outputs of variance `gain^2`. The gain that makes up for a ReLU
    is `sqrt(2 / (1 - 1 / pi))`, about 1.71.

    Args:
        kernel: shape `(..., inputs, outputs)`.
        gain: one number, or one for each output, shape `(outputs,)`; None means 1.
        axis: the axis of the outputs: -1 in Keras, 0 in PyTorch.
        epsilon: guard inside the root. The authors' code has 1e-4 too, and takes the larger of it
            and `fan_in * variance` instead of the sum.

    Returns:
        The kernel to use, shape and dtype of kernel.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: for a wrong shape, a kernel without inputs, or a negative epsilon.

    Paper: Brock, De and Smith (2021), "Characterizing signal propagation to close the performance
    gap in unnormalized ResNets"; a learned gain is in their "High-performance large-scale image
    recognition without normalization", with Simonyan.

    >>> scaled_weight_standardization([[1.0], [3.0], [1.0], [3.0]], 2.0, epsilon=0).ravel()
    array([-1.,  1., -1.,  1.])
    """
    kernel, gamma, options, _ = _scaled(kernel, gain, axis, epsilon)
    return batch_norm(kernel, gamma, **options)[0]


def scaled_weight_standardization_backward(
    grad_y: ArrayLike,
    kernel: ArrayLike,
    gain: ArrayLike | None = None,
    *,
    axis: Axis = -1,
    epsilon: float = 1e-4,
) -> tuple[Array, Array]:
    """Propagate a loss gradient through `scaled_weight_standardization`.

    Args: grad_y, the gradient with respect to the kernel to use; the others as in the forward pass.

    Returns: `(grad_kernel, grad_gain)`; grad_gain has the shape of gain, `(outputs,)` for None.

    Raises: as `scaled_weight_standardization`.

    >>> kernel, grad_y = [[1.0], [3.0], [1.0], [3.0]], [[0.0], [1.0], [0.0], [0.0]]
    >>> scaled_weight_standardization_backward(grad_y, kernel, [2.0], epsilon=0)[1]
    array([0.5])
    """
    kernel, gamma, options, root = _scaled(kernel, gain, axis, epsilon)
    grad_kernel, grad_gamma, _ = batch_norm_backward(grad_y, kernel, gamma, **options)
    for_each = gain is None or np.ndim(gain)
    return grad_kernel, (grad_gamma if for_each else np.sum(grad_gamma)) / root


def spectral_norm(
    kernel: ArrayLike, u: ArrayLike, *, axis: Axis = -1, steps: int = 1
) -> tuple[Array, Array]:
    """Divide a kernel by its largest singular value, which power iteration estimates.

    With W the kernel as a matrix `(outputs, inputs)`, each step is

        v = W' u / |W' u|        u = W v / |W v|

    and the singular value is `u' W v`. The estimate is never too large. Keep u for the next call:
    the weights move little between calls, so one step each is enough.

    Args:
        kernel: shape `(..., inputs, outputs)`; all axes but the outputs' count as inputs.
        u: shape `(outputs,)`; at first random normal numbers.
        axis: the axis of the outputs: -1 in Keras, 0 in PyTorch.
        steps: of the power iteration; the paper's 1.

    Returns:
        `(y, u)`: the kernel divided, with its shape and dtype; and the new u, float64 of length 1.

    Raises:
        TypeError: when an argument does not hold real numbers, or steps is no integer.
        ValueError: for a wrong shape, fewer steps than 1, or a kernel that takes u to 0.

    Paper: Miyato, Kataoka, Koyama and Yoshida (2018), algorithm 1.

    >>> y, u = spectral_norm([[3.0, 0.0], [0.0, 4.0]], [1.0, 1.0], steps=50)
    >>> y.round(6), u.round(6)
    (array([[0.75, 0.  ],
           [0.  , 1.  ]]), array([0., 1.]))
    """
    kernel, _ = _as_kernel(kernel, axis)
    sigma, u, _ = _power_iteration(_as_matrix(kernel, axis), u, steps)
    return (kernel / sigma).astype(kernel.dtype, copy=False), u


def spectral_norm_backward(
    grad_y: ArrayLike,
    kernel: ArrayLike,
    u: ArrayLike,
    *,
    axis: Axis = -1,
    steps: int = 1,
) -> Array:
    """Propagate a loss gradient through `spectral_norm`, with u and v held constant.

        grad_kernel = (grad_y - sum(grad_y * y) * u v') / sigma

    The first singular vectors are where the singular value is largest, so that they may be held
    constant once the iteration has found them; before that this is no more than near the gradient.
    u is the one that went in, not the new one.

    Args: grad_y, the gradient with respect to y; the others as in the forward pass.

    Returns: grad_kernel alone, with the shape and dtype of kernel.

    Raises: as `spectral_norm`.

    Paper: Miyato, Kataoka, Koyama and Yoshida (2018), equations 10 to 12.

    >>> grad_y, kernel = [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [0.0, 4.0]]
    >>> spectral_norm_backward(grad_y, kernel, [1.0, 1.0], steps=50).round(4) + 0
    array([[ 0.25  ,  0.    ],
           [ 0.    , -0.1875]])
    """
    kernel, _ = _as_kernel(kernel, axis)
    grad_y = same_shape("grad_y", grad_y, kernel)
    sigma, u, v = _power_iteration(_as_matrix(kernel, axis), u, steps)
    outer = np.multiply.outer(v, u).reshape(_moved(kernel, axis).shape)
    outer = np.moveaxis(outer, -1, canonical_axes("axis", axis, kernel.ndim)[0])
    along = np.sum(grad_y * (kernel / sigma), dtype=outer.dtype)
    return ((grad_y - along * outer) / sigma).astype(kernel.dtype, copy=False)


def _as_kernel(kernel, axis):
    """Check a kernel; return it and the number of inputs of each output."""
    kernel = as_floating("kernel", kernel)
    where = layout(kernel.shape, axis)
    fan_in = int(np.prod([kernel.shape[a] for a in where.axes]))
    if not where.axes or not fan_in:
        raise ValueError(
            f"kernel must have inputs beside the outputs on axis {where.axis}; got shape "
            f"{kernel.shape}. Use axis=-1 for Keras's kernels, 0 for PyTorch's."
        )
    return kernel, fan_in


def _directed(v, g, axis):
    """Return v, g, the length of v and its direction, the last three in float64."""
    v = as_floating("v", v)
    where = layout(v.shape, axis)
    g = per_channel("g", g, where)
    wider = v.astype(wide(v.dtype))
    length = np.sqrt(_total(wider * wider, where))
    if (length == 0).any():
        raise ValueError(
            f"v must not be 0 for a whole output; got length 0 for {np.sum(length == 0)} of "
            f"{length.size}. Such a v has no direction: draw it anew."
        )
    return v, g, length, wider / length


def _total(values, where):
    return np.add.reduce(values, axis=where.axes, keepdims=True)


def _scaled(kernel, gain, axis, epsilon):
    """Say how batch norm scales a kernel: by gain / sqrt(fan_in), with so large an epsilon."""
    kernel, fan_in = _as_kernel(kernel, axis)
    where, root = layout(kernel.shape, axis), np.sqrt(fan_in)
    gain = 1 if gain is None else gain
    gain = np.broadcast_to(gain, where.channels) if np.ndim(gain) == 0 else gain
    gamma = per_channel("gain", gain, where).reshape(where.channels) / root
    return kernel, gamma, {"axis": axis, "epsilon": as_epsilon(epsilon) / fan_in}, root


def _moved(kernel, axis):
    """Put the one axis of the outputs last."""
    axes = canonical_axes("axis", axis, kernel.ndim)
    if len(axes) != 1:
        raise ValueError(f"axis must name one axis, that of the outputs; got {axis!r}.")
    return np.moveaxis(kernel, axes[0], -1)


def _as_matrix(kernel, axis):
    """Return the kernel as a matrix (inputs, outputs) in float64."""
    moved = _moved(kernel, axis)
    return moved.reshape(-1, moved.shape[-1]).astype(wide(kernel.dtype))


def _power_iteration(matrix, u, steps):
    """Return the singular value, u and v after so many steps."""
    try:
        steps = operator.index(steps)
    except TypeError:
        raise TypeError(f"steps must be an integer; got {steps!r}.") from None
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}. The paper takes 1.")
    u = per_channel("u", u, layout(matrix.shape)).ravel()
    for _ in range(steps):
        v = matrix @ u
        v /= _length(v)
        u = v @ matrix
        sigma = _length(u)
        u /= sigma
    return sigma, u, v


def _length(vector):
    length = np.sqrt(np.sum(vector * vector))
    if length == 0:
        raise ValueError(
            "kernel must not take u to 0, whose direction the iteration needs; got length 0. "
            "Draw u anew, from a normal distribution, and look for a kernel of zeros."
        )
    return length
