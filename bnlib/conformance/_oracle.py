"""What is right: batch norm in two lines of long double, which share nothing with the library."""

import numpy as np


def statistics(x, axis=-1):
    """Return mean and biased variance of each channel."""
    rows = _rows(x, axis)
    mean = rows.mean(axis=0)
    return mean, ((rows - mean) ** 2).mean(axis=0)


def batch_norm(x, setting, epsilon, known=None):
    """Normalise by the batch, or by known statistics."""
    mean, variance = statistics(x, setting.axis) if known is None else known
    gamma, beta = setting.vectors()
    y = (_rows(x, setting.axis) - mean) / np.sqrt(variance + epsilon) * gamma + beta
    moved = np.moveaxis(x, setting.axis, -1).shape
    return np.moveaxis(y.reshape(moved), -1, setting.axis)


def _rows(x, axis):
    """Return x as rows of channels."""
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.longdouble)
