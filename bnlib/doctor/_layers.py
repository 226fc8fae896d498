"""The batch norm layers of a model, wherever they are, and what a user would call them."""

from typing import NamedTuple

import keras
import numpy as np

from bnlib.keras._models import numbers


class Place(NamedTuple):
    """A layer, and the names on the way to it.

    Attributes:
        path: such as "encoder/block1/bn"; a shared layer has the first of its paths.
        layer: the layer.
    """

    path: str
    layer: keras.layers.Layer


def places(model):
    """Return all layers inside a model, at any depth, each once, in the order they are held."""
    found = {}
    _walk(model, (), found)
    return list(found.values())


def _walk(layer, way, found):
    for inner in layer._layers:
        if id(inner) in found or isinstance(inner, keras.layers.InputLayer):
            continue
        here = (*way, inner.name)
        found[id(inner)] = Place("/".join(here), inner)
        _walk(inner, here, found)


def batch_norms(model):
    """Return the batch norm layers of a model, Keras's and ours, as `Place`s.

    Raises:
        TypeError: when it is no Keras model.
        ValueError: when it has none, or is not built.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"model must be a keras.Model; got {type(model).__name__}. Load it first, with "
            "keras.models.load_model."
        )
    found = [p for p in places(model) if is_batch_norm(p.layer)]
    if is_batch_norm(model):
        found = [Place(model.name, model)]
    if not found:
        raise ValueError(f"model must have batch norm layers; {model.name!r} has none.")
    if not all(p.layer.built for p in found):
        raise ValueError(
            f"{model.name!r} must be built; it has no weights yet. Call it on a batch, or give it "
            "a keras.Input."
        )
    return found


def is_batch_norm(layer):
    """Whether a layer is Keras's batch norm layer, or one derived from it, such as ours."""
    return isinstance(layer, keras.layers.BatchNormalization)


def statistics(layer):
    """Return the moving mean and variance of a layer as float64."""
    return tuple(
        np.asarray(numbers(v), np.float64)
        for v in (layer.moving_mean, layer.moving_variance)
    )


def no_numbers(layer):
    """Return what a layer itself holds that is NaN or infinite, or a moving variance below 0.

    Args:
        layer: any layer; its weights are looked at, and the statistics of batch norm.

    Returns:
        A dict from the name of a variable to flags, which are true where it is no number.
    """
    held = [(v, False) for v in layer._trainable_variables]
    if is_batch_norm(layer):
        held += [(layer.moving_mean, False), (layer.moving_variance, True)]
    found = {}
    for variable, positive in held:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        values = numbers(variable)
        bad = ~np.isfinite(values)
        if positive:
            bad |= values < 0
        if bad.any():
            found[variable.name] = bad
    return found


def not_finite(model):
    """Return the paths of all variables that `no_numbers` finds in a model."""
    every = [Place(model.name, model), *places(model)]
    return [f"{path}/{name}" for path, each in every for name in no_numbers(each)]
