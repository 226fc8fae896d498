"""An adapter for Flax, on JAX."""

from typing import Any

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting


class Flax(Adapter):
    """`flax.linen.BatchNorm`.

    Args:
        setting: what a check asks for.
        **options: further arguments of the module, such as `use_fast_variance=False`.
    """

    def __init__(self, setting: Setting, **options: Any) -> None:
        import jax
        from flax import linen

        if setting.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        self.jax, self.setting, self.options = jax, setting, options
        self.wide = "float64" if setting.dtype == "float64" else "float32"
        asked = {"axis": setting.axis, "epsilon": setting.epsilon}
        asked |= {"momentum": setting.momentum}
        asked |= {"dtype": setting.dtype, "param_dtype": self.wide}
        self.module = linen.BatchNorm(**asked | options)
        gamma, beta = (jax.numpy.asarray(v, self.wide) for v in setting.vectors())
        self.params = {"scale": gamma, "bias": beta}
        self.set_state(np.zeros(setting.channels), np.ones(setting.channels))

    def _apply(self, params, x, **options):
        variables = {"params": params, "batch_stats": self.stats}
        options |= {"use_running_average": False, "mutable": ["batch_stats"]}
        return self.module.apply(variables, x, **options)

    def forward(self, x, training):
        """Apply the module, and keep its new statistics."""
        x = self.jax.numpy.asarray(x)
        if not training:
            variables = {"params": self.params, "batch_stats": self.stats}
            return np.array(self.module.apply(variables, x, use_running_average=True))
        y, new = self._apply(self.params, x)
        self.stats = new["batch_stats"]
        return np.array(y)

    def _first(self, x, grad_y):
        def call(x, params):
            return self._apply(params, x)[0]

        return self.jax.vjp(call, x, self.params)[1](grad_y)

    def gradient(self, x, grad_y):
        """Differentiate with JAX."""
        x, grad_y = map(self.jax.numpy.asarray, (x, grad_y))
        grad_x, params = self._first(x, grad_y)
        return tuple(np.array(g) for g in (grad_x, params["scale"], params["bias"]))

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the derivative."""
        x, grad_y, direction = map(self.jax.numpy.asarray, (x, grad_y, direction))
        vjp = self.jax.vjp(lambda x: self._first(x, grad_y)[0], x)[1]
        return np.array(vjp(direction)[0])

    def masked(self, x, mask):
        """Give the mask the shape of x, which Flax wants."""
        mask = np.broadcast_to(mask[..., np.newaxis], x.shape)
        return np.array(self._apply(self.params, x, mask=mask)[0])

    def state(self):
        """Return the statistics."""
        return np.array(self.stats["mean"]), np.array(self.stats["var"])

    def set_state(self, moving_mean, moving_variance):
        """Replace the statistics."""
        both = {"mean": moving_mean, "var": moving_variance}
        as_array = self.jax.numpy.asarray
        self.stats = {name: as_array(v, self.wide) for name, v in both.items()}

    def reloaded(self):
        """Go through Flax's bytes."""
        from flax import serialization

        kept = {"params": self.params, "batch_stats": self.stats}
        other = type(self)(self.setting, **self.options)
        loaded = serialization.from_bytes(kept, serialization.to_bytes(kept))
        other.params, other.stats = loaded["params"], loaded["batch_stats"]
        return other
