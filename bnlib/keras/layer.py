"""A batch norm layer for Keras 3: Keras's own arguments and weights, and what that one lacks.

A thin shell: the mathematics is one call into `bnlib.tf_ops`, the memory a `MovingStatistics`.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras.ops import convert_to_tensor

from bnlib._checks import as_epsilon, as_momentum
from bnlib._typing import Axis
from bnlib.keras import _options, _variables
from bnlib.keras._population import MovingStatistics, renorm_of, values_of
from bnlib.tf_ops import batch_norm_inference, scale_and_shift
from bnlib.tf_ops._checks import as_floating, dims, layout_of, parameters
from bnlib.tf_ops._weights import shares_of_mask
from bnlib.tf_ops.training import train

__all__ = ["BatchNormalization"]


@keras.saving.register_keras_serializable(package="bnlib")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer with every argument, default and weight, and these that are new or right.

    Args:
        axis: the axis that is kept, or a list of axes.
        momentum: weight of the old moving average; None for the plain average of all batches.
        epsilon: guard inside the root.
        renorm: batch renormalization. The moving variance is the moving average of the variance.
        renorm_clipping: limits `rmin`, `rmax`, `dmax`; each a number, or a function of the number
            of batches seen, such as a `keras.optimizers.schedules` object.
        renorm_momentum: momentum of the statistics that renorm corrects by.
        synchronized: whether all replicas of a `tf.distribute` strategy are one batch.
        fused: None uses a fast kernel where it pays, and float64 where its answer has lost digits;
            True takes the answer of TensorFlow's fused kernel as it is; False is float64.
        virtual_batch_size: normalise groups of so many examples (ghost batch norm). As in Keras 2
            group i holds the examples i, i + N/size, ... It must divide the batch, the last one
            too.
        adjustment: function of the input's shape that returns `(scale, bias)`, applied to x_hat
            before gamma and beta in training.
        zero_debias: whether the moving statistics forget their initial 0 and 1.
        bessel: whether the moving variance takes in m / (m - 1) times the batch variance, as
            PyTorch does.
        **kwargs: all other arguments of Keras's layer.

    In a call, `training` says whether to use the statistics of the batch; a frozen layer
    (`trainable=False`) never does, not even in `fit`, which overrides the `training=False` of a
    Functional model. `mask` has the shape of the inputs without `axis`: booleans choose, numbers
    weigh; Keras rounds these to the compute dtype.

    Without `synchronized`, replicas normalise by their own batches, and their moving statistics are
    averaged. A batch without values leaves these alone. One value per channel gives y = beta, a
    warning, and no new variance. Statistics are float32 at least, whatever the dtype policy.

    Raises:
        ValueError: for settings that are out of range, unknown, or contradict each other.

    Paper: Algorithms 1 and 2; renorm: Ioffe (2017).
    """

    def __init__(
        self,
        axis: Axis = -1,
        momentum: float | None = 0.99,
        epsilon: float = 1e-3,
        *args: Any,
        renorm: bool = False,
        renorm_clipping: Mapping[str, Any] | None = None,
        renorm_momentum: float = 0.99,
        fused: bool | None = None,
        virtual_batch_size: int | None = None,
        adjustment: Callable[..., Any] | None = None,
        zero_debias: bool = False,
        bessel: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*[-1, 0.99, 1e-3, *args], renorm=renorm, **kwargs)
        self.axis, self.momentum = _options.as_axis(axis), _options.as_average(momentum)
        self.epsilon = as_epsilon(epsilon)
        self.renorm_momentum = as_momentum(renorm_momentum)
        self.renorm_clipping = _options.as_renorm_clipping(renorm_clipping)
        self.fused, self.virtual_batch_size = fused, virtual_batch_size
        self.adjustment, self.zero_debias, self.bessel = adjustment, zero_debias, bessel
        _options.check(self)

    def build(self, input_shape):
        """Make the weights, in the order and with the names of Keras's layer."""
        kept = _options.within(self.axis, len(input_shape))
        shape = tuple(input_shape[a] for a in kept)
        if None in shape:
            raise ValueError(
                f"axis {self.axis} must have a known size; got inputs of shape "
                f"{tuple(input_shape)}. Give the model's Input its number of channels."
            )
        for name, wanted in (("gamma", self.scale), ("beta", self.center)):
            if wanted:
                setattr(self, name, _variables.parameter(self, name, shape))
        for name in ("moving_mean", "moving_variance"):
            first = getattr(self, f"{name}_initializer")
            setattr(self, name, _variables.statistic(self, name, shape, first))
        self._renorm = renorm_of(self, shape) if self.renorm else None
        self.updates = _variables.counter(self) if _options.counts(self) else None
        self._population = MovingStatistics(self)
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes=dict(zip(kept, shape, strict=True))
        )

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch in training, by the moving statistics otherwise."""
        x = as_floating("inputs", inputs)
        if training and self.trainable:
            y = self._train(x, mask)
        else:
            vectors = self.moving_mean, self.moving_variance, self.gamma, self.beta
            y = batch_norm_inference(x, *vectors, **self._settings(x))
        return tf.cast(y, self.compute_dtype)

    def _settings(self, x):
        axis = _options.within(self.axis, x.shape.rank)
        return {"axis": axis, "epsilon": self.epsilon}

    def _train(self, x, mask):
        """Normalise by the batch, and remember its statistics."""
        direct = not (self.renorm or self.adjustment or self.virtual_batch_size)
        if not direct:  # then x_hat meets several numbers, none of which may be 16 bits
            x = tf.cast(x, keras.backend.result_type(x.dtype, "float32"))
        if self.virtual_batch_size is not None:
            return self._train_groups(x, mask)
        given = (self.gamma, self.beta) if direct else (None, None)
        y, mean, variance, *counts = self._normalize(x, *given, mask)
        batch = tf.stop_gradient(mean), tf.stop_gradient(variance)
        if not direct:
            y = self._corrected(y, *batch)
        self._remember(*batch, *counts)
        return y

    def _normalize(self, x, gamma, beta, mask, axis=None):
        where = layout_of(x, self._settings(x)["axis"] if axis is None else axis)
        share, count = shares_of_mask(mask, x, where)
        if isinstance(count, int) and count == 1:
            warnings.warn(
                f"{self.name} normalises one value per channel: y is beta, whatever x is. "
                "Use larger batches in training.",
                stacklevel=2,
            )
        *results, count = train(
            x,
            *parameters(x, where, gamma, beta),
            where,
            self.epsilon,
            share,
            count,
            fused=self.fused,
            synchronized=self.synchronized,
            through_statistics=False,
        )
        return *results, count, values_of(share, count, where, self.synchronized)

    def _train_groups(self, x, mask):
        """Ghost batch norm: the groups stand along a second axis, which is kept too."""
        if mask is not None:
            raise ValueError(
                "mask cannot be combined with virtual_batch_size: groups would have unequal "
                "counts. Leave one of them out."
            )
        x, kept = _options.check_groups(self, x), self._settings(x)["axis"]
        groups = tf.reshape(x, [self.virtual_batch_size, -1, *dims(x)[1:]])
        axis = (1, *(a + 1 for a in kept))
        y, mean, variance, *counts = self._normalize(groups, None, None, None, axis)
        batch = [tf.stop_gradient(tf.reduce_mean(v, 0)) for v in (mean, variance)]
        y = self._corrected(tf.reshape(y, tf.shape(x)), *batch)
        self._remember(*batch, *counts)
        return y

    def _corrected(self, x_hat, mean, variance):
        """Apply adjustment and renorm to x_hat, then gamma and beta."""
        if self.adjustment is not None:
            both = self.adjustment(tf.shape(x_hat))
            scale, bias = (convert_to_tensor(v, x_hat.dtype) for v in both)
            x_hat = x_hat * scale + bias
        axis = self._settings(x_hat)["axis"]
        if self.renorm:
            r, d = self._renorm.correction(mean, variance, self.updates)
            x_hat = scale_and_shift(x_hat, r, d, axis=axis)
        return scale_and_shift(x_hat, self.gamma, self.beta, axis=axis)

    def _remember(self, mean, variance, count, values):
        self._population.update(mean, variance, count, values)
        if self.renorm:
            self._renorm.update(mean, variance, values)

    def get_config(self):
        """Return what makes the same layer again."""
        return super().get_config() | _options.config_of(self)

    @classmethod
    def from_config(cls, config):
        """Make the layer that `get_config` described."""
        return cls(**_options.from_config(config))
