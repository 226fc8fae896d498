"""Put our batch norm layers into a whole Keras model, or take them out again."""

import keras

from bnlib.keras import _options
from bnlib.keras.layer import BatchNormalization

__all__ = ["from_keras", "to_keras"]

OURS_ALONE = {
    "fused": None,
    "virtual_batch_size": None,
    "adjustment": None,
    "zero_debias": False,
    "bessel": False,
}


def from_keras(model):
    """Copy a model with each of Keras's batch norm layers replaced by ours.

    Args:
        model: a Sequential or Functional `keras.Model`, built; nested ones are copied too.

    Returns:
        A new model with the same weights and `trainable` flags, not compiled. Outputs are the
        same.

    Raises:
        ValueError: when the model cannot be cloned (a subclassed one): replace the layers in its
            code.
    """

    def swap(layer):
        if type(layer) is not keras.layers.BatchNormalization:
            return None
        return BatchNormalization.from_config(layer.get_config())

    return _clone(model, swap)


def to_keras(model):
    """Copy a model with each of our batch norm layers replaced by Keras's.

    Args:
        model: as in `from_keras`.

    Returns:
        A new model with the same weights, not compiled. Inference is the same.

    Raises:
        ValueError: when a layer uses what Keras's has not, such as `zero_debias` or an axis list,
            or the model cannot be cloned.
    """

    def swap(layer):
        if not isinstance(layer, BatchNormalization):
            return None
        config = layer.get_config()
        if not config["renorm"]:
            config["renorm_clipping"] = None
        only = [n for n, usual in OURS_ALONE.items() if config.pop(n) != usual]
        only += [
            n for n in ("axis", "momentum") if not isinstance(config[n], (int, float))
        ]
        if only or _options.counts(layer):
            raise ValueError(
                f"keras.layers.BatchNormalization has no equivalent for {only or 'a schedule'} of "
                f"layer {layer.name!r}. Set it to its default first."
            )
        return keras.layers.BatchNormalization.from_config(config)

    return _clone(model, swap)


def _clone(model, swap):
    """Clone a model, its weights and its `trainable` flags, through `swap`."""

    def copy(layer):
        return swap(layer) or layer.__class__.from_config(layer.get_config())

    other = keras.models.clone_model(model, clone_function=copy, recursive=True)
    other.set_weights(model.get_weights())
    pairs = zip(_layers(model), _layers(other), strict=True)
    for old, new in pairs:
        left = swap(new)
        if left is not None:
            raise ValueError(
                f"the batch norm layer {new.name!r} lies inside a layer that cannot be cloned "
                "part by part, such as TimeDistributed. Replace it in the code of the model."
            )
        new.trainable = old.trainable
    return other


def _layers(model):
    return list(model._flatten_layers(include_self=False))
