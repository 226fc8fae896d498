"""Run a whole Keras model once, see what goes in and out of its layers, and leave no trace."""

import contextlib
import functools
import inspect

import tensorflow as tf

from bnlib.keras._models import copies, is_graph, uncounted


def call(model, batch, *, training):
    """Call a model on a batch: arrays as it takes them; a dict by name, if it takes several."""
    mode = {"training": training} if model._call_has_training_arg else {}
    if several_arguments(model) and isinstance(batch, dict):
        return model(**batch, **mode)
    return model(batch, **mode)


def several_arguments(model):
    """Return the names of the arguments that the code of a model takes, if it takes several."""
    if is_graph(model):
        return []
    named = [
        name
        for name, each in inspect.signature(model.call).parameters.items()
        if each.default is each.empty
        and each.kind is each.POSITIONAL_OR_KEYWORD
        and name not in ("training", "mask")
    ]
    return named if len(named) > 1 else []


@contextlib.contextmanager
def watched(layers, *, before=None, after=None):
    """See each call of some layers, whoever calls them, while models run eagerly.

    A function that was traced before would not let itself be watched.

    Args:
        layers: the layers.
        before: called with (layer, *args, **kwargs), as the layer's `call` is.
        after: called with (layer, outputs).
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_eagerly())
        for layer in layers:
            stack.enter_context(_watched(layer, before, after))
        yield


@contextlib.contextmanager
def in_training(layers):
    """Let these layers, and no others, run as in training, while models run in inference mode."""

    def started(inner, inputs, *args, **kwargs):
        if args:  # training comes second
            return inner(inputs, True, *args[1:], **kwargs)
        return inner(inputs, **kwargs | {"training": True})

    with contextlib.ExitStack() as stack:
        stack.enter_context(_eagerly())
        for layer in layers:
            stack.enter_context(_replaced(layer, started))
        yield


def _watched(layer, before, after):
    def seen(inner, *args, **kwargs):
        if before:
            before(layer, *args, **kwargs)
        outputs = inner(*args, **kwargs)
        if after:
            after(layer, outputs)
        return outputs

    return _replaced(layer, seen)


@contextlib.contextmanager
def _replaced(layer, call):
    """Have `call(inner, *args, **kwargs)` in the place of a layer's `call`, which is `inner`."""
    own, inner = vars(layer).get("call"), layer.call
    vars(layer)["call"] = functools.wraps(inner)(functools.partial(call, inner))
    try:
        yield
    finally:
        del vars(layer)["call"]
        if own is not None:
            vars(layer)["call"] = own


@contextlib.contextmanager
def _eagerly():
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextlib.contextmanager
def undisturbed(model):
    """Put back what a call changes: moving statistics, random states, counters, metrics."""
    layers = model._flatten_layers()
    restore = remembered(
        variable
        for layer in layers
        for variable in (
            *layer._non_trainable_variables,
            *uncounted(layer),
            *(v for metric in layer._metrics for v in metric.variables),
        )
    )
    try:
        yield
    finally:
        restore()


def remembered(variables):
    """Return a function that puts back what variables hold now, on each replica its own value."""
    kept = [(copy, copy.numpy()) for v in variables for copy in copies(v)]

    def restore():
        for copy, value in kept:
            copy.assign(value)

    return restore
