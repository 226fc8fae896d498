"""Who is timed in `core.py`: batch norm as each library does it, all in float32 on the CPU.

A candidate is a function that imports its library and returns `phases`, which takes a `Batch` and
returns one function without arguments per phase. Where forward and backward cannot be told
apart, both are timed together; else "forward + backward" is their sum.

What the backward pass is given beside x and grad_y: bnlib, the mean and variance that its forward
pass returned; PyTorch, the mean and 1 / root that autograd saved; TensorFlow and JAX, whatever
their own differentiation keeps; the textbook, nothing: it is a function of x, and takes them again.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault(
    "KERAS_BACKEND", "numpy"
)  # Keras's own NumPy code; TensorFlow is timed by itself
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from bnlib import batch_norm, batch_norm_inference, blocks
from bnlib.gradient import batch_norm_backward

EPSILON = 1e-3
PHASES = ("training forward", "training backward", "forward + backward", "inference")


class Batch:
    """One shape's data: float32, channels of unequal mean and scale."""

    def __init__(self, shape, axis):
        rng = np.random.default_rng(0)
        self.shape, self.axis, channels = shape, axis, shape[axis]
        self.axes = tuple(a for a in range(len(shape)) if a != axis % len(shape))
        self.along = [1 if a in self.axes else n for a, n in enumerate(shape)]
        self.mean = rng.uniform(-1, 1, channels).astype("f4")
        self.variance = rng.uniform(0.5, 4, channels).astype("f4")
        self.gamma, self.beta = rng.standard_normal((2, channels)).astype("f4")
        self.x = rng.standard_normal(shape, dtype="f4") * np.sqrt(
            self.wide(self.variance)
        )
        self.x += self.wide(self.mean)
        self.grad_y = rng.standard_normal(shape, dtype="f4")

    def wide(self, vector):
        return vector.reshape(self.along)

    def vectors(self):
        return self.mean, self.variance, self.gamma, self.beta


def bnlib_with(engine):
    blocks.use(engine)  # so that a missing numba is noticed here

    def phases(b):
        _, *statistics = batch_norm(b.x, axis=b.axis, epsilon=EPSILON)

        def run(function, *args, **given):
            def timed():
                blocks.use(engine)
                return function(*args, axis=b.axis, epsilon=EPSILON, **given)

            return timed

        saved = {"statistics": tuple(statistics)}

        return {
            "training forward": run(batch_norm, b.x, b.gamma, b.beta),
            "training backward": run(
                batch_norm_backward, b.grad_y, b.x, b.gamma, **saved
            ),
            "inference": run(batch_norm_inference, b.x, *b.vectors()),
        }

    return phases


def textbook():
    def phases(b):
        gamma, beta = b.wide(b.gamma), b.wide(b.beta)

        def apply(mean, variance):
            return gamma * (b.x - mean) / np.sqrt(variance + EPSILON) + beta

        def statistics_of_x():
            return b.x.mean(axis=b.axes, keepdims=True), b.x.var(
                axis=b.axes, keepdims=True
            )

        def backward():
            mean, variance = statistics_of_x()
            inverse = 1 / np.sqrt(variance + EPSILON)
            x_hat = (b.x - mean) * inverse
            grad_beta = b.grad_y.sum(axis=b.axes, keepdims=True)
            grad_gamma = (b.grad_y * x_hat).sum(axis=b.axes, keepdims=True)
            m = b.x.size // b.gamma.size
            return gamma * inverse * (b.grad_y - (grad_beta + x_hat * grad_gamma) / m)

        return {
            "training forward": lambda: apply(*statistics_of_x()),
            "training backward": backward,
            "inference": lambda: apply(b.wide(b.mean), b.wide(b.variance)),
        }

    return phases


def keras_numpy():
    import keras

    if keras.backend.backend() != "numpy":
        raise ImportError("Keras runs on another backend here")

    def phases(b):
        layer = keras.layers.BatchNormalization(axis=b.axis, epsilon=EPSILON)
        layer.build(b.shape)
        return {
            "training forward": lambda: layer(b.x, training=True),
            "inference": lambda: layer(b.x, training=False),
        }

    return phases


def tensorflow(kind):
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")

    def phases(b):
        fused = kind == "fused op"
        x, grad_y = tf.constant(b.x), tf.constant(b.grad_y)
        if fused and x.ndim == 2:
            x, grad_y = x[:, tf.newaxis, tf.newaxis], grad_y[:, tf.newaxis, tf.newaxis]
        mean, variance, gamma, beta = (
            tf.constant(v if fused else b.wide(v)) for v in b.vectors()
        )

        def fused_op(x, gamma, beta, **given):
            x = (
                tf.transpose(x, (0, 2, 3, 1)) if b.axis == 1 else x
            )  # the CPU has channels last only
            y = tf.compat.v1.nn.fused_batch_norm(
                x, gamma, beta, epsilon=EPSILON, **given
            )[0]
            return tf.transpose(y, (0, 3, 1, 2)) if b.axis == 1 else y

        def forward(x, gamma, beta):
            if fused:
                return fused_op(x, gamma, beta)
            moments = tf.nn.moments(x, b.axes, keepdims=True)
            return tf.nn.batch_normalization(x, *moments, beta, gamma, EPSILON)

        def both(x, gamma, beta, grad_y):
            with tf.GradientTape() as tape:
                tape.watch([x, gamma, beta])
                y = forward(x, gamma, beta)
            return y, tape.gradient(y, [x, gamma, beta], grad_y)

        def inference(x):
            if fused:
                given = {"mean": mean, "variance": variance, "is_training": False}
                return fused_op(x, gamma, beta, **given)
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, EPSILON)

        compiled = (lambda f: f) if kind == "eager" else tf.function
        forward_, both_, inference_ = (
            compiled(forward),
            compiled(both),
            compiled(inference),
        )
        return {
            "training forward": lambda: forward_(x, gamma, beta),
            "forward + backward": lambda: both_(x, gamma, beta, grad_y)[0],
            "inference": lambda: inference_(x),
        }

    return phases


def pytorch(threads):
    import torch

    def phases(b):
        def tensor(array):
            value = torch.from_numpy(array)
            return (
                value.movedim(-1, 1) if b.axis == -1 and value.ndim > 2 else value
            )  # NHWC in memory

        x, grad_y = tensor(b.x).requires_grad_(), tensor(b.grad_y)
        mean, variance, gamma, beta = (torch.from_numpy(v.copy()) for v in b.vectors())
        gamma.requires_grad_(), beta.requires_grad_()

        def forward():
            torch.set_num_threads(threads)
            return torch.nn.functional.batch_norm(
                x, None, None, gamma, beta, True, 0.1, EPSILON
            )

        def inference():
            torch.set_num_threads(threads)
            with torch.no_grad():
                given = (mean, variance, gamma, beta)
                return torch.nn.functional.batch_norm(x, *given, False, 0.1, EPSILON)

        y = forward()

        def backward():
            torch.set_num_threads(threads)
            return torch.autograd.grad(y, [x, gamma, beta], grad_y, retain_graph=True)

        return {
            "training forward": forward,
            "training backward": backward,
            "inference": inference,
        }

    return phases


def jax_jit():
    import jax
    import jax.numpy as jnp

    def phases(b):
        x, grad_y = jnp.asarray(b.x), jnp.asarray(b.grad_y)
        mean, variance, gamma, beta = (jnp.asarray(b.wide(v)) for v in b.vectors())

        def apply(x, mean, variance, gamma, beta):
            return (x - mean) * (gamma / jnp.sqrt(variance + EPSILON)) + beta

        def forward(x, gamma, beta):
            mean, variance = x.mean(b.axes, keepdims=True), x.var(b.axes, keepdims=True)
            return apply(x, mean, variance, gamma, beta)

        def both(x, gamma, beta, grad_y):
            y, pull = jax.vjp(forward, x, gamma, beta)
            return y, pull(grad_y)

        forward_, both_, inference_ = jax.jit(forward), jax.jit(both), jax.jit(apply)
        wait = jax.block_until_ready
        return {
            "training forward": lambda: wait(forward_(x, gamma, beta)),
            "forward + backward": lambda: wait(both_(x, gamma, beta, grad_y)),
            "inference": lambda: wait(inference_(x, mean, variance, gamma, beta)),
        }

    return phases


def copy():
    return lambda b: dict.fromkeys(PHASES, b.x.copy)


CANDIDATES = {
    "textbook NumPy": textbook,
    "bnlib": lambda: bnlib_with("numpy"),
    "bnlib, numba": lambda: bnlib_with("numba"),
    "Keras on NumPy": keras_numpy,
    "tf.nn, eager": lambda: tensorflow("eager"),
    "tf.nn, tf.function": lambda: tensorflow("function"),
    "TensorFlow's fused op": lambda: tensorflow("fused op"),
    "PyTorch, 1 thread": lambda: pytorch(1),
    "PyTorch, 2 threads": lambda: pytorch(2),
    "JAX, jit": jax_jit,
    "copy of x": copy,
}
