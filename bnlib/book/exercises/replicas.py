"""Checkers for the chapter on replicas."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close

__all__ = ["exchange", "pool", "shares"]


@checker
def pool(answer):
    """Check `answer(means, variances, counts)`: the moments of all replicas together."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(k, 1 + k, (n, 3)) for k, n in enumerate((2, 7, 4))]
    counts = np.array([len(part) for part in parts])
    means, variances = (
        np.array([f(p, axis=0) for p in parts]) for f in (np.mean, np.var)
    )
    whole = np.concatenate(parts)
    mean, variance = arrays(
        answer(means, variances, counts), ("mean", "variance"), (3,)
    )
    if close(mean, means.mean(0)):
        raise NotYet(
            "The replicas have 2, 7 and 4 examples, and count alike in your mean."
        )
    if not close(mean, whole.mean(0)):
        raise NotYet("The mean is not that of all examples: weigh by the counts.")
    if close(variance, np.average(variances, axis=0, weights=counts)):
        raise NotYet(
            "The means differ between replicas, and your variance does not know."
        )
    if not close(variance, whole.var(0)):
        raise NotYet("The mean is right; the variance is not that of all examples.")
    return "The spread within the replicas, and the spread between them."


@checker
def shares(answer):
    """Check `answer(losses, count)`: what one replica adds to the mean loss of the batch."""
    parts = [np.array([1.0, 5.0]), np.array([3.0]), np.array([2.0, 8.0, 11.0])]
    found = [answer(part, 6) for part in parts]
    if any(each is None or each is ... for each in found):
        raise NotYet(
            "The function returns nothing so far; it should return one number."
        )
    found = [np.asarray(each, float) for each in found]
    if any(each.shape != () for each in found):
        raise NotYet("Return one number: what this replica adds.")
    total = sum(map(float, found))
    if np.isclose(total, sum(part.mean() for part in parts)):
        raise NotYet("These are means; summed over three replicas they are too large.")
    if np.isclose(total, np.mean([part.mean() for part in parts])):
        raise NotYet("The mean of means: the example that is alone counts three times.")
    if not np.isclose(total, np.concatenate(parts).mean()):
        raise NotYet(
            f"The shares add up to {total:g}; the mean of all six losses is 5."
        )
    return "The sum of the shares is the mean, however the batch was cut."


@checker
def exchange(answer):
    """Check `answer(channels, examples)`: numbers one replica sends in a forward pass."""
    found = [answer(*given) for given in ((64, 8), (64, 800), (128, 8))]
    if any(each is None or each is ... for each in found):
        raise NotYet(
            "The function returns nothing so far; it should return one number."
        )
    few, many, wide = map(int, found)
    if few != many:
        raise NotYet("What is sent does not depend on the number of examples.")
    if wide - few == 64:
        raise NotYet("A mean for each channel, and what else for each channel?")
    if few == 128:
        raise NotYet("Almost: and how many examples stand behind the mean?")
    if (few, wide) != (129, 257):
        raise NotYet("Count what sync_moments adds up: three things.")
    return "A count, and two numbers for each channel."
