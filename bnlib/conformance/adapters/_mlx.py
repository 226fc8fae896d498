"""An adapter for MLX."""

import tempfile
from pathlib import Path

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting


class MLX(Adapter):
    """`mlx.nn.BatchNorm`."""

    def __init__(self, setting: Setting) -> None:
        import mlx.core
        import mlx.nn

        if setting.ndim > 4:
            raise NotImplementedError("MLX takes 2 to 4 axes")
        if setting.axis % setting.ndim != setting.ndim - 1:
            raise NotImplementedError("channels first is not MLX's layout")
        self.mlx, self.setting = mlx, setting
        self.mlx.core.set_default_device(self.mlx.core.cpu)  # float64 is there alone
        options = {"eps": setting.epsilon, "momentum": 1 - setting.momentum}
        self.module = mlx.nn.BatchNorm(setting.channels, **options)
        self.module.set_dtype(getattr(mlx.core, setting.dtype))
        for name, value in zip(("weight", "bias"), setting.vectors(), strict=True):
            self.module[name] = self._tensor(value)

    def _tensor(self, value):
        kind = getattr(self.mlx.core, self.setting.dtype)
        if value.dtype.name == "bfloat16":
            value = value.astype("float32")
        return self.mlx.core.array(np.array(value), dtype=kind)

    def _array(self, tensor):
        if tensor.dtype != self.mlx.core.bfloat16:
            return np.array(tensor)
        import ml_dtypes

        wide = np.array(tensor.astype(self.mlx.core.float32))
        return wide.astype(ml_dtypes.bfloat16)

    def forward(self, x, training):
        """Call the module in the mode."""
        self.module.train(training)
        return self._array(self.module(self._tensor(x)))

    def _first(self, inputs, grad_y):
        """Return the gradients of y; the module's own statistics are left alone."""
        self.module.train()
        before = self.module.running_mean, self.module.running_var

        def call(x, weight, bias):
            self.module["weight"], self.module["bias"] = weight, bias
            return [self.module(x)]

        affine = self.module["weight"], self.module["bias"]
        try:
            return self.mlx.core.vjp(call, inputs, [grad_y])[1]
        finally:
            self.module["weight"], self.module["bias"] = affine
            self.module["running_mean"], self.module["running_var"] = before

    def gradient(self, x, grad_y):
        """Differentiate with MLX."""
        inputs = [self._tensor(x), self.module["weight"], self.module["bias"]]
        return tuple(map(self._array, self._first(inputs, self._tensor(grad_y))))

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the derivative."""
        x, grad_y, direction = map(self._tensor, (x, grad_y, direction))
        affine = [self.module["weight"], self.module["bias"]]

        def first(x):
            return [self._first([x, *affine], grad_y)[0]]

        return self._array(self.mlx.core.vjp(first, [x], [direction])[1][0])

    def state(self):
        """Return the running statistics."""
        return self._array(self.module.running_mean), self._array(
            self.module.running_var
        )

    def set_state(self, moving_mean, moving_variance):
        """Replace the running statistics."""
        self.module["running_mean"] = self._tensor(moving_mean)
        self.module["running_var"] = self._tensor(moving_variance)

    def reloaded(self):
        """Go through a file of safetensors."""
        other = type(self)(self.setting)
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "weights.safetensors"))
            self.module.save_weights(file)
            other.module.load_weights(file)
            self.mlx.core.eval(other.module.parameters())
        return other
