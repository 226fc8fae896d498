"""How a claim is weighed: a core prediction, circumstances, controls, and one rule."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.experiments import by_setting, sweep

__all__ = [
    "FAILS",
    "HOLDS",
    "PARTLY",
    "UNTOLD",
    "Claim",
    "Elsewhere",
    "Weighed",
    "verdict",
    "weigh",
]

HOLDS = "holds"
PARTLY = "holds under conditions"
FAILS = "fails"
UNTOLD = "cannot be told here"

# the share of the seeds that makes a prediction true; its rest makes it false
NEARLY_ALL = 7 / 8

Predicate = Callable[[Callable[[str, str], np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Claim:
    """What is said of batch norm, with a prediction that could refute it.

    A predicate is called as `predicate(of)`, where `of(measure, setting)` is an array with one
    entry for each seed, and returns a boolean for each seed.

    Attributes:
        key: a short name.
        gist: the claim in a sentence.
        who: says it, or denies it.
        section: of the chapter, by its label.
        predicts: the core prediction in words; the claim is refuted if it is false.
        experiment: the name of its experiment.
        core: the core prediction, which decides whether it holds or fails.
        stated: the verdict that the ledger states, which the records must bear out.
        conditions: a sentence that says when it holds, or what is true instead.
        circumstances: further predictions, by name; each that is not true is a condition.
        control: what must be true in any case, lest the experiment tell nothing.
    """

    key: str
    gist: str
    who: str
    section: str
    predicts: str
    experiment: str
    core: Predicate
    stated: str
    conditions: str
    circumstances: Mapping[str, Predicate] = field(default_factory=dict)
    control: Mapping[str, Predicate] = field(default_factory=dict)


@dataclass(frozen=True)
class Elsewhere:
    """What is said of batch norm, measured in another chapter, or derived: no verdict by the rule.

    Attributes:
        gist: the claim in a sentence.
        who: says it, or denies it.
        where: the place, as a link of the chapter's page with its text.
        found: what was found there, in a sentence.
    """

    gist: str
    who: str
    where: str
    found: str


@dataclass(frozen=True)
class Weighed:
    """What the records say of a claim.

    Attributes:
        claim: the claim.
        seeds: how many.
        core: the share of the seeds in which the core prediction came true.
        circumstances: the same for each circumstance.
        controls: for each control the share of the seeds in which it was as it must be.
    """

    claim: Claim
    seeds: int
    core: float
    circumstances: dict[str, float]
    controls: dict[str, float]

    @property
    def verdict(self) -> str:
        """The verdict that follows."""
        return verdict(self.core, self.circumstances.values(), self.controls.values())

    @property
    def rows(self) -> list[list[str]]:
        """All that was predicted, the core first, and in how many seeds it came true."""
        shares = {
            self.claim.predicts: self.core,
            **self.circumstances,
            **{f"*control:* {name}": share for name, share in self.controls.items()},
        }
        return [
            [what, f"{round(share * self.seeds)} of {self.seeds}"]
            for what, share in shares.items()
        ]

    @property
    def possible(self) -> set[str]:
        """The verdicts that more seeds could bring, where these disagree."""
        ends = [
            [share] if outcome(share) is not None else [0, 0.5, 1]
            for share in [
                self.core,
                *self.circumstances.values(),
                *self.controls.values(),
            ]
        ]
        cut = 1 + len(self.circumstances)
        return {
            verdict(each[0], each[1:cut], each[cut:])
            for each in itertools.product(*ends)
        }


def outcome(share: float) -> bool | None:
    """Return whether a prediction came true; None where the seeds disagree."""
    if share >= NEARLY_ALL:
        return True
    return False if share <= 1 - NEARLY_ALL else None


def verdict(
    core: float, circumstances: Iterable[float] = (), controls: Iterable[float] = ()
) -> str:
    """Make a verdict of the shares of seeds in which predictions, and controls, came true.

    A prediction came true if it did in seven seeds of eight, and false if it did in one at most.
    Where a control is not true, or the core prediction neither, the experiment cannot tell. Where
    the core is false the claim fails. Where it is true the claim holds, under conditions if a
    circumstance is not true.

    Args:
        core: of the core prediction.
        circumstances: one for each further prediction.
        controls: one for each control.

    Returns:
        One of the four verdicts.

    >>> verdict(1.0, [0.875]), verdict(1.0, [0.0]), verdict(0.0, [1.0])
    ('holds', 'holds under conditions', 'fails')
    >>> verdict(1.0, controls=[0.5])
    'cannot be told here'
    """
    decided = outcome(core)
    if decided is None or not all(outcome(share) for share in controls):
        return UNTOLD
    if not decided:
        return FAILS
    return HOLDS if all(outcome(share) for share in circumstances) else PARTLY


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

    def share(predicate):
        return float(np.mean(predicate(of)))

    circumstances, controls = (
        {name: share(predicate) for name, predicate in each.items()}
        for each in (claim.circumstances, claim.control)
    )
    seeds_run = {record["seed"] for record in records}
    return Weighed(claim, len(seeds_run), share(claim.core), circumstances, controls)
