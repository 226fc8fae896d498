"""moments and merge_moments: against exact sums, by properties, and at the edges."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import loop_moments
from samples import ROWS, batches, friendly

from bnlib import Moments, batch_norm, merge_moments, moments

# Accuracy. Truth is exact, from the values that the array really holds.


def relative_errors(got, exact):
    return [
        abs(Fraction(float(g)) - e) / abs(e) if e else abs(Fraction(float(g)))
        for g, e in zip(got, exact, strict=True)
    ]


@pytest.mark.parametrize("row", ROWS)
def test_mean_and_variance_to_1e_6_of_the_exact_value(row):
    x = ROWS[row]
    mean, variance, count = moments(x)
    exact_mean, exact_variance = loop_moments(x)
    assert max(relative_errors(mean, exact_mean)) <= 1e-6
    assert max(relative_errors(variance, exact_variance)) <= 1e-6
    assert count == len(x)


@pytest.mark.parametrize(
    "row", ["mean 1e+06", "mean 1e+08", "near 1e25", "float16 +-6e4"]
)
def test_these_rows_are_hard_the_textbook_fails_them(row):
    """If this goes red, the rows above no longer prove anything."""
    x = ROWS[row]
    with np.errstate(over="ignore", invalid="ignore"):
        textbook = x.var(axis=0)
    _, exact = loop_moments(x)
    assert (
        not all(np.isfinite(textbook)) or max(relative_errors(textbook, exact)) > 1e-3
    )


def test_a_constant_channel_has_variance_zero():
    for value in (0.1, 1 / 3, 123456.789, 1e100, -7.0):
        assert moments(np.full((1000, 1), value)).variance[0] <= (1e-15 * value) ** 2


# Shapes, axes, dtypes.


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7, 3), -1),
        ((7, 3), 0),
        ((7, 5, 3), 1),
        ((2, 5, 7, 3), -1),
        ((2, 3, 5, 7), 1),
        ((2, 3, 2, 5, 7), 1),
    ],
)
def test_against_the_loop(shape, axis):
    x = friendly(shape)
    mean, variance, count = moments(x, axis=axis)
    exact_mean, exact_variance = loop_moments(x, axis)
    np.testing.assert_allclose(mean, [float(v) for v in exact_mean], rtol=1e-14)
    np.testing.assert_allclose(variance, [float(v) for v in exact_variance], rtol=1e-13)
    assert mean.shape == variance.shape == (shape[axis],)
    assert count == x.size // shape[axis]


def test_a_tuple_of_axes_keeps_them_all():
    x = friendly((2, 5, 7, 3))
    mean, variance, count = moments(x, axis=(0, -1))
    assert mean.shape == (2, 3)
    assert count == 35
    for n in range(2):
        np.testing.assert_allclose(variance[n], moments(x[n]).variance, rtol=1e-13)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "i4", "u1", "?"])
def test_statistics_are_float64_for_every_dtype(dtype):
    x = (friendly((50, 3)) > 1).astype(dtype)
    mean, variance, _ = moments(x)
    assert mean.dtype == variance.dtype == np.float64
    np.testing.assert_allclose(mean, np.mean(x.astype("f8"), axis=0), rtol=1e-14)


def test_longdouble_keeps_its_precision():
    assert moments(np.ones((2, 1), np.longdouble)).mean.dtype == np.longdouble


@pytest.mark.parametrize("seed", range(3))
def test_non_contiguous_and_read_only_input(seed):
    x = friendly((20, 9), np.float32, seed)
    view = x[::2, ::-3]
    plain = view.copy()
    x.flags.writeable = False
    for got, expected in zip(moments(view), moments(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_the_input_is_never_modified():
    x = friendly((20, 3))
    x[0, 0] = np.nan
    weights = np.ones(20)
    before = x.copy(), weights.copy()
    moments(x, weights=weights)
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(weights, before[1])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_stay_in_their_channel(bad):
    x = friendly((20, 3))
    clean = moments(x)
    x[4, 1] = bad
    mean, variance, _ = moments(x)
    np.testing.assert_array_equal(mean[[0, 2]], clean.mean[[0, 2]])
    np.testing.assert_array_equal(variance[[0, 2]], clean.variance[[0, 2]])
    np.testing.assert_equal(mean[1], bad)
    assert np.isnan(variance[1])


# Weights.


def test_whole_number_weights_are_repetitions():
    x, repeats = friendly((6, 2, 3)), np.array([3, 0, 1, 2, 5, 1])
    weighted = moments(x, weights=repeats)
    repeated = moments(np.repeat(x, repeats, axis=0))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-14)
    np.testing.assert_allclose(weighted.variance, repeated.variance, rtol=1e-13)
    assert weighted.count == repeated.count == 24


def test_one_weight_per_position_channels_first():
    x = friendly((2, 3, 5, 7))
    weights = np.random.default_rng(2).uniform(0, 2, (2, 5, 7))
    mean, variance, count = moments(x, axis=1, weights=weights)
    exact_mean, exact_variance = loop_moments(x, 1, weights.ravel())
    np.testing.assert_allclose(mean, [float(v) for v in exact_mean], rtol=1e-13)
    np.testing.assert_allclose(variance, [float(v) for v in exact_variance], rtol=1e-13)
    assert count == pytest.approx(weights.sum())


@pytest.mark.parametrize("hidden", [np.nan, np.inf, 1e300])
def test_a_mask_hides_whatever_lies_under_it(hidden):
    x = friendly((8, 3))
    mask = np.arange(8) < 5
    expected = moments(x[:5])
    x[5:] = hidden
    masked = moments(x, weights=mask)
    np.testing.assert_allclose(masked.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(masked.variance, expected.variance, rtol=1e-13)


def test_weights_keep_the_accuracy():
    x = ROWS["float64 mean 1e15"]
    weights = np.linspace(0.1, 2, len(x))
    _, exact = loop_moments(x, weights=weights)
    assert max(relative_errors(moments(x, weights=weights).variance, exact)) <= 1e-6


# Properties.


@given(batches, st.floats(-8, 8), st.floats(-1e3, 1e3))
def test_an_affine_map_moves_mean_and_variance(x, scale, offset):
    mean, variance, _ = moments(x)
    moved = moments(scale * x + offset)
    np.testing.assert_allclose(moved.mean, scale * mean + offset, atol=1e-9)
    np.testing.assert_allclose(
        moved.variance, scale**2 * variance, rtol=1e-9, atol=1e-8
    )


@given(batches, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(x, random):
    order = list(range(len(x)))
    random.shuffle(order)
    for a, b in zip(moments(x), moments(x[order]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-10)


@settings(max_examples=50)
@given(batches, st.lists(st.integers(0, 13), max_size=4))
def test_any_split_merges_to_the_same_moments(x, cuts):
    pieces = [piece for piece in np.split(x, sorted(cuts)) if len(piece)]
    merged = merge_moments(moments(piece) for piece in pieces)
    whole = moments(x)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-10, atol=1e-10)
    assert merged.count == whole.count


# Merging.


def test_merging_is_exact_at_a_mean_of_1e8():
    x = ROWS["mean 1e+08"]
    merged = merge_moments([moments(x[:100]), moments(x[100:107]), moments(x[107:])])
    _, exact = loop_moments(x)
    assert max(relative_errors(merged.variance, exact)) <= 1e-6


def test_averaging_the_variances_would_forget_the_spread_between_parts():
    x = np.array([[0.0], [2.0], [10.0], [12.0]])
    parts = [moments(x[:2]), moments(x[2:])]
    assert merge_moments(parts).variance == moments(x).variance == 26
    assert np.mean([part.variance for part in parts]) == 1


def test_a_part_with_count_zero_is_ignored_even_if_it_is_nan():
    part = moments(friendly((5, 2)))
    empty = Moments(np.full(2, np.nan), np.full(2, np.nan), 0)
    for got, expected in zip(merge_moments([empty, part]), part, strict=True):
        np.testing.assert_array_equal(got, expected)


# Errors: expected, received, remedy.


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: moments(3.0), ValueError, "got a scalar"),
        (lambda: moments(np.ones((2, 3)), axis=2), ValueError, "axis must lie in"),
        (
            lambda: moments(np.ones((0, 3))),
            ValueError,
            "none to average.*Skip an empty batch",
        ),
        (lambda: moments(np.ones((4, 0, 3))), ValueError, "none to average"),
        (lambda: moments(np.ones(3)), ValueError, "batch axis"),
        (lambda: moments(np.ones((2, 3), complex)), TypeError, "complex128.*Convert"),
        (lambda: moments(np.array([[None, 1]])), TypeError, "object"),
        (lambda: moments([["a"]]), TypeError, "real numbers"),
        (
            lambda: moments(np.ma.masked_array([[1.0]], [[True]])),
            TypeError,
            "mask would be lost",
        ),
        (
            lambda: moments(np.ones((2, 3)), weights=[1, 1, 1]),
            ValueError,
            r"shape \(2,\).*got \(3,\)",
        ),
        (
            lambda: moments(np.ones((2, 3)), weights=1.0),
            ValueError,
            "along the first axis",
        ),
        (
            lambda: moments(np.ones((2, 3)), weights=np.ones((2, 3))),
            ValueError,
            "weights must have",
        ),
        (
            lambda: moments(np.ones((2, 3)), weights=[1, -1]),
            ValueError,
            "at least 0.*minimum -1",
        ),
        (lambda: moments(np.ones((2, 3)), weights=[0, 0]), ValueError, "not all 0"),
        (lambda: moments(np.ones((2, 3)), weights=[1, np.nan]), ValueError, "finite"),
        (lambda: moments(np.ones((2, 3)), weights=[1, np.inf]), ValueError, "finite"),
        (
            lambda: moments(np.ones((2, 3)), weights=[1j, 1]),
            TypeError,
            "weights must hold real",
        ),
        (lambda: merge_moments([]), ValueError, "at least one"),
        (
            lambda: merge_moments([moments(np.ones((2, 3))), moments(np.ones((2, 4)))]),
            ValueError,
            "one shape",
        ),
        (
            lambda: merge_moments([Moments(np.ones(2), np.ones(2), 0)]),
            ValueError,
            "at least one value in all",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("rows", [6, 9001])  # the second goes to the kernels
def test_finite_values_whose_squares_overflow(rows):
    """Their variance is beyond float64: infinity, and y is then beta."""
    x = np.random.default_rng(0).standard_normal((rows, 3)) * 1e200
    with np.errstate(over="ignore"):
        mean, variance, _ = moments(x)
        y, *_ = batch_norm(x, beta=np.ones(3))
    assert np.isfinite(mean).all()
    assert (variance == np.inf).all()
    np.testing.assert_array_equal(y, np.ones_like(x))


def test_plain_tuples_are_merged():
    merged = merge_moments([(np.zeros(2), np.ones(2), 3), (np.ones(2), np.ones(2), 1)])
    np.testing.assert_allclose(merged.mean, 0.25)
    assert merged.count == 4
    with pytest.raises(
        ValueError, match=r"at least one value in all; got counts \[0, 0\]"
    ):
        merge_moments([(np.zeros(2), np.ones(2), 0)] * 2)
