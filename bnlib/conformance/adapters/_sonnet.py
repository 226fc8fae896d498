"""An adapter for Sonnet, on TensorFlow."""

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting


class Sonnet(Adapter):
    """`sonnet.BatchNorm`.

    Statistics that are put in are for inference: its averages forget where they start.
    """

    debiased = True

    def __init__(self, setting: Setting) -> None:
        import sonnet
        import tensorflow as tf

        self.tf, self.setting = tf, setting
        last = setting.axis % setting.ndim == setting.ndim - 1
        asked = {"create_scale": True, "create_offset": True, "eps": setting.epsilon}
        asked |= {"decay_rate": setting.momentum}
        asked["data_format"] = "channels_last" if last else "channels_first"
        self.layer = sonnet.BatchNorm(**asked)
        self.shape = [1] * setting.ndim
        self.shape[setting.axis] = setting.channels
        example = tf.zeros(self.shape, setting.dtype)
        self.layer(example, is_training=False)
        for variable, value in zip(self._affine(), setting.vectors(), strict=True):
            value = value.reshape(variable.shape).astype(setting.dtype)
            variable.assign(value)
        self.set_state(np.zeros(setting.channels), np.ones(setting.channels))

    def _affine(self):
        return self.layer.scale, self.layer.offset

    def _moving(self):
        return self.layer.moving_mean.average, self.layer.moving_variance.average

    def forward(self, x, training):
        """Call the layer in the mode."""
        return self.layer(self.tf.constant(x), is_training=training).numpy()

    def _first(self, x, grad_y):
        inputs = [x, *self._affine()]
        with self.tf.GradientTape() as tape:
            tape.watch(x)
            y = self.layer(x, is_training=True)
        return tape.gradient(y, inputs, grad_y)

    def gradient(self, x, grad_y):
        """Differentiate with a tape."""
        grads = self._first(*map(self.tf.constant, (x, grad_y)))
        grad_x, *others = (grad.numpy() for grad in grads)
        return grad_x, *(each.ravel() for each in others)

    def second_derivative(self, x, grad_y, direction):
        """Differentiate a tape with a tape."""
        x, grad_y, direction = map(self.tf.constant, (x, grad_y, direction))
        with self.tf.GradientTape() as outer:
            outer.watch(x)
            grad_x = self._first(x, grad_y)[0]
        return outer.gradient(grad_x, x, direction).numpy()

    def state(self):
        """Return the averages."""
        return tuple(variable.numpy().ravel() for variable in self._moving())

    def set_state(self, moving_mean, moving_variance):
        """Replace the averages."""
        values = (moving_mean, moving_variance)
        for variable, value in zip(self._moving(), values, strict=True):
            variable.assign(value.reshape(variable.shape))
