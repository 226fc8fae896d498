"""Checkers for the page on training in the wild."""

import numpy as np

from bnlib.book.exercises import NotYet, checker

__all__ = ["stall"]


@checker
def stall(answer):
    """Check `answer`: where a bfloat16 average ends from 1 towards 0.5, and towards 8, at 0.999."""
    if np.shape(answer) != (2,):
        raise NotYet("Give two numbers, the ends towards 0.5 and towards 8.")
    low, high = map(float, answer)
    if (low, high) == (0.5, 8):
        raise NotYet("That is where float32 takes it. How far does it move at once?")
    if low != 1:
        raise NotYet("Towards 0.5: is the first move, 0.0005, half of the gap below 1?")
    if high == 1:
        raise NotYet("Towards 8: the first move is 0.007, half of the gap 0.0039.")
    if high != 2:
        raise NotYet("Towards 8: it stops where the gap grows. Which number is that?")
    return "It never leaves 1 towards 0.5, and towards 8 it stops at 2."
