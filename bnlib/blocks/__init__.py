"""The fast way through large arrays: the formulas of the chapters, with float32 where that is safe.

The loops are in `_numpy`, or in `_numba` if you ask for it. Here is what keeps them accurate:

- Sums run over `x - pilot`: a guess near the mean, or, going back, the mean itself. The pilot is 0
  where the mean is small beside the deviation anyway.
- Short runs are summed in float32, and these sums in float64.
- Where the result says that this was not enough (variance 0, tiny, infinite or NaN; pilot more than
  a deviation off), that channel is summed again in float64, around the mean just found.
- The mean is split in two: `x - high` is exact where it matters, and the rest goes into the shift.

So a float32 batch gets its variance to 1e-6 of itself, its mean to 4e-7 deviations, whatever the
processor: never more than 16 numbers, or 128 in eight sums side by side, are added up in float32
before the sums are added in pairs or in float64. `benchmarks/accuracy.py` looks for the worst case.

The clear code of the callers does the rest: where `suits` is false, and where `transform` or
`backward` return None because a number lies near the ends of the range of floats.
Results do not depend on the number of threads: blocks are cut, and added up, in one fixed order.
"""

import math

import numpy as np

from bnlib._checks import per_channel
from bnlib.blocks import _numpy
from bnlib.blocks._engine import kernels, use

__all__ = ["use"]

SMALLEST = 1 << 14  # numbers in x, below which the clear code is as fast
# By bytes a float: sizes whose squares and quotients fit.
SAFE = {4: (1e-30, 1e30), 8: (1e-300, 1e300)}


# What the core calls. Vectors have shape (C,); None is what it is there.


def suits(x, where):
    """Whether x is worth it: large, of a common float dtype, and one axis kept."""
    return x.size >= SMALLEST and x.dtype.char in "efd" and len(where.axis) == 1


def moments(x, where):
    """Return `(mean, variance)` of each channel in float64."""
    return tuple(_statistics(_view(x, where)))


def transform(x, where, mean, inverse, gamma, beta):
    """Return gamma * (x - mean) * inverse + beta in the dtype of x, or None."""
    view = _view(x, where)
    mean, inverse = _vector("mean", mean, where), inverse.ravel()
    gamma = _vector("gamma", gamma, where, default=1.0)
    beta = _vector("beta", beta, where, default=0.0)
    if _extreme(view, mean, [inverse, gamma * inverse]):
        return None
    high, low = _split(view, mean, inverse)
    y = np.empty_like(view)
    kernels(x).affine(view, high, gamma * inverse, beta - low * gamma * inverse, y)
    return y.reshape(x.shape)


def backward(grad_y, x, where, epsilon, statistics, gamma, grad_mean, grad_variance):
    """Return `(grad_x, grad_gamma, grad_beta)` as `batch_norm_backward` does, or None."""
    if not suits(grad_y, where) or grad_y.dtype != x.dtype:
        return None
    view, grad_y = _view(x, where), _view(grad_y, where)
    gamma = _vector("gamma", gamma, where, default=1.0)
    grad_mean = _vector("grad_mean", grad_mean, where, default=0.0)
    grad_variance = _vector("grad_variance", grad_variance, where, default=0.0)
    if statistics is None:
        mean, variance, grad_beta, product = _statistics(view, grad_y)
    else:
        mean, variance = (_vector("each of statistics", s, where) for s in statistics)
        grad_beta, product = _products(view, grad_y, mean, variance)
    if np.any(variance < 0) or not np.isfinite(product[np.isfinite(mean)]).all():
        return None
    inverse, m = 1 / np.sqrt(variance + epsilon), x.size // mean.size
    slope = (gamma * inverse**3 * product - 2 * grad_variance) / m
    if _extreme(view, mean, [inverse, gamma * inverse, slope]):
        return None
    high, low = _split(view, mean, inverse)
    shift = (grad_mean - gamma * inverse * grad_beta) / m + low * slope
    grad_x = np.empty_like(view)
    kernels(x).combine(view, grad_y, high, slope, gamma * inverse, shift, grad_x)
    return grad_x.reshape(x.shape), product * inverse, grad_beta


# Preparation and judgement


def _view(x, where):
    """See x as (before, channels, after), without a copy."""
    before = math.prod(x.shape[: where.axis[0]])
    return x.reshape(before, where.channels[0], -1)


def _vector(name, value, where, default=None):
    return per_channel(name, value, where, default).ravel()


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
    return found


def _products(x, grad, mean, variance):
    """Return the sums of grad and of grad * (x - mean), the mean being known."""
    with np.errstate(all="ignore"):
        high, low = _split(x, mean, 1 / np.sqrt(variance))
        total, product = kernels(x).sums(x, [grad], high)
        return total, product - low * total


def _pilot(x):
    """Guess the means from a few values; None where 0 is as good a guess for all.

    Channels last and in one block, a second look costs less than the guess.
    """
    before, channels, after = x.shape
    same = x.dtype == _numpy.work_dtype(x)
    if same and after == 1 and x.size <= _numpy.BLOCK:
        return None
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
    found, m = kernels(x).sums(x, [None, *grad], pilot), x.size // x.shape[1]
    off = found[0] / m  # what lies between the pilot and the mean
    found[0] = off if pilot is None else off + pilot
    found[1] = np.maximum(found[1] / m - off * off, 0)
    if grad:
        found[3] -= off * found[2]
    return found


def _extreme(x, mean, factors):
    """Whether a number lies near the ends of the range of floats, where the clear code is safe."""
    low, high = SAFE[_numpy.work_dtype(x).itemsize]
    sizes = np.abs(np.concatenate(factors))  # fmax and fmin look past NaN
    if max(np.fmax.reduce(sizes), np.fmax.reduce(np.abs(mean))) > high:
        return True
    return bool(np.fmin.reduce(sizes) < low and np.any((sizes > 0) & (sizes < low)))


def _split(x, mean, inverse):
    """Split the mean into what x can be centred by in its dtype, and a rest.

    Near 0 nothing is gained by centring first, and (None, mean) saves the time.
    """
    if x.dtype == _numpy.work_dtype(x) and not _far(mean * inverse, 1).any():
        return None, mean
    high = mean.astype(_numpy.work_dtype(x))
    return high, mean - high
