"""The fast kernels against the clear code: every layout, dtype and size, any number of threads."""

import functools
import importlib.util
import itertools
import multiprocessing
import sys
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from reference import loop_moments
from samples import ROWS

from benchmarks.accuracy import two_levels
from bnlib import batch_norm, batch_norm_inference, blocks, moments
from bnlib.blocks import _numpy
from bnlib.gradient import batch_norm_backward

ENGINES = ["numpy"] + ["numba"] * bool(importlib.util.find_spec("numba"))

# name: (shape, axis). Sizes that fill no block evenly; rows wider than a block; long rows.
SHAPES = {
    "primes, channels last": ((37, 29, 31, 3), -1),
    "primes, channels first": ((37, 3, 29, 31), 1),
    "few after the channels": ((211, 19, 7), 1),
    "one channel": ((50021, 1), -1),
    "one channel, first": ((3, 1, 50021), 1),
    "many channels": ((5, 70001), -1),
    "channels only": ((3, 50021), 0),
    "middle of five": ((3, 5, 7, 11, 67), 2),
    "many blocks": ((9001, 127), -1),
    "many blocks of rows": ((127, 31, 301), 1),
    "two channels": ((100003, 2), -1),
}


@pytest.fixture(autouse=True)
def numpy_and_two_threads():
    blocks.use("numpy", threads=2)
    yield
    blocks.use("numpy", threads="all")


@contextmanager
def clear_code():
    """Everything counts as small: the code that the chapters show does all the work."""
    smallest, blocks.SMALLEST = blocks.SMALLEST, 10**12
    try:
        yield
    finally:
        blocks.SMALLEST = smallest


@contextmanager
def kernels_only(monkeypatch):
    """The clear code breaks when it is reached."""
    with monkeypatch.context() as patch:
        for module, name in (
            ("moments", "average"),
            ("transform", "centre_and_divide"),
            ("gradient", "centre_and_divide"),
        ):
            patch.setattr(sys.modules[f"bnlib.{module}"], name, None)
        yield


def sample(shape, axis, dtype="f4", seed=0, mean=3.0):
    """x, grad_y, gamma, beta; channels of unequal mean and scale."""
    assert np.prod(shape) >= blocks.SMALLEST
    rng = np.random.default_rng(seed)
    channels = shape[axis]
    along = [channels if a == axis % len(shape) else 1 for a in range(len(shape))]
    scale, shift = np.linspace(0.5, 4, channels), np.linspace(-mean, mean + 1, channels)
    x = rng.standard_normal(shape) * scale.reshape(along) + shift.reshape(along)
    grad_y = 0.5 + rng.standard_normal(shape)
    return x.astype(dtype), grad_y.astype(dtype), rng.standard_normal(channels), shift


def everything(x, grad_y, gamma, beta, axis=-1, **options):
    """All that the core computes from one batch: y, mean, variance, inference, three gradients."""
    y, mean, variance = batch_norm(x, gamma, beta, axis=axis, **options)
    at_inference = batch_norm_inference(
        x, mean, variance, gamma, beta, axis=axis, **options
    )
    return (
        y,
        mean,
        variance,
        at_inference,
        *batch_norm_backward(grad_y, x, gamma, axis=axis, **options),
    )


def assert_close(got, expected, m, digits=1e-6):
    """Equal to one unit in the last place, and to `digits` of the largest, or of m for a sum."""
    for g, e in zip(got, expected, strict=True):
        assert g.dtype == e.dtype
        assert g.shape == e.shape
        resolution, step = (
            float(np.finfo(e.dtype).eps),
            float(np.finfo(e.dtype).smallest_subnormal),
        )
        g, e = g.astype("f8"), e.astype("f8")
        scale = max(np.nanmax(np.abs(e)), 0.1 * m if e.ndim == 1 else 0)
        np.testing.assert_allclose(g, e, rtol=resolution, atol=digits * scale + step)


# The same results as the clear code.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mean", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("name", SHAPES)
def test_fast_equals_clear(name, mean, engine):
    shape, axis = SHAPES[name]
    batch = sample(shape, axis, mean=mean)
    with clear_code():
        expected = everything(*batch, axis=axis)
    blocks.use(engine)
    assert_close(everything(*batch, axis=axis), expected, batch[0].size / shape[axis])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["primes, channels last", "primes, channels first"])
@pytest.mark.parametrize(
    ("dtype", "digits"), [("f2", 1e-6), ("f4", 1e-6), ("f8", 1e-13)]
)
def test_the_kernels_do_the_work_for_every_float(
    name, dtype, digits, engine, monkeypatch
):
    shape, axis = SHAPES[name]
    batch = sample(shape, axis, dtype)
    with clear_code():
        expected = everything(*batch, axis=axis)
    blocks.use(engine)
    with kernels_only(monkeypatch):
        got = everything(*batch, axis=axis)
    assert_close(got, expected, 37 * 29 * 31, digits)


@pytest.mark.parametrize("change", ["integers", "two axes", "weights"])
def test_what_the_kernels_cannot_do_the_clear_code_does(change):
    x, *_ = sample((301, 211), -1)
    weights = np.arange(301) if change == "weights" else None
    x = {
        "integers": lambda x: (10 * x).astype(int),
        "two axes": lambda x: x.reshape(301, 211, 1),
        "weights": lambda x: x,
    }[change](x)
    axis = (1, 2) if change == "two axes" else -1
    got = moments(x, axis=axis, weights=weights)
    plain = np.asarray(x, "f8").reshape(301, 211)
    mean = np.average(plain, axis=0, weights=weights)
    np.testing.assert_allclose(got.mean.ravel(), mean, rtol=1e-12, atol=1e-12)
    assert not np.shares_memory(batch_norm(x, axis=axis, weights=weights)[0], x)


@pytest.mark.parametrize("change", ["transposed", "every other row", "big-endian"])
def test_other_orders_of_memory_are_copied_first(change, monkeypatch):
    """A copy costs less than what the clear code takes; the results are in C's order."""
    x, grad_y, gamma, beta = sample((301, 211), -1)
    expected = everything(x, grad_y, gamma, beta)
    other = {
        "transposed": np.asfortranarray,
        "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
        "big-endian": lambda x: x.astype(">f4"),
    }[change]
    with kernels_only(monkeypatch):
        got = everything(other(x), other(grad_y), gamma, beta)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)
        assert g.dtype == e.dtype
        assert g.flags.c_contiguous


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("axis", [-1, 1])
def test_gradients_of_the_returned_statistics(axis, engine):
    x, grad_y, gamma, beta = sample((23, 43, 41), axis)
    extra = {"grad_mean": 100 * gamma, "grad_variance": 100 * beta}
    with clear_code():
        expected = batch_norm_backward(grad_y, x, gamma, axis=axis, **extra)
    blocks.use(engine)
    assert_close(
        batch_norm_backward(grad_y, x, gamma, axis=axis, **extra), expected, 1000
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("mean", [0.0, 3.0, 1000.0])
@pytest.mark.parametrize("name", ["primes, channels last", "primes, channels first"])
def test_known_statistics_in_every_engine(name, mean, dtype, engine, monkeypatch):
    shape, axis = SHAPES[name]
    x, grad_y, gamma, _ = sample(shape, axis, dtype, mean=mean)
    known = moments(x, axis=axis)
    with clear_code():
        expected = batch_norm_backward(grad_y, x, gamma, axis=axis)
    blocks.use(engine)
    with kernels_only(monkeypatch):
        monkeypatch.setattr(blocks._twins, "_statistics", None)
        got = batch_norm_backward(grad_y, x, gamma, axis=axis, statistics=known)
    assert_close(got, expected, 37 * 29 * 31)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("row", [name for name in ROWS if "1e15" not in name])
def test_known_statistics_of_every_hard_row(row, engine):
    """Without float64 around 1e15: there the mean itself is rounded, to 1/8."""
    x = np.tile(ROWS[row], (-(-40_000 // len(ROWS[row])), 3))
    grad_y = np.random.default_rng(0).standard_normal(x.shape).astype(x.dtype)
    with clear_code():
        expected = batch_norm_backward(grad_y, x)
    blocks.use(engine)
    known = moments(x)
    assert_close(
        batch_norm_backward(grad_y, x, statistics=known), expected, 40_000, 2e-6
    )


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ((np.ones(4), np.ones(7)), r"mean must have shape \(7,\).*\(4,\)"),
        ((np.ones(7), np.ones(1)), r"variance must have shape \(7,\).*\(1,\)"),
        ((np.ones(7), -np.ones(7)), "variance must not be negative"),
    ],
)
def test_bad_statistics_are_refused_at_full_size(known, words):
    x, grad_y, *_ = sample((9001, 7), -1)
    with pytest.raises(ValueError, match=words):
        batch_norm_backward(grad_y, x, statistics=known)


# Accuracy, at a size where the kernels work.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", ["last", "first"])
@pytest.mark.parametrize("row", ROWS)
def test_every_hard_row_forward_backward_inference(row, layout, engine):
    exact_mean, exact_variance = loop_moments(ROWS[row])
    x = np.tile(ROWS[row], (-(-40_000 // len(ROWS[row])), 3))
    x = x if layout == "last" else np.ascontiguousarray(x.T[np.newaxis])
    grad_y = np.random.default_rng(0).standard_normal(x.shape).astype(x.dtype)
    axis = -1 if layout == "last" else 1
    offset = x.dtype.type(
        1e15 if "1e15" in row else 0
    )  # the clear code's mean rounds there, to 1/8
    with clear_code():
        expected = everything(x, grad_y, None, None, axis=axis)
        expected = *expected[:4], *batch_norm_backward(grad_y, x - offset, axis=axis)
    blocks.use(engine)
    got = everything(x, grad_y, None, None, axis=axis)
    for value, exact in ((got[1], exact_mean), (got[2], exact_variance)):
        exact = np.array([float(e) for e in exact] * 3)
        np.testing.assert_allclose(
            value, exact, rtol=1e-6, atol=1e-9 * np.sqrt(float(exact_variance[0]))
        )
    assert_close(got, expected, 40_000, 2e-6 if offset == 0 else 3e-5)


@pytest.mark.parametrize(
    "levels", [(0.1, 0.3), (0.1, 0.8), (1 / 3, 2 / 3), (-0.7, 0.7), (1000.1, 1000.9)]
)
def test_float32_sums_of_two_levels(levels):
    """Equal numbers round the same way each time, so errors do not cancel: short sums do it."""
    rng = np.random.default_rng(0)
    for shape, axis in (
        ((20_011, 3), -1),
        ((3, 20_011), 0),
        ((20_011, 64), -1),
        ((64, 64, 301), 1),
    ):
        x = np.asarray(levels, "f4")[rng.integers(0, 2, shape)]
        exact = x.astype("f8").var(
            axis=tuple(a for a in range(x.ndim) if a != axis % x.ndim)
        )
        np.testing.assert_allclose(moments(x, axis=axis).variance, exact, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("offset", [0.9, 1.1, 1.8, 1.95])
def test_a_mean_about_as_large_as_the_deviation(offset, engine):
    """Its square is taken from the mean of the squares, and their errors stay."""
    blocks.use(engine)
    for rows, share in itertools.product((2048, 4096), (0.5, 0.1)):
        x = two_levels((rows, 64), share, 1.0, offset)
        x[:16] = 0  # what a small batch's mean is guessed from
        exact = x.astype("f8").var(axis=0)
        np.testing.assert_allclose(moments(x).variance, exact, rtol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("axis", [-1, 0])
def test_doubtful_channels_are_summed_again(axis, engine):
    """Start unlike the rest, constant, zero, huge, tiny: float32 sums are not enough."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30_011, 8)).astype("f4")
    x[::950, 0] = 1e6  # the rows that a guess might look at
    x[:, 1], x[:, 2] = 123456.789, 0
    x[:, 3] *= 1e25
    x[:, 4] *= 1e-25
    x[:20_000, 5] += 1e7
    exact = x.astype(np.longdouble)
    exact_mean, exact_variance = exact.mean(0), exact.var(0)
    blocks.use(engine)
    mean, variance, _ = moments(
        x if axis == -1 else np.ascontiguousarray(x.T), axis=axis
    )
    np.testing.assert_array_less(
        abs(mean - exact_mean), 1e-7 * np.sqrt(exact_variance) + 1e-30
    )
    np.testing.assert_allclose(
        variance.astype("f8"), exact_variance.astype("f8"), rtol=1e-6
    )
    assert variance[1] == variance[2] == 0


# NaN and infinity, epsilon 0, the ends of the range.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [-1, 1])
def test_nan_and_infinity_stay_in_their_channel(axis, bad, engine):
    x, grad_y, gamma, beta = sample((31, 37, 41), axis)
    blocks.use(engine)
    clean = everything(x, grad_y, gamma, beta, axis=axis)
    here = (7, slice(None), 5) if axis == 1 else (7, 5)
    x[here[0], 5, 5] = bad
    got = everything(x, grad_y, gamma, beta, axis=axis)
    assert np.isnan(got[2][5])
    np.testing.assert_equal(got[1][5], bad)
    for g, c in zip(got, clean, strict=True):
        others = np.arange(x.shape[axis]) != 5
        keep = np.compress(others, np.moveaxis(g, axis, 0) if g.ndim > 1 else g, axis=0)
        unchanged = np.compress(
            others, np.moveaxis(c, axis, 0) if c.ndim > 1 else c, axis=0
        )
        np.testing.assert_allclose(keep, unchanged, rtol=1e-5, atol=1e-5)
        assert (
            np.isnan(np.moveaxis(g, axis, 0)[5] if g.ndim > 1 else g[5]).any()
            or g is got[1]
            or g is got[6]
        )


def test_one_row_gives_beta_and_no_gradient():
    x, grad_y, gamma, beta = sample((1, 30_011), -1)
    y, _, _, _, grad_x, *_ = everything(x, grad_y, gamma, beta)
    np.testing.assert_array_equal(y, beta[np.newaxis].astype("f4"))
    np.testing.assert_allclose(
        grad_x, 0, atol=1e-6 * np.abs(grad_y * gamma).max() / np.sqrt(1e-3)
    )


def test_constant_channels_with_epsilon_0_do_what_the_clear_code_does():
    x = np.full((5003, 5), 3.0, "f4")
    x[7, 1] = np.nan  # must not hide the others
    calls = [
        lambda: batch_norm(x, epsilon=0)[0],
        lambda: batch_norm_inference(x, np.full(5, 2.0), np.zeros(5), epsilon=0),
    ]
    for call in calls:
        with np.errstate(all="ignore"), clear_code():
            expected = call()
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(call(), expected)


def test_statistics_near_the_ends_of_the_range():
    x = np.random.default_rng(0).standard_normal((5003, 5)).astype("f4")
    for mean, variance in ((1e35, 1.0), (0.0, 1e70), (0.0, 1e-70), (-1e38, 1e76)):
        given = np.full(5, mean), np.full(5, variance)
        with np.errstate(over="ignore"), clear_code():
            expected = batch_norm_inference(x, *given, epsilon=0)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(
                batch_norm_inference(x, *given, epsilon=0), expected
            )


# Threads, memory, side effects.


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "name", ["primes, channels last", "primes, channels first", "many blocks"]
)
def test_the_number_of_threads_changes_no_bit(name, engine, monkeypatch):
    shape, axis = SHAPES[name]
    monkeypatch.setattr(_numpy, "BLOCK", 1 << 10)  # so that there are many
    batch = sample(shape, axis)
    blocks.use(engine, threads=1)
    alone = everything(*batch, axis=axis)
    for threads in (2, 3, 7):
        blocks.use(engine, threads=threads)
        for a, b in zip(alone, everything(*batch, axis=axis), strict=True):
            np.testing.assert_array_equal(a, b)


def test_threads_obey_errstate_and_report_errors(monkeypatch):
    monkeypatch.setattr(_numpy, "BLOCK", 1 << 10)
    x = np.zeros((9001, 8), "f2")
    x[-1] = 60000  # overflows float16 in the last thread only
    given = np.zeros(8), np.full(8, 1e-4)
    with np.errstate(over="ignore"):
        assert np.isinf(batch_norm_inference(x, *given)[-1]).all()
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        batch_norm_inference(x, *given)


def _variance(x):
    return moments(x).variance


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_its_own_threads():
    x, *_ = sample((9001, 127), -1)
    expected = _variance(x)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        np.testing.assert_array_equal(
            pool.apply_async(_variance, (x,)).get(60), expected
        )


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((401, 29, 31, 16), -1), ((401, 16, 29, 31), 1), ((4001, 1024), -1)],
)
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_forward_and_backward_need_twice_the_input(shape, axis, mean):
    """y and grad_x take one each; what else is needed must come and go beside the first of them."""
    x, grad_y, gamma, beta = sample(shape, axis, mean=mean)
    tracemalloc.start()
    try:
        kept = (
            batch_norm(x, gamma, beta, axis=axis),
            batch_norm_backward(grad_y, x, gamma, axis=axis),
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert kept[0][0].nbytes == x.nbytes
    assert peak <= 2.15 * x.nbytes


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_inputs_are_read_only(dtype, engine):
    batch = sample((9001, 7), -1, dtype)
    before = [value.copy() for value in batch]
    for value in batch:
        value.flags.writeable = False
    blocks.use(engine)
    results = everything(*batch)
    for value, copy in zip(batch, before, strict=True):
        np.testing.assert_array_equal(value, copy)
        assert not any(np.shares_memory(value, result) for result in results)


def test_the_choice_of_engine_is_checked():
    with pytest.raises(ValueError, match=r'"numpy" or "numba"; got .cuda'):
        blocks.use(engine="cuda")
    with pytest.raises(ValueError, match='at least 1, or "all"; got 0'):
        blocks.use(threads=0)
    for wrong in (2.0, True, "two"):
        with pytest.raises(TypeError, match="threads must be an integer"):
            blocks.use(threads=wrong)
    blocks.use(threads=np.int64(2))


def test_what_is_not_named_stays_as_it_is():
    pytest.importorskip("numba", reason="numba is an extra")
    loops = functools.partial(blocks._twins._loops, np.ones(1))
    blocks.use("numba", threads=1)
    blocks.use(threads=4)
    assert loops().__name__ == "bnlib.blocks._numba"
    blocks.use("numpy")
    assert blocks._settings.most_threads(8) == 4
    blocks.use(threads="all")
    assert blocks._settings.most_threads(6) == 6
    assert loops().__name__ == "bnlib.blocks._numpy"


def test_numba_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "bnlib.blocks._numba", raising=False)
    with pytest.raises(ImportError, match=r"bnlib-book\[fast\]"):
        blocks.use(engine="numba")


@pytest.mark.parametrize(("rows", "most"), [(256, 1), (4096, 2)])
def test_numba_wakes_threads_for_large_arrays_only(rows, most, monkeypatch):
    """Waking a thread takes longer than all the work on a middling array."""
    numba = pytest.importorskip("numba", reason="numba is an extra")
    asked, choose, before = [], numba.set_num_threads, numba.get_num_threads()
    monkeypatch.setattr(
        numba, "set_num_threads", lambda n: (asked.append(n), choose(n))
    )
    blocks.use("numba", threads=2)
    moments(np.ones((rows, 512), "f4"))
    assert max(asked[::2]) == min(most, numba.config.NUMBA_NUM_THREADS)
    assert numba.get_num_threads() == before
