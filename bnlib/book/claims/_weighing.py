"""How a claim is weighed: predictions, a control, and one rule that makes a verdict of them."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.experiments import by_setting, sweep

__all__ = ["FAILS", "HOLDS", "PARTLY", "UNTOLD", "Claim", "Weighed", "verdict", "weigh"]

HOLDS = "holds"
PARTLY = "holds under conditions"
FAILS = "fails"
UNTOLD = "cannot be told here"

# the share of the seeds that makes a prediction true; its rest makes it false
NEARLY_ALL = 7 / 8

Predicate = Callable[[Callable[[str, str], np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Claim:
    """What is said of batch norm, with what would refute it.

    A predicate is called as `predicate(of)`, where `of(measure, setting)` is an array with one
    entry for each seed, and returns a boolean for each seed.

    Attributes:
        key: a short name.
        gist: the claim in a sentence.
        who: says it, or denies it.
        section: of the chapter, by its label.
        refuted_if: the outcome that would refute it, in words.
        experiment: the name of its experiment.
        predicts: what the claim predicts, by circumstance.
        stated: the verdict that the ledger states, which the records must bear out.
        conditions: a sentence that says when it holds, or what is true instead.
        control: what must be true in any case, lest the experiment tell nothing.
    """

    key: str
    gist: str
    who: str
    section: str
    refuted_if: str
    experiment: str
    predicts: Mapping[str, Predicate]
    stated: str
    conditions: str
    control: Mapping[str, Predicate] = field(default_factory=dict)


@dataclass(frozen=True)
class Weighed:
    """What the records say of a claim.

    Attributes:
        claim: the claim.
        seeds: how many.
        controls: for each control the share of the seeds in which it was as it must be.
        shares: for each circumstance the share of the seeds in which the prediction came true.
    """

    claim: Claim
    seeds: int
    controls: dict[str, float]
    shares: dict[str, float]

    @property
    def verdict(self) -> str:
        """The verdict that follows."""
        return verdict(self.shares.values(), self.controls.values())

    @property
    def rows(self) -> list[list[str]]:
        """What was predicted, and in how many seeds it came true."""
        return [
            [what, f"{round(share * self.seeds)} of {self.seeds}"]
            for what, share in self.shares.items()
        ]

    @property
    def possible(self) -> set[str]:
        """The verdicts that more seeds could bring, where these disagree."""
        ends = [
            [share] if outcome(share) is not None else [0, 0.5, 1]
            for share in [*self.shares.values(), *self.controls.values()]
        ]
        cut = len(self.shares)
        return {verdict(each[:cut], each[cut:]) for each in itertools.product(*ends)}


def outcome(share: float) -> bool | None:
    """Return whether a prediction came true; None where the seeds disagree."""
    if share >= NEARLY_ALL:
        return True
    return False if share <= 1 - NEARLY_ALL else None


def verdict(shares: Iterable[float], controls: Iterable[float] = ()) -> str:
    """Make a verdict of the shares of seeds in which predictions, and controls, came true.

    A prediction came true if it did in seven seeds of eight, and false if it did in one at most.
    All true: the claim holds. All false: it fails. Some true: it holds under conditions. In any
    other case, or when a control is not true, the experiment cannot tell.

    Args:
        shares: one for each prediction.
        controls: one for each control.

    Returns:
        One of the four verdicts.

    >>> verdict([1.0, 0.875]), verdict([1.0, 0.0]), verdict([0.0, 0.5])
    ('holds', 'holds under conditions', 'cannot be told here')
    >>> verdict([1.0], controls=[0.5])
    'cannot be told here'
    """
    outcomes = [outcome(share) for share in shares]
    if not all(outcome(share) for share in controls):
        return UNTOLD
    if all(outcomes):
        return HOLDS
    if all(each is False for each in outcomes):
        return FAILS
    return PARTLY if any(outcomes) else UNTOLD


def weigh(
    claim: Claim,
    records: Sequence[Mapping[str, Any]] | None = None,
    *,
    seeds: Iterable[int] = (0, 1),
) -> Weighed:
    """Ask the records of an experiment what a claim's predictions are worth.

    Args:
        claim: one of `LEDGER`, or your own.
        records: of its experiment, as `sweep` returns them; None runs it.
        seeds: to run it with.

    Returns:
        The `Weighed`, with the verdict that follows.
    """
    if records is None:
        experiment = EXPERIMENTS[claim.experiment]
        records = sweep(experiment.run, experiment.settings, seeds)

    def of(measure, setting):
        return by_setting(records, measure)[setting]

    controls, shares = (
        {name: float(np.mean(predicate(of))) for name, predicate in each.items()}
        for each in (claim.control, claim.predicts)
    )
    seeds_run = {record["seed"] for record in records}
    return Weighed(claim, len(seeds_run), controls, shares)
