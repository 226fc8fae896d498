"""Checkers for the chapter on the network."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close

__all__ = ["dead", "standardise", "steady"]


@checker
def standardise(answer):
    """Check `answer(train, test)`: both standardised, by the statistics of `train`."""
    rng = np.random.default_rng(0)
    train, test = rng.normal((50, -3), (10, 0.5), (2, 40, 2))
    test += 20  # as if the world had moved on
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    returned = answer(train.copy(), test.copy())
    mine, mine_test = arrays(returned, ("train", "test"), train.shape)
    if close(mine, (train - train.mean()) / train.std()):
        raise NotYet("Each column has a mean and a deviation of its own.")
    if close(mine, (train - mean) / deviation**2):
        raise NotYet("Divide by the deviation, not by the variance.")
    if not close(mine, (train - mean) / deviation, rtol=0.02):
        raise NotYet("The training data should leave with mean 0 and deviation 1.")
    if close(mine_test, (test - test.mean(axis=0)) / test.std(axis=0), rtol=0.02):
        raise NotYet("You gave the test data a scale of its own. What did train have?")
    if not close(mine_test, (test - mean) / deviation, rtol=0.02):
        raise NotYet(
            "The training data are right, the test data need the same map as they got."
        )
    return "One map, found on the training data and used on both."


@checker
def steady(answer):
    """Check `answer`: the weights' deviation that keeps ReLU layers of 30 units steady."""
    deviation = float(answer)
    if deviation <= 0:
        raise NotYet("A deviation is positive.")
    growth = deviation * np.sqrt(15)
    if not 0.97 < growth < 1.03:
        raise NotYet(
            f"Each layer would multiply the values by about {growth:.3g}, "
            f"and twenty layers by {growth**20:.1e}."
        )
    return "The square root of 2/30: the start that ReLU networks are given."


@checker
def dead(answer):
    """Check `answer(y)`: how many units of the ReLU outputs `(N, C)` are dead."""
    y = np.maximum(np.random.default_rng(1).normal(size=(6, 5)), 0)
    y[:3] = 0.0
    y[3] = 1.0
    y[:, [1, 3]] = 0.0
    count = _whole(answer(y.copy()))
    if count == 5:
        raise NotYet("Being 0 for some examples is what ReLU is for. Dead is for all.")
    if count != 2:
        raise NotYet(f"Two of the five units are 0 for every example; you say {count}.")
    y[:, 4] = np.nan
    if _whole(answer(y.copy())) == 3:
        raise NotYet("A unit whose values are NaN has overflowed. It is not dead.")
    if _whole(answer(y.copy())) != 2:
        raise NotYet("Right, until one unit is NaN: the two dead ones are still there.")
    return "And it tells a dead unit from one that has overflowed."


def _whole(count):
    if count is None or count is ... or np.ndim(count):
        raise NotYet("Return one number: how many units are dead.")
    return int(count)
