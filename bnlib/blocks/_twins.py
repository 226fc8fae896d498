"""The twins of the core's functions, for large batches; what keeps their float32 sums accurate.

- Sums run over `x - pilot`: a guess near the mean, or, going back, the mean itself. The pilot is 0
  where the mean is small beside the deviation anyway.
- Short runs are summed in float32, and these sums in float64.
- Where the result says that this was not enough (variance 0, tiny, infinite or NaN; pilot more than
  a deviation off), that channel is summed again in float64, around the mean just found.
- The mean is split in two: `x - high` is exact where it matters, and the rest goes into the shift.
"""

import importlib
import math

import numpy as np

from bnlib.blocks import _numpy, _settings

# By bytes a float: sizes whose squares and quotients fit.
SAFE = {4: (1e-30, 1e30), 8: (1e-300, 1e300)}


class Unsuited(Exception):
    """Raised by a twin where the clear code must do the work."""


def suits(batch):
    """Whether the twins know such a batch: a common float, one axis kept, no weights."""
    alike = batch.share is None and batch.features is batch.where
    return alike and batch.x.dtype.char in "efd" and len(batch.where.axis) == 1


# The twins. Vectors are shaped to broadcast against x, as those of the clear code.


def measure(batch):
    """As `bnlib.moments.measure`."""
    mean, variance = _statistics(_view(batch.x, batch.where))
    shape = batch.where.broadcast
    return mean.reshape(shape), variance.reshape(shape)


def apply(batch, mean, inverse, gamma, beta):
    """As `bnlib.transform.apply`."""
    x = _view(batch.x, batch.where)
    mean, inverse = mean.ravel(), inverse.ravel()
    multiplier = inverse if gamma is None else gamma.ravel() * inverse
    _refuse_extremes(x, mean, [inverse, multiplier])
    high, low = _split(x, mean, inverse)
    shift = -low * multiplier if beta is None else beta.ravel() - low * multiplier
    y = np.empty_like(x)
    _loops(x).affine(x, high, multiplier, shift, y)
    return y.reshape(batch.x.shape)


def propagate(batch, grad_y, gamma, epsilon, statistics, grad_mean, grad_variance):
    """As `bnlib.gradient.propagate`."""
    if grad_y.dtype != batch.x.dtype:
        raise Unsuited
    x, grad_y = _view(batch.x, batch.where), _view(grad_y, batch.where)
    if statistics is None:
        mean, variance, grad_beta, product = _statistics(x, grad_y)
    else:
        mean, variance = (each.ravel() for each in statistics)
        grad_beta, product = _products(x, grad_y, mean, variance)
    if not np.isfinite(product[np.isfinite(mean)]).all():
        raise Unsuited
    m = batch.count
    with np.errstate(all="ignore"):  # the clear code will warn
        inverse = 1 / np.sqrt(variance + epsilon)
        multiplier = inverse if gamma is None else gamma.ravel() * inverse
        slope = multiplier * inverse**2 * product / m
    if grad_variance is not None:
        slope = slope - 2 * grad_variance.ravel() / m
    _refuse_extremes(x, mean, [inverse, multiplier, slope])
    high, low = _split(x, mean, inverse)
    shift = low * slope - multiplier * grad_beta / m
    if grad_mean is not None:
        shift = shift + grad_mean.ravel() / m
    grad_x = np.empty_like(x)
    _loops(x).combine(x, grad_y, high, slope, multiplier, shift, grad_x)
    shape = batch.where.broadcast
    grad_gamma = (product * inverse).reshape(shape)
    return grad_x.reshape(batch.x.shape), grad_gamma, grad_beta.reshape(shape)


# Preparation and judgement. Vectors have shape (C,).


def _loops(x):
    """Return the module that has the loops for x; numba has no float16."""
    if x.dtype == np.float16 or _settings.engine_in_use() == "numpy":
        return _numpy
    return importlib.import_module("bnlib.blocks._numba")


def _view(x, where):
    """See x as (before, channels, after), without a copy."""
    before = math.prod(x.shape[: where.axis[0]])
    return x.reshape(before, where.channels[0], -1)


def _far(distance, variance):
    """Whether `distance` is more than 1 deviation: numbers that lie so far off lose digits."""
    return distance * distance > variance


def _statistics(x, *grad):
    """Return mean, variance; with `grad` the sums of grad and of grad * (x - mean)."""
    low, _ = SAFE[_numpy.work_dtype(x).itemsize]
    with np.errstate(all="ignore"):
        pilot = _pilot(x)
        found = _around(x, grad, pilot)
        mean, variance = found[:2]
        enough = (variance > low) & np.isfinite(variance)
        doubt = _far(mean - (0 if pilot is None else pilot), variance) | ~enough
    if doubt.any():
        pilot = np.where(np.isfinite(mean), mean, 0.0)[doubt]
        with np.errstate(invalid="ignore"):
            x, *grad = (np.compress(doubt, a, axis=1) for a in (x, *grad))
            found[:, doubt] = _around(x, grad, pilot)
            overflown = np.isnan(found[1]) & np.isfinite(found[0])
            found[1, overflown] = np.inf
    return found


def _products(x, grad, mean, variance):
    """Return the sums of grad and of grad * (x - mean), the mean being known."""
    with np.errstate(all="ignore"):
        high, low = _split(x, mean, 1 / np.sqrt(variance))
        total, product = _loops(x).sums(x, [grad], high)
        return total, product - low * total


def _pilot(x):
    """Guess the means from a few values; None where 0 is as good a guess for all."""
    before, channels, after = x.shape
    same = x.dtype == _numpy.work_dtype(x)
    if same and after == 1 and x.size <= _numpy.BLOCK:
        few = x[: _numpy.RUN, :, 0]
        mean = np.add.reduce(few, axis=0) / len(few)
        return np.where(np.isfinite(mean), mean, 0)
    wanted = min(256, max(16, before * after // 8))  # values of each channel
    every = max(1, before * min(8, after) // wanted), max(1, after // 8)
    sample = x[:: every[0], :, :: every[1]].astype(np.float64)
    m = sample.size // channels
    mean = np.einsum("acb->c", sample) / m
    variance = np.einsum("acb,acb->c", sample, sample) / m - mean**2
    if same and not _far(1.3 * mean, variance).any():
        return None
    return np.where(np.isfinite(mean), mean, 0).astype(_numpy.work_dtype(x))


def _around(x, grad, pilot):
    """The statistics from sums over x - pilot; the dtype of the pilot is that of the sums."""
    found, m = _loops(x).sums(x, [None, *grad], pilot), x.size // x.shape[1]
    off = found[0] / m  # what lies between the pilot and the mean
    found[0] = off if pilot is None else off + pilot
    found[1] = np.maximum(found[1] / m - off * off, 0)
    if grad:
        found[3] -= off * found[2]
    return found


def _refuse_extremes(x, mean, factors):
    """Leave numbers near the ends of the range of floats to the clear code, which is safe there."""
    low, high = SAFE[_numpy.work_dtype(x).itemsize]
    sizes = np.abs(np.concatenate(factors))  # fmax and fmin look past NaN
    if max(np.fmax.reduce(sizes), np.fmax.reduce(np.abs(mean))) > high:
        raise Unsuited
    if np.fmin.reduce(sizes) < low and np.any((sizes > 0) & (sizes < low)):
        raise Unsuited


def _split(x, mean, inverse):
    """Split the mean into what x can be centred by in its dtype, and a rest.

    Near 0 nothing is gained by centring first, and (None, mean) saves the time.
    """
    if x.dtype == _numpy.work_dtype(x) and not _far(mean * inverse, 1).any():
        return None, mean
    high = mean.astype(_numpy.work_dtype(x))
    return high, mean - high
