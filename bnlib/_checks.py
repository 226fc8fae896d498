"""Checks of arguments. Each error says what must be, what came, and what to do."""

import math
from numbers import Real

import numpy as np


def as_floating(name, value):
    """Return `value` as a floating array: floats as they are, integers and booleans as float64.

    An array in another memory order or byte order than C's and this machine's is copied into
    them: everything that follows is several times as fast then.

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
    if not (array.flags.c_contiguous and array.dtype.isnative):
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return array


def wide(dtype):
    """Return the dtype in which sums are taken: float64, or longdouble for longdouble."""
    return np.promote_types(dtype, np.float64)


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
    """Return `value`, one number per channel, in float64 and shaped to broadcast against x.

    Args:
        name: what to call it in an error.
        value: array of shape `where.channels`.
        where: the `Layout` of the channels.

    Raises:
        ValueError: when the shape differs. A gamma of the wrong shape that broadcasts silently
            costs days.
    """
    array = as_floating(name, value)
    if array.shape != where.channels:
        raise ValueError(
            f"{name} must have shape {where.channels}, one value per channel on axis "
            f"{where.axis}; got shape {array.shape}. Check `axis` and `axes`, or reshape {name}."
        )
    return array.astype(wide(array.dtype), copy=False).reshape(where.broadcast)


def per_channel_or_none(name, value, where):
    """Do the same for an argument that may be left out."""
    return None if value is None else per_channel(name, value, where)


def as_variance(value, where):
    """Return the variance of each channel, which is not negative, shaped to broadcast."""
    variance = per_channel("variance", value, where)
    if (variance < 0).any():
        raise ValueError(
            f"variance must not be negative; got a minimum of {np.min(variance)}. "
            "E[x^2] - E[x]^2 does that when it rounds: use bnlib.moments."
        )
    return variance


def as_momentum(momentum):
    """Return `momentum` as a float in [0, 1]."""
    if not isinstance(momentum, Real) or isinstance(momentum, bool):
        raise TypeError(
            f"momentum must be one real number; got {momentum!r}. "
            "For the plain average of all batches use Cumulative."
        )
    if not 0 <= momentum <= 1:
        raise ValueError(
            f"momentum must lie in [0, 1]; got {momentum}. It is the weight of the old "
            "average, as in Keras; PyTorch's is 1 minus it."
        )
    return float(momentum)


def same_shape(name, value, x):
    """Return `value` as a floating array, after checking that it has the shape of x."""
    array = as_floating(name, value)
    if array.shape != x.shape:
        raise ValueError(
            f"{name} must have shape {x.shape}, like x; got {array.shape}. "
            "It is the gradient with respect to y, one number for each of x."
        )
    return array


def finite_moments(batch, shape):
    """Return `(mean, variance, count)` as float64, after checking shape and finiteness."""
    *values, count = batch
    for name, value in zip(("mean", "variance"), values, strict=True):
        if np.shape(value) != shape:
            raise ValueError(
                f"{name} must have shape {shape}, like the population; got {np.shape(value)}."
            )
        if not np.all(np.isfinite(value)):
            raise ValueError(
                f"{name} of the batch must be finite; got {value}. A NaN in the population "
                "would never leave it: look for NaN or infinity in this batch."
            )
    return *(np.asarray(value, float) for value in values), count
