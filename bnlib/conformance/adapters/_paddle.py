"""An adapter for PaddlePaddle."""

import tempfile
from pathlib import Path

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting

FIRST = {1: "NCL", 2: "NCHW", 3: "NCDHW"}
LAST = {1: "NLC", 2: "NHWC", 3: "NDHWC"}


class Paddle(Adapter):
    """`paddle.nn.BatchNorm1D`, `2D` or `3D`, by the axes of x."""

    def __init__(self, setting: Setting) -> None:
        import paddle

        if setting.dtype in ("float16", "bfloat16"):
            raise NotImplementedError("on a CPU there is no kernel for 16 bits")
        self.paddle, self.setting = paddle, setting
        spatial = max(setting.ndim - 2, 1)
        first = setting.axis % setting.ndim == 1
        layer = getattr(paddle.nn, f"BatchNorm{spatial}D")
        asked = {"momentum": setting.momentum, "epsilon": setting.epsilon}
        asked["data_format"] = (FIRST if first else LAST)[spatial]
        self.layer = layer(setting.channels, **asked)
        self.layer.to(dtype=setting.dtype)
        for variable, value in zip(self._affine(), setting.vectors(), strict=True):
            variable.set_value(value.astype(setting.dtype))

    def _affine(self):
        return self.layer.weight, self.layer.bias

    def _moving(self):
        return self.layer._mean, self.layer._variance

    def forward(self, x, training):
        """Call the layer in the mode."""
        self.layer.train() if training else self.layer.eval()
        return self.layer(self.paddle.to_tensor(x)).numpy()

    def _first(self, x, grad_y, create_graph=False):
        x.stop_gradient = False
        self.layer.train()
        y, inputs = self.layer(x), [x, *self._affine()]
        grad = self.paddle.grad
        return grad([y], inputs, [grad_y], create_graph=create_graph)

    def gradient(self, x, grad_y):
        """Differentiate with Paddle."""
        grads = self._first(*map(self.paddle.to_tensor, (x, grad_y)))
        return tuple(grad.numpy() for grad in grads)

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the derivative."""
        x, grad_y, direction = map(self.paddle.to_tensor, (x, grad_y, direction))
        grad_x = self._first(x, grad_y, create_graph=True)[0]
        return self.paddle.grad([grad_x], [x], [direction])[0].numpy()

    def state(self):
        """Return the moving statistics."""
        return tuple(np.array(variable.numpy()) for variable in self._moving())

    def set_state(self, moving_mean, moving_variance):
        """Replace the moving statistics."""
        values = (moving_mean, moving_variance)
        for variable, value in zip(self._moving(), values, strict=True):
            variable.set_value(value.astype(self.setting.dtype))

    def reloaded(self):
        """Go through a file of Paddle's."""
        other = type(self)(self.setting)
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "layer.pdparams"))
            self.paddle.save(self.layer.state_dict(), file)
            other.layer.set_state_dict(self.paddle.load(file))
        return other
