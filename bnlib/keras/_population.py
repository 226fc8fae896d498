"""What the layer remembers: `bnlib.population`'s estimators, kept in Keras variables."""

import keras
import tensorflow as tf

from bnlib.keras import _variables


class MovingStatistics:
    """The moving mean and variance of one layer.

    Args:
        layer: whose `moving_mean`, `moving_variance` and, where something depends on the number of
            batches, `updates` are kept; its `momentum`, `zero_debias` and `bessel` are obeyed.
    """

    def __init__(self, layer):
        self.mean, self.variance = layer.moving_mean, layer.moving_variance
        self.updates, self.momentum = layer.updates, layer.momentum
        self.zero_debias, self.bessel = layer.zero_debias, layer.bessel

    def update(self, mean, variance, count):
        """Take in one batch. An empty one changes nothing, one value has no variance to offer."""
        rate = self.rate(count)
        if self.bessel:
            m = tf.cast(count, variance.dtype)
            variance = variance * (m / tf.maximum(m - 1, 1))
        _blend(self.mean, mean, rate, count, least=1)
        _blend(self.variance, variance, rate, count, least=2)

    def rate(self, count):
        """How much of the distance to the new batch is covered; see `bnlib.population`."""
        if self.updates is None:
            return 1 - self.momentum
        seen = tf.cast(tf.reduce_max(tf.cast(count, tf.float64)) > 0, "int64")
        self.updates.assign(self.updates + seen)
        t = tf.maximum(
            tf.cast(keras.ops.convert_to_tensor(self.updates), tf.float64), 1
        )
        if self.momentum is None or (self.momentum == 1 and self.zero_debias):
            return 1 / t
        if self.zero_debias:
            return (1 - self.momentum) / (1 - self.momentum**t)
        return 1 - self.momentum


def _blend(variable, batch, rate, count, least):
    """Move a variable towards the batch, if that has at least so many values."""
    old = keras.ops.convert_to_tensor(variable)
    batch, rate = tf.cast(batch, old.dtype), tf.cast(rate, old.dtype)
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
        self.layer, self.epsilon = layer, layer.epsilon
        self.mean, self.stddev = layer.renorm_mean, layer.renorm_stddev
        self.clipping, self.momentum = layer.renorm_clipping, layer.renorm_momentum

    def correction(self, mean, variance, step):
        """Return `(r, d)`; no gradient flows through them."""
        known, spread = (
            tf.cast(keras.ops.convert_to_tensor(v), mean.dtype)
            for v in (self.mean, self.stddev)
        )
        spread = tf.maximum(spread, self.epsilon**0.5)
        r = tf.sqrt(variance + self.epsilon) / spread
        d = (mean - known) / spread
        rmin, rmax, dmax = (self._limit(n, step) for n in ("rmin", "rmax", "dmax"))
        r = r if rmin is None else tf.maximum(r, tf.cast(rmin, r.dtype))
        r = r if rmax is None else tf.minimum(r, tf.cast(rmax, r.dtype))
        if dmax is not None:
            dmax = tf.cast(dmax, d.dtype)
            d = tf.clip_by_value(d, -dmax, dmax)
        return tf.stop_gradient(r), tf.stop_gradient(d)

    def _limit(self, name, step):
        limit = self.clipping.get(name)
        return limit(step) if callable(limit) else limit

    def update(self, mean, variance, count):
        """Take in one batch."""
        stddev = tf.sqrt(variance + self.epsilon)
        _blend(self.mean, mean, 1 - self.momentum, count, least=1)
        _blend(self.stddev, stddev, 1 - self.momentum, count, least=2)
        moving = keras.ops.convert_to_tensor(self.layer.moving_variance)
        self.layer.moving_stddev.assign(tf.sqrt(moving + self.epsilon))


def renorm_of(layer, shape):
    """Make the weights of renorm, with Keras's names, and what uses them."""
    root = _variables.root_of(layer.moving_variance_initializer)
    for name, initializer in (
        (
            "moving_stddev",
            root,
        ),  # for Keras's sake: follows moving_variance, is not read
        ("renorm_mean", layer.moving_mean_initializer),
        ("renorm_stddev", root),
    ):
        setattr(layer, name, _variables.statistic(layer, name, shape, initializer))
    return Renorm(layer)
