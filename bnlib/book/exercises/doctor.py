"""Checkers for the chapter on finding and mending faults of whole models."""

import numpy as np

from bnlib._extras import needed
from bnlib.book.convnet import as_images
from bnlib.book.exercises import NotYet, checker
from bnlib.doctor import RULES, Rule, audit, recalibrate
from bnlib.doctor._layers import batch_norms, statistics

with needed("bnlib.book.exercises.doctor", "tf"):
    import keras
    from keras import layers

__all__ = ["reports", "rule", "share"]


@checker
def share(answer):
    """Check the share of the initial statistics after 500 steps, and the steps until 1 %."""
    try:
        left, steps = (float(each) for each in answer)
    except TypeError:
        raise NotYet("Give two numbers: the share, and the number of steps.") from None
    if np.isclose(left, 1 - 0.995**500, rtol=0.01):
        raise NotYet("That is the share of what was learned.")
    if np.isclose(left, 0.005**500) or np.isclose(left, 1 - 500 * 0.005):
        raise NotYet("Each step multiplies what is left by the momentum.")
    if not np.isclose(left, 0.995**500, rtol=0.03):
        raise NotYet("The share is not right: 0.995 of it is left after each step.")
    if steps == 918:
        raise NotYet("After 918 steps it is still a little above 1 %.")
    if steps != 919:
        raise NotYet("The share is right. The steps: when is 0.995 ** steps 0.01?")
    return "Eight hundredths, and 919 steps."


def _network(*, axis=-1, **call):
    """A small network with random weights, the same each time."""
    keras.utils.set_random_seed(0)
    inputs = h = keras.Input((8, 8, 1), dtype="float64")
    for k in (1, 2):
        settings = {"padding": "same", "use_bias": False, "dtype": "float64"}
        h = layers.Conv2D(8, 3, name=f"conv_{k}", **settings)(h)
        kept = axis if k == 1 else -1
        norm = layers.BatchNormalization(kept, name=f"norm_{k}", dtype="float64")
        h = norm(h, **call) if k == 2 else norm(h)
        h = layers.ReLU(dtype="float64")(h)
    h = layers.GlobalAveragePooling2D(dtype="float64")(h)
    return keras.Model(inputs, layers.Dense(10, dtype="float64")(h), name="model")


def _models():
    """Model 1 has a wrong axis, model 2 has learned few steps, model 3 has training=True."""
    x = as_images("float64")[0][:256]
    found = _network(axis=1), _network(), _network(training=True)
    for model in found:
        recalibrate(model, x)
    for _, layer in batch_norms(found[1]):
        for variable, value, start in zip(
            (layer.moving_mean, layer.moving_variance),
            statistics(layer),
            (0, 1),
            strict=True,
        ):
            variable.assign(0.8 * start + 0.2 * value)
    return x, found


def show_reports() -> None:
    """Print the findings of three audits."""
    x, found = _models()
    for number, model in enumerate(found, start=1):
        print(f"Model {number}")
        for finding in audit(model, x).at_least("warning"):
            print("  ", finding.code, finding.level, finding.where)
            print("     ", finding.message)


@checker
def reports(answer):
    """Check which model needs recalibration (a), a new graph (b), training (c)."""
    if not isinstance(answer, dict) or set(answer) != {"a", "b", "c"}:
        raise NotYet('Give a dict such as {"a": 1, "b": 2, "c": 3}.')
    if sorted(answer.values()) != [1, 2, 3]:
        raise NotYet("Each model needs one of the three.")
    if answer["c"] != 1:
        raise NotYet(
            "Which model's trained weights would be fed something new, once the fault is mended? "
            "That one must learn again."
        )
    if answer["a"] != 2:
        raise NotYet("Recalibration changes moving statistics. Can it change a call?")
    return "The memory, the graph, and what the weights have learned to live with."


@checker
def rule(answer):
    """Check `answer(case)`: a fault for each layer whose epsilon is unusual."""

    def model(*epsilons):
        parts = [
            layers.BatchNormalization(epsilon=e, name=f"norm_{k}") for k, e in epsilons
        ]
        return keras.Sequential([keras.Input((3,)), *parts])

    mine = Rule("warning", "MY001", "epsilons differ", "", RULES[0].link, answer)

    def found(*epsilons):
        rows = audit(model(*enumerate(epsilons)), rules=[mine]).rows
        return [layer for row in rows for layer in row.layers], rows

    said, _ = found(1e-5, 1e-5, 1e-5)
    if said:
        raise NotYet("All epsilons agree in one model, and you find a fault there.")
    said, rows = found(1e-5, 1e-3, 1e-5, 1e-5)
    if not said:
        raise NotYet("Nothing is found where norm_1 has 0.001 and the others 0.00001.")
    if set(said) == {"norm_0", "norm_2", "norm_3"}:
        raise NotYet("These are the usual ones. Which is the odd one out?")
    if said != ["norm_1"]:
        raise NotYet(f"norm_1 is the odd one; you name {', '.join(said)}.")
    if not all(isinstance(row.message, str) and row.message for row in rows):
        raise NotYet("The message must be a sentence.")
    said, _ = found(1e-3, 1e-3, 1e-3, 1e-5, 1e-3, 1e-6)
    if set(said) != {"norm_3", "norm_5"}:
        raise NotYet("Two layers may be odd, and the usual epsilon may be 0.001.")
    return "It finds the odd layer, and nothing where all agree."
