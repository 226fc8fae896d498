"""Checkers for the chapter on what batch norm buys."""

from math import comb, pi

import numpy as np

from bnlib.book.exercises import NotYet, checker, close

__all__ = ["sign_test", "steps_to", "variance_shift"]


@checker
def sign_test(answer):
    """Check `answer(differences)`: how probable so uneven a count of signs is by chance."""
    if answer(np.ones(3)) in (None, ...):
        raise NotYet("The function returns nothing so far.")
    mine = float(answer(np.array([0.3, 0.1, 0.2, 0.4, 0.1])))
    if close(mine, 2**-5):
        raise NotYet(
            "That counts one end only. Five losses would have been as uneven as five wins."
        )
    if not close(mine, 2 * 2**-5):
        raise NotYet(
            f"Five wins of five: 2 of the 32 ways in which five coins fall; yours gives {mine:.3g}."
        )
    mixed = np.array([0.3, -0.1, 0.2, 0.4, 0.1, 0.2, -0.3, 0.1])
    right = 2 * sum(comb(8, k) for k in (6, 7, 8)) / 2**8
    if close(float(answer(mixed)), 2 * comb(8, 6) / 2**8):
        raise NotYet(
            "Six wins of eight: count the ways that are more uneven, seven and eight, as well."
        )
    if not close(float(answer(mixed)), right):
        raise NotYet(
            f"Six wins of eight should give {right:.3f}; yours gives {answer(mixed):.3f}."
        )
    if not close(float(answer(-mixed)), right):
        raise NotYet("Two wins of eight are as uneven as six: take the larger count.")
    if not close(float(answer(np.array([1.0, -1, 2, -2]))), 1):
        raise NotYet("Two wins of four: nothing is less uneven, so the answer is 1.")
    if not close(float(answer(np.array([0.3, 0, 0.2, 0, 0.1]))), 2 * 2**-3):
        raise NotYet(
            "A difference of 0 is neither a win nor a loss. Leave it out, and count three."
        )
    return "With five seeds nothing gets below 0.062: six that all agree are the least for 0.05."


@checker
def steps_to(answer):
    """Check `answer(accuracies, target, every)`: the first step at the target; infinite if none."""
    rising = [0.1, 0.5, 0.92, 0.88, 0.95]
    if answer(rising, 0.9, 10) == 2:
        raise NotYet("That is the place in the list. One place is `every` steps.")
    if answer(rising, 0.9, 10) != 20:
        raise NotYet(
            f"The target was first reached at step 20; got {answer(rising, 0.9, 10)!r}."
        )
    if answer([0.91, 0.95], 0.9, 10) != 0:
        raise NotYet("A network that starts above the target reached it at step 0.")
    if answer([0.1, 0.9, 0.95], 0.9, 10) == 20:
        raise NotYet(
            "A run at exactly 0.9 has reached 0.9: compare with >=, not with >."
        )
    never = answer([0.1, 0.2, 0.1], 0.9, 10)
    if never == 0 and never is not None:
        raise NotYet(
            "A run that never reached 0.9 counts as the fastest of all. Give it np.inf."
        )
    if never is not None and never != np.inf:
        raise NotYet(
            f"A run that never got there needs np.inf, or None; got {never!r}."
        )
    return "A run that never arrives is told apart from one that starts there."


@checker
def variance_shift(answer):
    """Check `answer(p)`: variance in training to that in inference, dropout before batch norm."""
    if answer(0.5) is None or answer(0.5) is ...:
        raise NotYet("The function returns nothing so far.")
    shares = np.array([0, 0.1, 0.3, 0.5, 0.8])
    mine = np.array([float(answer(p)) for p in shares])
    if close(mine, 1 / (1 - shares)):
        raise NotYet(
            "That is what dropout does to the mean square. The variance is that less the squared "
            "mean, and ReLU's mean is not 0."
        )
    variance = 0.5 - 0.5 / pi
    if close(mine, (0.5 * (1 - shares) - 0.5 * (1 - shares) ** 2 / pi) / variance):
        raise NotYet("The values that are left are enlarged, by 1 / (1 - p).")
    if close(mine, variance / (0.5 / (1 - shares) - 0.5 / pi)):
        raise NotYet("That is inference to training: the other way round.")
    if close(mine, 0.5 / (1 - shares) - 0.5 / pi):
        raise NotYet(
            "That is the variance in training, for weights of 1. Divide it by the variance in "
            f"inference, which is that for p = 0: {variance:.3g}."
        )
    kept = 1 - shares
    if close(mine, (0.5 / kept - 0.5 / pi / kept**2) / variance):
        raise NotYet(
            "The mean is the same in training: a share 1 - p is kept, and enlarged by 1 / (1 - p)."
        )
    if close(mine, 1 / kept**2):
        raise NotYet(
            "That enlarges every value by 1 / (1 - p), and drops none of them."
        )
    if not close(mine[0], 1):
        raise NotYet(
            f"With p = 0 nothing is dropped and the ratio must be 1; yours is {mine[0]:.3g}."
        )
    if not close(mine, (0.5 / (1 - shares) - 0.5 / pi) / variance):
        raise NotYet(
            f"For p = 0.5 your ratio is {mine[3]:.3g}. In training the mean square is 1 and in "
            "inference 1/2; from each goes the same squared mean, 1 / (2 pi)."
        )
    return "Half dropped makes the variance 2.47 times larger in training."
