"""The other norms as layers of the tiny network: chapter 14 trains and compares them.

A layer is called as `layer(x, training=...)` and has `backward`, `parameters` and `gradients`, like
those of `bnlib.book.network`. The mathematics is in `bnlib.variants`, channels are the last axis.
"""

import math

import numpy as np

from bnlib.book.network import Dense
from bnlib.layer import BatchNorm
from bnlib.moments import moments
from bnlib.transform import batch_norm_inference
from bnlib.variants import (
    batch_renorm,
    batch_renorm_backward,
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
    scaled_weight_standardization,
    scaled_weight_standardization_backward,
    spectral_norm,
    spectral_norm_backward,
    weight_norm,
    weight_norm_backward,
    weight_standardization,
    weight_standardization_backward,
)

__all__ = [
    "Ghost",
    "Halves",
    "Norm",
    "Renorm",
    "WeightNorm",
    "group",
    "instance",
    "layer",
    "reweighted",
    "rms",
    "squash",
]


class Norm:
    """A norm that looks at one example alone, and so does the same in both modes.

    Args:
        function: called as `function(x, *parameters)`.
        backward: called as `backward(grad_y, x, *parameters)`; returns grad_x, then the gradient of
            each parameter.
        **parameters: arrays; a step of gradient descent changes them in place.

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
        grads = map(np.asarray, grads)  # that of a single number is an array too
        self.gradients = dict(zip(self.parameters, grads, strict=True))
        return grad_x


def layer(channels):
    """Make a layer norm over the channels.

    Args:
        channels: C.

    Returns:
        A `Norm`.
    """
    return Norm(layer_norm, _without_beta(layer_norm_backward), **_vectors(channels))


def instance(channels):
    """Make an instance norm.

    Args:
        channels: C.

    Returns:
        A `Norm`.
    """
    back = _without_beta(instance_norm_backward)
    return Norm(instance_norm, back, **_vectors(channels))


def group(groups):
    """Choose a number of groups.

    Args:
        groups: how many.

    Returns:
        A function of the number of channels that makes a `Norm`.
    """

    def forward(x, gamma, beta):
        return group_norm(x, groups, gamma, beta)

    def backward(grad_y, x, gamma, beta):
        return group_norm_backward(grad_y, x, groups, gamma)

    return lambda channels: Norm(forward, backward, **_vectors(channels))


def rms(channels):
    """Make an RMS norm, which has no beta.

    Args:
        channels: C.

    Returns:
        A `Norm`.
    """
    return Norm(rms_norm, rms_norm_backward, gamma=np.ones(channels))


def squash(channels, alpha=0.5):
    """Make a dynamic tanh.

    Args:
        channels: C.
        alpha: where the one slope starts that all channels share.

    Returns:
        A `Norm`.
    """

    def backward(grad_y, x, alpha, gamma, beta):
        return dynamic_tanh_backward(grad_y, x, alpha, gamma)

    # an array, so that a step can change it in place
    start = {"alpha": np.array(alpha), **_vectors(channels)}
    return Norm(dynamic_tanh, backward, **start)


class Ghost:
    """Ghost batch norm: each part of a batch has its own statistics; inference is batch norm's.

    Args:
        channels: C.
        size: examples in a part; must divide the batch.
        momentum: weight of the old moving average.
        epsilon: guard inside the root.

    Attributes:
        parameters: `gamma` and `beta`.
        gradients: of the last `backward`, with the same names.
        moving_mean: shape `(C,)`; every part of a batch takes part.
        moving_variance: likewise.
    """

    def __init__(self, channels, size, *, momentum=0.99, epsilon=1e-3):
        self.parameters, self.gradients = _vectors(channels), {}
        self.size, self.momentum, self.epsilon = size, momentum, epsilon
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        """Normalise x, and in training let the moving statistics follow."""
        if not training:
            return _inference(self, x)
        self._x = x
        for part in x.reshape(-1, self.size, *x.shape[1:]):
            _follow(self, moments(part))
        options = {"epsilon": self.epsilon}
        return ghost_batch_norm(x, self.size, *self.parameters.values(), **options)

    def backward(self, grad_y):
        """Return grad_x of the last call in training."""
        gamma, options = self.parameters["gamma"], {"epsilon": self.epsilon}
        grads = ghost_batch_norm_backward(grad_y, self._x, self.size, gamma, **options)
        return _keep(self, *grads)


class Renorm:
    """Batch renorm, with Keras's two pairs of moving statistics: of training and of inference.

    Args:
        channels: C.
        momentum: weight of the old average of those that rule inference.
        renorm_momentum: of those that training corrects by.
        clipping: called with the number of the step for `(rmax, dmax)`; default no limits.
        epsilon: guard inside the root.

    Attributes:
        parameters: `gamma` and `beta`.
        gradients: of the last `backward`, with the same names.
        moving_mean: shape `(C,)`, for inference.
        moving_variance: likewise.
        population: the mean and variance that training corrects by.
    """

    def __init__(
        self,
        channels,
        *,
        momentum=0.99,
        renorm_momentum=0.99,
        clipping=None,
        epsilon=1e-3,
    ):
        self.parameters, self.gradients = _vectors(channels), {}
        self.momentum, self.renorm_momentum = momentum, renorm_momentum
        self.clipping = clipping or (lambda step: (math.inf, math.inf))
        self.epsilon, self._step = epsilon, 0
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)
        self.population = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        """Normalise x, and in training let all moving statistics follow."""
        if not training:
            return _inference(self, x)
        rmax, dmax = self.clipping(self._step)
        options = {"rmax": rmax, "dmax": dmax, "epsilon": self.epsilon}
        options |= {"rmin": 0.0} if rmax == math.inf else {}
        self._saved = x, self.population, options
        y, batch = batch_renorm(
            x, *self.population, *self.parameters.values(), **options
        )
        old = self.renorm_momentum
        self.population = tuple(
            old * known + (1 - old) * new
            for known, new in zip(self.population, batch[:2], strict=True)
        )
        self._step += 1
        _follow(self, batch)
        return y

    def backward(self, grad_y):
        """Return grad_x of the last call in training."""
        x, population, options = self._saved
        gamma = self.parameters["gamma"]
        return _keep(
            self, *batch_renorm_backward(grad_y, x, *population, gamma, **options)
        )


class Halves:
    """Instance norm for the first half of the channels, batch norm for the others, as in IBN-Net.

    Args:
        channels: C.
        **options: go to `bnlib.BatchNorm`.

    Attributes:
        parameters: those of both halves.
        gradients: of the last `backward`, with the same names.
    """

    def __init__(self, channels, **options):
        self._half = channels // 2
        rest = BatchNorm(channels - self._half, **options)
        self._parts = [instance(self._half), rest]
        self.gradients = {}

    @property
    def parameters(self):
        """The arrays of both halves."""
        return _named(part.parameters for part in self._parts)

    def __call__(self, x, *, training):
        """Normalise each half its own way."""
        halves = zip(self._parts, self._cut(x), strict=True)
        parts = [part(half, training=training) for part, half in halves]
        return np.concatenate(parts, axis=-1)

    def backward(self, grad_y):
        """Return grad_x of the last call."""
        halves = zip(self._parts, self._cut(grad_y), strict=True)
        parts = [part.backward(half) for part, half in halves]
        self.gradients = _named(part.gradients for part in self._parts)
        return np.concatenate(parts, axis=-1)

    def _cut(self, x):
        return np.split(x, [self._half], axis=-1)


class WeightNorm(Dense):
    """A dense layer whose kernel is a function of what is trained.

    Args:
        dense: a `Dense`; its kernel is the starting point.
        function: called as `function(kernel, *others)`; returns the kernel to use.
        backward: called as `backward(grad_kernel, kernel, *others)`; returns the gradient of the
            kernel that is trained, and those of the others.
        **others: further arrays that are trained.
    """

    def __init__(self, dense, function, backward, **others):
        bias = dense.parameters.get("bias")
        self.parameters = {"kernel": dense.parameters["kernel"], **others}
        self._others = list(others)
        if bias is not None:
            self.parameters["bias"] = bias
        self.gradients, self._function, self._backward = {}, function, backward

    def kernel(self):
        """Return the kernel that is used."""
        return self._function(*self._trained())

    def __call__(self, x, *, training):
        """Map `(N, D)` to `(N, C)`."""
        self._x, self._kernel = x, self.kernel()
        return x @ self._kernel + self.parameters.get("bias", 0)

    def backward(self, grad_y):
        """Return grad_x; the gradients of all that is trained are left in `gradients`."""
        grads = self._backward(self._x.T @ grad_y, *self._trained())
        grads = grads if isinstance(grads, tuple) else (grads,)
        names = ["kernel", *self._others]
        self.gradients = dict(zip(names, grads, strict=True))
        self.gradients["bias"] = grad_y.sum(axis=0)
        return grad_y @ self._kernel.T

    def _trained(self):
        return [self.parameters[name] for name in ("kernel", *self._others)]


def reweighted(dense, kind, *, seed=0):
    """Give a dense layer a norm of its weights.

    Args:
        dense: a `Dense`, whose arrays the new layer goes on with.
        kind: "weight norm", "standardised", "scaled" (standardised, with a gain that makes up for a
            ReLU) or "spectral".
        seed: of the vector with which "spectral" begins.

    Returns:
        A `WeightNorm`, which is a `Dense`.

    Raises:
        ValueError: for another kind.
    """
    kernel = dense.parameters["kernel"]
    if kind == "weight norm":
        lengths = np.sqrt((kernel**2).sum(axis=0))
        return WeightNorm(dense, weight_norm, weight_norm_backward, g=lengths)
    if kind == "standardised":
        return WeightNorm(
            dense, weight_standardization, weight_standardization_backward
        )
    if kind == "scaled":
        gain = np.full(kernel.shape[1], (2 / (1 - 1 / np.pi)) ** 0.5)
        pair = scaled_weight_standardization, scaled_weight_standardization_backward
        return WeightNorm(dense, *pair, gain=gain)
    if kind == "spectral":
        return _Spectral(dense, np.random.default_rng(seed))
    raise ValueError(
        "kind must be 'weight norm', 'standardised', 'scaled' or 'spectral'; "
        f"got {kind!r}."
    )


class _Spectral(WeightNorm):
    """A kernel divided by its largest singular value, as one power step per call knows it."""

    def __init__(self, dense, rng):
        super().__init__(dense, None, spectral_norm_backward)
        self._u = rng.normal(size=dense.parameters["kernel"].shape[1])

    def kernel(self):
        before = self._u
        self._function = lambda kernel: spectral_norm(kernel, before)[0]
        kernel, self._u = spectral_norm(self.parameters["kernel"], before)
        self._backward = lambda grad, kernel: spectral_norm_backward(
            grad, kernel, before
        )
        return kernel


def _vectors(channels):
    return {"gamma": np.ones(channels), "beta": np.zeros(channels)}


def _without_beta(backward):
    """Return a backward pass that may be given a beta, which it does not need."""
    return lambda grad_y, x, gamma, beta: backward(grad_y, x, gamma)


def _inference(norm, x):
    known = norm.moving_mean, norm.moving_variance, *norm.parameters.values()
    return batch_norm_inference(x, *known, epsilon=norm.epsilon)


def _follow(norm, batch):
    """Move the statistics of inference towards a batch's."""
    old = norm.momentum
    norm.moving_mean = old * norm.moving_mean + (1 - old) * batch.mean
    norm.moving_variance = old * norm.moving_variance + (1 - old) * batch.variance


def _keep(norm, grad_x, grad_gamma, grad_beta):
    norm.gradients = {"gamma": grad_gamma, "beta": grad_beta}
    return grad_x


def _named(dicts):
    """Join the dicts of several layers, and number the names."""
    return {
        f"{k} {n}": value for k, each in enumerate(dicts) for n, value in each.items()
    }
