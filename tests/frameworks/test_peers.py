"""bnlib against independent libraries: output, gradient and state, in every layout they share.

TensorFlow, Keras, PyTorch and ONNX's reference evaluator. They are required: a missing one fails.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from onnx.backend.test.case import node
from onnx.backend.test.case.node import batch_normalization  # noqa: F401, fills the list below
from onnx.reference import ReferenceEvaluator
from samples import friendly

from bnlib import (
    BatchNorm,
    Cumulative,
    Exponential,
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    batch_norm_inference_backward,
    moments,
)

GAMMA, BETA = np.array([2.0, -0.5, 3.0]), np.array([1.0, 10.0, -4.0])
MEAN, VARIANCE = np.array([0.5, 1.0, -2.0]), np.array([1.0, 4.0, 0.2])
LAST = [(7, 3), (2, 5, 3), (2, 5, 7, 3), (2, 3, 5, 7, 3)]
FIRST = [(7, 3), (2, 3, 5), (2, 3, 5, 7), (2, 3, 5, 7, 2)]
TOLERANCE = {"float64": 1e-11, "float32": 2e-5}


def data(shape, dtype="float64", axis=-1):
    x = np.moveaxis(friendly((*np.delete(shape, axis), shape[axis])), -1, axis)
    grad_y = np.random.default_rng(3).standard_normal(shape)
    return np.ascontiguousarray(x, dtype), grad_y.astype(dtype)


def agree(got, expected, dtype="float64"):
    expected = np.asarray(expected, np.float64)
    atol = TOLERANCE[dtype] * max(1, np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=0, atol=atol)


# TensorFlow.


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", LAST)
def test_tensorflow_ops_and_gradient_tape(shape, dtype):
    x, grad_y = data(shape, dtype)
    tensors = [tf.constant(a, dtype) for a in (x, GAMMA, BETA)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        mean, variance = tf.nn.moments(tensors[0], list(range(len(shape) - 1)))
        y = tf.nn.batch_normalization(
            tensors[0],
            mean,
            variance,
            offset=tensors[2],
            scale=tensors[1],
            variance_epsilon=1e-3,
        )
        loss = tf.reduce_sum(y * grad_y)
    got = batch_norm(x, GAMMA, BETA)
    for ours, theirs in zip(got, (y, mean, variance), strict=True):
        agree(ours, theirs, dtype)
    for ours, theirs in zip(
        batch_norm_backward(grad_y, x, GAMMA), tape.gradient(loss, tensors), strict=True
    ):
        agree(ours, theirs, dtype)


@pytest.mark.parametrize("shape", LAST)
def test_tensorflow_weighted_moments(shape):
    x, _ = data(shape)
    weights = np.linspace(0.5, 2, shape[0])
    beside = weights.reshape((-1,) + (1,) * (len(shape) - 1))
    mean, variance = tf.nn.weighted_moments(x, list(range(len(shape) - 1)), beside)
    got = moments(x, weights=weights)
    agree(got.mean, mean)
    agree(got.variance, variance)


def test_tensorflow_gradient_through_the_returned_statistics():
    x, grad_y = data((7, 3))
    grad_mean, grad_variance = GAMMA, BETA
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        mean, variance = tf.nn.moments(tensor, [0])
        y = tf.nn.batch_normalization(tensor, mean, variance, None, GAMMA, 1e-3)
        loss = tf.reduce_sum(y * grad_y) + tf.reduce_sum(mean * grad_mean)
        loss += tf.reduce_sum(variance * grad_variance)
    grad_x, _, _ = batch_norm_backward(
        grad_y, x, GAMMA, grad_mean=grad_mean, grad_variance=grad_variance
    )
    agree(grad_x, tape.gradient(loss, tensor))


@pytest.mark.parametrize("inside", [True, False])
def test_tf_cond_updates_at_test_time_only_if_the_update_is_made_outside(inside):
    """The old recipe of graph mode: what matters is where `ema.apply` is called."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float64, (None, 3))
        training = v1.placeholder(tf.bool, ())
        moments_now = list(v1.nn.moments(x, [0]))
        average = v1.train.ExponentialMovingAverage(decay=0.5)
        outside = None if inside else average.apply(moments_now)

        def update():
            with tf.control_dependencies([outside or average.apply(moments_now)]):
                return [tf.identity(value) for value in moments_now]

        mean, _ = v1.cond(
            training, update, lambda: [average.average(value) for value in moments_now]
        )
        (kept,) = (v for v in v1.global_variables() if "moments/Squeeze/" in v.name)
        session.run(v1.global_variables_initializer())
        session.run(mean, {x: friendly((8, 3)), training: True})
        before = session.run(kept)
        session.run(mean, {x: friendly((8, 3)) + 500, training: False})
        moved = np.abs(session.run(kept) - before).max()
    assert (moved == 0) if inside else (moved > 200)


def test_the_average_of_the_tf_cond_recipe_starts_at_zero_even_for_the_variance():
    """Chapter 6 writes it as shadow = decay * shadow + (1 - decay) * batch, from 0."""
    v1, shadow = tf.compat.v1, np.zeros((2, 3))
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float64, (None, 3))
        moments_now = list(v1.nn.moments(x, [0]))
        average = v1.train.ExponentialMovingAverage(decay=0.5)
        update = average.apply(moments_now)
        kept = [average.average(value) for value in moments_now]
        session.run(v1.global_variables_initializer())
        for seed in range(3):
            agree(shadow, session.run(kept))
            batch = friendly((8, 3), seed=seed)
            session.run(update, {x: batch})
            shadow = 0.5 * shadow + 0.5 * np.array([batch.mean(0), batch.var(0)])
        agree(shadow, session.run(kept))


# Keras: the layer, several steps of it, with its state.


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("shape", [(8, 3, 3), (4, 3, 5, 3), (7, 3)])
def test_keras_layer_output_gradient_and_state(shape, axis):
    theirs = keras.layers.BatchNormalization(axis=axis, momentum=0.9, dtype="float64")
    theirs.build(shape)
    theirs.gamma.assign(GAMMA)
    theirs.beta.assign(BETA)
    ours = BatchNorm(3, axis=axis, momentum=0.9)
    ours.gamma[:], ours.beta[:] = GAMMA, BETA
    for step in range(3):
        x = friendly(shape, seed=step)
        grad_y = np.random.default_rng(step).standard_normal(shape)
        tensor = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            y = theirs(tensor, training=True)
            loss = tf.reduce_sum(y * grad_y)
        expected = tape.gradient(loss, [tensor, theirs.gamma.value, theirs.beta.value])
        agree(ours(x, training=True), y)
        agree(ours.backward(grad_y), expected[0])
        agree(ours.gradients["gamma"], expected[1])
        agree(ours.gradients["beta"], expected[2])
    mean, variance, _ = ours.population.value()
    agree(mean, theirs.moving_mean)
    agree(variance, theirs.moving_variance)  # Keras 3 keeps the biased variance
    agree(ours(x, training=False), theirs(x, training=False))


def test_keras_layer_default_arguments():
    theirs = keras.layers.BatchNormalization()
    ours = BatchNorm(3)
    assert (theirs.axis, theirs.momentum, theirs.epsilon) == (
        ours.axis,
        ours.population.momentum,
        ours.epsilon,
    )
    assert (theirs.center, theirs.scale) == (
        ours.beta is not None,
        ours.gamma is not None,
    )


# PyTorch: momentum is the complement, the running variance has Bessel's factor.

TORCH = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
TORCH[5] = torch.nn.BatchNorm3d


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", FIRST)
def test_pytorch_output_gradient_and_running_statistics(shape, dtype, momentum):
    theirs = TORCH[len(shape)](3, momentum=momentum, dtype=getattr(torch, dtype))
    population = (
        Cumulative(3, bessel=True)
        if momentum is None
        else Exponential(3, 0.9, bessel=True)
    )
    ours = BatchNorm(3, axis=1, epsilon=1e-5, population=population)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(GAMMA))
        theirs.bias.copy_(torch.tensor(BETA))
    ours.gamma[:], ours.beta[:] = GAMMA, BETA
    for step in range(3):
        x, grad_y = data(shape, dtype, axis=1)
        x = x + np.asarray(step, dtype)
        tensor = torch.tensor(x, requires_grad=True)
        theirs.zero_grad()
        y = theirs(tensor)
        y.backward(torch.tensor(grad_y))
        agree(ours(x, training=True), y.detach(), dtype)
        agree(ours.backward(grad_y), tensor.grad, dtype)
        agree(ours.gradients["gamma"], theirs.weight.grad, dtype)
        agree(ours.gradients["beta"], theirs.bias.grad, dtype)
    mean, variance, _ = ours.population.value()
    agree(mean, theirs.running_mean, dtype)
    agree(variance, theirs.running_var, dtype)
    agree(ours(x, training=False), theirs.eval()(tensor).detach(), dtype)


def test_pytorch_inference_gradient():
    x, grad_y = data((2, 3, 5, 7), axis=1)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, GAMMA, BETA)]
    y = torch.nn.functional.batch_norm(
        tensors[0], torch.tensor(MEAN), torch.tensor(VARIANCE), *tensors[1:], eps=1e-3
    )
    y.backward(torch.tensor(grad_y))
    agree(batch_norm_inference(x, MEAN, VARIANCE, GAMMA, BETA, axis=1), y.detach())
    got = batch_norm_inference_backward(grad_y, x, MEAN, VARIANCE, GAMMA, axis=1)
    for ours, tensor in zip(got, tensors, strict=True):
        agree(ours, tensor.grad)


# ONNX: its reference evaluator, and the node cases that it ships.


def onnx_batch_norm(x, scale, bias, mean, variance, **attributes):
    outputs = ["y", "mean", "variance"][: 3 if attributes.get("training_mode") else 1]
    inputs = {"x": x, "s": scale, "b": bias, "m": mean, "v": variance}
    node = onnx.helper.make_node(
        "BatchNormalization", list(inputs), outputs, **attributes
    )
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        [node],
        "bn",
        [
            onnx.helper.make_tensor_value_info(n, kind, a.shape)
            for n, a in inputs.items()
        ],
        [onnx.helper.make_tensor_value_info(n, kind, None) for n in outputs],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 15)]
    )
    return ReferenceEvaluator(model).run(None, inputs)


@pytest.mark.parametrize("shape", FIRST)
def test_onnx_inference(shape):
    x, _ = data(shape, axis=1)
    (y,) = onnx_batch_norm(x, GAMMA, BETA, MEAN, VARIANCE, epsilon=1e-5)
    agree(batch_norm_inference(x, MEAN, VARIANCE, GAMMA, BETA, axis=1, epsilon=1e-5), y)


@pytest.mark.parametrize("shape", FIRST)
def test_onnx_training_with_its_running_statistics(shape):
    x, _ = data(shape, axis=1)
    y, mean, variance = onnx_batch_norm(
        x, GAMMA, BETA, MEAN, VARIANCE, epsilon=1e-5, momentum=0.9, training_mode=1
    )
    ours, batch_mean, batch_variance = batch_norm(x, GAMMA, BETA, axis=1, epsilon=1e-5)
    agree(ours, y)
    agree(0.9 * MEAN + 0.1 * batch_mean, mean, "float32")  # it keeps 0.9 as a float32
    biased = 0.9 * VARIANCE + 0.1 * batch_variance  # as the specification says
    agree(biased, variance, "float32")


PUBLISHED = [c for c in node._NodeTestCases if c.name.startswith("test_batchnorm")]


def test_there_are_onnx_node_cases():
    names = {case.name for case in PUBLISHED}
    assert {"test_batchnorm_example", "test_batchnorm_epsilon_training_mode"} <= names


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_onnx_node_case(case):
    (operator,) = case.model.graph.node
    attributes = {
        a.name: onnx.helper.get_attribute_value(a) for a in operator.attribute
    }
    ((x, gamma, beta, mean, variance), expected) = case.data_sets[0]
    options = {"axis": 1, "epsilon": attributes.get("epsilon", 1e-5)}
    if not attributes.get("training_mode"):
        y = batch_norm_inference(x, mean, variance, gamma, beta, **options)
        agree(y, expected[0], "float32")
        return
    y, batch_mean, batch_variance = batch_norm(x, gamma, beta, **options)
    keep = attributes.get("momentum", 0.9)
    agree(y, expected[0], "float32")
    agree(keep * mean + (1 - keep) * batch_mean, expected[1], "float32")
    agree(keep * variance + (1 - keep) * batch_variance, expected[2], "float32")


# PyTorch's other norms: the same formula, averaged over other axes.


@pytest.mark.parametrize("norm", ["instance", "layer", "group"])
def test_the_other_norms_of_pytorch(norm):
    x, grad_y = data((4, 6, 5, 7))
    rng = np.random.default_rng(5)
    shape = (6, 5, 7) if norm == "layer" else (6,)
    gamma, beta = rng.standard_normal((2, *shape))
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, gamma, beta)]
    functional = torch.nn.functional
    if norm == "instance":
        theirs = functional.instance_norm(
            tensors[0], None, None, *tensors[1:], eps=1e-3
        )
        axis, axes, split = 1, (2, 3), x.shape
    elif norm == "layer":
        theirs = functional.layer_norm(tensors[0], shape, *tensors[1:], eps=1e-3)
        axis, axes, split = (1, 2, 3), (1, 2, 3), x.shape
    else:
        theirs = functional.group_norm(tensors[0], 2, *tensors[1:], eps=1e-3)
        axis, axes, split = (1, 2), (2, 3, 4), (4, 2, 3, 5, 7)
    theirs.backward(torch.tensor(grad_y))

    x, grad_y = x.reshape(split), grad_y.reshape(split)
    if norm == "group":
        gamma, beta = gamma.reshape(2, 3), beta.reshape(2, 3)
    y, mean, variance = batch_norm(x, gamma, beta, axis=axis, axes=axes)
    agree(y.reshape(theirs.shape), theirs.detach())
    grads = batch_norm_backward(
        grad_y, x, gamma, axis=axis, axes=axes, statistics=(mean, variance)
    )
    for grad, tensor in zip(grads, tensors, strict=True):
        agree(grad.reshape(tensor.shape), tensor.grad)
