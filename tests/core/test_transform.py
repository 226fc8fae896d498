"""normalize, scale_and_shift, batch_norm, batch_norm_inference."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import loop_batch_norm, loop_moments, textbook_batch_norm
from samples import ROWS, batches, friendly

from bnlib import batch_norm, batch_norm_inference, moments, normalize, scale_and_shift

GAMMA, BETA = np.array([2.0, -0.5, 3.0]), np.array([1.0, 10.0, -4.0])


# Against the loop, and where the textbook loses.


@pytest.mark.parametrize("epsilon", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((7, 3), -1), ((5, 2, 3), -1), ((2, 3, 5, 7), 1), ((2, 5, 7, 3), -1)],
)
def test_batch_norm_against_the_loop(shape, axis, epsilon):
    x = friendly(shape)
    y, mean, variance = batch_norm(x, GAMMA, BETA, axis=axis, epsilon=epsilon)
    np.testing.assert_allclose(
        y, loop_batch_norm(x, GAMMA, BETA, axis, epsilon), rtol=1e-12, atol=1e-12
    )
    exact_mean, exact_variance = loop_moments(x, axis)
    np.testing.assert_allclose(mean, [float(v) for v in exact_mean], rtol=1e-13)
    np.testing.assert_allclose(variance, [float(v) for v in exact_variance], rtol=1e-13)


def worst_error(y, truth):
    return np.max(np.abs(y.astype(np.float64) - truth)) / max(
        np.max(np.abs(truth)), 1.0
    )


@pytest.mark.parametrize("row", [name for name in ROWS if "float64" not in name])
def test_output_is_right_for_every_hard_row(row):
    x = ROWS[row]
    ones, zeros = np.ones(2), np.zeros(2)
    truth = loop_batch_norm(x, ones, zeros)
    y, mean, variance = batch_norm(x)
    resolution = np.finfo(x.dtype).eps
    assert worst_error(y, truth) <= max(1e-6, resolution)
    assert worst_error(batch_norm_inference(x, mean, variance), truth) <= max(
        1e-6, resolution
    )


@pytest.mark.parametrize(
    "row", ["mean 1e+06", "mean 1e+08", "near 1e25", "float16 +-6e4"]
)
def test_the_textbook_fails_these_rows(row):
    x = ROWS[row]
    with np.errstate(over="ignore", invalid="ignore"):
        y = textbook_batch_norm(x, 1, 0, axes=0)
    truth = loop_batch_norm(x, np.ones(2), np.zeros(2))
    assert not worst_error(y, truth) <= 1e-3  # NaN counts as a failure


def test_one_line_inference_cancels_and_ours_does_not():
    """x*inv + (beta - mean*inv) in float32 at mean 1e6: the reason for the order of operations."""
    x = ROWS["mean 1e+06"]
    mean, variance, _ = moments(x)
    truth = loop_batch_norm(x, np.ones(2), np.zeros(2))
    inverse = (1 / np.sqrt(variance + 1e-3)).astype(np.float32)
    one_line = x * inverse - mean.astype(np.float32) * inverse
    assert worst_error(one_line, truth) > 1e-3
    assert worst_error(batch_norm_inference(x, mean, variance), truth) < 1e-6


# What the transform promises.


@given(batches)
def test_the_output_has_mean_beta_and_deviation_gamma(x):
    y, _, variance = batch_norm(x, GAMMA, BETA)
    np.testing.assert_allclose(y.mean(axis=0), BETA, atol=1e-8)
    shrink = variance / (variance + 1e-3)  # epsilon's share
    np.testing.assert_allclose(y.var(axis=0), GAMMA**2 * shrink, rtol=1e-6, atol=1e-8)


@given(batches)
def test_no_value_lies_further_out_than_sqrt_m_minus_1(x):
    y, _, _ = batch_norm(x)
    assert np.max(np.abs(y)) <= math.sqrt(len(x) - 1) * (1 + 1e-9)


def test_a_batch_of_two_becomes_plus_and_minus_one():
    y, _, _ = batch_norm([[3.0, -100.0], [5.0, 7.0]], epsilon=0)
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], rtol=1e-15)


@given(batches, st.floats(-50, 50))
def test_a_bias_before_batch_norm_changes_nothing(x, bias):
    np.testing.assert_allclose(batch_norm(x + bias)[0], batch_norm(x)[0], atol=1e-6)


def test_gamma_and_beta_can_undo_the_transform():
    x = friendly((40, 3))
    mean, variance, _ = moments(x)
    y, _, _ = batch_norm(x, gamma=np.sqrt(variance + 1e-3), beta=mean)
    np.testing.assert_allclose(y, x, rtol=1e-13)


def test_a_constant_channel_gives_beta():
    y, _, variance = batch_norm(np.full((9, 3), 123456.789, np.float32), GAMMA, BETA)
    np.testing.assert_array_equal(y, np.broadcast_to(BETA.astype(np.float32), (9, 3)))
    np.testing.assert_array_equal(variance, 0)


def test_one_example_in_training_gives_beta():
    y, _, _ = batch_norm(friendly((1, 3)), GAMMA, BETA)
    np.testing.assert_array_equal(y, [BETA])


def test_inference_treats_each_example_alone():
    x = friendly((6, 3))
    mean, variance = np.array([0.5, 1, -2]), np.array([1.0, 4, 0.2])
    whole = batch_norm_inference(x, mean, variance, GAMMA, BETA)
    one_by_one = [
        batch_norm_inference(row[np.newaxis], mean, variance, GAMMA, BETA) for row in x
    ]
    np.testing.assert_array_equal(whole, np.concatenate(one_by_one))
    assert batch_norm_inference(x[:0], mean, variance).shape == (0, 3)


def test_training_is_inference_with_the_batch_statistics():
    x = friendly((6, 3))
    y, mean, variance = batch_norm(x, GAMMA, BETA)
    np.testing.assert_array_equal(
        y, batch_norm_inference(x, mean, variance, GAMMA, BETA)
    )


def test_the_pieces_make_the_whole():
    x = friendly((6, 3))
    mean, variance, _ = moments(x)
    x_hat = normalize(x, mean, variance)
    np.testing.assert_array_equal(
        scale_and_shift(x_hat, GAMMA, BETA), batch_norm(x, GAMMA, BETA)[0]
    )


def test_layer_norm_is_the_same_formula_with_other_axes():
    x = friendly((4, 6))
    by_hand = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(batch_norm(x, axis=0)[0], by_hand, rtol=1e-12)


def test_weights_move_the_statistics_but_every_row_is_normalised():
    x = friendly((6, 3))
    y, mean, variance = batch_norm(x, weights=[1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(mean, x[:3].mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-3), rtol=1e-12)


# Dtypes and memory.


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "g"])
def test_a_float_input_keeps_its_dtype(dtype):
    """In the byte order of this machine, as NumPy's own functions do it."""
    x = friendly((20, 3)).astype(dtype)
    y, mean, variance = batch_norm(x, GAMMA, BETA)
    native = np.add(x, x).dtype
    assert y.dtype == native
    assert mean.dtype == variance.dtype == np.result_type(np.float64, x.dtype)
    assert (
        normalize(x, mean, variance).dtype == scale_and_shift(x, GAMMA).dtype == native
    )
    np.testing.assert_allclose(
        y.astype("f8"),
        loop_batch_norm(x, GAMMA, BETA),
        rtol=4 * np.finfo(dtype).eps,
        atol=4e-3 if dtype == "f2" else 1e-6,
    )


def test_integers_give_float64():
    y, _, _ = batch_norm(np.arange(12).reshape(4, 3))
    assert y.dtype == np.float64


def test_inputs_are_never_modified_and_never_shared():
    x = friendly((6, 3))
    arrays = [x, GAMMA.copy(), BETA.copy(), x.mean(axis=0), x.var(axis=0)]
    for array in arrays:
        array.flags.writeable = False
    y = batch_norm_inference(x, arrays[3], arrays[4], arrays[1], arrays[2])
    for result in (
        y,
        normalize(x, arrays[3], arrays[4]),
        scale_and_shift(x, arrays[1], arrays[2]),
    ):
        assert not np.shares_memory(result, x)
    assert not np.shares_memory(scale_and_shift(x), x), (
        "with nothing to do it is still a copy"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_stay_in_their_channel(bad):
    x = friendly((20, 3))
    clean, _, _ = batch_norm(x)
    x[4, 1] = bad
    y, _, _ = batch_norm(x)
    np.testing.assert_array_equal(y[:, [0, 2]], clean[:, [0, 2]])


def test_views_work():
    x = friendly((20, 9), np.float32)
    view = x[::2, ::-3]
    np.testing.assert_allclose(
        batch_norm(view)[0], batch_norm(view.copy())[0], rtol=1e-6
    )


def test_epsilon_defaults_to_keras_1e_3():
    for function in (normalize, batch_norm, batch_norm_inference):
        assert inspect.signature(function).parameters["epsilon"].default == 1e-3


# Errors: expected, received, remedy.

X = np.ones((4, 3))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: batch_norm(X, gamma=np.ones(4)),
            ValueError,
            r"gamma .*shape \(3,\).*got shape \(4,\)",
        ),
        (
            lambda: batch_norm(X, beta=np.ones((3, 1))),
            ValueError,
            r"beta .*got shape \(3, 1\)",
        ),
        (lambda: batch_norm(X, gamma=2.0), ValueError, r"got shape \(\)"),
        (lambda: batch_norm(X, gamma=np.ones(3), axis=0), ValueError, r"shape \(4,\)"),
        (
            lambda: batch_norm(X, gamma=np.ones(3, complex)),
            TypeError,
            "gamma must hold real",
        ),
        (lambda: batch_norm(X, epsilon=-1e-3), ValueError, "at least 0.*got -0.001"),
        (lambda: batch_norm(X, epsilon=np.nan), ValueError, "finite"),
        (lambda: batch_norm(X, epsilon="1e-3"), TypeError, "one real number; got str"),
        (lambda: batch_norm(X, epsilon=np.ones(3)), TypeError, "ndarray"),
        (lambda: batch_norm(3.0), ValueError, "scalar"),
        (lambda: batch_norm(np.ones((0, 3))), ValueError, "none to average"),
        (lambda: batch_norm(X, axis=5), ValueError, "axis must lie in"),
        (lambda: batch_norm(X.astype(object)), TypeError, "object"),
        (
            lambda: normalize(X, np.zeros(3), np.array([1, -1e-3, 1])),
            ValueError,
            "negative",
        ),
        (
            lambda: normalize(X, np.zeros(2), np.ones(3)),
            ValueError,
            "mean must have shape",
        ),
        (
            lambda: batch_norm_inference(X, np.zeros(3), np.ones(4)),
            ValueError,
            "variance must have",
        ),
        (
            lambda: scale_and_shift(X, beta=np.ones(2)),
            ValueError,
            "beta must have shape",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


# Axes averaged over that are not all but those of gamma and beta.


@pytest.mark.parametrize("size", [1, 60])  # the second is large enough for the kernels
def test_instance_norm_is_batch_norm_of_each_example(size):
    x = friendly((3, 5 * size, 7, 11))
    gamma, beta = np.linspace(-1, 3, 11), np.linspace(4, -2, 11)
    y, mean, variance = batch_norm(x, gamma, beta, axes=(1, 2))
    for i in range(3):
        alone = batch_norm(x[i : i + 1], gamma, beta)
        for got, expected in zip((y[i], mean[i], variance[i]), alone, strict=True):
            np.testing.assert_allclose(
                got, np.squeeze(expected, 0) if got.ndim > 1 else expected, atol=1e-12
            )
    given = batch_norm_inference(x, mean, variance, gamma, beta, axes=(1, 2))
    np.testing.assert_array_equal(given, y)
    x_hat = normalize(x, mean, variance, axes=(1, 2))
    np.testing.assert_allclose(scale_and_shift(x_hat, gamma, beta), y, atol=1e-12)


def test_layer_and_group_norm_against_the_formula():
    x = friendly((4, 5, 6))
    gamma, beta = np.linspace(-1, 3, 6), np.linspace(4, -2, 6)

    def formula(x, axes, gamma, beta):
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta

    for axes in (-1, (1, 2)):
        y, mean, variance = batch_norm(x, gamma, beta, axes=axes)
        np.testing.assert_allclose(y, formula(x, axes, gamma, beta))
        assert mean.shape == variance.shape == x.mean(axes).shape
    groups = x.reshape(4, 5, 2, 3)
    gamma, beta = gamma.reshape(2, 3), beta.reshape(2, 3)
    y, mean, _ = batch_norm(groups, gamma, beta, axis=(2, 3), axes=(1, 3))
    np.testing.assert_allclose(y, formula(groups, (1, 3), gamma, beta))
    assert mean.shape == (4, 2)


def test_axes_are_checked():
    x, ones = friendly((4, 5, 6)), np.ones(6)
    with pytest.raises(ValueError, match="axes must lie in"):
        batch_norm(x, axes=3)
    with pytest.raises(ValueError, match="axes must name each of its axes once"):
        batch_norm(x, axes=())
    with pytest.raises(ValueError, match=r"gamma must have shape \(6,\).*axis \(2,\)"):
        batch_norm(x, np.ones(4), axes=(1, 2))
    with pytest.raises(ValueError, match=r"mean must have shape \(4,\).*axis \(0,\)"):
        batch_norm_inference(x, ones, ones, axes=(1, 2))
    with pytest.raises(ValueError, match=r"weights must have shape \(5,\)"):
        batch_norm(x, axes=(1, 2), weights=np.ones(4))


def test_axes_that_say_what_axis_says_change_no_bit():
    x = friendly((4, 5, 6))
    plain, named = batch_norm(x), batch_norm(x, axes=(0, 1))
    for a, b in zip(plain, named, strict=True):
        np.testing.assert_array_equal(a, b)
    statistics = moments(x, axis=7, axes=(0, 1))[:2]  # axis is not asked then
    np.testing.assert_array_equal(
        normalize(x, *statistics, axis=7, axes=(0, 1)), plain[0]
    )
