"""Checks for the layer that the reader builds, from chapter 3 to chapter 8.

The layer is called `MyBatchNorm` in the book. Each checker here takes the class, or anything that
makes such a layer when it is called with the number of channels, and examines all that the chapters
up to its own ask for. `bnlib.BatchNorm` passes the same checks, but for the last: its `fold` is a
function.

>>> from bnlib import BatchNorm
>>> forward(BatchNorm)
Correct. All 5 checks pass.
  passes  (3) each channel gets mean 0 and deviation 1
  passes  (3) gamma scales, then beta shifts
  passes  (3) epsilon is added inside the root
  passes  (3) a constant channel becomes beta
  passes  (3) the input is left as it was
"""

import functools
import inspect

import numpy as np

from bnlib.book.exercises import NotYet, attempt, close
from bnlib.book.network import convolutional, softmax_cross_entropy
from bnlib.gradient import batch_norm_backward, batch_norm_inference_backward
from bnlib.layer import BatchNorm
from bnlib.parameters import fold
from bnlib.transform import batch_norm, batch_norm_inference

__all__ = ["axes", "backward", "folded", "forward", "modes", "population"]

EPSILON, MOMENTUM = 0.1, 0.75  # as arguments; large, so that their place is felt
SMALL = (7, 3)
SHOWN = 3  # of the checks that fail, the first few: one fault may fail them all
SHAPES = {"images": (2, 5, 3, 3), "sequences": (3, 5, 3), "volumes": (2, 3, 2, 5, 3)}

CHECKS = []  # (chapter, what is checked, the function that raises NotYet)


def _check(chapter, says):
    def keep(examine):
        CHECKS.append((chapter, says, examine))
        return examine

    return keep


# Making and calling a layer as the chapter has it


class _Bench:
    """The reader's class, and how far the book has come."""

    def __init__(self, maker, chapter):
        self.maker, self.chapter = maker, chapter

    def layer(self, channels=3, **options):
        """Make a layer with gamma and beta that are not 1 and 0."""
        layer = self.maker(channels, epsilon=EPSILON, **options)
        parameters = getattr(layer, "parameters", None)
        names = set(parameters) if isinstance(parameters, dict) else set()
        if names > {"gamma", "beta"}:
            extra = " and ".join(sorted(names - {"gamma", "beta"}))
            raise NotYet(
                f"`parameters` also holds {extra}: an optimiser would train it."
            )
        if names != {"gamma", "beta"}:
            raise NotYet(
                "The layer needs `self.parameters`, a dict with `gamma` and `beta`."
            )
        for name, start in (("gamma", 1), ("beta", 0)):
            if np.shape(parameters[name]) != (channels,) or np.any(
                parameters[name] != start
            ):
                raise NotYet(
                    f"{name} should start as {channels} times {start}, one number per channel; "
                    f"yours is {parameters[name]!r:.60}."
                )
        parameters["gamma"][...] = _gamma(channels)
        parameters["beta"][...] = _beta(channels)
        return layer

    def call(self, layer, x, training=True):
        """Call a layer; before chapter 7 it has no modes."""
        known = inspect.signature(type(layer).__call__).parameters
        options = {"training": training} if "training" in known else {}
        if self.chapter >= 7 and not options:
            raise NotYet("__call__ takes no argument `training` yet.")
        y = layer(x, **options)
        if y is None:
            raise NotYet("__call__ returns nothing so far.")
        return y


def _gamma(channels):
    return np.linspace(0.5, 3, channels)


def _beta(channels):
    return np.linspace(-2, 1, channels)


def _x(shape=SMALL, seed=0):
    """Values whose mean is far from 0 and whose scale differs from channel to channel."""
    rng, scale = np.random.default_rng(seed), np.linspace(0.5, 4, shape[-1])
    return rng.normal(scale + 1, scale, shape)


def _expect(found, expected, words):
    """Compare two arrays, and say what was expected and what came."""
    if found is None:
        raise NotYet("It returns nothing so far.")
    found = np.asarray(found)
    if found.shape != expected.shape:
        raise NotYet(f"Expected shape {expected.shape}, got {found.shape}. {words}")
    if not close(found, expected):
        worst = np.unravel_index(np.argmax(np.abs(found - expected)), found.shape)
        raise NotYet(
            f"Expected {expected[worst]:.4g} and got {found[worst]:.4g}, "
            f"at place {tuple(map(int, worst))}. {words}"
        )


def _right(x, channels=3):
    return batch_norm(x, _gamma(channels), _beta(channels), epsilon=EPSILON)[0]


# Chapter 3


@_check(3, "each channel gets mean 0 and deviation 1")
def _standardises(bench):
    layer = bench.layer()
    layer.parameters["gamma"][...], layer.parameters["beta"][...] = 1, 0
    x = 1000 * _x()  # so large that epsilon is not felt
    y = bench.call(layer, x)
    if np.shape(y) != x.shape:
        raise NotYet(f"Expected shape {x.shape}, got {np.shape(y)}.")
    if close(np.var(y, axis=0, ddof=1), np.ones(3), 1e-4):
        raise NotYet(
            "The variance divides by m here, not by m - 1: use `x.var(axis=0)`."
        )
    if close(y, (x - x.mean()) / x.std(), 1e-4):
        raise NotYet("One mean for all channels; each channel should have its own.")
    if not close(y, (x - x.mean(axis=0)) / x.std(axis=0), 1e-4):
        raise NotYet("Subtract the channel's mean, divide by its deviation.")


@_check(3, "gamma scales, then beta shifts")
def _scales_and_shifts(bench):
    x = 1000 * _x()
    y = bench.call(bench.layer(), x)
    x_hat = batch_norm(x, epsilon=EPSILON)[0]
    if close(y, _gamma(3) * (x_hat + _beta(3)), 1e-4):
        raise NotYet("Beta is added last, so that gamma does not scale it.")
    if close(y, x_hat, 1e-4):
        raise NotYet("gamma and beta are not used.")
    _expect(y, _right(x), "y = gamma * x_hat + beta.")


@_check(3, "epsilon is added inside the root")
def _epsilon(bench):
    x = _x() / 10
    y = bench.call(bench.layer(), x)
    outside = (x - x.mean(axis=0)) / (x.std(axis=0) + EPSILON)
    if close(y, _gamma(3) * outside + _beta(3)):
        raise NotYet("Yours is added to the deviation. Add it to the variance.")
    _expect(y, _right(x), "Divide by sqrt(variance + epsilon), with the argument.")


@_check(3, "a constant channel becomes beta")
def _constant(bench):
    x = np.full(SMALL, 5.0)
    with np.errstate(all="ignore"):
        y = bench.call(bench.layer(), x)
    if not np.all(np.isfinite(y)):
        raise NotYet("There is a NaN or an infinity: epsilon keeps the root above 0.")
    _expect(y, np.broadcast_to(_beta(3), SMALL), "x - mean is 0, so y is beta.")


@_check(3, "the input is left as it was")
def _pure(bench):
    x = _x()
    kept = x.copy()
    bench.call(bench.layer(), x)
    if not np.array_equal(x, kept):
        raise NotYet(
            "Your layer changed x itself. `x -= ...` does; `x = x - ...` does not."
        )


# Chapter 4


def _gradients(bench, shape=SMALL):
    """Run the layer forward and backward; return its gradients beside the right ones."""
    x, layer = _x(shape), bench.layer()
    grad_y = np.random.default_rng(1).normal(1, 2, shape)
    bench.call(layer, x)
    if not hasattr(layer, "backward"):
        raise NotYet("The layer has no method `backward` yet.")
    grad_x = layer.backward(grad_y.copy())
    named = getattr(layer, "gradients", None)
    if not isinstance(named, dict) or set(named) != {"gamma", "beta"}:
        raise NotYet(
            "`backward` should leave `self.gradients`, with `gamma` and `beta`."
        )
    right = batch_norm_backward(grad_y, x, _gamma(3), epsilon=EPSILON)
    return x, grad_y, (grad_x, named["gamma"], named["beta"]), right


@_check(4, "the gradient of beta adds up grad_y")
def _grad_beta(bench):
    _, _, mine, right = _gradients(bench)
    if close(mine[2], right[1]):
        raise NotYet("The gradients of gamma and beta are swapped.")
    _expect(mine[2], right[2], "beta is added to every example: sum over them.")


@_check(4, "the gradient of gamma adds up grad_y * x_hat")
def _grad_gamma(bench):
    _, _, mine, right = _gradients(bench)
    _expect(mine[1], right[1], "Sum grad_y * x_hat over the examples.")


@_check(4, "the gradient of x has all its paths")
def _grad_x(bench):
    x, grad_y, mine, right = _gradients(bench)
    if mine[0] is None:
        raise NotYet("`backward` should return grad_x.")
    s = np.sqrt(x.var(axis=0) + EPSILON)
    x_hat = (x - x.mean(axis=0)) / s
    own = _gamma(3) / s * grad_y
    shift, stretch = (_gamma(3) / s / len(x) * g for g in (right[2], x_hat * right[1]))
    for wrong, words in [
        (own, "That is the direct path alone: the statistics depend on x too."),
        (own - shift, "The path through the variance is missing."),
        (own - stretch, "The path through the mean is missing."),
        (right[0] / _gamma(3), "gamma is missing."),
        (right[0] * s, "The division by the root is missing."),
    ]:
        if close(mine[0], wrong):
            raise NotYet(words)
    _expect(
        mine[0], right[0], "gamma / s times (grad_y, less its mean, less x_hat's part)."
    )


@_check(4, "backward belongs to the last call, and adds nothing up")
def _last_call(bench):
    grad_y = np.random.default_rng(1).normal(size=SMALL)

    def last(*seeds):
        layer = bench.layer()
        for seed in seeds:
            bench.call(layer, _x(seed=seed))
            grad_x = layer.backward(grad_y)
        return grad_x, layer.gradients

    # beside a layer that saw the last batch only: whether the formula is right, others check
    (mine, gradients), (alone, once) = last(0, 5), last(5)
    _expect(mine, np.asarray(alone), "What `backward` needs, each call must keep anew.")
    _expect(gradients["gamma"], once["gamma"], "Replace the gradients, do not add.")


# Chapter 5


def _same_in(kind):
    @_check(5, f"{kind}, shape {SHAPES[kind]}, forward")
    def ahead(bench):
        x = _x(SHAPES[kind])
        y = bench.call(bench.layer(), x)
        once = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + EPSILON)
        if np.shape(y) == x.shape and close(y, _gamma(3) * once + _beta(3)):
            raise NotYet(
                "That averages over the examples only; average over space too."
            )
        _expect(y, _right(x), "Average over every axis but the last.")

    @_check(5, f"{kind}, backward")
    def back(bench):
        _, _, mine, right = _gradients(bench, SHAPES[kind])
        _expect(mine[2], right[2], "The sum runs over every axis but the last.")
        _expect(mine[1], right[1], "The sum runs over every axis but the last.")
        _expect(
            mine[0], right[0], "The means in grad_x run over all but the last axis."
        )


for _kind in SHAPES:
    _same_in(_kind)


# Chapter 6


def _moving(layer):
    """Return the moving mean and variance of the reader's layer, or of the library's."""
    if hasattr(layer, "population"):
        return tuple(layer.population.value()[:2])
    if not (hasattr(layer, "moving_mean") and hasattr(layer, "moving_variance")):
        raise NotYet("The layer needs `self.moving_mean` and `self.moving_variance`.")
    return np.array(layer.moving_mean), np.array(layer.moving_variance)


@_check(6, "the moving statistics start at 0 and 1")
def _start(bench):
    mean, variance = _moving(bench.layer(momentum=MOMENTUM))
    _expect(mean, np.zeros(3), "The moving mean starts at 0, one for each channel.")
    _expect(
        variance, np.ones(3), "The moving variance starts at 1, one for each channel."
    )


@_check(6, "one batch moves them by 1 - momentum of the way")
def _one_update(bench):
    layer, x = bench.layer(momentum=MOMENTUM), _x((2, 3))
    bench.call(layer, x)
    mean, variance = _moving(layer)
    right = (1 - MOMENTUM) * x.mean(axis=0)
    if close(mean, np.zeros(3)):
        raise NotYet("They did not move.")
    if close(mean, MOMENTUM * x.mean(axis=0)):
        raise NotYet("momentum weighs the old value, 1 - momentum the batch.")
    _expect(mean, right, "momentum * old + (1 - momentum) * batch.")
    if close(variance, MOMENTUM + (1 - MOMENTUM) * x.var(axis=0, ddof=1)):
        raise NotYet("Take the variance that divides by m, as Keras does.")
    _expect(variance, MOMENTUM + (1 - MOMENTUM) * x.var(axis=0), "momentum * old + ...")


@_check(6, "three batches of images")
def _three_updates(bench):
    layer, mean, variance = bench.layer(momentum=MOMENTUM), np.zeros(3), np.ones(3)
    for seed in range(3):
        x = _x(SHAPES["images"], seed)
        bench.call(layer, x)
        mean = MOMENTUM * mean + (1 - MOMENTUM) * x.mean(axis=(0, 1, 2))
        variance = MOMENTUM * variance + (1 - MOMENTUM) * x.var(axis=(0, 1, 2))
    found = _moving(layer)
    _expect(found[0], mean, "Each batch moves what the one before left.")
    _expect(found[1], variance, "Each batch moves what the one before left.")


# Chapter 7


def _trained(bench):
    """Return a layer that has seen three batches, and what it remembers."""
    layer = bench.layer(momentum=MOMENTUM)
    for seed in range(3):
        bench.call(layer, _x(seed=seed))
    return layer, _moving(layer)


@_check(7, "in inference it uses what it remembers")
def _inference(bench):
    layer, (mean, variance) = _trained(bench)
    x = _x(seed=9)
    y = bench.call(layer, x, training=False)
    if close(y, _right(x)):
        raise NotYet("That is the batch's own mean and variance.")
    right = batch_norm_inference(
        x, mean, variance, _gamma(3), _beta(3), epsilon=EPSILON
    )
    _expect(y, right, "Use moving_mean and moving_variance, with the same epsilon.")


@_check(7, "inference changes nothing that it remembers")
def _leaves_no_trace(bench):
    layer, kept = _trained(bench)
    bench.call(layer, _x(seed=9), training=False)
    for now, before in zip(_moving(layer), kept, strict=True):
        _expect(now, before, "The update belongs to training.")


@_check(7, "an example alone gets the answer that it gets in a batch")
def _alone(bench):
    layer, _ = _trained(bench)
    x = _x(seed=9)
    together = bench.call(layer, x, training=False)
    for k in range(len(x)):
        alone = bench.call(layer, x[k : k + 1], training=False)
        _expect(
            alone, together[k : k + 1], "In inference nothing of the batch is used."
        )


@_check(7, "in inference, backward sees two constants")
def _inference_backward(bench):
    layer, (mean, variance) = _trained(bench)
    x, grad_y = _x(seed=9), np.random.default_rng(1).normal(size=SMALL)
    bench.call(layer, x, training=False)
    grad_x = layer.backward(grad_y)
    right = batch_norm_inference_backward(
        grad_y, x, mean, variance, _gamma(3), epsilon=EPSILON
    )
    s = np.sqrt(variance + EPSILON)
    x_hat = (x - mean) / s
    common = grad_y.mean(axis=0) + x_hat * (grad_y * x_hat).mean(axis=0)
    if close(grad_x, _gamma(3) / s * (grad_y - common)):
        raise NotYet("That is the gradient of training; `backward` must know the mode.")
    _expect(grad_x, right[0], "Which paths from x to y are left in inference?")
    _expect(layer.gradients["gamma"], right[1], "x_hat is that of the last call.")


@_check(7, "it trains a convolutional network as the library's does")
def _trains(bench):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 8, 8, 1)), rng.integers(0, 10, 20)
    losses, answers = [], []
    for maker in (bench.maker, BatchNorm):
        network = convolutional(0, functools.partial(maker, momentum=MOMENTUM))
        steps = []
        for _ in range(5):
            loss, grad = softmax_cross_entropy(network(x, training=True), y)
            network.backward(grad)
            network.step(0.1)
            steps.append(loss)
        losses.append(np.array(steps))
        answers.append(network(x, training=False))
    _expect(losses[0], losses[1], "These are the losses of five steps.")
    _expect(answers[0], answers[1], "These are the logits in inference afterwards.")


# Chapter 8


def _folding(bench, kernel, bias):
    layer, (mean, variance) = _trained(bench)
    known = (mean, variance, _gamma(3), _beta(3))
    right = fold(kernel, bias, *known, epsilon=EPSILON)
    if isinstance(layer, BatchNorm):  # whose fold is a function
        return right, right
    if not hasattr(layer, "fold"):
        raise NotYet("The layer has no method `fold` yet.")
    mine = layer.fold(kernel.copy(), bias.copy())
    if not isinstance(mine, tuple) or len(mine) != 2:
        raise NotYet("`fold` should return two arrays, kernel and bias.")
    return mine, right


def _kernels(shape):
    rng = np.random.default_rng(3)
    return rng.normal(size=shape), rng.normal(size=3)


@_check(8, "folded into a dense layer")
def _fold_dense(bench):
    kernel, bias = _kernels((5, 3))
    mine, right = _folding(bench, kernel, bias)
    layer, (mean, variance) = _trained(bench)
    scale = _gamma(3) / np.sqrt(variance + EPSILON)
    last = getattr(layer, "s", None)
    if last is not None and close(mine[0], kernel * _gamma(3) / last):
        raise NotYet("That is the root of the last batch. Which does inference use?")
    if close(mine[0], kernel * _gamma(3) / np.sqrt(variance + 1e-3)):
        raise NotYet(f"The epsilon here is {EPSILON}, not 0.001: use the layer's own.")
    _expect(mine[0], right[0], "Batch norm at inference scales each channel. By what?")
    if close(mine[1], bias + _beta(3) - mean * scale):
        raise NotYet("The old bias goes through batch norm too: scale it.")
    _expect(
        mine[1], right[1], "What does batch norm make of the bias when the input is 0?"
    )


@_check(8, "folded into a convolution")
def _fold_convolution(bench):
    mine, right = _folding(bench, *_kernels((3, 3, 2, 3)))
    _expect(mine[0], right[0], "The channels of the output are the kernel's last axis.")
    _expect(
        mine[1], right[1], "What does batch norm make of the bias when the input is 0?"
    )


# The checkers


def _examine(maker, chapter):
    """Run all checks up to a chapter, and print what each of them found."""
    if maker is ...:
        print("Not yet. Put your class where the ... stands.")
        return
    bench, lines, failed, before = _Bench(maker, chapter), [], 0, 0
    chosen = [check for check in CHECKS if check[0] <= chapter]
    for number, says, examine in chosen:
        passes, words = attempt(examine, bench)
        if not passes:
            failed += 1
            if failed <= SHOWN:
                lines += [f"  FAILS   ({number}) {says}", f"          {words}"]
        elif number < chapter:
            before += 1
        else:
            lines.append(f"  passes  ({number}) {says}")
    if failed:
        print(f"Not yet. {len(chosen) - failed} of {len(chosen)} checks pass.")
    else:
        print(f"Correct. All {len(chosen)} checks pass.")
    if before:
        print(f"  passes  {before} of the chapters before")
    if failed > SHOWN:
        lines.append(f"  FAILS   {failed - SHOWN} more")
    print("\n".join(lines))


def forward(maker):
    """Check the layer of chapter 3: `layer = maker(channels, epsilon=...)`, then `layer(x)`."""
    _examine(maker, 3)


def backward(maker):
    """Check the layer of chapter 4, which has `backward(grad_y)` as well."""
    _examine(maker, 4)


def axes(maker):
    """Check the layer of chapter 5, which takes sequences, images and volumes as well."""
    _examine(maker, 5)


def population(maker):
    """Check the layer of chapter 6, `maker(channels, momentum=..., epsilon=...)`, with memory."""
    _examine(maker, 6)


def modes(maker):
    """Check the layer of chapter 7, which is called `layer(x, training=...)`."""
    _examine(maker, 7)


def folded(maker):
    """Check the layer of chapter 8, which has `fold(kernel, bias)` as well."""
    _examine(maker, 8)
