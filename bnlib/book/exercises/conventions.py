"""Checkers for the chapter on conventions."""

from dataclasses import replace

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.conventions import BNParams

__all__ = [
    "caffe",
    "convert",
    "momentum",
    "wrong_parameter",
]


@checker
def momentum(answer):
    """Check `answer(before, batch, after)`: three means in, Keras's momentum out."""
    rng = np.random.default_rng(3)
    for kept in (0.9, 0.25, 0.99):
        before, batch = rng.normal(size=(2, 4))
        mine = answer(before, batch, kept * before + (1 - kept) * batch)
        if mine is None:
            raise NotYet(
                "The function returns nothing so far; it should return a number."
            )
        if np.size(mine) != 1:
            raise NotYet("Every channel has the same momentum: return one number.")
        if close(mine, 1 - kept) and kept == 0.9:
            raise NotYet("That is PyTorch's: the weight of the new value.")
        if not close(mine, kept):
            raise NotYet(
                "Write after as p * before + (1 - p) * batch. What is after - batch?"
            )
    return "And 1 minus it is PyTorch's."


@checker
def caffe(answer):
    """Check `answer(sum_mean, sum_variance, factor)`: Caffe's blobs in, the statistics out."""
    mean, variance = np.array([1.0, -2.0, 5.0]), np.array([4.0, 0.5, 9.0])
    names = ("mean", "variance")
    mine = arrays(answer(8 * mean, 8 * variance, 8.0), names, (3,))
    if close(mine[0], 8 * mean):
        raise NotYet("The blobs are sums: what was their weight?")
    other = arrays(answer(3 * mean, 3 * variance, 3.0), names, (3,))
    if not all(close(m, mean) and close(v, variance) for m, v in (mine, other)):
        raise NotYet("Each of the two is its sum divided by the factor.")
    with np.errstate(all="ignore"):
        try:
            fresh = arrays(answer(0 * mean, 0 * variance, 0.0), names, (3,))
        except ZeroDivisionError:
            fresh = np.nan
    if np.any(np.isnan(fresh)) or np.any(fresh):
        raise NotYet("For a layer without a batch, factor 0, Caffe takes zeros.")
    return "As Caffe does it, down to the layer that has seen nothing."


def suspect():
    """Return what the source's layers answered, and the layers after a conversion with one mistake.

    Returns:
        `(recorded, suspects)`, two dicts by the names of three layers: pairs `x, y`, each
        `(20, 4)`, and the layers as `BNParams`.
    """
    rng, recorded, suspects = np.random.default_rng(12), {}, {}
    for name in ("bn1", "bn2", "bn3"):
        variance, gamma = rng.uniform(0.5, 2, size=(2, 4))
        mean, beta = rng.normal(size=(2, 4))
        source = BNParams(mean, variance, gamma, beta, epsilon=1e-5, momentum=0.9)
        x = mean + np.sqrt(variance) * rng.normal(size=(20, 4))
        recorded[name] = x, source.inference(x)
        suspects[name] = replace(source, gamma=np.ones(4)) if name == "bn3" else source
    return recorded, suspects


@checker
def wrong_parameter(answer):
    """Check `(layer, field, values)`: the wrong layer of `suspect()`, its field, its values."""
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        raise NotYet(
            'The answer should be a layer, a field and its values: ("bn1", "beta", [...]).'
        )
    layer, field, values = answer
    if layer not in ("bn1", "bn2", "bn3"):
        raise NotYet(f"The layers are bn1, bn2 and bn3; got {layer!r}.")
    if layer != "bn3":
        raise NotYet(f"{layer} answers y to x, as it should. Which layer does not?")
    if field not in vars(BNParams([0.0], [1.0], epsilon=0, momentum=0.9)):
        raise NotYet(f"{field!r} is no field of BNParams.")
    if field == "momentum":
        raise NotYet("The momentum does not show in outputs. Something else is wrong.")
    if field != "gamma":
        raise NotYet(
            "bn3 is the right choice. Print its fields: which vector is that of a new layer?"
        )
    recorded, suspects = suspect()
    x, y = recorded["bn3"]
    (mine,) = arrays([values], ("values",), (4,))
    if not np.allclose(replace(suspects["bn3"], gamma=mine).inference(x), y):
        raise NotYet(
            "Gamma it is. Take beta from both outputs, then divide: what is the ratio?"
        )
    return "With this gamma the layer answers as the source did."


@checker
def convert(answer):
    """Check `answer(state, eps)`: PyTorch's arrays in, lists for Keras's `set_weights` out."""
    rng, eps = np.random.default_rng(0), 0.1
    state = {
        "conv.weight": rng.normal(size=(5, 2, 3, 4)),
        **{f"bn.{name}": rng.normal(size=5) for name in ("weight", "bias")},
        "bn.running_mean": rng.normal(size=5),
        "bn.running_var": rng.uniform(0.1, 1, 5),
        "fc.weight": rng.normal(size=(7, 5)),
        "fc.bias": rng.normal(size=7),
    }
    returned = answer({name: np.copy(value) for name, value in state.items()}, eps)
    if not isinstance(returned, (tuple, list)) or len(returned) != 3:
        raise NotYet("The function should return three lists: conv, norm, dense.")
    if [len(each) for each in returned] != [1, 4, 2]:
        raise NotYet("The lists should hold 1, 4 and 2 arrays: Keras's weights.")
    conv, norm, dense = ([np.asarray(a) for a in each] for each in returned)
    if conv[0].shape != (3, 4, 2, 5):
        raise NotYet(
            f"Keras's kernel is height, width, in, out: (3, 4, 2, 5); got {conv[0].shape}."
        )
    if not close(conv[0], state["conv.weight"].transpose(2, 3, 1, 0)):
        raise NotYet("The kernel has the right shape, but was reshaped: move its axes.")
    if dense[0].shape != (5, 7) or not close(dense[0], state["fc.weight"].T):
        raise NotYet("PyTorch's dense weight is out, in. Keras's is in, out.")
    if not close(dense[1], state["fc.bias"]):
        raise NotYet("The dense layer's bias needs no change.")
    if any(mine.shape != (5,) for mine in norm):
        raise NotYet(
            "Each of the four arrays of batch norm holds one number a channel."
        )
    names = ("weight", "bias", "running_mean", "running_var")
    its = [state[f"bn.{name}"] for name in names]
    x = rng.normal(size=(20, 5))
    with np.errstate(all="ignore"):
        y = norm[0] * (x - norm[2]) / np.sqrt(norm[3]) + norm[1]
    if close(y, its[0] * (x - its[2]) / np.sqrt(its[3] + eps) + its[1]):
        return "The outputs are PyTorch's."
    if any(close(norm[a], its[b]) for a in range(4) for b in range(4) if a != b):
        raise NotYet("Keras's order is gamma, beta, moving mean, moving variance.")
    if not all(close(norm[n], its[n]) for n in (0, 1, 2)):
        raise NotYet(
            "The outputs are not PyTorch's. Leave gamma, beta and the mean as they are: "
            "the variance alone can take epsilon in."
        )
    if close(norm[3], state["bn.running_var"]):
        raise NotYet("The layer's epsilon is 0 now. What stands under PyTorch's root?")
    raise NotYet("The variance is off: under PyTorch's root is variance + eps.")
