"""MXNet's BatchNorm: with fix_gamma, its default, gamma counts as 1 whatever the file holds."""

from collections.abc import Collection, Mapping
from typing import Any

from bnlib.conventions._names import (
    copies,
    filled,
    known_momentum,
    read,
    refuse_losses,
)
from bnlib.conventions._params import BNParams

__all__ = ["from_mxnet", "to_mxnet"]

HINT = (
    "All three settings are needed: the defaults of nd.BatchNorm (eps 1e-3, fix_gamma True) are "
    "not those of gluon.nn.BatchNorm (epsilon 1e-5, scale True)."
)


def from_mxnet(values: Mapping[str, Any]) -> BNParams:
    """Read an MXNet layer.

    Args:
        values: `gamma`, `beta`, `moving_mean`, `moving_var`, `eps`, `momentum`, `fix_gamma`; and
            `axis`, if it is not 1.

    Returns:
        `BNParams`; with `fix_gamma` its gamma is None, whatever the array holds.

    Raises:
        ValueError: when a name is missing or unknown, or a value is out of range.

    >>> values = {"gamma": [7.0], "beta": [0.0], "moving_mean": [0.0], "moving_var": [1.0]}
    >>> from_mxnet(values | {"eps": 1e-3, "momentum": 0.9, "fix_gamma": True}).gamma is None
    True
    """
    required = ("gamma", "beta", "moving_mean", "moving_var")
    required += ("eps", "momentum", "fix_gamma")
    v = read("MXNet", values, required, ("axis",), HINT)
    return BNParams(
        v["moving_mean"],
        v["moving_var"],
        None if v["fix_gamma"] else v["gamma"],
        v["beta"],
        epsilon=v["eps"],
        momentum=v["momentum"],
        axis=1 if v["axis"] is None else v["axis"],
    )


def to_mxnet(params: BNParams, *, lose: Collection[str] = ()) -> dict[str, Any]:
    """Write the numbers of an MXNet layer.

    Args:
        params: `BNParams`.
        lose: what may be lost: "beta", if there is none; and without a warning "bessel" (always
            False).

    Returns:
        A dict with the names that `from_mxnet` reads. Without gamma it holds ones, fixed.

    Raises:
        ValueError: when MXNet cannot hold a setting and it is not in `lose`; when momentum is None.

    >>> params = BNParams([0.0], [1.0], beta=[5.0], epsilon=1e-5, momentum=0.9)
    >>> to_mxnet(params)["fix_gamma"]
    True
    """
    refuse_losses(params, "MXNet", lose, bessel=False)
    moving = copies(moving_mean=params.moving_mean, moving_var=params.moving_variance)
    return {
        "gamma": filled(params, "gamma", 1, "MXNet", lose=["gamma"]),
        "beta": filled(params, "beta", 0, "MXNet", lose),
        **moving,
        "eps": params.epsilon,
        "momentum": known_momentum(params, "MXNet"),
        "fix_gamma": params.gamma is None,
        "axis": params.axis,
    }
