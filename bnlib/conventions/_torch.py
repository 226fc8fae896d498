"""PyTorch's BatchNorm1d, 2d and 3d: momentum is the weight of the new value."""

from collections.abc import Collection
from typing import Any

from bnlib._checks import as_momentum
from bnlib.conventions._names import copies, filled, one_layer, read, refuse_losses
from bnlib.conventions._params import BNParams

__all__ = ["from_torch", "to_torch"]

ARRAYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
HINT = (
    "A state_dict() holds neither eps nor momentum: pass the layer itself, or from_torch(state, "
    "eps=bn.eps, momentum=bn.momentum); PyTorch's defaults are 1e-5 and 0.1. A layer with "
    "track_running_stats=False has no statistics to convert."
)


def from_torch(
    values: Any, *, prefix: str | None = None, **settings: float | None
) -> BNParams:
    """Read a PyTorch batch norm layer.

    Args:
        values: the layer, an `nn.BatchNorm1d`, 2d, 3d or `nn.SyncBatchNorm`; or its `state_dict()`,
            or that of a model.
        prefix: which layer of a model to read, such as "features.1.", if the state dict is that of
            several. The prefix that all names share is found without it.
        **settings: `eps` and `momentum`, which no state dict holds; or they stand in `values`.

    Returns:
        `BNParams` with axis 1, Bessel's factor, and momentum 1 - PyTorch's.

    Raises:
        TypeError: when a value is not what PyTorch would hold.
        ValueError: when a name is missing or unknown, or a value is out of range; when there are
            several prefixes, and none or a wrong one is chosen.

    >>> state = {"bn.running_mean": [0.0], "bn.running_var": [1.0]}
    >>> from_torch(state, eps=1e-5, momentum=0.1).momentum
    0.9
    """
    if callable(getattr(values, "state_dict", None)):
        values = _values_of(values)
    values = one_layer("PyTorch", values, ARRAYS, "running_mean", ".", "prefix", prefix)
    if settings and hasattr(values, "items"):
        values = {**values, **settings}
    required = ("running_mean", "running_var", "eps", "momentum")
    optional = ("weight", "bias", "num_batches_tracked")
    v = read("PyTorch", values, required, optional, HINT)
    tracked = v["num_batches_tracked"]
    return BNParams(
        _array(v["running_mean"]),
        _array(v["running_var"]),
        _array(v["weight"]),
        _array(v["bias"]),
        epsilon=v["eps"],
        momentum=_complement(v["momentum"]),
        axis=1,
        bessel=True,
        updates=0 if tracked is None else int(tracked),
    )


def to_torch(params: BNParams, *, lose: Collection[str] = ()) -> dict[str, Any]:
    """Write the numbers of a PyTorch batch norm layer.

    Args:
        params: `BNParams`.
        lose: what may be lost: "axis" (PyTorch's is 1), and "gamma", if there is a beta without it.
            The reverse needs a PyTorch whose layer takes `bias=False`. And what may be lost without
            a warning: "bessel" (always True).

    Returns:
        A dict: the layer's `state_dict()` as arrays, and its `eps` and `momentum`.

    Raises:
        ValueError: when PyTorch cannot hold a setting and it is not in `lose`.

    >>> params = BNParams([0.0], [1.0], epsilon=1e-3, momentum=0.99, axis=1, bessel=True)
    >>> to_torch(params)["momentum"]
    0.01
    """
    refuse_losses(params, "PyTorch", lose, axis=1, bessel=True)
    gamma = params.gamma
    if params.beta is not None:
        gamma = filled(params, "gamma", 1, "PyTorch", lose)
    return {
        **copies(weight=gamma, bias=params.beta),
        **copies(running_mean=params.moving_mean, running_var=params.moving_variance),
        "num_batches_tracked": params.updates,
        "eps": params.epsilon,
        "momentum": _complement(params.momentum),
    }


def _complement(momentum):
    """Return 1 - momentum, rounded so that 1 - 0.9 is 0.1; None stays None."""
    return None if momentum is None else round(1 - as_momentum(momentum), 15)


def _values_of(module):
    """Return the state of a layer, and the settings that are not in it; torch is not imported."""
    kinds = {kind.__name__ for kind in type(module).__mro__}
    if "_InstanceNorm" in kinds:
        raise ValueError(
            f"values must be a batch norm layer; got {type(module).__name__}, which normalises "
            "each example alone. There is no batch norm that does the same."
        )
    if not hasattr(module, "running_mean"):
        inside = [
            name for name, v in module.named_modules() if hasattr(v, "running_mean")
        ]
        raise ValueError(
            f"values must be a batch norm layer, or a state dict; got {type(module).__name__}. "
            + (
                f"Pass one of its layers, model.get_submodule(name); it has {', '.join(inside)}."
                if inside
                else "It has none."
            )
        )
    named = {n: getattr(module, n) for n in ("eps", "momentum") if hasattr(module, n)}
    return {**module.state_dict(), **named}


def _array(value):
    """Return a tensor as an array, wherever it is; NumPy has no bfloat16."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach().cpu()
    return (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
