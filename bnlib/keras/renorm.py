"""Batch renormalization: what brings a batch's x_hat close to the population's."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from bnlib.keras.population import blend

__all__: list[str] = []


class Renorm(NamedTuple):
    """The statistics that a batch is corrected by, and how far.

        r = clip(sigma / renorm_stddev)      d = clip((mean - renorm_mean) / renorm_stddev)

    Attributes:
        mean: the variable `renorm_mean`.
        stddev: the variable `renorm_stddev`.
        momentum: weight of their old values.
        epsilon: guard inside the root.
        clipping: `rmin`, `rmax` and `dmax`, as far as there are limits.

    Source: Ioffe (2017), Algorithm 1.
    """

    mean: Any
    stddev: Any
    momentum: float
    epsilon: float
    clipping: Mapping[str, Any]

    def correction(self, mean, variance, step):
        """Return `(r, d)` for the statistics of a batch; no gradient flows through them."""
        known, stddev = (
            tf.cast(keras.ops.convert_to_tensor(v), mean.dtype)
            for v in (self.mean, self.stddev)
        )
        stddev = tf.maximum(stddev, self.epsilon**0.5)
        r = tf.sqrt(variance + self.epsilon) / stddev
        d = (mean - known) / stddev
        names = "rmin", "rmax", "dmax"
        rmin, rmax, dmax = (self._limit(name, step, r.dtype) for name in names)
        r = r if rmin is None else tf.maximum(r, rmin)
        r = r if rmax is None else tf.minimum(r, rmax)
        d = d if dmax is None else tf.clip_by_value(d, -dmax, dmax)
        return tf.stop_gradient(r), tf.stop_gradient(d)

    def _limit(self, name, step, dtype):
        limit = self.clipping.get(name)
        return tf.cast(limit(step), dtype) if callable(limit) else limit

    def update(self, mean, variance, values):
        """Take in one batch, of so many values."""
        rate, stddev = 1 - self.momentum, tf.sqrt(variance + self.epsilon)
        blend(self.mean, mean, rate, values, least=1)
        blend(self.stddev, stddev, rate, values, least=2)


def as_clipping(clipping):
    """Return the limits of renorm as a dict; each is a number, or a function of the step."""
    clipping = dict(clipping or {})
    unknown = sorted(set(clipping) - {"rmin", "rmax", "dmax"})
    if unknown:
        raise ValueError(
            f"Received invalid keys for renorm_clipping: {unknown}. "
            'Use rmin, rmax and dmax, as in {"rmax": 3.0, "dmax": 5.0}.'
        )
    limits = {
        name: limit if limit is None or callable(limit) else float(limit)
        for name, limit in clipping.items()
    }
    for name, value in limits.items():
        if value is not None and not callable(value) and not value >= 0:
            raise ValueError(
                f"{name} should be non-negative in renorm_clipping; got {value}."
            )
    rmin, rmax = (limits.get(name) for name in ("rmin", "rmax"))
    if isinstance(rmin, float) and isinstance(rmax, float) and rmax < rmin:
        raise ValueError(
            "rmax should be greater than rmin, or equal, in renorm_clipping; "
            f"got rmax={rmax}, rmin={rmin}."
        )
    return limits


def has_schedule(clipping):
    """Whether a limit depends on the number of batches seen."""
    return any(map(callable, clipping.values()))


def root_of(initializer):
    """Return an initializer that gives the root of what another gives."""

    def root(shape, dtype=None):
        config = keras.initializers.serialize(initializer)
        fresh = keras.initializers.get(config)
        return keras.ops.sqrt(fresh(shape, dtype=dtype))

    return root
