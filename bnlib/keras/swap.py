"""Put our batch norm layers into a whole Keras model, take them out again, or synchronise them."""

import random
import warnings
from typing import Any

import keras
import tensorflow as tf

from bnlib.keras import _models, _verify
from bnlib.keras.layer import BatchNormalization
from bnlib.keras.renorm import has_schedule

__all__ = ["swap_in", "swap_out", "synchronize"]

OURS_ALONE = {
    "fused": None,
    "virtual_batch_size": None,
    "adjustment": None,
    "zero_debias": False,
    "bessel": False,
}


def swap_in(model: Any, *, in_place: bool = False, verify: bool = True) -> Any:
    """Put our batch norm layers in the place of Keras's, in a whole model.

    There are two ways, since Keras knows two kinds of models. In a Sequential or Functional model
    the layers stand in a graph: such a model is copied, with other layers in these places, and
    stays as it was. In a subclassed model the layers are held by its code, which cannot be copied:
    with `in_place=True` the model itself is changed. Wherever a layer holds a batch norm layer, in
    an attribute or in a list, tuple or dict, at any depth, it then holds ours. Layers that hold
    others, such as `TimeDistributed` or a block of your own, may be parts of either kind.

    Weights, `trainable` flags, names, vocabularies, adapted statistics and random seeds come along.
    If the model is compiled, so is the result, and its optimizer goes on where it was. Losses and
    metrics are those of the model; the running values of the metrics start anew.

    What is loaded from a file is made by code: a block whose `__init__` makes Keras's layers makes
    them again there, with the right weights. Swap again after loading, or change that code.

    Args:
        model: a `keras.Model`, built.
        in_place: whether to change the model itself. Functional and Sequential models inside it
            that have batch norm are replaced by copies. Functions that were traced from the model
            before, such as your own `tf.function`, go on with the old layers.
        verify: True runs both models on a small random batch, in inference mode, and compares the
            outputs of each layer. Arrays, as the model takes them, are a batch to do this with; a
            dict by name, if its `call` takes several. False leaves it out.

    Returns:
        The copy; with `in_place`, the model.

    Raises:
        ValueError: when the model cannot be copied, or not changed in place; when an output
            differs: the error names the first layer that does, and a model that was to be changed
            in place is as it was; when no batch can be made up to verify with.

    Warns:
        UserWarning: when the result cannot be compiled as the model is; it is then not compiled.

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    >>> type(swap_in(model).layers[0]).__module__
    'bnlib.keras.layer'
    """
    return _swap(model, _models.Exchange(_is_keras, _ours), in_place, verify)


def swap_out(model: Any, *, in_place: bool = False, verify: bool = True) -> Any:
    """Put Keras's batch norm layers in the place of ours, in a whole model.

    What `swap_in` says holds here as well. The result needs Keras alone: a file that it is saved to
    opens where `bnlib` is not installed.

    Args:
        model: as in `swap_in`.
        in_place: as in `swap_in`.
        verify: as in `swap_in`.

    Returns:
        The copy; with `in_place`, the model. Inference is the same.

    Raises:
        ValueError: as `swap_in`; and when a layer uses what Keras's has not, such as `zero_debias`
            or a list of axes.

    Warns:
        UserWarning: as `swap_in`.

    >>> model = keras.Sequential([keras.Input((3,)), BatchNormalization()])
    >>> type(swap_out(model).layers[0]) is keras.layers.BatchNormalization
    True
    """
    return _swap(model, _models.Exchange(_is_ours, _theirs), in_place, verify)


def synchronize(model: Any, *, in_place: bool = False, verify: bool = True) -> Any:
    """Make all replicas of a `tf.distribute` strategy one batch, in a whole model.

    In the place of each batch norm layer, Keras's or ours, comes ours with `synchronized=True`. As
    PyTorch's `convert_sync_batchnorm` does for a model there. What `swap_in` says holds here as
    well: weights, flags, names and the optimizer come along.

    A model that will train under a strategy has its variables there. A Sequential or Functional
    model may come from anywhere, if this is called inside `strategy.scope()`: the copy is made for
    the replicas. A subclassed model must be made, or loaded, inside that scope itself.

    Args:
        model: as in `swap_in`. Its layers may be synchronised already; these stay as they are.
        in_place: as in `swap_in`.
        verify: as in `swap_in`.

    Returns:
        The copy; with `in_place`, the model. Inference is the same.

    Raises:
        ValueError: as `swap_in`; when a layer has a `virtual_batch_size`, which makes batches
            smaller than the replica's; when a model that is changed in place has variables outside
            the scope in which this is called.

    Warns:
        UserWarning: as `swap_in`.

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    >>> synchronize(model).layers[0].synchronized
    True
    """
    return _swap(model, _models.Exchange(_is_alone, _together), in_place, verify)


def _is_keras(layer):
    return type(layer) is keras.layers.BatchNormalization


def _is_ours(layer):
    return isinstance(layer, BatchNormalization)


def _ours(layer):
    return BatchNormalization.from_config(layer.get_config())


def _is_alone(layer):
    """Whether a layer is one of batch norm that normalises by its own replica, or may do so."""
    if _is_ours(layer):
        return not layer.synchronized
    return _is_keras(layer)  # synchronised or not: with a mask it is not


def _together(layer):
    if getattr(layer, "virtual_batch_size", None):
        raise ValueError(
            f"layer {layer.name!r} normalises groups of {layer.virtual_batch_size} examples "
            "(virtual_batch_size), and cannot be synchronised as well. Make it without that first."
        )
    kind = type(layer) if _is_ours(layer) else BatchNormalization
    return kind.from_config(layer.get_config() | {"synchronized": True})


def _theirs(layer):
    config = layer.get_config()
    if not config["renorm"]:
        config["renorm_clipping"] = None
    only = [n for n, usual in OURS_ALONE.items() if config.pop(n) != usual]
    only += [n for n in ("axis", "momentum") if not isinstance(config[n], (int, float))]
    if only or (layer.renorm and has_schedule(layer.renorm_clipping)):
        raise ValueError(
            f"keras.layers.BatchNormalization has no equivalent for {only or 'a schedule'} of "
            f"layer {layer.name!r}. Set it to its default first."
        )
    return keras.layers.BatchNormalization.from_config(config)


def _swap(model, exchange, in_place, verify):
    """Swap, verify, and only then let training go on in the result.

    Layers that are made draw seeds, though they get those of the old ones: what is drawn after the
    swap is what would have been drawn without it.
    """
    seeds = random.getstate()
    try:
        return _swapped(model, exchange, in_place, verify)
    finally:
        random.setstate(seeds)


def _swapped(model, exchange, in_place, verify):
    _check(model, in_place)
    given = None if verify is False else _verify.first_run(model, verify)
    optimizer = getattr(model, "optimizer", None)
    compiled, twins, undo = getattr(model, "compiled", False), {}, []
    try:
        if in_place:
            _models.replace_held(model, exchange, twins, undo)
        other = model if in_place else _models.clone(model, exchange, twins)
        found = given and _verify.difference(given.calls, other, given.batch, twins)
    except BaseException:
        _take_back(undo)
        raise
    if found:
        _take_back(undo)
        raise ValueError(_verify.explain(found, model, given))
    _forget_traces(other)
    if compiled:
        try:
            _models.carry_training(model, optimizer, twins, other)
        except ValueError as error:
            warnings.warn(
                f"{other.name!r} is not compiled: {error}. Compile it before fit; its optimizer "
                "starts anew.",
                stacklevel=4,
            )
    return other


def _take_back(undo):
    for step in reversed(undo):
        step()


def _check(model, in_place):
    """Refuse what cannot be swapped this way, and say which way there is."""
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"model must be a keras.Model; got {type(model).__name__}. Load it first, with "
            "keras.models.load_model."
        )
    if isinstance(model, keras.layers.BatchNormalization):
        raise ValueError(
            f"model must hold batch norm layers; {model.name!r} is one. Make the other kind from "
            "its get_config(), build it, and give it the weights."
        )
    graph = _models.is_graph(model)
    if graph and in_place:
        raise ValueError(
            f"in_place must be False for {model.name!r}, a Sequential or Functional model: its "
            "layers stand in a graph, where none can be exchanged. Use the copy that you get."
        )
    if not graph and not in_place:
        raise ValueError(
            f"{model.name!r} cannot be copied part by part, since its layers are held by the code "
            f"of {type(model).__name__}. Pass in_place=True to change the model itself."
        )
    strategy = tf.distribute.get_strategy()
    inside = strategy.extended.variable_created_in_scope
    if in_place and not all(inside(variable.value) for variable in model.variables):
        raise ValueError(
            f"{model.name!r} must be made inside the scope of the strategy in which it is changed; "
            "it was not. Make or load it below `with strategy.scope():`."
        )
    if not model.built:
        raise ValueError(
            f"{model.name!r} must be built; it has no weights yet. Call it on a batch, or give it "
            "a keras.Input."
        )


def _forget_traces(model):
    """Let Keras trace anew what it traced with the layers that are gone."""
    for each in model._flatten_layers():
        if isinstance(each, keras.Model):
            each.train_function = each.test_function = each.predict_function = None
