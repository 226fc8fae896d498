"""Checkers for the chapter on parameters."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.book.network import Activation, Conv2D, Dense, Network
from bnlib.layer import BatchNorm

__all__ = ["before_and_after", "forward", "walk"]


@checker
def before_and_after(answer):
    """Check `answer`: numbers kept by a 3x3 convolution, 64 to 128 maps, and batch norm; folded."""
    before, after = map(int, answer)
    kernel = 3 * 3 * 64 * 128
    if before == kernel + 2 * 128:
        raise NotYet(
            "The first: batch norm has 128 channels, and keeps more than what is trained."
        )
    if before == kernel + 5 * 128:
        raise NotYet("The first: this convolution has no bias.")
    if before != kernel + 4 * 128:
        raise NotYet("The first: add four vectors to the kernel's numbers.")
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
    rng = np.random.default_rng(0)
    for name, layers, left in [
        ("convolution, batch norm, ReLU", "cbr", 0),
        ("convolution, ReLU, batch norm", "crb", 1),
        ("batch norm, convolution", "bc", 1),
        ("dense, batch norm, ReLU, dense, ReLU, batch norm", "dbrdrb", 1),
    ]:
        network, x = _network(layers, rng)
        right = network(x, training=False)
        mine = answer(network)
        if not isinstance(mine, Network):
            raise NotYet("The function should return a Network.")
        if not close(network(x, training=False), right):
            raise NotYet(f"{name}: the network that you were given has changed.")
        if not close(mine(x, training=False), right):
            raise NotYet(f"{name}: the outputs are no longer the same.")
        if len(mine.norms) > left:
            raise NotYet(f"{name}: right, but something that folds was not folded.")
    return "It looks one layer back, and no farther."


def _network(letters, rng):
    """Make a network of c, d, b and r: convolution, dense, batch norm, ReLU, with an input."""
    layers, channels = [], 4
    shape = (6, 5, 5, channels) if "c" in letters else (6, channels)
    for letter in letters:
        if letter == "b":
            layer = BatchNorm(channels)
            layer.gamma[:], layer.beta[:] = rng.uniform(0.5, 2, channels), rng.normal()
            for _ in range(300):  # until the start at 0 and 1 is forgotten
                layer(rng.normal(3, 2, (9, channels)), training=True)
        else:
            kinds = {"c": Conv2D, "d": Dense}
            layer = (
                Activation("relu")
                if letter == "r"
                else kinds[letter](channels, channels, rng, bias=0.5)
            )
        layers.append(layer)
    return Network(layers), rng.normal(size=shape)


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
