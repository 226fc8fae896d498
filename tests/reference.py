"""Slow and obvious: batch normalization by loops over Python numbers, in exact arithmetic.

`Fraction` holds every float exactly, so these sums round nothing until the last conversion. They
are the oracle for the accuracy tests, and share no code with bnlib.
"""

from fractions import Fraction
from math import sqrt

import numpy as np


def channel_values(x, axis):
    """Yield, for each channel, the list of its values in memory order."""
    x = np.moveaxis(np.asarray(x), axis, -1)
    for c in range(x.shape[-1]):
        yield [float(v) for v in x[..., c].ravel()]


def loop_moments(x, axis=-1, weights=None):
    """Mean and biased variance of each channel; weights has one number per value of a channel."""
    means, variances = [], []
    for values in channel_values(x, axis):
        values = [Fraction(v) for v in values]
        shares = (
            [Fraction(1)] * len(values)
            if weights is None
            else [Fraction(w) for w in weights]
        )
        total = sum(shares)
        mean = sum(w * v for w, v in zip(shares, values, strict=True)) / total
        squares = sum(w * (v - mean) ** 2 for w, v in zip(shares, values, strict=True))
        means.append(mean)
        variances.append(squares / total)
    return means, variances


def loop_batch_norm(x, gamma, beta, axis=-1, epsilon=1e-3):
    """Training-mode output, one value at a time."""
    means, variances = loop_moments(x, axis)
    moved = np.moveaxis(np.asarray(x), axis, -1)
    y = np.empty(moved.shape, dtype=np.float64)
    for index in np.ndindex(moved.shape):
        c = index[-1]
        centred = float(Fraction(float(moved[index])) - means[c])
        y[index] = gamma[c] * centred / sqrt(float(variances[c]) + epsilon) + beta[c]
    return np.moveaxis(y, -1, axis)


def textbook_batch_norm(x, gamma, beta, axes, epsilon=1e-3):
    """What most tutorials write: right on friendly data, and not where the accuracy tests look."""
    mean = x.mean(axis=axes, keepdims=True)
    variance = x.var(axis=axes, keepdims=True)
    return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
