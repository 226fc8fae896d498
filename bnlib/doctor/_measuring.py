"""One pass of data through a model: what goes into its batch norm layers, and what comes out."""

import keras
import numpy as np
import tensorflow as tf

from bnlib import tf_ops
from bnlib.doctor._data import Batches, tracked
from bnlib.doctor._layers import statistics
from bnlib.keras._running import call, in_training, undisturbed, watched
from bnlib.moments import Moments
from bnlib.population import Pooled

# Statistics that fit: how far the moving mean may be from that of the inputs, in deviations, and by
# what factor the variances may differ; what is beyond WRONG is an error. Root mean squares over
# the channels.
FITS = 0.2, 1.25
WRONG = 0.5, 1.6


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
        """Take in the `Moments` of one call."""
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
        return not beyond(self.misfit(layer), FITS, examples)


def beyond(misfit, limits, examples):
    """Whether either is beyond its limit, and beyond what chance does with so few examples."""
    far, factor = misfit
    chance = 3 / np.sqrt(examples)
    most, times = limits
    return far > most + chance or np.log(factor) > np.log(times) + 2 * chance


def _root_mean_square(values):
    return float(np.sqrt(np.mean(np.square(values))))


class Measured:
    """What the data showed.

    Attributes:
        examples: how many.
        sizes: examples in the first batch, and in the last.
        batches: how many.
        gap: how far training and inference are apart; a `Gap`.
    """

    def __init__(self, norms):
        self._seen = {id(place.layer): Seen() for place in norms}
        self.examples = self.batches = 0
        self.sizes = ()
        self.gap = Gap()

    def of(self, layer):
        """Return what was `Seen` of one layer."""
        return self._seen[id(layer)]

    def fits(self, layer):
        """Whether the statistics of a layer fit what goes into it."""
        seen = self.of(layer)
        return seen.known and seen.fits(layer, self.examples)


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
        ways = (_flat(outputs) for outputs in (inference, training, halves))
        for place, (y, one, two) in enumerate(zip(*ways, strict=True)):
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


def _flat(outputs):
    """Return each of the outputs as a float64 matrix, the last axis kept."""
    arrays = [np.asarray(y, float) for y in keras.tree.flatten(outputs)]
    return [y.reshape(-1, y.shape[-1] if y.ndim > 1 else 1) for y in arrays]


def measure(case, data, batch_size):
    """Run the data through the model once, and return what was `Measured`; no trace is left."""
    model, layers = case.model, [place.layer for place in case.norms]
    found = Measured(case.norms)
    with undisturbed(model):
        for batch in tracked(Batches(data, batch_size), f"audit of {model.name}"):
            batch = keras.tree.map_structure(_as_tensor, batch)
            size = len(keras.tree.flatten(batch)[0])
            found.examples += size
            found.batches += 1
            found.sizes = (*found.sizes[:1], size)
            _run(model, layers, batch, found)
    strange = [p.path for p in case.norms if not found.of(p.layer).finite]
    if strange:
        case.notes.append(
            f"Inputs of {len(strange)} batch norm layers are NaN or infinite, first of "
            f"{strange[0]!r}: nothing was measured there."
        )
    return found


def _run(model, layers, batch, found):
    """Run one batch both ways, each time from the statistics as they are."""
    calls = dict.fromkeys(map(id, layers), 0)

    def note(layer, inputs, training=None, mask=None):
        seen = found.of(layer)
        calls[id(layer)] += 1
        seen.calls = max(seen.calls, calls[id(layer)])
        seen.trains_at_inference |= bool(training) and layer.trainable
        moments = _moments(layer, inputs, mask)
        if moments is not None:
            seen.take(moments)

    with undisturbed(model), watched(layers, before=note):
        inference = call(model, batch, training=False)
    size = found.sizes[-1]
    if size < 4:  # half of it would be one example
        return
    whole = _by_batch(model, layers, batch)
    parts = [
        _by_batch(model, layers, keras.tree.map_structure(lambda v: v[part], batch))  # noqa: B023
        for part in (slice(0, size // 2), slice(size // 2, size))
    ]
    halves = keras.tree.map_structure(lambda *v: np.concatenate(v), *parts)
    found.gap.take(inference, whole, halves)


def _by_batch(model, layers, batch):
    """Return the outputs when batch norm, and nothing else, runs as in training."""
    with undisturbed(model), in_training(layers):
        return call(model, batch, training=False)


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
