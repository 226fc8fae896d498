"""The one place where arguments are checked. Each error says: expected, received, remedy."""

import math
from numbers import Real

import numpy as np


def as_floating(name, value):
    """Return `value` as a floating array: floats as they are, integers and booleans as float64.

    Raises:
        TypeError: for complex, object, string and masked arrays.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be a plain array; got a masked array, whose mask would be lost. "
            "Pass x.data, and the mask as weights=1 - mask."
        )
    array = np.asarray(value)
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(
            f"{name} must hold real numbers; got dtype {array.dtype}. "
            "Convert it first, for example with x.astype(np.float32)."
        )
    return array


def wide(dtype):
    """Return the dtype in which sums are taken: float64, or longdouble for longdouble."""
    return np.result_type(dtype, np.float64)


def as_epsilon(epsilon):
    """Return `epsilon` as a float that is finite and not negative."""
    if not isinstance(epsilon, Real) or isinstance(epsilon, bool):
        raise TypeError(
            f"epsilon must be one real number; got {type(epsilon).__name__}. "
            "Pass a float such as 1e-3."
        )
    if not math.isfinite(epsilon) or epsilon < 0:
        raise ValueError(
            f"epsilon must be finite and at least 0, since it is added to a variance; "
            f"got {epsilon}. Keras uses 1e-3, PyTorch 1e-5."
        )
    return float(epsilon)


def per_channel(name, value, where):
    """Return `value`, one number per channel, shaped so that it broadcasts against x.

    Args:
        name: what to call it in an error.
        value: array of shape `where.channels`.
        where: the `Layout` of x.

    Raises:
        ValueError: when the shape differs. A silent broadcast of a wrong gamma is a lost day.
    """
    array = as_floating(name, value)
    if array.shape != where.channels:
        raise ValueError(
            f"{name} must have shape {where.channels}, one value per channel on axis "
            f"{where.axis}; got shape {array.shape}. Check `axis`, or reshape {name}."
        )
    return array.reshape(where.broadcast)
