"""The backward pass: against the definition, against the staged graph, and by its identities."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from reference import loop_moments
from samples import ROWS, batches, friendly

from bnlib import (
    batch_norm,
    batch_norm_backward,
    batch_norm_backward_staged,
    batch_norm_inference,
    batch_norm_inference_backward,
    layout,
    moments,
)

GAMMA, BETA = np.array([2.0, -0.5, 3.0]), np.array([1.0, 10.0, -4.0])
LAYOUTS = [
    ((7, 3), -1),
    ((5, 2, 3), -1),
    ((2, 3, 5, 7), 1),
    ((2, 5, 7, 3), -1),
    ((2, 3, 2, 5, 7), 1),
]


def cotangent(shape, seed=3):
    """A random upstream gradient. All ones would lie in the null space of the Jacobian."""
    return np.random.default_rng(seed).standard_normal(shape)


def slope(function, point, direction, step=1e-5):
    """Derivative of `function` along `direction`, by a central difference of fourth order."""
    near, far = (
        function(point + k * step * direction) - function(point - k * step * direction)
        for k in (1, 2)
    )
    return (8 * near - far) / (12 * step)


# Against the definition.


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_central_differences_in_random_directions(shape, axis, epsilon):
    x, grad_y = friendly(shape), cotangent(shape)
    options = {"axis": axis, "epsilon": epsilon}
    grad_x, grad_gamma, grad_beta = batch_norm_backward(grad_y, x, GAMMA, **options)

    def loss(x, gamma, beta):
        return np.sum(grad_y * batch_norm(x, gamma, beta, **options)[0])

    for seed in range(5):
        direction = cotangent(shape, seed)
        along = slope(lambda x: loss(x, GAMMA, BETA), x, direction)
        assert np.sum(grad_x * direction) == pytest.approx(along, rel=1e-6, abs=1e-7)
    direction = cotangent(3)
    assert grad_gamma @ direction == pytest.approx(
        slope(lambda g: loss(x, g, BETA), GAMMA, direction)
    )
    assert grad_beta @ direction == pytest.approx(
        slope(lambda b: loss(x, GAMMA, b), BETA, direction)
    )


def test_weighted_and_through_the_returned_statistics():
    x, grad_y, weights = friendly((6, 5, 3)), cotangent((6, 5, 3)), np.linspace(0, 2, 6)
    grad_mean, grad_variance = cotangent(3, 4), cotangent(3, 5)

    def loss(x):
        y, mean, variance = batch_norm(x, GAMMA, BETA, weights=weights)
        return np.sum(grad_y * y) + grad_mean @ mean + grad_variance @ variance

    grad_x, _, _ = batch_norm_backward(
        grad_y,
        x,
        GAMMA,
        weights=weights,
        grad_mean=grad_mean,
        grad_variance=grad_variance,
    )
    for seed in range(5):
        direction = cotangent(x.shape, seed)
        assert np.sum(grad_x * direction) == pytest.approx(
            slope(loss, x, direction), rel=1e-6
        )


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_inference_backward_by_central_differences(shape, axis):
    x, grad_y = friendly(shape), cotangent(shape)
    mean, variance = np.array([0.5, 1, -2]), np.array([1.0, 4, 0.2])
    grad_x, grad_gamma, grad_beta = batch_norm_inference_backward(
        grad_y, x, mean, variance, GAMMA, axis=axis
    )
    loss = lambda x, g, b: np.sum(  # noqa: E731
        grad_y * batch_norm_inference(x, mean, variance, g, b, axis=axis)
    )
    direction = cotangent(shape, 1)
    assert np.sum(grad_x * direction) == pytest.approx(
        slope(lambda x: loss(x, GAMMA, BETA), x, direction)
    )
    direction = cotangent(3)
    assert grad_gamma @ direction == pytest.approx(
        slope(lambda g: loss(x, g, BETA), GAMMA, direction)
    )
    assert grad_beta @ direction == pytest.approx(
        slope(lambda b: loss(x, GAMMA, b), BETA, direction)
    )


# shape, axes averaged over, axes of gamma and beta: instance, layer (PyTorch's too), group norm
NORMS = {
    "instance": ((4, 5, 7, 3), (1, 2), -1),
    "instance, channels first": ((4, 3, 5, 7), (2, 3), 1),
    "layer": ((4, 5, 7, 3), (1, 2, 3), -1),
    "layer, last axis alone": ((4, 5, 3), -1, -1),
    "layer, gamma for each place": ((4, 5, 3), (1, 2), (1, 2)),
    "group": ((4, 5, 7, 2, 3), (1, 2, 4), (3, 4)),
    "all as one": ((4, 5, 3), (0, 1, 2), -1),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_central_differences_where_gamma_has_other_axes(name, weighted):
    """The loss uses mean and variance too."""
    shape, axes, axis = NORMS[name]
    x, grad_y = 2 + cotangent(shape, 1), cotangent(shape, 2)
    gamma, beta = 1 + cotangent((2, *layout(shape, axis).channels), 4)
    where = layout(shape, axes=axes)
    grad_mean, grad_variance = 9 * cotangent((2, *where.channels), 5)
    options = {"axis": axis, "axes": axes, "epsilon": 0.1}
    if weighted:
        sizes = [shape[a] for a in where.axes]
        options["weights"] = np.random.default_rng(6).integers(0, 3, sizes)

    def loss(x, gamma, beta):
        y, mean, variance = batch_norm(x, gamma, beta, **options)
        through = np.sum(grad_mean * mean) + np.sum(grad_variance * variance)
        return np.sum(grad_y * y) + through

    extra = {"grad_mean": grad_mean, "grad_variance": grad_variance}
    point = x, gamma, beta
    grads = batch_norm_backward(grad_y, x, gamma, **options, **extra)
    for place, grad in enumerate(grads):
        assert grad.shape == point[place].shape

        def moved(value, place=place):
            return loss(*point[:place], value, *point[place + 1 :])

        for seed in range(3):
            direction = cotangent(grad.shape, seed)
            along = slope(moved, point[place], direction)
            assert np.sum(grad * direction) == pytest.approx(along, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", NORMS)
def test_inference_backward_where_gamma_has_other_axes(name):
    shape, axes, axis = NORMS[name]
    x, grad_y = 2 + cotangent(shape, 1), cotangent(shape, 2)
    gamma, beta = 1 + cotangent((2, *layout(shape, axis).channels), 4)
    mean, variance = 1 + cotangent((2, *layout(shape, axes=axes).channels), 5) ** 2
    options = {"axis": axis, "axes": axes, "epsilon": 0.1}
    grads = batch_norm_inference_backward(grad_y, x, mean, variance, gamma, **options)

    def output(x, gamma, beta):
        return batch_norm_inference(x, mean, variance, gamma, beta, **options)

    # y is linear in each of the three
    zero = [np.zeros_like(v) for v in (x, gamma, beta)]
    ways = [cotangent(grad.shape, 7) for grad in grads]
    along = [
        output(x + ways[0], gamma, beta) - output(x, gamma, beta),
        output(x, ways[1], zero[2]),
        output(x, zero[1], ways[2]),
    ]
    for grad, way, change in zip(grads, ways, along, strict=True):
        assert np.sum(grad * way) == pytest.approx(np.sum(grad_y * change))


@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_the_nine_steps_equal_the_closed_form(shape, axis):
    x, grad_y = friendly(shape), cotangent(shape)
    staged = batch_norm_backward_staged(grad_y, x, GAMMA, axis=axis)
    for step_by_step, closed in zip(
        staged, batch_norm_backward(grad_y, x, GAMMA, axis=axis), strict=True
    ):
        np.testing.assert_allclose(step_by_step, closed, rtol=1e-11, atol=1e-12)


# Identities.


@given(batches)
def test_the_gradient_sums_to_zero_over_the_batch(x):
    """Adding a constant to a channel changes nothing, so the gradient along it is 0."""
    grad_y = cotangent(x.shape)
    grad_x, _, _ = batch_norm_backward(grad_y, x, GAMMA)
    scale = np.abs(grad_x).sum(axis=0) + 1
    assert np.all(np.abs(grad_x.sum(axis=0)) <= 1e-10 * scale)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-5, 1e-8, 0])
def test_the_gradient_is_orthogonal_to_x_hat_as_epsilon_goes_to_0(epsilon):
    x, grad_y = friendly((9, 3)), cotangent((9, 3))
    grad_x, _, _ = batch_norm_backward(grad_y, x, GAMMA, epsilon=epsilon)
    x_hat, _, variance = batch_norm(x, epsilon=epsilon)
    along = np.abs((grad_x * x_hat).sum(axis=0))
    size = (
        np.linalg.norm(grad_x, axis=0) * np.linalg.norm(x_hat, axis=0) * np.abs(GAMMA)
    )
    assert np.all(
        along <= (5 * epsilon / variance + 1e-12) * size / np.min(np.abs(GAMMA)) * 10
    )
    if epsilon == 1e-2:
        assert np.all(along > 1e-6), (
            "with a large epsilon it is not, or this test proves nothing"
        )


def test_an_all_ones_gradient_is_in_the_null_space():
    grad_x, grad_gamma, grad_beta = batch_norm_backward(
        np.ones((9, 3)), friendly((9, 3)), GAMMA
    )
    np.testing.assert_allclose(grad_x, 0, atol=1e-15)
    np.testing.assert_allclose(grad_gamma, 0, atol=1e-14)
    np.testing.assert_array_equal(grad_beta, 9)


def test_scaling_the_input_divides_the_gradient():
    """With epsilon 0 the output ignores the scale of x, so the gradient falls as it grows."""
    x, grad_y = friendly((9, 3)), cotangent((9, 3))
    plain = batch_norm_backward(grad_y, x, GAMMA, epsilon=0)[0]
    for factor in (0.1, 7.0, 1e3):
        scaled = batch_norm_backward(grad_y, factor * x, GAMMA, epsilon=0)[0]
        np.testing.assert_allclose(scaled, plain / factor, rtol=1e-9, atol=1e-12)


def test_the_kernel_before_it_gets_a_gradient_at_right_angles_to_itself():
    """Invariance to the scale of the weights, as the kernel feels it."""
    rng = np.random.default_rng(5)
    inputs, kernel, grad_y = (
        rng.normal(size=(20, 4)),
        rng.normal(size=(4, 3)),
        cotangent((20, 3)),
    )
    grad_kernel = (
        inputs.T @ batch_norm_backward(grad_y, inputs @ kernel, GAMMA, epsilon=0)[0]
    )
    np.testing.assert_allclose((kernel * grad_kernel).sum(axis=0), 0, atol=1e-13)


def test_detached_statistics_would_give_another_gradient():
    x, grad_y = friendly((9, 3)), cotangent((9, 3))
    mean, variance, _ = moments(x)
    detached = batch_norm_inference_backward(grad_y, x, mean, variance, GAMMA)[0]
    right = batch_norm_backward(grad_y, x, GAMMA)[0]
    assert np.linalg.norm(detached - right) > 0.05 * np.linalg.norm(right)


# With the statistics of the forward pass.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize(("shape", "axis"), LAYOUTS)
def test_known_statistics_change_nothing(shape, axis, dtype, weighted):
    x, grad_y = friendly(shape, dtype), cotangent(shape).astype(dtype)
    options = {"axis": axis, "weights": np.arange(shape[0]) if weighted else None}
    options |= {"grad_mean": cotangent(3, 4), "grad_variance": cotangent(3, 5)}
    found = moments(x, axis=axis, weights=options["weights"])
    expected = batch_norm_backward(grad_y, x, GAMMA, **options)
    for known in (found, found[:2], list(found[:2])):
        got = batch_norm_backward(grad_y, x, GAMMA, statistics=known, **options)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_known_statistics_are_used():
    """Those of another batch give another gradient: nothing is computed behind your back."""
    x, grad_y = friendly((9, 3)), cotangent((9, 3))
    other = batch_norm_backward(grad_y, x, GAMMA, statistics=moments(2 * x + 1))[0]
    assert np.abs(other - batch_norm_backward(grad_y, x, GAMMA)[0]).max() > 0.1


# Accuracy, dtypes, edges.


@pytest.mark.parametrize("row", [name for name in ROWS if "float64" not in name])
def test_gradient_is_right_for_every_hard_row(row):
    x = ROWS[row]
    if row.startswith("constant"):
        x = x[:64]
    grad_y = cotangent(x.shape).astype(x.dtype)
    gamma = np.array([2.0, -0.5])
    means, variances = loop_moments(x)
    centred = np.stack(
        [
            x[:, c].astype(np.longdouble) - np.longdouble(float(m))
            for c, m in enumerate(means)
        ],
        1,
    )
    inverse = 1 / np.sqrt(np.array([float(v) for v in variances], np.longdouble) + 1e-3)
    x_hat, g = centred * inverse, grad_y.astype(np.longdouble)
    truth = gamma * inverse * (g - g.mean(axis=0) - x_hat * (g * x_hat).mean(axis=0))
    got = batch_norm_backward(grad_y, x, gamma)
    resolution = max(1e-5, float(np.finfo(x.dtype).eps))
    assert got[0].dtype == x.dtype
    biggest = np.abs(truth).max()
    tiny = float(np.finfo(x.dtype).smallest_subnormal)
    assert (
        np.abs(got[0].astype(np.longdouble) - truth).max()
        <= resolution * biggest + tiny
    )
    np.testing.assert_allclose(
        got[1], (g * x_hat).sum(axis=0).astype(float), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        got[2], g.sum(axis=0).astype(float), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_dtypes(dtype):
    x, grad_y = friendly((9, 3), dtype), cotangent((9, 3)).astype(dtype)
    grad_x, grad_gamma, grad_beta = batch_norm_backward(grad_y, x, GAMMA)
    assert grad_x.dtype == x.dtype
    assert grad_gamma.dtype == grad_beta.dtype == np.float64


def test_a_mask_hides_nan_from_the_gradient():
    x, grad_y = friendly((8, 3)), cotangent((8, 3))
    mask = np.arange(8) < 5
    grad_y[5:] = 0
    expected = batch_norm_backward(grad_y[:5], x[:5], GAMMA)
    x[5:] = np.nan
    grad_x, grad_gamma, grad_beta = batch_norm_backward(grad_y, x, GAMMA, weights=mask)
    np.testing.assert_allclose(grad_x[:5], expected[0], rtol=1e-12)
    np.testing.assert_array_equal(grad_x[5:], 0)
    np.testing.assert_allclose(grad_gamma, expected[1], rtol=1e-12)
    np.testing.assert_allclose(grad_beta, expected[2], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_channel(bad):
    x, grad_y = friendly((8, 3)), cotangent((8, 3))
    clean = batch_norm_backward(grad_y, x, GAMMA)
    x[2, 1] = bad
    grad_x, grad_gamma, _ = batch_norm_backward(grad_y, x, GAMMA)
    np.testing.assert_array_equal(grad_x[:, [0, 2]], clean[0][:, [0, 2]])
    np.testing.assert_array_equal(grad_gamma[[0, 2]], clean[1][[0, 2]])


def test_nothing_is_modified():
    arrays = [cotangent((8, 3)), friendly((8, 3)), GAMMA.copy()]
    for array in arrays:
        array.flags.writeable = False
    batch_norm_backward(*arrays)
    batch_norm_backward_staged(*arrays)
    batch_norm_inference_backward(
        arrays[0], arrays[1], np.ones(3), np.ones(3), arrays[2]
    )


def test_gamma_none_means_one():
    x, grad_y = friendly((8, 3)), cotangent((8, 3))
    for got, expected in zip(
        batch_norm_backward(grad_y, x),
        batch_norm_backward(grad_y, x, np.ones(3)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


def test_defaults_match_the_forward_pass():
    for function in (
        batch_norm_backward,
        batch_norm_backward_staged,
        batch_norm_inference_backward,
    ):
        parameters = inspect.signature(function).parameters
        assert parameters["epsilon"].default == 1e-3
        assert parameters["axis"].default == -1


X = np.ones((4, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: batch_norm_backward(np.ones((3, 4)), X, GAMMA),
            ValueError,
            r"grad_y must have shape \(4, 3\)",
        ),
        (
            lambda: batch_norm_backward(X, X, np.ones(4)),
            ValueError,
            "gamma must have shape",
        ),
        (lambda: batch_norm_backward(X, X, epsilon=-1), ValueError, "at least 0"),
        (lambda: batch_norm_backward(X[:0], X[:0]), ValueError, "none to average"),
        (lambda: batch_norm_backward(X * 1j, X), TypeError, "grad_y must hold real"),
        (
            lambda: batch_norm_backward(X, X, grad_mean=np.ones(4)),
            ValueError,
            "grad_mean must have",
        ),
        (
            lambda: batch_norm_backward(X, X, statistics=(np.ones(4), np.ones(3))),
            ValueError,
            r"mean must have shape \(3,\).*got shape \(4,\)",
        ),
        (
            lambda: batch_norm_backward(X, X, statistics=(np.ones(3), np.ones(1))),
            ValueError,
            r"variance must have shape \(3,\).*got shape \(1,\)",
        ),
        (
            lambda: batch_norm_backward(X, X, statistics=(np.ones(3), -np.ones(3))),
            ValueError,
            "variance must not be negative",
        ),
        (
            lambda: batch_norm_inference_backward(X, X, np.ones(3), -np.ones(3)),
            ValueError,
            "negative",
        ),
        (
            lambda: batch_norm_backward_staged(X, X, np.ones(4)),
            ValueError,
            "gamma must have shape",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("rows", [100, 9001])  # the second goes to the kernels
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_narrow_statistics_cost_no_digits_of_their_own(rows, dtype):
    x, grad_y = friendly((rows, 3)), cotangent((rows, 3))
    narrow = tuple(v.astype(dtype) for v in moments(x)[:2])
    as_wide = tuple(v.astype("f8") for v in narrow)
    got = batch_norm_backward(grad_y, x, GAMMA, statistics=narrow)
    expected = batch_norm_backward(grad_y, x, GAMMA, statistics=as_wide)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


def test_a_mask_hides_nan_from_the_gradient_of_the_variance():
    x, weights = friendly((4, 3)), [0, 1, 1, 1]
    x[0, 0] = np.nan
    extra = {"weights": weights, "grad_variance": np.ones(3)}
    grad_x, *_ = batch_norm_backward(np.zeros((4, 3)), x, **extra)
    alone, *_ = batch_norm_backward(np.zeros((3, 3)), x[1:], grad_variance=np.ones(3))
    np.testing.assert_allclose(grad_x, np.concatenate([np.zeros((1, 3)), alone]))
