"""Checkers for the chapter on TensorFlow's functions."""

import math

import numpy as np

from bnlib import batch_norm, batch_norm_inference
from bnlib.book.exercises import NotYet, checker, close

__all__ = ["biased", "channels_first", "layer", "step_time"]


@checker
def biased(answer):
    """Check `answer(variance, n)`: the fused kernel's variance of n values, made biased."""
    mine = answer(np.array([5 / 3, 4.0]), 4)
    if mine is None:
        raise NotYet("The function returns nothing so far.")
    mine = np.asarray(mine, float)
    if mine.shape != (2,):
        raise NotYet(f"Two channels came in; what you return has shape {mine.shape}.")
    if close(mine, [5 / 3, 4]):
        raise NotYet("That is what the kernel returned. Which factor is in it?")
    if close(mine, [20 / 9, 16 / 3]):
        raise NotYet("Bessel's factor is in it already; take it out.")
    if not close(mine, [1.25, 3]):
        raise NotYet("For 1, 2, 3, 4 the kernel returns 5/3 and you should return 5/4.")
    try:
        one = np.asarray(answer(np.zeros(2), 1), float)
    except ZeroDivisionError:
        raise NotYet(
            "Right for n = 4. For one value it divides by 0: multiply instead."
        ) from None
    if not np.array_equal(one, [0, 0]):
        raise NotYet(f"Right for n = 4. One value has variance 0; yours is {one[0]}.")
    return "The same four numbers again: 5/3 became 5/4."


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
    y, mean, variance = batch_norm(x, axis=1)
    if close(mine, (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, rtol=1e-5):
        raise NotYet(
            "The axes are right. Along which axis does the mean lie when it is subtracted?"
        )
    if close(mine, y * gamma + beta):
        raise NotYet("Normalised rightly. Gamma has to lie along axis 1: reshape it.")
    if close(mine, batch_norm(x, beta, gamma, axis=1)[0], rtol=1e-5):
        raise NotYet("tf.nn.batch_normalization takes the offset before the scale.")
    if not close(mine, batch_norm(x, gamma, beta, axis=1)[0], rtol=1e-5):
        raise NotYet("Which axes do the moments of a channel run over?")
    return "Width and channels were both 3, so a wrong axis would have given no error."


@checker
def step_time(answer):
    """Check `answer(shape, bytes_each, bandwidth)`: the least seconds of batch norm and ReLU."""
    shape, bandwidth = (7, 5, 3, 11), 13.0
    once = math.prod(shape) * 4 / bandwidth
    mine = answer(shape, 4, bandwidth)
    if not np.isscalar(mine) and np.shape(mine) != ():
        raise NotYet(f"Return one number; yours has shape {np.shape(mine)}.")
    if mine is None:
        raise NotYet("The function returns nothing so far.")
    for times, words in [
        (1, "That is one move."),
        (5, "That is ReLU alone, or the backward pass of batch norm alone."),
        (8, "That is batch norm alone, or with a ReLU that is fused with it."),
        (10, "That is the step with ReLU's forward pass. What does its backward move?"),
        (11, "Three of ReLU's moves are there, and two are missing."),
        (
            12,
            "ReLU's backward pass reads two arrays: the gradient, and the one that says "
            "where it passes.",
        ),
        (37, "That is the two functions, one operation at a time; what is the least?"),
    ]:
        if close(mine, times * once):
            raise NotYet(words)
    if close(mine, 13 * once / 4):
        raise NotYet("How many bytes has one value?")
    if not close(mine, 13 * once):
        raise NotYet("Bytes to read and write, over bytes in a second.")
    if not close(answer(shape, 2, bandwidth), 13 * once / 2):
        raise NotYet("Right in float32. In float16 a value has 2 bytes.")
    return "In float16 it is half of it, on every card."


def _of(layer, *names):
    """Return the values of a layer's variables; say which are missing."""
    missing = [name for name in names if not hasattr(layer, name)]
    if missing:
        raise NotYet(f"The layer needs `self.{missing[0]}`.")
    values = [getattr(layer, name) for name in names]
    for name, value in zip(names, values, strict=True):
        if type(value).__name__ == "SymbolicTensor":
            raise NotYet(
                f"`self.{name}` is now a symbol of the traced function, not a value. When "
                "does an `=` run in a function that is traced once?"
            )
    return [np.asarray(value).astype(float) for value in values]


@checker
def layer(answer):
    """Check `answer(channels, momentum=..., epsilon=...)`: a `tf.Module`, `layer(x, training)`."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    mean, scale = [3, -1, 100], [2, 0.5, 9]
    batches = [rng.normal(mean, scale, (4, 3, 5, 3)).astype("f4") for _ in range(3)]
    options = {"momentum": 0.75, "epsilon": 0.01}
    mine = answer(3, **options)
    start = _of(mine, "gamma", "beta", "moving_mean", "moving_variance")
    if not all(map(close, start, ([1] * 3, [0] * 3, [0] * 3, [1] * 3))):
        raise NotYet("gamma and moving_variance start at 1, the other two at 0.")
    found = len(getattr(mine, "trainable_variables", ()))
    if found != 2:
        raise NotYet(
            f"`trainable_variables` should hold gamma and beta; there are {found}. The "
            "moving statistics are variables too, with trainable=False."
        )
    gamma, beta = np.array([2, -0.5, 1]), np.array([1, 10, -3])
    mine.gamma.assign(gamma)
    mine.beta.assign(beta)
    step = tf.function(lambda x: mine(x, training=True))
    moving, variance = np.zeros(3), np.ones(3)
    for x in batches:
        y = np.asarray(step(tf.constant(x)))
        wide = x.astype(float)
        right, now, spread = batch_norm(wide, gamma, beta, epsilon=0.01)
        moving = 0.75 * moving + 0.25 * now
        variance = 0.75 * variance + 0.25 * spread
        if close(y, batch_norm(wide, beta, gamma, epsilon=0.01)[0], 1e-3):
            raise NotYet("tf.nn.batch_normalization takes the offset before the scale.")
        if close(y, batch_norm(wide, gamma, beta, epsilon=1e-3)[0], 1e-4):
            raise NotYet("Use the epsilon that the layer is given.")
        if y.shape != x.shape or not close(y, right, 1e-3):
            raise NotYet("In training: the moments of each channel of this batch.")
    got = _of(mine, "moving_mean", "moving_variance")
    if close(got[0], np.zeros(3)):
        raise NotYet("After three training steps the moving mean is still 0.")
    if not close(got[0], moving, 1e-4):
        raise NotYet(
            "momentum weighs the old value; and every step counts, in a tf.function too."
        )
    if not close(got[1], variance, 1e-4):
        raise NotYet("The mean moves rightly. And the variance?")
    x = batches[0][:1]
    y = np.asarray(mine(tf.constant(x), training=False))
    right = batch_norm_inference(
        x.astype(float), moving, variance, gamma, beta, epsilon=0.01
    )
    if not close(y, right, 1e-3):
        raise NotYet("In inference: the moving statistics.")
    if not all(map(close, got, _of(mine, "moving_mean", "moving_variance"))):
        raise NotYet("Inference should leave the moving statistics alone.")
    wide = batches[0].reshape(-1, 3)
    try:
        y = np.asarray(mine(tf.constant(wide), training=True))
    except Exception:
        raise NotYet("Right on images. Rows of shape (N, C) raise an error.") from None
    right = batch_norm(wide.astype(float), gamma, beta, epsilon=0.01)[0]
    if y.shape != wide.shape or not close(y, right, 1e-3):
        raise NotYet("Right on images. And on rows of shape (N, C)?")
    return "Two variables to train, two to remember, and one switch."
