"""Gradients of the tiny networks, checked in one random direction each."""

import numpy as np
import pytest


def assert_gradients(network, x, loss, rng, **bounds):
    """Compare each gradient, in a random direction, with a difference quotient; return how many.

    `loss` maps the network's output to a value and its gradient.
    """

    def output():
        return network(x, training=True, update=False)

    grad_x = network.backward(loss(output())[1])
    gradients = [
        (layer.parameters[name], layer.gradients[name].copy())
        for layer in network.layers
        for name in layer.parameters
    ]
    for array, gradient in [*gradients, (x, grad_x)]:
        direction, kept, step = rng.normal(size=array.shape), array.copy(), 1e-6
        array += step * direction
        up, _ = loss(output())
        array[...] = kept - step * direction
        down, _ = loss(output())
        array[...] = kept
        slope = (up - down) / (2 * step)
        assert np.sum(gradient * direction) == pytest.approx(slope, **bounds)
    return len(gradients) + 1
