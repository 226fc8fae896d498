"""An adapter for functions on TensorFlow's tensors."""

import inspect
from collections.abc import Callable
from typing import Any

from bnlib._extras import needed
from bnlib.conformance._adapter import Adapter, Setting


class TensorFlow(Adapter):
    """Two functions on tensors; `bnlib.tf_ops` has such.

    Args:
        setting: what a check asks for.
        training: called as `training(x, gamma, beta, axis=, epsilon=)`. It returns y, or a tuple
            that begins with y. Default `bnlib.tf_ops.batch_norm`.
        inference: called as `inference(x, mean, variance, gamma, beta, axis=, epsilon=)`. Default
            `bnlib.tf_ops.batch_norm_inference`.
    """

    def __init__(
        self,
        setting: Setting,
        training: Callable[..., Any] | None = None,
        inference: Callable[..., Any] | None = None,
    ) -> None:
        with needed("bnlib.conformance.adapters.TensorFlow", "tf"):
            import tensorflow as tf

            from bnlib import tf_ops

        self.tf, self.known = tf, None
        self.training = training or tf_ops.batch_norm
        self.inference = inference or (
            None if training else tf_ops.batch_norm_inference
        )
        wide = "float64" if setting.dtype == "float64" else "float32"
        self.vectors = [tf.constant(v, wide) for v in setting.vectors()]
        self.options = {"axis": setting.axis, "epsilon": setting.epsilon}

    def forward(self, x, training):
        """Call the function of the mode."""
        x = self.tf.constant(x)
        if training:
            return self._train(x, *self.vectors).numpy()
        if self.inference is None or self.known is None:
            raise NotImplementedError
        return self.inference(x, *self.known, *self.vectors, **self.options).numpy()

    def _train(self, x, *vectors, **more):
        y = self.training(x, *vectors, **self.options, **more)
        return y[0] if isinstance(y, tuple) else y

    def gradient(self, x, grad_y):
        """Differentiate with a tape."""
        x, grad_y = map(self.tf.constant, (x, grad_y))
        with self.tf.GradientTape() as tape:
            tape.watch([x, *self.vectors])
            y = self._train(x, *self.vectors)
        return tuple(g.numpy() for g in tape.gradient(y, [x, *self.vectors], grad_y))

    def second_derivative(self, x, grad_y, direction):
        """Differentiate a tape with a tape."""
        x, grad_y, direction = map(self.tf.constant, (x, grad_y, direction))
        with self.tf.GradientTape() as outer:
            outer.watch(x)
            with self.tf.GradientTape() as inner:
                inner.watch(x)
                y = self._train(x, *self.vectors)
            grad_x = inner.gradient(y, x, grad_y)
        return outer.gradient(grad_x, x, direction).numpy()

    def masked(self, x, mask):
        """Take the mask as weights, where the function has some."""
        if "weights" not in inspect.signature(self.training).parameters:
            raise NotImplementedError
        return self._train(self.tf.constant(x), *self.vectors, weights=mask).numpy()

    def set_state(self, moving_mean, moving_variance):
        """Keep the statistics for inference."""
        dtype = self.vectors[0].dtype
        both = (moving_mean, moving_variance)
        self.known = [self.tf.constant(value, dtype) for value in both]
