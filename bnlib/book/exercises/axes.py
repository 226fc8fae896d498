"""Checkers for the chapter on axes."""

import operator

import numpy as np

from bnlib.axes import layout
from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.transform import batch_norm

__all__ = ["channels_first", "count", "instance"]


@checker
def count(answer):
    """Check `answer`: how many values share one mean in (32, 16, 28, 28), channels first."""
    answer = operator.index(answer)
    hints = {
        16: "That is how many means there are. How many values go into each?",
        32: "That would be a dense layer. Here each example brings a whole map.",
        28 * 28: "That is one map. The mean runs over all the examples as well.",
        32 * 16 * 28: "That keeps the last axis, and here the channels are second.",
        32 * 16 * 28 * 28: "Those are all values. Each channel has a mean of its own.",
    }
    if answer != 32 * 28 * 28:
        raise NotYet(hints.get(answer, "Multiply the sizes of the averaged axes."))
    return "32 examples times 784 locations."


@checker
def channels_first(answer):
    """Check `answer(x, gamma, beta)`: batch norm of `(N, C, ...)` of any rank, epsilon 1e-3."""
    gamma, beta = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, -4.0])
    for shape in [(7, 3), (7, 3, 5), (7, 3, 5, 2), (7, 3, 5, 2, 4), (7, 3, 3, 3)]:
        x = _uneven(shape)
        y = _run(answer, x, gamma, beta)
        if close(y, batch_norm(x, gamma, beta, axis=1)[0]):
            continue
        if close(y, batch_norm(x, gamma, beta, axis=1, epsilon=0)[0]):
            raise NotYet("Nearly: where is epsilon?")
        raise NotYet(
            f"It fails for shape {shape}: which axes are averaged, and do mean, "
            "gamma and beta line up with axis 1?"
        )
    return "Dense, 1-D, 2-D and 3-D with the same lines."


def _uneven(shape):
    """Draw values whose size grows along every axis: no two averages agree by chance."""
    ramps = zip(np.indices(shape), (1, 2, 3, 5, 7), strict=False)
    growth = 1 + sum(slope * index for index, slope in ramps)
    return 0.01 * growth * np.random.default_rng(0).normal(1, 1, shape)


def _run(answer, x, gamma, beta):
    """Call the learner's function, and say for which shape it fails."""
    try:
        returned = answer(x.copy(), gamma.copy(), beta.copy())
    except Exception as error:
        raise NotYet(
            f"For shape {x.shape} your code raised {type(error).__name__}: {error}"
        ) from error
    parts = None if returned is None else (returned,)
    return arrays(parts, ("y",), x.shape)[0]


@checker
def instance(answer):
    """Check `answer`: the `axis` that normalises each map of `(N, H, W, C)` alone."""
    shape = (2, 3, 5, 7)
    kept = layout(shape, answer).axis
    if kept == (3,):
        raise NotYet("That is batch norm: the examples are averaged together.")
    if kept == (0,):
        raise NotYet("That averages the channels of an example together.")
    if kept != (0, 3):
        raise NotYet(
            f"That averages over axes {layout(shape, answer).axes}. "
            "Only H and W should be."
        )
    return "One mean per example and channel: instance norm."
