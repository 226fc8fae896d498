"""Feedback on the exercises: `from bnlib.book.exercises import moments as check; check.pool(mine)`.

One module per chapter, one checker per exercise. A checker never raises and never gives the answer
away: it prints what is right, or the first thing that is not and where to look.
"""

import functools

import numpy as np

__all__ = ["NotYet", "arrays", "attempt", "checker", "close"]


class NotYet(Exception):
    """Raised inside a checker to say, in one sentence, what is not right yet."""


def checker(examine):
    """Turn `examine(answer)`, which raises `NotYet` or returns praise, into one that prints."""

    @functools.wraps(examine)
    def check(answer):
        if answer is ...:
            print("Not yet. Put your answer where the ... stands.")
            return
        is_right, words = attempt(examine, answer)
        print("Correct." if is_right else "Not yet.", words)

    return check


def attempt(examine, answer):
    """Say whether `examine(answer)` finds it right, and in which words it says so.

    A learner's code may raise anything: that is feedback too.
    """
    try:
        return True, examine(answer)
    except NotYet as reason:
        return False, str(reason)
    except Exception as error:
        return False, f"Your code raised {type(error).__name__}: {error}"


def arrays(returned, names, shape):
    """Unpack a learner's return value into arrays of one shape, or say what is missing."""
    if returned is None or returned is ...:
        raise NotYet(
            f"The function returns nothing so far; it should return {', '.join(names)}."
        )
    if not isinstance(returned, (tuple, list)) or len(returned) != len(names):
        raise NotYet(f"Return {len(names)} arrays: {', '.join(names)}.")
    values = [np.asarray(value) for value in returned]
    for name, value in zip(names, values, strict=True):
        if value.shape != shape:
            raise NotYet(f"{name} should have shape {shape}; yours has {value.shape}.")
    return values


def close(value, expected, rtol=1e-6):
    """Say whether two arrays agree to `rtol` of the largest expected value."""
    expected = np.asarray(expected, dtype=float)
    return bool(np.all(np.abs(value - expected) <= rtol * np.max(np.abs(expected))))
