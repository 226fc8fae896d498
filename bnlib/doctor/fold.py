"""Take batch norm out of a model that is done with training: fold it into the layers beside it."""

import random
from dataclasses import dataclass
from typing import Any, ClassVar

from bnlib.doctor._evidence import evidence
from bnlib.doctor._folding import folded, has_plain_call
from bnlib.doctor._layers import batch_norms, places
from bnlib.keras import BatchNormalization
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
        difference: how far the outputs of the folded layer are from those of the model there, as
            a share of the largest one; None where nothing was compared.
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
        verify: whether to run both models, in inference mode, and to compare what comes out of
            each folded layer, and of the models. Where this proves nothing, since moving
            statistics are still at 0 or 1 or outputs hardly vary, the same is done with a copy of
            the model that has random statistics, and the report says so.

    Returns:
        The new model, and a report with a `Folded` for each batch norm layer.

    Raises:
        TypeError: when `model` is no Keras model, or `data` no data.
        ValueError: when the model is not built, has no batch norm, or is a subclassed one, whose
            layers its code holds; when it cannot be copied; when an output differs, by more than
            rounding: the error names the layer; when no batch can be made up.

    >>> import keras
    >>> parts = [keras.layers.Dense(4, name="dense"), keras.layers.BatchNormalization()]
    >>> folded, report = fold(keras.Sequential([keras.Input((3,)), *parts]))
    >>> [layer.name for layer in folded.layers], report.rows[0].into
    (['dense'], 'dense')
    """
    norms = batch_norms(model)
    _check(model)
    seeds = random.getstate()  # layers that are made draw seeds
    try:
        result = folded(model, [place.layer for place in norms])
        found, notes = {}, ["Not verified: verify=False."]
        if verify and result.plan.folds:
            found, notes = evidence(result, data)
    finally:
        random.setstate(seeds)
    return result.model, _report(result, norms, found, notes)


def _check(model):
    """Refuse what cannot be folded, and say what to do."""
    if not has_plain_call(model):
        raise ValueError(
            f"model must be a Sequential or Functional model; got {model.name!r}, a "
            f"{type(model).__name__}, whose layers are called by its own code, which cannot be "
            "rewritten. Fold the Sequential or Functional models that it holds, or build it anew "
            "as keras.Model(inputs, outputs)."
        )


# The report


def _report(result, norms, found, notes):
    paths = {id(place.layer): place.path for place in places(result.before)}
    rows = tuple(_row(result.plan, place, paths, found) for place in norms)
    count = sum(row.into is not None for row in rows)
    if not count:
        notes = ["The result is a copy of the model."]
    left = [place.layer for place in norms if id(place.layer) in result.plan.reasons]
    ours = sum(isinstance(layer, BatchNormalization) for layer in left)
    if ours:
        notes = [
            *notes,
            f"{ours} of those left are bnlib's, and files of the result need it; "
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
