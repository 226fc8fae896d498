"""Other norms: against loops, against central differences, and by what each leaves unchanged."""

import numpy as np
import pytest

from bnlib import variants


def normal(shape, seed=3):
    """Random numbers. A gradient of all ones would lie in the null space of most norms."""
    return np.random.default_rng(seed).standard_normal(shape)


def slope(function, point, direction, step=1e-5):
    """Derivative of `function` along `direction`, by a central difference of fourth order."""
    near, far = (
        function(point + k * step * direction) - function(point - k * step * direction)
        for k in (1, 2)
    )
    return (8 * near - far) / (12 * step)


# name: (shape of x, that of gamma and beta, positional settings, named settings)
NORMS = {
    "layer_norm": [
        ((4, 6), (6,), (), {}),
        ((4, 5, 6), (5, 6), (), {"axis": (-1, 1)}),
        ((4, 3, 5, 2), (3,), (), {"axis": 1, "epsilon": 0.1}),
        ((5, 4), (5, 4), (), {"axis": (0, 1)}),
    ],
    "instance_norm": [
        ((4, 5, 3), (3,), (), {}),
        ((4, 5, 2, 3), (3,), (), {"epsilon": 0.1}),
        ((4, 3, 5, 2), (3,), (), {"axis": 1}),
    ],
    "group_norm": [
        ((4, 5, 6), (6,), (2,), {}),
        ((4, 6, 5, 2), (6,), (3,), {"axis": 1, "epsilon": 0.1}),
        ((4, 6), (6,), (2,), {}),
        ((4, 3, 6), (6,), (1,), {}),
        ((4, 3, 6), (6,), (6,), {}),
    ],
    "ghost_batch_norm": [
        ((8, 3), (3,), (4,), {}),
        ((6, 5, 3), (3,), (2,), {"epsilon": 0.1}),
        ((6, 3, 5, 2), (3,), (3,), {"axis": 1}),
    ],
    "rms_norm": [
        ((4, 6), (6,), (), {}),
        ((4, 5, 6), (5, 6), (), {"axis": (-1, 1), "epsilon": 0.1}),
        ((4, 3, 5, 2), (3,), (), {"axis": 1}),
    ],
}
LAYOUTS = [(name, *layout) for name, layouts in NORMS.items() for layout in layouts]


# Against the definition.


@pytest.mark.parametrize(("name", "shape", "features", "settings", "options"), LAYOUTS)
def test_central_differences_in_random_directions(
    name, shape, features, settings, options
):
    forward = getattr(variants, name)
    backward = getattr(variants, f"{name}_backward")
    x, grad_y = 2 + normal(shape, 1), normal(shape, 2)
    gamma, beta = 1 + normal((2, *features), 4)
    learned = (gamma,) if name == "rms_norm" else (gamma, beta)
    point = [x, *learned]
    grads = backward(grad_y, x, *settings, gamma, **options)
    assert len(grads) == len(point)
    for place, grad in enumerate(grads):
        assert grad.shape == point[place].shape

        def loss(value, place=place):
            x, *learned = [*point[:place], value, *point[place + 1 :]]
            return np.sum(grad_y * forward(x, *settings, *learned, **options))

        for seed in range(3):
            direction = normal(grad.shape, seed)
            along = slope(loss, point[place], direction)
            assert np.sum(grad * direction) == pytest.approx(along, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("name", "shape", "features", "settings", "options"), LAYOUTS)
def test_no_gamma_is_a_gamma_of_ones(name, shape, features, settings, options):
    forward = getattr(variants, name)
    backward = getattr(variants, f"{name}_backward")
    x, grad_y, ones = 2 + normal(shape, 1), normal(shape, 2), np.ones(features)
    np.testing.assert_allclose(
        forward(x, *settings, **options), forward(x, *settings, ones, **options)
    )
    for got, expected in zip(
        backward(grad_y, x, *settings, **options),
        backward(grad_y, x, *settings, ones, **options),
        strict=True,
    ):
        np.testing.assert_allclose(got, expected, atol=1e-15)
