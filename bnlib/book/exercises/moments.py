"""Checkers for the chapter on moments."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.moments import merge_moments, moments

__all__ = ["images", "pool", "stable"]


def _batch(shape, seed=0):
    """A batch whose channels differ in mean and scale."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    return np.arange(1, channels + 1) * (2 + rng.standard_normal(shape))


@checker
def images(answer):
    """Check `answer(x)`: per-channel mean and variance of `(N, H, W, C)`."""
    x = _batch((5, 4, 3, 2))
    expected = moments(x)
    mean, variance = arrays(answer(x.copy()), ("mean", "variance"), (2,))
    if not close(mean, expected.mean):
        raise NotYet("The mean is off. Which axes does a channel's average run over?")
    if close(variance, np.sqrt(expected.variance)):
        raise NotYet("That is the standard deviation: leave out the root.")
    if close(variance, expected.variance * 60 / 59):
        raise NotYet("You divided by m - 1. A batch variance divides by m.")
    if not close(variance, expected.variance):
        raise NotYet(
            "The mean is right, the variance is not: average (x - mean) squared."
        )
    return "60 values a channel, one mean and one variance each."


@checker
def stable(answer):
    """Check `answer(x)`: variance of float32 columns `(N, C)`, however large their mean."""
    x = (10.0 ** np.array([0, 3, 6, 8]) + _batch((512, 4), seed=1)).astype(np.float32)
    (variance,) = arrays((answer(x.copy()),), ("variance",), (4,))
    expected = moments(x).variance
    for column, power in enumerate((0, 3, 6, 8)):
        if not close(variance[column], expected[column], rtol=1e-4):
            raise NotYet(
                f"At a mean of {10**power:,} you found {variance[column]:.3g}; "
                f"it is {expected[column]:.3g}. What is still rounded to float32?"
            )
    return "Right up to a mean of 100,000,000."


@checker
def pool(answer):
    """Check `answer(mean_a, variance_a, n_a, mean_b, variance_b, n_b)`: the pooled pair."""
    x = _batch((12, 3), seed=2)
    x[8:] += 5
    a, b = moments(x[:8]), moments(x[8:])
    mean, variance = arrays(answer(*a, *b), ("mean", "variance"), (3,))
    expected = merge_moments([a, b])
    if close(mean, (a.mean + b.mean) / 2):
        raise NotYet(
            "You gave both batches the same weight; one has 8 rows, the other 4."
        )
    if not close(mean, expected.mean):
        raise NotYet("The mean is off: add the two sums, then divide by all the rows.")
    if close(variance, (8 * a.variance + 4 * b.variance) / 12):
        raise NotYet(
            "You averaged the variances. The distance between the means is missing."
        )
    if not close(variance, expected.variance):
        raise NotYet(
            "The mean is right, the variance is not: spread within plus spread between."
        )
    return "The same as if the two batches had been one."
