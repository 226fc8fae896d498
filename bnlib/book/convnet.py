"""The book's convolutional network in Keras: chapters 9 to 12 train it.

It is the network of `bnlib.book.network.convolutional`, and starts from the same weights, so that
what Part I found in NumPy can be found again here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bnlib._extras import needed
from bnlib.book import network
from bnlib.book.data import digits

with needed("bnlib.book.convnet", "tf"):
    import keras

__all__ = ["as_images", "convolutional", "patient"]


def as_images(dtype: str = "float32") -> tuple[np.ndarray, ...]:
    """Load the digits as images for a convolution, with pixels from 0 to 1.

    Args:
        dtype: of the images.

    Returns:
        x_train `(1347, 8, 8, 1)`, y_train `(1347,)`, x_test `(450, 8, 8, 1)`, y_test `(450,)`.

    >>> as_images()[2].shape
    (450, 8, 8, 1)
    """
    data = digits()
    x_train, x_test = (
        (x[..., np.newaxis] / 16).astype(dtype) for x in (data.x_train, data.x_test)
    )
    return x_train, data.y_train, x_test, data.y_test


def convolutional(
    seed: int = 0,
    norm: Callable[[], Any] | None = keras.layers.BatchNormalization,
    *,
    shape: tuple[int, int, int] = (8, 8, 1),
    dtype: Any = None,
) -> Any:
    """Make the book's convolutional network: three convolutions of 8, 16 and 32 channels.

    The last two have stride 2. Behind each comes a batch norm, called `norm_1` to `norm_3`, and a
    ReLU; then the mean of each map and a dense layer with ten logits. Each convolution has a border
    of one zero on all sides, which is not Keras's "same" where the stride is 2.

    Args:
        seed: of the weights: those of `bnlib.book.network.convolutional(seed)`, if the shape has
            one channel.
        norm: called without arguments for each batch norm layer, as in
            `norm=lambda: BatchNormalization(momentum=0.9)`; None for a network without, whose
            convolutions have a bias.
        shape: of one image, `(H, W, D)`.
        dtype: of the layers, or a policy such as "mixed_float16"; default Keras's own.

    Returns:
        A `keras.Sequential` that takes `(N, H, W, D)` and gives logits `(N, 10)`, not compiled.
    """
    rng, inputs = np.random.default_rng(seed), shape[-1]
    twin = network.convolutional(seed, None)
    kernels = [
        each.parameters for each in twin.layers if isinstance(each, network.Conv2D)
    ]
    model = keras.Sequential([keras.Input(shape)])
    for place, (filters, stride) in enumerate([(8, 1), (16, 2), (32, 2)], start=1):
        model.add(keras.layers.ZeroPadding2D(1, dtype=dtype))
        layer = keras.layers.Conv2D(
            filters, 3, stride, use_bias=not norm, dtype=dtype, name=f"conv_{place}"
        )
        model.add(layer)
        kernel = kernels[place - 1]["kernel"]
        if kernel.shape[2] != inputs:
            kernel = rng.normal(0, (2 / (9 * inputs)) ** 0.5, (3, 3, inputs, filters))
        layer.kernel.assign(kernel)
        if norm:
            made = norm()
            made.name = f"norm_{place}"
            model.add(made)
        model.add(keras.layers.ReLU(dtype=dtype))
        inputs = filters
    model.add(keras.layers.GlobalAveragePooling2D(dtype=dtype))
    head = keras.layers.Dense(10, dtype=dtype, name="head")
    model.add(head)
    head.kernel.assign(twin.layers[-1].parameters["kernel"])
    return model


def patient(
    seed: int,
    *,
    axis: int = -1,
    momentum: float = 0.9,
    dropout: float = 0.0,
    **call: bool,
) -> Any:
    """Make the network of chapter 15, and train it on the digits: well, or with faults.

    Args:
        seed: of the weights and of the order of the images.
        axis: of the first batch norm layer.
        momentum: of all of them.
        dropout: the rate of a dropout layer before the third.
        **call: `training=True`, if it is wired into the call of the second.

    Returns:
        A compiled `keras.Model` that takes `(N, 8, 8, 1)`; its `history` is that of `fit`.
    """
    keras.utils.set_random_seed(seed)
    inputs = h = keras.Input((8, 8, 1))
    for k, (filters, stride) in enumerate([(8, 1), (16, 2), (32, 2)], start=1):
        h = keras.layers.Conv2D(filters, 3, stride, padding="same", name=f"conv_{k}")(h)
        norm = keras.layers.BatchNormalization(
            axis if k == 1 else -1, momentum, name=f"norm_{k}"
        )
        h = keras.layers.ReLU()(norm(h, **call) if k == 2 else norm(h))
        if k == 2 and dropout:
            h = keras.layers.Dropout(dropout, name="dropout")(h)
    h = keras.layers.GlobalAveragePooling2D()(h)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(h), name="patient")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5), loss, metrics=["accuracy"])
    x_train, y_train, *_ = as_images(keras.config.floatx())
    model.fit(x_train, y_train, batch_size=64, epochs=8, verbose=0)
    return model
