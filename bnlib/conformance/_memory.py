"""Checks of what a layer remembers, and of its modes."""

from contextlib import suppress

import numpy as np

from bnlib.conformance import _oracle
from bnlib.conformance._checks import (
    BETA,
    GAMMA,
    SPREAD,
    Failed,
    as_wide,
    call,
    check,
    compare,
    draw,
    relative,
    right,
)

MEAN, VARIANCE = np.array([4000.0, 2000.0, -1000.0]), np.array([4e6, 1e6, 9e6])
SMALL = 1000.0  # beside a variance of a million an initial 1 would not be seen


def _known(layer):
    """Put moving statistics in that no batch has; return them."""
    layer.set_state(MEAN.copy(), VARIANCE.copy())
    return MEAN, VARIANCE


def _start(layer):
    """Put others in where it can be done; return the statistics that the layer starts from."""
    with suppress(NotImplementedError):
        layer.set_state(MEAN / SMALL, VARIANCE / SMALL**2)
    return [np.asarray(value, np.longdouble) for value in layer.state()]


# Moving statistics. Momentum 0.5 has no direction, so that only one check is about that.


def _after_two(make):
    """Show the layer one batch twice; return start, batch and new statistics."""
    layer, x = make(momentum=0.5), draw(7) / np.float32(SMALL)
    start = _start(layer)
    for _ in range(2):
        call(layer, x)
    left = 0.0 if layer.debiased else 0.25
    return start, _oracle.statistics(x), layer.state(), left


@check(
    "population",
    "the moving mean goes half of the way to the batch's, momentum 0.5",
    "Inference subtracts another mean than the data have: good in training, bad in use.",
)
def moving_mean(make):
    start, batch, now, left = _after_two(make)
    wanted = batch[0] + left * (start[0] - batch[0])
    return relative("moving_mean", now[0], wanted, 1e-5)


@check(
    "population",
    "the moving variance goes half of the way to the batch's, with Bessel's factor or without",
    "Inference divides by another deviation than the data have: good in training, bad in use.",
)
def moving_variance(make):
    start, batch, now, left = _after_two(make)
    said = []
    for factor in (1, 7 / 6):
        target = factor * batch[1]
        try:
            return relative(
                "moving_variance", now[1], target + left * (start[1] - target), 1e-5
            )
        except Failed as failed:
            said.append(failed.got)
    raise Failed(said[0])


def _same(claimed, words, value):
    """Return what was got, unless the layer claims something else."""
    if claimed is None or claimed is value:
        return words
    raise Failed(words)


@check(
    "conventions",
    "what the layer says: m / (m - 1) times the batch variance, or the batch variance",
    "Networks that are moved to or from this layer give other outputs after training at small"
    " batches.",
    level="info",
)
def bessel(make):
    layer, x = make(), draw(3)
    call(layer, x)
    call(layer, x)
    variance = np.asarray(layer.state()[1], float)
    batch = _oracle.statistics(x)[1].astype(float)
    left = 0.0 if layer.debiased else 0.25
    factor = float(np.median((variance - left) / (batch * (1 - left))))
    if abs(factor - 1.5) < 0.01:
        return _same(layer.bessel, "m / (m - 1) times the batch variance", True)
    words = f"{factor:.3g} times " if abs(factor - 1) > 0.01 else ""
    return _same(layer.bessel, f"{words}the batch variance", False)


def _weights(make, momentum):
    """Return the weight of the new batch, at the first and the second update."""
    layer, found = make(momentum=momentum), []
    for seed in (4, 5):
        x = draw(7, seed=seed)
        before = np.asarray(layer.state()[0], float)
        call(layer, x)
        after = np.asarray(layer.state()[0], float)
        batch = _oracle.statistics(x)[0].astype(float)
        found.append(float(np.median((after - before) / (batch - before))))
    return layer, found


@check(
    "population",
    "momentum 0.9 keeps 0.9 of the old average; a debiased one takes more, at first",
    "Momentum means the weight of the new batch here, as in PyTorch: what you set as 0.9 forgets"
    " all but the last batch.",
)
def momentum(make):
    layer, (_, second) = _weights(make, 0.9)
    right = second < 0.6 if layer.debiased else abs(second - 0.1) < 1e-3
    got = f"weight {second:.3g} of the new batch"
    if not right:
        raise Failed(got)
    return got


@check(
    "population",
    "what the layer says of the initial 0 and 1: forgotten at once, or slowly",
    "After few batches inference is wrong by what is left of 0 and 1: 0.99^100 is 37 %.",
    level="info",
)
def first_update(make):
    layer, (first, _) = _weights(make, 0.9)
    if abs(first - 1) < 1e-3:
        return _same(layer.debiased, "forgotten at the first batch", True)
    return _same(layer.debiased, f"weight {1 - first:.3g} after the first batch", False)


# Modes


@check(
    "layer",
    "training normalises by the batch, whatever the moving statistics are",
    "The network trains against statistics that lag behind, and can diverge.",
)
def training(make):
    layer, x = make(), draw(11)
    _known(layer)
    layer.forward(draw(7, seed=6), True)
    fresh = as_wide(call(make(), x))
    return compare("y", call(layer, x), fresh, 1e-4)


@check(
    "layer",
    "inference normalises by the moving statistics",
    "Predictions differ from what was trained, or depend on who else is in the batch.",
)
def inference(make):
    vectors = {"gamma": GAMMA, "beta": BETA}
    try:
        layer = make(**vectors)
    except NotImplementedError:
        vectors, layer = {}, make()
    known, x = _known(layer), draw(11)
    y = call(layer, x, False)
    return compare("y", y, right(layer, x, known, **vectors), 1e-4)


@check(
    "layer",
    "in inference an example has the same output alone as in its batch",
    "Predictions depend on who else is in the batch.",
)
def inference_alone(make):
    x, (layer, other) = draw(11), (make(), make())
    _known(layer)
    _known(other)
    together = as_wide(call(layer, x, False)[:1])
    return compare("y", call(other, x[:1], False), together, 1e-4)


@check(
    "layer",
    "inference leaves the moving statistics as they are",
    "Each prediction changes the next; test data leak into the model.",
)
def inference_keeps_state(make):
    layer = make()
    layer.forward(draw(7), True)
    before = layer.state()
    for seed in (7, 8):
        layer.forward(draw(11, seed=seed), False)
    return _unmoved(before, layer.state())


def _unmoved(before, after):
    for name, old, new in zip(("mean", "variance"), before, after, strict=True):
        if not np.array_equal(old, new):
            raise Failed(f"moving_{name} has changed: {new} for {old}")
    return "the same bytes"


@check(
    "keras",
    "a frozen layer normalises by its moving statistics in training too, and keeps them",
    "Fine-tuning ruins the statistics of the part that was to stay as it is.",
)
def freezing(make):
    layer, x = make(), draw(11)
    known = _known(layer)
    before = layer.state()
    layer.freeze()
    said = compare("y", call(layer, x), right(layer, x, known), 1e-4)
    return f"{said}, statistics: {_unmoved(before, layer.state())}"


@check(
    "keras",
    "places under the mask count for nothing, the others as if they were alone",
    "Padding is averaged in: outputs depend on how long the longest sequence is.",
)
def masks(make):
    layer, x = make(ndim=3), draw(7, 5)
    mask = np.arange(5) < np.array([5, 3, 1, 4, 2, 5, 3])[:, None]
    x[~mask] += 30 * SPREAD.astype(x.dtype)
    y = layer.masked(x, mask)[mask]
    alone = as_wide(make().forward(x[mask], True))
    return compare("y where it is seen", y, alone, 1e-4)


@check(
    "replicas",
    "two replicas with half of the batch each give what one device gives with all of it",
    "Each device normalises by its own few examples, or keeps the statistics of one alone.",
)
def replicas(make):
    layer, alone, x = make(), make(), np.sort(draw(8), axis=0)  # the halves differ
    y = np.concatenate(layer.replicated([x[:4], x[4:]]))
    said = compare("y", y, as_wide(call(alone, x)), 1e-4)
    with suppress(NotImplementedError):
        for mine, theirs in zip(layer.state(), alone.state(), strict=True):
            relative("the moving statistics", mine, theirs, 1e-5)
    return said


@check(
    "shipping",
    "the layer that was loaded infers and goes on as the one that was saved",
    "A model is another one after a restart.",
)
def save_and_load(make):
    layer, x = make(), draw(11)
    layer.reloaded()  # where it cannot, no time is lost
    for seed in (9, 10):
        layer.forward(draw(7, seed=seed), True)
    other = layer.reloaded()
    y = as_wide(call(layer, x, False))
    said = compare("y in inference", call(other, x, False), y, 1e-6)
    for each in (layer, other):
        call(each, x)
    for mine, theirs in zip(layer.state(), other.state(), strict=True):
        relative("the next statistics", theirs, mine, 1e-6)
    return said
