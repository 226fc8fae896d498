"""Networks with `tf.nn` alone: chapter 9 builds their batch norm on the page, and trains them.

A `norm` here is a function of the number of channels and a dtype. What it returns is called
`norm(x, training)`, and is a `tf.Module`, so that its variables are found.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from bnlib._extras import needed
from bnlib.book import network
from bnlib.book.network import accuracy, batches

with needed("bnlib.book.tf_network", "tf"):
    import keras
    import tensorflow as tf

from bnlib import tf_ops

__all__ = [
    "Deep",
    "FusedNorm",
    "Network",
    "PlainNorm",
    "SafeNorm",
    "deep_in_keras",
    "singly",
    "train",
]

BORDER = [[0, 0], [1, 1], [1, 1], [0, 0]]  # one zero on all sides of an image
HALVES = 6, 12  # the layers of the deep network that have stride 2


class PlainNorm(tf.Module):
    """Batch norm of TensorFlow's two functions, as the chapter builds it.

    Args:
        channels: on the last axis.
        dtype: of everything.
        momentum: weight of the old average.
        epsilon: guard inside the root.
        update: whether training updates the moving statistics.
    """

    def __init__(
        self,
        channels: int,
        dtype: str = "float32",
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        update: bool = True,
    ) -> None:
        super().__init__()
        self.momentum, self.epsilon, self.update = momentum, epsilon, update
        self.gamma = tf.Variable(tf.ones(channels, dtype))
        self.beta = tf.Variable(tf.zeros(channels, dtype))
        self.moving_mean = tf.Variable(tf.zeros(channels, dtype), trainable=False)
        self.moving_variance = tf.Variable(tf.ones(channels, dtype), trainable=False)

    def __call__(self, x: Any, training: bool) -> Any:
        """Normalise x, shape `(N, ..., C)`."""
        return self.in_training(x) if training else self.in_inference(x)

    def in_training(self, x: Any) -> Any:
        """Normalise by the batch's statistics, and remember them."""
        mean, variance = tf.nn.moments(x, axes=list(range(len(x.shape) - 1)))
        self.remember(mean, variance)
        return tf.nn.batch_normalization(
            x, mean, variance, self.beta, self.gamma, self.epsilon
        )

    def in_inference(self, x: Any) -> Any:
        """Normalise by the moving statistics."""
        moving = self.moving_mean, self.moving_variance
        return tf.nn.batch_normalization(
            x, *moving, self.beta, self.gamma, self.epsilon
        )

    def remember(self, mean: Any, variance: Any) -> None:
        """Let the moving statistics take in those of a batch."""
        if self.update:
            old = self.momentum
            for moving, new in [
                (self.moving_mean, mean),
                (self.moving_variance, variance),
            ]:
                moving.assign(old * moving + (1 - old) * tf.cast(new, moving.dtype))


class FusedNorm(PlainNorm):
    """The same by the fused kernel, for images; the kernel works out the moving statistics.

    Args: as `PlainNorm`.
    """

    def in_training(self, x: Any) -> Any:
        """Normalise by the batch's statistics, and remember them."""
        y, mean, variance, *_ = self._kernel(
            x, is_training=True, exponential_avg_factor=1 - self.momentum
        )
        if self.update:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return y

    def in_inference(self, x: Any) -> Any:
        """Normalise by the moving statistics."""
        return self._kernel(x, is_training=False).y

    def _kernel(self, x, **options):
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.gamma,
            offset=self.beta,
            mean=self.moving_mean,
            variance=self.moving_variance,
            epsilon=self.epsilon,
            **options,
        )


class SafeNorm(PlainNorm):
    """The same by `bnlib.tf_ops`.

    Args: as `PlainNorm`.
    """

    def in_training(self, x: Any) -> Any:
        """Normalise by the batch's statistics, and remember them."""
        y, mean, variance = tf_ops.batch_norm(
            x, self.gamma, self.beta, epsilon=self.epsilon
        )
        self.remember(mean, variance)
        return y

    def in_inference(self, x: Any) -> Any:
        """Normalise by the moving statistics."""
        moving = self.moving_mean, self.moving_variance
        return tf_ops.batch_norm_inference(
            x, *moving, self.gamma, self.beta, epsilon=self.epsilon
        )


class Network(tf.Module):
    """The book's convolutional network, from the start weights of the one in NumPy.

    Args:
        norm: see above.
        seed: of the weights.
        dtype: of everything.
        first: whether a batch norm stands on the input too.
    """

    def __init__(
        self,
        norm: Callable[[int, str], Any],
        seed: int = 0,
        dtype: str = "float64",
        first: bool = False,
    ) -> None:
        super().__init__()
        twin = network.convolutional(seed, None)
        convs = [each for each in twin.layers if isinstance(each, network.Conv2D)]
        self.kernels = [
            tf.Variable(each.parameters["kernel"], dtype=dtype) for each in convs
        ]
        self.norms = [norm(kernel.shape[-1], dtype) for kernel in self.kernels]
        self.head = tf.Variable(twin.layers[-1].parameters["kernel"], dtype=dtype)
        self.bias = tf.Variable(tf.zeros(10, dtype))
        self.first = norm(1, dtype) if first else None

    def __call__(self, x: Any, training: bool) -> Any:
        """Return logits `(N, 10)` for images `(N, 8, 8, 1)`."""
        if self.first:
            x = self.first(x, training)
        for kernel, stride, norm in zip(
            self.kernels, [1, 2, 2], self.norms, strict=True
        ):
            x = tf.nn.conv2d(x, kernel, stride, BORDER)
            x = tf.nn.relu(norm(x, training))
        return tf.reduce_mean(x, [1, 2]) @ self.head + self.bias


class Deep(tf.Module):
    """A deep network after Udacity's lesson: 19 convolutions, 100 units, ten logits.

    Layer k has `width * k` channels; layers 6 and 12 have stride 2.

    Args:
        norm: see above; None for none, and a bias in each layer.
        seed: of the weights.
        deviation: of the weights; None is He's, `sqrt(2 / inputs)`.
        width: how many channels each layer has more than the one before.
        dtype: of everything.
    """

    def __init__(
        self,
        norm: Callable[[int, str], Any] | None,
        seed: int = 0,
        deviation: float | None = 0.05,
        width: int = 2,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        rng, channels = np.random.default_rng(seed), 1
        self.kernels, self.strides, self.norms = [], [], []
        for k in range(1, 20):
            shape = (3, 3, channels, width * k)
            channels = shape[-1]
            self.kernels.append(_weights(rng, shape, deviation, dtype))
            self.strides.append(2 if k in HALVES else 1)
            self.norms.append(norm(channels, dtype) if norm else _Bias(channels, dtype))
        self.hidden = _weights(rng, (channels * 4, 100), deviation, dtype)
        self.norms.append(norm(100, dtype) if norm else _Bias(100, dtype))
        self.head = _weights(rng, (100, 10), deviation, dtype)
        self.bias = tf.Variable(tf.zeros(10, dtype))

    def __call__(self, x: Any, training: bool) -> Any:
        """Return logits `(N, 10)` for images `(N, 8, 8, 1)`."""
        *norms, last = self.norms
        for kernel, stride, norm in zip(self.kernels, self.strides, norms, strict=True):
            x = tf.nn.conv2d(x, kernel, stride, "SAME")
            x = tf.nn.relu(norm(x, training))
        x = tf.reshape(x, [-1, self.hidden.shape[0]]) @ self.hidden
        x = last(x[:, tf.newaxis, tf.newaxis], training)[:, 0, 0]
        return tf.nn.relu(x) @ self.head + self.bias


class _Bias(tf.Module):
    def __init__(self, channels, dtype):
        super().__init__()
        self.bias = tf.Variable(tf.zeros(channels, dtype))

    def __call__(self, x, training):
        return x + self.bias


def _weights(rng, shape, deviation, dtype):
    deviation = deviation or (2 / np.prod(shape[:-1])) ** 0.5
    return tf.Variable(rng.normal(0, deviation, shape), dtype=dtype)


def deep_in_keras(
    normalized: bool, seed: int = 0, momentum: float = 0.9, width: int = 2
) -> Any:
    """Make the network of `Deep` of Keras's layers, with its start weights of deviation 0.05.

    Args:
        normalized: whether it has batch norm.
        seed: of the weights.
        momentum: of the batch norm layers.
        width: how many channels each layer has more than the one before.

    Returns:
        A `keras.Sequential`, not compiled.
    """
    start = keras.initializers.RandomNormal
    seeds = iter(range(1000 * seed, 1000 * seed + 21))

    def options():
        return {
            "use_bias": not normalized,
            "kernel_initializer": start(stddev=0.05, seed=next(seeds)),
        }

    def norm_and_relu():
        if normalized:
            model.add(keras.layers.BatchNormalization(momentum=momentum))
        model.add(keras.layers.ReLU())

    model = keras.Sequential([keras.Input((8, 8, 1))])
    for k in range(1, 20):
        stride = 2 if k in HALVES else 1
        model.add(
            keras.layers.Conv2D(width * k, 3, stride, padding="same", **options())
        )
        norm_and_relu()
    model.add(keras.layers.Flatten())
    model.add(keras.layers.Dense(100, **options()))
    norm_and_relu()
    model.add(keras.layers.Dense(10, **options() | {"use_bias": True}))
    return model


def train(
    net: Any,
    x: np.ndarray,
    y: np.ndarray,
    *,
    steps: int = 210,
    batch: int = 64,
    rate: float = 0.5,
    seed: int = 0,
    adam: bool = False,
) -> None:
    """Train a network of this module, or a Keras model, in a `tf.function` of one step.

    Args:
        net: called `net(x, training=True)`.
        x: examples.
        y: labels.
        steps: of the optimizer.
        batch: examples in a step; what is left over of an epoch is dropped.
        rate: of plain gradient descent, or of Adam.
        seed: of the order.
        adam: whether Adam is used.
    """
    variables = net.trainable_variables
    make = keras.optimizers.Adam if adam else keras.optimizers.SGD
    optimizer = make(rate)
    optimizer.build(variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            logits = net(x, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            )
        optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )

    order = batches(len(x), batch, np.random.default_rng(seed))
    for rows in itertools.islice(order, steps):
        step(tf.constant(x[rows]), tf.constant(y[rows]))


def singly(net: Any, x: np.ndarray, y: np.ndarray, *, training: bool = False) -> float:
    """Return the share of right answers, one example at a time.

    Args:
        net: called `net(x, training=training)`.
        x: examples.
        y: labels.
        training: the mode.

    Returns:
        A number from 0 to 1.
    """
    pairs = ((x[k : k + 1], y[k : k + 1]) for k in range(len(x)))
    return float(np.mean([accuracy(net, *pair, training=training) for pair in pairs]))
