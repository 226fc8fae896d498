"""Checkers for the chapter on the transform."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.moments import moments
from bnlib.transform import batch_norm

__all__ = ["dead_parameters", "farthest", "undo"]


@checker
def undo(answer):
    """Check `answer(mean, variance, epsilon)`: the gamma and beta that give x back."""
    x = np.random.default_rng(0).normal((3, -1), (2, 0.1), (50, 2))
    mean, variance, _ = moments(x)
    epsilon = 1e-1
    gamma, beta = arrays(answer(mean, variance, epsilon), ("gamma", "beta"), (2,))
    if not close(beta, mean):
        raise NotYet("beta is off: what has to be added back to x_hat?")
    if close(gamma, np.sqrt(variance)):
        raise NotYet("Nearly: x_hat was divided by sqrt(variance + epsilon).")
    if not close(batch_norm(x, gamma, beta, epsilon=epsilon)[0], x):
        raise NotYet("beta is right, gamma is not: undo the division.")
    return "The network can always choose not to normalise."


@checker
def farthest(answer):
    """Check `answer`: a batch of ten numbers, one of which normalises to 3."""
    batch = np.asarray(answer, dtype=float).ravel()
    if batch.size != 10:
        raise NotYet(f"The batch should hold ten numbers; yours holds {batch.size}.")
    y, _, variance = batch_norm(
        batch[:, np.newaxis], epsilon=0 if np.ptp(batch) else 1e-3
    )
    if variance == 0:
        raise NotYet("All ten are equal, so each normalises to 0.")
    if np.max(y) < 3 - 1e-6:
        raise NotYet(
            f"Your largest normalises to {np.max(y):.3g}. What pulls the deviation up?"
        )
    return "sqrt(m - 1) is the bound, and only a lone outlier reaches it."


@checker
def dead_parameters(answer):
    """Check `answer`: useless parameters in Dense(4096 to 512) followed by batch norm."""
    answer = int(answer)
    if answer == 4096 * 512:
        raise NotYet("Those are the kernel's weights, and they are needed.")
    if answer in (1024, 2048):
        raise NotYet(
            "Those belong to the batch norm layer. Look at the layer before it."
        )
    if answer != 512:
        raise NotYet(
            "Which of the dense layer's parameters does the mean take out again?"
        )
    return "The 512 biases: `use_bias=False` loses nothing."
