"""Checkers for the chapter on population statistics."""

import numpy as np

from bnlib.book.exercises import NotYet, checker, close
from bnlib.book.network import Activation, Dense, Network, recalibrate
from bnlib.layer import BatchNorm

__all__ = ["rate", "recalibration", "steps"]


@checker
def steps(answer):
    """Check `answer(momentum, variance, share)`: updates until the start weighs less than that."""
    for momentum, variance, share, expected in [
        (0.99, 1, 0.01, 459),
        (0.99, 0.02, 0.01, 848),
        (0.9, 4, 0.01, 31),
        (0.5, 0.5, 0.1, 5),
        (0.9, 200, 0.01, 0),
    ]:
        found = answer(momentum, variance, share)
        case = f"my_steps({momentum}, {variance}, {share})"
        if found is None:
            raise NotYet("The function returns nothing so far.")
        if np.isnan(found):
            raise NotYet(f"{case} gave NaN. Take logarithms of positive numbers only.")
        if close(found, 1 / (1 - momentum)):
            raise NotYet(f"{case} gave 1 / (1 - momentum): by then a third is left.")
        if variance != 1 and abs(found - np.log(share) / np.log(momentum)) <= 1:
            raise NotYet(
                f"{case} gave {found:.6g}, as for a variance of 1. The start must be small "
                f"beside {variance}."
            )
        if abs(found - np.log(share / variance) / np.log(momentum)) <= 1 != variance:
            raise NotYet(
                f"{case} gave {found:.6g}, as if the limit were share / variance. It is share * "
                "variance: a share of the true variance."
            )
        if expected == 0 and found != 0:
            raise NotYet(
                f"{case} gave {found:.6g}. The limit is share * variance = "
                f"{share * variance:.3g}, and the start weighs 1 before any update."
            )
        if found != np.floor(found):
            raise NotYet(
                f"{case} gave {found:.6g}. Updates are counted: return a whole number."
            )
        if found == expected - 1:
            raise NotYet(
                f"{case} is one update early: at {found} the weight is not under the limit."
            )
        if found == expected + 1:
            raise NotYet(
                f"{case} is one update late: at {expected} it is under the limit already."
            )
        if found != expected:
            raise NotYet(
                f"{case} gave {found:.6g}. Which t solves momentum^t = share * variance? "
                "Take logarithms."
            )
    return "459 updates for a variance of 1, and 848 for one of 0.02."


@checker
def rate(answer):
    """Check `answer(t, momentum)`: what part of the way the debiased moving average covers."""
    for momentum in (0.9, 0.5):
        for t in (1, 2, 7):
            found = answer(t, momentum)
            case = f"my_rate({t}, {momentum})"
            if found is None:
                raise NotYet("The function returns nothing so far.")
            right = (1 - momentum) / (1 - momentum**t)
            if close(found, right):
                continue
            first = "After one batch the debiased average is that batch, so the first rate is 1."
            if np.isnan(found):
                raise NotYet(f"{case} gave NaN, and the first rate is 1.")
            if t == 1:
                hint = first
                if close(found, 1 / (1 - momentum)):
                    hint = f"The numerator is missing. {first}"
                elif close(found, 1 - momentum):
                    hint = f"That is the rate of the plain moving average. {first}"
                raise NotYet(f"{case} gave {found:.3g}. {hint}")
            for wrong, hint in [
                (1 / t, "1 / t is the rate of the plain average."),
                (1 / (1 - momentum**t), "The numerator is missing."),
                (
                    (1 - momentum) / (1 - momentum ** (t - 1)),
                    "At update t the batches weigh 1 - momentum^t; yours is one update behind.",
                ),
                (1 - momentum, "That is the rate of the plain moving average."),
            ]:
                if close(found, wrong):
                    raise NotYet(f"{case} gave {found:.3g}. {hint}")
            raise NotYet(
                f"{case} gave {found:.3g}. Try it on the batches 10, 20: the debiased average with "
                f"momentum {momentum} is {_debiased([10, 20], momentum):.4g} then."
            )
    return "It falls from 1 to 1 - momentum, and never looks at the start."


@checker
def recalibration(answer):
    """Check `answer(network, batches)`: exact statistics in both layers, for any batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(1, 3, (24, 6))
    for size, words in [
        (24, "as one batch"),
        (6, "in batches of 6"),
        (2, "in batches of 2"),
    ]:
        network, right = (_two_layers() for _ in range(2))
        weights = network.layers[0].parameters["kernel"].copy()
        batches = np.split(x, range(size, len(x), size))
        network.layers[0] = first = _Counting(network.layers[0])
        answer(network, [batch.copy() for batch in batches])
        network.layers[0] = first.layer
        if first.most > size:
            raise NotYet(
                f"A layer was given {first.most} examples at once, and the batches have {size}. Do "
                "it without joining them: they may not fit into memory together."
            )
        recalibrate(right, batches)
        if not np.array_equal(weights, network.layers[0].parameters["kernel"]):
            raise NotYet("A weight has changed; recalibration trains nothing.")
        for number, ours, true in zip(
            ("first", "second"), network.norms, right.norms, strict=True
        ):
            found, exact = ours.population.value(), true.population.value()
            if (found.mean == 0).all() and (found.variance == 1).all():
                raise NotYet(f"The {number} batch norm layer has not been touched.")
            if not close(found.variance, exact.variance):
                ratio = np.mean(found.variance / exact.variance)
                raise NotYet(
                    f"With the 24 examples {words}, the variance of the {number} batch norm layer "
                    f"is {ratio:.2f} of the exact one, on average over its channels."
                )
            if not close(found.mean, exact.mean):
                raise NotYet(
                    f"With the 24 examples {words}, the mean of the {number} batch norm layer "
                    "is off."
                )
    return (
        "The same statistics, whether the 24 examples come as one batch or as twelve."
    )


class _Counting:
    """A layer that notes the longest batch that it was given."""

    def __init__(self, layer):
        self.layer, self.parameters, self.most = layer, layer.parameters, 0

    def __call__(self, x, *, training):
        self.most = max(self.most, len(x))
        return self.layer(x, training=training)


def _two_layers():
    """A network with two batch norm layers and no memory yet."""
    rng, layers = np.random.default_rng(1), []
    for inputs in (6, 5):
        layers += [Dense(inputs, 5, rng, bias=None), BatchNorm(5), Activation("relu")]
    return Network([*layers, Dense(5, 2, rng)])


def _debiased(batches, momentum):
    """The average from 0, divided by the weight of the batches."""
    average = 0.0
    for batch in batches:
        average = momentum * average + (1 - momentum) * batch
    return average / (1 - momentum ** len(batches))
