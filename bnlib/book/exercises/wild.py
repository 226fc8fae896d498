"""Checkers for the page on training in the wild."""

import numpy as np

from bnlib.book.exercises import NotYet, checker

__all__ = ["momentum"]


@checker
def momentum(answer):
    """Check `answer`: the momentum for 16 micro-batches where 0.99 was for the whole batch."""
    right = 0.99 ** (1 / 16)
    if np.shape(answer) != () or not 0 < float(answer) < 1:
        raise NotYet("Give one number between 0 and 1.")
    answer = float(answer)
    if np.isclose(answer, 0.99):
        raise NotYet("Then 16 micro-batches leave 0.85 of the old average, not 0.99.")
    if np.isclose(answer, 0.99**16):
        raise NotYet("The other way: yours moves more often, so each time by less.")
    if np.isclose(1 - answer, 0.01 * 16):
        raise NotYet("The other way: each move is to be smaller than hers.")
    if abs(answer - right) > 1e-5:
        raise NotYet("Sixteen of your moves must leave as much as one of hers.")
    return "Sixteen small moves make one of hers."
