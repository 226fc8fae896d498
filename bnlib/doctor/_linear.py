"""Layers that can take batch norm in: where their channels lie, and the arithmetic."""

from typing import NamedTuple

import keras
import numpy as np

from bnlib.keras._models import numbers, remake
from bnlib.parameters import fold, fold_forward

layers = keras.layers


class Kernel(NamedTuple):
    """The weight of a layer that makes its output channels.

    Attributes:
        name: the attribute in which the layer holds it.
        axis: its axis, or axes, of output channels.
    """

    name: str
    axis: int | tuple[int, int]


PLAIN = Kernel("kernel", -1)
DEPTHWISE = Kernel("kernel", (-2, -1))
SEPARABLE = Kernel("pointwise_kernel", -1)
TRANSPOSED = Kernel("kernel", -2)
KERNELS = {
    layers.Dense: PLAIN,
    layers.Conv1D: PLAIN,
    layers.Conv2D: PLAIN,
    layers.Conv3D: PLAIN,
    layers.DepthwiseConv1D: DEPTHWISE,
    layers.DepthwiseConv2D: DEPTHWISE,
    layers.SeparableConv1D: SEPARABLE,
    layers.SeparableConv2D: SEPARABLE,
    layers.Conv1DTranspose: TRANSPOSED,
    layers.Conv2DTranspose: TRANSPOSED,
    layers.Conv3DTranspose: TRANSPOSED,
}


def called(operation):
    """Return what a report calls a layer or an operation: its name and its class."""
    return f"{operation.name!r} ({type(operation).__name__})"


# What hinders. Each function returns the rest of "which ...", or None.


def hindrance(layer):
    """Say why a layer can take no batch norm in, from whichever side."""
    if type(layer) not in KERNELS and type(layer) is not layers.EinsumDense:
        return "is no dense or convolution layer of Keras's"
    if layer.quantization_mode:
        return f"is quantised ({layer.quantization_mode})"
    if getattr(layer, "lora_enabled", False):
        return "has LoRA, whose kernel is a sum; merge it first"
    return None


def hindrance_before(layer, shape, axis):
    """Say why a layer cannot take in the batch norm after it.

    Args:
        layer: the layer.
        shape: the shape of its outputs.
        axis: which axis batch norm keeps, not negative.
    """
    if layer.activation is not keras.activations.linear:
        return f"has the activation {layer.activation.__name__!r}, which is not linear"
    if type(layer) is layers.EinsumDense:
        return _hindrance_in_equation(layer, shape, axis) or _misplaced(shape, axis)
    return _wrong_axis(layer, len(shape), axis) or _misplaced(shape, axis)


def hindrance_after(layer, shape, axis, output_shape):
    """Say why a layer cannot take in the batch norm before it.

    Args:
        layer: the layer.
        shape: the shape of its inputs.
        axis: which axis batch norm keeps, not negative.
        output_shape: the shape of its outputs.
    """
    kernel = KERNELS.get(type(layer))
    if kernel in (None, TRANSPOSED):
        return "is of a kind that takes in only what comes after it"
    if getattr(layer, "groups", 1) != 1:
        return "is a convolution in groups, which takes in only what comes after it"
    padded = getattr(layer, "padding", "valid") != "valid"
    if padded and set(layer.kernel_size) != {1}:
        return "pads with zeros, which batch norm does not shift"
    return _wrong_axis(layer, len(shape), axis) or _misplaced(output_shape, axis)


def _wrong_axis(layer, ndim, axis):
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    channels = 1 if first else ndim - 1
    if axis != channels:
        return f"has its channels on axis {channels}, and batch norm keeps axis {axis}"
    return None


def _misplaced(shape, axis):
    """Look out for a fault of Keras 3.15, whose ops.add takes any bias that fits for NHWC's."""
    if axis < len(shape) - 1 and shape[-1] in (None, shape[axis]):
        return (
            f"puts out {shape[-1] or 'any number of'} columns and {shape[axis]} channels: where "
            "these are equal, Keras adds a bias along the wrong axis"
        )
    return None


# The equation of an EinsumDense


def _parts(layer):
    """Return the letters of inputs, kernel and outputs."""
    return layer.equation.replace("->", ",").split(",")


def _hindrance_in_equation(layer, shape, axis):
    label = _label(layer, len(shape), axis)
    if label is None or label not in _parts(layer)[1]:
        return f"has no kernel along axis {axis}, which batch norm keeps"
    if layer.bias_axes not in (None, label):
        return f"has a bias along {layer.bias_axes!r}, and not along {label!r}"
    return None


def _label(layer, ndim, axis):
    """Return the letter of an axis of the outputs; None where the equation has dots."""
    head, dots, tail = _parts(layer)[2].partition("...")
    if axis < len(head):
        return head[axis]
    return tail[axis - ndim] if dots and ndim - axis <= len(tail) else None


# Arithmetic


def with_bias(layer, norms):
    """Make a layer anew that has a bias, to be filled.

    What was about its old weights is left out: regularizers, constraints and initializers.

    Args:
        layer: the layer.
        norms: the `Fold`s that it takes in.
    """
    changes = {"use_bias": True}
    for name in layer.get_config():
        if name.endswith(("_regularizer", "_constraint")):
            changes[name] = None
        elif name.endswith("_initializer"):
            changes[name] = "zeros"
    if type(layer) is layers.EinsumDense:
        del changes["use_bias"]
        norm = norms[0].norm  # all of them come after it, and keep one axis
        label = _label(layer, norm.input_spec.ndim, axis_of(norm))
        changes["bias_axes"] = layer.bias_axes or label
    return remake(layer, **changes)


def axis_of(norm):
    """Return the axis that a batch norm layer keeps, not negative; None for several."""
    axes = norm.axis if isinstance(norm.axis, (list, tuple)) else [norm.axis]
    return axes[0] % norm.input_spec.ndim if len(axes) == 1 else None


def weights_of(layer):
    """Return the weights of a layer by name, in float64."""
    names = ("kernel", "depthwise_kernel", "pointwise_kernel", "bias")
    held = {name: getattr(layer, name, None) for name in names}
    return {n: np.float64(numbers(v)) for n, v in held.items() if v is not None}


def vectors(norm):
    """Return moving mean, moving variance, gamma and beta of a layer in float64, or None."""
    held = norm.moving_mean, norm.moving_variance, norm.gamma, norm.beta
    return [None if v is None else np.float64(numbers(v)) for v in held]


def take_in(layer, weights, norm, *, forwards):
    """Return the weights of a layer with batch norm folded in.

    Args:
        layer: the layer.
        weights: its weights by name, float64.
        norm: the batch norm layer.
        forwards: whether batch norm comes first.
    """
    given, epsilon = vectors(norm), norm.epsilon
    bias = weights.get("bias")
    bias = None if bias is None else bias.ravel()
    if forwards:
        new = _forwards(layer, weights, bias, given, epsilon)
    else:
        name, axis = _kernel_of(layer, norm)
        kernel, bias = fold(weights[name], bias, *given, epsilon=epsilon, axis=axis)
        new = {name: kernel, "bias": bias}
    return weights | new


def _kernel_of(layer, norm):
    if type(layer) is not layers.EinsumDense:
        return KERNELS[type(layer)]
    label = _label(layer, norm.input_spec.ndim, axis_of(norm))
    return Kernel("kernel", _parts(layer)[1].index(label))


def _forwards(layer, weights, bias, given, epsilon):
    kind = KERNELS[type(layer)]
    if kind is not SEPARABLE:
        kernel, bias = fold_forward(
            weights["kernel"], bias, *given, epsilon=epsilon, outputs=kind.axis
        )
        return {"kernel": kernel, "bias": bias}
    depthwise, shift = fold_forward(
        weights["depthwise_kernel"], None, *given, epsilon=epsilon, outputs=(-2, -1)
    )
    # the shift between the two kernels, as a batch norm that does nothing else
    pointwise, bias = fold_forward(
        weights["pointwise_kernel"], bias, -shift, np.ones_like(shift), epsilon=0
    )
    return {"depthwise_kernel": depthwise, "pointwise_kernel": pointwise, "bias": bias}


def fill(layer, weights):
    """Write weights into a layer that is built."""
    for name, value in weights.items():
        variable = getattr(layer, name)
        variable.assign(value.reshape(variable.shape))
