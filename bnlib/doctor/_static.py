"""The rules that need no data: each is a function of a `Case` that yields `Fault`s."""

import keras
import numpy as np

from bnlib.axes import canonical_axes
from bnlib.doctor import _layers
from bnlib.doctor._graph import before
from bnlib.doctor._layers import is_batch_norm, places, statistics
from bnlib.doctor._measuring import drops
from bnlib.doctor._rules import Fault, channels
from bnlib.keras._models import numbers

layers = keras.layers

# layers that multiply by a matrix, add a bias, and do no more
LINEAR = (
    layers.Dense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
# layers that leave each axis where it is
KEEPS_AXES = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.Dropout,
    layers.Add,
    layers.BatchNormalization,
)
NORMALIZES = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
)


def statistics_at_start(case):
    """BN001: moving mean 0 and moving variance 1, in every channel."""
    for path, layer in case.norms:
        if case.at_start(layer):
            why = "no training step has updated them, and no file brought others"
            if case.steps and layer.trainable:
                why = f"{case.steps} steps have not moved them, since the update does not run"
            elif case.steps:
                why = f"the layer is frozen, so that {case.steps} steps could not move them"
            yield Fault(
                path,
                f"moving mean 0 and moving variance 1: {why}.",
                {"mean": 0.0, "variance": 1.0, "steps": case.steps},
            )


def no_numbers(case):
    """BN017: what a model holds, or what it makes of finite data, is NaN or infinite."""
    held = False
    for path, layer in _norms_first(case):
        bad = {
            name: int(flags.sum()) for name, flags in _layers.no_numbers(layer).items()
        }
        if bad:
            held = True
            where = ", ".join(f"{name} ({count})" for name, count in bad.items())
            yield Fault(
                path,
                f"NaN, infinity or a variance below 0 in {where}: what inference makes of them is "
                "no answer.",
                bad,
            )
    if not held and case.measured:
        yield from _computed(case)


def _norms_first(case):
    """Return all places of a model, batch norm first, and the model itself last."""
    norms = {id(place.layer) for place in case.norms}
    rest = [*places(case.model), _layers.Place(case.model.name, case.model)]
    return [*case.norms, *(place for place in rest if id(place.layer) not in norms)]


def _computed(case):
    """BN017 where all that is held is finite: what is not, on finite data?"""
    fed = [path for path, layer in case.norms if not case.measured.of(layer).finite]
    for path in fed:
        yield Fault(
            path,
            "it is fed NaN or infinity, though data and weights are finite: a layer before it "
            "divides by 0 or takes a logarithm of it, or float16 is too narrow.",
            {"inputs_finite": False},
        )
    nan, infinite = case.measured.nan_outputs, case.measured.infinite_outputs
    if not fed and (nan or infinite):
        yield Fault(
            case.model.name,
            f"of its outputs {nan} are NaN and {infinite} infinite, though data, weights and what "
            "batch norm is fed are finite: look behind the last batch norm.",
            {"nan": nan, "infinite": infinite},
            "error" if nan else "warning",  # minus infinity may be meant, as a logit
        )


def training_wired(case):
    """BN006: training=True stands in the call, in a graph or in code."""
    for path, layer in case.norms:
        wired = [c for c in case.calls_of(layer) if c.training is True]
        if wired and layer.trainable:
            yield Fault(
                path,
                "training=True stands in the graph: model(x) normalises by the batch and moves "
                "the statistics, where predict and evaluate, which pass training=False, do not.",
                {"calls": len(wired)},
            )
        elif case.measured and case.measured.of(layer).trains_at_inference:
            yield Fault(
                path,
                "it runs in training mode, though the model is called with training=False: predict "
                "normalises by the batch and moves the statistics. The code passes training=True, "
                "to it or to a layer that runs before it.",
                {"calls": case.measured.of(layer).calls},
            )


def mixed_flags(case):
    """BN007: a trainable layer among frozen ones, or the reverse."""
    weighted = [p for p in places(case.model) if _has_weights(p.layer)]
    others = [not is_batch_norm(p.layer) for p in weighted]
    for i, (path, layer) in enumerate(weighted):
        if others[i]:
            continue
        near = [
            next((weighted[j] for j in span if others[j]), None)
            for span in (range(i - 1, -1, -1), range(i + 1, len(weighted)))
        ]
        if None in near or near[0].layer.trainable != near[1].layer.trainable:
            continue
        around = near[0].layer.trainable
        between = f"between {near[0].path!r} and {near[1].path!r}"
        evidence = {"trainable": layer.trainable, "neighbours_trainable": around}
        if layer.trainable and not around:
            yield Fault(
                path,
                f"trainable {between}, which are frozen: fit still moves its statistics, away "
                "from what the frozen weights were trained with.",
                evidence,
            )
        elif around and not layer.trainable:
            yield Fault(
                path,
                f"frozen {between}, which are trainable: its statistics stay while its inputs "
                "change. In a short fine-tuning that is meant; after a long one, audit with data.",
                evidence,
                "info",
            )
    for path, layer in case.norms:
        if layer.trainable and any(c.training is False for c in case.calls_of(layer)):
            yield Fault(
                path,
                "training=False stands in the graph, and the layer is trainable: fit passes "
                "training=True, which overrides it, and the statistics move.",
                {"trainable": True, "training": False},
            )


def _has_weights(layer):
    return bool(is_batch_norm(layer) or layer._trainable_variables)


def dropout_upstream(case):
    """BN008: dropout before it, no normalization between; with data, a variance that it shifts."""
    for path, layer in case.norms:
        if not layer.trainable:
            continue
        before_it = _dropout_before(case, layer)
        factor = case.measured and case.measured.inflated(layer)
        where = (
            f" upstream ({before_it[0]}, rate {before_it[1]:g})" if before_it else ""
        )
        evidence = {"dropout": before_it and before_it[0], "factor": factor}
        if factor is None and before_it:
            yield Fault(
                path,
                f"dropout{where}: it makes variances larger in training than at inference, and "
                "the moving variance is of training.",
                evidence,
            )
        elif factor is not None and abs(np.log(factor)) > 0.05 + 1 / np.sqrt(
            case.measured.examples
        ):
            yield Fault(
                path,
                f"dropout{where} makes the variance of its inputs {factor:.2f} times as large in "
                f"training as at inference. The moving variance {_whose(case, layer)}.",
                evidence,
            )


def _whose(case, layer):
    """Say what the moving variance fits: after a recalibration it is inference."""
    if case.measured.fits(layer):
        return "fits inference now, and will not after more training"
    return "is of training"


def _dropout_before(case, layer):
    """Return (path, rate) of the nearest dropout that reaches a layer, or None."""
    for call in case.calls_of(layer):
        for each in before(call, lambda c: isinstance(c.operation, NORMALIZES)):
            if drops(each.operation):
                return each.path, float(each.operation.rate)
    return None


def useless_bias(case):
    """BN009: a bias that the mean takes out again."""
    found = []
    for path, layer in case.norms:
        for call in case.calls_of(layer):
            (source, *_) = call.sources
            producer = source.operation
            if _adds_bias(producer) and _axis(layer, call) == _channels_axis(
                producer, call
            ):
                only = len(case.calls_of(producer)) == 1 and len(source.uses) == 1
                size = int(np.size(numbers(producer.bias)))
                if only:
                    found.append((path, source.path, size))
    total = sum(size for _, _, size in found)
    for path, producer, size in sorted(found, key=lambda f: -f[2]):
        yield Fault(
            path,
            f"the mean takes the bias of {producer!r} out again: {size:,} numbers of "
            f"{total:,} such in the model.",
            {"producer": producer, "biases": size},
        )


def _adds_bias(layer):
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    return (
        isinstance(layer, LINEAR)
        and linear
        and getattr(layer, "bias", None) is not None
    )


def _axis(layer, call):
    """Return the axis or axes that a batch norm layer keeps, none negative."""
    return canonical_axes("axis", layer.axis, len(call.shape))


def _channels_axis(layer, call):
    """Return where a layer puts its channels, as `_axis` does."""
    first = getattr(layer, "data_format", None) == "channels_first"
    return (1,) if first else (len(call.shape) - 1,)


def flat_channels(case):
    """BN010: channels that are constant, or whose gamma is near 0."""
    for path, layer in case.norms:
        _, variance = statistics(layer)
        constant = variance <= 1e-3 * layer.epsilon
        seen = case.measured and case.measured.of(layer)
        if seen and seen.known and not case.at_start(layer):
            constant = seen.variance <= 1e-12 * seen.mean**2 + 1e-30
        silent = np.zeros_like(constant)
        if layer.gamma is not None:
            silent = np.abs(np.asarray(numbers(layer.gamma), float)) < 1e-3
        if constant.any() or silent.any():
            yield Fault(
                path,
                f"no variance in {channels(constant)}, gamma below 0.001 in {silent.sum()}: "
                "they give beta, whatever the input.",
                {"constant": int(constant.sum()), "gamma_near_0": int(silent.sum())},
            )


def shared_layer(case):
    """BN011: one layer that is called at several places."""
    for path, layer in case.norms:
        calls = case.calls_of(layer)
        number = len(calls)
        if not calls and case.measured and not _in_time_distributed(case, layer):
            number = case.measured.of(layer).calls
        if number > 1 and layer.trainable:
            yield Fault(
                path,
                f"{number} calls share one moving mean and variance: each moves them towards its "
                "own inputs, and inference normalises all by the mixture.",
                {"calls": number},
            )


def _in_time_distributed(case, layer):
    return any(inner.layer is layer for _, inner in _time_distributed(case))


def _time_distributed(case):
    """Yield (the wrapper, a batch norm layer in it)."""
    for place in places(case.model):
        if isinstance(place.layer, layers.TimeDistributed):
            for norm in case.norms:
                if norm.layer in place.layer._flatten_layers():
                    yield place.layer, norm


def each_step_alone(case):
    """BN012: batch norm inside TimeDistributed."""
    for wrapper, (path, layer) in _time_distributed(case):
        if layer.trainable:
            shape = (wrapper.get_build_config() or {}).get("input_shape") or (
                None,
                None,
            )
            steps = shape[1]
            yield Fault(
                path,
                f"in {wrapper.name!r} each of {steps or 'the'} time steps is a batch of its own: "
                "training normalises by one step, and one call moves the statistics once a step.",
                {"wrapper": wrapper.name, "time_steps": steps},
            )


def averaged_weights(case):
    """BN013: the optimizer averages weights, and nothing averages the statistics."""
    outer = getattr(case.model, "optimizer", None)
    optimizer = getattr(outer, "inner_optimizer", outer)
    averages = getattr(optimizer, "use_ema", False) or hasattr(
        optimizer, "assign_average_vars"
    )
    if not (averages and case.steps):
        return
    momentum = getattr(optimizer, "ema_momentum", None)
    for path, layer in case.norms:
        if case.measured and case.measured.fits(layer):
            continue
        if layer.trainable:
            yield Fault(
                path,
                f"{type(optimizer).__name__} averages the weights (ema_momentum {momentum}, "
                f"{case.steps} steps): the statistics are those of weights that are not averaged.",
                {"ema_momentum": momentum, "steps": case.steps},
            )


def large_epsilon(case):
    """BN014: an epsilon that is not small beside the variance."""
    for path, layer in case.norms:
        _, variance = statistics(layer)
        share = np.median(layer.epsilon / (np.abs(variance) + layer.epsilon))
        if share > 0.2 and not case.at_start(layer):
            yield Fault(
                path,
                f"epsilon {layer.epsilon:g} is {share:.0%} of variance + epsilon in half of the "
                f"channels or more: outputs have deviation {np.sqrt(1 - share):.2f} in place of 1.",
                {"epsilon": layer.epsilon, "median_share": float(share)},
            )


def odd_momentum(case):
    """BN015: a momentum outside (0, 1), or what looks like PyTorch's."""
    for path, layer in case.norms:
        momentum = layer.momentum
        if momentum is None:  # ours: the plain average
            continue
        zero_debias = getattr(layer, "zero_debias", False)
        if not 0 < momentum < 1 and not (momentum == 1 and zero_debias):
            what = {
                0: "only the last batch is remembered",
                1: "nothing is remembered",
            }.get(momentum, "the average does not settle")
            yield Fault(path, f"momentum {momentum:g}: {what}.", {"momentum": momentum})
        elif 0 < momentum <= 0.2:
            yield Fault(
                path,
                f"momentum {momentum:g} forgets {1 - momentum:.0%} of the past at each batch. It "
                f"looks like PyTorch's, which is Keras's {1 - momentum:g}.",
                {"momentum": momentum},
                "warning",
            )


def other_axis(case):
    """BN016: an axis that is not where the layer before puts its channels."""
    for path, layer in case.norms:
        for call in case.calls_of(layer):
            source = _with_format(call)
            if source is None:
                continue
            here, there = _axis(layer, call), _channels_axis(source.operation, call)
            if len(call.shape) > 2 and here != there:
                yield Fault(
                    path,
                    f"axis {layer.axis} of inputs {call.shape}, where {source.path!r} "
                    f"({source.operation.data_format}) has its channels on axis {there[0]}.",
                    {"axis": layer.axis, "data_format": source.operation.data_format},
                )
                break


def _with_format(call):
    """Return the nearest call upstream whose layer has a data format, if axes stay until there."""
    rank = len(call.shape)
    while call.sources:
        call = call.sources[0]
        operation = call.operation
        if isinstance(operation, layers.Flatten) or call.shape is None:
            return None
        if getattr(operation, "data_format", None):
            return call if len(call.shape) == rank else None
        if not isinstance(operation, KEEPS_AXES):
            return None
    return None
