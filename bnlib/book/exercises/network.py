"""Checkers for the chapter on the network."""

from math import erf

import numpy as np

from bnlib.book.exercises import NotYet, checker, close

__all__ = ["dead", "dense_backward", "growth", "saturated"]


@checker
def saturated(answer):
    """Check `answer`: weights' deviation that saturates 5 % of tanh, for 30 inputs of +-1."""
    deviation = float(answer)
    if deviation <= 0:
        raise NotYet("A deviation is positive.")
    share = 1 - erf(np.arctanh(0.98) / (deviation * np.sqrt(2 * 30)))
    if 1.1 < deviation < 1.25:
        raise NotYet(
            "That is the deviation of the sum. Each of the 30 weights has less of it."
        )
    if not 0.045 < share < 0.055:
        raise NotYet(
            f"With that, {100 * share:.2g} % of the values would be saturated."
        )
    return "About one value in twenty is saturated."


@checker
def dense_backward(answer):
    """Check `answer(x, kernel, grad_y)`: the gradients of x, kernel and bias of a dense layer."""
    rng = np.random.default_rng(0)
    x, kernel, grad_y = (rng.normal(size=s) for s in ((5, 3), (3, 3), (5, 3)))
    returned = answer(x.copy(), kernel.copy(), grad_y.copy())
    names = ("grad_x", "grad_kernel", "grad_bias")
    if returned is None or returned is ...:
        raise NotYet(f"The function returns nothing so far; return {', '.join(names)}.")
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        raise NotYet(f"Return 3 arrays: {', '.join(names)}.")
    grad_x, grad_kernel, grad_bias = (np.asarray(each) for each in returned)
    for name, value, like in zip(
        names, (grad_x, grad_kernel, grad_bias), (x, kernel, kernel[0]), strict=True
    ):
        if value.shape != like.shape:
            raise NotYet(f"{name} should have shape {like.shape}; got {value.shape}.")
    if close(grad_x, grad_y @ kernel):
        raise NotYet("grad_x passes the kernel the other way round: transpose it.")
    if not close(grad_x, grad_y @ kernel.T):
        raise NotYet("grad_x: y[i, k] changes by kernel[j, k] for each x[i, j].")
    if close(grad_kernel, (x.T @ grad_y).T):
        raise NotYet("grad_kernel is transposed: its rows belong to the inputs.")
    if close(grad_kernel, x.T @ grad_y / len(x)):
        raise NotYet(
            "grad_kernel is a sum over the examples. The loss has taken any mean already."
        )
    if not close(grad_kernel, x.T @ grad_y):
        raise NotYet("grad_kernel: sum x[i, j] * grad_y[i, k] over the examples i.")
    if close(grad_bias, grad_y.mean(axis=0)):
        raise NotYet("grad_bias is a sum over the examples, not a mean.")
    if not close(grad_bias, grad_y.sum(axis=0)):
        raise NotYet("grad_bias: the bias acts on each example with the factor 1.")
    return "Three gradients, each with the shape of what it belongs to."


@checker
def growth(answer):
    """Check `answer(a)`: growth of the squared gradient, leaky ReLU of slope a and batch norm."""
    if answer(0.0) is ... or answer(0.0) is None:
        raise NotYet("The function returns nothing so far.")
    slopes = np.array([0, 0.2, 0.5, 1])
    mine = np.array([float(answer(a)) for a in slopes])
    square, mean = (1 + slopes**2) / 2, (1 - slopes) / np.sqrt(2 * np.pi)
    right = square / (square - mean**2)
    if close(mine, np.ones(4)):
        raise NotYet(
            "That is without batch norm. It divides by the deviation around the mean."
        )
    if close(mine, np.sqrt(right)):
        raise NotYet("That is the growth of the gradient. Its square was asked for.")
    if close(mine, 1 / (square - mean**2)):
        raise NotYet("The slope is not always 1: take its mean square.")
    if close(mine, square / (square - (2 * mean) ** 2)):
        raise NotYet("Half of the inputs are positive: the mean is over all of them.")
    if close(mine, square / (square - ((1 + slopes) / np.sqrt(2 * np.pi)) ** 2)):
        raise NotYet("Right for ReLU, a = 0. Mind a sign: the negative half's mean.")
    if close(mine[:1], right[:1]) and not close(mine, right):
        raise NotYet("Right for ReLU, a = 0. The negative half has a mean as well.")
    if not close(mine, right):
        raise NotYet(
            f"At a = 0 it should be pi / (pi - 1) = 1.467; yours gives {mine[0]:.3g}. "
            f"At a = 1 nothing is bent; yours gives {mine[-1]:.3g}."
        )
    return "From pi / (pi - 1) for ReLU down to 1 for a straight line."


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
        raise NotYet("Wrong for one of my inputs: no healthy network gives it.")
    if _whole(answer(y.copy())) != 2:
        raise NotYet("Right, until one unit is NaN: the two dead ones are still there.")
    return "And it tells a dead unit from one that has overflowed."


def _whole(count):
    if count is None or count is ... or np.ndim(count):
        raise NotYet("Return one number: how many units are dead.")
    return int(count)
