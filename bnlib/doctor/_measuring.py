"""One pass of data through a model: what goes into its batch norm layers, and what comes out."""

import contextlib
import operator

import keras
import numpy as np
import tensorflow as tf

from bnlib import tf_ops
from bnlib.doctor._data import Batches, check_list, taken, tracked
from bnlib.doctor._layers import statistics
from bnlib.keras._running import call, in_training, undisturbed, watched
from bnlib.moments import Moments
from bnlib.population import Pooled

# Statistics that fit: how far the moving mean may be from that of the inputs, in deviations, and by
# what factor the variances may differ, beside what chance does with few examples. Root mean squares
# over the channels. The digits lose accuracy from about there.
FITS = 0.2, 1.25


class Seen:
    """What went into one batch norm layer, over all batches, in inference mode.

    Attributes:
        calls: how often one call of the model calls the layer.
        values: how many values per channel the last call had.
        trains_at_inference: whether the layer was told to train, while the model was not.
        finite: whether all inputs were numbers.
    """

    def __init__(self):
        self.calls = self.values = 0
        self.trains_at_inference, self.finite = False, True
        self._all, self._within = None, []

    def take(self, moments):
        """Take in the `Moments` of one call; None is nothing."""
        if moments is None:
            return
        self.values = moments.count
        if not np.isfinite(
            np.concatenate([moments.mean, moments.variance], None)
        ).all():
            self.finite = False
            return
        if self._all is None:
            self._all = Pooled(moments.mean.shape)
            self._within = np.zeros(moments.mean.shape)
        self._all.update(moments)
        self._within = self._within + moments.count * moments.variance

    @property
    def known(self):
        """Whether there is anything to compare with."""
        return self._all is not None and self.finite

    @property
    def mean(self):
        """The mean of all inputs, by channel."""
        return self._all.mean

    @property
    def variance(self):
        """The variance of all inputs, by channel."""
        return self._all.variance

    @property
    def within(self):
        """The average variance within a batch, by channel."""
        return self._within / self._all.count

    def misfit(self, layer):
        """Return how far the moving statistics of the layer are off: (deviations, factor)."""
        mean, variance = statistics(layer)
        true = self.variance + layer.epsilon
        far = (mean - self.mean) / np.sqrt(true)
        factor = np.log(np.maximum(variance + layer.epsilon, 1e-30) / true)
        return _root_mean_square(far), float(np.exp(_root_mean_square(factor)))

    def fits(self, layer, examples):
        """Whether the moving statistics are those of the inputs, as well as so many can tell."""
        chance = 2 / np.sqrt(examples)
        far, factor = self.misfit(layer)
        return (
            far <= FITS[0] + chance and np.log(factor) <= np.log(FITS[1]) + 2 * chance
        )


def _root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))


class Measured:
    """What the data showed.

    Attributes:
        examples: how many.
        sizes: examples in the first batch, and in the last.
        batches: how many.
        nan_outputs: how many numbers that the model gave in inference mode are NaN.
        infinite_outputs: how many are infinite.
        gap: how far training and inference are apart; a `Gap`.
        with_dropout: what was `Seen` in training, by `id` of the layer; nothing without dropout.
        without_dropout: the same when dropout does nothing.
    """

    def __init__(self, norms):
        self._seen = {id(place.layer): Seen() for place in norms}
        self.examples = self.batches = 0
        self.nan_outputs = self.infinite_outputs = 0
        self.sizes = ()
        self.gap = Gap()
        self.with_dropout, self.without_dropout = (
            {id(place.layer): Seen() for place in norms} for _ in range(2)
        )

    def of(self, layer):
        """Return what was `Seen` of one layer."""
        return self._seen[id(layer)]

    def fits(self, layer):
        """Whether the statistics of a layer fit what goes into it."""
        seen = self.of(layer)
        return seen.known and seen.fits(layer, self.examples)

    def inflated(self, layer):
        """Return the factor by which dropout changes the variance of the inputs, or None."""
        with_, without = (
            d[id(layer)] for d in (self.with_dropout, self.without_dropout)
        )
        if not (with_.known and without.known):
            return None
        epsilon = layer.epsilon
        return float(np.median((with_.within + epsilon) / (without.within + epsilon)))


class Gap:
    """How far outputs are apart when batch norm uses the batch, and when the moving statistics.

    Also without a fault the two differ, by chance: a batch is a sample. Half a batch differs from
    the whole by as much as the whole does from all data, and so tells how much is chance.

    Attributes:
        rows: how many outputs had a largest one.
        other_class: in how many it is another one.
    """

    def __init__(self):
        self._spread, self._apart, self._chance = {}, {}, {}
        self.other_class = self.rows = 0

    def take(self, inference, training, halves):
        """Take in the outputs of one batch: both ways, and in training by halves of the batch."""
        ways = (keras.tree.flatten(outputs) for outputs in (inference, training))
        parts = zip(*map(keras.tree.flatten, halves), strict=True)
        for place, (y, one, two) in enumerate(zip(*ways, parts, strict=True)):
            if not _by_example(y, two):
                continue
            y, one, two = map(_as_matrix, (y, one, np.concatenate(two)))
            if not all(np.isfinite(v).all() for v in (y, one, two)):
                continue
            spread = self._spread.setdefault(place, Pooled(y.shape[1]))
            spread.update(Moments(y.mean(0), y.var(0), len(y)))
            for sums, other in ((self._apart, y), (self._chance, two)):
                sums[place] = sums.get(place, 0) + np.square(one - other).sum()
            if y.shape[1] > 1:
                self.other_class += int((one.argmax(1) != y.argmax(1)).sum())
                self.rows += len(y)

    def largest(self):
        """Return (gap, chance) of the output with the largest gap, as shares of its deviation."""
        shares = [(0.0, 0.0)]
        for place, spread in self._spread.items():
            total = spread.count * spread.variance.sum()
            if total > 0:
                sums = self._apart[place], self._chance[place]
                shares.append(tuple(float(np.sqrt(s / total)) for s in sums))
        return max(shares)


def _by_example(y, halves):
    """Whether an output is of floating numbers, and has a row for each example."""
    if not _floating(y) or y.shape.rank == 0:
        return False
    return len(y) == sum(len(half) for half in halves)


def _floating(y):
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(y.dtype))


def _as_matrix(y):
    """Return an output as float64, the last axis kept."""
    return np.asarray(y, float).reshape(-1, y.shape[-1] if y.ndim > 1 else 1)


def measure(case, data, batch_size):
    """Run the data through the model once, and return what was `Measured`; no trace is left."""
    model = case.model
    check_list(data, model)
    runs = Runs(case, Measured(case.norms))
    for batch in tracked(Batches(data, batch_size), f"audit of {model.name}"):
        runs.take(keras.tree.map_structure(_as_tensor, batch))
    found = runs.found
    strange = [p.path for p in case.norms if not found.of(p.layer).finite]
    if strange:
        case.notes.append(
            f"Inputs of {len(strange)} batch norm layers are NaN or infinite, first of "
            f"{strange[0]!r}: nothing was measured there."
        )
    return found


class Runs:
    """The runs of a model on each batch, every time from the statistics as they are."""

    def __init__(self, case, found):
        self.found, self._model = found, case.model
        self._norms = [place.layer for place in case.norms]
        inside = case.model._flatten_layers()
        self._drops = [layer for layer in inside if drops(layer)]
        self._notes, self._halve = case.notes, True

    def take(self, batch):
        """Run one batch in inference mode, then as in training, whole and by halves."""
        found, size = self.found, len(keras.tree.flatten(batch)[0])
        found.examples += size
        found.batches += 1
        found.sizes = (*found.sizes[:1], size)
        inference = self._inference(batch)
        for each in filter(_floating, keras.tree.flatten(inference)):
            values = np.asarray(each)
            found.nan_outputs += int(np.isnan(values).sum())
            found.infinite_outputs += int(np.isinf(values).sum())
        seen = found.without_dropout if self._drops else None
        whole = self._training(batch, self._norms, seen)
        if self._halve and size >= 4:  # half of fewer would be one example
            halves = self._halves(batch, size)
            if halves:
                found.gap.take(inference, whole, halves)
        if self._drops:
            self._training(batch, [*self._norms, *self._drops], found.with_dropout)

    def _halves(self, batch, size):
        """Return what the model makes of both halves in training; None if it does not take them."""
        parts = slice(0, size // 2), slice(size // 2, size)
        halves = [
            keras.tree.map_structure(operator.itemgetter(part), batch) for part in parts
        ]
        try:
            return [self._training(half, self._norms) for half in halves]
        except (ValueError, tf.errors.InvalidArgumentError):  # one size of batch alone
            self._halve = False
            self._notes.append(
                f"BN003 was left out: the model does not take half of a batch of {size}."
            )
            return None

    def _inference(self, batch):
        calls = dict.fromkeys(map(id, self._norms), 0)

        def note(layer, inputs, training=None, mask=None):
            seen = self.found.of(layer)
            calls[id(layer)] += 1
            seen.calls = max(seen.calls, calls[id(layer)])
            seen.trains_at_inference |= bool(training) and layer.trainable
            seen.take(_moments(layer, inputs, mask))

        with (
            taken(self._model, batch),
            undisturbed(self._model),
            watched(self._norms, before=note),
        ):
            return call(self._model, batch, training=False)

    def _training(self, batch, layers, seen=None):
        """Run with these layers, and no others, in training; note what goes into batch norm."""

        def note(layer, inputs, training=None, mask=None):
            seen[id(layer)].take(_moments(layer, inputs, mask))

        noted = self._norms if seen else []
        with contextlib.ExitStack() as stack:
            stack.enter_context(undisturbed(self._model))
            stack.enter_context(in_training(layers))
            stack.enter_context(watched(noted, before=note))
            return call(self._model, batch, training=False)


def drops(layer):
    """Whether a layer drops values; not stochastic depth, which drops a branch of an example."""
    kinds = keras.layers.Dropout, keras.layers.GaussianDropout
    if not isinstance(layer, kinds) or not layer.rate:
        return False
    shape = getattr(layer, "noise_shape", None)
    return shape is None or any(n != 1 for n in shape[1:])


def _moments(layer, inputs, mask):
    """Return the `Moments` of what goes into a layer, in float64; None where there is nothing."""
    if tf.is_symbolic_tensor(inputs) or not tf.size(inputs):
        return None
    if mask is not None and not tf.reduce_any(tf.cast(mask, bool)):
        return None
    axis = layer.axis if isinstance(layer.axis, int) else tuple(layer.axis)
    weights = None if mask is None else tf.cast(mask, bool)
    mean, variance, count = tf_ops.moments(inputs, axis=axis, weights=weights)
    return Moments(mean.numpy(), variance.numpy(), float(count))


def _as_tensor(value):
    return tf.constant(value) if isinstance(value, np.ndarray) else value
