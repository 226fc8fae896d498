"""A user's program that touches every public name of the core: `make lint` checks its types.

It is what a type checker sees of bnlib from outside, in mypy's strictest mode. Lists, tuples,
arrays of any real dtype and masks go in; arrays and named tuples come out.
"""

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

import bnlib
from bnlib import blocks, variants

Floats = NDArray[np.floating]

x = np.random.default_rng(0).normal(3, 2, (11, 5, 3)).astype(np.float32)
mask = np.arange(11) < 7

# Statistics
where: bnlib.Layout = bnlib.layout(x.shape, axis=(-1,))
mean, variance, count = bnlib.moments(x, axis=-1, weights=mask)
halves: list[bnlib.Moments] = [bnlib.moments(half) for half in (x[:4], x[4:])]
whole = bnlib.merge_moments(halves)
assert_type(whole.count, float)

# The transform and its gradients
x_hat = bnlib.normalize(x, mean, variance, epsilon=0)
y: Floats = bnlib.scale_and_shift(x_hat, [1, 2, 3], beta=np.zeros(3))
outputs, *statistics = bnlib.batch_norm(x.tolist(), gamma=(1, 2, 3), axis=np.int64(2))
served = bnlib.batch_norm_inference(x, *statistics, epsilon=1e-5)
grad_x, grad_gamma, grad_beta = bnlib.batch_norm_backward(y, x, statistics=whole)
staged: tuple[Floats, Floats, Floats] = bnlib.batch_norm_backward_staged(
    y, x, [1.0] * 3
)
frozen = bnlib.batch_norm_inference_backward(y, x, mean, variance, None)

# The layer and what it remembers
populations: list[bnlib.Population] = [
    bnlib.Exponential(3, momentum=0.9),
    bnlib.DebiasedExponential((3,), 0.9, bessel=True),
    bnlib.Cumulative(3),
    bnlib.Pooled(3),
]
for population in populations:
    layer = bnlib.BatchNorm(3, population=population, epsilon=1e-3)
    assert_type(layer(x, training=True), Floats)
    back: Floats = layer.backward(y)
    layer.parameters["gamma"] -= 0.1 * layer.gradients["gamma"]
    layer.restore(layer.state())
    population.update(whole)
    population.update(([0, 0, 0], np.ones(3), 2))
    assert_type(population.value(), bnlib.Moments)

# Parameters
total: int = bnlib.count_parameters(512, renorm=True).total
affine: bnlib.Affine = bnlib.as_affine(mean, variance, gamma=[1, 1, 1])
counted: bnlib.ParameterCount = bnlib.count_parameters(3, center=False)
kernel, bias = bnlib.fold(np.ones((2, 3)), None, mean, variance)
kernel, bias = bnlib.fold_forward(np.ones((3, 2)), None, mean, variance)
blocks.use("numpy", threads=1)

# Other norms of activations, and their gradients
layered: Floats = variants.layer_norm(x, np.ones((5, 3)), axis=(1, 2), epsilon=1e-5)
layered = variants.instance_norm(x.tolist(), [1, 2, 3], [0, 0, 0], axis=-1)
layered = variants.group_norm(x, 3, gamma=[1, 2, 3])
layered = variants.ghost_batch_norm(x[:10], 5, beta=(1, 2, 3))
layered = variants.rms_norm(x, [1.0] * 3)
layered = variants.pixel_norm(x, epsilon=1e-8)
layered = variants.filter_response_norm(x, tau=[0, 0, 0])
layered = variants.dynamic_tanh(x, 0.5, [1, 2, 3])
renormed, own = variants.batch_renorm(x, mean, variance, rmax=3, dmax=5, rmin=0)
assert_type(own, bnlib.Moments)
back, grad_gamma, grad_beta = variants.layer_norm_backward(y, x)
back, grad_gamma, grad_beta = variants.instance_norm_backward(y, x, [1, 2, 3])
back, grad_gamma, grad_beta = variants.group_norm_backward(y, x, 3)
back, grad_gamma, grad_beta = variants.ghost_batch_norm_backward(y[:10], x[:10], 5)
back, grad_gamma = variants.rms_norm_backward(y, x)
back = variants.pixel_norm_backward(y, x)
back, *grads = variants.filter_response_norm_backward(y, x, tau=[0, 0, 0])
back, slope, *grads = variants.dynamic_tanh_backward(y, x, 0.5)
assert_type(slope, float)
back, grad_gamma, grad_beta = variants.batch_renorm_backward(y, x, mean, variance)

# Norms of weights, and their gradients
kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
weights: Floats = variants.weight_norm(kernel, [1, 2, 3, 4])
weights = variants.weight_standardization(kernel, axis=-1)
weights = variants.scaled_weight_standardization(kernel, 1.71)
weights, u = variants.spectral_norm(kernel, [1, 2, 3, 4], steps=2)
back, grad_gain = variants.weight_norm_backward(weights, kernel, [1, 2, 3, 4])
back = variants.weight_standardization_backward(weights, kernel)
back, grad_gain = variants.scaled_weight_standardization_backward(weights, kernel)
back = variants.spectral_norm_backward(weights, kernel, u)
