"""Checkers for the chapter on Keras."""

import keras
import numpy as np

from bnlib.book.exercises import NotYet, checker

__all__ = ["freeze", "shared"]


@checker
def freeze(answer):
    """Check `answer(model)`: freeze each batch norm layer of a model, and nothing else."""
    layers = keras.layers
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()]
    )
    model = keras.Sequential(
        [keras.Input((4,)), layers.BatchNormalization(name="norm"), inner]
    )
    model.add(layers.Dense(2))
    answer(model)
    outer, (dense, nested), last = model.layers[0], inner.layers, model.layers[-1]
    if outer.trainable and nested.trainable:
        raise NotYet("Both batch norm layers are still trainable.")
    if not (dense.trainable and last.trainable and model.trainable):
        raise NotYet("A dense layer is frozen too: freeze batch norm alone.")
    if nested.trainable:
        raise NotYet("One is left: a model can be a layer of a model. Look into it.")
    if outer.trainable:
        raise NotYet("The nested layer is frozen, the one outside is not.")
    return "Both, at every depth. Now compile."


@checker
def shared(answer):
    """Check `answer`: the moving variance of a shared layer, and that of all the values."""
    if np.shape(answer) != (2,):
        raise NotYet(
            "Give two numbers: the moving variance, the variance of all values."
        )
    moving, together = map(float, answer)
    if (moving, together) == (29, 4):
        raise NotYet("The two numbers are swapped.")
    if not np.isclose(moving, 4):
        raise NotYet("The moving variance only ever sees one stream at a time.")
    if np.isclose(together, 4):
        raise NotYet("All values together also differ between the streams.")
    if not np.isclose(together, 29):
        raise NotYet("Add the mean variance within, and the variance of the two means.")
    return "4 within, and 25 between the streams that the layer never sees."
