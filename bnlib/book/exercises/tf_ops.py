"""Checkers for the chapter on TensorFlow's functions."""

import numpy as np

from bnlib import batch_norm, batch_norm_inference
from bnlib.book.exercises import NotYet, checker, close

__all__ = ["biased", "channels_first", "old_call"]


@checker
def biased(answer):
    """Check `answer(variance, n)`: the fused kernel's variance of n values, made biased."""
    mine = np.asarray(answer(np.array([5 / 3, 4.0]), 4), float)
    if mine.shape != (2,):
        raise NotYet(f"Two channels came in; what you return has shape {mine.shape}.")
    if close(mine, [5 / 3, 4]):
        raise NotYet("That is what the kernel returned. Which factor is in it?")
    if close(mine, [20 / 9, 16 / 3]):
        raise NotYet("Bessel's factor is in it already; take it out.")
    if not close(mine, [1.25, 3]):
        raise NotYet("For 1, 2, 3, 4 the kernel returns 5/3 and you should return 5/4.")
    one = np.asarray(answer(np.zeros(2), 1), float)
    if not np.array_equal(one, [0, 0]):
        raise NotYet(f"Right for n = 4. One value has variance 0; yours is {one[0]}.")
    return "The same four numbers again: 5/3 became 5/4."


@checker
def old_call(answer):
    """Check `answer(t, m, v, beta, gamma)`: the old call, without scale after normalization."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(4, 3))
    m, v, beta, gamma = (rng.uniform(0.5, 2, 3) for _ in range(4))
    mine = np.asarray(answer(t, m, v, beta, gamma), float)
    if mine.shape != t.shape:
        raise NotYet(f"t has shape {t.shape}; what you return has {mine.shape}.")
    if close(mine, batch_norm_inference(t, m, v, gamma, beta)):
        raise NotYet("Read its last argument again: is gamma used?")
    if close(mine, batch_norm_inference(t, m, v, beta, gamma)):
        raise NotYet("The old call has beta first, and gamma is not used here.")
    if close(mine, batch_norm_inference(t, m, v, None, gamma)):
        raise NotYet("The offset is beta. The old call has it before gamma.")
    if not close(mine, batch_norm_inference(t, m, v, None, beta)):
        raise NotYet("Normalise by m and v with an epsilon of 0.001, then add beta.")
    return "With False, gamma was an argument that did nothing."


@checker
def channels_first(answer):
    """Check `answer(x, gamma, beta)` for x of shape `(N, C, H, W)`, with an epsilon of 0.001."""
    rng = np.random.default_rng(1)
    x = np.arange(1, 4).reshape(3, 1, 1) * rng.normal(1, 1, (2, 3, 5, 3))
    gamma, beta = rng.uniform(0.5, 2, (2, 3))
    mine = np.asarray(answer(x, gamma, beta), float)
    if mine.shape != x.shape:
        raise NotYet(f"x has shape {x.shape}; what you return has {mine.shape}.")
    if close(mine, batch_norm(x, gamma, beta, axis=-1)[0]):
        raise NotYet("You normalised over the last axis. The channels are axis 1.")
    y, *_ = batch_norm(x, axis=1)
    if close(mine, y * gamma + beta):
        raise NotYet("Normalised rightly. Gamma has to lie along axis 1: reshape it.")
    if not close(mine, batch_norm(x, gamma, beta, axis=1)[0], rtol=1e-5):
        raise NotYet("Which axes do the moments of a channel run over?")
    return "Width and channels were both 3, so a wrong axis would have given no error."
