"""Two models that should do the same: run both, and name the first layer that differs."""

import contextlib
import functools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bnlib.keras._models import is_graph, numbers
from bnlib.keras._running import call, several_arguments, undisturbed, watched

# What rounding may do, as a share of a layer's largest output. On a CPU, with random statistics in
# ResNet50, MobileNetV2, DenseNet121 and EfficientNetB0, the worst layers were off by 1.4e-6 in
# float32, 0.028 in bfloat16 and 0.0023 in float16.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.2, "float16": 0.02}


class Call(NamedTuple):
    """What one call of a layer returned."""

    layer: Any
    outputs: list


class Run(NamedTuple):
    """A batch, and what each layer of a model made of it."""

    batch: Any
    calls: list


REMEDY = (
    "Pass a batch of your own, verify=<arrays as the model takes them>, or verify=False to go "
    "without."
)


def first_run(model, given, remedy=REMEDY):
    """Run a model on a small batch, and return the `Run`.

    Args:
        model: the model.
        given: a batch, or True to have one made from the inputs of the model.
        remedy: what an error tells the user to do.

    Raises:
        ValueError: when none can be made, or the model does not run on any.
    """
    if given is not True:
        given = keras.tree.map_structure(
            lambda v: tf.constant(v) if isinstance(v, np.ndarray) else v, given
        )
        return Run(given, calls_of(model, given))
    reason = ValueError("the outputs are empty")
    for batch in _batches(model, remedy):
        try:
            run = Run(batch, calls_of(model, batch))
        except Exception as error:  # too small an image, or no index
            reason = error
        else:
            if all(y.size for call in run.calls for y in call.outputs):
                return run
    detail = str(reason).strip().splitlines()
    raise ValueError(
        f"{model.name!r} does not run on a batch that is made up to verify the result"
        f" ({type(reason).__name__}: {detail[0] if detail else ''}). {remedy}"
    ) from reason


# Batches


def _batches(model, remedy):
    """Yield small batches, one more cautious than the other."""
    specs, layers = _inputs_of(model, remedy), model._flatten_layers()
    sizes = [
        getattr(layer, name)
        for layer in layers
        for name in ("input_dim", "num_tokens")
        if isinstance(getattr(layer, name, None), int)
    ]
    words = [w for v in layers for w in _words(v)] or ["a", "b c", ""]
    known = all(None not in spec.shape[1:] for spec in keras.tree.flatten(specs))
    # first large enough for most images: on one smaller than its kernel TensorFlow's depthwise
    # convolution returns what happens to be in memory (2.21, with oneDNN)
    for unknown in (8,) if known else (64, 160, 8):
        for indices in (False, True):
            most = min(sizes, default=2 if indices else 256)
            fill = functools.partial(
                _values, np.random.default_rng(0), unknown, most, indices, words
            )
            yield keras.tree.map_structure(fill, specs)


def _inputs_of(model, remedy):
    """Return the inputs of a model as a structure of `keras.KerasTensor`."""
    if is_graph(model):
        with contextlib.suppress(AttributeError):
            inputs = model.input
            for spec in keras.tree.flatten(inputs):
                if spec.shape is None or spec.sparse or spec.ragged:
                    raise ValueError(
                        f"no batch can be made for the input {spec.name!r}, which is sparse, "
                        f"ragged or of unknown rank. {remedy}"
                    )
            return inputs
    config = model.get_build_config() or {}
    names, shapes = several_arguments(model), config.get("shapes_dict", {})
    if names and all(f"{name}_shape" in shapes for name in names):
        return {name: _specs(shapes[f"{name}_shape"]) for name in names}
    if names:
        raise ValueError(
            f"no batch can be made for {model.name!r}, whose call takes several arguments: "
            f"{', '.join(names)}. Pass them as a dict, verify={{{names[0]!r}: <array>, ...}}, or "
            "verify=False to go without."
        )
    shape = config.get("input_shape")
    if shape is None:
        raise ValueError(
            f"no batch can be made for {model.name!r}: it does not say what shape its inputs have. "
            f"{remedy}"
        )
    return _specs(shape)


def _specs(shape):
    """Turn a structure of shapes into one of float inputs."""
    if isinstance(shape, dict):
        return {name: _specs(each) for name, each in shape.items()}
    if any(isinstance(size, (list, tuple, dict)) for size in shape):
        return type(shape)(_specs(each) for each in shape)
    return keras.KerasTensor(tuple(shape), "float32")


def _words(layer):
    if not hasattr(layer, "get_vocabulary"):
        return []
    return [str(w) for w in layer.get_vocabulary()[:20]]


def _values(rng, unknown, most, whole, words, spec):
    """Make one input: words, booleans, whole numbers below `most`, or normal ones."""
    first, *others = spec.shape
    shape = (2 if first is None else first, *(n or unknown for n in others))
    kind = keras.backend.standardize_dtype(spec.dtype)
    if kind == "string":
        return tf.constant(rng.choice(words, shape))
    if kind == "bool":
        most = 2
    elif kind == "int8":
        most = min(most, 127)
    whole = whole or kind == "bool" or "int" in kind
    values = rng.integers(0, most, shape) if whole else rng.normal(size=shape)
    return tf.cast(values, kind)


# Runs


def calls_of(model, batch):
    """Run a model in inference mode, and return what each layer in it returned, in this order."""
    calls = []

    def note(layer, outputs):
        calls.append(Call(layer, list(_arrays(outputs))))

    with undisturbed(model), watched(model._flatten_layers(), after=note):
        call(model, batch, training=False)
    return calls


def _arrays(outputs):
    for each in keras.tree.flatten(outputs):
        if isinstance(each, tf.Tensor) and not tf.is_symbolic_tensor(each):
            yield each.numpy()


# Comparison


class Difference(NamedTuple):
    """Which call differs, and how."""

    place: int
    layer: Any
    how: str


def difference(before, successor, batch, twins):
    """Run the successor of a model, and return its first `Difference`, or None.

    Args:
        before: the calls of the model.
        successor: the other model.
        batch: what both are called on.
        twins: what followed what; a layer without an entry is its own successor.
    """
    after = calls_of(successor, batch)
    allowed = max((tolerance(call.layer) for call in before), default=0)
    swapped = False
    for place, (layer, outputs) in enumerate(before):
        follows = twins.get(id(layer), (layer, layer))[1]
        if place >= len(after) or after[place].layer is not follows:
            return Difference(
                place, layer, "the layer that follows it is not called here."
            )
        if type(follows) is not type(layer):
            allowed += lost_digits(layer, outputs)
            swapped = True
        for one, other in zip(outputs, after[place].outputs, strict=True):
            how = unlike(one, other, allowed, exactly=not swapped)
            if how:
                return Difference(place, layer, how)
    if len(after) > len(before):
        return Difference(
            len(before), after[len(before)].layer, "it was not called before."
        )
    return None


def explain(found, model, run):
    """Say what differs, and why that may be; the model is as it was."""
    place, layer, how = found
    who = f"The first layer that differs is {layer.name!r} ({type(layer).__name__}): {how} "
    again = difference(run.calls, model, run.batch, {})
    if again and again.place <= place:
        return (
            f"the swap of {model.name!r} cannot be verified, since the model gives other outputs "
            f"each time. {who}It does so without a swap. Give it a seed, or pass verify=False."
        )
    return (
        f"the swap would change the outputs of {model.name!r}. {who}Perhaps it keeps state outside "
        "its weights and its get_config. Swap before it gets that state, or pass verify=False if "
        "you accept the difference."
    )


def tolerance(layer):
    """Return what rounding may do to the outputs of a layer, as a share of the largest."""
    return TOLERANCE.get(layer.compute_dtype, 1e-4)


def lost_digits(layer, outputs, unit=None):
    """Return what a mean far from 0 costs Keras's layer, which computes x * s - mean * s.

    Args:
        layer: the batch norm layer.
        outputs: its outputs.
        unit: the distance from 1 to the next number, where x is rounded; that of the type in which
            the layer computes when None.
    """
    mean, variance = (
        np.float64(numbers(v)) for v in (layer.moving_mean, layer.moving_variance)
    )
    scale = np.abs(mean) / np.sqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * np.abs(np.float64(numbers(layer.gamma)))
    largest = max(
        (np.abs(y.astype("float64")).max(initial=0) for y in outputs), default=0
    )
    if unit is None:
        unit = 2**-52 if layer.compute_dtype == "float64" else 2**-23
    lost = 80 * unit * scale.max() / max(largest, 1e-30)
    return lost if np.isfinite(lost) else 0


def unlike(one, other, allowed, exactly):
    """Say how two arrays differ, or return None."""
    if one.shape != other.shape:
        return f"its outputs have shape {other.shape} in place of {one.shape}."
    if one.dtype.kind in "OSUbiu":
        if exactly and not np.array_equal(one, other):
            return "its outputs, which are no floating numbers, differ."
        return None  # after a swap, rounding may decide which of two outputs is larger
    one, other = one.astype("float64"), other.astype("float64")
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return "its outputs are infinite or NaN in other places."
    largest = np.abs(one[finite]).max(initial=0)
    apart = np.abs(one[finite] - other[finite]).max(initial=0)
    if apart <= allowed * largest + 1e-30:
        return None
    return (
        f"its outputs differ by {apart:.3g}, where {allowed * largest:.2g} is allowed "
        f"(the largest is {largest:.3g})."
    )
