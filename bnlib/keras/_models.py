"""Whole Keras models: copy them part by part, exchange layers in them, and keep their state.

`twins` maps `id(old)` to the pair `(old, new)` for each layer that got a successor. It is the
thread through all of this: state, flags, the optimizer and the verification go along it.
"""

import contextlib
import tempfile
from collections.abc import Callable
from inspect import isfunction
from typing import Any, NamedTuple

import keras
import numpy as np

# what keras.Model(inputs, outputs) is; it has no public name
from keras.src.models.functional import Functional

Layer, InputLayer = keras.layers.Layer, keras.layers.InputLayer


class Exchange(NamedTuple):
    """Which layers go, and what comes in the place of one.

    Attributes:
        wanted: tells whether a layer is to be exchanged.
        make: makes the new layer from the old one.
        fill: gives the new layer its state, when it is built.
        dropped: tells whether a layer of a graph goes without a successor, and passes on what it
            gets. It must have one input.
    """

    wanted: Callable[[Any], bool]
    make: Callable[[Any], Any]
    fill: Callable[[Any, Any], None] = lambda old, new: carry_state(old, new)
    dropped: Callable[[Any], bool] = lambda layer: False


def is_graph(layer):
    """Whether the layers of this stand in a graph, which Keras can clone, and not in code."""
    return isinstance(layer, (keras.Sequential, Functional))


def holds(layer, exchange):
    """Whether a wanted layer is in this one, at any depth."""
    return any(map(exchange.wanted, layer._flatten_layers(include_self=False)))


# Copies


def clone(model, exchange, twins):
    """Copy a Sequential or Functional model, with new layers for those that are wanted.

    Args:
        model: the model, built; nested ones are copied too. It is not changed.
        exchange: the `Exchange`.
        twins: is added to.

    Returns:
        The copy: class, names, inputs, weights, other state and `trainable` flags are those of the
        model. It is not compiled.

    Raises:
        ValueError: when a layer, or the class of the model, cannot be copied.
    """
    known = set(twins)
    copy = _clone_graph(model, exchange, twins)
    fresh = [pair for key, pair in twins.items() if key not in known]
    for old, new in fresh:
        fill = exchange.fill if exchange.wanted(old) else carry_state
        fill(old, new)
        if not is_graph(old) and not exchange.wanted(old):
            _follow_inside(old, new, exchange, twins)
    # in this order: the flag of a model overwrites those of its layers
    for old in model._flatten_layers():
        if id(old) in twins:
            carry_flags(*twins[id(old)])
    return copy


def _clone_graph(model, exchange, twins):
    """Clone one graph, and those in it."""

    def copy(part):
        if not isinstance(part, Layer):  # an operation, such as a sum: it has no state
            return _copy_part(part, exchange)
        if exchange.dropped(part):
            return part
        if id(part) not in twins:
            if is_graph(part):
                return _clone_graph(part, exchange, twins)
            twins[id(part)] = part, _copy_part(part, exchange)
        return twins[id(part)][1]

    kind = type(model)
    if isinstance(model, keras.Sequential):
        new = _clone_sequential(model, copy, exchange)
        # it is a plain Sequential; a class without an __init__ adds nothing but code
        if kind.__init__ is keras.Sequential.__init__:
            new.__class__ = kind
    else:
        new = _clone_functional(model, copy, exchange)
    if type(new) is not kind:
        raise ValueError(
            f"{kind.__name__} has an __init__ of its own, so that a copy of {model.name!r} would "
            f"be a plain {type(new).__name__}, without what {kind.__name__} adds. Put the layers "
            "in its code, or take the plain model of the same layers: "
            "keras.Model(model.inputs, model.outputs)."
        )
    twins[id(model)] = model, new
    return new


def _clone_sequential(model, copy, exchange):
    """Clone a Sequential model; Keras's `clone_model` can leave no layer out of one."""
    start = [_input_like(v) for v in model._layers[:1] if isinstance(v, InputLayer)]
    parts = [copy(part) for part in model.layers if not exchange.dropped(part)]
    new = keras.Sequential([*start, *parts], name=model.name, trainable=model.trainable)
    if not new.built:
        new.build(model.get_build_config()["input_shape"])
    return new


def _clone_functional(model, copy, exchange):
    """Clone a Functional model by Keras's `clone_model`."""

    def through(layer, *args, **kwargs):
        if exchange.dropped(layer):
            return next(
                v for v in (*args, *kwargs.values()) if isinstance(v, keras.KerasTensor)
            )
        return layer(*args, **kwargs)

    compiled, model.compiled = model.compiled, False  # or Keras would compile the clone
    try:
        return keras.models.clone_model(
            model,
            input_tensors=_inputs_like(model),
            clone_function=copy,
            call_function=through,
        )
    finally:
        model.compiled = compiled


def _copy_part(part, exchange):
    if exchange.wanted(part):
        return exchange.make(part)
    # the configuration of this one holds its code, but not what the code refers to
    if type(part) is keras.layers.Lambda:
        return keras.layers.Lambda(
            part.function,
            output_shape=part._output_shape,
            mask=part.mask,
            arguments=part.arguments,
            name=part.name,
            dtype=part.dtype_policy,
        )
    try:
        return remake(part)
    except Exception as error:
        raise ValueError(
            f"{part.name!r} cannot be copied: {type(part).__name__} makes no layer from what its "
            "get_config returns. Give it a get_config with the arguments of its __init__."
        ) from error


def remake(part, **changes):
    """Make a layer anew from its configuration, with some of it changed."""
    inside = part._flatten_layers() if isinstance(part, Layer) else []
    known = {type(layer).__name__: type(layer) for layer in inside}
    known |= {f.__name__: f for f in vars(part).values() if isfunction(f)}
    # classes and functions that are at hand, and so need not be registered
    with keras.saving.custom_object_scope(known):
        return type(part).from_config(part.get_config() | changes)


def _input_like(layer):
    return keras.Input(
        batch_shape=layer.batch_shape,
        dtype=layer.dtype,
        sparse=layer.sparse,
        ragged=layer.ragged,
        name=layer.name,
        optional=layer.optional,
    )


def _inputs_like(model):
    """Return new inputs with the names and types of those of a Functional model."""

    def fresh(tensor):
        layer = tensor._keras_history.operation
        like = keras.KerasTensor(
            tensor.shape,
            tensor.dtype,
            sparse=tensor.sparse,
            ragged=tensor.ragged,
            name=tensor.name,
        )
        return keras.Input(tensor=like, name=layer.name, optional=layer.optional)

    return keras.tree.map_structure(fresh, model.input)


def _follow_inside(old, new, exchange, twins):
    """Pair and fill the layers inside two layers of one class, and put successors in the second.

    What its `__init__` makes need not be what the first holds by now: batch norm layers of either
    kind may have been put there since.
    """
    inside = [part._flatten_layers(include_self=False) for part in (old, new)]
    pairs = list(zip(*inside, strict=False))
    norm = keras.layers.BatchNormalization
    other_kind = [
        (one, other)
        for one, other in pairs
        if type(one) is not type(other)
        and not (isinstance(one, norm) and isinstance(other, norm))
    ]
    if len(inside[0]) != len(inside[1]) or other_kind:
        raise ValueError(
            f"{old.name!r} cannot be copied: {type(old).__name__} makes other layers from its "
            "get_config than it has. Give it a get_config with the arguments of its __init__."
        )
    successors = {}
    for one, other in pairs:
        if is_graph(one) and id(one) not in twins and holds(one, exchange):
            clone(one, exchange, twins)
        if id(one) not in twins:
            if exchange.wanted(one) or _unlike(one, other):
                twins[id(one)] = one, _successor(one, exchange)
            else:
                carry_state(one, other)
                twins[id(one)] = one, other
        successors[id(other)] = other, twins[id(one)][1]
    put_held(new, successors, [])


def _unlike(one, other):
    """Whether a layer is of another kind than what the code makes there, or set otherwise."""
    if type(one) is not type(other):
        return True
    norm = isinstance(one, keras.layers.BatchNormalization)
    return norm and one.get_config() != other.get_config()


# State


def carry_state(old, new):
    """Give a layer the state of another: its own variables, seeds, and assets such as words."""
    store = {}
    old.save_own_variables(store)
    new.load_own_variables({name: numbers(v) for name, v in store.items()})
    for one, other in zip(uncounted(old), uncounted(new), strict=True):
        other.assign(one)
    if hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


def uncounted(layer):
    """Return the variables of a layer that its weights leave out: seeds, and states of an RNN."""
    states = layer.states if isinstance(layer, keras.layers.RNN) else None
    states = [v for v in keras.tree.flatten(states) if isinstance(v, keras.Variable)]
    return [*(seed.state for seed in layer._seed_generators), *states]


def numbers(variable):
    """Return the value of a variable as an array; Keras's way warns with NumPy 2."""
    return variable.numpy() if hasattr(variable, "numpy") else np.asarray(variable)


def copies(variable):
    """Return the `tf.Variable`s that hold a variable: one for each replica of a strategy."""
    held = variable.value if isinstance(variable, keras.Variable) else variable
    return getattr(held, "values", (held,))


def carry_flags(old, new):
    """Give a layer the `trainable` flags of another, and its variables theirs."""
    new.trainable = old.trainable
    # a layer with batch norm folded in may have a bias more, at the end
    for one, other in zip(_own(old), _own(new), strict=False):
        other.trainable = one.trainable


def _own(layer):
    return layer._trainable_variables + layer._non_trainable_variables


def variables_of(twins):
    """Map `id(variable)` of the old layers to the variable that followed."""
    return {
        id(one): other
        for old, new in twins.values()
        for one, other in zip(_own(old), _own(new), strict=True)
    }


# In place


def replace_held(holder, exchange, twins, undo):
    """Put new layers where a layer or subclassed model, or one inside it, holds wanted ones.

    Of the Sequential and Functional models that it holds, those with wanted layers are replaced by
    copies, since their layers stand in a graph.

    Args:
        holder: the layer or model.
        exchange: the `Exchange`.
        twins: is added to.
        undo: gets functions that put everything back; call them in reversed order.

    Raises:
        ValueError: when a wanted layer is held where none can be put.
    """
    for layer in holder._flatten_layers(include_self=False):
        if is_graph(layer) and id(layer) not in twins and holds(layer, exchange):
            clone(layer, exchange, twins)
    for layer in holder._flatten_layers(include_self=False):
        if exchange.wanted(layer) and id(layer) not in twins:
            twins[id(layer)] = layer, _successor(layer, exchange)
    put_held(holder, twins, undo)


def put_held(holder, twins, undo):
    """Put successors where layers are held: in attributes, and in lists, dicts and tuples there."""
    gone = {id(old) for old, new in twins.values() if old is not new}
    for layer in _in_code(holder):
        for name, value in list(vars(layer).items()):
            if not name.startswith("_self_") and name not in TRACKED_BY_KERAS:
                _replace(value, _setter(layer, name), layer, twins, undo)
    left = [v.name for v in holder._flatten_layers() if id(v) in gone]
    if left:
        raise ValueError(
            f"{left} must be held in an attribute of a layer, or in a list, tuple or dict in one; "
            f"{holder.name!r} holds them otherwise. Put the layers in the code of the model."
        )


# attributes in which Keras lists what it tracks: these follow when the others are set
TRACKED_BY_KERAS = (
    "_layers",
    "_tracker",
    "_tracked",
    "_compiled_trainable_state",
    "_inbound_nodes",
)


def _in_code(holder):
    """Return a layer and those in it, as far as they are held by code and not by a graph."""
    found, waiting = [], [holder]
    while waiting:
        layer = waiting.pop()
        if not is_graph(layer) and all(layer is not other for other in found):
            found.append(layer)
            waiting += layer._layers
    return found


def _setter(layer, name):
    return lambda value: setattr(layer, name, value)


def _putter(container, key):
    return lambda value: container.__setitem__(key, value)


def _replace(value, put, holder, twins, undo):
    """Put the successor of `value` in its place, or of what it contains."""
    if isinstance(value, Layer):
        new = twins.get(id(value), (value, value))[1]
        if new is not value:
            _switch(holder, put, value, new)
            undo.append(lambda: _switch(holder, put, new, value))
    elif isinstance(value, tuple):
        items, mark = list(value), len(undo)
        for i, item in enumerate(value):
            _replace(item, _putter(items, i), holder, twins, undo)
        if any(one is not other for one, other in zip(items, value, strict=True)):
            named = hasattr(value, "_fields")
            put(value.__class__(*items) if named else value.__class__(items))
            # undone last, when Keras tracks the items again
            undo.insert(mark, lambda: put(value))
    elif isinstance(value, (list, dict)):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in list(keys):
            _replace(value[key], _putter(value, key), holder, twins, undo)


def _switch(holder, put, old, new):
    """Exchange two layers, also where Keras tracks them, so that weights keep their order."""
    tracker = holder._tracker
    if tracker.is_in_store("layers", old):
        tracker.replace_tracked_value("layers", old, new)
    put(new)


def _successor(layer, exchange):
    """Make what comes in the place of one layer: built under the same path, in the same state."""
    if not layer.built:
        return _copy_part(layer, exchange)
    with contextlib.ExitStack() as stack:
        for part in layer.weights[0].path.split("/")[:-2]:
            stack.enter_context(keras.name_scope(part))
        new = _copy_part(layer, exchange)
        new.build_from_config(layer.get_build_config())
    carry_state(layer, new)
    carry_flags(layer, new)
    return new


# Training


def carry_training(model, optimizer, twins, other):
    """Compile `other` as `model` is, with the state of the optimizer.

    Args:
        model: the model that was compiled.
        optimizer: its optimizer.
        twins: what followed what; a layer without an entry is its own successor.
        other: the copy, or the model itself.

    Raises:
        ValueError: when it cannot be done; `other` is then not compiled.
    """
    try:
        if type(model).compile is not keras.Model.compile:
            raise ValueError(f"{type(model).__name__} has a compile of its own")
        given = dict(model._compile_config.config)
        # metrics have state, so that the two models must not share them
        for name in ("metrics", "weighted_metrics"):
            given[name] = keras.tree.map_structure(_anew_if_metric, given[name])
        given["optimizer"] = _anew(given["optimizer"])
        scaled = keras.optimizers.LossScaleOptimizer
        other.compile(**given, auto_scale_loss=isinstance(optimizer, scaled))
        if optimizer.built:
            _carry_optimizer(optimizer, other.optimizer, variables_of(twins))
    except Exception as error:
        other.compiled = False
        raise ValueError(str(error)) from error


def _carry_optimizer(old, new, followed):
    trained = list(old._trainable_variables)
    successors = [followed.get(id(v), v) for v in trained]
    inner, its = (getattr(o, "inner_optimizer", o) for o in (old, new))
    pairs = zip(trained, successors, strict=True)
    spared = [v for one, v in pairs if not inner._use_weight_decay(one)]
    if spared:  # get_config does not say which these are
        its.exclude_from_weight_decay(spared)
    new.build(successors)
    for one, other in zip(old.variables, new.variables, strict=True):
        other.assign(one)


def _anew(thing):
    return type(thing).from_config(thing.get_config())


def _anew_if_metric(thing):
    return _anew(thing) if isinstance(thing, keras.Metric) else thing
