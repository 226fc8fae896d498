"""Checkers for the chapter on parameters."""

import copy

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.book.network import Activation, Conv2D, Dense, Network
from bnlib.layer import BatchNorm
from bnlib.moments import moments

__all__ = ["before_and_after", "branches", "walk"]


@checker
def before_and_after(answer):
    """Check `answer`: numbers kept by a 3x3 convolution, 64 to 128 maps, and batch norm; folded."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        raise NotYet("Give a pair: the numbers before folding, and those after.")
    before, after = map(int, answer)
    kernel = 3 * 3 * 64 * 128
    if before == kernel + 2 * 128:
        raise NotYet(
            "The first: batch norm has 128 channels, and keeps more than what is trained."
        )
    if before == kernel + 5 * 128:
        raise NotYet("The first: this convolution has no bias.")
    if before == kernel:
        raise NotYet(
            "The first: that is the kernel alone. Batch norm keeps numbers too."
        )
    if before != kernel + 4 * 128:
        raise NotYet("The first: the kernel has 73,728. What does batch norm keep?")
    if after == kernel:
        raise NotYet("The second: the shift has to go somewhere.")
    if after == before:
        raise NotYet("The second: nothing of batch norm is left as it was.")
    if after != kernel + 128:
        raise NotYet("The second: a kernel of the same shape, and what else?")
    return "Four vectors fewer, and one bias more."


@checker
def walk(answer):
    """Check `answer(network)`: folds where it may, and leaves the other batch norm layers."""
    other, cases = 0, list(walked())
    for name, network, x, left in cases:
        right, kept = network(x, training=False), copy.deepcopy(network)
        mine = answer(network)
        if not isinstance(mine, Network):
            raise NotYet("The function should return a Network.")
        if not _same(network, kept):
            raise NotYet(f"{name}: the network that you were given has changed.")
        if not close(mine(x, training=False), right):
            other += 1
        elif len(mine.norms) > left:
            raise NotYet(f"{name}: right, but something that folds was not folded.")
    if other:
        raise NotYet(
            f"{other} of {len(cases)} networks give other outputs than before."
        )
    return "It looks one layer back, and no farther."


def walked():
    """Yield the networks of `walk`: a name, the network, an input, the norms that must stay.

    Each ends in a linear layer, and each batch norm sees inputs of about the mean and deviation
    that it remembers, so that the outputs depend on every layer.
    """
    rng = np.random.default_rng(0)
    for name, letters, left in [
        ("convolution, batch norm, ReLU", "cbrc", 0),
        ("convolution, ReLU, batch norm", "crbc", 1),
        ("batch norm, convolution", "bcrc", 1),
        ("dense, batch norm, ReLU, dense, ReLU, batch norm", "dbrdrbd", 1),
        ("one convolution used twice", "sbrsbrc", 0),
        ("a skip past a convolution, batch norm", "kbrc", 1),
    ]:
        yield name, *_network(letters, rng), left


class _Skip:
    """A convolution plus its input: it has a kernel, and yet it is no convolution."""

    def __init__(self, convolution):
        self.convolution, self.parameters = convolution, convolution.parameters

    def __call__(self, x, *, training):
        return x + self.convolution(x, training=training)


def _network(letters, rng):
    """Make a network with an input of: b batch norm, r ReLU, c, d, s (shared) and k (skip)."""
    layers, channels = [], 4
    shape = (9, channels) if "d" in letters else (9, 5, 5, channels)
    x = hidden = rng.normal(size=shape)
    shared = Conv2D(channels, channels, rng, bias=None)
    for letter in letters:
        if letter == "b":
            layer = BatchNorm(channels, epsilon=0.1)
            mean, variance, count = moments(hidden)
            known = layer.population
            known.mean, known.variance = (
                mean + rng.normal(0, 0.1, channels),
                2 * variance,
            )
            known.count = count
            layer.gamma[:] = rng.uniform(0.5, 2, channels)
            layer.beta[:] = rng.normal(0, 0.5, channels)
        elif letter == "r":
            layer = Activation("relu")
        elif letter == "s":
            layer = shared
        else:
            layer = {"d": Dense}.get(letter, Conv2D)(channels, channels, rng)
            layer.parameters["bias"][:] = rng.normal(0, 0.5, channels)
            layer = _Skip(layer) if letter == "k" else layer
        layers.append(layer)
        hidden = layer(hidden, training=False)
    return Network(layers), x


def _same(network, kept):
    """Say whether a network has the layers, parameters and statistics of its copy."""
    pairs = list(zip(network.layers, kept.layers, strict=False))
    if len(network.layers) != len(kept.layers) or any(
        type(one) is not type(other) for one, other in pairs
    ):
        return False
    return all(map(np.array_equal, *(_numbers(each) for each in (network, kept))))


def _numbers(network):
    """List all arrays that a network keeps, by name, so that a missing one is felt."""
    found = []
    for layer in network.layers:
        for name in ("kernel", "bias", "gamma", "beta"):
            found.append(layer.parameters.get(name, ()))
        if isinstance(layer, BatchNorm):
            found += layer.population.value()[:2]
    return found


@checker
def branches(answer):
    """Check `answer(large, small, multipliers, shifts)`: three branches as one convolution."""
    rng, c = np.random.default_rng(1), 3
    large, small = (rng.normal(size=(k, k, c, c)) for k in (3, 1))
    multipliers, shifts = rng.uniform(0.5, 2, (3, c)), rng.normal(size=(3, c))
    returned = answer(*map(np.copy, (large, small, multipliers, shifts)))
    kernel, bias = _kernel_and_bias(returned, large.shape, c)
    parts = [large * multipliers[0]] + [np.zeros_like(large) for _ in "12"]
    parts[1][1, 1] = small[0, 0] * multipliers[1]
    parts[2][1, 1] = np.diag(multipliers[2])
    right, middle = sum(parts), (1, 1)
    around = np.ones((3, 3), bool)
    around[middle] = False
    if not close(kernel[around], right[around]):
        if close(kernel, right + _everywhere(parts[1], middle)):
            raise NotYet(
                "You added the 1x1 kernel to all nine places; it has only one."
            )
        raise NotYet(
            "The eight places around the middle belong to the large branch alone: its kernel "
            "times its multiplier, output channel by output channel."
        )
    found = kernel[middle]
    rows = parts[0][middle] + small[0, 0] * multipliers[1][:, np.newaxis]
    for wrong, words in [
        (parts[0][middle], "The middle: the other two branches are missing."),
        (
            parts[0][middle] + parts[1][middle],
            "The middle: batch norm alone is missing.",
        ),
        (right[middle] - parts[1][middle], "The middle: the 1x1 branch is missing."),
        (
            rows + parts[2][middle],
            "The middle: the multiplier scales outputs, the columns.",
        ),
        (
            parts[0][middle] + parts[1][middle] + multipliers[2],
            "The middle: batch norm alone keeps channels apart; you mixed them.",
        ),
        (
            parts[0][middle] + parts[1][middle] + np.eye(c),
            "The middle: the branch without a kernel has a multiplier too.",
        ),
    ]:
        if close(found, wrong):
            raise NotYet(words)
    if not close(found, right[middle]):
        raise NotYet("The middle of the kernel is off: three branches meet there.")
    if close(bias, shifts[0]):
        raise NotYet("The kernel is right. Each branch has a shift.")
    if not close(bias, shifts.sum(axis=0)):
        raise NotYet("The kernel is right, the bias is not: the outputs are added.")
    return "Exact at the border too: there each branch sees zeros or nothing."


def _everywhere(part, middle):
    """The middle of a kernel at the eight places around it."""
    spread = np.broadcast_to(part[middle], part.shape).copy()
    spread[middle] = 0
    return spread


def _kernel_and_bias(returned, shape, outputs):
    """Unpack a learner's kernel and bias, or say what is missing."""
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise NotYet("The function should return two arrays: kernel, bias.")
    (kernel,) = arrays(returned[:1], ("kernel",), shape)
    (bias,) = arrays(returned[1:], ("bias",), (outputs,))
    return kernel, bias
