"""Checkers for the chapter on the transform."""

import numpy as np

from bnlib.book.exercises import NotYet, checker, close
from bnlib.transform import batch_norm

__all__ = ["farthest", "norm_after", "repaired"]


@checker
def farthest(answer):
    """Check `answer`: ten numbers whose second largest normalises to as much as possible."""
    batch = np.asarray(answer, dtype=float).ravel()
    if batch.size != 10:
        raise NotYet(f"The batch should hold ten numbers; yours holds {batch.size}.")
    if not np.ptp(batch):
        raise NotYet("All ten are equal, so each normalises to 0.")
    y = np.sort(batch_norm(batch[:, np.newaxis], epsilon=0)[0].ravel())
    best = 2 - 1e-6  # sqrt(m / k - 1) for k = 2 of m = 10
    if y[-2] >= best:
        return (
            "Two of ten reach sqrt(10 / 2 - 1) = 2, and k of m reach sqrt(m / k - 1)."
        )
    if y[1] <= -best:
        raise NotYet("That is -2, twice, on the other side; turn it round.")
    found = f"Your second largest normalises to {y[-2]:.3g}"
    if y[-1] > 3 - 1e-6 or y[0] < -3 + 1e-6:
        raise NotYet(f"{found}. You have sent one number out; send two.")
    raise NotYet(f"{found}. More is possible.")


@checker
def repaired(answer):
    """Check `answer(x, gamma, beta, epsilon)`: a batch norm that was wrong for whole numbers."""
    gamma, beta, epsilon = np.array([3.0, -0.5]), np.array([-2.0, 0.25]), 0.1
    random = np.random.default_rng(0).normal((3, -1), (2, 0.5), (7, 2))
    for x, words in [
        (random, "Random decimals came out wrong, which were right before."),
        (
            np.array([[1, 10], [2, 30], [3, 10], [4, 30]]),  # whole numbers
            "Right on random decimals, and wrong on some pixels.",
        ),
    ]:
        given = x.copy()
        y = answer(given, gamma, beta, epsilon)
        if y is None:
            raise NotYet("The function returns nothing so far.")
        if np.shape(y) != x.shape:
            raise NotYet(f"y should have shape {x.shape}; yours has {np.shape(y)}.")
        if not np.array_equal(given, x):
            raise NotYet("The answer is right, but x itself was changed.")
        if not close(y, batch_norm(x, gamma, beta, epsilon=epsilon)[0]):
            raise NotYet(words)
    return (
        "An array made like x has the type of x, and whole numbers cannot hold x_hat."
    )


@checker
def norm_after(answer):
    """Check `answer(start, rate, c, steps)`: how far the norm of a scale-invariant kernel grows."""
    for start, rate, c, steps in [(2, 0.1, 3, 20_000), (5, 0.05, 8, 3000)]:
        found = answer(start, rate, c, steps)
        if found is None:
            raise NotYet("The function returns nothing so far.")
        square = start**2
        for _ in range(steps):
            square += rate**2 * c**2 / square
        push = rate**2 * c**2 * steps
        for wrong, words in [
            (square, "That is the squared norm."),
            (
                np.sqrt(start**2 + push),
                "There the gradient has the norm c throughout. It is c / norm.",
            ),
            (
                np.sqrt(start**2 + push / start**2),
                "There the gradient keeps the norm that it had at the start. The norm "
                "of W grows, so the gradient shrinks.",
            ),
            (
                start + rate * c * steps / start,
                "The step is perpendicular to W: squares add, lengths do not.",
            ),
            ((start**4 + push) ** 0.25, "Nearly: the derivative of u^2 is 2 u u'."),
        ]:
            if close(found, wrong, 1e-3):
                raise NotYet(words)
        if not close(found, np.sqrt(square), 1e-2):
            raise NotYet(
                f"From {start}, rate {rate}, c = {c}: {steps} steps lead to "
                f"{np.sqrt(square):.3g}, and yours to {float(found):.3g}."
            )
    return "The fourth root of time: the norm grows ever more slowly."
