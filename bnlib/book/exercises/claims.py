"""Checkers for the chapter that weighs what is said of batch norm."""

import numpy as np

from bnlib.book.exercises import NotYet, checker

__all__ = ["chance", "effective", "flaws", "refuted"]

FLAWS = {"tautology", "control", "seeds"}


@checker
def flaws(answer):
    """Check which experiment is a tautology, which lacks a fair control, which lacks seeds."""
    if not isinstance(answer, dict) or set(answer) != {"A", "B", "C"}:
        raise NotYet('Give a dict such as {"A": "seeds", "B": "control", "C": ...}.')
    if unknown := set(answer.values()) - FLAWS:
        raise NotYet(
            f"The flaws are {sorted(FLAWS)}; {sorted(map(str, unknown))} is none."
        )
    if answer["A"] != "tautology":
        raise NotYet("Could experiment A have come out otherwise, with any network?")
    if answer["B"] != "control":
        raise NotYet(
            "Experiment B has seeds enough. What did the other network do at 2.5?"
        )
    if answer["C"] != "seeds":
        raise NotYet("Experiment C compares like with like. How often?")
    return "Each flaw is in one experiment, and each alone makes it worthless."


@checker
def refuted(answer):
    """Check an experiment on "in training, an example's output does not depend on its batch"."""
    found = [answer(seed) for seed in (0, 1, 2)]
    for each in found:
        if not isinstance(each, dict) or not {"training", "inference"} <= set(each):
            raise NotYet('Return a dict with two numbers, "training" and "inference".')
    training, inference = (
        np.array([float(each[mode]) for each in found])
        for mode in ("training", "inference")
    )
    again = answer(0)
    if any(
        float(again[mode]) != float(found[0][mode])
        for mode in ("training", "inference")
    ):
        raise NotYet("Called twice with seed 0, it measures two different things.")
    if len(set(training)) < 3:
        raise NotYet("Three seeds measure the same. Draw the batches by the seed.")
    if np.any(training < 1e-3):
        raise NotYet(
            "In training the output hardly differs. Is the rest of the batch another?"
        )
    if np.any(inference != 0):
        raise NotYet(
            "The control fails: in inference the output must be the same, to the last digit. "
            "Does a call between the two move the statistics? Pass update=False."
        )
    return "The claim is refuted in every seed, and the control holds."


@checker
def effective(answer):
    """Check the effective rate after t steps: `answer(rate, c, size, t)`."""
    cases = [(0.1, 1.0, 50.0, 0), (1.0, 2.0, 10.0, 100), (30.0, 1.5, 80.0, 1000)]
    for rate, c, size, t in cases:
        got = answer(rate, c, size, t)
        if got is None or got is ...:
            raise NotYet("The function returns nothing so far.")
        grown = np.sqrt(size**2 + 2 * rate**2 * c**2 * t)
        if np.isclose(got, rate / grown):
            continue
        if t == 0:
            raise NotYet("Before the first step it is the rate over the squared norm.")
        if np.isclose(got, grown):
            raise NotYet("That is the squared norm. The effective rate divides by it.")
        if np.isclose(got, rate / np.sqrt(size**2 + rate**2 * c**2 * t)):
            raise NotYet("Nearly: the derivative of a square brings a factor of 2.")
        if np.isclose(got, rate / (size + rate**2 * c**2 * t / size)):
            raise NotYet(
                "The gradient shrinks while the weights grow: c over the norm."
            )
        raise NotYet(
            f"For rate {rate}, c {c}, size {size} and {t} steps it is not right."
        )
    return "After many steps it is 1 / (c sqrt(2 t)), whatever the rate was."


@checker
def chance(answer):
    """Check the probability that a coin makes a prediction true, and false, of eight seeds."""
    try:
        true, either = (float(each) for each in answer)
    except (TypeError, ValueError):
        raise NotYet("Give two numbers: for true, and for true or false.") from None
    if np.isclose(true, 1 / 256):
        raise NotYet("That is eight of eight. Seven are enough.")
    if np.isclose(true, 8 / 256):
        raise NotYet("That is exactly seven. Eight of eight count as well.")
    if not np.isclose(true, 9 / 256, rtol=0.02):
        raise NotYet("Count the rows of eight coins that have seven heads or eight.")
    if not np.isclose(either, 18 / 256, rtol=0.02):
        raise NotYet("The first is right. A prediction is false with one head at most.")
    return "Nine in 256, and as many on the other side."
