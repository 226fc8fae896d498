"""Take batch norm out of a model that is done with training: fold it into the layers beside it."""

import random
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bnlib.doctor import _linear
from bnlib.doctor._data import Batches
from bnlib.doctor._folding import has_plain_call, plan_of
from bnlib.doctor._layers import batch_norms, places
from bnlib.keras import BatchNormalization, _models, _verify
from bnlib.keras._running import call, watched
from bnlib.moments import moments
from bnlib.reports import Report, Row

__all__ = ["Folded", "fold"]


@dataclass(frozen=True)
class Folded(Row):
    """What became of one batch norm layer.

    Attributes:
        level: "ok" when it was folded, "info" when it was left.
        layer: its path, such as "encoder/block1/bn".
        into: the path of the layer that took it in; None when it was left.
        why: where it was, or why it was left, in words.
        difference: how far the outputs are from those of the model there, as a share of the largest
            one; None where nothing was compared.
    """

    layer: str
    into: str | None
    why: str
    difference: float | None = None
    columns: ClassVar[tuple[str, ...]] = ("layer", "into", "why", "difference")


def fold(
    model: Any, data: Any = None, *, verify: bool = True
) -> tuple[Any, Report[Folded]]:
    """Take batch norm out of a Sequential or Functional model, for inference.

    At inference batch norm is one multiplication and one addition per channel. The linear layer
    before it can do both; so can the dense layer, or the convolution without padding, after it. The
    result is a new model that answers as the old one does, with fewer layers. It needs Keras alone.

        dense or convolution -> batch norm:  kernel' = kernel * multiplier (by output channel)
        batch norm -> dense or convolution:  kernel' = kernel * multiplier (by input channel)

    A layer is folded only where that is exact: nothing else reads what passes between the two, both
    are called once, and nothing, such as an activation or a padding, stands between them. The
    others are left as they are, and the report says why. Models inside the model are folded too.

    The result is for inference. Do not train it further: it no longer normalises by its batch. It
    is not compiled; compile it with a loss and metrics to `evaluate` it. Layers keep their names
    and their `trainable` flags; those that took something in have a bias, and lose their
    regularizers and constraints, which were about another kernel. A model that ended in batch norm
    ends in the layer before it, so that an output may have another name.

    Args:
        model: a Sequential or Functional `keras.Model`, built. It stays as it is.
        data: what to compare the two models on, as the model takes it: arrays, a
            `tf.data.Dataset` or another iterable of batches, of which the first is used. None has
            a small random batch made up.
        verify: whether to run both models, in inference mode, and to compare the outputs of their
            layers. Where this proves nothing, since moving statistics are still at 0 or 1 or
            outputs hardly vary, the same is done with a copy of the model that has random
            statistics, and the report says so.

    Returns:
        The new model, and a report with a `Folded` for each batch norm layer.

    Raises:
        TypeError: when `model` is no Keras model, or `data` no data.
        ValueError: when the model is not built, has no batch norm, or is a subclassed one, whose
            layers its code holds; when it cannot be copied; when an output differs: the error names
            the first layer that does; when no batch can be made up.

    >>> layers = keras.layers
    >>> parts = [layers.Dense(4, name="dense"), layers.BatchNormalization(name="bn")]
    >>> folded, report = fold(keras.Sequential([keras.Input((3,)), *parts]))
    >>> [layer.name for layer in folded.layers], report.rows[0].into
    (['dense'], 'dense')
    """
    norms = batch_norms(model)
    _check(model)
    seeds = random.getstate()  # layers that are made draw seeds
    try:
        result = _fold(model, [place.layer for place in norms])
        found, notes = {}, ["Not verified: verify=False."]
        if verify and result.plan.folds:
            found, notes = _evidence(result, data)
    finally:
        random.setstate(seeds)
    return result.model, _report(result, norms, found, notes)


class _Result(NamedTuple):
    """A model that was folded, and how."""

    before: Any
    model: Any
    plan: Any
    twins: dict


def _check(model):
    """Refuse what cannot be folded, and say what to do."""
    if not has_plain_call(model):
        raise ValueError(
            f"model must be a Sequential or Functional model; got {model.name!r}, a "
            f"{type(model).__name__}, whose layers are called by its own code, which cannot be "
            "rewritten. Fold the Sequential or Functional models that it holds, or build it anew "
            "as keras.Model(inputs, outputs)."
        )


def _fold(model, norms):
    """Return the `_Result`."""
    plan, twins = plan_of(model, norms), {}
    exchange = _models.Exchange(
        wanted=lambda layer: id(layer) in plan.weights,
        make=lambda layer: _linear.with_bias(layer, plan.taken_in(layer)),
        fill=lambda old, new: _linear.fill(new, plan.weights[id(old)]),
        dropped=lambda layer: id(layer) in plan.folds,
    )
    return _Result(model, _models.clone(model, exchange, twins), plan, twins)


# The report


def _report(result, norms, found, notes):
    paths = {id(place.layer): place.path for place in places(result.before)}
    rows = tuple(_row(result.plan, place, paths, found) for place in norms)
    count = sum(row.into is not None for row in rows)
    if not count:
        notes = ["The result is a copy of the model."]
    ours = [
        p for p in norms
        if isinstance(p.layer, BatchNormalization) and id(p.layer) in result.plan.reasons
    ]  # fmt: skip
    if ours:
        notes = [
            *notes,
            f"{len(ours)} of those left are bnlib's, and files of the result need it; "
            "bnlib.keras.swap_out puts Keras's in their place.",
        ]
    summary = f"{count} of {len(rows)} batch norm layers folded. For inference only."
    return Report(f"fold of {result.before.name!r}", rows, (summary, *notes))


def _row(plan, place, paths, found):
    fold = plan.folds.get(id(place.layer))
    if fold is None:
        return Folded(
            "info", place.path, None, f"left: {plan.reasons[id(place.layer)]}"
        )
    side = "after" if fold.forwards else "before"
    why = f"into the {type(fold.into).__name__} {side} it"
    into = paths[id(fold.into)]
    return Folded("ok", place.path, into, why, found.get(id(place.layer)))


# Verification


REMEDY = "Pass data, as the model takes it, or verify=False to go without."

# A share of the largest output: what varies less than this shows nothing.
VARIES = 1e-3


def _evidence(result, data):
    """Compare the two models; return the differences by `id(norm)`, and notes on what they prove.

    Raises:
        ValueError: when they differ.
    """
    given = True if data is None else next(iter(Batches(data)))
    run = _verify.first_run(result.before, given, REMEDY)
    found = _compared(result, run)
    idle = _idle(result, run.calls)
    kind = "a random batch" if data is None else "the first batch of the data"
    notes = [f"Verified on {kind}: {_worst(found)}."]
    if not idle:
        return found, notes
    notes.append(
        f"That is no evidence for {len(idle)} of them: moving statistics are still at 0 or 1, or "
        "outputs hardly vary, so that a wrong fold could look right."
    )
    copy = _shaken(result.before, run.batch)
    notes.append(_evidence_of_a_copy(copy, run.batch))
    return found, notes


def _evidence_of_a_copy(copy, batch):
    """Fold a copy that has random statistics, and say what that shows."""
    again = _fold(copy, [place.layer for place in batch_norms(copy)])
    run = _verify.first_run(copy, batch, REMEDY)
    found, idle = _compared(again, run), _idle(again, run.calls)
    text = f"So a copy with random statistics was folded too, and verified: {_worst(found)}."
    if idle:
        names = ", ".join(repr(norm.name) for norm in idle)
        text += f" There too the outputs hardly vary for {names}: pass data that reach them."
    return text


def _worst(found):
    if not found:
        return "nothing was called once"
    return f"the largest difference is {max(found.values()):.1g} of the largest output"


def _compared(result, run):
    """Compare the layers that are called once, in order, and the outputs of the model.

    Where a model inside is called several times, the order of its calls may have changed.

    Returns:
        The differences by `id(norm)`, as shares of the largest outputs.

    Raises:
        ValueError: for the first that differs.
    """
    after = _once(_verify.calls_of(result.model, run.batch))
    before = _once(run.calls)
    allowed = max(_verify.tolerance(call.layer) for call in run.calls)
    found = {}
    for key, (layer, outputs) in before.items():
        folds = result.plan.taken_in(layer)
        fold = result.plan.folds.get(key)
        if fold and not fold.forwards:
            other = result.twins[id(fold.into)][1]
        elif fold or any(not each.forwards for each in folds):
            continue  # nothing that the folded model computes
        else:
            other = result.twins.get(key, (layer, layer))[1]
        if fold or folds:
            allowed += sum(_lost(each.norm, outputs) for each in folds or [fold])
        if id(other) not in after:
            continue
        pairs = list(zip(outputs, after[id(other)].outputs, strict=True))
        for pair in pairs:
            how = _verify.unlike(*pair, allowed, exactly=False)
            if how:
                raise ValueError(_explain(result, run, layer, how))
        for each in result.plan.taken_in(fold.into if fold else layer):
            found[id(each.norm)] = max(_apart(*pair) for pair in pairs)
    return found


def _once(calls):
    """Return the calls of layers that were called once, by id, in order."""
    found, again = {}, set()
    for call in calls:
        if id(call.layer) in found:
            again.add(id(call.layer))
        found[id(call.layer)] = call
    return {key: call for key, call in found.items() if key not in again}


def _lost(norm, outputs):
    """Return what rounding in front of batch norm costs, where a mean is far from 0."""
    unit = {"float64": 2**-52, "float16": 2**-10 / 40, "bfloat16": 2**-7 / 40}
    return _verify.lost_digits(norm, outputs, unit.get(norm.compute_dtype, 2**-23))


def _apart(one, other):
    one, other = np.float64(one), np.float64(other)
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    return float(
        np.nanmax(apart, initial=0) / max(np.nanmax(np.abs(one), initial=0), 1e-30)
    )


def _idle(result, calls):
    """Return the layers that were folded, but for which equal outputs prove nothing."""
    once = _once(calls)
    return [
        fold.norm
        for key, fold in result.plan.folds.items()
        if _is_fresh(fold.norm) or not (key in once and _varies(fold.norm, once[key]))
    ]


def _is_fresh(norm):
    mean, variance, _, _ = _linear.vectors(norm)
    return np.allclose(mean, 0, atol=1e-6) or np.allclose(variance, 1, atol=1e-6)


def _varies(norm, call):
    y = np.float64(call.outputs[0])
    if not np.isfinite(y).all():
        return False
    spread = moments(y, axis=_linear.axis_of(norm)).variance.max() ** 0.5
    return spread > VARIES * np.abs(y).max()


def _explain(result, run, layer, how):
    """Say what differs, and why that may be."""
    who = f"The first layer that differs is {_linear.called(layer)}: {how}"
    if _verify.difference(run.calls, result.before, run.batch, {}):
        return (
            f"the fold of {result.before.name!r} cannot be verified, since the model gives other "
            f"outputs each time. {who} Give it a seed, or pass verify=False."
        )
    return (
        f"folding {result.before.name!r} would change its outputs. {who} Perhaps a layer keeps "
        "state outside its weights and its get_config, or a value comes near the limit of its "
        "type. Pass verify=False if you accept the difference."
    )


def _shaken(model, batch):
    """Return a copy whose batch norm layers have random parameters, and statistics to suit.

    The statistics are near those of what the layers get, so that nothing grows from layer to layer.
    """
    nothing = _models.Exchange(lambda layer: False, lambda layer: layer)
    copy = _models.clone(model, nothing, {})
    rng = np.random.default_rng(0)

    def shake(norm, inputs, *args, **kwargs):
        x = np.float64(inputs)
        if not np.isfinite(x).all():
            return
        axes = norm.axis if isinstance(norm.axis, int) else tuple(norm.axis)
        mean, variance, _ = moments(x, axis=axes)
        variance = np.where(variance > 1e-12, variance, 1)
        draw = rng.uniform(0.5, 2, (2, *mean.shape))
        norm.moving_mean.assign(
            mean + np.sqrt(variance) * rng.normal(0, 0.5, mean.shape)
        )
        norm.moving_variance.assign(variance * draw[0])
        if norm.gamma is not None:
            norm.gamma.assign(draw[1])
        if norm.beta is not None:
            norm.beta.assign(rng.normal(0, 0.5, mean.shape))

    norms = [place.layer for place in batch_norms(copy)]
    with watched(norms, before=shake):
        call(copy, batch, training=False)
    return copy
