"""Checkers for the chapter that weighs what is said of batch norm."""

import numpy as np

from bnlib.book.claims import Claim, weigh
from bnlib.book.data import stored
from bnlib.book.exercises import NotYet, checker

__all__ = ["chance", "effective", "flaws", "weighed"]

FLAWS = {"tautology", "control", "seeds", "rates"}


@checker
def flaws(answer):
    """Check which experiment is a tautology, and which lacks a control, seeds, or a shared rate."""
    if not isinstance(answer, dict) or set(answer) != {"A", "B", "C", "D"}:
        raise NotYet('Give a dict such as {"A": "seeds", "B": "control", ...}.')
    if unknown := set(answer.values()) - FLAWS:
        raise NotYet(
            f"The flaws are {sorted(FLAWS)}; {sorted(map(str, unknown))} is none."
        )
    if answer["A"] != "tautology":
        raise NotYet("Could experiment A have come out otherwise, with any network?")
    if answer["B"] != "control":
        raise NotYet(
            "Experiment B has seeds enough. Had the other network learned at all?"
        )
    if answer["C"] != "seeds":
        raise NotYet("Experiment C compares like with like. How often?")
    if answer["D"] != "rates":
        raise NotYet(
            "Experiment D has seeds, and both networks learn. What else differs between them?"
        )
    return "Each flaw is in one experiment, and each alone makes it worthless."


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
            raise NotYet(
                "Before the first step it is the rate over the squared norm. A limit for many "
                "steps is not enough."
            )
        if np.isclose(got, grown):
            raise NotYet("That is the squared norm. The effective rate divides by it.")
        if np.isclose(got, rate / np.sqrt(size**2 + rate**2 * c**2 * t)):
            raise NotYet("Nearly: the derivative of a square brings a factor of 2.")
        if np.isclose(got, rate / (size + rate**2 * c**2 * t / size)):
            raise NotYet(
                "The gradient shrinks while the weights grow: c over the norm."
            )
        if np.isclose(got, rate / (size + 2 * rate**2 * c**2 * t)):
            raise NotYet(
                "Nearly: what grows evenly is the square of the squared norm. Start from its "
                "square, and take the root in the end."
            )
        if np.isclose(got, rate / grown**2) or np.isclose(got, rate / np.sqrt(grown)):
            raise NotYet(
                "The effective rate divides by the squared norm: neither its root nor its square."
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
    if not np.isclose(true, 9 / 256, rtol=0.05):
        raise NotYet("Count the rows of eight coins that have seven heads or eight.")
    if not np.isclose(either, 18 / 256, rtol=0.05):
        raise NotYet("The first is right. A prediction is false with one head at most.")
    return "Nine in 256, and as many on the other side."


# (without batch norm, gain) of sigmoid and of ReLU, what the core must say, and why
PLANTED = [
    (
        (0.2, 0.7),
        (0.2, 0.2),
        True,
        "With more gain for sigmoid the core should be True.",
    ),
    (
        (0.2, 0.2),
        (0.2, 0.7),
        False,
        "With more gain for ReLU the core should be False.",
    ),
    *(
        (
            *pair,
            "Your core compares what the networks reach. The claim is about what batch norm adds: "
            "a network that starts lower may gain more and still end lower.",
        )
        for pair in (
            ((0.05, 0.6), (0.6, 0.2), True),
            ((0.6, 0.2), (0.05, 0.6), False),
        )
    ),
    *(
        (
            *pair,
            "Your core compares how many times more is right. The margin is in points, so take "
            "differences: from 0.1 to 0.3 is a factor of three, and fewer points than from 0.3 to "
            "0.75.",
        )
        for pair in (
            ((0.1, 0.2), (0.3, 0.45), False),
            ((0.5, 0.45), (0.05, 0.1), True),
        )
    ),
    (
        (0.1, 0.45),
        (0.4, 0.4),
        False,
        "Five points more are enough for your core. Ask for a margin of ten.",
    ),
    (
        (0.1, 0.52),
        (0.4, 0.4),
        True,
        "Twelve points more are not enough for your core. Ten points were asked.",
    ),
]


def _planted(sigmoid, relu, others=0.2):
    """Make accuracies of eight seeds, from those without batch norm and the gain with it."""
    pairs = {"sigmoid 20": sigmoid, "relu 20": relu, "relu 50": (others, 0.0)}

    def of(measure, setting):
        without, gain = pairs[setting.split(",")[0]]
        return np.linspace(0, 0.04, 8) + without + gain * ("batch norm" in setting)

    return of


@checker
def weighed(answer):
    """Check a claim about the twenty layers of the experiment "deep", and weigh it."""
    if not isinstance(answer, Claim):
        raise NotYet("Give a Claim.")
    if answer.experiment != "deep":
        raise NotYet('The experiment that has the runs is "deep".')
    words = (answer.gist, answer.predicts, answer.conditions)
    if not all(isinstance(each, str) and each.strip(" .") for each in words):
        raise NotYet("Say in words the gist, what is predicted, and the conditions.")

    for sigmoid, relu, expected, hint in PLANTED:
        try:
            came = np.asarray(answer.core(_planted(sigmoid, relu)))
        except KeyError as error:
            raise NotYet(
                f"The experiment has no setting {error}. See EXPERIMENTS."
            ) from None
        if came.shape != (8,) or came.dtype != bool:
            raise NotYet("The core must return True or False for each seed.")
        if not np.all(came == expected):
            raise NotYet(hint)
    if not answer.control:
        raise NotYet("What must be true in any case? Give a control.")
    guess = _planted((0.1, 0.0), (0.1, 0.0), others=0.9)
    if all(np.all(predicate(guess)) for predicate in answer.control.values()):
        raise NotYet(
            "Your control does not fail when none of the twenty layers learns: what would it tell?"
        )
    found = weigh(answer, stored("claims")["records"]["deep"])
    if answer.stated != found.verdict:
        raise NotYet(
            f'You state "{answer.stated}". From the records follows "{found.verdict}".'
        )
    return f"It came true in {found.rows[0][1]}: {found.verdict}. Ten points of gain, seed by seed."
