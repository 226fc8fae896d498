"""ONNX BatchNormalization, operator sets 1 to 15: the attributes changed, the formula did not."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bnlib.conventions._names import (
    copies,
    filled,
    known_momentum,
    read,
    refuse_losses,
)
from bnlib.conventions._params import BNParams

__all__ = ["from_onnx", "to_onnx"]

EPSILON, MOMENTUM = 1e-5, 0.9  # the defaults of every operator set
# The first opset of each version, and its attributes for inference beside epsilon and momentum.
VERSIONS = {
    1: {"spatial": 1, "is_test": 1, "consumed_inputs": (0, 0, 0, 1, 1)},
    6: {"spatial": 1, "is_test": 1},
    7: {"spatial": 1},
    9: {},
    14: {"training_mode": 0},
}


def from_onnx(values: Mapping[str, Any], *, opset: int) -> BNParams:
    """Read a BatchNormalization node.

    Args:
        values: its inputs, by the names of the specification: `scale`, `B`, and `mean`, `var` or,
            from opset 14 on, `input_mean`, `input_var`; and the attributes that it has.
        opset: the operator set of the model.

    Returns:
        `BNParams` with axis 1 and without Bessel's factor.

    Raises:
        ValueError: when a name is missing or is not one of this opset; when the node is in training
            mode, which before opset 7 is the default; for `spatial=0` with statistics per place.

    >>> node = {"scale": [6.0], "B": [0.0], "mean": [2.0], "var": [4.0], "epsilon": 1e-3}
    >>> from_onnx(node, opset=9).momentum
    0.9
    """
    attributes = VERSIONS[_version(opset)]
    inputs = ("scale", "B", *_statistics(opset))
    optional = ("epsilon", "momentum", *attributes)
    name = f"ONNX, opset {opset},"
    v = read(name, values, inputs, optional)
    _refuse_training(v, attributes)
    gamma, beta, mean, variance = (np.asarray(v[key]) for key in inputs)
    if v.get("spatial") == 0 and mean.ndim != 1:
        raise ValueError(
            f"statistics of {name} must have shape (C,); with spatial=0 got {mean.shape}, one for "
            "each place. Reshape X to (N, C*H*W) and scale, B, mean and var to (C*H*W,)."
        )
    return BNParams(
        mean,
        variance,
        gamma,
        beta,
        epsilon=EPSILON if v["epsilon"] is None else v["epsilon"],
        momentum=MOMENTUM if v["momentum"] is None else v["momentum"],
        axis=1,
    )


def to_onnx(
    params: BNParams, *, opset: int = 15, lose: Collection[str] = ()
) -> dict[str, Any]:
    """Write the inputs and attributes of a BatchNormalization node for inference.

    A gamma or beta that is missing is written as ones or zeros: a node has no way to leave it out,
    and does not say what is trained.

    Args:
        params: `BNParams`.
        opset: the operator set of the model.
        lose: what may be lost: "axis" (ONNX's is 1); and without a warning "bessel" (always False).

    Returns:
        A dict: arrays by the names of the inputs, and the attributes.

    Raises:
        ValueError: when ONNX cannot hold a setting and it is not in `lose`; when momentum is None.

    >>> node = to_onnx(BNParams([2.0], [4.0], epsilon=1e-3, momentum=0.99, axis=1))
    >>> node["training_mode"], node["scale"]
    (0, array([1.]))
    """
    refuse_losses(params, "ONNX", lose, axis=1, bessel=False)
    mean, variance = _statistics(opset)
    affine = {
        "scale": filled(params, "gamma", 1, "ONNX", lose=["gamma"]),
        "B": filled(params, "beta", 0, "ONNX", lose=["beta"]),
    }
    moving = copies(**{mean: params.moving_mean, variance: params.moving_variance})
    momentum = known_momentum(params, "ONNX")
    settings = {"epsilon": params.epsilon, "momentum": momentum}
    return affine | moving | settings | VERSIONS[_version(opset)]


def _version(opset):
    """Return the version of the operator that holds in an opset."""
    if not isinstance(opset, (int, np.integer)) or isinstance(opset, bool) or opset < 1:
        raise ValueError(
            f"opset must be a whole number from 1; got {opset!r}. It is in model.opset_import."
        )
    return max(version for version in VERSIONS if version <= opset)


def _statistics(opset):
    """Name the two inputs that hold the statistics."""
    return ("mean", "var") if _version(opset) < 14 else ("input_mean", "input_var")


def _refuse_training(values, attributes):
    """Refuse a node that would normalise by its batch."""
    for mode in {"is_test", "training_mode"} & set(attributes):
        if (values[mode] or 0) != attributes[mode]:
            raise ValueError(
                f"{mode} must be {attributes[mode]}: the node normalises by its batch; got "
                f"{values[mode] or 0}. To read its parameters nevertheless, set it so yourself."
            )
