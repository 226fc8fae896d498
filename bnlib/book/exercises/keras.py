"""Checkers for the chapter on Keras."""

from unittest import mock

import keras
import numpy as np

from bnlib.book.exercises import NotYet, checker

__all__ = ["renew", "repair", "shared", "switches"]


@checker
def switches(answer):
    """Check `answer`: which statistics each of four lines uses, "batch" or "moving"."""
    words = [str(word).strip().lower() for word in answer]
    if len(words) != 4 or not set(words) <= {"batch", "moving"}:
        raise NotYet('Give four words, each "batch" or "moving".')
    hints = [
        "1: who says `training` in the outermost call?",
        "2: nobody says `training` in the outermost call. What is left?",
        "3: one of the three rules asks for nothing but the layer's flag.",
        "4: who calls the layer in a class, Keras or you?",
    ]
    expected = ["moving", "batch", "moving", "moving"]
    for word, right, hint in zip(words, expected, hints, strict=True):
        if word != right:
            raise NotYet(hint)
    return "Four lines, three rules."


@checker
def repair(answer):
    """Check `answer(base, head)`: a compiled model in which only batch norm stands still."""
    base, head, norms, denses = _frozen_base()
    before = {id(layer): layer.get_weights() for layer in [*norms, *denses, head]}
    layers, seen = [*norms, *denses, head], []

    def noted(model, *args, compile=keras.Model.compile, **kwargs):
        compile(model, *args, **kwargs)
        seen.append([layer.trainable for layer in layers])

    with mock.patch.object(keras.Model, "compile", noted):
        model = answer(base, head)
    if not isinstance(model, keras.Model):
        raise NotYet("Return the model.")
    if not model.compiled:
        raise NotYet("The model is not compiled.")
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (32, 4)), rng.normal(0, 1, (32, 2))
    model.fit(x, y, batch_size=16, verbose=0)

    def moved(layer, part=slice(None)):
        old, new = before[id(layer)][part], layer.get_weights()[part]
        return any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True))

    if not moved(head):
        raise NotYet("The head is not trained.")
    if not all(map(moved, denses)):
        raise NotYet("The dense layers of the base are not trained.")
    still = [not moved(norm) for norm in norms]
    if all(still) and seen[-1] != [layer.trainable for layer in layers]:
        raise NotYet(
            "A flag changes after `compile`. A step that was traced before would not see "
            "it: compile last."
        )
    if all(still):
        return "Both stand still, and all else is trained."
    if still == [True, False]:
        raise NotYet("One moved: it lies in a model within the base.")
    if still == [False, True]:
        raise NotYet("The batch norm layer right in the base moved.")
    if not any(moved(norm, slice(2, None)) for norm in norms):
        raise NotYet(
            "The statistics stand still, and gamma and beta are trained. Freezing stops both."
        )
    raise NotYet(
        "Both batch norm layers moved. Print their `trainable` before you return."
    )


def _frozen_base():
    """Return a frozen base with a model in it, a head, its batch norm and its dense layers."""
    layers = keras.layers
    norms = [layers.BatchNormalization(), layers.BatchNormalization()]
    denses = [layers.Dense(5), layers.Dense(3)]
    inner = keras.Sequential([keras.Input((5,)), denses[1], norms[1]])
    base = keras.Sequential([keras.Input((4,)), denses[0], norms[0], inner])
    base.trainable = False
    head = layers.Dense(2)
    head.build((None, 3))
    return base, head, norms, denses


@checker
def renew(answer):
    """Check `answer(model, x)`: the moving statistics become those of x, and nothing else moves."""
    model, norms, x = _two_norms()
    expected, seen = [], x
    for layer in model.layers:  # with batch statistics, layer by layer
        if layer in norms:
            mean, variance = seen.mean(axis=0), seen.var(axis=0)
            expected.append((mean, variance))
            gamma, beta, *_ = layer.get_weights()
            seen = gamma * (seen - mean) / np.sqrt(variance + layer.epsilon) + beta
        else:
            seen = np.asarray(layer(seen))
    before = [v.numpy() for v in model.trainable_variables]
    old = [norm.moving_mean.numpy() for norm in norms]
    answer(model, x.copy())
    found = [(n.moving_mean.numpy(), n.moving_variance.numpy()) for n in norms]
    if all(np.array_equal(a, mean) for a, (mean, _) in zip(old, found, strict=True)):
        raise NotYet("No moving mean moved. In which mode do layers take a batch in?")
    now = [v.numpy() for v in model.trainable_variables]
    if not all(map(np.array_equal, before, now)):
        raise NotYet("A weight was trained: only the statistics should change.")
    right = [
        all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*pair, strict=True))
        for pair in zip(found, expected, strict=True)
    ]
    if not any(right):
        raise NotYet(
            "The statistics moved towards those of x, and something of the old ones is "
            "left. Which argument of the layer weighs the old?"
        )
    if not all(right):
        raise NotYet(
            f"Layer {1 + right.index(False)} of 2 is off. What does it see: x, or what "
            "the layers before it make of x?"
        )
    if [norm.momentum for norm in norms] != [0.9, 0.8]:
        raise NotYet("The statistics are right. What is `momentum` afterwards?")
    return "New statistics, old weights, and no label was needed."


def _two_norms():
    """Return a model with two batch norm layers that have seen other data, those layers, and x."""
    keras.utils.set_random_seed(3)
    norms = [keras.layers.BatchNormalization(momentum=m) for m in (0.9, 0.8)]
    dense = keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((4,)), norms[0], dense, norms[1]])
    rng = np.random.default_rng(0)
    model(rng.normal(1, 1, (64, 4)).astype("float32"), training=True)
    return model, norms, rng.normal(3, 2, (40, 4)).astype("float32")


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
    if np.isclose(together, 25):
        raise NotYet("That is between the streams. You left out the 4 within.")
    if not np.isclose(together, 29):
        raise NotYet("Add the mean variance within, and the variance of the two means.")
    return "4 within, and 25 between the streams that the layer never sees."
