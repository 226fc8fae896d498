"""Checkers for the chapter on moments."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.moments import merge_moments, moments

__all__ = ["batch_size", "effective", "masked", "pool"]


def _batch(shape, seed=0):
    """A batch whose channels differ in mean and scale."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    return np.arange(1, channels + 1) * (2 + rng.standard_normal(shape))


@checker
def batch_size(answer):
    """Check how many values make the mean right to 0.5, when the deviation is 10."""
    if not np.isreal(answer) or answer <= 0:
        raise NotYet("Give a number of values, 1 or more.")
    if close(answer, 400):
        return "With 400 values it is off by 10 / 20 = 0.5."
    likely = {
        1600: "That starts from the mean, 20. Only the spread makes a mean miss.",
        40_000: "You took the variance, 100, for the deviation, which is 10.",
        200: "You set the variance of the mean, 100 / m, to 0.5. "
        "The miss is the root of that variance.",
    }
    for wrong, words in likely.items():
        if close(answer, wrong):
            raise NotYet(words)
    miss = f"With {answer:.4g} values it is off by {10 / np.sqrt(answer):.3g}"
    if answer > 400:
        raise NotYet(f"{miss}, and it may be off by 0.5: fewer are enough.")
    raise NotYet(f"{miss}. The miss shrinks with the root of their number.")


@checker
def pool(answer):
    """Check `answer(mean_a, variance_a, n_a, mean_b, variance_b, n_b)`: the pooled pair."""
    for n_a, n_b in [(8, 4), (3, 9), (1, 6)]:
        x = _batch((n_a + n_b, 3), seed=2)
        x[n_a:] += 5
        a, b = moments(x[:n_a]), moments(x[n_a:])
        mean, variance = arrays(answer(*a, *b), ("mean", "variance"), (3,))
        expected = merge_moments([a, b])
        sizes = f"{n_a} and {n_b} rows"
        if close(mean, (a.mean + b.mean) / 2):
            raise NotYet(f"You gave both batches the same weight; they have {sizes}.")
        if not close(mean, expected.mean):
            raise NotYet(
                f"With {sizes} the mean is off: add the two sums, then divide by all "
                "the rows."
            )
        if close(variance, (n_a * a.variance + n_b * b.variance) / (n_a + n_b)):
            raise NotYet(
                "You averaged the variances. The distance between the means is missing."
            )
        if not close(variance, expected.variance):
            raise NotYet(
                f"With {sizes} the mean is right, the variance is not: spread within "
                "plus spread between."
            )
    return "The same as if the two batches had been one."


@checker
def masked(answer):
    """Check `answer(x, mask)`: the moments of the rows of `(N, C)` where the mask is True."""
    x, mask = 10 + _batch((6, 3), seed=3), np.array([True] * 4 + [False] * 2)

    def compare(name, x, mask):
        found = answer(x.copy(), mask.copy())
        mean, variance = arrays(found, ("mean", "variance"), (3,))
        if np.isnan([mean, variance]).any():
            raise NotYet(
                f"{name}: the answer is NaN. 0 times NaN is NaN, so a hidden row must be "
                "taken out before anything is multiplied or added."
            )
        expected = moments(x, weights=mask)
        if not close(mean, expected.mean):
            raise NotYet(
                f"{name}: the mean is {mean[0]:.4g} in channel 0, not "
                f"{expected.mean[0]:.4g}. Divide by the rows that count."
            )
        if close(variance * (mask.sum() - 1), expected.variance * mask.sum()):
            raise NotYet(
                f"{name}: the variance should divide by all of the rows that count."
            )
        if not close(variance, expected.variance):
            raise NotYet(
                f"{name}: the variance is {variance[0]:.4g} in channel 0, where the mean is "
                f"{mean[0]:.4g}. It should be {expected.variance[0]:.4g}. "
                "What do the hidden rows add?"
            )

    compare("All rows visible", x, np.ones(6, dtype=bool))
    compare("Two of six rows hidden", x, mask)
    compare("A mean of a billion", x + 1e9, mask)
    x[4:] = np.nan
    compare("NaN in the hidden rows", x, mask)
    return "The hidden rows add nothing, whatever they hold."


@checker
def effective(answer):
    """Check `answer(n, rho)`: how many independent values n correlated ones are worth."""
    n, rho = 7, 0.3
    value = answer(n, rho)
    if value is None or value is ...:
        raise NotYet("The function returns nothing so far.")
    likely = {
        n
        / (1 + n * rho): "A place and itself make no pair: there are n (n - 1) pairs.",
        n
        / (
            1 + (n - 1) * rho / 2
        ): "Each pair is in the sum twice, as (i, j) and (j, i).",
        n / (1 + n * (n - 1) * rho): "Divide by n squared, the pairs' part too.",
        1 / (1 + (n - 1) * rho): "That is the share that is left; of how many places?",
        (1 + (n - 1) * rho) / n: "That is the variance of the mean. Turn it over.",
        1 / rho: "That is what it approaches when there are very many places.",
        float(n): "That is the number of places, as if rho were 0.",
        n
        * (1 - rho): "With rho = 0.5 and many places it must stay finite: yours grows.",
    }
    for wrong, words in likely.items():
        if close(value, wrong):
            raise NotYet(words)
    for n, rho, words in [
        (5, 0, "Independent places are worth their number, 5"),
        (5, 1, "Five equal places are worth one"),
        (7, 0.3, "For n = 7 and rho = 0.3 sum all 49 covariances"),
        (3, -0.2, "For n = 3 and rho = -0.2 the places balance each other"),
    ]:
        covariance = np.full((n, n), float(rho))
        np.fill_diagonal(covariance, 1)
        if not close(answer(n, rho), n**2 / covariance.sum()):
            raise NotYet(f"{words}; your function gives {answer(n, rho):.4g}.")
    return "For many places it approaches 1 / rho."
