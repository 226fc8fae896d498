"""Checks of what one call gives: y, its dtype, and the gradients."""

from typing import Any, NamedTuple

import numpy as np

from bnlib.conformance import _oracle
from bnlib.conformance._checks import (
    BETA,
    CLOSE,
    GAMMA,
    SPREAD,
    Failed,
    as_wide,
    call,
    check,
    compare,
    distance,
    draw,
    refused,
    relative,
    right,
)

# The transform


@check(
    "transform",
    "y = (x - mean) / sqrt(variance + epsilon), to 1e-4",
    "The output in training is not batch norm: another variance, another mean, or another order.",
)
def transform(make):
    layer, x = make(), draw(11)
    return compare("y", call(layer, x), right(layer, x), 1e-4)


@check(
    "transform",
    "epsilon = 0.5 is added to the variance, inside the root",
    "Channels with a small variance come out too large or too small, and weights that are moved"
    " here from elsewhere give other outputs.",
)
def epsilon(make):
    layer = make(epsilon=0.5)
    if layer.epsilon not in (None, 0.5):
        raise NotImplementedError(f"epsilon is {layer.epsilon:g}")
    x = (draw(4096) / 1000).astype(np.float32)
    return compare("y", call(layer, x), right(layer, x, epsilon=0.5), CLOSE)


@check(
    "transform",
    "y = gamma * x_hat + beta",
    "The layer cannot learn its scale and shift, or trained ones are applied wrongly.",
)
def gamma_and_beta(make):
    layer, x = make(gamma=GAMMA, beta=BETA), draw(11)
    x_hat = as_wide(call(make(), x))
    return compare("y", call(layer, x), GAMMA * x_hat + BETA, 1e-4)


def _each_rank(make, axis):
    """Try 3, 4 and 5 axes of different lengths."""
    said = []
    for places in ((5,), (2, 5), (2, 5, 2)):
        setting = {"ndim": len(places) + 2, "axis": axis}
        x = draw(7, *places, axis=axis)
        try:
            y = call(make(**setting), x)
        except NotImplementedError:
            continue
        rows = as_wide(call(make(), np.moveaxis(x, axis, -1).reshape(-1, 3)))
        wanted = np.moveaxis(rows.reshape(7, *places, 3), -1, axis)
        ndim = setting["ndim"]
        compare(f"y of {ndim} axes", y, wanted, CLOSE)
        said.append(f"{ndim}")
    if not said:
        raise NotImplementedError
    return f"right with {' and '.join(said)} axes"


@check(
    "axes",
    "one mean and variance a channel, over all other axes; channels last",
    "Each place of an image is normalised for itself, or channels are mixed: inference breaks.",
)
def channels_last(make):
    return _each_rank(make, -1)


@check(
    "axes",
    "one mean and variance a channel, over all other axes; channels first",
    "Each place of an image is normalised for itself, or channels are mixed: inference breaks.",
)
def channels_first(make):
    return _each_rank(make, 1)


# Dtypes


@check(
    "keras",
    "y of a float32 x is float32",
    "Everything behind the layer computes in another precision than you chose.",
    level="warning",
)
def float32(make):
    return _same_dtype(make().forward(draw(11), True), "float32")


@check(
    "moments",
    "y of a float64 x is float64, right to 1e-9",
    "Somewhere inside float32 is computed: checks of gradients in float64 will not pass.",
    level="warning",
)
def float64(make):
    x = draw(11, dtype="float64")
    layer = make(dtype="float64")
    y = _unless_refused(layer, x)
    said = _same_dtype(y, "float64")
    return f"{said}, {compare('y', y, right(layer, x), 1e-9)}"


def _same_dtype(y, dtype):
    if str(y.dtype) != dtype:
        raise Failed(f"y is {y.dtype}", "warning")
    return f"y is {dtype}"


def _unless_refused(layer, x):
    """Return y; a layer that refuses a dtype does not offer it."""
    try:
        return call(layer, x)
    except (TypeError, ValueError) as error:
        raise NotImplementedError(refused(error)) from None


def _sixteen_bits(make, dtype, x, most):
    """Compare the output for x, which is rounded to 16 bits first."""
    layer = make(dtype=dtype)
    x = x.astype(_numpy_dtype(dtype))
    y = _unless_refused(layer, x)
    said = _same_dtype(y, dtype)
    y = y.astype(np.float32)
    return f"{said}, {compare('y', y, right(layer, x.astype(np.float64)), most)}"


def _numpy_dtype(dtype):
    """Return NumPy's dtype; bfloat16 is one where ml_dtypes, of TensorFlow and JAX, is there."""
    if dtype != "bfloat16":
        return np.dtype(dtype)
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        raise NotImplementedError from None
    return np.dtype(ml_dtypes.bfloat16)


def _around_30():
    return np.random.default_rng(0).standard_normal((4096, 3)) * SPREAD / 200 + 30


@check(
    "wild",
    "float16, 4096 values around 30: y is float16, right to 1e-2",
    "Sums are taken in 16 bits, where 65504 is the largest number: mixed precision gives infinity,"
    " NaN or noise.",
)
def float16(make):
    return _sixteen_bits(make, "float16", _around_30(), 1e-2)


@check(
    "wild",
    "float16, values of +-6e4: y is +-1, to 1e-2",
    "The variance is put into 16 bits, where it does not fit, and the layer gives 0 or NaN.",
    level="warning",
)
def float16_range(make):
    signs = np.resize([6e4, -6e4], (64, 1)) * [1, -1, 1]
    return _sixteen_bits(make, "float16", signs, 1e-2)


@check(
    "wild",
    "bfloat16, 4096 values around 30: y is bfloat16, right to 5e-2",
    "Sums are taken in 16 bits, which hold three digits: mixed precision gives noise.",
)
def bfloat16(make):
    return _sixteen_bits(make, "bfloat16", _around_30(), 5e-2)


# Gradients


class _Problem(NamedTuple):
    """A layer, a batch, a random gradient of the loss, and how exact to be.

    Where y has the digits of float64, steps are small; elsewhere the differences are rough.
    """

    layer: Any
    asked: dict
    x: np.ndarray
    grad_y: np.ndarray
    step: float
    first: float
    second: float


def _problem(make):
    layer, asked = make.best()
    dtype = asked["dtype"]
    x = draw(7, dtype=dtype)
    grad_y = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    error = distance(call(layer, x), right(layer, x, **asked))
    fine = dtype == "float64" and not 1e-10 < error < CLOSE
    bounds = (1e-5, 1e-6, 1e-5) if fine else (1e-2, 1e-2, 0.1)
    return _Problem(layer, asked, x, grad_y, *bounds)


def _loss(layer, x, grad_y):
    y = call(layer, x)
    return float(np.sum(y.astype(np.longdouble) * grad_y))


def _directions(shape, scale, dtype):
    return (np.random.default_rng(2).standard_normal((5, *shape)) * scale).astype(dtype)


def _along(function, x, directions, step):
    """Return central differences of a function of x in some directions."""
    pairs = [
        (
            function(x + (step * d).astype(d.dtype)),
            function(x - (step * d).astype(d.dtype)),
        )
        for d in directions
    ]
    return np.array([(up - down) / (2 * step) for up, down in pairs])


@check(
    "gradient",
    "the derivative of y along random directions, as by central differences",
    "Training goes in a wrong direction. Loss still falls, so nobody notices.",
)
def gradient_x(make):
    layer, asked, x, grad_y, step, most, _ = _problem(make)
    grad_x = layer.gradient(x.copy(), grad_y.copy())[0]
    directions = _directions(x.shape, SPREAD, x.dtype)
    wanted = _along(lambda x: _loss(make(**asked), x, grad_y), x, directions, step)
    got = [np.sum(grad_x.astype(np.longdouble) * d) for d in directions]
    return relative("the derivative", np.array(got), wanted, most)


@check(
    "gradient",
    "the derivatives by gamma and beta, as by differences",
    "Scale and shift learn wrongly, or not at all.",
)
def gradient_gamma_beta(make):
    layer, asked, x, grad_y, _, most, _ = _problem(make)
    if "gamma" not in asked:
        raise NotImplementedError
    _, *got = layer.gradient(x.copy(), grad_y.copy())
    if any(each is None for each in got):
        raise NotImplementedError
    wanted = []
    for name in ("gamma", "beta"):  # y is linear in both, so any step will do
        for channel in range(3):
            step = np.eye(3)[channel]
            up, down = (
                make(**asked | {name: asked[name] + sign * step}) for sign in (1, -1)
            )
            wanted.append((_loss(up, x, grad_y) - _loss(down, x, grad_y)) / 2)
    return relative("gradients", np.concatenate(got), wanted, most)


@check(
    "gradient",
    "grad_x sums to 0 over the batch in each channel",
    "The path through the mean is missing: layers below see a constant push that changes nothing"
    " in y.",
)
def gradient_sum(make):
    layer, _, x, grad_y, _, most, _ = _problem(make)
    grad_x = layer.gradient(x.copy(), grad_y.copy())[0].astype(np.longdouble)
    share = np.abs(grad_x.sum(axis=0)) / np.abs(grad_x).sum(axis=0)
    return _near_0("the sum", share, most)


@check(
    "gradient",
    "grad_x is orthogonal to x_hat in each channel, where epsilon is small",
    "The path through the variance is missing: weights grow where they should only turn.",
)
def gradient_orthogonal(make):
    layer, _, x, grad_y, _, most, _ = _problem(make)
    grad_x = layer.gradient(x.copy(), grad_y.copy())[0].astype(np.longdouble)
    mean, variance = _oracle.statistics(x)
    x_hat = (x - mean) / np.sqrt(variance)
    share = np.abs((grad_x * x_hat).sum(axis=0)) / np.abs(grad_x * x_hat).sum(axis=0)
    return _near_0("the product", share, most)


def _near_0(what, share, most):
    worst = float(np.max(share))
    if worst <= most:
        return f"{what} is {worst:.1e} of its parts"
    raise Failed(f"{what} is {worst:.1e} of its parts")


@check(
    "tf_ops",
    "the second derivative, as central differences of the first",
    "A penalty made of gradients, as in WGAN-GP, is trained by a wrong gradient.",
)
def second_derivative(make):
    layer, _, x, grad_y, step, _, most = _problem(make)
    direction = np.random.default_rng(3).standard_normal(x.shape).astype(x.dtype)

    def along(x):
        grad_x = layer.gradient(x.copy(), grad_y.copy())[0]
        return float(np.sum(grad_x.astype(np.longdouble) * direction))

    second = layer.second_derivative(x.copy(), grad_y.copy(), direction.copy())
    directions = _directions(x.shape, SPREAD, x.dtype)
    got = [np.sum(second.astype(np.longdouble) * d) for d in directions]
    wanted = _along(along, x, directions, step)
    return relative("the second derivative", np.array(got), wanted, most)
