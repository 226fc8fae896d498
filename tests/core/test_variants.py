"""Other norms: against loops, against central differences, and by what each leaves unchanged."""

import inspect
import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bnlib import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    moments,
    variants,
)

LEARNED = "x", "v", "kernel", "alpha", "gamma", "beta", "tau", "g", "gain"


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


def pair(name):
    return getattr(variants, name), getattr(variants, f"{name}_backward")


def taken(function, values):
    """Keep the arguments that a function takes."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in values.items() if name in known}


def forward(name, **values):
    """Call a norm; return its array alone."""
    function = getattr(variants, name)
    y = function(**taken(function, values))
    return y[0] if isinstance(y, tuple) else y


def backward(name, grad, **values):
    """Call the backward pass of a norm; return its gradients as a tuple."""
    function = getattr(variants, f"{name}_backward")
    grads = function(grad, **taken(function, values))
    return grads if isinstance(grads, tuple) else (grads,)


def point(name, shape, features, seed=4):
    """Draw what a norm is differentiated by."""
    drawn = {
        "x": 2 + normal(shape, 1),
        "v": 2 + normal(shape, 1),
        "kernel": 2 + normal(shape, 1),
        "alpha": 0.3,
    }
    vectors = 1 + normal((5, *features), seed)
    drawn |= zip(("gamma", "beta", "tau", "g", "gain"), vectors, strict=True)
    return taken(getattr(variants, name), drawn)


# name: (shape of x, shape of what is learned, settings)
NORMS = {
    "layer_norm": [
        ((4, 6), (6,), {}),
        ((4, 5, 6), (5, 6), {"axis": (-1, 1)}),
        ((4, 3, 5, 2), (3,), {"axis": 1, "epsilon": 0.1}),
        ((5, 4), (5, 4), {"axis": (0, 1)}),
    ],
    "instance_norm": [
        ((4, 5, 3), (3,), {}),
        ((4, 5, 2, 3), (3,), {"epsilon": 0.1}),
        ((4, 3, 5, 2), (3,), {"axis": 1}),
    ],
    "group_norm": [
        ((4, 5, 6), (6,), {"groups": 2}),
        ((4, 6, 5, 2), (6,), {"groups": 3, "axis": 1, "epsilon": 0.1}),
        ((4, 6), (6,), {"groups": 2}),
        ((4, 3, 6), (6,), {"groups": 1}),
        ((4, 3, 6), (6,), {"groups": 6}),
    ],
    "ghost_batch_norm": [
        ((8, 3), (3,), {"size": 4}),
        ((6, 5, 3), (3,), {"size": 2, "epsilon": 0.1}),
        ((6, 3, 5, 2), (3,), {"size": 3, "axis": 1}),
    ],
    "rms_norm": [
        ((4, 6), (6,), {}),
        ((4, 5, 6), (5, 6), {"axis": (-1, 1), "epsilon": 0.1}),
        ((4, 3, 5, 2), (3,), {"axis": 1}),
    ],
    "pixel_norm": [
        ((4, 6), (), {}),
        ((4, 3, 5, 2), (), {"axis": 1, "epsilon": 0.1}),
    ],
    "filter_response_norm": [
        ((4, 5, 3), (3,), {}),
        ((4, 3, 5, 2), (3,), {"axis": 1, "epsilon": 0.1}),
    ],
    "dynamic_tanh": [
        ((4, 6), (6,), {}),
        ((4, 3, 5, 2), (3,), {"axis": 1}),
    ],
    "weight_norm": [
        ((6, 3), (3,), {}),
        ((3, 2, 4, 5), (3,), {"axis": 0}),
    ],
    "weight_standardization": [
        ((6, 3), (), {}),
        ((3, 2, 4, 5), (), {"axis": 0, "epsilon": 0.1}),
    ],
    "scaled_weight_standardization": [
        ((6, 3), (3,), {}),
        ((3, 2, 4, 5), (3,), {"axis": 0, "epsilon": 0.1}),
        ((6, 3), (), {}),
    ],
    "spectral_norm": [  # converged: u and v may then be held constant
        ((6, 3), (), {"u": normal(3), "steps": 1000}),
        ((3, 2, 4, 2), (), {"u": normal(3), "axis": 0, "steps": 1000}),
    ],
    "batch_renorm": [  # both limits are met in each channel, so that r and d are constant
        (
            (8, 3),
            (3,),
            {
                "moving_mean": [-50, 50, -50],
                "moving_variance": [0.01, 0.01, 900],
                "rmax": 1.5,
                "dmax": 0.5,
            },
        ),
        (
            (6, 2, 5, 2),
            (2,),
            {
                "moving_mean": [-500, 500],
                "moving_variance": [0.01, 900],
                "rmax": 2,
                "rmin": 0.5,
                "dmax": 3,
                "axis": 1,
                "epsilon": 0.1,
            },
        ),
    ],
}
LAYOUTS = [(name, *layout) for name, layouts in NORMS.items() for layout in layouts]
layouts = pytest.mark.parametrize(("name", "shape", "features", "settings"), LAYOUTS)


def test_every_norm_is_tested():
    names = {name.removesuffix("_backward") for name in variants.__all__}
    assert names == set(NORMS)
    assert len(variants.__all__) == 2 * len(names)


# Against the definition.


@layouts
def test_central_differences_in_random_directions(name, shape, features, settings):
    values, grad_y = point(name, shape, features), normal(shape, 2)
    grads = backward(name, grad_y, **values, **settings)
    order = [learned for learned in LEARNED if learned in values]
    if name == "dynamic_tanh":
        assert order[1] == "alpha"
    assert len(grads) == len(order)
    for learned, grad in zip(order, grads, strict=True):
        assert np.shape(grad) == np.shape(values[learned])

        def loss(value, learned=learned):
            y = forward(name, **(values | {learned: value}), **settings)
            return np.sum(grad_y * y)

        for seed in range(3):
            direction = normal(np.shape(grad), seed)
            along = slope(loss, values[learned], direction)
            assert np.sum(grad * direction) == pytest.approx(along, rel=1e-6, abs=1e-7)


@layouts
def test_what_is_left_out_is_ones_and_zeros(name, shape, features, settings):
    values, grad_y = point(name, shape, features), normal(shape, 2)
    learned = {"gamma": 1.0, "beta": 0.0, "tau": -np.inf, "gain": 1.0}
    plain = {k: v for k, v in values.items() if k not in learned}
    named = {k: np.full(features, v) for k, v in learned.items() if k in values}
    np.testing.assert_allclose(
        forward(name, **plain, **settings),
        forward(name, **plain, **named, **settings),
        atol=1e-15,
    )
    for got, expected in zip(
        backward(name, grad_y, **plain, **settings),
        backward(name, grad_y, **plain, **named, **settings),
        strict=True,
    ):
        if np.shape(got) == np.shape(expected):  # a gain of one number has another
            np.testing.assert_allclose(got, expected, atol=1e-14)


# Against loops over Python numbers. Who shares statistics with whom is said here once more, by the
# index of a value: (N, H, W, C), channels last.

GROUPS = {
    "layer_norm": lambda n, h, w, c: (n, h, w),
    "instance_norm": lambda n, h, w, c: (n, c),
    "group_norm": lambda n, h, w, c: (n, c // 3),
    "ghost_batch_norm": lambda n, h, w, c: (n // 2, c),
    "rms_norm": lambda n, h, w, c: (n, h, w),
    "pixel_norm": lambda n, h, w, c: (n, h, w),
    "filter_response_norm": lambda n, h, w, c: (n, c),
    "batch_renorm": lambda n, h, w, c: c,
    "weight_norm": lambda h, w, i, o: o,
    "weight_standardization": lambda h, w, i, o: o,
    "scaled_weight_standardization": lambda h, w, i, o: o,
    "dynamic_tanh": lambda *index: index,
}
LOOPED = [name for name in GROUPS if name != "dynamic_tanh"]
UNCENTRED = {"rms_norm", "pixel_norm", "filter_response_norm", "weight_norm"}
SETTINGS = {
    "group_norm": {"groups": 2},
    "ghost_batch_norm": {"size": 2},
    "batch_renorm": {"moving_mean": np.arange(6), "moving_variance": np.arange(1, 7)},
}


def loop_moments(x, group, centred):
    """Mean and variance of each group, exactly; the mean is 0 where it is not taken away."""
    values = defaultdict(list)
    for index in np.ndindex(x.shape):
        values[group(*index)].append(Fraction(float(x[index])))
    found = {}
    for key, members in values.items():
        mean = sum(members) / len(members) if centred else Fraction(0)
        variance = sum((v - mean) ** 2 for v in members) / len(members)
        found[key] = mean, variance, len(members)
    return found


def loop_norm(
    name, x, epsilon, gamma, beta, tau, g, gain, moving_mean, moving_variance
):
    """Normalise one value after another."""
    found = loop_moments(x, GROUPS[name], name not in UNCENTRED)
    y = np.empty(x.shape)
    for index in np.ndindex(x.shape):
        c = index[-1]
        mean, variance, count = found[GROUPS[name](*index)]
        centred, variance = float(Fraction(float(x[index])) - mean), float(variance)
        sigma = math.sqrt(variance + epsilon)
        if name == "weight_norm":
            y[index] = g[c] * centred / math.sqrt(variance * count)
        elif name == "scaled_weight_standardization":
            y[index] = gain[c] * centred / math.sqrt(variance * count + epsilon)
        elif name == "batch_renorm":
            known = math.sqrt(moving_variance[c] + epsilon)
            r = min(max(sigma / known, 1 / 3), 3)
            d = min(max((float(mean) - moving_mean[c]) / known, -5), 5)
            y[index] = gamma[c] * (centred / sigma * r + d) + beta[c]
        else:
            y[index] = centred / sigma
            y[index] *= 1 if gamma is None else gamma[c]
            y[index] += 0 if beta is None else beta[c]
            y[index] = y[index] if tau is None else max(y[index], tau[c])
    return y


def looped(name, values, settings):
    """Call the loop, with None for what the norm does not take."""
    [x] = (values[k] for k in ("x", "v", "kernel") if k in values)
    defaults = inspect.signature(getattr(variants, name)).parameters
    epsilon = defaults["epsilon"].default if "epsilon" in defaults else 0
    known = list(inspect.signature(loop_norm).parameters)[3:]
    given = {k: v for k, v in (values | settings).items() if k in known}
    return loop_norm(name, x, epsilon, **(dict.fromkeys(known) | given))


@pytest.mark.parametrize("name", LOOPED)
def test_against_the_loop(name):
    values, settings = point(name, (4, 2, 5, 6), (6,)), SETTINGS.get(name, {})
    expected = looped(name, values, settings)
    np.testing.assert_allclose(
        forward(name, **values, **settings), expected, rtol=1e-12
    )


def test_dynamic_tanh_against_the_loop():
    values = point("dynamic_tanh", (4, 5, 6), (6,))
    y = variants.dynamic_tanh(**values)
    for index in np.ndindex(y.shape):
        x_hat = math.tanh(values["alpha"] * values["x"][index])
        gamma, beta = values["gamma"][index[-1]], values["beta"][index[-1]]
        assert y[index] == pytest.approx(gamma * x_hat + beta, rel=1e-12)


def test_the_loop_of_renorm_meets_both_limits_and_neither():
    values = point("batch_renorm", (4, 2, 5, 6), (6,))
    far = {"moving_mean": np.arange(6) - [0, 90, 0, 0, -90, 0]}
    far |= {"moving_variance": np.array([1, 1, 1e-3, 500, 5, 6])}
    y = forward("batch_renorm", **values, **far)
    expected = looped("batch_renorm", values, far)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    mean, variance, _ = moments(values["x"])
    sigma = np.sqrt(far["moving_variance"] + 1e-3)
    r, d = np.sqrt(variance + 1e-3) / sigma, (mean - far["moving_mean"]) / sigma
    assert r.max() > 3
    assert r.min() < 1 / 3
    assert d.max() > 5
    assert d.min() < -5
    assert np.any((np.abs(d) < 5) & (r < 3) & (r > 1 / 3))


def test_spectral_norm_against_the_singular_values():
    kernel, u = normal((3, 2, 4, 5), 1), normal(5)
    largest = np.linalg.svd(kernel.reshape(-1, 5), compute_uv=False)[0]
    y, u = variants.spectral_norm(kernel, u, steps=500)
    np.testing.assert_allclose(y, kernel / largest, rtol=1e-12)
    assert np.linalg.norm(u) == pytest.approx(1)
    moved, u_moved = variants.spectral_norm(np.moveaxis(kernel, -1, 0), u, axis=0)
    np.testing.assert_allclose(np.moveaxis(moved, 0, -1), y, rtol=1e-12)
    np.testing.assert_allclose(u_moved, u, rtol=1e-6, atol=1e-6)


def test_many_steps_at_once_are_one_step_many_times():
    kernel, u = normal((7, 5), 1), normal(5)
    at_once, last = variants.spectral_norm(kernel, u, steps=6)
    for _ in range(6):
        y, u = variants.spectral_norm(kernel, u)
    np.testing.assert_allclose(y, at_once, rtol=1e-12)
    np.testing.assert_allclose(u, last, rtol=1e-12)


def test_one_step_of_the_power_iteration_by_hand():
    kernel, u = normal((4, 3), 1), normal(3)
    v = [sum(kernel[i, o] * u[o] for o in range(3)) for i in range(4)]
    v = [value / math.hypot(*v) for value in v]
    image = [sum(kernel[i, o] * v[i] for i in range(4)) for o in range(3)]
    sigma = math.hypot(*image)
    y, new = variants.spectral_norm(kernel, u)
    np.testing.assert_allclose(y, kernel / sigma, rtol=1e-12)
    np.testing.assert_allclose(new, np.array(image) / sigma, rtol=1e-12)

    # the gradient, u and v as they came out
    grad_y = normal((4, 3), 2)
    got = variants.spectral_norm_backward(grad_y, kernel, u)

    def frozen(kernel):
        return np.sum(grad_y * kernel / (new @ kernel.T @ v))

    for seed in (0, 2, 3):
        direction = normal((4, 3), seed)
        along = slope(frozen, kernel, direction)
        assert np.sum(got * direction) == pytest.approx(along)
    # along the kernel itself, seed 1, a difference quotient would be rounding alone
    assert np.sum(got * kernel) == pytest.approx(0, abs=1e-12)


# The gradient of batch renorm between the limits: r and d are constants.

MOVING = {"moving_mean": [1.5, 2.0, 2.5], "moving_variance": [0.5, 1.0, 1.0]}


def test_renorm_holds_r_and_d_constant():
    x, grad_y, gamma = 2 + normal((8, 3), 1), normal((8, 3), 2), 1 + normal(3, 4)
    got = variants.batch_renorm_backward(grad_y, x, **MOVING, gamma=gamma)
    mean, variance, _ = moments(x)
    sigma = np.sqrt(np.array(MOVING["moving_variance"]) + 1e-3)
    r = np.sqrt(variance + 1e-3) / sigma
    d = (mean - MOVING["moving_mean"]) / sigma
    assert np.all((r > 1 / 3) & (r < 3) & (np.abs(d) < 5))

    def loss(x, gamma):
        x_hat, _, _ = batch_norm(x)
        return np.sum(grad_y * gamma * (x_hat * r + d))

    direction = normal((8, 3), 5)
    along = slope(lambda x: loss(x, gamma), x, direction)
    assert np.sum(got[0] * direction) == pytest.approx(along)
    along = slope(lambda gamma: loss(x, gamma), gamma, normal(3, 5))
    assert got[1] @ normal(3, 5) == pytest.approx(along)

    # and not the derivative of y, which between the limits is that of inference
    def whole(x):
        return np.sum(grad_y * variants.batch_renorm(x, **MOVING, gamma=gamma)[0])

    assert abs(np.sum(got[0] * direction) - slope(whole, x, direction)) > 0.1


# What each norm leaves unchanged, and where two are one.

blocks = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(2, 4), st.just(6)),
    elements=st.floats(-1e3, 1e3, width=32),
)
factors, offsets = st.floats(0.5, 20), st.floats(-50, 50)


def close(got, expected, atol=1e-7):
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=atol)


@given(blocks, factors, offsets)
def test_layer_norm_forgets_scale_and_shift_of_an_example(x, factor, offset):
    x[0, 0, 0] += 1e4  # no example whose values are all one
    plain = variants.layer_norm(x[:1], axis=(1, 2), epsilon=0)
    moved = variants.layer_norm(factor * x[:1] + offset, axis=(1, 2), epsilon=0)
    close(moved, plain)


@given(blocks, factors)
def test_rms_and_pixel_norm_forget_scale_and_remember_shift(x, factor):
    x += 1e4
    plain = variants.rms_norm(x, epsilon=0)
    close(variants.rms_norm(factor * x, epsilon=0), plain)
    close(variants.pixel_norm(x, epsilon=0), plain)
    away = variants.rms_norm(x + 1e5 * np.eye(6)[0], epsilon=0)
    assert np.abs(away - plain).max() > 0.1
    close(np.mean(plain**2, axis=-1), 1)


@given(blocks, offsets)
def test_rms_norm_of_centred_values_is_layer_norm(x, offset):
    centred = (x + offset) - (x + offset).mean(axis=-1, keepdims=True)
    close(
        variants.rms_norm(centred, epsilon=1e-3),
        variants.layer_norm(x, epsilon=1e-3),
    )


@given(blocks, st.integers(0, 5))
def test_no_example_touches_another(x, seed):
    """What tells these norms from batch norm, ghost batch norm and batch renorm."""
    gamma, beta, tau = normal((3, 6), seed)
    for function in (
        lambda x: variants.layer_norm(x, gamma, beta),
        lambda x: variants.instance_norm(x, gamma, beta),
        lambda x: variants.group_norm(x, 2, gamma, beta),
        lambda x: variants.rms_norm(x, gamma),
        variants.pixel_norm,
        lambda x: variants.filter_response_norm(x, gamma, beta, tau),
        lambda x: variants.dynamic_tanh(x, 0.5, gamma, beta),
    ):
        alone = np.concatenate([function(row[np.newaxis]) for row in x])
        np.testing.assert_allclose(function(x), alone, rtol=1e-12, atol=1e-12)


@given(blocks)
def test_instance_norm_is_group_norm_with_a_group_for_each_channel(x):
    gamma, beta = normal((2, 6), 1)
    close(
        variants.group_norm(x, 6, gamma, beta), variants.instance_norm(x, gamma, beta)
    )
    grad_y = normal(x.shape)
    for one, other in zip(
        variants.group_norm_backward(grad_y, x, 6, gamma),
        variants.instance_norm_backward(grad_y, x, gamma),
        strict=True,
    ):
        close(one, other)


@given(blocks)
def test_layer_norm_over_space_and_channels_is_group_norm_with_one_group(x):
    whole = variants.layer_norm(x, axis=(1, 2))
    close(variants.group_norm(x, 1), whole)
    grad_y = normal(x.shape)
    close(
        variants.group_norm_backward(grad_y, x, 1)[0],
        variants.layer_norm_backward(grad_y, x, axis=(1, 2))[0],
    )


def test_groups_are_neighbouring_channels():
    x = np.array([[1.0, 3.0, 10.0, 50.0]])
    y = variants.group_norm(x, 2, epsilon=0)
    np.testing.assert_allclose(y, [[-1, 1, -1, 1]], rtol=1e-12)
    first = variants.group_norm(x[:, :, np.newaxis], 2, axis=1, epsilon=0)
    np.testing.assert_allclose(first[..., 0], y, rtol=1e-12)


@given(blocks)
def test_one_ghost_of_all_is_batch_norm(x):
    gamma, beta = normal((2, 6), 1)
    size, grad_y = len(x), normal(x.shape)
    close(
        variants.ghost_batch_norm(x, size, gamma, beta), batch_norm(x, gamma, beta)[0]
    )
    for one, other in zip(
        variants.ghost_batch_norm_backward(grad_y, x, size, gamma),
        batch_norm_backward(grad_y, x, gamma),
        strict=True,
    ):
        close(one, other)


def test_ghosts_are_neighbours_and_alone():
    x, gamma, beta = normal((6, 5, 3)), normal(3, 1), normal(3, 2)
    y = variants.ghost_batch_norm(x, 2, gamma, beta)
    parts = [batch_norm(x[i : i + 2], gamma, beta)[0] for i in (0, 2, 4)]
    np.testing.assert_allclose(y, np.concatenate(parts), rtol=1e-12)


@given(blocks)
def test_renorm_without_room_is_batch_norm(x):
    gamma, beta, mean = normal((3, 6), 1)
    moving = {"moving_mean": mean, "moving_variance": np.arange(6), "gamma": gamma}
    y, batch = variants.batch_renorm(x, **moving, beta=beta, rmax=1, dmax=0)
    expected, *statistics = batch_norm(x, gamma, beta)
    close(y, expected)
    for one, other in zip(batch, statistics, strict=False):
        close(one, other)
    assert batch.count == x.size // 6
    grad_y = normal(x.shape)
    for one, other in zip(
        variants.batch_renorm_backward(grad_y, x, **moving, rmax=1, dmax=0),
        batch_norm_backward(grad_y, x, gamma),
        strict=True,
    ):
        close(one, other)


@given(blocks)
def test_renorm_wide_open_is_inference(x):
    """In value, not in gradient: training then sees what predictions will see."""
    gamma, beta, mean = normal((3, 6), 1)
    variance = np.arange(1.0, 7)
    y, _ = variants.batch_renorm(
        x, mean, variance, gamma, beta, rmax=math.inf, dmax=math.inf
    )
    close(y, batch_norm_inference(x, mean, variance, gamma, beta), atol=1e-6)


@given(hnp.arrays(float, (4, 6), elements=st.floats(-1e3, 1e3, width=32)), factors)
def test_weight_norm_forgets_the_length_of_v(v, factor):
    v[0] += 1e4
    g = 1 + normal(6, 1)
    kernel = variants.weight_norm(v, g)
    close(variants.weight_norm(factor * v, g), kernel, atol=1e-12)
    close(np.linalg.norm(kernel, axis=0), np.abs(g))
    grad_v, _ = variants.weight_norm_backward(normal((4, 6)), v, g)
    assert np.all(np.abs(np.sum(v * grad_v, axis=0)) < 1e-10)


def test_weight_norm_with_the_length_of_v_changes_nothing():
    v = normal((3, 4, 5), 1)
    g = np.sqrt(np.sum(v * v, axis=(0, 1)))
    np.testing.assert_allclose(variants.weight_norm(v, g), v, rtol=1e-12)


@given(hnp.arrays(float, (4, 6), elements=st.floats(-1e3, 1e3, width=32)), factors)
def test_standardised_weights_forget_scale_and_shift(kernel, factor):
    kernel[0] += 1e4
    plain = variants.weight_standardization(kernel, epsilon=0)
    close(variants.weight_standardization(factor * kernel + 3, epsilon=0), plain)
    close(plain.mean(axis=0), 0)
    close(plain.var(axis=0), 1)
    scaled = variants.scaled_weight_standardization(kernel, 1.5, epsilon=0)
    close(scaled, 1.5 * plain / 2)  # 4 inputs
    close(np.sum(scaled**2, axis=0), 1.5**2)


def test_a_gain_of_one_number_is_that_of_each_output():
    kernel, grad_y = normal((6, 3), 1), normal((6, 3), 2)
    one = variants.scaled_weight_standardization(kernel, 1.7)
    each = variants.scaled_weight_standardization(kernel, [1.7] * 3)
    np.testing.assert_array_equal(one, each)
    backward = variants.scaled_weight_standardization_backward
    grads, apart = (backward(grad_y, kernel, gain) for gain in (1.7, [1.7] * 3))
    np.testing.assert_array_equal(grads[0], apart[0])
    assert grads[1] == pytest.approx(apart[1].sum())


@given(hnp.arrays(float, (4, 6), elements=st.floats(-1e3, 1e3, width=32)), factors)
def test_spectral_norm_forgets_the_scale_and_never_overestimates(kernel, factor):
    kernel[0] += 1e4
    u = 1 + np.arange(6) / 7
    y, new = variants.spectral_norm(kernel, u)
    scaled, same = variants.spectral_norm(factor * kernel, 3 * u)
    close(scaled, y)
    close(same, new)
    assert np.linalg.norm(y, 2) >= 1 - 1e-9
    assert np.linalg.norm(variants.spectral_norm(kernel, u, steps=2)[0], 2) <= (
        np.linalg.norm(y, 2) + 1e-9
    )


def test_the_thresholds_gradient_goes_to_one_of_two():
    x, grad_y, tau = normal((2, 9, 3)), normal((2, 9, 3), 1), np.array([-0.5, 0, 0.5])
    y = variants.filter_response_norm(x, tau=tau)
    below = y == tau
    assert below.any(axis=(0, 1)).all()
    _, _, grad_beta, grad_tau = variants.filter_response_norm_backward(
        grad_y, x, tau=tau
    )
    np.testing.assert_allclose(grad_tau, (grad_y * below).sum(axis=(0, 1)))
    np.testing.assert_allclose(grad_beta, (grad_y * ~below).sum(axis=(0, 1)))
    relu = variants.filter_response_norm(x, tau=np.zeros(3))
    plain = variants.filter_response_norm(x)
    np.testing.assert_array_equal(relu, np.maximum(plain, 0))


# Layouts, dtypes, edges.

ACTIVATIONS = sorted(set(GROUPS) - {n for n in GROUPS if "weight" in n})


@pytest.mark.parametrize("name", GROUPS)
def test_channels_first_is_channels_last_moved(name):
    values = point(name, (4, 2, 5, 6), (6,))
    [key] = (k for k in ("x", "v", "kernel") if k in values)
    settings, grad_y = SETTINGS.get(name, {}), normal((4, 2, 5, 6), 2)
    y = forward(name, **values, **settings)
    grads = backward(name, grad_y, **values, **settings)
    first = values | {key: np.moveaxis(values[key], -1, 1)}
    moved = forward(name, **first, **settings, axis=1)
    np.testing.assert_allclose(np.moveaxis(moved, 1, -1), y, rtol=1e-12)
    grad_moved = np.moveaxis(grad_y, -1, 1)
    for i, grad in enumerate(backward(name, grad_moved, **first, **settings, axis=1)):
        grad = np.moveaxis(grad, 1, -1) if i == 0 else grad
        np.testing.assert_allclose(grad, grads[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "g"])
@pytest.mark.parametrize("name", [*GROUPS, "spectral_norm"])
def test_a_float_input_keeps_its_dtype(name, dtype):
    values = point(name, (4, 2, 5, 6), (6,))
    [key] = (k for k in ("x", "v", "kernel") if k in values)
    settings, grad_y = SETTINGS.get(name, {}), normal((4, 2, 5, 6), 2)
    settings = settings | {"u": normal(6)}
    low = values | {key: values[key].astype(dtype)}
    same = values | {key: low[key].astype("f8")}
    y, native = forward(name, **low, **settings), np.dtype(dtype).newbyteorder("=")
    expected = forward(name, **same, **settings)
    assert y.dtype == native
    eps = max(np.finfo(dtype).eps, np.finfo("f8").eps)
    atol = 4 * float(eps) * np.abs(expected).max()
    np.testing.assert_allclose(y.astype("f8"), expected, rtol=0, atol=atol)
    grads = backward(name, grad_y.astype(dtype), **low, **settings)
    exact = backward(name, grad_y.astype(dtype).astype("f8"), **same, **settings)
    assert grads[0].dtype == native
    for got, expected in zip(grads, exact, strict=True):
        atol = 10 * float(eps) * np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(got, "f8"), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", [*GROUPS, "spectral_norm"])
def test_integers_give_float64_and_nothing_is_modified(name):
    values = point(name, (4, 2, 5, 6), (6,))
    [key] = (k for k in ("x", "v", "kernel") if k in values)
    settings = SETTINGS.get(name, {}) | {"u": normal(6)}
    integers = np.arange(240).reshape(4, 2, 5, 6)
    assert forward(name, **(values | {key: integers}), **settings).dtype == np.float64
    arrays = {k: np.array(v) for k, v in (values | settings).items() if np.ndim(v)}
    for array in arrays.values():
        array.flags.writeable = False
    whole = values | settings | arrays
    y = forward(name, **whole)
    assert not any(np.shares_memory(y, array) for array in arrays.values())
    backward(name, normal((4, 2, 5, 6), 2), **whole)


@pytest.mark.parametrize("mean", [0, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("name", LOOPED)
def test_float32_of_large_mean_is_as_accurate_as_float32_can_be(name, mean):
    """As batch norm here. Code in float32 alone loses its digits from 1e4 on."""
    values, settings = point(name, (4, 2, 5, 6), (6,)), SETTINGS.get(name, {})
    [key] = (k for k in ("x", "v", "kernel") if k in values)
    values[key] = (mean + 3 * normal((4, 2, 5, 6), 1)).astype(np.float32)
    if name == "batch_renorm":
        settings = settings | {"moving_mean": mean + np.arange(6)}
    y = forward(name, **values, **settings)
    expected = looped(name, values, settings)
    assert y.dtype == np.float32
    assert np.abs(y - expected).max() <= 2e-7 * max(1, np.abs(expected).max())

    grad_y = normal(y.shape, 2).astype(np.float32)
    grads = backward(name, grad_y, **values, **settings)
    finer = values | {key: values[key].astype(np.longdouble)}
    exact = backward(name, grad_y.astype(np.longdouble), **finer, **settings)
    for got, truth in zip(grads, exact, strict=True):
        assert np.abs(got - truth).max() <= 1e-6 * np.abs(truth).max()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", GROUPS)
def test_large_arrays_agree_with_long_doubles(name, dtype):
    """Some go the fast way of `bnlib.blocks`, which has no long doubles."""
    shape = (40, 10, 10, 6)
    values, settings = point(name, shape, (6,)), SETTINGS.get(name, {})
    [key] = (k for k in ("x", "v", "kernel") if k in values)
    values[key], grad_y = values[key].astype(dtype), normal(shape, 2).astype(dtype)
    finer = values | {key: values[key].astype(np.longdouble)}
    y, expected = (forward(name, **v, **settings) for v in (values, finer))
    atol = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(
        y, expected.astype("f8"), rtol=0, atol=atol * np.abs(y).max()
    )
    grads = backward(name, grad_y, **values, **settings)
    exact = backward(name, grad_y.astype(np.longdouble), **finer, **settings)
    for got, truth in zip(grads, exact, strict=True):
        most = 1e-5 if dtype == "f4" else 1e-12
        assert np.abs(got - truth).max() <= most * np.abs(truth).max()


def test_that_textbook_code_would_fail_there():
    x = (1e6 + 3 * normal((4, 60), 1)).astype(np.float32)
    mean = x.mean(axis=1, keepdims=True)
    variance = (x * x).mean(axis=1, keepdims=True) - mean * mean
    with np.errstate(invalid="ignore"):
        y = (x - mean) / np.sqrt(variance + np.float32(1e-5))
    right = variants.layer_norm(x)
    assert not np.abs(y - right).max() < 0.1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", [n for n in GROUPS if n != "weight_norm"])
def test_nan_and_infinity_stay_in_their_group(name, bad):
    values = point(name, (4, 2, 5, 6), (6,))
    [key] = (k for k in ("x", "kernel") if k in values)
    settings, grad_y = SETTINGS.get(name, {}), normal((4, 2, 5, 6), 2)
    clean = forward(name, **values, **settings)
    clean_grad = backward(name, grad_y, **values, **settings)[0]
    values[key][1, 0, 2, 4] = bad
    y = forward(name, **values, **settings)
    with np.errstate(invalid="ignore"):
        grad = backward(name, grad_y, **values, **settings)[0]
    group = GROUPS[name]
    for index in np.ndindex(y.shape):
        if group(*index) != group(1, 0, 2, 4):
            assert y[index] == clean[index]
            assert grad[index] == pytest.approx(clean_grad[index], rel=1e-12)
    if np.isnan(bad):
        assert np.isnan(y[1, 0, 2, 4])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_examples(name):
    values = point(name, (0, 2, 5, 6), (6,))
    settings = SETTINGS.get(name, {})
    if name == "batch_renorm":
        with pytest.raises(ValueError, match="none to average"):
            forward(name, **values, **settings)
        return
    assert forward(name, **values, **settings).shape == (0, 2, 5, 6)
    grad_x, *grads = backward(name, np.ones((0, 2, 5, 6)), **values, **settings)
    assert grad_x.shape == (0, 2, 5, 6)
    assert all(np.all(grad == 0) for grad in grads)


def test_a_constant_group_gives_beta():
    x, beta = np.full((2, 5, 6), 123456.789, np.float32), np.arange(6.0)
    for y in (
        variants.layer_norm(x, beta=beta),
        variants.instance_norm(x, beta=beta),
        variants.group_norm(x, 2, beta=beta),
        variants.ghost_batch_norm(x, 1, beta=beta),
    ):
        np.testing.assert_array_equal(y, np.broadcast_to(beta, x.shape))


def test_zeros_stay_zeros():
    x = np.zeros((2, 5, 6))
    for y in (
        variants.rms_norm(x),
        variants.pixel_norm(x),
        variants.filter_response_norm(x),
        variants.dynamic_tanh(x),
    ):
        np.testing.assert_array_equal(y, 0)


def test_defaults_are_those_of_the_docstrings():
    expected = {
        "layer_norm": 1e-5,
        "instance_norm": 1e-5,
        "group_norm": 1e-5,
        "ghost_batch_norm": 1e-3,
        "batch_renorm": 1e-3,
        "rms_norm": 1e-6,
        "pixel_norm": 1e-8,
        "filter_response_norm": 1e-6,
        "weight_standardization": 1e-5,
        "scaled_weight_standardization": 1e-4,
    }
    for name, epsilon in expected.items():
        for function in pair(name):
            parameters = inspect.signature(function).parameters
            assert parameters["epsilon"].default == epsilon
            assert parameters["epsilon"].kind == inspect.Parameter.KEYWORD_ONLY
    for function in pair("batch_renorm"):
        parameters = inspect.signature(function).parameters
        assert [parameters[k].default for k in ("rmax", "rmin", "dmax")] == [3, None, 5]


# Errors: expected, received, remedy.

X, ONES = np.ones((4, 5, 6)), np.ones(6)
RENORM = {"x": X, "moving_mean": ONES, "moving_variance": ONES}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: variants.layer_norm(X, np.ones(5)),
            ValueError,
            r"gamma must have shape \(6,\).*got shape \(5,\)",
        ),
        (
            lambda: variants.layer_norm(X, np.ones(6), axis=(1, 2)),
            ValueError,
            r"gamma must have shape \(5, 6\)",
        ),
        (lambda: variants.layer_norm(X, axis=3), ValueError, "axis must lie in"),
        (lambda: variants.layer_norm(X, axis=()), ValueError, "axis must name each"),
        (lambda: variants.layer_norm(X, axis=1.5), TypeError, "axis must be an int"),
        (lambda: variants.layer_norm(X, epsilon=-1), ValueError, "epsilon .*at least"),
        (lambda: variants.layer_norm(X[..., :0]), ValueError, "none to average"),
        (lambda: variants.layer_norm("x"), TypeError, "x must hold real"),
        (
            lambda: variants.layer_norm(np.ma.masked_array(X)),
            TypeError,
            "masked array",
        ),
        (lambda: variants.layer_norm(3.0), ValueError, "scalar"),
        (
            lambda: variants.layer_norm_backward(X[0], X),
            ValueError,
            r"grad_y must have shape \(4, 5, 6\)",
        ),
        (
            lambda: variants.instance_norm(X[0]),
            ValueError,
            r"axis of space.*got shape \(5, 6\).*layer_norm",
        ),
        (
            lambda: variants.instance_norm(X, axis=0),
            ValueError,
            "axis 0 to the examples; got 0",
        ),
        (lambda: variants.instance_norm(X, np.ones(5)), ValueError, "gamma must have"),
        (
            lambda: variants.group_norm(X, 4),
            ValueError,
            "groups must divide the 6 channels of x; got 4. Choose among 1, 2, 3, 6",
        ),
        (lambda: variants.group_norm(X, 0), ValueError, "got 0"),
        (lambda: variants.group_norm(X, 2.0), TypeError, "groups must be an int"),
        (
            lambda: variants.group_norm(X, 2, np.ones(2)),
            ValueError,
            r"gamma must have shape \(6,\).*got shape \(2,\)",
        ),
        (
            lambda: variants.group_norm(X, 2, None, np.ones((2, 3))),
            ValueError,
            r"beta must have shape \(6,\)",
        ),
        (
            lambda: variants.group_norm(X, 2, axis=(1, 2)),
            ValueError,
            "axis must name one axis",
        ),
        (
            lambda: variants.ghost_batch_norm(X, 3),
            ValueError,
            "size must divide the 4 examples of x; got 3. Choose among 1, 2, 4",
        ),
        (
            lambda: variants.ghost_batch_norm(np.ones((5040, 1)), 11),
            ValueError,
            r"1, 2, 3, 4, 5, 6, 7, 8, \.\.\., 1680, 2520, 5040",
        ),
        (lambda: variants.rms_norm(X, np.ones(5)), ValueError, "gamma must have"),
        (lambda: variants.pixel_norm(X, epsilon=-1), ValueError, "epsilon"),
        (
            lambda: variants.filter_response_norm(X, tau=np.ones(2)),
            ValueError,
            "tau must have shape",
        ),
        (lambda: variants.filter_response_norm(X[0]), ValueError, "axis of space"),
        (
            lambda: variants.dynamic_tanh(X, ONES),
            ValueError,
            r"alpha must be one number.*got shape \(6,\)",
        ),
        (lambda: variants.dynamic_tanh(X, "a"), TypeError, "alpha must hold real"),
        (
            lambda: variants.batch_renorm(**RENORM | {"moving_mean": np.ones(5)}),
            ValueError,
            "moving_mean must have shape",
        ),
        (
            lambda: variants.batch_renorm(**RENORM | {"moving_variance": -ONES}),
            ValueError,
            "variance must not be negative",
        ),
        (
            lambda: variants.batch_renorm(**RENORM, gamma=np.ones(5)),
            ValueError,
            "gamma must have shape",
        ),
        (
            lambda: variants.batch_renorm(**RENORM, rmax=0.5),
            ValueError,
            "rmax must be at least rmin.*got rmax=0.5 and rmin=2",
        ),
        (
            lambda: variants.batch_renorm(**RENORM, dmax=-1),
            ValueError,
            "dmax must be at least 0; got -1",
        ),
        (
            lambda: variants.batch_renorm(**RENORM, rmax=None),
            TypeError,
            "rmax must be one real number; got None. Use math.inf",
        ),
        (lambda: variants.batch_renorm(**RENORM, dmax=np.nan), ValueError, "got nan"),
        (lambda: variants.batch_renorm(**RENORM, epsilon=-1), ValueError, "epsilon"),
        (
            lambda: variants.weight_norm(X[0], np.ones(5)),
            ValueError,
            "g must have shape",
        ),
        (
            lambda: variants.weight_norm(X[0] * [0, 1, 1, 1, 1, 0], ONES),
            ValueError,
            "v must not be 0 .*got length 0 for 2 of 6",
        ),
        (
            lambda: variants.weight_standardization(ONES),
            ValueError,
            r"kernel must have inputs.*got shape \(6,\)",
        ),
        (
            lambda: variants.weight_standardization(np.ones((0, 6))),
            ValueError,
            "kernel must have inputs",
        ),
        (
            lambda: variants.weight_standardization("x"),
            TypeError,
            "kernel must hold real",
        ),
        (
            lambda: variants.scaled_weight_standardization(X[0], np.ones(5)),
            ValueError,
            "gain must have shape",
        ),
        (
            lambda: variants.spectral_norm(X[0], np.ones(5)),
            ValueError,
            r"u must have shape \(6,\)",
        ),
        (
            lambda: variants.spectral_norm(X[0], ONES, steps=0),
            ValueError,
            "steps must be at least 1; got 0",
        ),
        (
            lambda: variants.spectral_norm(X[0], ONES, steps=1.0),
            TypeError,
            "steps must be an integer",
        ),
        (
            lambda: variants.spectral_norm(0 * X[0], ONES),
            ValueError,
            "kernel must not take u to 0",
        ),
        (
            lambda: variants.spectral_norm(X, ONES, axis=(0, 1)),
            ValueError,
            "axis must name one axis",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
