"""What the layer remembers: `bnlib.population`'s estimators, kept in Keras variables."""

from typing import Any, NamedTuple

import keras
import tensorflow as tf

__all__: list[str] = []


class MovingStatistics(NamedTuple):
    """The moving mean and variance of a layer, and how they move.

    Attributes:
        mean: the variable `moving_mean`.
        variance: the variable `moving_variance`.
        updates: the variable that counts the batches; None where nothing depends on it.
        momentum: weight of the old average; None for the plain average of all batches.
        zero_debias: whether the first values of the variables are forgotten.
        bessel: whether m / (m - 1) times the variance of a batch is taken in.
    """

    mean: Any
    variance: Any
    updates: Any
    momentum: float | None
    zero_debias: bool
    bessel: bool

    def update(self, statistics, values):
        """Take in one batch. An empty one changes nothing, one value has no variance to offer.

        Args:
            statistics: its `Moments`; the count is the sum of the weights.
            values: how many of the weights are above 0; per channel where these differ.
        """
        rate, variance = self._rate(values), statistics.variance
        blend(self.mean, statistics.mean, rate, values, least=1)
        if self.bessel:
            m = tf.cast(statistics.count, variance.dtype)
            variance = variance * tf.math.divide_no_nan(m, m - 1)
            values = tf.cast(values, m.dtype) * tf.cast(m > 1, m.dtype)
        blend(self.variance, variance, rate, values, least=2)

    def _rate(self, values):
        """Count the batch; return how much of the distance to it is covered.

        A batch of one value is not counted, so that the first variance still replaces the 1.
        """
        if self.updates is None:
            return 1 - self.momentum
        before = tf.convert_to_tensor(keras.ops.convert_to_tensor(self.updates))
        most = tf.reduce_max(tf.cast(values, tf.float64))
        self.updates.assign(before + tf.cast(most > 1, before.dtype))
        t = tf.cast(before + 1, tf.float64)
        if self.momentum is None or (self.momentum == 1 and self.zero_debias):
            return 1 / t
        if self.zero_debias:
            return (1 - self.momentum) / (1 - self.momentum**t)
        return 1 - self.momentum


def blend(variable, new, rate, values, least):
    """Move a variable towards the new value, if that is of at least so many values."""
    old = tf.convert_to_tensor(keras.ops.convert_to_tensor(variable))  # read once
    new = tf.cast(new, old.dtype)
    if tf.is_tensor(rate):  # a number is taken in full; tf.cast would go by float32
        rate = tf.cast(rate, old.dtype)
    blended = old + rate * (new - old)
    if isinstance(values, int):
        if values >= least:
            variable.assign(blended)
    else:
        enough = tf.cast(values, tf.float64) >= least
        variable.assign(tf.where(enough, blended, old))
