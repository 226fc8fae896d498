"""Checkers for the chapter on replicas."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close

__all__ = ["checkpoint", "exchange", "pool", "shares"]


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
    """Check `answer(channels, replicas)`: numbers in the table of one forward pass."""
    found = [answer(*given) for given in ((64, 4), (64, 8), (128, 4))]
    if any(each is None or each is ... for each in found):
        raise NotYet(
            "The function returns nothing so far; it should return one number."
        )
    few, many, wide = map(int, found)
    if few == many:
        raise NotYet("That is one row. The table has one for each replica.")
    if wide - few == 4 * 64:
        raise NotYet("A mean for each channel, and what else for each channel?")
    if few == 4 * 128:
        raise NotYet("Almost: and how many values stand behind the mean?")
    if few == 4 * 128 + 1:
        raise NotYet("Each row has its own count.")
    if few == 8 * 4 * 129:
        raise NotYet("Count numbers, not bytes.")
    if few == 4 * 3 * 64:
        raise NotYet("All channels of a replica have the same count.")
    if (few, many, wide) != (4 * 129, 8 * 129, 4 * 257):
        raise NotYet("Count what sync_moments hands to all_parts: three things.")
    return "A count, and two numbers for each channel, for each replica."


@checker
def checkpoint(answer):
    """Check `answer`: the moving variance that each of four layers saves, by its name."""
    values = np.array([[0.0, 2], [4, 8], [1, 1], [0, 16]])
    own, whole = values.var(axis=1), values.var()
    right = {
        "Keras, alone": own[0],
        "ours, alone": own.mean(),
        "Keras, synchronised": whole,
        "ours, synchronised": whole,
    }
    if not isinstance(answer, dict) or set(answer) != set(right):
        raise NotYet(f"Give one number for each of {', '.join(right)}.")
    if any(each is None or each is ... for each in answer.values()):
        raise NotYet("Some numbers are still missing.")
    for name, expected in right.items():
        value = float(answer[name])
        if np.isclose(value, expected, rtol=5e-3):  # three digits are enough
            continue
        if "synchronised" in name:
            if np.isclose(value, own.mean()):
                raise NotYet(f"{name}: the spread between the replicas is missing.")
            raise NotYet(f"{name}: all eight values are one batch.")
        if np.isclose(value, whole):
            raise NotYet(f"{name}: no replica has seen the values of another.")
        if name == "Keras, alone":
            raise NotYet(f"{name}: there are four copies. Which one is read and saved?")
        if np.isclose(value, own[0]):
            raise NotYet(f"{name}: this layer does not keep the first copy alone.")
        raise NotYet(f"{name}: take one variance for each replica first.")
    return "Replica 0's; the average of four; and for both others that of all eight values."
