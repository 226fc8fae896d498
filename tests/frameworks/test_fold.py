"""`fold`: every kind of layer against the model itself, what is left, evidence, files."""

import os
import re

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


import keras
import numpy as np
import pytest
import tensorflow as tf
from building import run_without_bnlib
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import friendly

from bnlib.doctor import fold
from bnlib.keras import BatchNormalization

layers = keras.layers
Norm = layers.BatchNormalization
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__:DeprecationWarning"  # Keras with NumPy 2, when it saves or copies
)


@pytest.fixture(autouse=True)
def double():
    """In float64 a fold is exact to a few units in the last place."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def disturb(model, seed=0):
    """Give every weight of batch norm, and every bias, values that are not the initial ones."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, Norm):
            for v in layer.weights:
                if v.name != "updates":
                    v.assign(rng.uniform(0.5, 2, v.shape))
            layer.moving_mean.assign(rng.normal(size=layer.moving_mean.shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def norms_of(model):
    return [v for v in model._flatten_layers() if isinstance(v, Norm)]


def assert_folded(model, x, left=0, rtol=1e-10, **given):
    """Fold a model whose outputs vary, and compare the outputs."""
    before = [v.numpy() for v in model.variables]
    expected = keras.tree.flatten(model(x, training=False))
    assert all(np.ptp(np.float64(y)) > 0 for y in expected)
    folded, _ = fold(model, verify=False)  # or fold itself would find what is wrong
    found = keras.tree.flatten(folded(x, training=False))
    for one, other in zip(expected, found, strict=True):
        size = np.abs(one).max()
        np.testing.assert_allclose(other, one, rtol=rtol, atol=rtol * size)
        assert one.dtype == other.dtype
    folded, report = fold(model, **given)
    assert len(norms_of(folded)) == left == len(report.at_least("info"))
    assert len(report) == len(norms_of(model))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    return folded, report


def chain(*parts, shape):
    return disturb(keras.Sequential([keras.Input(shape), *parts]))


def reason(model):
    """Why the one batch norm layer that is left was left."""
    _, report = fold(model, verify=False)
    left = report.at_least("info")
    assert [row.into for row in left] == [None]
    return left[0].why


@pytest.mark.parametrize(
    ("dtype", "depth", "most"), [("float64", 30, 1e-10), ("float32", 20, 1e-3)]
)
def test_a_deep_model_is_no_false_alarm(dtype, depth, most):
    """Two examples hardly vary in some channels: divided by that, rounding grows with depth."""
    keras.config.set_dtype_policy(dtype)
    keras.utils.set_random_seed(0)
    parts = [v for _ in range(depth) for v in (layers.Dense(8), Norm(), layers.ReLU())]
    _, report = fold(keras.Sequential([keras.Input((4,)), *parts, layers.Dense(3)]))
    apart = re.search(
        r"So a copy .* those of the model by ([^ ]*)\.$", report.notes[-1]
    )
    assert float(apart[1]) < most


# Every kind of layer. Kernels are square, so that a wrong axis is no error of shape.

LINE, IMAGE, VOLUME = (9, 4), (9, 8, 4), (5, 6, 7, 4)
BEFORE = {
    "Dense": (layers.Dense, (4,), {"units": 4}),
    "Dense on images": (layers.Dense, IMAGE, {"units": 4}),
    "Conv1D": (layers.Conv1D, LINE, {"filters": 4, "padding": "causal"}),
    "Conv2D": (layers.Conv2D, IMAGE, {"filters": 4, "padding": "same", "strides": 2}),
    "Conv2D in groups": (layers.Conv2D, IMAGE, {"filters": 8, "groups": 2}),
    "Conv3D": (layers.Conv3D, VOLUME, {"filters": 4, "padding": "same"}),
    "DepthwiseConv1D": (layers.DepthwiseConv1D, LINE, {"depth_multiplier": 4}),
    "DepthwiseConv2D": (layers.DepthwiseConv2D, IMAGE, {"depth_multiplier": 4}),
    "SeparableConv1D": (layers.SeparableConv1D, LINE, {"filters": 4}),
    "SeparableConv2D": (
        layers.SeparableConv2D,
        IMAGE,
        {"filters": 8, "depth_multiplier": 2, "padding": "same"},
    ),
    "Conv1DTranspose": (layers.Conv1DTranspose, LINE, {"filters": 4, "strides": 2}),
    "Conv2DTranspose": (
        layers.Conv2DTranspose,
        IMAGE,
        {"filters": 4, "strides": 2, "padding": "same"},
    ),
    "Conv3DTranspose": (layers.Conv3DTranspose, VOLUME, {"filters": 4}),
}


def made(kind, **settings):
    make, shape, given = BEFORE[kind]
    if "Conv" in kind:
        settings["kernel_size"] = 3
    return make(**given, **settings), shape


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", BEFORE)
def test_into_the_layer_before(kind, bias):
    layer, shape = made(kind, use_bias=bias)
    model = chain(layer, Norm(epsilon=0.1), layers.ReLU(), shape=shape)
    folded, report = assert_folded(model, friendly((3, *shape)))
    assert folded.layers[0].use_bias
    assert report.rows[0].into == layer.name
    assert 0 <= report.rows[0].difference < 1e-9


@pytest.mark.parametrize(
    ("equation", "output_shape", "axis", "bias_axes"),
    [
        ("abc,cd->abd", (9, 4), -1, None),
        ("abc,cd->abd", (9, 4), 2, "d"),
        ("...c,cd->...d", 4, -1, "d"),
        ("abc,cde->abde", (9, 4, 2), 2, None),
        ("abc,cde->abde", (9, 4, 2), 2, "d"),
        ("abc,bcd->abd", (9, 4), 1, None),
    ],
)
def test_into_an_einsum_before(equation, output_shape, axis, bias_axes):
    layer = layers.EinsumDense(equation, output_shape, bias_axes=bias_axes)
    model = chain(layer, Norm(axis=axis), shape=LINE)
    assert_folded(model, friendly((3, *LINE)))


AFTER = {
    "Dense": ({}, None),
    "Dense on images": ({}, None),
    "Conv1D": ({"padding": "valid"}, None),
    "Conv2D": ({"padding": "valid"}, None),
    "Conv3D": ({"padding": "valid", "dilation_rate": 2, "kernel_size": 2}, None),
    "DepthwiseConv1D": ({}, None),
    "DepthwiseConv2D": ({"strides": 2}, None),
    "SeparableConv1D": ({}, None),
    "SeparableConv2D": ({"padding": "valid"}, None),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", AFTER)
def test_into_the_layer_after(kind, bias):
    """Its activation does not matter: batch norm is before it."""
    make, shape, given = BEFORE[kind]
    size = {"kernel_size": 3} if "Conv" in kind else {}
    layer = make(**(size | given | AFTER[kind][0]), use_bias=bias, activation="tanh")
    model = chain(layers.ReLU(), Norm(epsilon=0.1), layer, shape=shape)
    _, report = assert_folded(model, friendly((3, *shape)))
    assert report.rows[0].into == layer.name
    assert "after it" in report.rows[0].why


def test_from_both_sides():
    parts = [layers.ReLU(), Norm(), layers.Conv2D(4, 3), Norm(), layers.ReLU()]
    folded, report = assert_folded(chain(*parts, shape=IMAGE), friendly((2, *IMAGE)))
    assert [row.into for row in report] == [parts[2].name] * 2
    assert all(row.difference < 1e-9 for row in report)
    assert [type(v).__name__ for v in folded.layers] == ["ReLU", "Conv2D", "ReLU"]


@pytest.mark.parametrize("side", ["before", "after"])
def test_no_padding_in_fact(side):
    """A kernel of one place pads nothing, whatever it is told."""
    parts = [layers.Conv2D(4, 1, padding="same", strides=2), Norm()]
    start = [] if side == "before" else [layers.ReLU()]
    parts = parts if side == "before" else parts[::-1]
    assert_folded(chain(*start, *parts, shape=IMAGE), friendly((2, *IMAGE)))


FIRST = {"data_format": "channels_first"}


def test_channels_first():
    parts = [layers.Conv2D(4, 3, **FIRST), Norm(axis=1), layers.ReLU(), Norm(axis=1)]
    parts.append(layers.Conv2D(4, 3, **FIRST))
    model = chain(*parts, shape=(4, 8, 9))
    folded, report = fold(
        model, verify=False
    )  # TensorFlow has it on a GPU, or with XLA
    x = tf.constant(friendly((2, 4, 8, 9)))
    before, after = (tf.function(m, jit_compile=True)(x) for m in (model, folded))
    np.testing.assert_allclose(after, before, rtol=1e-10, atol=1e-10)
    assert not report.at_least("info")
    wrong = chain(layers.Conv2D(5, 3, **FIRST), Norm(axis=-1), shape=(4, 7, 7))
    _, report = fold(wrong, verify=False)
    assert "channels on axis 1, and batch norm keeps axis 3" in report.rows[0].why


@pytest.mark.parametrize(("width", "said"), [(6, "4"), (None, "any number of")])
@pytest.mark.parametrize("side", ["before", "after"])
def test_where_keras_adds_a_bias_along_the_wrong_axis(width, said, side):
    """The bias that a fold makes would come along the columns, if there are as many as channels."""
    bias = np.arange(4.0)
    wrong = keras.ops.add(np.zeros((1, 4, 2, 4)), bias.reshape(1, 4, 1, 1))
    # when this fails, Keras is mended, and `_misplaced` may go
    np.testing.assert_array_equal(wrong[0], np.zeros((4, 2, 4)) + bias)
    conv = layers.Conv2D(4, 3, use_bias=False, name="c", **FIRST)
    parts = [conv, Norm(axis=1)]
    parts = parts if side == "before" else [layers.ReLU(), *parts[::-1]]
    _, report = fold(chain(*parts, shape=(4, 9, width)), verify=False)
    assert f"'c' (Conv2D), which puts out {said} columns and 4 ch" in report.rows[0].why
    einsum = layers.EinsumDense("abc,cde->abde", (9, 4, 4))
    assert "4 columns" in reason(chain(einsum, Norm(axis=2), shape=LINE))


@pytest.mark.parametrize(
    "norm",
    [
        lambda: Norm(scale=False),
        lambda: Norm(center=False, epsilon=0.5),
        lambda: Norm(scale=False, center=False),
        lambda: Norm(renorm=True),
        lambda: BatchNormalization(),
        lambda: BatchNormalization(renorm=True, zero_debias=True, bessel=True),
        lambda: BatchNormalization(axis=[-1], virtual_batch_size=2),
    ],
)
def test_every_batch_norm(norm):
    model = chain(layers.Dense(4), norm(), layers.ReLU(), norm(), shape=(3,))
    model.add(layers.Dense(2))
    assert_folded(model, friendly((4, 3)))


# What is left, and why


def functional(make, shape=(4,)):
    inputs = keras.Input(shape)
    return disturb(keras.Model(inputs, make(inputs)))


def read_twice(x):
    h = layers.Dense(4, name="d")(x)
    return layers.Add()([Norm()(h), h])


def an_output_too(x):
    h = layers.Dense(4, name="d")(x)
    return [Norm()(h), h]


def called_twice(x):
    dense = layers.Dense(4, name="d")
    return Norm()(dense(layers.ReLU()(dense(x))))


def normalises_twice(x):
    norm = Norm()
    return norm(layers.Dense(4)(layers.ReLU()(norm(layers.Dense(4)(x)))))


def sharing_a_kernel(x):
    one, other = layers.Dense(4, name="d"), layers.Dense(4)
    h = one(layers.ReLU()(other(x)))
    one._tracker.unlock()
    one._kernel = other._kernel
    one._tracker.lock()
    return Norm()(h)


def quantised(x):
    dense = layers.Dense(4, name="d", dtype="float32")
    y = Norm(dtype="float32")(dense(x))
    dense.quantize("int8")
    return y


def with_lora(x):
    dense = layers.Dense(4, name="d")
    y = Norm()(dense(x))
    dense.enable_lora(2)
    return y


class Dense(layers.Dense):
    """A class of one's own, which may do anything."""


class Norms(Norm):
    """Another."""


def whole_numbers(x):
    return layers.Dense(4)(Norm()(keras.ops.cast(x, "int32")))


def masked(x):
    return Norm()(layers.Dense(4)(x), mask=keras.ops.any(x > 0, axis=-1))


def in_a_model_that_trains(x):
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), Norm()])
    return inner(x, training=True)


LEFT = {
    "an activation": (
        lambda x: Norm()(layers.Dense(4, activation="relu", name="d")(x)),
        "before it is 'd' (Dense), which has the activation 'relu'",
    ),
    "read by others": (read_twice, "'d' (Dense), which is read by others, too"),
    "an output": (an_output_too, "'d' (Dense), which is an end of"),
    "a shared layer": (called_twice, "'d' (Dense), which is called 2 times"),
    "a shared batch norm": (normalises_twice, "it is called 2 times"),
    "a shared kernel": (sharing_a_kernel, "'d' (Dense), which shares a weight"),
    "an integer kernel": (quantised, "'d' (Dense), which is quantised (int8)"),
    "LoRA": (with_lora, "'d' (Dense), which has LoRA"),
    "a class of one's own": (
        lambda x: Norm()(Dense(4, name="d")(x)),
        "'d' (Dense), which is no dense or convolution layer of Keras's",
    ),
    "a batch norm of one's own": (
        lambda x: Norms()(layers.Dense(4)(x)),
        "it is a Norms, whose code may do anything",
    ),
    "nothing beside it": (lambda x: layers.ReLU()(Norm()(x)), "nothing is before it"),
    "training=True": (
        lambda x: Norm()(layers.Dense(4)(x), training=True),
        "training=True is wired into its call",
    ),
    "training=True outside": (in_a_model_that_trains, "training=True is wired"),
    "whole numbers": (whole_numbers, "it gets int32, which it makes floating"),
    "a mask": (masked, "a mask of its own is wired into its call"),
    "other precision": (
        lambda x: Norm(dtype="float64")(layers.Dense(4, name="d", dtype="float32")(x)),
        "'d' (Dense), which computes in float32, and batch norm in float64",
    ),
    "read by two": (
        lambda x: (lambda y: layers.Add()([layers.Dense(4)(y), layers.ReLU()(y)]))(
            Norm()(layers.ReLU()(x))
        ),
        "after it 2 layers read it",
    ),
    "a whole model": (
        lambda x: Norm()(
            keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")(x)
        ),
        "before it is 'inner' (Sequential), which is no dense",
    ),
}
IMAGES_LEFT = {
    "pooling": (
        lambda x: Norm()(layers.AveragePooling2D(2, name="p")(layers.Conv2D(4, 3)(x))),
        "before it is 'p' (AveragePooling2D), which is no dense",
    ),
    "flat": (
        lambda x: Norm()(layers.Flatten(name="p")(layers.Conv2D(4, 3)(x))),
        "before it is 'p' (Flatten), which is no dense",
    ),
    "zeros": (
        lambda x: Norm()(layers.ZeroPadding2D(name="p")(layers.Conv2D(4, 3)(x))),
        "before it is 'p' (ZeroPadding2D), which is no dense",
    ),
    "reshaped": (
        lambda x: Norm()(layers.Reshape((6, 24), name="p")(layers.Conv2D(4, 3)(x))),
        "before it is 'p' (Reshape), which is no dense",
    ),
    "padded": (
        lambda x: layers.Conv2D(4, 3, name="c", padding="same")(Norm()(x)),
        "after it is 'c' (Conv2D), which pads with zeros",
    ),
    "padded depthwise": (
        lambda x: layers.DepthwiseConv2D(3, name="c", padding="same")(Norm()(x)),
        "after it is 'c' (DepthwiseConv2D), which pads with zeros",
    ),
    "transposed": (
        lambda x: layers.Conv2DTranspose(4, 3, name="c")(Norm()(x)),
        "after it is 'c' (Conv2DTranspose), which is of a kind that takes in only",
    ),
    "groups": (
        lambda x: layers.Conv2D(4, 3, groups=2, name="c")(Norm()(x)),
        "after it is 'c' (Conv2D), which is a convolution in groups",
    ),
    "einsum": (
        lambda x: layers.EinsumDense("abcd,de->abce", (8, 8, 4), name="c")(Norm()(x)),
        "after it is 'c' (EinsumDense), which is of a kind that takes in only",
    ),
    "a bias elsewhere": (
        lambda x: Norm()(
            layers.EinsumDense("abcd,de->abce", (8, 8, 4), bias_axes="c")(x)
        ),
        "which has a bias along 'c', and not along 'e'",
    ),
    "no kernel there": (
        lambda x: Norm(axis=1)(layers.EinsumDense("abcd,de->abce", (8, 8, 4))(x)),
        "which has no kernel along axis 1",
    ),
    "several axes": (
        lambda x: BatchNormalization(axis=[1, -1])(layers.Conv2D(4, 3)(x)),
        "it keeps several axes",
    ),
    "timed": (
        lambda x: layers.TimeDistributed(Norm())(layers.Dense(4)(x)),
        "it stands in no graph",
    ),
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_left(kind):
    make, words = LEFT[kind]
    assert words in reason(functional(make))


@pytest.mark.parametrize("kind", IMAGES_LEFT)
def test_what_is_left_of_images(kind):
    make, words = IMAGES_LEFT[kind]
    assert words in reason(functional(make, (8, 8, 4)))


def test_a_layer_that_other_code_holds_counts_as_called():
    def make(x):
        dense = layers.Dense(4, name="d")
        return Norm()(dense(layers.TimeDistributed(dense)(x)))

    assert "'d' (Dense), which is called 2 times" in reason(functional(make, (5, 4)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_statistics_that_are_none(value):
    model = chain(layers.Dense(4), Norm(), shape=(3,))
    norm = model.layers[1]
    norm.moving_variance.assign([1, 2, value, 3])
    assert "not finite, or a variance is negative" in reason(model)


def test_weights_that_do_not_fit_their_type():
    keras.config.set_dtype_policy("float16")
    model = chain(layers.Dense(4, name="d"), Norm(), shape=(3,))
    model.layers[1].gamma.assign([6e4] * 4)
    model.layers[1].moving_variance.assign([1e-3] * 4)
    assert "weights of 'd' (Dense) would be too large for float16" in reason(model)


# Refusals


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = Norm()

    def call(self, x):
        return self.norm(x)


class Rewired(keras.Model):
    """A graph, which its code does not follow."""

    def call(self, x):
        return self.layers[1](x)


def test_what_cannot_be_folded_is_refused():
    x = np.ones((2, 3))
    subclassed = Subclassed()
    subclassed(x)
    inputs = keras.Input((3,))
    rewired = Rewired(inputs, Norm()(layers.Dense(3)(inputs)))
    for model in (subclassed, rewired):
        with pytest.raises(
            ValueError, match=r"Sequential or Functional.*keras\.Model\("
        ):
            fold(model)
    with pytest.raises(TypeError, match=r"keras\.Model; got str"):
        fold("model.keras")
    with pytest.raises(ValueError, match="must be built"):
        fold(keras.Sequential([layers.Dense(3), Norm()]))
    with pytest.raises(ValueError, match="has none"):
        fold(keras.Sequential([keras.Input((3,)), layers.Dense(3)]))
    model = chain(layers.Dense(3), Norm(), shape=(3,))
    with pytest.raises(TypeError, match="data must be"):
        fold(model, 3)
    with pytest.raises(ValueError, match="NaN"):
        fold(model, np.full((2, 3), np.nan))
    with pytest.raises(
        ValueError, match=r"data must be what .* takes; it does not run"
    ):
        fold(model, np.ones((2, 4)))


# Whole models


def test_nested_models():
    inner = keras.Input((4,))
    x = layers.ReLU()(Norm(name="a")(layers.Dense(4)(inner)))
    block = keras.Model(inner, layers.Add()([x, inner]), name="block")
    head = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), Norm(name="b"), layers.ReLU()], name="head"
    )
    inputs = keras.Input((4,))
    x = block(block(inputs))  # called twice: what is inside is right for both
    model = disturb(keras.Model(inputs, Norm(name="c")(layers.Dense(4)(head(x)))))
    folded, report = assert_folded(model, friendly((5, 4)))
    assert [row.layer for row in report] == ["block/a", "head/b", "c"]
    assert report.rows[0].into.startswith("block/dense")
    assert [v.name for v in folded.layers] == [v.name for v in model.layers[:-1]]
    assert type(folded.get_layer("head")) is keras.Sequential


def test_names_structure_and_flags_are_kept():
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = layers.Dense(5, name="d", trainable=False)(layers.Concatenate()([a, b]))
    y = layers.ReLU(name="r")(Norm()(x))
    outputs = {"one": y, "two": (layers.Dense(2, name="e")(y), b)}
    model = disturb(keras.Model({"a": a, "b": b}, outputs, name="net"))
    model.compile("sgd", "mse")
    x = {"a": friendly((5, 4)), "b": friendly((5, 3), seed=1)}
    folded, _ = assert_folded(model, x)
    assert type(folded) is type(model)
    assert folded.name == "net"
    assert not folded.compiled
    assert model.compiled
    keras.tree.assert_same_structure(folded.output, model.output)
    assert [t.name for t in folded.inputs] == ["a", "b"]
    assert not folded.get_layer("d").trainable
    assert folded.get_layer("e").trainable


def test_masks_are_kept():
    parts = [layers.Masking(), layers.Dense(4), Norm(), layers.ReLU(), layers.GRU(3)]
    x = friendly((3, 6, 2))
    x[:, 3:] = 0
    model = chain(*parts, shape=(6, 2))
    assert_folded(model, x)
    other = x.copy()
    other[:, 3:] = 1e-9
    assert np.ptp(model(other) - model(x)) > 1e-3  # the mask does matter


def drawn(shape, dtype=None):
    """An initializer that nobody registered."""
    return keras.random.normal(shape, dtype=dtype)


def test_what_was_about_the_old_weights_goes():
    l2 = keras.regularizers.L2(1)
    dense = layers.Dense(
        4,
        kernel_initializer=drawn,
        kernel_regularizer=l2,
        bias_constraint="non_neg",
        kernel_constraint="unit_norm",
    )
    last = layers.Dense(4, kernel_regularizer=l2)
    model = chain(dense, Norm(), layers.ReLU(), last, shape=(3,))
    folded, _ = assert_folded(model, friendly((3, 3)))
    assert folded.layers[0].kernel_constraint is None
    assert len(folded.losses) == 1


def test_bnlibs_own_that_are_left_are_told():
    model = chain(BatchNormalization(), layers.ReLU(), shape=(3,))
    _, report = fold(model)
    assert "bnlib.keras.swap_out" in report.notes[-1]
    assert report.notes[0].startswith("0 of 1 batch norm layers folded")


def grown(kind, x, other):
    """The outputs of one more layer, or of a few, on x."""
    if kind == "norm":
        return Norm()(x)
    if kind == "conv":
        return layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    if kind == "dense":
        return layers.Dense(4)(x)
    if kind == "add":
        return layers.Add()([x, other])
    if kind == "twice":
        layer = layers.Dense(4)
        return layers.Add()([layer(x), layer(other)])
    return layers.ReLU()(x)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_any_small_graph(data):
    """Chains and branches, drawn: the folded model equals the model."""
    ends = [keras.Input((6, 6, 4), dtype="float64")]
    read = set()
    for _ in range(data.draw(st.integers(2, 7), label="layers")):
        kinds = ["norm", "conv", "dense", "norm", "relu", "add", "twice"]
        kind = data.draw(st.sampled_from(kinds), label="kind")
        x, other = (data.draw(st.sampled_from(ends[-3:]), label="from") for _ in "xy")
        ends.append(grown(kind, x, other))
        read |= {id(x), id(other)} if kind in ("add", "twice") else {id(x)}
    last = Norm(name="last")(layers.Dense(3)(ends[-1]))
    loose = [x for x in ends[:-1] if id(x) not in read]
    model = disturb(keras.Model(ends[0], [last, *loose]))
    batch = friendly((2, 6, 6, 4))
    folded, report = fold(model, verify=False)
    for one, other in zip(model(batch), folded(batch), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-9, atol=1e-9 * np.abs(one).max())
    assert [row.into is None for row in report if row.layer == "last"] == [False]


# Evidence


def test_fresh_statistics_are_no_evidence():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), Norm()])
    _, report = fold(model)
    assert "no evidence for 1" in report.notes[2]
    assert "a copy with random statistics was folded too" in report.notes[3]


def test_statistics_and_varied_data_are_evidence():
    model = chain(layers.Dense(4), Norm(), shape=(3,))
    _, report = fold(model, friendly((50, 3)))
    assert len(report.notes) == 2
    assert report.notes[1].startswith("Verified on the first batch of the data")


def test_data_that_do_not_vary_are_no_evidence():
    model = chain(layers.Dense(4), Norm(), shape=(3,))
    _, report = fold(model, np.ones((5, 3)))
    assert "no evidence for 1" in " ".join(report.notes)
    _, report = fold(
        model, tf.data.Dataset.from_tensor_slices(friendly((9, 3))).batch(4)
    )
    assert len(report.notes) == 2


def test_a_wrong_fold_is_found_on_a_fresh_model(monkeypatch):
    """A fold that forgets the mean: with a mean of 0 it looks right."""
    from bnlib.doctor import _linear

    right = _linear.fold

    def forgetful(kernel, bias, mean, *rest, **settings):
        return right(kernel, bias, 0 * mean, *rest, **settings)

    monkeypatch.setattr(_linear, "fold", forgetful)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="d"), Norm()])
    with pytest.raises(ValueError, match=r"For 'd' \(Dense\), its outputs differ"):
        fold(model)
    fold(model, verify=False)


class Noisy(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x), dtype=x.dtype)


def test_of_random_outputs_the_layers_are_compared():
    model = chain(Noisy(), layers.Dense(4), Norm(), shape=(3,))
    _, report = fold(model)
    assert report.notes[1].endswith("the model gives other outputs each time.")


@keras.saving.register_keras_serializable(package="test")
class Forgetful(layers.Layer):
    """A layer with state of which neither its weights nor its configuration know."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


def test_a_copy_that_forgets_is_found():
    model = chain(layers.Dense(4), Norm(), Forgetful(), shape=(3,))
    model.layers[-1].factor = 3.0
    with pytest.raises(ValueError, match=r"For the model itself.*state outside its w"):
        fold(model)


def test_where_no_batch_can_be_made_data_are_asked_for():
    sparse = keras.Input((4,), sparse=True)
    model = disturb(keras.Model(sparse, Norm()(layers.Dense(3)(sparse))))
    with pytest.raises(ValueError, match=r"sparse.*Pass data"):
        fold(model)


@pytest.mark.parametrize(
    ("policy", "rtol"),
    [
        ("float32", 1e-5),
        ("mixed_float16", 0.02),
        ("mixed_bfloat16", 0.1),
        ("float16", 0.02),
    ],
)
def test_tolerances_fit_the_policy(policy, rtol):
    keras.config.set_dtype_policy(policy)
    parts = [layers.Conv2D(8, 3), Norm(), layers.ReLU()]
    parts += [layers.Conv2D(8, 3, use_bias=False), Norm()]
    model = chain(*parts, shape=(9, 9, 3))
    assert_folded(model, friendly((2, 9, 9, 3), np.float32), rtol=rtol)


# Files

ALONE = """
import keras
import numpy as np
model = keras.models.load_model("folded.keras")
np.save("y.npy", model(np.load("x.npy")))
"""


def small_net():
    keras.config.set_dtype_policy("float32")
    x = inputs = keras.Input((8, 8, 3))
    for _ in range(2):
        x = layers.Conv2D(6, 3, use_bias=False)(x)
        x = layers.ReLU()(BatchNormalization()(x))
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return fold(disturb(keras.Model(inputs, outputs)))[0]


def test_a_file_for_those_who_have_no_bnlib(tmp_path):
    folded, x = small_net(), friendly((4, 8, 8, 3), np.float32)
    folded.save(tmp_path / "folded.keras")
    np.save(tmp_path / "x.npy", x)
    run_without_bnlib(ALONE, tmp_path)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), folded(x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore")  # of TensorFlow Lite, about itself
def test_exports(tmp_path):
    folded, x = small_net(), friendly((1, 8, 8, 3), np.float32)
    expected = folded(x)
    folded.export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(saved.serve(x), expected, rtol=1e-5, atol=1e-6)
    lite = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert()
    interpreter = tf.lite.Interpreter(model_content=lite)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
