"""Checkers for the chapter on population statistics."""

import numpy as np

from bnlib.book.exercises import NotYet, checker, close

__all__ = ["choose", "debias", "steps"]


@checker
def steps(answer):
    """Check `answer(momentum, share)`: updates until less than `share` of the start is left."""
    for momentum, share, expected in [
        (0.99, 0.01, 459),
        (0.9, 0.01, 44),
        (0.5, 0.1, 4),
    ]:
        found = answer(momentum, share)
        case = f"my_steps({momentum}, {share})"
        if found is None:
            raise NotYet("The function returns nothing so far.")
        if close(found, 1 / (1 - momentum)):
            raise NotYet(f"{case} gave 1 / (1 - momentum): by then a third is left.")
        if found == expected - 1:
            raise NotYet(
                f"{case} is one step early: at {found} the share is not under {share}."
            )
        if found == expected + 1:
            raise NotYet(
                f"{case} is one step late: at {expected} it is under {share} already."
            )
        if found != expected:
            raise NotYet(
                f"{case} gave {found:.6g}. Which t solves momentum^t = {share}? "
                "Take logarithms."
            )
    return "459 steps for momentum 0.99."


@checker
def debias(answer):
    """Check `answer(batch_means, momentum)`: the debiased moving average of a list of numbers."""
    means, momentum = [10.0, 12.0, 11.0, 40.0, 9.0], 0.9
    found = answer(list(means), momentum)
    if found is None:
        raise NotYet("The function returns nothing so far.")
    plain = _moving_average(means, momentum)
    for value, hint in [
        (plain, "That is the plain moving average: 59 % of it is still the 0."),
        (plain / (1 - momentum), "You divided by 1 - momentum, not 1 - momentum^t."),
        (
            np.mean(means),
            "That is the plain average of all: the last should weigh most.",
        ),
        (
            plain + momentum ** len(means) * means[0],
            "You started at the first batch, which now weighs nine times as much as the second.",
        ),
    ]:
        if close(found, value):
            raise NotYet(hint)
    if not close(found, plain / (1 - momentum ** len(means))):
        raise NotYet("Average from 0, then divide by what is not the start.")
    return "The weights of the batches now sum to 1, from the first one on."


@checker
def choose(answer):
    """Check `answer`: a momentum for 300 steps, under 1 % start, at least 50 batches averaged."""
    momentum = float(answer)
    if not 0 <= momentum < 1:
        raise NotYet("A momentum is at least 0 and less than 1.")
    left, averaged = momentum**300, (1 + momentum) / (1 - momentum)
    if left >= 0.01:
        raise NotYet(f"{left:.2g} of the start is left after 300 steps. Forget faster.")
    if averaged < 50:
        raise NotYet(f"That averages {averaged:.3g} batches only. Forget more slowly.")
    return f"{left:.1e} of the start is left, and {averaged:.0f} batches are averaged."


def _moving_average(means, momentum):
    """The exponential average that starts at 0."""
    average = 0.0
    for mean in means:
        average = momentum * average + (1 - momentum) * mean
    return average
