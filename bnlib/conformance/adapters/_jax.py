"""What adapters for layers on JAX share."""

from typing import Any

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting

REPLICAS = "replicas"  # the name of the axis along which they lie


class OnJax(Adapter):
    """A layer as two pure functions, which a subclass defines.

    `_train(x, gamma, beta, axis_name=None)` returns y and what the layer keeps; `_infer(x)` returns
    y. What it keeps is in `kept`.
    """

    kept: Any

    def __init__(self, setting: Setting) -> None:
        import jax

        if setting.dtype == "float64":
            jax.config.update("jax_enable_x64", True)
        self.jax, self.setting = jax, setting
        self.wide = "float64" if setting.dtype == "float64" else "float32"
        self.vectors = [self._wide(v) for v in setting.vectors()]

    def _wide(self, value):
        return self.jax.numpy.asarray(value, self.wide)

    def forward(self, x, training):
        """Call the layer, and keep its new statistics."""
        x = self.jax.numpy.asarray(x)
        if not training:
            return np.array(self._infer(x))
        y, self.kept = self._train(x, *self.vectors)
        return np.array(y)

    def _first(self, x, grad_y):
        def call(*inputs):
            return self._train(*inputs)[0]

        return self.jax.vjp(call, x, *self.vectors)[1](grad_y)

    def gradient(self, x, grad_y):
        """Differentiate with JAX."""
        grads = self._first(*map(self.jax.numpy.asarray, (x, grad_y)))
        return tuple(
            np.array(grad).reshape(-1 if n else x.shape) for n, grad in enumerate(grads)
        )

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the derivative."""
        x, grad_y, direction = map(self.jax.numpy.asarray, (x, grad_y, direction))
        vjp = self.jax.vjp(lambda x: self._first(x, grad_y)[0], x)[1]
        return np.array(vjp(direction)[0])

    def replicated(self, parts):
        """Map over the replicas, with a name for their axis."""

        def train(x):
            return self._train(x, *self.vectors, axis_name=REPLICAS)

        stacked = self.jax.numpy.stack(parts)
        y, kept = self.jax.vmap(train, axis_name=REPLICAS)(stacked)
        self.kept = self.jax.tree.map(lambda each: each[0], kept)
        return list(np.array(y))
