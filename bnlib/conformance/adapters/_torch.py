"""An adapter for PyTorch modules."""

import io
from typing import Any

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting


class Torch(Adapter):
    """A module with the arguments and buffers of PyTorch's.

    Args:
        setting: what a check asks for.
        module: a class, called as `module(channels, eps=, momentum=)`; default
            `torch.nn.BatchNorm1d`, `2d` or `3d`, by the axes of x.
    """

    def __init__(self, setting: Setting, module: Any = None) -> None:
        import torch

        if setting.axis % setting.ndim != 1:
            raise NotImplementedError("channels last is not PyTorch's layout")
        self.torch, self.setting, self.made_by = torch, setting, module
        spatial = max(setting.ndim - 2, 1)
        module = module or getattr(torch.nn, f"BatchNorm{spatial}d")
        options = {"eps": setting.epsilon, "momentum": 1 - setting.momentum}
        self.module = module(setting.channels, **options)
        if setting.dtype == "float64":
            self.module.double()
        with torch.no_grad():
            pairs = zip(self._affine(), setting.vectors(), strict=True)
            for parameter, value in pairs:
                parameter.copy_(torch.from_numpy(value))

    def _affine(self):
        return self.module.weight, self.module.bias

    def _tensor(self, x):
        """Return a tensor that shares the memory of x."""
        if x.dtype.name == "bfloat16":
            return self.torch.from_numpy(x.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(x)

    def forward(self, x, training):
        """Call the module in the mode."""
        self.module.train(training)
        y = self.module(self._tensor(x)).detach()
        if y.dtype != self.torch.bfloat16:
            return y.numpy()
        import ml_dtypes

        return y.view(self.torch.int16).numpy().view(ml_dtypes.bfloat16)

    def _differentiate(self, x, grad_y, create_graph):
        self.module.train()
        inputs = [x, *self._affine()]
        y = self.module(x)
        return self.torch.autograd.grad(y, inputs, grad_y, create_graph=create_graph)

    def gradient(self, x, grad_y):
        """Differentiate with autograd."""
        x, grad_y = self._tensor(x).requires_grad_(), self._tensor(grad_y)
        return tuple(g.numpy() for g in self._differentiate(x, grad_y, False))

    def second_derivative(self, x, grad_y, direction):
        """Differentiate the graph of the first derivative."""
        x, grad_y = self._tensor(x).requires_grad_(), self._tensor(grad_y)
        grad_x = self._differentiate(x, grad_y, True)[0]
        return self.torch.autograd.grad(grad_x, x, self._tensor(direction))[0].numpy()

    def replicated(self, parts):
        """Say why it is not tried."""
        raise NotImplementedError("SyncBatchNorm is for GPUs")

    def state(self):
        """Return the buffers."""
        both = (self.module.running_mean, self.module.running_var)
        return tuple(buffer.numpy().copy() for buffer in both)

    def set_state(self, moving_mean, moving_variance):
        """Fill the buffers."""
        self.module.running_mean.copy_(self.torch.from_numpy(moving_mean))
        self.module.running_var.copy_(self.torch.from_numpy(moving_variance))

    def reloaded(self):
        """Go through the state dict, in a file."""
        file = io.BytesIO()
        self.torch.save(self.module.state_dict(), file)
        file.seek(0)
        other = type(self)(self.setting, self.made_by)
        other.module.load_state_dict(self.torch.load(file, weights_only=True))
        return other
