"""The layer's weights, with Keras's names."""

import keras

NARROW = ("float16", "bfloat16")


def parameter(layer, name, shape):
    """Make gamma or beta."""
    return layer.add_weight(
        shape=shape,
        name=name,
        initializer=getattr(layer, f"{name}_initializer"),
        regularizer=getattr(layer, f"{name}_regularizer"),
        constraint=getattr(layer, f"{name}_constraint"),
        trainable=True,
        autocast=False,
    )


def statistic(layer, name, shape, initializer):
    """Make a statistic: float32 at least, and averaged over the replicas of a strategy."""
    return layer.add_weight(
        shape=shape,
        name=name,
        initializer=initializer,
        dtype="float32" if layer.variable_dtype in NARROW else layer.variable_dtype,
        trainable=False,
        autocast=False,
        aggregation="mean",
    )


def counter(layer):
    """Make the number of batches seen."""
    return layer.add_weight(
        shape=(),
        name="updates",
        initializer="zeros",
        dtype="int64",
        trainable=False,
        autocast=False,
        aggregation="only_first_replica",
    )


def root_of(initializer):
    """Return an initializer that gives the root of what another gives."""

    def root(shape, dtype=None):
        config = keras.initializers.serialize(initializer)
        fresh = keras.initializers.get(config)
        return keras.ops.sqrt(fresh(shape, dtype=dtype))

    return root
