"""An adapter for tinygrad."""

import tempfile
from pathlib import Path

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting


class Tinygrad(Adapter):
    """`tinygrad.nn.BatchNorm`."""

    def __init__(self, setting: Setting) -> None:
        import tinygrad

        if setting.axis % setting.ndim != 1:
            raise NotImplementedError("channels last is not tinygrad's layout")
        if setting.dtype == "bfloat16":
            raise NotImplementedError("NumPy's bfloat16 cannot be handed over")
        self.tinygrad, self.setting = tinygrad, setting
        options = {"eps": setting.epsilon, "momentum": 1 - setting.momentum}
        self.layer = tinygrad.nn.BatchNorm(setting.channels, **options)
        wide = "float64" if setting.dtype == "float64" else "float32"
        self.wide = wide
        gamma, beta = setting.vectors()
        self.layer.weight, self.layer.bias = self._wide(gamma), self._wide(beta)
        self.set_state(np.zeros(setting.channels), np.ones(setting.channels))

    def _wide(self, value):
        return self.tinygrad.Tensor(value.astype(self.wide))

    def _call(self, x, training):
        with self.tinygrad.Context(TRAINING=int(training)):
            return self.layer(x)

    def forward(self, x, training):
        """Call the layer in the mode."""
        return self._call(self.tinygrad.Tensor(x), training).numpy()

    def _first(self, x, grad_y):
        y = self._call(x, True)
        return y.gradient(x, self.layer.weight, self.layer.bias, gradient=grad_y)

    def gradient(self, x, grad_y):
        """Differentiate with tinygrad."""
        grads = self._first(*map(self.tinygrad.Tensor, (x, grad_y)))
        return tuple(grad.numpy() for grad in grads)

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the derivative."""
        x, grad_y, direction = map(self.tinygrad.Tensor, (x, grad_y, direction))
        grad_x = self._first(x, grad_y)[0]
        return grad_x.gradient(x, gradient=direction)[0].numpy()

    def state(self):
        """Return the running statistics."""
        both = self.layer.running_mean, self.layer.running_var
        return tuple(np.array(each.numpy()) for each in both)

    def set_state(self, moving_mean, moving_variance):
        """Replace the running statistics."""
        self.layer.running_mean = self._wide(moving_mean)
        self.layer.running_var = self._wide(moving_variance)

    def reloaded(self):
        """Go through a file of safetensors."""
        state, other = self.tinygrad.nn.state, type(self)(self.setting)
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "layer.safetensors"))
            state.safe_save(state.get_state_dict(self.layer), file)
            loaded = state.safe_load(file)
            state.load_state_dict(other.layer, loaded, verbose=False)
        return other
