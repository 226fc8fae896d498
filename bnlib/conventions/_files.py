"""Batch norm layers as flat names and arrays, such as a .npz holds them: read, and written.

A name is the layer's and then the framework's own; for nested values, the names on the way to it,
such as "block/bn/params/scale" for Flax. PyTorch's have dots in the place of slashes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bnlib.conventions._caffe import from_caffe, to_caffe
from bnlib.conventions._contrib import from_contrib, to_contrib
from bnlib.conventions._flax import from_flax, to_flax
from bnlib.conventions._keras import from_keras, to_keras
from bnlib.conventions._mxnet import from_mxnet, to_mxnet
from bnlib.conventions._params import BNParams
from bnlib.conventions._torch import from_torch, to_torch


class Format(NamedTuple):
    """How a framework's layer is written as names and arrays."""

    read: Callable[..., BNParams]
    write: Callable[..., dict[str, Any]]
    names: tuple[str, ...]  # with which the framework's own part of a name begins
    marker: str  # one of these that every batch norm layer has, and no other layer
    separator: str = "/"


STATISTICS = "gamma", "beta", "moving_mean", "moving_variance"


def _from_keras(values):
    """Read Keras's variables by name; `from_keras` wants them as `get_weights` has them."""
    values = dict(values)
    weights = [values.pop(name) for name in STATISTICS if name in values]
    flags = {"scale": "gamma" in values, "center": "beta" in values}
    return from_keras(flags | values | {"weights": weights})


def _to_keras(params, *, lose=()):
    values = to_keras(params, lose=lose)
    names = [n for n in STATISTICS if getattr(params, n) is not None]
    return dict(zip(names, values.pop("weights"), strict=True)) | values


FORMATS = {
    "caffe": Format(
        from_caffe,
        to_caffe,
        ("BatchNorm", "Scale", "eps", "moving_average_fraction"),
        "BatchNorm",
    ),
    "contrib": Format(
        from_contrib,
        to_contrib,
        (*STATISTICS, "decay", "epsilon", "data_format", "fused"),
        "moving_mean",
    ),
    "flax": Format(
        from_flax,
        to_flax,
        ("params", "batch_stats", "epsilon", "momentum", "axis"),
        "batch_stats",
    ),
    "keras": Format(
        _from_keras,
        _to_keras,
        (*STATISTICS, "axis", "momentum", "epsilon", "center", "scale"),
        "moving_mean",
    ),
    "mxnet": Format(
        from_mxnet,
        to_mxnet,
        ("gamma", "beta", "moving_mean", "moving_var", "eps", "momentum", "fix_gamma"),
        "moving_mean",
    ),
    "torch": Format(
        from_torch,
        to_torch,
        (
            *("weight", "bias", "running_mean", "running_var"),
            *("num_batches_tracked", "eps", "momentum"),
        ),
        "running_mean",
        ".",
    ),
}


def read(arrays, framework, settings):
    """Read all batch norm layers.

    Args:
        arrays: the arrays, by name.
        framework: one of `FORMATS`.
        settings: what the arrays lack, such as `eps`; for each layer that has not its own.

    Returns:
        `BNParams` by the name of the layer, "" where there is one without a name.

    Raises:
        ValueError: when the framework is unknown, when there is no such layer, or when a layer is
            not what the framework would hold.
    """
    form = _format(framework)
    layers: dict[str, dict] = {}
    for name, value in arrays.items():
        parts = name.removesuffix(":0").split(form.separator)
        own = next((i for i, part in enumerate(parts) if part in form.names), None)
        if own is not None:
            layer = form.separator.join(parts[:own])
            _put(layers.setdefault(layer, {}), parts[own:], value)
    layers = {n: v for n, v in layers.items() if form.marker in v}
    if not layers:
        raise ValueError(
            f"the file must hold batch norm layers of {framework}, whose names end in "
            f"{form.marker} and the like; got {', '.join(list(arrays)[:6]) or 'nothing'}."
        )
    found = {}
    for name, values in layers.items():
        try:
            found[name] = form.read(settings | _lists(values))
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from error
    return found


def write(layers, framework, lose=()):
    """Write layers as names and arrays; what is None is left out.

    Args:
        layers: `BNParams` by name.
        framework: one of `FORMATS`.
        lose: what may be lost, as in the framework's `to_` function.

    Returns:
        A flat dict.

    Raises:
        ValueError: when the framework is unknown, or cannot hold a setting.
    """
    form, flat = _format(framework), {}
    for layer, params in layers.items():
        way = layer.replace("." if form.separator == "/" else "/", form.separator)
        try:
            values = form.write(params, lose=lose)
        except ValueError as error:
            raise ValueError(f"layer {layer!r}: {error}") from error
        _flatten(values, [way] if way else [], form.separator, flat)
    return flat


def _format(framework):
    if framework not in FORMATS:
        raise ValueError(
            f"the framework must be one of {', '.join(FORMATS)}; got {framework!r}."
        )
    return FORMATS[framework]


def _put(tree, way, value):
    *outer, last = way
    for name in outer:
        tree = tree.setdefault(name, {})
    tree[last] = value.item() if value.ndim == 0 else value


def _lists(tree):
    """Turn dicts by number into lists."""
    if not isinstance(tree, dict):
        return tree
    if tree and all(name.isdigit() for name in tree):
        return [_lists(tree[name]) for name in sorted(tree, key=int)]
    return {name: _lists(value) for name, value in tree.items()}


def _flatten(tree, way, separator, flat):
    if isinstance(tree, (list, tuple)):
        tree = {str(place): value for place, value in enumerate(tree)}
    if isinstance(tree, dict):
        for name, value in tree.items():
            _flatten(value, [*way, name], separator, flat)
    elif tree is not None:
        flat[separator.join(way)] = np.asarray(tree)
