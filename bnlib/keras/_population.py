"""What the layer remembers: `bnlib.population`'s estimators, kept in Keras variables."""

import keras
import tensorflow as tf

from bnlib.keras import _variables
from bnlib.tf_ops.statistics import all_sum


class MovingStatistics:
    """The moving mean and variance of one layer.

    Args:
        layer: whose `moving_mean`, `moving_variance` and, where something depends on the number of
            batches, `updates` are kept; its `momentum`, `zero_debias` and `bessel` are obeyed, as
            they are at the time.
    """

    def __init__(self, layer):
        self.layer = layer

    def update(self, mean, variance, count, values):
        """Take in one batch. An empty one changes nothing, one value has no variance to offer.

        `count` is the sum of the weights, `values` says how many of them are above 0.
        """
        layer, rate = self.layer, self.rate(values)
        _blend(layer.moving_mean, mean, rate, values, least=1)
        if layer.bessel:
            m = tf.cast(count, variance.dtype)
            variance = variance * tf.math.divide_no_nan(m, m - 1)
            values = tf.cast(values, m.dtype) * tf.cast(m > 1, m.dtype)
        _blend(layer.moving_variance, variance, rate, values, least=2)

    def rate(self, values):
        """How much of the distance to the new batch is covered; see `bnlib.population`.

        A batch of one value is not counted, so that the first variance still replaces the 1.
        """
        momentum, updates = self.layer.momentum, self.layer.updates
        if updates is None:
            return 1 - momentum
        before = tf.convert_to_tensor(keras.ops.convert_to_tensor(updates))
        most = tf.reduce_max(tf.cast(values, tf.float64))
        updates.assign(before + tf.cast(most > 1, before.dtype))
        t = tf.cast(before + 1, tf.float64)
        if momentum is None or (momentum == 1 and self.layer.zero_debias):
            return 1 / t
        if self.layer.zero_debias:
            return (1 - momentum) / (1 - momentum**t)
        return 1 - momentum


def values_of(share, count, where, synchronized):
    """How many values of each channel have a weight; `count` where all weigh the same."""
    if share is None:
        return count
    seen = tf.reduce_sum(tf.cast(share > 0, tf.float64), where.axes)
    return all_sum(seen) if synchronized else seen


def _blend(variable, batch, rate, count, least):
    """Move a variable towards the batch, if that has at least so many values."""
    old = tf.convert_to_tensor(keras.ops.convert_to_tensor(variable))  # read once
    batch = tf.cast(batch, old.dtype)
    if tf.is_tensor(rate):  # a number is taken in full; tf.cast would go by float32
        rate = tf.cast(rate, old.dtype)
    new = old + rate * (batch - old)
    if isinstance(count, int):
        if count >= least:
            variable.assign(new)
    else:
        variable.assign(tf.where(tf.cast(count, tf.float64) >= least, new, old))


class Renorm:
    """Batch renormalization: what brings a batch's x_hat close to the population's.

        r = clip(sigma / renorm_stddev)      d = clip((mean - renorm_mean) / renorm_stddev)

    Source: Ioffe (2017), Algorithm 1.
    """

    def __init__(self, layer):
        self.layer = layer
        self.mean, self.stddev = layer.renorm_mean, layer.renorm_stddev

    def correction(self, mean, variance, step):
        """Return `(r, d)`; no gradient flows through them."""
        known, spread = (
            tf.cast(keras.ops.convert_to_tensor(v), mean.dtype)
            for v in (self.mean, self.stddev)
        )
        epsilon = self.layer.epsilon
        spread = tf.maximum(spread, epsilon**0.5)
        r = tf.sqrt(variance + epsilon) / spread
        d = (mean - known) / spread
        names = "rmin", "rmax", "dmax"
        rmin, rmax, dmax = (self._limit(name, step, r.dtype) for name in names)
        r = r if rmin is None else tf.maximum(r, rmin)
        r = r if rmax is None else tf.minimum(r, rmax)
        d = d if dmax is None else tf.clip_by_value(d, -dmax, dmax)
        return tf.stop_gradient(r), tf.stop_gradient(d)

    def _limit(self, name, step, dtype):
        limit = self.layer.renorm_clipping.get(name)
        return tf.cast(limit(step), dtype) if callable(limit) else limit

    def update(self, mean, variance, values):
        """Take in one batch."""
        rate, epsilon = 1 - self.layer.renorm_momentum, self.layer.epsilon
        _blend(self.mean, mean, rate, values, least=1)
        _blend(self.stddev, tf.sqrt(variance + epsilon), rate, values, least=2)
        moving = keras.ops.convert_to_tensor(self.layer.moving_variance)
        self.layer.moving_stddev.assign(tf.sqrt(moving + epsilon))


def renorm_of(layer, shape):
    """Make the weights of renorm, with Keras's names, and what uses them."""
    root = _variables.root_of(layer.moving_variance_initializer)
    for name, initializer in (
        ("moving_stddev", root),  # for Keras's sake: it is not read
        ("renorm_mean", layer.moving_mean_initializer),
        ("renorm_stddev", root),
    ):
        setattr(layer, name, _variables.statistic(layer, name, shape, initializer))
    return Renorm(layer)
