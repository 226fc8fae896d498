"""Checks of hard numbers and hard arrays."""

import math

import numpy as np

from bnlib.conformance._checks import (
    BETA,
    GAMMA,
    SPREAD,
    Failed,
    as_wide,
    call,
    check,
    compare,
    draw,
    graded,
    refused,
    right,
)

ROWS = 4096
TINY = 1e-6  # an epsilon that does not count beside a variance of 1
LOST = (
    "The variance loses its digits, or turns negative: noise or NaN for features that were not"
    " standardised, such as years, prices, pixels or positions."
)


def _far_away(make, mean, deviation):
    noise = np.random.default_rng(0).standard_normal((ROWS, 3))
    x = (mean + deviation * noise * [1, -1, 0.5]).astype(np.float32)
    layer = make(epsilon=TINY)
    return graded("y", call(layer, x), right(layer, x, epsilon=TINY))


@check("moments", "mean 1e2, deviation 1: y is right to 1e-3", LOST)
def mean_1e2(make):
    return _far_away(make, 1e2, 1)


@check("moments", "mean 1e4, deviation 1: y is right to 1e-3", LOST)
def mean_1e4(make):
    return _far_away(make, 1e4, 1)


@check("moments", "mean 1e6, deviation 1: y is right to 1e-3", LOST)
def mean_1e6(make):
    return _far_away(make, 1e6, 1)


@check("moments", "mean 1e8, deviation 50: y is right to 1e-3", LOST)
def mean_1e8(make):
    return _far_away(make, 1e8, 50)


@check(
    "transform",
    "inference, moving mean 1e6, moving variance 1: as if 1e6 were 0, to 1e-3",
    "x * scale + shift rounds twice at the size of the mean: predictions lose digits that the"
    " statistics have.",
)
def inference_mean_1e6(make):
    layer, near = make(), make()
    layer.set_state(np.full(3, 1e6), np.ones(3))
    near.set_state(np.zeros(3), np.ones(3))
    x = (1e6 + np.random.default_rng(0).standard_normal((ROWS, 3))).astype(np.float32)
    y = as_wide(near.forward(x - np.float32(1e6), False))
    return graded("y", call(layer, x, False), y)


@check(
    "moments",
    "a channel that is 123456.789 everywhere gives y = 0, to 1e-3",
    "A dead or padded feature comes out as noise, of up to a thousand deviations.",
)
def constant_channel(make):
    layer, x = make(), draw(ROWS)
    x[:, 1] = 123456.789
    return graded("y", call(layer, x), right(layer, x))


@check(
    "moments",
    "values of 1e25, whose square is no float32: y is right to 1e-3",
    "The variance overflows, and the channel is silently 0 or NaN.",
    level="warning",
)
def values_of_1e25(make):
    layer, x = make(epsilon=TINY), (draw(ROWS) / 1e3).astype(np.float32)
    x[:, 1] *= np.float32(1e25)
    return compare("y", call(layer, x), right(layer, x, epsilon=TINY), 1e-3)


@check(
    "moments",
    "NaN in one channel and infinity in another leave the third alone, or are refused",
    "One bad value spoils every channel, and nothing tells where it came from.",
)
def nan_in_its_channel(make):
    layer, x = make(), draw(11)
    wanted = as_wide(call(make(), x)[:, 1:2])
    x[3, 0], x[5, 2] = math.nan, math.inf
    try:
        y = call(layer, x)
    except (ValueError, TypeError) as error:
        return refused(error)
    return compare("y of the third", y[:, 1:2], wanted, 1e-4)


# Few values. A layer may also refuse: an error that is a ValueError or the like, and no NaN.


def _state_of(layer):
    try:
        return layer.state()
    except NotImplementedError:
        return ()


def _stays_finite(layer):
    if not all(np.all(np.isfinite(value)) for value in _state_of(layer)):
        raise Failed("NaN or infinity in the moving statistics, for ever")
    return "moving statistics finite"


@check(
    "layer",
    "one value a channel: y = beta and finite moving statistics, or an error that says why",
    "The last batch of an epoch ruins the layer: NaN that stays.",
)
def batch_of_one(make):
    layer, x = make(), draw(1)
    try:
        y = call(layer, x)
    except (ValueError, TypeError, ArithmeticError) as error:
        return f"{refused(error)}; {_stays_finite(layer)}"
    said = compare("y", y, right(layer, x), 1e-4)
    return f"{said}, {_stays_finite(layer)}"


@check(
    "keras",
    "a batch of none: an empty y and finite moving statistics, or an error",
    "A filter that leaves nothing puts NaN into the moving statistics, for ever.",
)
def empty_batch(make):
    layer, x = make(), np.zeros((0, 3), np.float32)
    try:
        y = call(layer, x)
    except NotImplementedError:
        raise
    except Exception as error:  # of whichever kind a framework has for it
        return f"{refused(error)}; {_stays_finite(layer)}"
    if y.shape != x.shape:
        raise Failed(f"y of shape {y.shape}")
    return f"an empty y, {_stays_finite(layer)}"


# Arrays


@check(
    "axes",
    "a transposed or strided x gives what its copy gives",
    "Values are read in the order of the memory: outputs belong to other places.",
)
def non_contiguous(make):
    x = draw(11)
    twice = np.repeat(np.repeat(x, 2, 0), 2, 1)
    wanted = as_wide(call(make(), x))
    for awkward in (np.asfortranarray(x), twice[::2, ::2]):
        said = compare("y", make().forward(awkward, True), wanted, 1e-4)
    return said


@check(
    "transform",
    "x, the gradient, gamma and beta are afterwards what they were",
    "Whoever uses the same array again, a residual connection for one, gets other numbers.",
)
def input_untouched(make):
    arrays = {"x": draw(11), "grad_y": draw(11, seed=1) / SPREAD.astype(np.float32)}
    arrays["grad_y"] = arrays["grad_y"].astype(np.float32)
    arrays |= {"gamma": GAMMA.copy(), "beta": BETA.copy()}
    before = {name: array.copy() for name, array in arrays.items()}
    x, grad_y, *vectors = arrays.values()
    try:
        layer = make(gamma=vectors[0], beta=vectors[1])
    except NotImplementedError:
        layer = make()
    calls = (
        lambda: layer.forward(x, True),
        lambda: layer.forward(x, False),
        lambda: layer.gradient(x, grad_y),
    )
    called = 0
    for each in calls:
        try:
            each()
        except NotImplementedError:
            continue
        called += 1
        for name, array in arrays.items():
            if not np.array_equal(array, before[name]):
                raise Failed(f"{name} has been changed")
    if not called:
        raise NotImplementedError
    return f"the same bytes after {called} calls"
