"""An adapter for Keras layers, on whichever backend Keras runs."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bnlib._extras import needed
from bnlib.conformance._adapter import Adapter, Setting

POLICIES = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


class Keras(Adapter):
    """A batch norm layer with the arguments and weights of Keras's.

    Args:
        setting: what a check asks for.
        layer: a class; default `keras.layers.BatchNormalization`, `bnlib.keras` has another.
        **options: further arguments of the layer.
    """

    def __init__(self, setting: Setting, layer: Any = None, **options: Any) -> None:
        with needed("bnlib.conformance.adapters.Keras", "tf"):
            import keras

        self.keras, self.setting = keras, setting
        self.made_by = partial(type(self), setting, layer, **options)
        self.backend = keras.backend.backend()
        if self.backend == "jax" and setting.dtype == "float64":
            import jax

            jax.config.update("jax_enable_x64", True)
        self.shape = [None] * setting.ndim
        self.shape[setting.axis] = setting.channels
        asked = {"axis": setting.axis, "epsilon": setting.epsilon}
        asked |= {"momentum": setting.momentum}
        asked["dtype"] = POLICIES.get(setting.dtype, setting.dtype)
        self._take((layer or keras.layers.BatchNormalization)(**asked | options))
        self.layer.build(self.shape)
        for variable, value in zip(self._affine(), setting.vectors(), strict=True):
            variable.assign(value)

    def _take(self, layer):
        """Hold a layer, and repeat what it says of itself."""
        self.layer = layer
        self.bessel = getattr(layer, "bessel", None)
        self.debiased = getattr(layer, "zero_debias", None) or layer.momentum is None

    def _affine(self):
        return self.layer.gamma, self.layer.beta

    def _moving(self):
        return self.layer.moving_mean, self.layer.moving_variance

    def _tensor(self, x):
        return self.keras.ops.convert_to_tensor(x, dtype=self.setting.dtype)

    def _array(self, tensor):
        """Return a NumPy array of the tensor's own dtype."""
        ops = self.keras.ops
        if self.keras.backend.standardize_dtype(tensor.dtype) != "bfloat16":
            return np.array(ops.convert_to_numpy(tensor))
        import ml_dtypes

        wide = ops.convert_to_numpy(ops.cast(tensor, "float32"))
        return np.asarray(wide, ml_dtypes.bfloat16)

    def forward(self, x, training):
        """Call the layer."""
        return self._array(self.layer(self._tensor(x), training=training))

    def gradient(self, x, grad_y):
        """Differentiate as the backend does."""
        first, _ = _derivatives(self.backend)
        grads = first(self.layer, self._tensor(x), self._tensor(grad_y))
        return tuple(map(self._array, grads))

    def second_derivative(self, x, grad_y, direction):
        """Differentiate twice as the backend does."""
        _, second = _derivatives(self.backend)
        tensors = map(self._tensor, (x, grad_y, direction))
        return self._array(second(self.layer, *tensors))

    def masked(self, x, mask):
        """Call the layer with the mask."""
        mask = self.keras.ops.convert_to_tensor(mask)
        return self._array(self.layer(self._tensor(x), training=True, mask=mask))

    def replicated(self, parts):
        """Make the layer anew under a strategy of logical CPUs, and call it there."""
        if self.backend != "tensorflow" or not self.layer.synchronized:
            raise NotImplementedError("replicas share statistics if synchronized=True")
        from bnlib.replicas import mirrored, per_replica

        try:
            strategy = mirrored(len(parts))
        except RuntimeError as error:
            raise NotImplementedError(str(error)) from error
        with strategy.scope():
            self._take(self.made_by().layer)

        def train(x):
            return self.layer(x, training=True)

        y = strategy.run(train, (per_replica(strategy, parts),))
        return [np.array(each) for each in strategy.experimental_local_results(y)]

    def state(self):
        """Return the moving statistics."""
        return tuple(self._array(variable.value) for variable in self._moving())

    def set_state(self, moving_mean, moving_variance):
        """Assign the moving statistics."""
        values = (moving_mean, moving_variance)
        for variable, value in zip(self._moving(), values, strict=True):
            variable.assign(value)

    def freeze(self):
        """Set `trainable` to False."""
        self.layer.trainable = False

    def reloaded(self):
        """Go through a `.keras` file."""
        models, inputs = self.keras.models, self.keras.Input(self.shape[1:])
        layer = self.layer.__class__
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.keras")
            self.keras.Model(inputs, self.layer(inputs)).save(file)
            loaded = models.load_model(file, custom_objects={layer.__name__: layer})
        other = self.made_by()
        other._take(loaded.layers[-1])
        return other


def _derivatives(backend):
    """Return functions for the first and the second derivative."""
    known = {
        "tensorflow": (_tensorflow_first, _tensorflow_second),
        "torch": (_torch_first, _torch_second),
        "jax": (_jax_first, _jax_second),
    }
    if backend not in known:
        raise NotImplementedError(f"Keras's {backend} backend has no gradients")
    return known[backend]


def _weights(layer):
    return [layer.gamma.value, layer.beta.value]


def _tensorflow_first(layer, x, grad_y):
    import tensorflow as tf

    weights = _weights(layer)
    with tf.GradientTape() as tape:
        tape.watch([x, *weights])
        y = layer(x, training=True)
    return tape.gradient(y, [x, *weights], grad_y)


def _tensorflow_second(layer, x, grad_y, direction):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        grad_x = _tensorflow_first(layer, x, grad_y)[0]
    return tape.gradient(grad_x, x, direction)


def _torch_first(layer, x, grad_y, create_graph=False):
    import torch

    x = x if x.requires_grad else x.clone().requires_grad_()
    y = layer(x, training=True)
    inputs = [x, *_weights(layer)]
    return torch.autograd.grad(y, inputs, grad_y, create_graph=create_graph)


def _torch_second(layer, x, grad_y, direction):
    import torch

    x = x.clone().requires_grad_()
    grad_x = _torch_first(layer, x, grad_y, create_graph=True)[0]
    return torch.autograd.grad(grad_x, x, direction)[0]


def _jax_first(layer, x, grad_y):
    import jax

    moving = [variable.value for variable in layer.non_trainable_variables]

    def call(x, *weights):
        return layer.stateless_call(weights, moving, x, training=True)[0]

    return jax.vjp(call, x, *_weights(layer))[1](grad_y)


def _jax_second(layer, x, grad_y, direction):
    import jax

    return jax.vjp(lambda x: _jax_first(layer, x, grad_y)[0], x)[1](direction)[0]
