"""What batch normalization costs, and how to make it cost nothing at inference.

At inference the layer is one multiplication and one addition per channel. Both can be folded into
the kernel and the bias of the layer before it, and then batch norm is gone.
"""

import math
from typing import NamedTuple

import numpy as np

from bnlib._checks import as_epsilon, as_floating, wide
from bnlib._typing import Array, ArrayLike, Axis
from bnlib.axes import layout

__all__ = [
    "Affine",
    "ParameterCount",
    "as_affine",
    "count_parameters",
    "fold",
    "fold_forward",
]


class ParameterCount(NamedTuple):
    """How many numbers a layer keeps.

    Attributes:
        trainable: trained by gradients.
        non_trainable: only tracked.
        total: both together.
    """

    trainable: int
    non_trainable: int
    total: int


class Affine(NamedTuple):
    """Batch norm at inference as two vectors: y = multiplier * x + shift.

    Attributes:
        multiplier: shape `(C,)`, float64.
        shift: shape `(C,)`, float64.
    """

    multiplier: Array
    shift: Array


def count_parameters(
    channels: int, *, center: bool = True, scale: bool = True, renorm: bool = False
) -> ParameterCount:
    """Count the parameters of one batch norm layer.

        trainable      C for gamma, C for beta
        non-trainable  C for moving_mean, C for moving_variance; with renorm also moving_stddev,
                       renorm_mean and renorm_stddev

    Args:
        channels: C.
        center: whether there is a beta.
        scale: whether there is a gamma.
        renorm: count Keras's batch renormalization state too.

    Returns:
        The `ParameterCount`.

    Raises:
        ValueError: when channels is not a positive whole number.

    >>> count_parameters(512)
    ParameterCount(trainable=1024, non_trainable=1024, total=2048)
    """
    if (
        not isinstance(channels, (int, np.integer))
        or isinstance(channels, bool)
        or channels < 1
    ):
        raise ValueError(f"channels must be a positive whole number; got {channels!r}.")
    trainable = int(channels) * (bool(center) + bool(scale))
    non_trainable = int(channels) * (5 if renorm else 2)
    return ParameterCount(trainable, non_trainable, trainable + non_trainable)


def as_affine(
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    epsilon: float = 1e-3,
) -> Affine:
    """Write batch norm at inference as two vectors.

        multiplier = gamma / sqrt(variance + epsilon)        shift = beta - mean * multiplier

    Convenient, but not how to compute it in float32 when the mean is large: `multiplier * x +
    shift` then subtracts two large numbers. `batch_norm_inference` does not.

    Args:
        mean: shape `(C,)`.
        variance: shape `(C,)`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        epsilon: guard inside the root.

    Returns:
        The `Affine`, float64.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when shapes differ, or variance or epsilon is negative.

    Paper: Algorithm 2, line 11.

    >>> as_affine([2.0], [4.0], [6.0], [1.0], epsilon=0)
    Affine(multiplier=array([3.]), shift=array([-5.]))
    """
    mean = as_floating("mean", mean)
    optional = {"gamma": gamma, "beta": beta}
    given = {name: v for name, v in optional.items() if v is not None}
    given = {name: as_floating(name, v) for name, v in given.items()}
    given["variance"] = as_floating("variance", variance)
    for name, value in given.items():
        if value.shape != mean.shape:
            raise ValueError(
                f"{name} must have shape {mean.shape}, like mean; got {value.shape}."
            )
    if np.any(given["variance"] < 0):
        raise ValueError(
            f"variance must not be negative; got {given['variance'].min()}."
        )
    root = np.sqrt(given["variance"].astype(wide(mean.dtype)) + as_epsilon(epsilon))
    multiplier = given.get("gamma", 1) / root
    return Affine(multiplier, given.get("beta", 0) - mean * multiplier)


def fold(
    kernel: ArrayLike,
    bias: ArrayLike | None,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    epsilon: float = 1e-3,
    axis: Axis = -1,
) -> tuple[Array, Array]:
    """Fold batch norm into the dense or convolution layer before it.

        kernel' = kernel * multiplier        bias' = bias * multiplier + shift

    so that the layer with kernel' and bias' gives what the layer and batch norm gave together.

    Args:
        kernel: Keras's layout, output channels last: dense `(D, C)`, convolution `(h, w, D, C)`.
        bias: shape `(C,)`; None means 0.
        mean: shape `(C,)`, the `moving_mean`.
        variance: shape `(C,)`, the `moving_variance`.
        gamma: shape `(C,)`; None means 1.
        beta: shape `(C,)`; None means 0.
        epsilon: guard inside the root.
        axis: the kernel's axis, or axes, of output channels: -2 for transposed convolutions, (-2,
            -1) for depthwise ones, 0 for PyTorch's layout.

    Returns:
        `(kernel, bias)`, new arrays in the kernel's dtype.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when the kernel does not have one output channel per statistic.

    Source: Jacob et al. (2018), section 3.2, equation 14.

    >>> fold([[1.0], [2.0]], None, [2.0], [4.0], [6.0], [1.0], epsilon=0)
    (array([[3.],
           [6.]]), array([-5.]))
    """
    kernel = as_floating("kernel", kernel)
    multiplier, shift = as_affine(mean, variance, gamma, beta, epsilon=epsilon)
    where = layout(kernel.shape, axis)
    outputs = math.prod(where.channels)
    if outputs != multiplier.size:
        raise ValueError(
            f"kernel of shape {kernel.shape} has {outputs} output channels on axis "
            f"{axis}; the statistics have {multiplier.size}. Check axis."
        )
    bias = _bias_or_zeros(bias, outputs)
    folded = kernel * multiplier.reshape(where.broadcast)
    return folded.astype(kernel.dtype), (bias * multiplier + shift).astype(kernel.dtype)


def fold_forward(
    kernel: ArrayLike,
    bias: ArrayLike | None,
    mean: ArrayLike,
    variance: ArrayLike,
    gamma: ArrayLike | None = None,
    beta: ArrayLike | None = None,
    *,
    epsilon: float = 1e-3,
    axis: int = -2,
    outputs: Axis = -1,
) -> tuple[Array, Array]:
    """Fold batch norm into the dense or convolution layer after it.

        kernel' = kernel * multiplier, by input channel        bias' = bias + sum of kernel * shift

    Exact only for a convolution that pads nothing: the zeros of a padding are not shifted.

    Args:
        kernel: Keras's layout, input channels before the last axis: dense `(D, C)`, convolution
            `(h, w, D, C)`.
        bias: shape `(C,)`; None means 0.
        mean: shape `(D,)`, the `moving_mean`.
        variance: shape `(D,)`, the `moving_variance`.
        gamma: shape `(D,)`; None means 1.
        beta: shape `(D,)`; None means 0.
        epsilon: guard inside the root.
        axis: the kernel's axis of input channels.
        outputs: the kernel's axis, or axes, of output channels; (-2, -1) for depthwise kernels,
            where the input channels are on one of them.

    Returns:
        `(kernel, bias)`, new arrays in the kernel's dtype.

    Raises:
        TypeError: when an argument does not hold real numbers.
        ValueError: when the kernel does not have one input channel per statistic.

    >>> fold_forward([[1.0], [2.0]], None, [2.0, 0.0], [4.0, 1.0], epsilon=0)
    (array([[0.5],
           [2. ]]), array([-1.]))
    """
    kernel = as_floating("kernel", kernel)
    multiplier, shift = as_affine(mean, variance, gamma, beta, epsilon=epsilon)
    where, kept = layout(kernel.shape, axis), layout(kernel.shape, outputs)
    if where.channels != multiplier.shape:
        raise ValueError(
            f"kernel of shape {kernel.shape} has {where.channels[0]} input channels on axis "
            f"{axis}; the statistics have {multiplier.size}. Check axis."
        )
    bias = _bias_or_zeros(bias, math.prod(kept.channels))
    shifted = (kernel * shift.reshape(where.broadcast)).sum(axis=kept.axes)
    folded = kernel * multiplier.reshape(where.broadcast)
    return folded.astype(kernel.dtype), (bias + shifted.ravel()).astype(kernel.dtype)


def _bias_or_zeros(bias, outputs):
    """Return the bias of a layer with so many output channels; None means zeros."""
    bias = np.zeros(outputs) if bias is None else as_floating("bias", bias)
    if bias.shape != (outputs,):
        raise ValueError(f"bias must have shape ({outputs},); got {bias.shape}.")
    return bias
