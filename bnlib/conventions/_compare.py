"""Say which parameter of a converted layer is wrong: from two layers, or from inputs, outputs."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from bnlib.conventions._params import BNParams

__all__ = ["compare", "explain"]

VECTORS = ("moving_mean", "moving_variance", "gamma", "beta")
FALLBACK = {"gamma": 1.0, "beta": 0.0}
EPSILONS = (0.0, 1e-8, 1e-6, 1e-5, 2e-5, 1e-4, 1e-3, 1e-2)


def compare(
    source: Mapping[str, BNParams],
    target: Mapping[str, BNParams],
    *,
    rtol: float = 1e-5,
) -> list[str]:
    """List what differs between the batch norm layers of a model and those of its conversion.

    Compared are the four vectors, epsilon and momentum. The axis and Bessel's factor are not: they
    belong to the framework.

    Args:
        source: the layers before, by name, in the words of `BNParams`.
        target: the layers after, by the same names.
        rtol: relative difference that counts as equal, for rounding; a vector may be off by this
            share of its largest value.

    Returns:
        One sentence for each difference, in the order of the layers, such as
        "bn2: epsilon is 0.001, and was 1e-05". None means that the layers agree.

    Raises:
        ValueError: when the two have other names.

    >>> bn = BNParams([2.0], [4.0], epsilon=1e-5, momentum=0.9)
    >>> compare({"bn1": bn}, {"bn1": replace(bn, momentum=0.1)})
    ['bn1: momentum is 0.1, and was 0.9: each is 1 minus the other']
    """
    if set(source) != set(target):
        raise ValueError(
            "source and target must have the same names; only in source: "
            f"{sorted(set(source) - set(target))}, only in target: "
            f"{sorted(set(target) - set(source))}. Rename one of them by your map of names."
        )
    return [
        f"{name}: {finding}"
        for name, before in source.items()
        for finding in _differences(before, target[name], rtol)
    ]


def _differences(before, after, rtol):
    """Return a sentence for each difference of two layers; a swapped pair is one difference."""
    if before.moving_mean.shape != after.moving_mean.shape:
        return [
            f"there are {after.moving_mean.size} channels, and were "
            f"{before.moving_mean.size}"
        ]
    old, new = ({n: _vector(p, n) for n in VECTORS} for p in (before, after))
    wrong = [n for n in VECTORS if not _close(new[n], old[n], rtol)]
    found = [
        f"{name} holds {other}, and {other} holds {name}: they are swapped"
        for place, name in enumerate(wrong)
        for other in wrong[place + 1 :]
        if _close(new[name], old[other], rtol) and _close(new[other], old[name], rtol)
    ]
    if not found:
        found = [f"{n} {_cause(n, old, new, before, after, rtol)}" for n in wrong]
    for name in ("epsilon", "momentum"):
        old_value, new_value = getattr(before, name), getattr(after, name)
        if old_value == new_value:
            continue
        if None not in (old_value, new_value):
            if np.isclose(new_value, old_value, rtol=rtol, atol=0):
                continue
            if name == "momentum" and np.isclose(new_value, 1 - old_value):
                found.append(
                    f"momentum is {new_value:g}, and was {old_value:g}: each is 1 minus the other"
                )
                continue
        shown = [v if v is None else f"{v:g}" for v in (new_value, old_value)]
        found.append(f"{name} is {shown[0]}, and was {shown[1]}")
    return found


def _cause(name, old, new, before, after, rtol):
    """Say how one vector differs, as plainly as it can be said."""
    mine, its = new[name], old[name]
    if getattr(after, name) is None:
        return "is missing"
    if getattr(before, name) is None:
        return "was not there"
    if not mine.any():
        return "is 0 everywhere"
    for other in VECTORS:
        if other != name and _close(mine, old[other], rtol):
            return f"holds what was {other}"
    if _close(np.sort(mine), np.sort(its), rtol):
        return "has its channels in another order"
    if name == "moving_variance":
        if _close(mine**2, its, rtol):
            return "holds the deviation, not the variance"
        if _close(mine, 1 / np.where(its > 0, its, np.inf) ** 0.5, rtol):
            return "holds 1 / deviation, not the variance"
    with np.errstate(all="ignore"):
        factors = (mine / its)[its != 0]
    if factors.size and np.allclose(factors, factors[0], rtol=rtol, atol=0):
        return f"is {factors[0]:g} times what it was"
    return f"differs by up to {np.abs(mine - its).max():.3g}"


def explain(
    params: BNParams, x: ArrayLike, y: ArrayLike, *, rtol: float = 1e-5
) -> list[str]:
    """Find the one change of a layer's parameters that makes it answer `y` to `x`.

    For the case that no parameters can be compared, since only outputs of the source are at hand.
    Tried are the usual values of epsilon, each pair of vectors swapped, a gamma or beta left out,
    a variance that is a deviation or its inverse, and statistics that are off by one factor, as
    Caffe's sums are; the factor is fitted.

    Args:
        params: the converted layer.
        x: an input, with the channels on `params.axis`.
        y: what the source answers to it in inference, same shape.
        rtol: largest error that counts as equal, in deviations of y.

    Returns:
        The change that mends it best, and those that do it about as well; `["nothing is wrong"]` if
        it agrees as it is; empty if no single change mends it. The momentum never shows in outputs.

    Raises:
        ValueError: when x and y have different shapes, or y has equal values only, so that
            everything would seem right.

    >>> bn = BNParams([2.0, 0.0], [4.0, 1.0], gamma=[1.0, 3.0], epsilon=1e-3, momentum=0.9)
    >>> x = np.arange(6.0).reshape(3, 2)
    >>> explain(bn, x, replace(bn, epsilon=1e-5).inference(x))
    ['epsilon should be 1e-05']
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape:
        raise ValueError(
            f"x and y must have the same shape; got {x.shape} and {y.shape}. "
            "Move the channels of one of them."
        )
    spread = y.std() if y.size else 0.0
    if not spread > 0:
        raise ValueError(
            "y must vary, or any layer would seem right; got equal values. Take real inputs and "
            "a trained layer."
        )
    bound = rtol * spread
    if _off(params, x, y) <= bound:
        return ["nothing is wrong"]
    errors = {words: _off(tried, x, y) for words, tried in _candidates(params, x, y)}
    best = min(errors.values())
    if best > bound:
        return []
    return [words for words, error in errors.items() if error <= 3 * best]


def _off(params, x, y):
    """Return the largest error of a layer's outputs."""
    return np.abs(params.inference(x) - y).max()


def _candidates(params, x, y):
    """List the changes that are tried, and the layers that they make."""
    tried = [
        (f"epsilon should be {epsilon:g}", {"epsilon": epsilon})
        for epsilon in EPSILONS
        if epsilon != params.epsilon
    ]
    for place, name in enumerate(VECTORS):
        for other in VECTORS[place + 1 :]:
            swapped = {name: _vector(params, other), other: _vector(params, name)}
            words = f"{name} and {other} should be swapped"
            tried.append((words, swapped))
    for name in FALLBACK:
        if getattr(params, name) is not None:
            tried.append((f"{name} should be left out", {name: None}))
    variance = params.moving_variance
    tried.append(
        (
            "moving_variance should be squared: it is a deviation",
            {"moving_variance": variance**2},
        )
    )
    if np.all(variance > 0):
        inverse = 1 / variance**2
        words = "moving_variance should be inverted and squared: it is 1 / deviation"
        tried.append((words, {"moving_variance": inverse}))
    factor = _factor(params, x, y)
    if factor is not None:
        words = "moving_mean and moving_variance should be "
        words += (
            f"divided by {factor:g}" if factor > 1 else f"multiplied by {1 / factor:g}"
        )
        mean = params.moving_mean / factor
        tried.append(
            (words, {"moving_mean": mean, "moving_variance": variance / factor})
        )
    for words, change in tried:
        under = change.get("moving_variance", variance)
        if np.all(under >= 0) and np.all(under + change.get("epsilon", params.epsilon)):
            yield words, replace(params, **change)


def _factor(params, x, y):
    """Fit the number that both statistics were multiplied by, or return None.

    In a channel y has the slope gamma / sqrt(variance / factor + epsilon), so each tells the
    factor; the median is out of reach of channels that are dead or hardly vary.
    """
    x, y = (
        np.moveaxis(a, params.axis, 0).reshape(params.moving_mean.size, -1)
        for a in (x, y)
    )
    x, y = (a - a.mean(axis=1, keepdims=True) for a in (x, y))
    with np.errstate(all="ignore"):
        slope = (x * y).sum(axis=1) / (x * x).sum(axis=1)
        right = (_vector(params, "gamma") / slope) ** 2 - params.epsilon
        factors = np.asarray(params.moving_variance / right, float)
    factors = factors[np.isfinite(factors) & (factors > 0)]
    return np.median(factors) if factors.size else None


def _vector(params, name):
    """Return one of the four vectors; ones or zeros for a gamma or beta that is not there."""
    value = getattr(params, name)
    if value is None:
        return np.full_like(params.moving_mean, FALLBACK[name])
    return value


def _close(mine, its, rtol):
    """Compare two vectors, up to a share of the largest value."""
    return np.abs(mine - its).max(initial=0) <= rtol * np.abs(its).max(initial=0)
