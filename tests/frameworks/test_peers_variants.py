"""bnlib.variants against independent libraries, in output and gradient.

Keras, PyTorch and ONNX's node cases: a missing one fails. Flax where it is installed.
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
from onnx.backend.test.case.node import (  # noqa: F401, they fill the list of cases
    groupnormalization,
    instance_normalization,
    layernormalization,
    rmsnormalization,
)

import bnlib.keras
from bnlib import variants

TOLERANCE = {"float64": 1e-11, "float32": 2e-5}


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def data(shape, features, dtype="float64"):
    """Draw x, the gradient with respect to y, gamma and beta."""
    x, grad_y = 3 + 2 * normal(shape), normal(shape, 1)
    gamma, beta = 1 + normal((2, *features), 2)
    return [value.astype(dtype) for value in (x, grad_y, gamma, beta)]


def agree(got, expected, dtype="float64"):
    expected = np.asarray(expected, np.float64)
    assert np.shape(got) == expected.shape
    atol = TOLERANCE[dtype] * max(1, np.abs(expected).max())
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=0, atol=atol)


def all_agree(got, expected, dtype="float64"):
    for one, other in zip(got, expected, strict=True):
        agree(one, other, dtype)


# Keras: layers in training mode.

KERAS = {
    "layer": (
        lambda **options: keras.layers.LayerNormalization(**options),
        lambda *vectors, **options: variants.layer_norm(*vectors, **options),
        variants.layer_norm_backward,
    ),
    "group": (
        lambda **options: keras.layers.GroupNormalization(2, **options),
        lambda x, *vectors, **options: variants.group_norm(x, 2, *vectors, **options),
        lambda grad_y, x, *gamma, **options: variants.group_norm_backward(
            grad_y, x, 2, *gamma, **options
        ),
    ),
    "instance": (
        lambda **options: keras.layers.GroupNormalization(-1, **options),
        variants.instance_norm,
        variants.instance_norm_backward,
    ),
    "rms": (
        lambda **options: keras.layers.RMSNormalization(**options),
        variants.rms_norm,
        variants.rms_norm_backward,
    ),
}


def value_of(weight):
    return weight.numpy().copy()


def keras_grads(layer, x, grad_y):
    """Return y of a layer, and the gradients of x and of each weight that is trained."""
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        y = layer(tensor, training=True)
        loss = tf.reduce_sum(y * grad_y)
    weights = [weight.value for weight in layer.trainable_weights]
    return y, tape.gradient(loss, [tensor, *weights])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("norm", "shape", "features", "options"),
    [
        ("layer", (4, 6), (6,), {}),
        ("layer", (4, 5, 6), (5, 6), {"axis": (1, 2)}),
        ("layer", (4, 3, 5, 6), (3,), {"axis": 1, "epsilon": 0.1}),
        ("group", (4, 5, 3, 6), (6,), {}),
        ("group", (4, 6, 5, 3), (6,), {"axis": 1, "epsilon": 0.1}),
        ("instance", (4, 5, 3, 6), (6,), {}),
        ("instance", (4, 6, 5), (6,), {"axis": 1}),
        ("rms", (4, 6), (6,), {}),
        ("rms", (4, 5, 6), (5, 6), {"axis": (1, 2), "epsilon": 0.1}),
        # no other axes: Keras 3.15 lays the scale along the last ones, whatever axis says
    ],
)
def test_keras_layers(norm, shape, features, options, dtype):
    layer, forward, backward = KERAS[norm]
    x, grad_y, *vectors = data(shape, features, dtype)
    layer = layer(dtype=dtype, **options)
    layer.build(shape)
    options = {"epsilon": layer.epsilon} | options
    for weight, vector in zip(layer.trainable_weights, vectors, strict=False):
        weight.assign(vector)
    vectors = vectors[: len(layer.trainable_weights)]
    y, grads = keras_grads(layer, x, grad_y)
    agree(forward(x, *vectors, **options), y, dtype)
    all_agree(backward(grad_y, x, vectors[0], **options), grads, dtype)


def test_keras_epsilons_are_those_of_the_docstrings():
    layers = keras.layers
    assert layers.LayerNormalization().epsilon == 1e-3
    assert layers.GroupNormalization().epsilon == 1e-3
    assert layers.GroupNormalization().groups == 32
    assert layers.RMSNormalization().epsilon == 1e-6


MEAN, STDDEV = np.array([3.5, 2.0, 0.0, 3.0]), np.array([1.5, 0.4, 9.0, 2.0])
LIMITS = [{}, {"rmax": 1.5, "rmin": 0.75, "dmax": 0.25}, {"rmax": 1, "dmax": 0}]


@pytest.mark.parametrize("shape", [(8, 4), (5, 3, 2, 4)])
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("whose", ["keras", "bnlib"])
def test_batch_renorm_of_keras_and_of_our_layer(whose, limits, shape):
    """Several steps: each is corrected by what the steps before have left."""
    make = {
        "keras": keras.layers.BatchNormalization,
        "bnlib": bnlib.keras.BatchNormalization,
    }
    layer = make[whose](renorm=True, renorm_clipping=limits, dtype="float64")
    layer.build(shape)
    for step in range(3):
        x, grad_y, gamma, beta = data(shape, (4,))
        x = x + step * normal(4, 7)
        if step == 0:
            layer.gamma.assign(gamma)
            layer.beta.assign(beta)
            layer.renorm_mean.assign(MEAN)
            layer.renorm_stddev.assign(STDDEV)
        known = value_of(layer.renorm_mean), value_of(layer.renorm_stddev)
        point = x, known[0], known[1] ** 2 - 1e-3, gamma
        open_ = {"rmin": 0, "rmax": np.inf, "dmax": np.inf}
        y, grads = keras_grads(layer, x, grad_y)
        ours, batch = variants.batch_renorm(*point, beta, **open_ | limits)
        agree(ours, y)
        backward = variants.batch_renorm_backward(grad_y, *point, **open_ | limits)
        all_agree(backward, grads)
        stddev = np.sqrt(batch.variance + 1e-3)
        keep = layer.renorm_momentum
        agree(keep * known[0] + (1 - keep) * batch.mean, value_of(layer.renorm_mean))
        agree(keep * known[1] + (1 - keep) * stddev, value_of(layer.renorm_stddev))


def test_ghosts_of_our_keras_layer_are_strided():
    """TensorFlow 1 put every third example in a ghost, here neighbours are."""
    x, grad_y, gamma, beta = data((6, 5, 4), (4,))
    layer = bnlib.keras.BatchNormalization(virtual_batch_size=2, dtype="float64")
    layer.build(x.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    y, grads = keras_grads(layer, x, grad_y)
    order = [0, 3, 1, 4, 2, 5]
    agree(variants.ghost_batch_norm(x[order], 2, gamma, beta), y.numpy()[order])
    got = variants.ghost_batch_norm_backward(grad_y[order], x[order], 2, gamma)
    agree(got[0], grads[0].numpy()[order])
    all_agree(got[1:], grads[1:])


@pytest.mark.parametrize("steps", [1, 3])
def test_keras_spectral_normalization(steps):
    """It writes the divided kernel over the kernel, and so divides again at each call."""
    layer = keras.layers.SpectralNormalization(
        keras.layers.Conv2D(4, 3, dtype="float64"), steps, dtype="float64"
    )
    x = normal((2, 6, 6, 3))
    layer.build(x.shape)
    layer.kernel.assign(normal((3, 3, 3, 4), 1))
    layer.vector_u.assign(normal((1, 4), 2))
    for _ in range(2):
        kernel, u = value_of(layer.kernel), value_of(layer.vector_u)[0]
        layer(tf.constant(x), training=True)
        divided, u = variants.spectral_norm(kernel, u, steps=steps)
        agree(divided, value_of(layer.kernel))
        agree(u, value_of(layer.vector_u)[0])


def test_no_gradient_goes_through_the_division_of_keras():
    """What it trains is the kernel already divided: a projection after each step."""
    dense = keras.layers.Dense(4, use_bias=False, dtype="float64")
    layer = keras.layers.SpectralNormalization(dense, dtype="float64")
    x, kernel, u, grad_y = normal((5, 3)), normal((3, 4)), normal(4, 1), normal((5, 4))
    layer.build(x.shape)
    layer.kernel.assign(kernel)
    layer.vector_u.assign(u[np.newaxis])
    _, (_, grad) = keras_grads(layer, x, grad_y)
    agree(grad, x.T @ grad_y)
    ours = variants.spectral_norm_backward(x.T @ grad_y, kernel, u)
    assert np.abs(ours - grad).max() > 1


def test_the_gradient_of_spectral_norm_by_tensorflow():
    """Through the division, with u and v held constant."""
    kernel, grad_y, u = normal((3, 3, 3, 4)), normal((3, 3, 3, 4), 1), normal(4, 2)
    variable = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        weights = tf.reshape(variable, (-1, 4))
        v = tf.linalg.normalize(tf.linalg.matvec(weights, u))[0]
        w = tf.linalg.normalize(tf.linalg.matvec(weights, v, transpose_a=True))[0]
        v, w = tf.stop_gradient(v), tf.stop_gradient(w)
        sigma = tf.reduce_sum(v * tf.linalg.matvec(weights, w))
        loss = tf.reduce_sum(variable / sigma * grad_y)
    got = variants.spectral_norm_backward(grad_y, kernel, u)
    agree(got, tape.gradient(loss, variable))


# PyTorch: channels first.


def torch_grads(function, grad_y, *values):
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    y = function(*tensors)
    y.backward(torch.tensor(grad_y))
    return y.detach(), [tensor.grad for tensor in tensors]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5, 3)])
def test_pytorch_layer_norm(shape, dtype):
    x, grad_y, gamma, beta = data(shape, shape[1:], dtype)
    axis = tuple(range(1, len(shape)))
    y, grads = torch_grads(
        lambda x, gamma, beta: torch.nn.functional.layer_norm(
            x, shape[1:], gamma, beta
        ),
        *(grad_y, x, gamma, beta),
    )
    agree(variants.layer_norm(x, gamma, beta, axis=axis), y, dtype)
    got = variants.layer_norm_backward(grad_y, x, gamma, axis=axis)
    all_agree(got, grads, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3), (2, 6, 3, 2, 4)])
def test_pytorch_instance_norm(shape, dtype):
    x, grad_y, gamma, beta = data(shape, (6,), dtype)
    y, grads = torch_grads(
        lambda x, gamma, beta: torch.nn.functional.instance_norm(
            x, weight=gamma, bias=beta
        ),
        *(grad_y, x, gamma, beta),
    )
    agree(variants.instance_norm(x, gamma, beta, axis=1), y, dtype)
    got = variants.instance_norm_backward(grad_y, x, gamma, axis=1)
    all_agree(got, grads, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 6, 5, 3)])
def test_pytorch_group_norm(shape, groups, dtype):
    x, grad_y, gamma, beta = data(shape, (6,), dtype)
    y, grads = torch_grads(
        lambda x, gamma, beta: torch.nn.functional.group_norm(x, groups, gamma, beta),
        *(grad_y, x, gamma, beta),
    )
    agree(variants.group_norm(x, groups, gamma, beta, axis=1), y, dtype)
    got = variants.group_norm_backward(grad_y, x, groups, gamma, axis=1)
    all_agree(got, grads, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5)])
def test_pytorch_rms_norm(shape, dtype):
    x, grad_y, gamma, _ = data(shape, shape[1:], dtype)
    axis, epsilon = tuple(range(1, len(shape))), float(np.finfo(dtype).eps)
    y, grads = torch_grads(  # whose default epsilon is that of the dtype
        lambda x, gamma: torch.nn.functional.rms_norm(x, shape[1:], gamma),
        *(grad_y, x, gamma),
    )
    options = {"axis": axis, "epsilon": epsilon}
    agree(variants.rms_norm(x, gamma, **options), y, dtype)
    all_agree(variants.rms_norm_backward(grad_y, x, gamma, **options), grads, dtype)


@pytest.mark.parametrize("axis", [0, 1])
def test_pytorch_weight_norm(axis):
    v, grad_kernel = normal((4, 3, 5)), normal((4, 3, 5), 1)
    g = 1 + normal(v.shape[axis], 2)
    beside = [-1 if a == axis else 1 for a in range(3)]
    y, (grad_v, grad_g) = torch_grads(
        lambda v, g: torch._weight_norm(v, g, axis), grad_kernel, v, g.reshape(beside)
    )
    agree(variants.weight_norm(v, g, axis=axis), y)
    got = variants.weight_norm_backward(grad_kernel, v, g, axis=axis)
    all_agree(got, (grad_v, grad_g.ravel()))


def test_pytorch_weight_norm_of_a_layer():
    """As it is used: `dim=0`, the outputs."""
    layer = torch.nn.Linear(5, 3, dtype=torch.float64)
    kernel = layer.weight.detach().numpy().copy()
    torch.nn.utils.parametrizations.weight_norm(layer)
    lengths = np.linalg.norm(kernel, axis=1)
    agree(variants.weight_norm(kernel, lengths, axis=0), layer.weight.detach())


@pytest.mark.parametrize("steps", [1, 3])
def test_pytorch_spectral_norm(steps):
    """Of `torch.nn.utils.spectral_norm`, which steps as the paper does."""
    layer = torch.nn.Conv2d(3, 4, 3, dtype=torch.float64)
    torch.nn.utils.spectral_norm(layer, n_power_iterations=steps)
    x = torch.tensor(normal((2, 3, 6, 6)))
    for _ in range(2):
        kernel = layer.weight_orig.detach().numpy().copy()
        u = layer.weight_u.numpy().copy()
        layer(x)  # in training mode: steps, and divides
        divided, new = variants.spectral_norm(kernel, u, axis=0, steps=steps)
        agree(divided, layer.weight.detach())
        agree(new, layer.weight_u)
        grad_y = normal(kernel.shape, 1)
        layer.weight.backward(torch.tensor(grad_y))
        got = variants.spectral_norm_backward(grad_y, kernel, u, axis=0, steps=steps)
        agree(got, layer.weight_orig.grad)
        layer.weight_orig.grad = None


def test_weight_standardization_as_big_transfer_writes_it():
    """In PyTorch: the biased variance, 1e-10 inside the root."""
    kernel, grad_y = normal((4, 3, 3, 3)), normal((4, 3, 3, 3), 1)

    def theirs(w):
        variance, mean = torch.var_mean(w, dim=[1, 2, 3], keepdim=True, correction=0)
        return (w - mean) / torch.sqrt(variance + 1e-10)

    y, (grad,) = torch_grads(theirs, grad_y, kernel)
    options = {"axis": 0, "epsilon": 1e-10}
    agree(variants.weight_standardization(kernel, **options), y)
    got = variants.weight_standardization_backward(grad_y, kernel, **options)
    agree(got, grad)


def test_scaled_weight_standardization_as_the_authors_write_it():
    """In PyTorch: `max` instead of a sum, so that epsilon changes nothing unless it is met."""
    kernel, grad_y = normal((4, 3, 3, 3)), normal((4, 3, 3, 3), 1)
    gain = 1 + normal(4, 2)

    def theirs(w, gain):
        variance, mean = torch.var_mean(w, dim=[1, 2, 3], keepdim=True, correction=0)
        root = torch.sqrt(torch.clamp(variance * 27, min=1e-4))
        return (w - mean) / root * gain.reshape(-1, 1, 1, 1)

    y, grads = torch_grads(theirs, grad_y, kernel, gain)
    options = {"axis": 0, "epsilon": 0}
    agree(variants.scaled_weight_standardization(kernel, gain, **options), y)
    got = variants.scaled_weight_standardization_backward(
        grad_y, kernel, gain, **options
    )
    all_agree(got, grads)


def test_what_no_library_has_as_pytorch_would_differentiate_it():
    x, grad_y, gamma, beta = data((4, 5, 3, 6), (6,))
    tau, alpha = normal(6, 3), np.array(0.3)

    def frn(x, gamma, beta, tau):
        square = (x * x).mean(dim=(1, 2), keepdim=True)
        return torch.maximum(gamma * x * torch.rsqrt(square + 1e-6) + beta, tau)

    y, grads = torch_grads(frn, grad_y, x, gamma, beta, tau)
    agree(variants.filter_response_norm(x, gamma, beta, tau), y)
    got = variants.filter_response_norm_backward(grad_y, x, gamma, beta, tau)
    all_agree(got, grads)

    def pixel(x):
        return x * torch.rsqrt((x * x).mean(dim=-1, keepdim=True) + 1e-8)

    y, (grad,) = torch_grads(pixel, grad_y, x)
    agree(variants.pixel_norm(x), y)
    agree(variants.pixel_norm_backward(grad_y, x), grad)

    def tanh(x, alpha, gamma, beta):
        return gamma * torch.tanh(alpha * x) + beta

    y, grads = torch_grads(tanh, grad_y, x, alpha, gamma, beta)
    agree(variants.dynamic_tanh(x, alpha, gamma, beta), y)
    all_agree(variants.dynamic_tanh_backward(grad_y, x, alpha, gamma), grads)


# ONNX: the node cases that it ships. Its axis is the first of those averaged over.


def from_axis(x, attributes):
    return tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))


OPERATORS = {
    "LayerNormalization": lambda x, *v, epsilon=1e-5, **a: variants.layer_norm(
        x, *v, axis=from_axis(x, a), epsilon=epsilon
    ),
    "RMSNormalization": lambda x, *v, epsilon=1e-5, **a: variants.rms_norm(
        x, *v, axis=from_axis(x, a), epsilon=epsilon
    ),
    "GroupNormalization": lambda x, *v, epsilon=1e-5, **a: variants.group_norm(
        x, a["num_groups"], *v, axis=1, epsilon=epsilon
    ),
    "InstanceNormalization": lambda x, *v, epsilon=1e-5: variants.instance_norm(
        x, *v, axis=1, epsilon=epsilon
    ),
}


def operator_of(case):
    operators = case.model.graph.node if case.model else ()
    return operators[0] if len(operators) == 1 else None


PUBLISHED = [
    case
    for case in node._NodeTestCases
    if (operator := operator_of(case)) and operator.op_type in OPERATORS
]


def test_there_are_onnx_node_cases():
    assert {operator_of(case).op_type for case in PUBLISHED} == set(OPERATORS)
    assert len(PUBLISHED) > 20


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_onnx_node_case(case):
    operator = operator_of(case)
    attributes = {
        a.name: onnx.helper.get_attribute_value(a) for a in operator.attribute
    }
    inputs, expected = case.data_sets[0]
    agree(OPERATORS[operator.op_type](*inputs, **attributes), expected[0], "float32")


# Flax, which the book does not install.


def test_flax():
    jax, linen = (pytest.importorskip(name) for name in ("jax", "flax.linen"))
    x, grad_y, gamma, beta = data((4, 5, 6), (6,), "float32")
    for layer, norm, *groups in (
        (linen.LayerNorm(), "layer_norm"),
        (linen.InstanceNorm(), "instance_norm"),
        (linen.GroupNorm(2), "group_norm", 2),
        (linen.RMSNorm(), "rms_norm"),
    ):
        vectors = [gamma] if norm == "rms_norm" else [gamma, beta]
        weights = dict(zip(("scale", "bias"), vectors, strict=False))

        def loss(x, weights, layer=layer):
            return (layer.apply({"params": weights}, x) * grad_y).sum()

        y = layer.apply({"params": weights}, x)
        ours = getattr(variants, norm)(x, *groups, *vectors, epsilon=1e-6)
        agree(ours, y, "float32")
        grad_x, grads = jax.grad(loss, argnums=(0, 1))(x, weights)
        backward = getattr(variants, f"{norm}_backward")
        got = backward(grad_y, x, *groups, gamma, epsilon=1e-6)
        all_agree(got, [grad_x, *(grads[name] for name in weights)], "float32")
