"""Run the checks."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from bnlib.conformance import _memory, _numbers, _values
from bnlib.conformance._adapter import Adapter, Setting
from bnlib.conformance._checks import Failed, Make, checks_of
from bnlib.reports import Report, Row

__all__ = ["Checked", "check_batch_norm", "names"]

CHECKS = checks_of(_values, _memory, _numbers)
PASSED, FAILED, MISSING = "passed", "failed", "not offered"


@dataclass(frozen=True)
class Checked(Row):
    """What became of one check.

    Attributes:
        level: "ok" if it passed, "info" if it only tells or was not offered; else how bad it is.
        check: its name.
        outcome: "passed", "failed" or "not offered".
        expected: what is right.
        got: what came.
        meaning: what a failure means for who uses the layer.
        link: the page of the book that explains it, without its ending.
    """

    check: str
    outcome: str
    expected: str
    got: str
    meaning: str
    link: str
    columns = ("level", "check", "outcome", "expected", "got")

    def __str__(self) -> str:
        """Write a failure in four lines."""
        return (
            f"{self.check} ({self.level})\n  expected: {self.expected}\n  got: {self.got}\n"
            f"  means: {self.meaning}\n  see: {self.link}"
        )


def names() -> tuple[str, ...]:
    """Name all checks.

    Returns:
        Their names, in the order in which they run.

    >>> names()[:3]
    ('transform', 'epsilon', 'gamma_and_beta')
    """
    return tuple(CHECKS)


def check_batch_norm(
    maker: Callable[[Setting], Adapter],
    *,
    only: Collection[str] | None = None,
    skip: Collection[str] = (),
    name: str | None = None,
) -> Report[Checked]:
    """Check that a batch norm is one: its values, gradients, memory, modes and hard numbers.

    Args:
        maker: takes a `Setting` and returns an `Adapter`; a subclass of `Adapter` is one. See
            `bnlib.conformance.adapters` for those that are ready.
        only: names of checks to run; default all of `names()`.
        skip: names of checks to leave out.
        name: what to call it in the title.

    Returns:
        A report with a row for each check.

    Raises:
        ValueError: for a name that there is not, and where nothing at all is offered.
        TypeError: when the maker gives something without `forward`.

    >>> from bnlib.conformance import adapters
    >>> report = check_batch_norm(adapters.NumPy)
    >>> report.at_least("warning")
    ()
    """
    chosen = _choose(only, skip)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        rows = tuple(_run(CHECKS[each], Make(_checked(maker))) for each in chosen)
    offered = [row for row in rows if row.outcome != MISSING]
    if not offered:
        raise ValueError(
            "maker must offer something that is checked; got NotImplementedError everywhere. "
            "Define forward(x, training), and take x of two axes, channels last, in float32."
        )
    failed = sum(row.outcome == FAILED for row in rows)
    note = (
        f"{len(offered) - failed} of {len(offered)} checks passed; "
        f"{len(rows) - len(offered)} not offered."
    )
    return Report(f"conformance of {name or _name_of(maker)}", rows, (note,))


def _choose(only, skip):
    """Return the names of the checks to run."""
    for argument, given in (("only", only), ("skip", skip)):
        if isinstance(given, str) or set(given or ()) - set(CHECKS):
            raise ValueError(
                f"{argument} must hold names of checks; got {given!r}. "
                "bnlib.conformance.names() lists them."
            )
    wanted = set(CHECKS if only is None else only) - set(skip)
    if not wanted:
        raise ValueError("only and skip must leave a check to run; got none.")
    return [name for name in CHECKS if name in wanted]


def _checked(maker):
    """Return the maker, with a look at what it makes."""

    def make(setting):
        try:
            layer = maker(setting)
        except (TypeError, ValueError) as error:
            if setting != Setting(setting.channels):
                raise
            raise _NoAdapter(
                "maker must take a Setting and return an Adapter; got "
                f"{type(error).__name__}: {str(error).splitlines()[0]} Subclass "
                "bnlib.conformance.Adapter, or use one of bnlib.conformance.adapters."
            ) from error
        if not callable(getattr(layer, "forward", None)):
            raise _NoAdapter(
                f"maker must return an Adapter; got {type(layer).__name__}. Subclass "
                "bnlib.conformance.Adapter, or use one of bnlib.conformance.adapters."
            )
        return layer

    return make


class _NoAdapter(TypeError):
    pass


def _run(check, make):
    """Run one check, and say what became of it."""
    level = "info" if check.level == "info" else "ok"
    try:
        outcome, got = PASSED, check.run(make)
    except NotImplementedError as missing:
        outcome, got, level = MISSING, str(missing), "info"
    except Failed as failed:
        outcome, got, level = FAILED, failed.got, failed.level or check.level
    except _NoAdapter:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        got = f"{type(error).__name__}: {lines[0][:200]}"
        outcome, level = FAILED, check.level
    if outcome == FAILED and level == "info":
        level = "warning"  # it is not what it says it is
    return Checked(
        level, check.name, outcome, check.expected, got, check.meaning, check.page
    )


def _name_of(maker):
    """Name a maker: a class, a function, or a partial of one."""
    maker = getattr(maker, "func", maker)
    return getattr(maker, "__name__", type(maker).__name__)
