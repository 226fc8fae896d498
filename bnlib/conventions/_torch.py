"""PyTorch's BatchNorm1d, 2d and 3d: momentum is the weight of the new value."""

from bnlib._checks import as_momentum
from bnlib.conventions._names import copies, filled, read, refuse_losses
from bnlib.conventions._params import BNParams

__all__ = ["from_torch", "to_torch"]

HINT = (
    "A state_dict() holds neither eps nor momentum: pass "
    "bn.state_dict() | {'eps': bn.eps, 'momentum': bn.momentum}, without prefixes. A layer with "
    "track_running_stats=False has no statistics to convert."
)


def from_torch(values):
    """Read a PyTorch batch norm layer.

    Args:
        values: `bn.state_dict() | {"eps": bn.eps, "momentum": bn.momentum}`.

    Returns:
        `BNParams` with axis 1, Bessel's factor, and momentum 1 - PyTorch's.

    Raises:
        TypeError: when a value is not what PyTorch would hold.
        ValueError: when a name is missing or unknown, or a value is out of range.

    >>> state = {"running_mean": [0.0], "running_var": [1.0], "eps": 1e-5, "momentum": 0.1}
    >>> from_torch(state).momentum
    0.9
    """
    required = ("running_mean", "running_var", "eps", "momentum")
    optional = ("weight", "bias", "num_batches_tracked")
    v = read("PyTorch", values, required, optional, HINT)
    tracked = v["num_batches_tracked"]
    return BNParams(
        v["running_mean"],
        v["running_var"],
        v["weight"],
        v["bias"],
        epsilon=v["eps"],
        momentum=_complement(v["momentum"]),
        axis=1,
        bessel=True,
        updates=0 if tracked is None else int(tracked),
    )


def to_torch(params, *, lose=()):
    """Write the numbers of a PyTorch batch norm layer.

    Args:
        params: `BNParams`.
        lose: what may be lost: "axis" (PyTorch's is 1), "bessel" (always True), and "gamma", if
            there is a beta without it. The reverse needs a PyTorch whose layer takes `bias=False`.

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
