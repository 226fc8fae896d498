"""Keras 2 and 3, and tf.layers, which shares its base class with Keras 2."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bnlib.conventions._names import copies, known_momentum, read, refuse_losses
from bnlib.conventions._params import BNParams

__all__ = ["from_keras", "to_keras"]

SETTINGS = ("axis", "momentum", "epsilon", "center", "scale")
OURS = "bnlib.keras.BatchNormalization"
# what a layer may do in training that no other framework here does, and what that means
HABITS = {
    "renorm": "batch renormalization keeps a state of its own, and no other framework here has one",
    "zero_debias": "no other framework here debiases the variance, and the average has a count of "
    "its own",
    "virtual_batch_size": "no other framework here trains in groups",
    "adjustment": "no other framework here has it",
}


def from_keras(
    values: Mapping[str, Any], *, version: int = 3, fused: bool = False
) -> BNParams:
    """Read a layer of Keras, or of `bnlib.keras`.

    Args:
        values: `{"weights": layer.get_weights(), **layer.get_config()}`; what else the
            configuration holds, such as initializers, is left aside.
        version: 2 or 3; tf.layers is 2.
        fused: for version 2, whether the layer ran the fused operation: 4-D or 5-D inputs in
            float32 or float16, unless it was told otherwise. Then its moving variance has Bessel's
            factor. Keras 3 never has it; our layer has it with `bessel=True`.

    Returns:
        `BNParams`.

    Raises:
        ValueError: when a name or a weight is missing; for several axes; with renorm, and with
            what only our layer does in training: zero_debias, virtual_batch_size, adjustment.

    >>> values = {"weights": [[6.0], [2.0], [4.0]], "center": False, "scale": True}
    >>> from_keras(values | {"axis": -1, "momentum": 0.99, "epsilon": 1e-3}).gamma
    array([6.])
    """
    fused = _bessel(version, fused)
    if hasattr(values, "items"):
        known = {n: v for n, v in values.items() if n in ("weights", *SETTINGS)}
    else:
        known = values
    v = read("Keras", known, ("weights", *SETTINGS))
    bessel = fused or bool(values.get("bessel"))
    names = ["gamma"] * bool(v["scale"]) + ["beta"] * bool(v["center"])
    names += ["moving_mean", "moving_variance"]
    for name, reason in HABITS.items():
        if values.get(name):
            raise ValueError(
                f"{name} must be {False if values[name] is True else None}; got {values[name]!r}: "
                f"{reason}. For inference alone set it so in the values, and take the first "
                f"{len(names)} of the weights."
            )
    if v["momentum"] is None:  # our layer's plain average
        names.append("updates")
    if len(v["weights"]) != len(names):
        raise ValueError(
            f"weights must be {names}, in this order; got {len(v['weights'])} "
            "arrays. Pass layer.get_weights() of a layer that is built."
        )
    weights = dict(zip(names, v["weights"], strict=True))
    if "updates" in weights:
        weights["updates"] = int(weights["updates"])
    settings = {"epsilon": v["epsilon"], "momentum": v["momentum"]}
    return BNParams(**weights, **settings, axis=_one_axis(v["axis"]), bessel=bessel)


def to_keras(
    params: BNParams,
    *,
    version: int = 3,
    fused: bool = False,
    ours: bool = False,
    lose: Collection[str] = (),
) -> dict[str, Any]:
    """Write the numbers of a layer of Keras, or of `bnlib.keras`.

    Args:
        params: `BNParams`.
        version: 2 or 3.
        fused: as in `from_keras`.
        ours: whether they are for `bnlib.keras.BatchNormalization`, which takes Bessel's factor and
            momentum None, so that nothing is lost.
        lose: what may be lost without a warning: "bessel", which the version and `fused` decide.

    Returns:
        A dict: `weights` for `layer.set_weights`, and the layer's arguments `axis`, `momentum`,
        `epsilon`, `center`, `scale` and, if ours, `bessel`.

    Raises:
        ValueError: when momentum is None, and the layer is not ours.

    Warns:
        UserWarning: when Bessel's factor is lost: inference is the same, and the moving variance
            will drift by that factor when training goes on.

    >>> params = BNParams([2.0], [4.0], gamma=[6.0], epsilon=1e-5, momentum=0.9)
    >>> to_keras(params)["center"]
    False
    """
    name = f"Keras {version}{', fused,' if fused else ''}"
    bessel = _bessel(version, fused)
    if ours and version != 3:
        raise ValueError(f"version must be 3 for {OURS}; got {version!r}.")
    if not ours:
        hint = f"{OURS} has it: pass ours=True. " if version == 3 else ""
        refuse_losses(params, name, lose, hint, bessel=bessel)
    arrays = copies(
        gamma=params.gamma,
        beta=params.beta,
        moving_mean=params.moving_mean,
        moving_variance=params.moving_variance,
    )
    weights = list(arrays.values())
    if ours and params.momentum is None:
        weights.append(np.array(params.updates))
    written = {
        "weights": weights,
        "axis": params.axis,
        "momentum": params.momentum if ours else known_momentum(params, name),
        "epsilon": params.epsilon,
        "center": params.beta is not None,
        "scale": params.gamma is not None,
    }
    return written | ({"bessel": bool(params.bessel)} if ours else {})


def _bessel(version, fused):
    """Say whether this Keras corrects its moving variance."""
    if version not in (2, 3) or (version == 3 and fused):
        raise ValueError(
            f"version must be 2, or 3 without fused; got version={version!r}, fused={fused!r}."
        )
    return bool(fused)


def _one_axis(axis):
    """Unwrap the list that a built Keras 2 layer keeps."""
    if not isinstance(axis, (list, tuple)):
        return axis
    if len(axis) != 1:
        raise ValueError(
            f"axis must be one axis; got {list(axis)}. Reshape the data so that the channels "
            "share one axis."
        )
    return axis[0]
