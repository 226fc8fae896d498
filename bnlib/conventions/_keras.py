"""Keras 2 and 3, and tf.layers, which shares its base class with Keras 2."""

from bnlib.conventions._names import copies, known_momentum, read, refuse_losses
from bnlib.conventions._params import BNParams

__all__ = ["from_keras", "to_keras"]

SETTINGS = ("axis", "momentum", "epsilon", "center", "scale")


def from_keras(values, *, version=3, fused=False):
    """Read a Keras layer.

    Args:
        values: `{"weights": layer.get_weights(), **layer.get_config()}`; what else the
            configuration holds, such as initializers, is left aside.
        version: 2 or 3; tf.layers is 2.
        fused: for version 2, whether the layer ran the fused operation: 4-D or 5-D inputs in
            float32 or float16, unless it was told otherwise. Then its moving variance has Bessel's
            factor. Keras 3 never has it.

    Returns:
        `BNParams`.

    Raises:
        ValueError: when a name or a weight is missing, with renorm, or for several axes.

    >>> values = {"weights": [[6.0], [2.0], [4.0]], "center": False, "scale": True}
    >>> from_keras(values | {"axis": -1, "momentum": 0.99, "epsilon": 1e-3}).gamma
    array([6.])
    """
    bessel = _bessel(version, fused)
    known = {name: v for name, v in values.items() if name in ("weights", *SETTINGS)}
    v = read("Keras", known, ("weights", *SETTINGS))
    if values.get("renorm"):
        raise ValueError(
            "renorm must be False; got True: batch renormalization keeps a "
            "state of its own, and no other framework here has one."
        )
    names = ["gamma"] * bool(v["scale"]) + ["beta"] * bool(v["center"])
    names += ["moving_mean", "moving_variance"]
    if len(v["weights"]) != len(names):
        raise ValueError(
            f"weights must be {names}, in this order; got {len(v['weights'])} "
            "arrays. Pass layer.get_weights() of a layer that is built."
        )
    weights = dict(zip(names, v["weights"], strict=True))
    settings = {"epsilon": v["epsilon"], "momentum": v["momentum"]}
    return BNParams(**weights, **settings, axis=_one_axis(v["axis"]), bessel=bessel)


def to_keras(params, *, version=3, fused=False, lose=()):
    """Write the numbers of a Keras layer.

    Args:
        params: `BNParams`.
        version: 2 or 3.
        fused: as in `from_keras`.
        lose: what may be lost: "bessel", which the version and `fused` decide.

    Returns:
        A dict: `weights` for `layer.set_weights`, and the layer's arguments `axis`, `momentum`,
        `epsilon`, `center`, `scale`.

    Raises:
        ValueError: when Keras cannot hold a setting and it is not in `lose`; when momentum is None.

    >>> params = BNParams([2.0], [4.0], gamma=[6.0], epsilon=1e-5, momentum=0.9)
    >>> to_keras(params)["center"]
    False
    """
    name = f"Keras {version}{', fused,' if fused else ''}"
    refuse_losses(params, name, lose, bessel=_bessel(version, fused))
    arrays = copies(
        gamma=params.gamma,
        beta=params.beta,
        moving_mean=params.moving_mean,
        moving_variance=params.moving_variance,
    )
    return {
        "weights": list(arrays.values()),
        "axis": params.axis,
        "momentum": known_momentum(params, name),
        "epsilon": params.epsilon,
        "center": params.beta is not None,
        "scale": params.gamma is not None,
    }


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
