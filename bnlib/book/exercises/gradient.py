"""Checkers for the chapter on the gradient."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.gradient import batch_norm_backward

__all__ = ["backward", "mean_only", "swallowed"]


def _batch():
    """A batch, a random upstream gradient and a gamma that is not 1."""
    rng = np.random.default_rng(0)
    x = rng.normal((3, -1), (2, 0.5), (7, 2))
    return rng.normal(size=x.shape), x, np.array([3.0, -0.5])


@checker
def mean_only(answer):
    """Check `answer(grad_y)`: the backward pass of y = x - mean(x), for `(N, C)`."""
    grad_y = _batch()[0]
    returned = answer(grad_y.copy())
    (grad_x,) = arrays(
        None if returned is None else (returned,), ("grad_x",), grad_y.shape
    )
    expected = grad_y - grad_y.mean(axis=0)
    if close(grad_x, grad_y):
        raise NotYet("That is the direct path alone. The mean depends on x too.")
    if close(grad_x, grad_y - grad_y.sum(axis=0)):
        raise NotYet("Nearly: how much of the mean's gradient does each x get?")
    if close(grad_x, grad_y - grad_y.mean()):
        raise NotYet("You averaged over the channels as well.")
    if not close(grad_x, expected):
        raise NotYet("Two paths: what comes back along each? Then add.")
    return "What all examples ask for together is taken out."


@checker
def backward(answer):
    """Check `answer(grad_y, x, gamma, epsilon)`: the closed form, for `(N, C)`."""
    grad_y, x, gamma = _batch()
    epsilon = 0.1
    returned = answer(grad_y.copy(), x.copy(), gamma.copy(), epsilon)
    names = ("grad_x", "grad_gamma", "grad_beta")
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        arrays(returned, names, x.shape)  # says what is missing
    (grad_x,) = arrays(returned[:1], names[:1], x.shape)
    grad_gamma, grad_beta = arrays(returned[1:], names[1:], (2,))
    right = batch_norm_backward(grad_y, x, gamma, epsilon=epsilon)
    _parameters(grad_gamma, grad_beta, *right[1:])
    for wrong, words in _without_a_part(x, gamma, epsilon, grad_y, *right):
        if close(grad_x, wrong):
            raise NotYet(words)
    if not close(grad_x, right[0]):
        raise NotYet("grad_gamma and grad_beta are right, grad_x is not.")
    return "Three gradients from two sums."


def _without_a_part(x, gamma, epsilon, grad_y, grad_x, grad_gamma, grad_beta):
    """List the likely wrong values of grad_x, and what to say to each."""
    s = np.sqrt(x.var(axis=0) + epsilon)
    x_hat = (x - x.mean(axis=0)) / s
    own = gamma / s * grad_y
    shift, stretch = (gamma / s / len(x) * g for g in (grad_beta, x_hat * grad_gamma))
    return [
        (own, "grad_x has the direct path alone. What comes back from the statistics?"),
        (own - shift, "The path through the variance is missing in grad_x."),
        (own - stretch, "The path through the mean is missing in grad_x."),
        (grad_x / gamma, "grad_x lacks gamma."),
        (grad_x * s, "grad_x is not divided by the root."),
    ]


def _parameters(grad_gamma, grad_beta, gamma, beta):
    """Compare the gradients of gamma and beta with the right ones."""
    if close(grad_gamma, beta) and close(grad_beta, gamma):
        raise NotYet("grad_gamma and grad_beta are swapped.")
    if not close(grad_beta, beta):
        raise NotYet("grad_beta is off: beta is added to every example, so add up.")
    if not close(grad_gamma, gamma):
        raise NotYet("grad_gamma is off: sum grad_y * x_hat, with epsilon in x_hat.")


@checker
def swallowed(answer):
    """Check `answer`: an upstream gradient that never reaches x = 1, 2, 3, 4, 5."""
    grad_y = np.asarray(answer, dtype=float).ravel()
    if grad_y.size != 5:
        raise NotYet(f"One number for each of the five; yours are {grad_y.size}.")
    if np.ptp(grad_y) <= 1e-9 * np.max(np.abs(grad_y)):
        raise NotYet("Equal numbers are swallowed, and the text had them. Others?")
    x = np.arange(1.0, 6)[:, np.newaxis]
    grad_x = batch_norm_backward(grad_y[:, np.newaxis], x, epsilon=0)[0]
    if np.max(np.abs(grad_x)) > 1e-9 * np.max(np.abs(grad_y)):
        raise NotYet(
            f"{np.max(np.abs(grad_x)):.3g} reaches x. Which two wishes are taken out?"
        )
    return "A shift plus a stretch: a + b x for any a and b."
