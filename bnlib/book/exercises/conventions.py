"""Checkers for the chapter on conventions."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close

__all__ = ["caffe", "momentum", "without_gamma"]


@checker
def momentum(answer):
    """Check `answer(theirs)`: PyTorch's momentum in, Keras's out."""
    mine = answer(0.1)
    if mine is None:
        raise NotYet("The function returns nothing so far; it should return a number.")
    if close(mine, 0.1):
        raise NotYet("PyTorch's is the weight of the new value. Whose is Keras's?")
    if not close(mine, 0.9) or not close(answer(0.01), 0.99):
        raise NotYet("The two weights are of the old and of the new value: their sum?")
    if answer(None) is not None:
        raise NotYet("For numbers it is right. What becomes of None?")
    return "It matters only when training goes on."


@checker
def caffe(answer):
    """Check `answer(sum_mean, sum_variance, factor)`: Caffe's blobs in, the statistics out."""
    mean, variance = np.array([1.0, -2.0, 5.0]), np.array([4.0, 0.5, 9.0])
    names = ("mean", "variance")
    mine = arrays(answer(8 * mean, 8 * variance, 8.0), names, (3,))
    if close(mine[0], 8 * mean):
        raise NotYet("The blobs are sums: what was their weight?")
    if not close(mine[0], mean) or not close(mine[1], variance):
        raise NotYet("Each of the two is its sum divided by the factor.")
    with np.errstate(all="ignore"):
        fresh = arrays(answer(0 * mean, 0 * variance, 0.0), names, (3,))
    if np.any(np.isnan(fresh)) or np.any(fresh):
        raise NotYet("For a layer without a batch, factor 0, Caffe takes zeros.")
    return "As Caffe does it, down to the layer that has seen nothing."


@checker
def without_gamma(answer):
    """Check `answer(gamma, beta, kernel)`: gamma moves behind a ReLU into the next kernel."""
    rng = np.random.default_rng(0)
    gamma, beta, kernel = rng.uniform(0.5, 3, 4), rng.normal(size=4), np.ones((4, 2))
    returned = answer(*map(np.copy, (gamma, beta, kernel)))
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise NotYet("The function should return two arrays: beta, kernel.")
    (mine,) = arrays(returned[:1], ("beta",), (4,))
    (mine_kernel,) = arrays(returned[1:], ("kernel",), (4, 2))
    if close(mine, beta):
        raise NotYet("Beta changes too: take gamma out of gamma * x_hat + beta.")
    if not close(mine, beta / gamma):
        raise NotYet("Beta is off: take gamma out of gamma * x_hat + beta.")
    if not close(mine_kernel, gamma[:, np.newaxis] * kernel):
        raise NotYet("Beta is right. The kernel's rows are its inputs: scale those.")
    return "For a negative gamma it would not hold: ReLU would turn round."
