"""`bnlib.conventions` beside the frameworks themselves, where they run here.

Keras 3, PyTorch and ONNX run. Caffe's layer is simulated from its source. Of Keras 2 and
tf.contrib, which do not run here, there are numbers recorded where they did, marked so.
"""

import os
import shutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from dataclasses import FrozenInstanceError, replace

import keras
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mended import locked
from onnx.reference import ReferenceEvaluator
from samples import friendly

from bnlib import batch_norm_inference
from bnlib.book._caffe import load
from bnlib.book.data import trained_file
from bnlib.conventions import (
    CONVENTIONS,
    BNParams,
    compare,
    explain,
    from_caffe,
    from_contrib,
    from_flax,
    from_keras,
    from_mxnet,
    from_onnx,
    from_torch,
    to_caffe,
    to_contrib,
    to_flax,
    to_keras,
    to_mxnet,
    to_onnx,
    to_torch,
    variance_factor,
)
from bnlib.keras import BatchNormalization

MEAN, VARIANCE = np.array([0.5, 1.0, -2.0]), np.array([1.0, 4.0, 0.2])
GAMMA, BETA = np.array([2.0, -0.5, 3.0]), np.array([1.0, 10.0, -4.0])
LAST = BNParams(MEAN, VARIANCE, GAMMA, BETA, epsilon=0.01, momentum=0.8)
FIRST = replace(LAST, axis=1)
BESSEL = replace(FIRST, bessel=True)
IMAGES = np.moveaxis(friendly((7, 2, 5, 3)), -1, 1)  # channels first


def agree(got, expected, rtol=1e-12):
    """Compare arrays, numbers, and lists and dicts of them."""
    assert type(got) is type(expected) or np.ndim(got) == np.ndim(expected)
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        got, expected = list(got.values()), list(expected.values())
    if isinstance(expected, list):
        for mine, its in zip(got, expected, strict=True):
            agree(mine, its, rtol)
    elif expected is None or isinstance(expected, (str, bool)):
        assert got == expected
    else:
        np.testing.assert_allclose(
            np.asarray(got, float), np.asarray(expected, float), rtol=rtol, atol=rtol
        )


# The canonical form


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"moving_mean": [[0.0]]}, ValueError, r"moving_mean must have shape \(C,\)"),
        ({"moving_mean": None}, TypeError, "moving_mean must hold real numbers"),
        ({"moving_variance": [1.0]}, ValueError, r"must have shape \(3,\)"),
        ({"gamma": np.ones(4)}, ValueError, r"gamma must have shape \(3,\).*\(4,\)"),
        ({"beta": np.ones((3, 1))}, ValueError, "beta must have shape"),
        ({"moving_variance": MEAN}, ValueError, "must not be negative; got -2.0"),
        ({"moving_mean": [np.nan, 0, 0]}, ValueError, "must be finite.*anew"),
        ({"moving_variance": [np.inf, 1, 1]}, ValueError, "must be finite"),
        ({"epsilon": -1e-3}, ValueError, "epsilon must be finite and at least 0"),
        ({"epsilon": None}, TypeError, "epsilon must be one real number"),
        ({"momentum": 1.5}, ValueError, "momentum must lie in"),
        ({"momentum": "0.9"}, TypeError, "momentum must be one real number"),
        ({"axis": 1.0}, TypeError, "axis must be one whole number; got 1.0"),
        ({"axis": True}, TypeError, "axis must be one whole number; got True"),
        ({"updates": 0.5}, TypeError, "updates must be one whole number"),
        ({"bessel": 1}, TypeError, "bessel must be True or False; got 1"),
    ],
)
def test_wrong_parameters_are_refused(wrong, error, message):
    with pytest.raises(error, match=message):
        replace(LAST, **wrong)


def test_epsilon_and_momentum_have_no_default():
    with pytest.raises(TypeError, match=r"epsilon.*momentum"):
        BNParams(MEAN, VARIANCE)


def test_parameters_are_copied_keep_their_dtype_and_do_not_change():
    mean = MEAN.astype(np.float32)
    params = replace(LAST, moving_mean=mean)
    mean[:] = 99
    assert params.moving_mean.dtype == np.float32
    assert np.array_equal(params.moving_mean, MEAN)
    with pytest.raises(ValueError, match="read-only"):
        params.gamma[0] = 1
    with pytest.raises(FrozenInstanceError):
        params.epsilon = 1
    written = to_torch(BESSEL)
    written["weight"][:] = 99
    assert np.array_equal(BESSEL.gamma, GAMMA)


@pytest.mark.parametrize(
    "other",
    [
        {"gamma": None},
        {"beta": 2 * BETA},
        {"epsilon": 0.02},
        {"momentum": None},
        {"axis": 1},
        {"bessel": True},
        {"updates": 1},
        {
            "moving_mean": MEAN[:2],
            "moving_variance": VARIANCE[:2],
            "gamma": None,
            "beta": None,
        },
    ],
)
def test_equal_means_equal_in_every_field(other):
    assert replace(LAST) == LAST
    assert replace(LAST, **other) != LAST
    assert LAST != "LAST"


@pytest.mark.parametrize(
    "params", [LAST, FIRST, replace(BESSEL, gamma=None, beta=None)]
)
def test_inference_and_the_layer_are_the_core(params):
    x = IMAGES if params.axis == 1 else np.moveaxis(IMAGES, 1, -1)
    expected = batch_norm_inference(
        x, MEAN, VARIANCE, params.gamma, params.beta, axis=params.axis, epsilon=0.01
    )
    assert np.array_equal(params.inference(x), expected)
    assert np.array_equal(params.layer()(x, training=False), expected)


# Keras 3, which runs here


def keras_layer(shape, **settings):
    """A layer of Keras 3 with random weights."""
    layer = keras.layers.BatchNormalization(dtype="float64", **settings)
    layer.build(shape)
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(0.5, 2, 3) for _ in layer.weights])
    return layer


def keras_values(layer):
    return {"weights": layer.get_weights(), **layer.get_config()}


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("axis", [-1, 1])
def test_keras_to_bnlib_and_back(center, scale, axis):
    settings = {"axis": axis, "epsilon": 0.1, "momentum": 0.7}
    layer = keras_layer((7, 3, 5, 3), center=center, scale=scale, **settings)
    params = from_keras(keras_values(layer))
    assert (params.beta is not None, params.gamma is not None) == (center, scale)
    x = friendly((7, 3, 5, 3))
    agree(params.inference(x), np.asarray(layer(x, training=False)))
    ours = params.layer()
    agree(ours(x, training=True), np.asarray(layer(x, training=True)))
    agree(ours.population.mean, np.asarray(layer.moving_mean))
    agree(ours.population.variance, np.asarray(layer.moving_variance))

    written = to_keras(params)
    fresh = keras.layers.BatchNormalization(
        dtype="float64", **{name: v for name, v in written.items() if name != "weights"}
    )
    fresh.build(x.shape)
    fresh.set_weights(written["weights"])
    agree(np.asarray(fresh(x, training=False)), params.inference(x))


def test_keras_weights_come_in_the_order_that_we_say():
    names = [w.name for w in keras_layer((7, 3)).weights]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [
        [w.name for w in keras_layer((7, 3), center=False).weights],
        [w.name for w in keras_layer((7, 3), scale=False).weights],
    ] == [[names[0], *names[2:]], names[1:]]


def test_keras_renorm_is_refused():
    layer = keras.layers.BatchNormalization(renorm=True)
    layer.build((7, 3))
    with pytest.raises(ValueError, match="renorm must be False; got True"):
        from_keras(keras_values(layer))


def test_keras_2_keeps_bessels_variance_if_it_is_fused():
    """Recorded where Keras 2 (tf_keras 2.21) ran; it is not installed here.

    For [1, 2, 3, 4] and momentum 0.99 its moving variance went from 1 to 1.0066667 in a 4-D layer
    and to 1.0025 in a 2-D one.
    """
    values = {"weights": [[0.0], [1.0]], "center": False, "scale": False}
    values |= {"epsilon": 1e-3, "momentum": 0.99}
    x = np.array([1.0, 2.0, 3.0, 4.0])
    for shape, axis, fused, recorded in [
        ((4, 1, 1, 1), [3], True, 1.0066667),  # a built Keras 2 layer lists its axis
        ((4, 1), -1, False, 1.0025),
    ]:
        params = from_keras(values | {"axis": axis}, version=2, fused=fused)
        assert params.bessel is fused
        layer = params.layer()
        layer(x.reshape(shape), training=True)
        agree(layer.population.variance, [recorded], rtol=1e-6)


# PyTorch, which runs here


def torch_layer(kind=torch.nn.BatchNorm2d, **settings):
    """A layer of PyTorch with random parameters and statistics."""
    layer = kind(3, dtype=torch.float64, **settings)
    rng = np.random.default_rng(1)
    for name, value in layer.state_dict().items():
        if name != "num_batches_tracked":
            value.copy_(torch.tensor(rng.uniform(0.5, 2, 3)))
    return layer


def torch_values(layer):
    return layer.state_dict() | {"eps": layer.eps, "momentum": layer.momentum}


@pytest.mark.parametrize("settings", [{}, {"affine": False}, {"bias": False}])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (torch.nn.BatchNorm1d, (7, 3)),
        (torch.nn.BatchNorm1d, (2, 3, 5)),
        (torch.nn.BatchNorm2d, (2, 3, 5, 7)),
    ],
)
def test_torch_to_bnlib_and_back(kind, shape, momentum, settings):
    layer = torch_layer(kind, eps=0.1, momentum=momentum, **settings)
    x = np.moveaxis(friendly((*np.delete(shape, 1), 3)), -1, 1)
    layer(torch.tensor(x + 1))  # one batch before: the cumulative average must know it
    params = from_torch(torch_values(layer))
    agree(params.inference(x), layer.eval()(torch.tensor(x)).detach().numpy())

    written = to_torch(params)
    eps, its_momentum = written.pop("eps"), written.pop("momentum")
    fresh = kind(3, eps, its_momentum, dtype=torch.float64, **settings)
    fresh.load_state_dict({name: torch.tensor(v) for name, v in written.items()})
    ours = params.layer()
    for theirs in (layer.train(), fresh):
        agree(
            ours(x, training=True, update=False),
            theirs(torch.tensor(x)).detach().numpy(),
        )
    ours(x, training=True)
    for theirs in (layer, fresh):
        agree(ours.population.mean, theirs.running_mean.numpy())
        agree(ours.population.variance, theirs.running_var.numpy())


def test_torch_without_statistics_is_refused():
    layer = torch.nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(
        ValueError, match=r"missing: \['running_mean', 'running_var'\].*track"
    ):
        from_torch(torch_values(layer))


def test_a_state_dict_alone_is_refused():
    with pytest.raises(ValueError, match=r"missing: \['eps', 'momentum'\].*eps=bn.eps"):
        from_torch(torch_layer().state_dict())


def test_a_model_goes_from_torch_to_keras_and_is_the_same():
    layer = torch_layer(eps=0.1, momentum=0.3).eval()
    x = IMAGES
    written = to_keras(from_torch(torch_values(layer)), lose=["bessel"])
    weights = written.pop("weights")
    twin = keras.layers.BatchNormalization(dtype="float64", **written)
    twin.build(x.shape)
    twin.set_weights(weights)
    agree(np.asarray(twin(x, training=False)), layer(torch.tensor(x)).detach().numpy())

    count = x.size // 3  # and in training they part by n / (n - 1)
    twin(x, training=True)
    layer.train()(torch.tensor(x))
    start = 0.7 * weights[3]
    ratio = (layer.running_var.numpy() - start) / (
        np.asarray(twin.moving_variance) - start
    )
    agree(ratio, np.full(3, variance_factor(count, source=False, target=True)), 1e-10)


# ONNX, whose reference evaluator runs here


def run_onnx(values, opset, x, outputs=1):
    """Run one node with ONNX's reference evaluator."""
    names = ("mean", "var") if opset < 14 else ("input_mean", "input_var")
    inputs = {"X": x} | {name: values[name] for name in ("scale", "B", *names)}
    attributes = {name: v for name, v in values.items() if name not in inputs}
    shapes = {"Y": x.shape, "running_mean": (3,), "running_var": (3,)}
    results = dict(list(shapes.items())[:outputs])
    node = onnx.helper.make_node(
        "BatchNormalization", list(inputs), list(results), **attributes
    )
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        [node],
        "bn",
        [
            onnx.helper.make_tensor_value_info(n, kind, a.shape)
            for n, a in inputs.items()
        ],
        [
            onnx.helper.make_tensor_value_info(n, kind, shape)
            for n, shape in results.items()
        ],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets)
    onnx.checker.check_model(model)
    return ReferenceEvaluator(model).run(None, inputs)


@pytest.mark.parametrize("opset", [6, 14, 15, 20])
@pytest.mark.parametrize("params", [FIRST, replace(FIRST, gamma=None, beta=None)])
def test_onnx_node_of_ours_gives_our_output(opset, params):
    written = to_onnx(params, opset=opset)
    agree(run_onnx(written, opset, IMAGES)[0], params.inference(IMAGES), 1e-6)
    agree(from_onnx(written, opset=opset).inference(IMAGES), params.inference(IMAGES))


@pytest.mark.parametrize("opset", [1, 6, 7, 8, 9, 13, 14, 15])
def test_onnx_nodes_have_the_names_and_attributes_of_their_opset(opset):
    schema = onnx.defs.get_schema("BatchNormalization", opset, "")
    written = to_onnx(FIRST, opset=opset)
    attributes = set(written) - {i.name for i in schema.inputs}
    assert attributes == set(schema.attributes)
    assert set(written) - attributes == {i.name for i in schema.inputs} - {"X"}
    defaults = [schema.attributes[n].default_value.f for n in ("epsilon", "momentum")]
    bare = {n: v for n, v in written.items() if n not in ("epsilon", "momentum")}
    read = from_onnx(bare, opset=opset)
    agree([read.epsilon, read.momentum], defaults, 1e-6)


def test_onnx_9_as_its_reference_evaluator_has_it():
    """The evaluator blends the batch in even for one output, which is inference. The formula is
    seen where the batch has no weight."""
    written = to_onnx(replace(FIRST, momentum=1.0), opset=9)
    agree(run_onnx(written, 9, IMAGES)[0], FIRST.inference(IMAGES), 1e-6)
    written = to_onnx(FIRST, opset=9)
    assert np.abs(run_onnx(written, 9, IMAGES)[0] - FIRST.inference(IMAGES)).max() > 0.1


@pytest.mark.parametrize("opset", [14, 15])
def test_onnx_training_step(opset):
    written = to_onnx(FIRST, opset=opset) | {"training_mode": 1}
    y, mean, variance = run_onnx(written, opset, IMAGES, outputs=3)
    ours = from_onnx(written | {"training_mode": 0}, opset=opset).layer()
    agree(ours(IMAGES, training=True), y, 1e-6)
    agree(ours.population.mean, mean, 1e-6)
    agree(ours.population.variance, variance, 1e-6)


NODE = {"scale": GAMMA, "B": BETA, "mean": MEAN, "var": VARIANCE}


@pytest.mark.parametrize(
    ("change", "opset", "message"),
    [
        ({}, 1, "is_test must be 1.*got 0"),
        ({}, 6, "is_test must be 1.*got 0"),
        ({"is_test": 1}, 7, r"unknown: \['is_test'\]"),
        ({"spatial": 1}, 9, r"unknown: \['spatial'\]"),
        ({}, 14, r"missing: \['input_mean', 'input_var'\]"),
        ({}, 0, "opset must be a whole number from 1; got 0"),
        ({}, "9", "opset must be a whole number from 1; got '9'"),
        (
            {name: np.ones((3, 2, 5)) for name in NODE} | {"spatial": 0},
            7,
            r"with spatial=0 got \(3, 2, 5\).*Reshape X to \(N, C\*H\*W\)",
        ),
    ],
)
def test_onnx_nodes_that_mean_something_else_are_refused(change, opset, message):
    with pytest.raises(ValueError, match=message):
        from_onnx(NODE | change, opset=opset)


def test_onnx_training_mode_is_refused():
    node = to_onnx(FIRST) | {"training_mode": 1}
    with pytest.raises(ValueError, match=r"training_mode must be 0.*got 1"):
        from_onnx(node, opset=15)


def test_onnx_spatial_0_with_flattened_statistics_is_read():
    """For X of shape (N, C) both kinds are the same."""
    assert from_onnx(NODE | {"spatial": 0}, opset=7) == from_onnx(NODE, opset=9)


# Caffe: its layer, simulated from its source


class Caffe:
    """BatchNorm and Scale as batch_norm_layer.cpp and scale_layer.cpp have them."""

    def __init__(self, values):
        self.blobs = [np.array(blob, float) for blob in values["BatchNorm"]]
        self.scale = values.get("Scale", [])
        self.eps, self.fraction = values["eps"], values["moving_average_fraction"]

    def __call__(self, x, *, use_global_stats):
        if use_global_stats:
            factor = self.blobs[2][0]
            share = 0 if factor == 0 else 1 / factor
            mean, variance = self.blobs[0] * share, self.blobs[1] * share
        else:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            m = x.size // x.shape[1]
            corrected = variance * (m / (m - 1) if m > 1 else 1)
            self.blobs[2] = self.blobs[2] * self.fraction + 1
            self.blobs[0] = mean + self.fraction * self.blobs[0]
            self.blobs[1] = corrected + self.fraction * self.blobs[1]
        each = (1, -1, 1, 1)
        y = (x - mean.reshape(each)) / np.sqrt(variance.reshape(each) + self.eps)
        for operation, blob in zip((np.multiply, np.add), self.scale, strict=False):
            y = operation(y, blob.reshape(each))
        return y


def caffe_values(caffe):
    scale = {"Scale": caffe.scale} if caffe.scale else {}
    settings = {"eps": caffe.eps, "moving_average_fraction": caffe.fraction}
    return {"BatchNorm": caffe.blobs, **settings, **scale}


@pytest.mark.parametrize("momentum", [0.8, None])
@pytest.mark.parametrize(
    "affine",
    [{}, {"gamma": None, "beta": None}, {"beta": None}],
    ids=["both", "none", "gamma"],
)
def test_caffe_to_bnlib_and_back(momentum, affine):
    params = replace(
        BESSEL, momentum=momentum, updates=4 * (momentum is None), **affine
    )
    caffe = Caffe(to_caffe(params))
    assert len(caffe.scale) == sum(p is not None for p in (params.gamma, params.beta))
    agree(caffe(IMAGES, use_global_stats=True), params.inference(IMAGES))
    ours = params.layer()
    for step in range(3):  # one average, not two halves: the factor was right
        x = IMAGES + step
        agree(caffe(x, use_global_stats=False), ours(x, training=True))
    agree(caffe(IMAGES, use_global_stats=True), ours(IMAGES, training=False))
    read = from_caffe(caffe_values(caffe))
    agree(read.moving_mean, ours.population.mean)
    agree(read.moving_variance, ours.population.variance)
    assert read.updates == ours.population.updates * (momentum is None)


def test_caffe_sums_are_divided_by_their_weight():
    caffe = Caffe(
        to_caffe(BESSEL) | {"BatchNorm": [np.zeros(3), np.zeros(3), np.zeros(1)]}
    )
    unweighted = {"BatchNorm": [MEAN, VARIANCE, np.zeros(1)]}
    for values in (
        caffe_values(caffe),
        unweighted,
    ):  # divided by 0 they are 0, as in Caffe
        assert not from_caffe(values).moving_mean.any()
        assert not from_caffe(values).moving_variance.any()
    caffe(IMAGES, use_global_stats=False)
    read = from_caffe(caffe_values(caffe))
    agree(
        read.moving_mean, IMAGES.mean((0, 2, 3))
    )  # debiased: the first batch counts in full
    agree(read.moving_variance, IMAGES.var((0, 2, 3), ddof=1))


def test_caffe_defaults_and_old_shapes():
    blobs = [
        a.reshape(1, 3, 1, 1).astype(np.float32) for a in (10 * MEAN, 10 * VARIANCE)
    ]
    params = from_caffe({"BatchNorm": [*blobs, np.full((1, 1, 1, 1), 10, np.float32)]})
    agree(params.moving_mean, MEAN, 1e-6)
    assert params.moving_mean.dtype == np.float32
    assert (params.epsilon, params.momentum, params.gamma) == (1e-5, 0.999, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"BatchNorm": [MEAN, VARIANCE]}, "BatchNorm must have 3 blobs; got 2"),
        ({"Scale": [GAMMA, BETA, BETA]}, "Scale must have 1 or 2 blobs; got 3"),
        ({"epsilon": 1e-5}, r"unknown: \['epsilon'\]"),
    ],
)
def test_caffe_blobs_that_are_not_caffes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        from_caffe({"BatchNorm": [MEAN, VARIANCE, np.ones(1)]} | change)


@pytest.mark.parametrize("change", [{"momentum": 1.0}, {"momentum": None}])
def test_caffe_refuses_an_average_that_it_cannot_keep(change):
    with pytest.raises(
        ValueError, match="momentum below 1, or None after at least one"
    ):
        to_caffe(replace(BESSEL, **change))


# tf.contrib, Flax, MXNet


def test_contrib_keeps_bessels_variance_unless_it_is_not_fused():
    """Recorded where tf_slim, the last of tf.contrib, ran: [1, 2, 3, 4] in 2-D, decay 0.9."""
    values = {"beta": [0.0], "moving_mean": [0.0], "moving_variance": [1.0]}
    values |= {"decay": 0.9, "epsilon": 1e-3}
    x = np.array([[1.0], [2.0], [3.0], [4.0]])
    for fused, recorded in [(None, 1.0666667), (False, 1.025)]:
        layer = from_contrib(values | {"fused": fused}).layer()
        layer(x, training=True)
        agree(layer.population.variance, [recorded], 1e-6)


def test_contrib_refuses_what_it_does_not_know():
    values = to_contrib(LAST)
    assert values["data_format"] == "NHWC"
    with pytest.raises(ValueError, match="data_format must be NHWC or NCHW; got 'NCW'"):
        from_contrib(values | {"data_format": "NCW"})
    with pytest.raises(ValueError, match="moving_mean/local_step"):
        from_contrib(values | {"moving_mean/local_step": 3})


def test_mxnet_gamma_counts_as_1_when_it_is_fixed():
    values = to_mxnet(FIRST) | {"fix_gamma": True}
    params = from_mxnet(values)
    agree(params.inference(IMAGES), replace(FIRST, gamma=None).inference(IMAGES))
    assert np.array_equal(to_mxnet(params)["gamma"], np.ones(3))
    assert to_mxnet(params)["fix_gamma"] is True


def test_flax_collections():
    written = to_flax(LAST)
    assert set(written["params"]) == {"scale", "bias"}
    assert from_flax(written) == LAST
    assert from_flax(to_flax(replace(LAST, gamma=None))).gamma is None
    with pytest.raises(
        ValueError, match=r"missing: \['var'\], unknown: \['variance'\]"
    ):
        from_flax(written | {"batch_stats": {"mean": MEAN, "variance": VARIANCE}})


# All of them


PAIRS = {
    "Keras 3": (from_keras, to_keras, LAST),
    "Keras 2": (
        lambda v: from_keras(v, version=2),
        lambda p, **k: to_keras(p, version=2, **k),
        LAST,
    ),
    "Keras 2, fused": (
        lambda v: from_keras(v, version=2, fused=True),
        lambda p, **k: to_keras(p, version=2, fused=True, **k),
        replace(LAST, bessel=True),
    ),
    "PyTorch": (from_torch, to_torch, BESSEL),
    "Caffe": (from_caffe, to_caffe, BESSEL),
    "contrib": (from_contrib, to_contrib, LAST),
    "contrib, fused, NCHW": (from_contrib, to_contrib, BESSEL),
    "Flax": (from_flax, to_flax, LAST),
    "MXNet": (from_mxnet, to_mxnet, FIRST),
}
for opset in (1, 7, 9, 14, 15):
    PAIRS[f"ONNX {opset}"] = (
        lambda v, opset=opset: from_onnx(v, opset=opset),
        lambda p, opset=opset, **k: to_onnx(p, opset=opset, **k),
        FIRST,
    )


@st.composite
def layers(draw):
    """Fields of a layer: odd channel counts, float32 or float64, any decimal momentum."""
    channels = draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    numbers = st.floats(-1e3, 1e3, width=32)
    vector = lambda elements: np.array(  # noqa: E731
        draw(st.lists(elements, min_size=channels, max_size=channels)), dtype
    )
    return {
        "moving_mean": vector(numbers),
        "moving_variance": vector(st.floats(0, 1e3, width=32)),
        "gamma": vector(numbers),
        "beta": vector(numbers),
        "epsilon": draw(st.sampled_from([1e-3, 1e-5, 0.0, 0.1])),
        "momentum": draw(st.integers(0, 999)) / 1000,
    }


@pytest.mark.parametrize("name", PAIRS)
@given(fields=layers())
def test_round_trip(name, fields):
    """to(from(x)) == x, exactly; for Caffe, which multiplies and divides, up to rounding."""
    read, write, habits = PAIRS[name]
    params = replace(habits, **fields)
    values = write(params)
    again = write(read(values))
    rtol = 1e-6 if name == "Caffe" else 0
    agree(again, values, rtol)
    if name != "Caffe":
        assert read(values) == params


@pytest.mark.parametrize("name", PAIRS)
def test_every_framework_gives_the_same_output(name):
    read, write, habits = PAIRS[name]
    x = IMAGES if habits.axis == 1 else np.moveaxis(IMAGES, 1, -1)
    y = read(write(habits)).inference(x)
    first = y if habits.axis == 1 else np.moveaxis(y, -1, 1)
    agree(first, FIRST.inference(IMAGES))


LOSSES = [
    ("Keras 3", {"bessel": True}, "bessel"),
    ("Keras 2", {"bessel": True}, "bessel"),
    ("Keras 2, fused", {"bessel": False}, "bessel"),
    ("PyTorch", {"bessel": False}, "bessel"),
    ("PyTorch", {"axis": -1}, "axis"),
    ("PyTorch", {"gamma": None}, "gamma"),
    ("Caffe", {"bessel": False}, "bessel"),
    ("Caffe", {"axis": -1}, "axis"),
    ("Caffe", {"gamma": None}, "gamma"),
    ("contrib", {"axis": 2}, "axis"),
    ("Flax", {"bessel": True}, "bessel"),
    ("MXNet", {"bessel": True}, "bessel"),
    ("MXNet", {"beta": None}, "beta"),
    ("ONNX 15", {"bessel": True}, "bessel"),
    ("ONNX 15", {"axis": -1}, "axis"),
]


@pytest.mark.parametrize(("name", "change", "lost"), LOSSES)
def test_a_loss_is_refused_until_it_is_accepted(name, change, lost):
    _, write, habits = PAIRS[name]
    params = replace(habits, **change)
    words = rf"got {lost}=.*lose=\['{lost}'\]"
    if lost == "bessel":  # it changes no output
        with pytest.warns(UserWarning, match=words):
            assert write(params)
    else:
        with pytest.raises(ValueError, match=words):
            write(params)
    assert write(params, lose=[lost])


@pytest.mark.parametrize("name", ["Keras 3", "contrib", "Flax", "MXNet", "ONNX 15"])
def test_no_momentum_is_invented(name):
    _, write, habits = PAIRS[name]
    with pytest.raises(ValueError, match=r"needs a momentum; got None.*replace"):
        write(replace(habits, momentum=None))


REQUIRED = [(name, key) for name, (_, write, p) in PAIRS.items() for key in write(p)]
OPTIONAL = {
    "PyTorch": {"weight", "bias", "num_batches_tracked"},
    "Caffe": {"Scale", "eps", "moving_average_fraction"},
    "contrib": {"gamma", "beta", "data_format", "fused"},
    "contrib, fused, NCHW": {"gamma", "beta", "data_format", "fused"},
    "Flax": {"params", "axis"},
    "MXNet": {"axis"},
    "ONNX 1": {"spatial", "consumed_inputs", "epsilon", "momentum"},
    "ONNX 7": {"spatial", "epsilon", "momentum"},
    "ONNX 9": {"epsilon", "momentum"},
    "ONNX 14": {"training_mode", "epsilon", "momentum"},
    "ONNX 15": {"training_mode", "epsilon", "momentum"},
}


@pytest.mark.parametrize(("name", "key"), REQUIRED)
def test_a_missing_name_is_refused_unless_the_framework_has_a_default(name, key):
    read, write, habits = PAIRS[name]
    values = {k: v for k, v in write(habits).items() if k != key}
    if key in OPTIONAL.get(name, ()):
        assert isinstance(read(values), BNParams)
        return
    with pytest.raises(ValueError, match=rf"missing: \['{key}'\]|is_test must be 1"):
        read(values)


@pytest.mark.parametrize("name", [n for n in PAIRS if not n.startswith("Keras")])
def test_an_unknown_name_and_a_list_are_refused(name):
    read, write, habits = PAIRS[name]
    with pytest.raises(ValueError, match=r"unknown: \['gama'\]"):
        read(write(habits) | {"gama": GAMMA})
    with pytest.raises(TypeError, match="must be a dict by name; got list"):
        read([MEAN, VARIANCE])


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ({"weights": [MEAN, VARIANCE]}, {}, r"\['gamma', 'beta', .* got 2 arrays"),
        ({"axis": [1, 2]}, {}, r"axis must be one axis; got \[1, 2\]"),
        ({}, {"version": 1}, "version must be 2, or 3 without fused; got version=1"),
        ({}, {"fused": True}, "version must be 2, or 3 without fused"),
    ],
)
def test_keras_values_that_do_not_fit_are_refused(values, settings, message):
    with pytest.raises(ValueError, match=message):
        from_keras(to_keras(LAST) | values, **settings)


# Which parameter is wrong

SWAPPED = {"gamma": BETA, "beta": GAMMA}
WRONG = [
    ({"momentum": 0.2}, "momentum is 0.2, and was 0.8: each is 1 minus the other"),
    ({"momentum": 0.7}, "momentum is 0.7, and was 0.8"),
    ({"momentum": None}, "momentum is None, and was 0.8"),
    ({"epsilon": 1e-3}, "epsilon is 0.001, and was 0.01"),
    (SWAPPED, "gamma holds beta, and beta holds gamma: they are swapped"),
    ({"gamma": None}, "gamma is missing"),
    ({"beta": 0 * BETA}, "beta is 0 everywhere"),
    ({"beta": MEAN}, "beta holds what was moving_mean"),
    ({"moving_mean": MEAN[::-1]}, "moving_mean has its channels in another order"),
    ({"moving_variance": VARIANCE**0.5}, "moving_variance holds the deviation"),
    ({"moving_variance": VARIANCE**-0.5}, "moving_variance holds 1 / deviation"),
    ({"moving_variance": 5 * VARIANCE}, "moving_variance is 5 times what it was"),
    ({"moving_mean": MEAN + np.eye(3)[2] / 2}, "moving_mean differs by up to 0.5"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_compare_names_the_layer_and_its_wrong_parameter(change, words):
    source = {"bn1": FIRST, "bn2": FIRST}
    assert compare(source, source) == []
    findings = compare(source, source | {"bn2": replace(FIRST, **change)})
    assert len(findings) == 1
    assert findings[0].startswith(f"bn2: {words}")


def test_compare_finds_several_and_forgives_rounding_and_habits():
    rounded = replace(
        FIRST, moving_mean=MEAN.astype(np.float32), epsilon=float(np.float32(0.01))
    )
    assert compare({"bn": FIRST}, {"bn": rounded}) == []
    assert compare({"bn": FIRST}, {"bn": replace(LAST, bessel=True)}) == []
    both = replace(FIRST, epsilon=0.1, momentum=0.2)
    assert len(compare({"bn": FIRST}, {"bn": both})) == 2
    fewer = BNParams(MEAN[:2], VARIANCE[:2], epsilon=0.01, momentum=0.8)
    (finding,) = compare({"bn": FIRST}, {"bn": fewer})
    assert finding == "bn: there are 2 channels, and were 3"
    with pytest.raises(
        ValueError, match=r"only in source: \['bn1'\], only in target: \['norm'\]"
    ):
        compare({"bn1": FIRST}, {"norm": FIRST})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epsilon": 1e-5}, "epsilon should be 0.01"),
        (SWAPPED, "gamma and beta should be swapped"),
        ({"moving_variance": VARIANCE**0.5}, "moving_variance should be squared"),
        ({"moving_variance": VARIANCE**-0.5}, "moving_variance should be inverted"),
        (
            {"moving_mean": 5 * MEAN, "moving_variance": 5 * VARIANCE},
            "moving_mean and moving_variance should be divided by 5",
        ),
        (
            {"moving_mean": 999.982 * MEAN, "moving_variance": 999.982 * VARIANCE},
            "moving_mean and moving_variance should be divided by 999.982",
        ),
        (
            {"moving_mean": MEAN / 8, "moving_variance": VARIANCE / 8},
            "moving_mean and moving_variance should be multiplied by 8",
        ),
    ],
)
def test_explain_finds_the_change_that_mends_the_outputs(change, words):
    y = run_onnx(to_onnx(FIRST), 15, IMAGES)[0]  # what another library answers
    found = explain(replace(FIRST, **change), IMAGES, y)
    assert len(found) == 1
    assert found[0].startswith(words)
    assert explain(FIRST, IMAGES, y) == ["nothing is wrong"]


def test_explain_finds_a_parameter_too_many_and_says_when_it_finds_nothing():
    y = replace(FIRST, gamma=None).inference(IMAGES)
    assert explain(FIRST, IMAGES, y) == ["gamma should be left out"]
    assert explain(replace(FIRST, beta=BETA + np.eye(3)[1]), IMAGES, y) == []
    apart = {"moving_mean": 5 * MEAN, "moving_variance": 6 * VARIANCE}  # no one factor
    assert explain(replace(FIRST, gamma=None, **apart), IMAGES, y) == []


def test_explain_fits_a_factor_past_dead_channels_and_in_float32():
    dead = {"gamma": [0.0, -0.5, 3.0], "moving_variance": [1.0, 0.0, 0.2]}
    right, factor = replace(FIRST, **dead), 993.3
    x = IMAGES.astype(np.float32)
    y = right.inference(x).astype(np.float32)
    sums = {"moving_mean": factor * MEAN}
    sums["moving_variance"] = factor * right.moving_variance
    words = "moving_mean and moving_variance should be divided by 993.3"
    assert explain(replace(right, **sums), x, y) == [words]
    still = np.ones_like(IMAGES) * np.array([1.0, 2, 3])[:, np.newaxis, np.newaxis]
    wrong = replace(FIRST, moving_mean=MEAN + 1)
    assert explain(wrong, still, FIRST.inference(still)) == []
    with pytest.raises(ValueError, match=r"same shape; got \(7, 3, 2, 5\) and"):
        explain(FIRST, IMAGES, np.moveaxis(y, 1, -1))
    with pytest.raises(ValueError, match="y must vary"):
        explain(FIRST, IMAGES, np.ones_like(IMAGES))


# The files of chapter 12


def test_files_are_what_their_makers_write(tmp_path):
    """Caffe's and ONNX's, made anew from PyTorch's numbers, and PyTorch's own answer to them."""
    from benchmarks import files

    for name in ("digits.safetensors", "answers.safetensors"):
        shutil.copy(trained_file(name), tmp_path / name)
    state = files.read_safetensors(tmp_path / "digits.safetensors")
    answers = files.read_safetensors(tmp_path / "answers.safetensors")["fc"]
    model = files.network().eval()
    model.load_state_dict({name: torch.tensor(v) for name, v in state.items()})
    images = files.images()[2]
    with torch.no_grad():
        got = model(torch.tensor(images)).numpy()
    assert np.abs(got - answers).max() < 1e-5 * answers.std()
    assert np.abs(files.write_onnx(tmp_path) - answers).max() < 1e-5 * answers.std()
    files.write_caffe(tmp_path)
    for name in ("digits.prototxt", "digits.caffemodel"):
        assert load(tmp_path / name) == load(trained_file(name))
    assert len(load(trained_file("digits.prototxt")).layer) == 14
    norm = load(trained_file("digits.prototxt")).layer[1].batch_norm_param
    assert norm.eps == np.float32(1e-5)  # not in the text: Caffe's default
    ours = onnx.load(trained_file("digits.onnx"))
    assert onnx.load(tmp_path / "digits.onnx").graph == ours.graph


def test_a_file_that_is_not_there_names_those_that_are():
    with pytest.raises(FileNotFoundError, match=r"no file 'x.pt'.*digits\.h5"):
        trained_file("x.pt")


# The factor, and the table


@pytest.mark.parametrize("count", [2, 3, 1568])
def test_variance_factor(count):
    x = friendly((count, 1))
    plain, corrected = x.var(), x.var(ddof=1)
    agree(variance_factor(count, source=False, target=True), corrected / plain)
    agree(variance_factor(count, source=True, target=False), plain / corrected)
    assert variance_factor(count, source=True, target=True) == 1
    assert variance_factor(count, source=False, target=False) == 1


def test_variance_factor_needs_two_values():
    with pytest.raises(ValueError, match=r"count must be at least 2.*got 1"):
        variance_factor(1, source=False, target=True)
    with pytest.raises(TypeError, match=r"count must be one whole number; got 2.5"):
        variance_factor(2.5, source=True, target=False)


ROWS = {row.framework: row for row in CONVENTIONS}


def test_the_table_is_well_formed():
    assert len(ROWS) == len(CONVENTIONS) >= 12
    for row in CONVENTIONS:
        assert row.weight_of in ("old", "new")
        assert row.first_batch in ("blended", "debiased", "replaces")
        assert row.evidence in ("tested", "run", "read")
        assert 0 < row.epsilon < 0.01
        assert row.keep is None or 0.9 <= row.keep < 1
    tested = {row.framework for row in CONVENTIONS if row.evidence == "tested"}
    assert tested == {"Keras 3", "PyTorch", "ONNX"}  # the three tests below


def habits(params):
    """What two records of one framework must agree on."""
    return params.epsilon, params.momentum, params.axis, params.bessel


def test_the_row_of_keras():
    row, layer = ROWS["Keras 3"], keras.layers.BatchNormalization()
    layer.build((7, 3))
    theirs = from_keras(keras_values(layer))
    assert habits(theirs) == (row.epsilon, row.keep, row.axis, row.bessel)
    x = friendly((7, 3))
    layer(x, training=True)
    blended = row.keep * 0 + (1 - row.keep) * x.mean(0)
    agree(np.asarray(layer.moving_mean), blended, 1e-5)
    assert locked("keras").startswith(row.version)


def test_the_row_of_torch():
    row, layer = ROWS["PyTorch"], torch.nn.BatchNorm1d(3)
    assert layer.momentum == row.momentum
    assert row.weight_of == "new"
    theirs = from_torch(torch_values(layer))
    assert habits(theirs) == (row.epsilon, row.keep, row.axis, row.bessel)
    x = friendly((7, 3), np.float32)
    layer(torch.tensor(x))
    agree(layer.running_mean.numpy(), 0.1 * x.mean(0), 1e-5)
    agree(layer.running_var.numpy(), 0.9 + 0.1 * x.var(0, ddof=1), 1e-5)
    assert locked("torch").startswith(row.version)


def test_the_row_of_onnx():
    row = ROWS["ONNX"]
    x, zeros, ones = friendly((7, 3)), np.zeros(3), np.ones(3)
    node = {"scale": ones, "B": zeros, "input_mean": zeros, "input_var": ones}
    theirs = from_onnx(node, opset=15)
    assert habits(theirs) == (row.epsilon, row.keep, row.axis, row.bessel)
    _, mean, variance = run_onnx(node | {"training_mode": 1}, 15, x, outputs=3)
    agree(mean, 0.1 * x.mean(0), 1e-6)
    agree(variance, 0.9 + 0.1 * x.var(0), 1e-6)


# Our own layer in Keras


def our_layer(shape=(7, 3), **settings):
    layer = BatchNormalization(dtype="float64", **settings)
    layer.build(shape)
    rng = np.random.default_rng(0)
    layer.set_weights(
        [*(rng.uniform(0.5, 2, 3) for _ in range(4)), *layer.get_weights()[4:]]
    )
    return layer


@pytest.mark.parametrize("settings", [{"bessel": True}, {"momentum": None}, {}])
def test_our_layer_to_bnlib_and_back_loses_nothing(settings):
    layer, x = our_layer(**settings), friendly((7, 3))
    layer(x + 1, training=True)
    params = from_keras(keras_values(layer))
    assert params.bessel is bool(settings.get("bessel"))
    assert params.updates == (1 if "momentum" in settings else 0)
    written = to_keras(params, ours=True)
    weights = written.pop("weights")
    fresh = BatchNormalization(dtype="float64", **written)
    fresh.build(x.shape)
    fresh.set_weights(weights)
    population = params.layer()
    for each in (layer, fresh):
        each(x, training=True)
    population(x, training=True)
    agree(fresh.get_weights(), layer.get_weights())
    agree(population.population.variance, np.asarray(layer.moving_variance))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"zero_debias": True},
            r"zero_debias must be False; got True.*first 4 of the weights",
        ),
        ({"virtual_batch_size": 2}, "virtual_batch_size must be None; got 2: .*groups"),
    ],
)
def test_what_only_our_layer_does_is_refused(settings, words):
    layer = our_layer(**settings)
    values = keras_values(layer)
    with pytest.raises(ValueError, match=words):
        from_keras(values)
    bare = values | dict.fromkeys(settings) | {"weights": values["weights"][:4]}
    x = friendly((7, 3))
    agree(from_keras(bare).inference(x), np.asarray(layer(x)))  # as the error says


def test_bessel_is_lost_with_a_warning_that_names_our_layer():
    params = from_torch(torch_layer())
    with pytest.warns(
        UserWarning, match=r"bnlib.keras.BatchNormalization has it.*ours=True"
    ):
        to_keras(params)
    assert to_keras(params, ours=True)["bessel"]
    with pytest.raises(ValueError, match="version must be 3 for bnlib"):
        to_keras(params, version=2, fused=True, ours=True)


def test_torch_trains_on_as_our_layer_does():
    """Nothing is lost on the way from PyTorch to our layer, in training neither."""
    layer, x = torch_layer(eps=0.1, momentum=0.3), IMAGES
    written = to_keras(from_torch(layer), ours=True)
    weights = written.pop("weights")
    twin = BatchNormalization(dtype="float64", **written)
    twin.build(x.shape)
    twin.set_weights(weights)
    y = layer.train()(torch.tensor(x)).detach().numpy()
    agree(np.asarray(twin(x, training=True)), y, 1e-10)
    agree(np.asarray(twin.moving_variance), layer.running_var.numpy(), 1e-10)


# What users have: modules, state dicts of models, scopes


@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(
    "kind", [torch.nn.BatchNorm1d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm]
)
def test_a_torch_module_is_read_as_its_values_are(kind, momentum):
    layer = torch_layer(kind, eps=0.1, momentum=momentum)
    assert from_torch(layer) == from_torch(torch_values(layer))
    assert from_torch(layer.state_dict(), eps=0.1, momentum=momentum) == from_torch(
        layer
    )


def torch_model():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 1, dtype=torch.float64),
        torch_layer(),
        torch.nn.Sequential(torch_layer(), torch.nn.ReLU()),
    )


@pytest.mark.parametrize("prefix", ["2.0", "2.0."])
def test_a_layer_of_a_torch_model_is_chosen_by_its_prefix(prefix):
    model = torch_model()
    model[2][0].weight.data *= 3
    settings = {"eps": 1e-5, "momentum": 0.1}
    state = model.state_dict()
    chosen = from_torch(state, prefix=prefix, **settings)
    assert chosen == from_torch(model[2][0])
    assert chosen == from_torch(state | settings, prefix=prefix)
    assert chosen != from_torch(model[1])
    alone = {name: v for name, v in state.items() if name.startswith("2.0.")}
    assert from_torch(alone, **settings) == chosen


def test_other_things_of_torch_are_refused_in_words():
    model, settings = torch_model(), {"eps": 1e-5, "momentum": 0.1}
    with pytest.raises(
        ValueError, match=r"of several. Choose one of '1', '2.0': pass prefix='1'"
    ):
        from_torch(model.state_dict(), **settings)
    with pytest.raises(
        ValueError, match=r"prefix must be .*; got '0'. There are '1', '2.0'"
    ):
        from_torch(model.state_dict(), prefix="0", **settings)
    with pytest.raises(ValueError, match=r"got '0'. There is none"):
        from_torch(torch_layer().state_dict(), prefix="0", **settings)
    with pytest.raises(
        ValueError, match=r"got Sequential. Pass one of its layers.*1, 2.0"
    ):
        from_torch(model)
    with pytest.raises(ValueError, match=r"got ReLU. It has none"):
        from_torch(torch.nn.ReLU())
    with pytest.raises(
        ValueError, match="InstanceNorm2d, which normalises each example alone"
    ):
        from_torch(torch.nn.InstanceNorm2d(3, track_running_stats=True))
    with pytest.raises(ValueError, match=r"unknown: \['epsilon'\]"):
        from_torch(torch_layer(), epsilon=1e-3)


def test_torch_tensors_of_16_bits_are_read():
    layer = torch_layer().to(torch.bfloat16)
    params = from_torch(layer)
    assert params.gamma.dtype == np.float32
    agree(params.gamma, layer.weight.detach().float().numpy())


SETTINGS = {"decay": 0.9, "epsilon": 1e-3}
STORED = {
    "gamma": GAMMA,
    "beta": BETA,
    "moving_mean": MEAN,
    "moving_variance": VARIANCE,
}


@pytest.mark.parametrize("scope", ["block1/bn", "resnet/conv1/BatchNorm", "bn"])
@pytest.mark.parametrize("end", ["", ":0", "/.ATTRIBUTES/VARIABLE_VALUE"])
def test_names_with_a_scope_are_read(scope, end):
    values = {f"{scope}/{name}{end}": v for name, v in STORED.items()}
    expected = from_contrib(STORED | SETTINGS)
    assert from_contrib(values | SETTINGS) == expected
    assert (
        from_contrib({f"{n}{end}": v for n, v in STORED.items()} | SETTINGS) == expected
    )
    others = {f"fc/{name}{end}": 2 * v for name, v in STORED.items()}
    others["conv/kernel" + end] = GAMMA
    both = values | others | SETTINGS
    for chosen in (scope, f"{scope}/"):
        assert from_contrib(both, scope=chosen) == expected
    assert from_contrib(both, scope="fc") != expected
    with pytest.raises(
        ValueError, match=rf"of several. Choose one of '{scope}', 'fc': pass scope="
    ):
        from_contrib(both)
    with pytest.raises(ValueError, match=rf"got 'conv'. There are '{scope}', 'fc'"):
        from_contrib(both, scope="conv")


def test_a_scope_with_more_in_it_than_batch_norm_is_not_guessed():
    values = {f"block/{n}": v for n, v in STORED.items()} | SETTINGS
    expected = from_contrib(STORED | SETTINGS)
    assert from_contrib(values | {"block/kernel:0": GAMMA}) == expected
    assert from_contrib(values | {"block/gamma/Adam": GAMMA}, scope="block") == expected
    renorm = values | {"block/renorm_mean": MEAN}
    with pytest.raises(ValueError, match=r"Choose one of 'block'"):
        from_contrib(renorm)
    with pytest.raises(ValueError, match=r"unknown: \['renorm_mean'\]"):
        from_contrib(renorm, scope="block")
    debiased = values | {"block/block/moving_mean/biased:0": MEAN}
    for scope in (None, "block"):
        with pytest.raises(ValueError, match=r"zero_debias.*unknown: \['block/block/m"):
            from_contrib(debiased, scope=scope)


def test_keras_values_must_be_a_dict():
    with pytest.raises(
        TypeError, match="Keras values must be a dict by name; got list"
    ):
        from_keras([MEAN, VARIANCE])
