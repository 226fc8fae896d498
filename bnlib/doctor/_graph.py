"""Who calls whom in a model: the calls in its graphs, flat, whatever is nested in what."""

import inspect
from dataclasses import dataclass, field
from typing import Any

import keras

from bnlib.keras._models import is_graph

OUTSIDE = "outside"  # the user of what a graph returns


@dataclass(eq=False)
class Call:
    """One call of a layer or operation in a graph.

    Attributes:
        path: the names on the way to it, such as "encoder/block1/bn".
        operation: the layer; an input is one too.
        sources: the calls whose outputs it takes, in the order of its arguments.
        uses: the calls that take its outputs; `OUTSIDE` where the graph returns them.
        shape: of its first input; None when it has none.
        training: the mode that is wired into the call, or into that of a model around it; None
            where it is left to the caller.
    """

    path: str
    operation: Any
    sources: list["Call"]
    shape: tuple[int | None, ...] | None = None
    training: bool | None = None
    uses: list[Any] = field(default_factory=list)


def calls_in(model):
    """Return the calls in the graphs of a model, in order; what code does is not in them.

    Nested models are walked as often as they are called. A model or layer that is code has no
    graph, but may hold models that have one.
    """
    calls, seen = [], set()
    _search(model, (), calls, seen)
    return calls


def _search(layer, way, calls, seen):
    """Add the calls of a graph, or of those that a layer made of code holds."""
    if id(layer) in seen:
        return
    seen.add(id(layer))
    graph = _graph_of(layer)
    if graph is None:
        for inner in layer._layers:
            _search(inner, (*way, inner.name), calls, seen)
        return
    inputs = [Call("/".join((*way, t.name)), t, []) for t in graph.inputs]
    found = []
    for call in _flat(graph, way, inputs, None, found, seen):
        call.uses.append(OUTSIDE)
    calls += found
    for call in found:
        if isinstance(call.operation, keras.layers.Layer):
            _search(call.operation, tuple(call.path.split("/")), calls, seen)


def _graph_of(layer):
    """Return what holds the nodes of a model; None for code, and for a graph not yet built."""
    graph = getattr(layer, "_functional", layer) if is_graph(layer) else None
    return graph if hasattr(graph, "_nodes_by_depth") else None


def _flat(graph, way, inputs, training, calls, seen):
    """Add the calls of one graph, and return the calls that make its outputs."""
    seen.add(id(graph))
    made = {id(t): call for t, call in zip(graph.inputs, inputs, strict=True)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if node.is_input:
                continue
            here = (*way, node.operation.name)
            sources = [made[id(t)] for t in node.input_tensors]
            wired = training_of(node) if training is None else training
            inner = _graph_of(node.operation)
            if inner is not None and len(inner.inputs) == len(sources):
                seen.add(id(node.operation))
                ends = _flat(inner, here, sources, wired, calls, seen)
            else:
                shape = tuple(node.input_tensors[0].shape) if sources else None
                call = Call("/".join(here), node.operation, sources, shape, wired)
                for source in sources:
                    source.uses.append(call)
                calls.append(call)
                ends = [call] * len(node.outputs)
            made |= {id(t): end for t, end in zip(node.outputs, ends, strict=True)}
    return [made[id(t)] for t in graph.outputs]


def training_of(node):
    """Return the `training` that stands in a call, or None."""
    if not getattr(node.operation, "_call_has_training_arg", False):
        return None
    given = node.arguments
    bound = inspect.signature(node.operation.call).bind_partial(
        *given.args, **given.kwargs
    )
    return bound.arguments.get("training")


def before(call, stop):
    """Return the calls upstream of one, near ones first; beyond those that `stop` it is not looked.

    Args:
        call: where to begin; it is not returned.
        stop: function of a call.
    """
    found, waiting = [], list(call.sources)
    while waiting:
        source = waiting.pop(0)
        if source not in found:
            found.append(source)
            waiting += [] if stop(source) else source.sources
    return found
