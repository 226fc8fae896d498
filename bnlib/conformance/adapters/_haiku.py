"""An adapter for Haiku, on JAX."""

from typing import Any

import numpy as np

from bnlib.conformance._adapter import Setting
from bnlib.conformance.adapters._jax import OnJax

NAME = "batch_norm"
AVERAGES = f"{NAME}/~/mean_ema", f"{NAME}/~/var_ema"


class Haiku(OnJax):
    """`haiku.BatchNorm`.

    Statistics that are put in are for inference: its averages forget where they start.

    Args:
        setting: what a check asks for.
        **options: further arguments of the module.
    """

    debiased = True

    def __init__(self, setting: Setting, **options: Any) -> None:
        import haiku

        super().__init__(setting)
        self.haiku, self.options = haiku, options
        self.shape = [1] * setting.ndim
        self.shape[setting.axis] = setting.channels
        self.wide = setting.dtype  # parameters have the dtype of x
        self.vectors = [self._wide(v).reshape(self.shape) for v in setting.vectors()]
        example = self.jax.numpy.zeros(self.shape, setting.dtype)
        self.kept = self._module().init(None, example, True)[1]

    def _module(self, axis_name=None):
        """Return the module as two pure functions."""
        setting = self.setting
        last = setting.axis % setting.ndim == setting.ndim - 1
        asked = {"create_scale": True, "create_offset": True, "eps": setting.epsilon}
        asked |= {"decay_rate": setting.momentum, "cross_replica_axis": axis_name}
        asked["data_format"] = "channels_last" if last else "channels_first"

        def call(x, is_training):
            layer = self.haiku.BatchNorm(**asked | self.options, name=NAME)
            return layer(x, is_training)

        return self.haiku.transform_with_state(call)

    def _apply(self, x, gamma, beta, training, axis_name=None):
        params = {NAME: {"scale": gamma, "offset": beta}}
        return self._module(axis_name).apply(params, self.kept, None, x, training)

    def _train(self, x, gamma, beta, axis_name=None):
        return self._apply(x, gamma, beta, True, axis_name)

    def _infer(self, x):
        return self._apply(x, *self.vectors, False)[0]

    def state(self):
        """Return the averages."""
        return tuple(np.array(self.kept[name]["average"]).ravel() for name in AVERAGES)

    def set_state(self, moving_mean, moving_variance):
        """Replace the averages."""
        for name, value in zip(AVERAGES, (moving_mean, moving_variance), strict=True):
            average = self._wide(value).reshape(self.shape)
            self.kept[name] = self.kept[name] | {"average": average}
