"""Checkers for the page on swapping layers."""

import numpy as np

from bnlib._extras import needed
from bnlib.book.exercises import NotYet, checker
from bnlib.keras import swap_in

with needed("bnlib.book.exercises.swapping", "tf"):
    import keras
    from keras import layers

__all__ = ["training"]


class _Factor(layers.Layer):
    """Multiply by a number that Keras does not know, in training alone."""

    factor = 1.0

    def call(self, x, training=None):
        return self.factor * x if training else x


def _small(**options):
    parts = [layers.BatchNormalization(**options), layers.ReLU(), _Factor()]
    return keras.Sequential([keras.Input((4,)), *parts])


@checker
def training(answer):
    """Check `answer(model, copy, x)`: whether both do the same in training mode."""
    x = np.random.default_rng(3).normal(2, 3, (8, 4))

    def ask(model, copy, x=x):
        both = [*model.get_weights(), *copy.get_weights()]
        says = answer(model, copy, x)
        if not isinstance(says, bool | np.bool_):
            raise NotYet("Return True or False.")
        after = [*model.get_weights(), *copy.get_weights()]
        if not all(np.array_equal(a, b) for a, b in zip(both, after, strict=True)):
            raise NotYet(
                "The answer may be right, and the moving statistics are no longer what they were. "
                "Put the weights back."
            )
        return says

    model = _small()
    if not ask(model, swap_in(model)):
        raise NotYet(
            "A swapped copy is said to differ. Do both see the same batch, from the same "
            "statistics, with a tolerance for rounding?"
        )
    hidden = _small()
    hidden.layers[-1].factor = 3.0
    if ask(hidden, swap_in(hidden)):
        raise NotYet(
            "A copy whose outputs in training are a third of the model's passes. Did you ask for "
            "training=True?"
        )
    slow, fast = _small(momentum=0.99), _small(momentum=0.9)
    fast.set_weights(slow.get_weights())
    if ask(slow, fast):
        raise NotYet(
            "A copy with another momentum passes: its outputs are the same. What else does a call "
            "in training change?"
        )
    if ask(slow, fast, x - 2):
        raise NotYet("On another batch the copy with another momentum passes.")
    return "It sees outputs and statistics in training, and leaves both models as they were."
