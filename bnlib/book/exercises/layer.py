"""Checkers for the chapter on the layer."""

import copy
import inspect

import numpy as np

from bnlib.book.exercises import NotYet, checker, close
from bnlib.book.network import Dense, Network
from bnlib.layer import BatchNorm
from bnlib.transform import batch_norm

__all__ = ["diagnose", "evaluate", "repaired"]


@checker
def evaluate(answer):
    """Check `answer(network, inputs, labels, size)`: accuracy in batches, changing nothing."""
    network, x, y, right = _half_right()
    trial, largest = _Watched(copy.deepcopy(network).layers), {}
    found = {}
    for size in (23, 10, 1):
        trial.largest = 0
        found[size] = answer(trial, x.copy(), y.copy(), size)
        largest[size] = trial.largest
    if found[23] is None:
        raise NotYet("The function returns nothing so far.")
    if _state(trial) != _state(network):
        raise NotYet("Your function changed the population. Which mode writes to it?")
    wrong = [size for size in found if not close(found[size], right)]
    if wrong == [10]:
        raise NotYet("Batches of 10, 10 and 3: the last should count for less.")
    if wrong and 23 not in wrong:
        raise NotYet(
            f"Right in one batch of 23, but one at a time it is {found[1]:.3g}, not "
            f"{right:.3g}. Whose statistics did a single example get?"
        )
    if wrong:
        raise NotYet(f"You found {found[23]:.3g}; it is {right:.3g}.")
    if largest[10] > 10:
        raise NotYet(
            f"In batches of 10, please: the network got {largest[10]} at once."
        )
    return "The same in any batches, and no trace left."


@checker
def diagnose(answer):
    """Check `answer`: five words, what is to be seen of networks A to E."""
    words = [str(word).strip().lower() for word in answer]
    expected = ["underfitting", "statistics", "overfitting", "dropout", "shift"]
    if len(words) != 5 or not set(words) <= set(expected):
        raise NotYet(f"Give five words, each one of {', '.join(sorted(expected))}.")
    hints = [
        "A: it is bad on its own training data, whatever the statistics.",
        "B: compare its two numbers for the training data.",
        "C: it is perfect on the training data in both modes.",
        "D: in which mode is it better?",
        "E: compare its two numbers for the test data.",
    ]
    for word, right, hint in zip(words, expected, hints, strict=True):
        if word != right:
            raise NotYet(hint)
    return "One pass over the training data cures B, and no other."


@checker
def repaired(answer):
    """Check `answer(channels)`: two modes and `update`, without gamma and beta; repaired."""
    rng = np.random.default_rng(0)
    batches = [rng.normal(2, 3, (8, 2)) for _ in range(3)]
    layer, right = answer(2), BatchNorm(2, momentum=0.9)
    if "update" not in inspect.signature(type(layer).__call__).parameters:
        raise NotYet("The switch `update` is gone. Keep it.")
    for batch in batches:
        y = layer(batch, training=True)
        if not close(y, right(batch, training=True)):
            raise NotYet(
                "In training it should use the mean and variance of the batch."
            )
    question = rng.normal(2, 3, (4, 2))
    first, second = (layer(question, training=False) for _ in range(2))
    if not close(second, first):
        raise NotYet(
            f"The same question twice, in inference: {first[0, 0]:.4g}, then "
            f"{second[0, 0]:.4g}."
        )
    expected = right(question, training=False)
    if close(first, batch_norm(question)[0]):
        raise NotYet(
            "In inference it uses the batch now. It should use what it remembers."
        )
    if not close(first, expected):
        raise NotYet(
            f"In inference {first[0, 0]:.4g} came, and {expected[0, 0]:.4g} was expected. "
            "Does training still move the memory, and only training?"
        )
    looked = layer(batches[0], training=True, update=False)
    if not close(looked, batch_norm(batches[0])[0]):
        raise NotYet("With `update=False` training should still use the batch.")
    if not close(layer(question, training=False), expected):
        raise NotYet("A call in training with `update=False` left a trace.")
    return "Ask as often as you like: the answer stays."


class _Watched(Network):
    """A network that remembers the largest batch that it got."""

    largest = 0

    def outputs(self, x, **options):
        self.largest = max(self.largest, len(x))
        return super().outputs(x, **options)


def _half_right():
    """A network with a population of its own, and data on which it is right 14 times in 23."""
    rng = np.random.default_rng(0)
    network = Network([BatchNorm(4, momentum=0.5), Dense(4, 3, rng)])
    x = rng.normal(2, 1, (23, 4))
    for _ in range(60):  # until all 23 in one batch are the population
        network(x, training=True)
    y = network(x, training=False).argmax(axis=1)
    wrong = [0, 2, 5, 6, 9, 13, 17, 20, 22]
    y[wrong] = (y[wrong] + 1) % 3
    return network, x, y, 14 / 23


def _state(network):
    """What the batch norm layers hold, in a form that compares."""
    return [
        {name: value.tolist() for name, value in norm.state().items()}
        for norm in network.norms
    ]
