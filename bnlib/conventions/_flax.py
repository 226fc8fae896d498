"""Flax's nn.BatchNorm: two collections, params and batch_stats."""

from collections.abc import Collection, Mapping
from typing import Any

from bnlib.conventions._names import copies, known_momentum, read, refuse_losses
from bnlib.conventions._params import BNParams

__all__ = ["from_flax", "to_flax"]

HINT = (
    "Pass variables | {'epsilon': bn.epsilon, 'momentum': bn.momentum} of the one layer: the "
    "variables hold neither."
)


def from_flax(values: Mapping[str, Any]) -> BNParams:
    """Read a Flax layer.

    Args:
        values: `params` with `scale` and `bias`, where they exist; `batch_stats` with `mean` and
            `var`; the module's `epsilon` and `momentum`; and `axis`, if it is not -1.

    Returns:
        `BNParams`; Flax never has Bessel's factor.

    Raises:
        ValueError: when a name is missing or unknown, or a value is out of range.

    >>> values = {"params": {"bias": [1.0]}, "batch_stats": {"mean": [0.0], "var": [1.0]}}
    >>> from_flax(values | {"epsilon": 1e-5, "momentum": 0.99}).beta
    array([1.])
    """
    required = ("batch_stats", "epsilon", "momentum")
    v = read("Flax", values, required, ("params", "axis"), HINT)
    stats = read("Flax batch_stats", v["batch_stats"], ("mean", "var"))
    affine = read("Flax params", v["params"] or {}, (), ("scale", "bias"))
    return BNParams(
        stats["mean"],
        stats["var"],
        affine["scale"],
        affine["bias"],
        epsilon=v["epsilon"],
        momentum=v["momentum"],
        axis=-1 if v["axis"] is None else v["axis"],
    )


def to_flax(params: BNParams, *, lose: Collection[str] = ()) -> dict[str, Any]:
    """Write the numbers of a Flax layer.

    Args:
        params: `BNParams`.
        lose: what may be lost without a warning: "bessel" (always False).

    Returns:
        A dict of `params`, `batch_stats`, `epsilon`, `momentum` and `axis`. `use_scale` and
        `use_bias` are what `params` holds.

    Raises:
        ValueError: when momentum is None.

    >>> to_flax(BNParams([0.0], [1.0], epsilon=1e-5, momentum=0.9))["params"]
    {}
    """
    refuse_losses(params, "Flax", lose, bessel=False)
    return {
        "params": copies(scale=params.gamma, bias=params.beta),
        "batch_stats": copies(mean=params.moving_mean, var=params.moving_variance),
        "epsilon": params.epsilon,
        "momentum": known_momentum(params, "Flax"),
        "axis": params.axis,
    }
