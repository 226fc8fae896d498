"""What a rule is, what it is given, and what it says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bnlib.doctor._graph import Call, calls_in
from bnlib.doctor._layers import Place, batch_norms, statistics
from bnlib.reports import Row

# rules that see nothing of a layer that code calls; these others do, as soon as there are data
AT_GRAPHS = "BN009", "BN016"
AT_GRAPHS_WITHOUT_DATA = "BN006", "BN008", "BN011"


class Fault(NamedTuple):
    """What a rule says about one layer.

    Attributes:
        layer: its path.
        message: a sentence with the evidence in numbers.
        evidence: the same numbers, by name.
        level: where it differs from the level of the rule.
    """

    layer: str
    message: str
    evidence: dict[str, Any]
    level: str | None = None


@dataclass(frozen=True)
class Rule(Row):
    """One fault that `audit` looks for.

    Attributes:
        level: how bad the fault is, usually.
        code: such as "BN001".
        title: the fault in a few words.
        cure: what to do about it.
        link: the page of the book about it, relative to its start.
        check: function of a `Case` that yields a `Fault` for each layer that has it, the worst
            first.
        needs_data: whether it looks at `Case.measured`.
    """

    columns: ClassVar[tuple[str, ...]] = ("code", "level", "needs_data", "title")
    code: str
    title: str
    cure: str
    link: str
    check: Callable[["Case"], Iterable[Fault]]
    needs_data: bool = False


@dataclass(frozen=True)
class Finding(Row):
    """A fault that was found: all layers of a model that have it, in one row.

    Attributes:
        level: how bad it is.
        code: of the rule.
        title: of the rule.
        layers: the paths of the layers, the worst first.
        message: what is wrong with the first of them, in numbers.
        evidence: the numbers, by layer and name.
        cure: what to do about it.
        link: the page of the book about it, relative to its start.
    """

    columns: ClassVar[tuple[str, ...]] = ("code", "level", "where", "message", "cure")
    code: str
    title: str
    layers: tuple[str, ...]
    message: str
    evidence: dict[str, dict[str, Any]]
    cure: str
    link: str

    @property
    def where(self) -> str:
        """The first of the layers, and how many more there are."""
        more = len(self.layers) - 1
        return self.layers[0] + (f" and {more} more" if more else "")


@dataclass
class Case:
    """What a rule is given: the model, and what is known about it.

    Attributes:
        model: the model.
        norms: its batch norm layers, each with `path` and `layer`.
        calls: the calls in its graphs; what stands in code is not among them.
        steps: how many steps its optimizer has made; None when it has none.
        measured: what the data showed; None without data.
        notes: sentences for the report; a rule may add some.
    """

    model: Any
    norms: list[Place]
    calls: list[Call]
    steps: int | None
    measured: Any = None
    notes: list[str] = field(default_factory=list)

    def calls_of(self, layer: Any) -> list[Call]:
        """Return the calls of one layer; none where code calls it.

        Args:
            layer: the layer.

        Returns:
            The calls, in their order.
        """
        return [call for call in self.calls if call.operation is layer]

    def at_start(self, layer: Any) -> bool:
        """Say whether the statistics of a batch norm layer are still its initial 0 and 1.

        Args:
            layer: the layer.

        Returns:
            True when all are.
        """
        mean, variance = statistics(layer)
        return bool((mean == 0).all() and (variance == 1).all())


def case_of(model):
    """Return the `Case` of a model, before anything is measured."""
    norms = batch_norms(model)
    optimizer = getattr(model, "optimizer", None)
    steps = None if optimizer is None else int(optimizer.iterations)
    return Case(model, norms, calls_in(model), steps)


def not_looked_at(case, rules):
    """Return a note, in a list, when rules could not look at layers that code calls."""
    called = {id(call.operation) for call in case.calls}
    hidden = [p.path for p in case.norms if id(p.layer) not in called]
    blind = AT_GRAPHS if case.measured else AT_GRAPHS + AT_GRAPHS_WITHOUT_DATA
    blind = sorted({rule.code for rule in rules} & set(blind))
    if not (hidden and blind):
        return []
    return [
        f"{len(hidden)} of {len(case.norms)} batch norm layers are called by code, such as "
        f"{hidden[0]!r}: rules that look at a graph ({', '.join(blind)}) could not look there."
    ]


def channels(flags):
    """Write how many channels are meant: "3 of 64 channels"."""
    flags = np.asarray(flags)
    return f"{int(flags.sum())} of {flags.size} channels"
