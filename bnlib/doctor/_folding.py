"""Fold batch norm: which layers can be, into which, and why the others cannot."""

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bnlib.doctor import _linear
from bnlib.doctor._graph import training_of
from bnlib.doctor._linear import axis_of, called
from bnlib.keras import BatchNormalization
from bnlib.keras._models import Exchange, Functional, clone, is_graph

NORMS = (keras.layers.BatchNormalization, BatchNormalization)

ELSEWHERE = (
    "it stands in no graph; code of another layer, such as TimeDistributed, holds it"
)


class Fold(NamedTuple):
    """A batch norm layer, and the layer that takes it in.

    Attributes:
        norm: the batch norm layer.
        into: the layer.
        forwards: whether batch norm comes first.
    """

    norm: Any
    into: Any
    forwards: bool


class Plan(NamedTuple):
    """What is to be done with the batch norm layers of a model.

    Attributes:
        folds: the `Fold`s, by `id(norm)`.
        reasons: why a layer is left, by `id(norm)`.
        weights: the new weights of the layers that take something in, by `id(layer)`.
    """

    folds: dict
    reasons: dict
    weights: dict

    def taken_in(self, layer):
        """Return the `Fold`s into a layer."""
        return [fold for fold in self.folds.values() if fold.into is layer]


class Result(NamedTuple):
    """A model that was folded, and how.

    Attributes:
        before: the model.
        model: the new one.
        plan: the `Plan`.
        twins: what followed what; see `bnlib.keras._models`.
    """

    before: Any
    model: Any
    plan: Plan
    twins: dict


def folded(model, norms):
    """Fold a Sequential or Functional model, and return the `Result`.

    Args:
        model: the model, built; it is not changed.
        norms: its batch norm layers.

    Raises:
        ValueError: when the model cannot be copied.
    """
    plan, twins = plan_of(model, norms), {}
    exchange = Exchange(
        wanted=lambda layer: id(layer) in plan.weights,
        make=lambda layer: _linear.with_bias(layer, plan.taken_in(layer)),
        fill=lambda old, new: _linear.fill(new, plan.weights[id(old)]),
        dropped=lambda layer: id(layer) in plan.folds,
    )
    return Result(model, clone(model, exchange, twins), plan, twins)


def plan_of(model, norms):
    """Return the `Plan` for a Sequential or Functional model.

    Args:
        model: the model, built.
        norms: its batch norm layers.
    """
    graphs = _graphs(model)
    uses, owners = _uses(graphs), _owners(model)
    plan = Plan({}, {}, {})
    for norm in norms:
        found = next((g for g in graphs.values() if norm in g.operations), None)
        fold = found.fold(norm, uses, owners) if found else ELSEWHERE
        if isinstance(fold, Fold):
            plan.folds[id(norm)] = fold
        else:
            plan.reasons[id(norm)] = fold
    for layer in {id(f.into): f.into for f in plan.folds.values()}.values():
        _compute(plan, layer)
    return plan


def _compute(plan, layer):
    """Find the new weights of a layer; where they do not fit its type, nothing is folded."""
    folds, weights = plan.taken_in(layer), _linear.weights_of(layer)
    for fold in folds:
        weights = _linear.take_in(layer, weights, fold.norm, forwards=fold.forwards)
    kind = layer.compute_dtype
    most = float(tf.as_dtype(kind).max)
    if all(np.abs(w).max(initial=0) <= most for w in weights.values()):
        plan.weights[id(layer)] = weights
        return
    for fold in folds:
        del plan.folds[id(fold.norm)]
        plan.reasons[id(fold.norm)] = (
            f"the folded weights of {called(layer)} would be too large for {kind}"
        )


# Graphs


class _Graph:
    """The nodes of one Sequential or Functional model, and who reads which tensor."""

    def __init__(self, model):
        self.model = model
        graph = model._functional if isinstance(model, keras.Sequential) else model
        nodes = [n for same in graph._nodes_by_depth.values() for n in same]
        self.nodes = [n for n in nodes if not n.is_input]
        self.operations = [n.operation for n in self.nodes]
        self.starts = {id(t) for t in graph.inputs}
        self.ends = {id(t) for t in graph.outputs}
        self.readers = defaultdict(list)
        for node in self.nodes:
            for tensor in node.input_tensors:
                self.readers[id(tensor)].append(node)
        self.training = False  # whether a call of it has training=True wired in

    def fold(self, norm, uses, owners):
        """Return the `Fold` of a batch norm layer in this graph, or say why there is none."""
        node = next(n for n in self.nodes if n.operation is norm)
        reason = _hindrance_of(norm, node, uses, self.training)
        if reason:
            return reason
        check = _Neighbour(norm, uses, owners)
        before = self._before(node, check)
        if isinstance(before, Fold):
            return before
        after = self._after(node, check)
        return after if isinstance(after, Fold) else f"{before}; {after}"

    def _before(self, node, check):
        x = node.input_tensors[0]
        if id(x) in self.starts:
            return f"nothing is before it in {self.model.name!r}"
        layer = x._keras_history.operation
        reason = check.hindrance(layer) or _linear.hindrance_before(
            layer, x.shape, axis_of(node.operation)
        )
        if reason is None and id(x) in self.ends:
            reason = f"is an end of {self.model.name!r}, too"
        if reason is None and len(self.readers[id(x)]) > 1:
            reason = "is read by others, too"
        if reason:
            return f"before it is {called(layer)}, which {reason}"
        return Fold(node.operation, layer, forwards=False)

    def _after(self, node, check):
        (y,) = node.outputs
        readers = self.readers[id(y)]
        if id(y) in self.ends:
            return f"after it {self.model.name!r} ends"
        if len(readers) != 1:
            return f"after it {len(readers)} layers read it"
        layer = readers[0].operation
        reason = check.hindrance(layer) or _linear.hindrance_after(
            layer, y.shape, axis_of(node.operation), readers[0].outputs[0].shape
        )
        if reason:
            return f"after it is {called(layer)}, which {reason}"
        return Fold(node.operation, layer, forwards=True)


def _hindrance_of(norm, node, uses, training):
    """Say what about a batch norm layer itself hinders, or return None."""
    if uses[id(norm)] > 1:
        return f"it is called {uses[id(norm)]} times"
    if type(norm) not in NORMS:
        return f"it is a {type(norm).__name__}, whose code may do anything"
    if training or _training(node):
        return "training=True is wired into its call: it normalises by the batch"
    x, *masks = node.input_tensors
    if "float" not in x.dtype:
        return f"it gets {x.dtype}, which it makes floating"
    if any(mask is not getattr(x, "_keras_mask", None) for mask in masks):
        return "a mask of its own is wired into its call"
    if axis_of(norm) is None:
        return f"it keeps several axes: {tuple(norm.axis)}"
    given = [v for v in _linear.vectors(norm) if v is not None]
    if not all(np.isfinite(v).all() for v in given) or given[1].min() < 0:
        return "its statistics or parameters are not finite, or a variance is negative"
    return None


class _Neighbour(NamedTuple):
    """What is asked of a layer beside batch norm, on whichever side."""

    norm: Any
    uses: Counter
    owners: Counter

    def hindrance(self, layer):
        """Say why a layer cannot take the batch norm in, or return None."""
        reason = _linear.hindrance(layer)
        if reason:
            return reason
        if self.uses[id(layer)] > 1:
            return f"is called {self.uses[id(layer)]} times"
        if any(self.owners[id(v)] > 1 for v in layer.variables):
            return "shares a weight with another layer"
        if layer.compute_dtype != self.norm.compute_dtype:
            return f"computes in {layer.compute_dtype}, and batch norm in {self.norm.compute_dtype}"
        return None


def _graphs(model):
    """Return the graphs in a model by id, itself first; not those that code holds."""
    found = {}

    def visit(part, training):
        known = found.get(id(part))
        if known and known.training >= training:
            return
        graph = found[id(part)] = known or _Graph(part)
        graph.training = training
        for node in graph.nodes:
            if has_plain_call(node.operation):
                visit(node.operation, training or _training(node))

    visit(model, False)
    return found


def has_plain_call(part):
    """Whether this is a Sequential or Functional model that does what its graph says."""
    plain = (keras.Sequential.call, Functional.call)
    graph = getattr(part, "_functional", part)  # a Sequential may have none
    return is_graph(part) and type(part).call in plain and graph is not None


def _training(node):
    """Whether training=True is wired into a call of batch norm, or of a model."""
    given = training_of(node)
    return given is not None and given is not False


def _uses(graphs):
    """Count, by id, the calls of each layer in all graphs; one that code holds counts as called."""
    uses = Counter()
    for graph in graphs.values():
        for part in graph.operations:
            uses[id(part)] += 1
            if isinstance(part, keras.layers.Layer) and id(part) not in graphs:
                inside = part._flatten_layers(include_self=False)
                uses.update(id(layer) for layer in inside)
    return uses


def _owners(model):
    """Count, by id, the layers that hold each variable."""
    return Counter(
        id(v)
        for layer in model._flatten_layers()
        for v in layer._trainable_variables + layer._non_trainable_variables
    )
