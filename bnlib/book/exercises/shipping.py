"""Checkers for the page on shipping."""

import keras
import numpy as np

from bnlib.book.exercises import NotYet, checker

__all__ = ["compare"]


def _copy(model, change):
    """Copy a model with its weights, then change each batch norm layer."""
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    for layer in other.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            change(layer)
    return other


def _forget_statistics(layer):
    layer.moving_mean.assign(0 * layer.moving_mean)
    layer.moving_variance.assign(0 * layer.moving_variance + 1)


def _forget_epsilon(layer):
    layer.epsilon = 0.0


CONVERTERS = {  # what a converter does to each batch norm layer, and whether it may
    "nothing": (lambda layer: None, True),
    "forgets the statistics": (_forget_statistics, False),
    "sets gamma to 1": (
        lambda layer: layer.gamma.assign(0 * layer.gamma + 1),
        False,
    ),
    "sets beta to 0": (lambda layer: layer.beta.assign(0 * layer.beta), False),
    "sets epsilon to 0": (_forget_epsilon, False),
}


@checker
def compare(answer):
    """Check `answer(model, convert)`: does a converter keep the outputs, whatever the weights?"""
    for name, (change, fine) in CONVERTERS.items():
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(2),
            ]
        )
        found = answer(model, lambda given, how=change: _copy(given, how))
        if not isinstance(found, (bool, np.bool_)):
            raise NotYet(f"Return True or False; yours returns {found!r:.40}.")
        if fine and not found:
            raise NotYet("A converter that changes nothing is refused. Is it rounding?")
        if found and not fine:
            raise NotYet(
                f"A converter that {name} passes. Where would its fault be seen?"
            )
    return "It refuses four faulty converters, and passes the one that is right."
