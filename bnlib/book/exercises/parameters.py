"""Checkers for the chapter on parameters."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close

__all__ = ["channels", "fold", "forward"]


@checker
def channels(answer):
    """Check `answer`: the channels of a batch norm layer with 256 non-trainable parameters."""
    answer = int(answer)
    if answer == 256:
        raise NotYet("Each channel keeps more than one number that is not trained.")
    if answer == 64:
        raise NotYet("The 256 are not all of its parameters, only those not trained.")
    if answer != 128:
        raise NotYet("Which of its four vectors are not trained?")
    return "A moving mean and a moving variance each: 2 x 128, and 512 in all."


@checker
def fold(answer):
    """Check `answer(kernel, bias, mean, variance, gamma, beta, epsilon)` for a dense layer."""
    rng = np.random.default_rng(0)
    kernel, bias, mean, beta = (rng.normal(size=s) for s in ((5, 3), 3, 3, 3))
    variance, gamma = rng.uniform(0.2, 4, (2, 3))
    given = (kernel, bias, mean, variance, gamma, beta, 0.1)
    returned = answer(*(np.copy(each) for each in given[:-1]), 0.1)
    mine, mine_bias = _kernel_and_bias(returned, (5, 3), 3)
    multiplier = gamma / np.sqrt(variance + 0.1)
    if close(mine, kernel * gamma / np.sqrt(variance)):
        raise NotYet("The kernel is nearly right: where is epsilon?")
    if close(mine, kernel * gamma / (variance + 0.1)):
        raise NotYet("Batch norm divides by the root of variance plus epsilon.")
    if not close(mine, kernel * multiplier):
        raise NotYet("The kernel is off: each column is multiplied by one number.")
    if close(mine_bias, beta - mean * multiplier):
        raise NotYet("The layer had a bias, and batch norm scales it like the rest.")
    if close(mine_bias, bias + beta - mean * multiplier):
        raise NotYet("The old bias goes through batch norm too: scale it.")
    if not close(mine_bias, beta + (bias - mean) * multiplier):
        raise NotYet("The kernel is right, the bias is not: what becomes of x = 0?")
    return "With statistics that are not 0 and 1, so the check could have failed."


@checker
def forward(answer):
    """Check `answer(multiplier, shift, kernel, bias)`: batch norm, then a dense layer."""
    rng = np.random.default_rng(1)
    multiplier, shift, bias = rng.uniform(0.5, 2, 4), rng.normal(size=4), np.ones(3)
    kernel = rng.normal(size=(4, 3))
    returned = answer(*map(np.copy, (multiplier, shift, kernel, bias)))
    mine, mine_bias = _kernel_and_bias(returned, (4, 3), 3)
    if not close(mine, kernel * multiplier[:, np.newaxis]):
        raise NotYet("The kernel is off: batch norm scales the inputs, kernel's rows.")
    if close(mine_bias, bias):
        raise NotYet(
            "The kernel is right. The shift is an input too: where does it go?"
        )
    if not close(mine_bias, bias + shift @ kernel):
        raise NotYet("The kernel is right, the bias is not: send the shift through it.")
    return "This holds where every output sees all of its inputs: no padding."


def _kernel_and_bias(returned, shape, outputs):
    """Unpack a learner's kernel and bias, or say what is missing."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise NotYet("The function should return two arrays: kernel, bias.")
    (kernel,) = arrays(returned[:1], ("kernel",), shape)
    (bias,) = arrays(returned[1:], ("bias",), (outputs,))
    return kernel, bias
