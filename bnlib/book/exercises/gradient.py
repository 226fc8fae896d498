"""Checkers for the chapter on the gradient."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.gradient import batch_norm_backward

__all__ = ["repaired", "rms", "swallowed"]


@checker
def repaired(answer):
    """Check `answer(grad_y, x, gamma, epsilon)`: a backward pass that was wrong for some gammas."""
    rng, epsilon = np.random.default_rng(0), 0.1
    x = rng.normal((3, -1), (2, 0.5), (7, 2))
    random, ones = rng.normal(size=x.shape), np.ones(x.shape)
    for grad_y, gamma, words in [
        (ones, (3.0, -0.5), "It is wrong for an upstream gradient of all ones."),
        (random, (1.0, 1.0), "It is wrong for gamma = 1, where it was right before."),
        (
            random,
            (3.0, -0.5),
            "Right for all ones, and right for gamma = 1. Compare it with the nine steps for a "
            "random grad_y and gamma = 2: by what factor is each of the three terms off?",
        ),
    ]:
        gamma = np.array(gamma)
        grads = _three(answer(grad_y.copy(), x.copy(), gamma.copy(), epsilon), x.shape)
        right = batch_norm_backward(grad_y, x, gamma, epsilon=epsilon)
        without = batch_norm_backward(grad_y, x, gamma, epsilon=0)[0]
        if grad_y is random and close(grads[0], without):
            raise NotYet("Epsilon is lost: s is the root of variance + epsilon.")
        for name, mine, its in zip(
            ("gamma", "beta"), grads[1:], right[1:], strict=True
        ):
            if not close(mine, its, 1e-6) and np.max(np.abs(mine - its)) > 1e-9:
                raise NotYet(f"grad_{name} was right, and is not any more.")
        if grad_y is random and np.any(gamma != 1):
            if close(grads[0], gamma * right[0]):
                raise NotYet("Each term has gamma as a factor twice now.")
            if close(grads[0], right[0] / gamma):
                raise NotYet("Gamma is in none of the three terms now.")
        if np.max(np.abs(grads[0] - right[0])) > 1e-9:
            raise NotYet(words)
    return "Gamma stands before all three terms, or inside all three."


def _three(returned, shape):
    """Unpack grad_x, grad_gamma and grad_beta, or say what is missing."""
    names = ("grad_x", "grad_gamma", "grad_beta")
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        arrays(returned, names, shape)  # says what is missing
    return [
        *_finite(returned[:1], names[:1], shape),
        *_finite(returned[1:], names[1:], shape[1:]),
    ]


def _finite(returned, names, shape):
    """Unpack a learner's arrays, and refuse a nan or an infinity: no comparison finds it."""
    values = arrays(returned, names, shape)
    for name, value in zip(names, values, strict=True):
        if not np.all(np.isfinite(value)):
            raise NotYet(f"{name} should be finite; yours has a nan or an infinity.")
    return values


@checker
def rms(answer):
    """Check `answer(grad_y, x, epsilon)`: the gradient of y = x / sqrt(mean(x^2) + epsilon)."""
    rng, epsilon = np.random.default_rng(0), 0.1
    x = rng.normal(1, (2, 0.5, 1, 3, 1), (3, 5))
    grad_y = rng.normal(size=x.shape)
    returned = answer(grad_y.copy(), x.copy(), epsilon)
    (grad_x,) = _finite(None if returned is None else (returned,), ("grad_x",), x.shape)

    def of(epsilon, axis):
        r = np.sqrt((x**2).mean(axis=axis, keepdims=True) + epsilon)
        return r, x / r * (grad_y * x / r).mean(axis=axis, keepdims=True)

    (r, along), (r0, along0), (r1, along1) = of(epsilon, 1), of(0, 0), of(epsilon, 0)
    level = grad_y.mean(axis=1, keepdims=True)
    for wrong, words in [
        (grad_y / r, "That is the direct path alone. r depends on x too."),
        (
            (grad_y - level - along) / r,
            "That is batch norm's. There is no mean here: how many paths are there?",
        ),
        (
            (grad_y - 5 * along) / r,
            "Nearly: r holds the mean of the squares, not the sum.",
        ),
        (
            (grad_y - along / 5) / r,
            "Nearly: you divide by the number of features twice.",
        ),
        ((grad_y + along) / r, "Nearly: which sign has the derivative of 1 / r?"),
        (
            (grad_y - 2 * along) / r,
            "Nearly: the root of step 5 brings a 2 below the line.",
        ),
        (
            (grad_y - along / 2) / r,
            "Nearly: the square brings a 2, and it cancels another.",
        ),
        (grad_y - along, "The division by r is missing."),
        (
            (grad_y - along1) / r1,
            "Those are means over the examples; here over features.",
        ),
        (
            (grad_y - along0) / r0,
            "Those are means over the examples; here over features.",
        ),
        (
            (grad_y - x * (grad_y * x).mean(axis=1, keepdims=True)) / r,
            "The second term has y where yours has x.",
        ),
    ]:
        if close(grad_x, wrong):
            raise NotYet(words)
    if not close(grad_x, (grad_y - along) / r):
        raise NotYet(
            "Two paths. The direct one gives grad_y / r. For the other, what is the "
            "gradient of r, and how does r change with one x?"
        )
    return "One sum less than batch norm, and one path fewer."


@checker
def swallowed(answer):
    """Check `answer`: an upstream gradient that never reaches x = 1, 2, 3, 4, 5."""
    grad_y = np.asarray(answer, dtype=float).ravel()
    if grad_y.size != 5:
        raise NotYet(f"One number for each of the five; yours are {grad_y.size}.")
    if not np.all(np.isfinite(grad_y)):
        raise NotYet("All five should be finite numbers.")
    if not np.any(grad_y):
        raise NotYet("All five are 0, so there is nothing to swallow. Others?")
    if np.ptp(grad_y) <= 1e-9 * np.max(np.abs(grad_y)):
        raise NotYet("Equal numbers are swallowed, and the text had them. Others?")
    x = np.arange(1.0, 6)[:, np.newaxis]
    grad_x = batch_norm_backward(grad_y[:, np.newaxis], x, epsilon=0)[0]
    if np.max(np.abs(grad_x)) > 1e-9 * np.max(np.abs(grad_y)):
        raise NotYet(
            f"{np.max(np.abs(grad_x)):.3g} reaches x. Which two demands are taken out?"
        )
    return "A shift plus a stretch: a + b x for any a and b."
