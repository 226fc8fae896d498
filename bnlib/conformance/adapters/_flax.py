"""Adapters for Flax, on JAX: its two families of modules."""

from typing import Any

import numpy as np

from bnlib.conformance._adapter import Setting
from bnlib.conformance.adapters._jax import OnJax


class Flax(OnJax):
    """`flax.linen.BatchNorm`.

    Args:
        setting: what a check asks for.
        **options: further arguments of the module, such as `use_fast_variance=False`.
    """

    def __init__(self, setting: Setting, **options: Any) -> None:
        from flax import linen

        super().__init__(setting)
        self.linen, self.options = linen, options
        self.set_state(np.zeros(setting.channels), np.ones(setting.channels))

    def _asked(self, axis_name=None):
        """Return the arguments of the module."""
        setting = self.setting
        asked = {"axis": setting.axis, "epsilon": setting.epsilon}
        asked |= {"momentum": setting.momentum, "axis_name": axis_name}
        return asked | {"dtype": setting.dtype, "param_dtype": self.wide} | self.options

    def _train(self, x, gamma, beta, axis_name=None, mask=None):
        module = self.linen.BatchNorm(**self._asked(axis_name))
        variables = self._variables(gamma, beta)
        options = {"use_running_average": False, "mutable": ["batch_stats"]}
        y, new = module.apply(variables, x, mask=mask, **options)
        return y, new["batch_stats"]

    def _infer(self, x):
        module = self.linen.BatchNorm(**self._asked())
        return module.apply(self._variables(*self.vectors), x, use_running_average=True)

    def _variables(self, gamma, beta):
        params = {"scale": gamma, "bias": beta}
        return {"params": params, "batch_stats": self.kept}

    def masked(self, x, mask):
        """Give the mask the shape of x, which Flax wants."""
        mask = np.broadcast_to(mask[..., np.newaxis], x.shape)
        return np.array(self._train(x, *self.vectors, mask=mask)[0])

    def state(self):
        """Return the statistics."""
        return np.array(self.kept["mean"]), np.array(self.kept["var"])

    def set_state(self, moving_mean, moving_variance):
        """Replace the statistics."""
        both = {"mean": moving_mean, "var": moving_variance}
        self.kept = {name: self._wide(value) for name, value in both.items()}

    def reloaded(self):
        """Go through Flax's bytes."""
        from flax import serialization

        kept = {"vectors": self.vectors, "batch_stats": self.kept}
        other = type(self)(self.setting, **self.options)
        loaded = serialization.from_bytes(kept, serialization.to_bytes(kept))
        other.vectors, other.kept = loaded["vectors"], loaded["batch_stats"]
        return other


class FlaxNNX(Flax):
    """`flax.nnx.BatchNorm`.

    Args:
        setting: what a check asks for.
        **options: further arguments of the module.
    """

    def __init__(self, setting: Setting, **options: Any) -> None:
        from flax import nnx

        self.nnx = nnx
        super().__init__(setting, **options)

    def _layer(self, gamma, beta, axis_name=None):
        asked = self._asked(axis_name) | {"rngs": self.nnx.Rngs(0)}
        layer = self.nnx.BatchNorm(self.setting.channels, **asked)
        layer.scale[...], layer.bias[...] = gamma, beta
        layer.mean[...], layer.var[...] = self.kept["mean"], self.kept["var"]
        return layer

    def _train(self, x, gamma, beta, axis_name=None, mask=None):
        layer = self._layer(gamma, beta, axis_name)
        y = layer(x, use_running_average=False, mask=mask)
        return y, {"mean": layer.mean[...], "var": layer.var[...]}

    def _infer(self, x):
        return self._layer(*self.vectors)(x, use_running_average=True)
