"""Whether a folded model does what the model did, and whether the comparison proves it."""

import contextlib

import keras
import numpy as np

from bnlib.doctor import _linear
from bnlib.doctor._data import Batches
from bnlib.doctor._folding import folded
from bnlib.doctor._layers import batch_norms
from bnlib.keras import _models, _verify
from bnlib.keras._running import call, undisturbed, watched
from bnlib.moments import moments

REMEDY = "Pass data, as the model takes it, or verify=False to go without."

# A share of the largest output: what varies less than this shows nothing.
VARIES = 1e-3

# What a deep model may make of the rounding of its layers, as a multiple of theirs. In ResNet50
# with random statistics 3e-6 grows to 9e-5; another wiring would change the outputs altogether.
GROWTH, MOST = 200, 0.5


def evidence(result, data):
    """Compare the two models; return the differences by `id(norm)`, and notes on what they prove.

    Raises:
        ValueError: when they differ.
    """
    batch = _batch(result.before, data)
    found, idle, text = _compared(result, batch)
    kind = "a random batch" if data is None else "the first batch of the data"
    notes = [f"Verified on {kind}: {text}"]
    if idle:
        notes.append(
            f"That is no evidence for {len(idle)} of them: moving statistics are still at 0 or 1, "
            "or outputs hardly vary, so that a wrong fold could look right."
        )
        notes.append(_evidence_of_a_copy(result.before, batch))
    return found, notes


def _batch(model, data):
    """Return the first batch of the data, or one that is made up, on which the model runs."""
    if data is None:
        return _verify.first_run(model, True, REMEDY).batch
    given = next(iter(Batches(data)))
    try:
        return _verify.first_run(model, given).batch
    except Exception as error:
        raise ValueError(
            f"data must be what {model.name!r} takes; it does not run on the first batch: {error}"
        ) from error


def _evidence_of_a_copy(model, batch):
    """Fold a copy that has random statistics, and say what that shows."""
    with contextlib.suppress(ValueError):  # or the batch that is given will have to do
        batch = _verify.first_run(model, True).batch
    copy = shaken(model, batch)
    norms = [place.layer for place in batch_norms(copy)]
    _, idle, text = _compared(folded(copy, norms), batch)
    text = (
        f"So a copy with random statistics was folded too. {text[0].upper()}{text[1:]}"
    )
    if idle:
        names = ", ".join(repr(norm.name) for norm in idle)
        text += f" There too the outputs hardly vary for {names}: pass data that reach them."
    return text


def _compared(result, batch):
    """Compare the folded layers one by one, and the outputs of the two models.

    A folded layer is given what the model gave the two layers that it stands for. So rounding in
    the layers before it does not matter, and little is allowed.

    Returns:
        The differences by `id(norm)`, as shares of the largest outputs; the batch norm layers for
        which they prove nothing; and a sentence.

    Raises:
        ValueError: when something differs.
    """
    plan, found = result.plan, {}
    inputs, outputs = _seen(result.before, batch, plan)
    for layer in {id(fold.into): fold.into for fold in plan.folds.values()}.values():
        folds = plan.taken_in(layer)
        first = next((fold.norm for fold in folds if fold.forwards), layer)
        last = next((fold.norm for fold in folds if not fold.forwards), layer)
        new = result.twins[id(layer)][1]
        y = outputs[id(last)]
        other = np.asarray(new(inputs[id(first)]))
        allowed = _verify.tolerance(layer) + sum(_lost(f.norm, y) for f in folds)
        how = _verify.unlike(y, other, allowed, exactly=False)
        if how:
            raise ValueError(_explain(result, f"For {_linear.called(layer)}, {how}"))
        found |= {id(fold.norm): _apart(y, other) for fold in folds}
    idle = [
        fold.norm
        for key, fold in plan.folds.items()
        if _is_fresh(fold.norm) or not _varies(fold.norm, outputs[key])
    ]
    apart = _ends(result, batch)
    worst = max(found.values())
    text = f"the outputs of folded layers differ by {worst:.1g} of the largest at most"
    if apart is None:
        return found, idle, f"{text}; the model gives other outputs each time."
    return found, idle, f"{text}, those of the model by {apart:.1g}."


def _seen(model, batch, plan):
    """Run a model; return what goes into the layers of a plan, and what comes out, by id.

    Of several calls of a model inside, the last is returned, for all layers in it alike.
    """
    inputs, outputs = {}, {}

    def note(layer, x, *args, **kwargs):
        inputs[id(layer)] = x

    def note_too(layer, y):
        outputs[id(layer)] = np.asarray(y)

    layers = {id(v): v for fold in plan.folds.values() for v in (fold.norm, fold.into)}
    with undisturbed(model), watched(layers.values(), before=note, after=note_too):
        call(model, batch, training=False)
    return inputs, outputs


def _ends(result, batch):
    """Compare the outputs of the two models; return the difference, None if they are random.

    Raises:
        ValueError: when they differ by more than rounding can.
    """
    before, again, after = (
        _answers(m, batch) for m in (result.before, result.before, result.model)
    )
    if not all(map(np.array_equal, before, again)) and not _has_nan(before):
        return None
    tolerance = max(_verify.tolerance(v) for v in result.before._flatten_layers())
    apart = 0.0
    for one, other in zip(before, after, strict=True):
        allowed = min(GROWTH * tolerance, MOST)
        how = _verify.unlike(one, other, allowed, exactly=False)
        if how:
            raise ValueError(_explain(result, f"For the model itself, {how}"))
        if one.dtype.kind not in "OSUbiu":
            apart = max(apart, _apart(one, other))
    return apart


def _has_nan(arrays):
    return any(
        a.dtype.kind not in "OSUbiu" and np.isnan(np.float64(a)).any() for a in arrays
    )


def _answers(model, batch):
    with undisturbed(model):
        answers = keras.tree.flatten(call(model, batch, training=False))
    return [np.asarray(y) for y in answers]


def _lost(norm, outputs):
    """Return what rounding in front of batch norm costs, where a mean is far from 0."""
    unit = {"float64": 2**-52, "float16": 2**-10 / 40, "bfloat16": 2**-7 / 40}
    return _verify.lost_digits(norm, [outputs], unit.get(norm.compute_dtype, 2**-23))


def _apart(one, other):
    """Return the largest difference, as a share of the largest value; NaN does not count."""
    one, other = np.float64(one), np.float64(other)
    finite = np.isfinite(one) & np.isfinite(other)
    apart = np.abs(one[finite] - other[finite]).max(initial=0)
    return float(apart / max(np.abs(one[finite]).max(initial=0), 1e-30))


def _is_fresh(norm):
    mean, variance, _, _ = _linear.vectors(norm)
    return np.allclose(mean, 0, atol=1e-6) or np.allclose(variance, 1, atol=1e-6)


def _varies(norm, outputs):
    y = np.float64(outputs)
    if not y.size or not np.isfinite(y).all():
        return False
    spread = moments(y, axis=_linear.axis_of(norm)).variance.max() ** 0.5
    return spread > VARIES * np.abs(y).max()


def _explain(result, how):
    """Say what differs, and why that may be."""
    return (
        f"folding {result.before.name!r} would change its outputs. {how} Perhaps a layer keeps "
        "state outside its weights and its get_config, or a value comes near the limit of its "
        "type. Pass verify=False if you accept the difference."
    )


def shaken(model, batch):
    """Return a copy whose batch norm layers have random parameters, and statistics to suit.

    The statistics are near those of what the layers get, so that nothing grows from layer to layer.
    A channel that hardly varies, as many do in two examples, is given the variance of the others:
    divided by its own, its rounding would be multiplied, and by the next layer once more.
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
        variance = np.maximum(variance, variance.mean())
        variance = np.where(variance > 1e-12, variance, 1)
        draw = rng.uniform(0.5, 2, (2, *mean.shape))
        noise = rng.normal(0, 0.5, (2, *mean.shape))
        norm.moving_mean.assign(mean + np.sqrt(variance) * noise[0])
        norm.moving_variance.assign(variance * draw[0])
        if norm.gamma is not None:
            norm.gamma.assign(draw[1])
        if norm.beta is not None:
            norm.beta.assign(noise[1])

    norms = [place.layer for place in batch_norms(copy)]
    with watched(norms, before=shake):
        call(copy, batch, training=False)
    return copy
