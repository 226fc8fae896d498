"""Whether a folded model does what the model did, and whether the comparison proves it."""

import numpy as np

from bnlib.doctor import _linear
from bnlib.doctor._data import Batches
from bnlib.doctor._folding import folded
from bnlib.doctor._layers import batch_norms
from bnlib.keras import _models, _verify
from bnlib.keras._running import call, watched
from bnlib.moments import moments

REMEDY = "Pass data, as the model takes it, or verify=False to go without."

# A share of the largest output: what varies less than this shows nothing.
VARIES = 1e-3


def evidence(result, data):
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
    copy = shaken(result.before, run.batch)
    notes.append(_evidence_of_a_copy(copy, run.batch))
    return found, notes


def _evidence_of_a_copy(copy, batch):
    """Fold a copy that has random statistics, and say what that shows."""
    again = folded(copy, [place.layer for place in batch_norms(copy)])
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
    for each in calls:
        if id(each.layer) in found:
            again.add(id(each.layer))
        found[id(each.layer)] = each
    return {key: each for key, each in found.items() if key not in again}


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


def shaken(model, batch):
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
