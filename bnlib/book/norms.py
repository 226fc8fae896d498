"""The other norms as layers of the tiny network: chapter 14 trains and compares them.

A layer here is called as `layer(x, training=...)` and has `backward`, `parameters` and `gradients`,
like those of `bnlib.book.network`. The mathematics is in `bnlib.variants`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bnlib.moments import moments
from bnlib.transform import batch_norm_inference
from bnlib.gradient import batch_norm_backward, batch_norm_inference_backward
from bnlib.variants import (
    dynamic_tanh,
    dynamic_tanh_backward,
    ghost_batch_norm,
    ghost_batch_norm_backward,
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)

__all__ = ["Ghost", "Norm", "Renorm", "Split", "group", "instance", "layer", "rms", "squash"]


class Norm:
    """A norm that asks no other example, and so is the same in both modes.

    Args:
        function: called as `function(x, *parameters)`.
        backward: called as `backward(grad_y, x, *parameters)`; returns grad_x, and the gradient of
            each parameter.
        **parameters: arrays, which steps of gradient descent change in place.

    Attributes:
        parameters: dict of the arrays.
        gradients: dict of the last `backward`, with the same names.
    """

    def __init__(self, function, backward, **parameters):
        self.parameters, self.gradients = parameters, {}
        self._function, self._backward = function, backward

    def __call__(self, x, *, training):
        """Normalise x; `training` changes nothing here."""
        self._x = x
        return self._function(x, *self.parameters.values())

    def backward(self, grad_y):
        """Return grad_x; the gradients of the parameters are left in `gradients`."""
        grad_x, *grads = self._backward(grad_y, self._x, *self.parameters.values())
        self.gradients = dict(zip(self.parameters, grads, strict=True))
        return grad_x


def _vectors(channels):
    return {"gamma": np.ones(channels), "beta": np.zeros(channels)}


def layer(channels):
    return Norm(layer_norm, lambda g, x, gamma, beta: layer_norm_backward(g, x, gamma), **_vectors(channels))


def instance(channels):
    return Norm(instance_norm, lambda g, x, gamma, beta: instance_norm_backward(g, x, gamma), **_vectors(channels))


def group(groups):
    return lambda channels: Norm(
        lambda x, gamma, beta: group_norm(x, groups, gamma, beta),
        lambda g, x, gamma, beta: group_norm_backward(g, x, groups, gamma),
        **_vectors(channels),
    )


def rms(channels):
    return Norm(rms_norm, rms_norm_backward, gamma=np.ones(channels))


def squash(channels, alpha=0.5):
    return Norm(
        dynamic_tanh,
        lambda g, x, alpha, gamma, beta: dynamic_tanh_backward(g, x, alpha, gamma),
        alpha=np.array(alpha), **_vectors(channels),
    )


class Ghost:
    def __init__(self, channels, size, *, momentum=0.99, epsilon=1e-3):
        self.parameters, self.gradients = _vectors(channels), {}
        self.size, self.momentum, self.epsilon = size, momentum, epsilon
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        self._x, self._training = x, training
        gamma, beta = self.parameters.values()
        if not training:
            return batch_norm_inference(x, self.moving_mean, self.moving_variance, gamma, beta, epsilon=self.epsilon)
        for part in x.reshape(-1, self.size, *x.shape[1:]):
            mean, variance, _ = moments(part)
            self.moving_mean = self.momentum * self.moving_mean + (1 - self.momentum) * mean
            self.moving_variance = self.momentum * self.moving_variance + (1 - self.momentum) * variance
        return ghost_batch_norm(x, self.size, gamma, beta, epsilon=self.epsilon)

    def backward(self, grad_y):
        grad_x, grad_gamma, grad_beta = ghost_batch_norm_backward(
            grad_y, self._x, self.size, self.parameters["gamma"], epsilon=self.epsilon)
        self.gradients = {"gamma": grad_gamma, "beta": grad_beta}
        return grad_x


class Renorm:
    def __init__(self, channels, *, momentum=0.99, renorm_momentum=0.99, clipping=None, epsilon=1e-3):
        self.parameters, self.gradients = _vectors(channels), {}
        self.momentum, self.renorm_momentum, self.epsilon = momentum, renorm_momentum, epsilon
        self.clipping = clipping or (lambda step: (np.inf, np.inf))
        self.step = 0
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)
        self.mean, self.deviation = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        gamma, beta = self.parameters.values()
        if not training:
            return batch_norm_inference(x, self.moving_mean, self.moving_variance, gamma, beta, epsilon=self.epsilon)
        mean, variance, _ = moments(x)
        s = np.sqrt(variance + self.epsilon)
        rmax, dmax = self.clipping(self.step)
        self.step += 1
        r = np.clip(s / self.deviation, 1 / rmax, rmax)
        d = np.clip((mean - self.mean) / self.deviation, -dmax, dmax)
        x_hat = (x - mean) / s
        self._saved = x, r, d, x_hat, s
        m = self.renorm_momentum
        self.mean = m * self.mean + (1 - m) * mean
        self.deviation = m * self.deviation + (1 - m) * s
        m = self.momentum
        self.moving_mean = m * self.moving_mean + (1 - m) * mean
        self.moving_variance = m * self.moving_variance + (1 - m) * variance
        return gamma * (x_hat * r + d) + beta

    def backward(self, grad_y):
        x, r, d, x_hat, s = self._saved
        axes = tuple(range(x.ndim - 1))
        self.gradients = {"gamma": (grad_y * (x_hat * r + d)).sum(axes), "beta": grad_y.sum(axes)}
        g = grad_y * self.parameters["gamma"] * r / s
        return g - g.mean(axes) - x_hat * (g * x_hat).mean(axes)
