"""A batch norm layer for Keras 3: Keras's own arguments and weights, and what that one lacks.

The mathematics is one call into `bnlib.tf_ops`. A mask becomes weights in `masks.py`, the moving
statistics move in `population.py`, and the r and d of renorm come from `renorm.py`.
"""

import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import keras
import tensorflow as tf

from bnlib._checks import as_epsilon, as_momentum
from bnlib._typing import Axis
from bnlib.axes import canonical_axes
from bnlib.keras.masks import shares_of_mask, values_with_weight
from bnlib.keras.population import MovingStatistics, blend
from bnlib.keras.renorm import Renorm, as_clipping, has_schedule, root_of
from bnlib.moments import Moments
from bnlib.tf_ops import batch_norm_inference, scale_and_shift
from bnlib.tf_ops._batch import Batch
from bnlib.tf_ops._checks import as_floating, gamma_and_beta, layouts
from bnlib.tf_ops._shapes import static_or_dynamic_shape
from bnlib.tf_ops.batch_norm import normalize_batch

__all__ = ["BatchNormalization"]

SIXTEEN_BITS = "float16", "bfloat16"  # in which no statistics are kept


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

    # Arguments

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
        self.axis = _as_axis(axis)
        self.momentum = None if momentum is None else as_momentum(momentum)
        self.epsilon = as_epsilon(epsilon)
        self.renorm_momentum = as_momentum(renorm_momentum)
        self.renorm_clipping = as_clipping(renorm_clipping)
        self.fused, self.virtual_batch_size = fused, virtual_batch_size
        self.adjustment, self.zero_debias, self.bessel = adjustment, zero_debias, bessel
        self._check_settings()

    def _check_settings(self):
        """Refuse settings that contradict each other, or that are out of range."""
        if self.momentum is None and self.zero_debias:
            raise ValueError(
                "zero_debias must come with a momentum; got momentum=None, the plain average of "
                "all batches, which has no bias to take out. Leave zero_debias out."
            )
        if self.fused not in (None, True, False):
            raise ValueError(
                f"fused must be None, True or False; got {self.fused!r}. "
                "Use None for a fast kernel where its answer is right."
            )
        self.fused = None if self.fused is None else bool(self.fused)
        size = self.virtual_batch_size
        if size is None:
            return
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(
                f"virtual_batch_size must be a positive integer; got {size!r}. "
                "Use None to normalise the batch as a whole."
            )
        for name in ("renorm", "synchronized", "fused"):
            if getattr(self, name):
                raise ValueError(
                    f"virtual_batch_size cannot be combined with {name}: it makes batches smaller "
                    "than the replica's. Leave one of them out."
                )

    # Weights, in the order and with the names of Keras's layer

    def build(self, input_shape):
        """Make the weights for inputs of a shape, such as `(None, H, W, C)`."""
        self._kept = canonical_axes("axis", self.axis, len(input_shape))
        shape = tuple(input_shape[a] for a in self._kept)
        if None in shape:
            raise ValueError(
                f"axis {self.axis} must have a known size; got inputs of shape "
                f"{tuple(input_shape)}. Give the model's Input its number of channels."
            )
        if self.scale:
            self.gamma = self._add_parameter("gamma", shape)
        if self.center:
            self.beta = self._add_parameter("beta", shape)
        first_mean = self.moving_mean_initializer
        first_variance = self.moving_variance_initializer
        self.moving_mean = self._add_statistic("moving_mean", shape, first_mean)
        self.moving_variance = self._add_statistic(
            "moving_variance", shape, first_variance
        )
        if self.renorm:
            root = root_of(first_variance)
            # Keras has it, so we keep it, though nothing reads it
            self.moving_stddev = self._add_statistic("moving_stddev", shape, root)
            self.renorm_mean = self._add_statistic("renorm_mean", shape, first_mean)
            self.renorm_stddev = self._add_statistic("renorm_stddev", shape, root)
        scheduled = self.renorm and has_schedule(self.renorm_clipping)
        counts = self.momentum is None or self.zero_debias or scheduled
        self.updates = self._add_counter("updates") if counts else None
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes=dict(zip(self._kept, shape, strict=True))
        )

    def _add_parameter(self, name, shape):
        """Add gamma or beta."""
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=getattr(self, f"{name}_initializer"),
            regularizer=getattr(self, f"{name}_regularizer"),
            constraint=getattr(self, f"{name}_constraint"),
            trainable=True,
            autocast=False,
        )

    def _add_statistic(self, name, shape, initializer):
        """Add a statistic: float32 at least, and averaged over the replicas of a strategy."""
        narrow = self.variable_dtype in SIXTEEN_BITS
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            dtype="float32" if narrow else self.variable_dtype,
            trainable=False,
            autocast=False,
            aggregation="mean",
        )

    def _add_counter(self, name):
        """Add a number of batches seen."""
        return self.add_weight(
            shape=(),
            name=name,
            initializer="zeros",
            dtype="int64",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    # The call

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch in training, by the moving statistics otherwise."""
        x = as_floating("inputs", inputs)
        if training and self.trainable:
            y = self._train(x, mask)
        else:
            vectors = self.moving_mean, self.moving_variance, self.gamma, self.beta
            y = batch_norm_inference(x, *vectors, axis=self._kept, epsilon=self.epsilon)
        return tf.cast(y, self.compute_dtype)

    def _train(self, x, mask):
        """Normalise by the statistics of the batch, and remember these."""
        ghost = self.virtual_batch_size is not None
        gamma, beta = self.gamma, self.beta
        stepwise = ghost or self.renorm or self.adjustment
        if stepwise:
            # x_hat meets several numbers in turn, none of which may be rounded to 16 bits
            x = tf.cast(x, keras.backend.result_type(x.dtype, "float32"))
            gamma = beta = None
        batch = self._groups(x, mask) if ghost else self._batch(x, mask, self._kept)
        y, (mean, variance, count) = normalize_batch(
            batch,
            *gamma_and_beta(batch.x, batch.features, gamma, beta),
            fused=self.fused,
            through_statistics=False,
        )
        mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)
        if ghost:
            y = tf.reshape(y, tf.shape(x))
            mean, variance, count = _average_of_groups(mean, variance, count)
        if stepwise:
            y = self._corrected(y, mean, variance)
        self._remember(Moments(mean, variance, count), values_with_weight(batch, count))
        return y

    def _batch(self, x, mask, axis):
        """Return x with what the mask makes of each value."""
        where, features = layouts(x, axis)
        share, count = shares_of_mask(mask, x, where)
        if isinstance(count, int) and count == 1:
            warnings.warn(
                f"{self.name} normalises one value per channel: y is beta, whatever x is. "
                "Use larger batches in training.",
                stacklevel=2,
            )
        return Batch(x, where, features, self.epsilon, share, count, self.synchronized)

    def _corrected(self, x_hat, mean, variance):
        """Apply adjustment and renorm to x_hat, then gamma and beta."""
        if self.adjustment is not None:
            both = self.adjustment(tf.shape(x_hat))
            scale, bias = (keras.ops.convert_to_tensor(v, x_hat.dtype) for v in both)
            x_hat = x_hat * scale + bias
        if self.renorm:
            r, d = self._renorm().correction(mean, variance, self.updates)
            x_hat = scale_and_shift(x_hat, r, d, axis=self._kept)
        return scale_and_shift(x_hat, self.gamma, self.beta, axis=self._kept)

    def _remember(self, statistics, values):
        """Take the `Moments` of a batch into the moving statistics."""
        MovingStatistics(
            self.moving_mean,
            self.moving_variance,
            self.updates,
            momentum=self.momentum,
            zero_debias=self.zero_debias,
            bessel=self.bessel,
        ).update(statistics, values)
        if self.renorm:
            self._renorm().update(statistics.mean, statistics.variance, values)
            moving = keras.ops.convert_to_tensor(self.moving_variance)
            stddev = tf.sqrt(moving + self.epsilon)
            blend(self.moving_stddev, stddev, 1, values, least=2)

    def _renorm(self):
        return Renorm(
            self.renorm_mean,
            self.renorm_stddev,
            momentum=self.renorm_momentum,
            epsilon=self.epsilon,
            clipping=self.renorm_clipping,
        )

    # Groups: ghost batch norm

    def _groups(self, x, mask):
        """Return x as groups along a second axis, which is kept too."""
        if mask is not None:
            raise ValueError(
                "mask cannot be combined with virtual_batch_size: groups would have unequal "
                "counts. Leave one of them out."
            )
        _, *sizes = static_or_dynamic_shape(x)
        x = tf.reshape(self._whole_groups(x), [self.virtual_batch_size, -1, *sizes])
        return self._batch(x, None, (1, *(a + 1 for a in self._kept)))

    def _whole_groups(self, x):
        """Return x, a batch of whole groups; an unknown size is looked at when it is known.

        Raises:
            ValueError: where the size is known, `tf.errors.InvalidArgumentError` where it was not.
        """
        size, examples = self.virtual_batch_size, x.shape[0]
        asked = f"virtual_batch_size must divide the number of examples in a batch; got {size}"
        remedy = (
            f"Use a multiple of {size} in each batch: choose batch_size so, and leave out the "
            "rest, as tf.data's batch(batch_size, drop_remainder=True) does."
        )
        if examples is not None:
            if examples % size:
                raise ValueError(f"{asked} for {examples} examples. {remedy}")
            return x
        rest = tf.shape(x)[0] % size
        message = f"{asked} for a batch with a rest. {remedy}"
        with tf.control_dependencies([tf.debugging.assert_equal(rest, 0, message)]):
            return tf.identity(x)

    # Configuration

    def get_config(self):
        """Return what makes the same layer again."""
        serialize = keras.saving.serialize_keras_object
        clipping = {name: serialize(v) for name, v in self.renorm_clipping.items()}
        return super().get_config() | {
            "fused": self.fused,
            "virtual_batch_size": self.virtual_batch_size,
            "zero_debias": self.zero_debias,
            "bessel": self.bessel,
            "renorm_clipping": clipping,
            "adjustment": self.adjustment and serialize(self.adjustment),
        }

    @classmethod
    def from_config(cls, config):
        """Make the layer that `get_config` described."""
        revive = keras.saving.deserialize_keras_object
        clipping = {
            name: revive(limit) if isinstance(limit, dict) else limit
            for name, limit in (config.get("renorm_clipping") or {}).items()
        }
        adjustment = config.get("adjustment")
        adjustment = adjustment and revive(adjustment)
        config = config | {"renorm_clipping": clipping, "adjustment": adjustment}
        return cls(**config)


def _average_of_groups(mean, variance, count):
    """Return the averages over the groups, and the count of each; 0 where there is no group."""
    groups = static_or_dynamic_shape(mean)[0]
    if isinstance(groups, int) and groups:
        return tf.reduce_mean(mean, 0), tf.reduce_mean(variance, 0), count
    number = tf.cast(groups, mean.dtype)
    mean, variance = (
        tf.math.divide_no_nan(tf.reduce_sum(v, 0), number) for v in (mean, variance)
    )
    return mean, variance, tf.where(number > 0, tf.cast(count, number.dtype), 0)


def _as_axis(axis):
    """Return `axis` as an integer, or a list of integers, each once."""
    named = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    whole = all(isinstance(a, Integral) and not isinstance(a, bool) for a in named)
    if not named or not whole or len(set(named)) < len(named):
        raise ValueError(
            f"axis must be an integer, or a list of different ones; got {axis!r}. "
            "Use -1 for channels last, 1 for channels first."
        )
    return [int(a) for a in named] if isinstance(axis, (list, tuple)) else int(axis)
