"""Checkers for the chapter on replicas."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close

__all__ = ["backward", "pool", "shares"]


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
    within, between = (
        np.average(a, axis=0, weights=counts) for a in (variances, (means - mean) ** 2)
    )
    if close(variance, within + means.var(0)):
        raise NotYet(
            "The spread between is taken around the weighted mean, and weighted."
        )
    if close(variance, variances.mean(0) + between):
        raise NotYet("The spread within is an average too: weigh it by the counts.")
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
    if not np.isclose(sum(answer(part, 5) for part in [*parts[1:], parts[1] * 2]), 6):
        raise NotYet("Right for six examples. Another batch has five: use count.")
    return "The sum of the shares is the mean, however the batch was cut."


@checker
def backward(answer):
    """Check `answer(g, x_hat, s, count, all_sum)`: one replica's part of the backward pass."""
    rng = np.random.default_rng(0)
    cuts, count = [2, 9], 13
    x = np.concatenate([rng.normal(k, 1 + k, (n, 3)) for k, n in enumerate((2, 7, 4))])
    s = np.sqrt(x.var(0) + 1e-3)
    x_hat, g = (x - x.mean(0)) / s, rng.normal(1, 1, x.shape)
    parts = list(zip(np.split(g, cuts), np.split(x_hat, cuts), strict=True))
    found = [_unpacked(each) for each in _together(answer, parts, s, count)]
    for (grad_x, *_), (part, _) in zip(found, parts, strict=True):
        if grad_x.shape != part.shape:
            raise NotYet(f"grad_x should have shape {part.shape}, as g has.")
    grad_x = np.concatenate([each[0] for each in found])
    sums = np.array([(g * x_hat).sum(0), g.sum(0)])

    def closed(stretch, shift):
        return (g - shift - x_hat * stretch) / s

    spread = np.repeat([len(part) for part, _ in parts], [2, 7, 4])[:, np.newaxis]
    own = [
        np.repeat([f(*part) for part in parts], [2, 7, 4], axis=0)
        for f in (lambda a, b: (a * b).mean(0), lambda a, _: a.mean(0))
    ]
    if close(grad_x, closed(*(sums[:, np.newaxis] / spread))):
        raise NotYet("grad_x: sums over 13 examples, divided by 2, 7 or 4.")
    if close(grad_x, closed(*own)):
        raise NotYet("grad_x: each replica takes out its own two means alone.")
    if not close(grad_x, closed(*sums / count)):
        raise NotYet("grad_x is not the part of this replica in that of one device.")
    for place, name in ((1, "grad_gamma"), (2, "grad_beta")):
        total = sum(each[place] for each in found)
        if close(total, 3 * sums[place - 1]):
            raise NotYet(
                f"grad_x is right. {name}, added up, is three times too large."
            )
        if not close(total, sums[place - 1]):
            raise NotYet(
                f"grad_x is right. {name} does not add up to that of one device."
            )
    return "Pooled sums in grad_x, and each replica's own for gamma and beta."


def _unpacked(returned):
    names = "grad_x, grad_gamma, grad_beta"
    if returned is None or returned is ...:
        raise NotYet(f"The function returns nothing so far; it should return {names}.")
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        raise NotYet(f"Return 3 arrays: {names}.")
    grad_x, *of_parameters = (np.asarray(value, float) for value in returned)
    if any(value.shape != (3,) for value in of_parameters):
        raise NotYet(
            "grad_gamma and grad_beta should have shape (3,), one per channel."
        )
    return grad_x, *of_parameters


def _together(answer, parts, s, count):
    """Run the replicas one after another, twice: the first time shows what they exchange."""
    asked = [[] for _ in parts]
    for (g, x_hat), calls in zip(parts, asked, strict=True):

        def record(value, calls=calls):
            calls.append(np.array(value, float))
            return calls[-1].copy()

        answer(g.copy(), x_hat.copy(), s.copy(), count, record)
    shapes = {tuple(value.shape for value in calls) for calls in asked}
    if len(shapes) > 1:
        raise NotYet("all_sum needs arrays of one shape from all replicas.")
    totals = [sum(values) for values in zip(*asked, strict=True)]
    for g, x_hat in parts:
        left = iter(totals)
        yield answer(
            g.copy(),
            x_hat.copy(),
            s.copy(),
            count,
            lambda _, left=left: next(left).copy(),
        )
