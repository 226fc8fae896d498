"""Measure the moving statistics of a model anew, on data, with the weights that it has now."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, starmap
from numbers import Integral
from typing import Any, ClassVar, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bnlib.axes import canonical_axes
from bnlib.doctor._data import Batches, check_list, plural, taken, tracked
from bnlib.doctor._layers import batch_norms, not_finite, statistics
from bnlib.keras._models import copies, numbers
from bnlib.keras._running import call, remembered, undisturbed, watched
from bnlib.keras.layer import BatchNormalization
from bnlib.moments import moments
from bnlib.reports import Report, Row

__all__ = ["Recalibrate", "Recalibrated", "recalibrate"]

FEW = 200  # examples: from so many values a variance is known to within 10 %


@dataclass(frozen=True)
class Recalibrated(Row):
    """What was done to one layer. Without data that reaches it, its numbers are None.

    The level says how far off the statistics were: "ok" below 0.1 deviations and 10 % of the
    variance, "warning" from 0.5 deviations or a factor of 1.6, "info" between. Where something
    was left undone it is "warning" too, and the notes of the report say what.

    Attributes:
        path: such as "encoder/block1/bn".
        mean_moved: how far the moving mean moved, in the channel where it moved furthest, in
            deviations, `sqrt(variance + epsilon)` of the new variance.
        variance_was: the old `variance + epsilon` as a multiple of the new one, in the channel
            where this is furthest from 1.
        values: how many values the new statistics are of, in the channel that has the fewest.
        channels: how many channels there are.
    """

    path: str
    mean_moved: float | None
    variance_was: float | None
    values: int
    channels: int
    columns: ClassVar = ("level", "path", "mean_moved", "variance_was", "values")


def recalibrate(
    model: Any,
    data: Any,
    *,
    method: Literal["exact", "fast"] = "exact",
    layers: Iterable[Any] | Literal["all"] | None = None,
    batch_size: int = 32,
) -> Report[Recalibrated]:
    """Give each batch norm layer the mean and variance of what it is fed at inference.

    `exact` goes layer by layer, in the order in which they are called: what reaches a layer depends
    on the statistics of those before it, which are right by then. The result is that of one batch
    with all of the data, without dropout, and it does not depend on `batch_size`. It takes one walk
    over the data for each layer, and a walk stops each batch where that layer has seen it.

    `fast` takes a single walk, in which each layer normalises by the batch, as in training. The
    first layer is exact. Deeper ones are not, for what they are fed was normalised by batches: in a
    network for digits, the variance of the fourth came out 7 % low with batches of 8, and 2 % with
    32. Use large batches.

    All else is as in inference, in both: no dropout, and no weight, metric, random state or
    optimizer changes. Sums run in float64, and one batch is held at a time. When anything fails,
    the model is as it was.

    - Values under a mask do not count, as in training. Ours weigh by it, as the layer does.
    - A layer that is called several times, such as one that is shared or in `TimeDistributed`, gets
      the statistics of all its calls together. If what it is fed depends on what it gave before,
      one round is not enough: the report says so, and further calls come closer.
    - With `bessel`, the variance is multiplied by n / (n - 1), n being all values; the statistics
      of `renorm` follow. Counters such as those of `zero_debias` stay.
    - Under a `tf.distribute` strategy all replicas get the new values. Call it outside of
      `strategy.run`; each worker needs the same data.

    Args:
        model: a `keras.Model`, built.
        data: what the model is fed, with or without targets: arrays, a `tf.data.Dataset`, a
            `PyDataset`, another iterable of batches, or a function that returns one. Take training
            data, without augmentation that inference lacks. A generator can only be walked once,
            which is enough for `fast`.
        method: "exact" or "fast".
        layers: which ones: their paths, as the report has them, or the layers. None takes all that
            are not frozen: a frozen layer used the same statistics in training, so the others are
            used to them. "all" takes these too.
        batch_size: for arrays.

    Returns:
        A `Report` with a `Recalibrated` for each layer.

    Raises:
        TypeError: when this is no model, or no data.
        ValueError: when the model has no batch norm, or only frozen ones; when a layer is unknown;
            when a list holds another number of arrays than the model has inputs; when the data can
            be walked once only, and `exact` must do so again; when there are none, or not as many
            in each walk; when they, or what a layer is fed, are not finite, or do not fit into the
            type of the statistics; inside a `tf.function` or `strategy.run`.

    Method: Wu and Johnson (2021), precise BN; Chan, Golub and LeVeque (1983) for the sums.

    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization(name="n")])
    >>> report = recalibrate(model, np.array([[1.0], [3.0], [5.0]]))
    >>> model.get_layer("n").moving_mean.numpy()
    array([3.], dtype=float32)
    """
    batches = _batches(data, method, batch_size)
    chosen, notes = _chosen(model, layers)
    check_list(data, model)
    on_replica = (
        tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
    )
    if on_replica or tf.inside_function():
        raise ValueError(
            "recalibrate must be called outside of a tf.function, and outside of strategy.run: it "
            "walks over the data in Python. Call it after training, or use the callback."
        )
    run = _Run(model, batches, chosen)
    before = [statistics(place.layer) for place in chosen]
    restore = remembered(v for p in chosen for v in _statistics_of(p.layer))
    try:
        run.exact() if method == "exact" else run.fast()
    except BaseException:
        restore()
        raise
    rows = tuple(map(run.row, chosen, before))
    title = f"recalibration of {model.name!r}, {method}"
    return Report(title, rows, (*run.notes(rows), *notes))


class Recalibrate(keras.callbacks.Callback):
    """Recalibrate at the end of `fit`, and, if you like, before validation.

    At the end of training Keras first puts averaged weights in place (`use_ema`), and calls its
    callbacks then, in the order of the list. So place this one behind those that change weights
    (`SwapEMAWeights`, `EarlyStopping(restore_best_weights=True)`), and before those that save
    (`ModelCheckpoint`, with `every=1`).

    Averaged weights need it: the moving statistics are those of the weights of training. With
    `SwapEMAWeights` and `every`, what is validated is the average with statistics of its own. When
    the weights are swapped back these statistics stay, and training lets them move on.

    Args:
        data: see `recalibrate`.
        every: recalibrate also in each epoch that is a multiple of this, before its validation; at
            its end where there is none.
        method: see `recalibrate`.
        layers: see `recalibrate`; paths, since the model is not known yet, or layers.
        batch_size: see `recalibrate`.

    Attributes:
        reports: a `Report` for each time.

    Raises:
        TypeError: when this is no data.
        ValueError: here for data that cannot be walked as often as needed, and when training
            begins for unknown layers: not after hours.

    >>> Recalibrate(np.ones((8, 3)), every=5).reports
    []
    """

    def __init__(
        self,
        data: Any,
        *,
        every: int | None = None,
        method: Literal["exact", "fast"] = "exact",
        layers: Iterable[Any] | Literal["all"] | None = None,
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        if every is not None and (
            isinstance(every, bool) or not isinstance(every, Integral) or every < 1
        ):
            raise ValueError(
                f"every must be a positive number of epochs; got {every!r}. Use None to "
                "recalibrate at the end only."
            )
        repeatable = _batches(data, method, batch_size).repeatable
        if every and not repeatable:
            raise _walked_once("the callback walks again every few epochs")
        self.every, self._data = every, data
        if layers is not None and layers != "all":
            layers = list(layers)
        self._settings = {"method": method, "layers": layers, "batch_size": batch_size}
        self._due = False
        self.reports: list[Report[Recalibrated]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Look whether the layers are there."""
        _chosen(self.model, self._settings["layers"])
        check_list(self._data, self.model)
        self._due = False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """See whether it is time."""
        self._due = self.every is not None and (epoch + 1) % self.every == 0

    def on_test_begin(self, logs: Any = None) -> None:
        """Recalibrate before validation, if it is time."""
        if self._due:
            self._recalibrate()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Recalibrate where there was no validation, if it is time."""
        if self._due:
            self._recalibrate()

    def on_train_end(self, logs: Any = None) -> None:
        """Recalibrate."""
        self._recalibrate()

    def _recalibrate(self):
        self._due = False
        self.reports.append(recalibrate(self.model, self._data, **self._settings))


# What to do, and with what


def _batches(data, method, batch_size):
    if method not in ("exact", "fast"):
        raise ValueError(
            f"method must be 'exact' or 'fast'; got {method!r}. Use 'exact' unless the data can "
            "be walked only once."
        )
    batches = Batches(data, batch_size)
    if method == "exact" and not batches.repeatable:
        raise _walked_once("method 'exact' does so for each layer")
    return batches


def _walked_once(why):
    return ValueError(
        f"data must allow several walks, for {why}; got an iterator, which is used up after one. "
        "Pass a function that makes it, as lambda: batches(), or use method='fast'."
    )


def _chosen(model, layers):
    """Return the `Place`s that are wanted, and notes about the others."""
    found = batch_norms(model)
    if isinstance(layers, str) and layers == "all":
        return found, []
    if layers is None:
        frozen = [p.path for p in found if not p.layer.trainable]
        if len(frozen) == len(found):
            raise ValueError(
                f"layers must be given for {model.name!r}: all of its {len(found)} batch norm "
                "layers are frozen (trainable=False), and these are left alone by default. Use "
                "layers='all'."
            )
        chosen = [p for p in found if p.layer.trainable]
        return chosen, _frozen_note(frozen)
    wanted = [layers] if isinstance(layers, (str, keras.layers.Layer)) else list(layers)
    unknown = [w for w in wanted if not any(w is p.layer or w == p.path for p in found)]
    if unknown or not wanted:
        known = [p.path for p in found]
        raise ValueError(
            f"layers must be paths of batch norm layers in {model.name!r}, or these layers; got "
            f"{unknown}. There are {_some(known)}."
        )
    return [p for p in found if any(w is p.layer or w == p.path for w in wanted)], []


def _frozen_note(frozen):
    if not frozen:
        return []
    return [f"Left alone, since frozen: {_some(frozen)}. layers='all' includes them."]


def _some(names):
    """Join names; of many, the first few."""
    rest = f" and {len(names) - 4} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[: 4 if rest else 5])) + rest


def _statistics_of(layer):
    """Return the variables that recalibration sets."""
    names = ["moving_mean", "moving_variance"]
    if layer.renorm:
        names += ["moving_stddev", "renorm_mean", "renorm_stddev"]
    return [getattr(layer, name) for name in names]


# Walks over the data


class _Enough(BaseException):
    """Ends the forward pass, and brings an error out. No handler in a model, or of Keras, sees it.

    Keras would wrap an error in lines of its own.
    """

    def __init__(self, error=None):
        self.error = error


class _NoNumbers(ValueError):
    """A layer was fed NaN or infinity."""


class _Walk(NamedTuple):
    """What one walk over the data saw.

    Attributes:
        pools: a `_Pool` for each watched layer, by `id`.
        calls: the orders of calls that were met, each a tuple of `id`s.
        size: how many examples and how many batches there were.
        failed: for each layer that was fed no numbers, by `id`, what to raise.
    """

    pools: dict
    calls: list
    size: tuple
    failed: dict


class _Run:
    """One recalibration: of which model, on which data, and what came of it."""

    def __init__(self, model, batches, chosen):
        self._model, self._batches = model, batches
        self._layers = {id(p.layer): p.layer for p in chosen}
        self._paths = {id(p.layer): p.path for p in chosen}
        self._pools = {}
        self._walks, self._size = 0, None
        self._unsettled, self._wired = [], set()
        self._by_batch = False

    def exact(self):
        """Measure and set one layer after the other."""
        # what later layers are fed may be NaN for the statistics that this is to mend
        first = self._walk(self._layers, for_order=True)
        order = _order(first.calls)
        if order and order[0] in first.failed:
            raise first.failed[order[0]]
        for place, key in enumerate(order):
            several = any(calls.count(key) > 1 for calls in first.calls)
            walk = self._walk([key], until=None if several else key) if place else first
            self._set(key, walk.pools[key])
        if not all(_in_order(calls, order) for calls in first.calls):
            again = self._walk(order)
            self._unsettled = [k for k in order if self._moves(k, again.pools[k])]

    def fast(self):
        """Measure all layers at once, each of which normalises by the batch, and set them."""
        self._by_batch = True
        for key, pool in self._walk(self._layers).pools.items():
            self._set(key, pool)

    def _walk(self, keys, until=None, for_order=False):
        """Walk over the data once, and pool what some layers are fed.

        A walk `for_order` goes on where another layer than the first is fed no numbers.
        """
        layers = [self._layers[key] for key in keys]
        pools, orders, now, failed = {}, [], [], {}

        def before(layer, *args, **kwargs):
            now.append(id(layer))
            try:
                self._take(layer, pools, *args, **kwargs)
            except _NoNumbers as error:
                if not for_order or id(layer) == now[0]:
                    raise _Enough(error) from error
                failed[id(layer)] = error
            except Exception as error:
                raise _Enough(error) from error
            if id(layer) == until:
                raise _Enough

        examples = number = 0
        self._walks += 1
        text = self._paths[until] if until else "batch norm layers"
        with undisturbed(self._model):
            for batch in tracked(self._batches, f"Recalibrating {text}"):
                now.clear()
                try:
                    with (
                        taken(self._model, batch),
                        watched(layers, before=before),
                    ):
                        call(self._model, batch, training=False)
                except _Enough as enough:
                    if enough.error:
                        raise enough.error from None
                if tuple(now) not in orders:
                    orders.append(tuple(now))
                examples += len(keras.tree.flatten(batch)[0])
                number += 1
        if self._size not in (None, (examples, number)):
            raise ValueError(
                f"data must be the same in each walk; got {self._size[0]} examples, then "
                f"{examples}. Let the function make them anew, or use method='fast'."
            )
        self._size = examples, number
        found = {key: pools.get(key) for key in keys}
        return _Walk(found, orders, self._size, failed)

    def _take(self, layer, pools, *args, **kwargs):
        """Take one call of a layer into its pool."""
        given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
        x, mask = next(iter(given.values())), given.get("mask")
        path = self._paths[id(layer)]
        if tf.is_symbolic_tensor(x):
            raise ValueError(
                f"{path!r} must be called eagerly to be measured; it is called in a loop that "
                "TensorFlow traces. Use a loop of Python, or leave it out by layers=."
            )
        if given.get("training"):
            self._wired.add(path)
        part = _measured(layer, x.numpy(), None if mask is None else np.asarray(mask))
        if part is None:
            return
        if not (np.isfinite(part.mean).all() and np.isfinite(part.variance).all()):
            broken = not_finite(self._model)
            cause = "float16 may be too narrow, or a layer divides by 0."
            if broken:
                cause = f"NaN, infinity or a variance below 0 is in {_some(broken)}."
            raise _NoNumbers(
                f"what {path!r} is fed must be finite; it got NaN or infinity. Look at the layers "
                f"before it: {cause}"
            )
        pools.setdefault(id(layer), _Pool(part.mean.shape)).take(part)
        if self._by_batch:
            seen = part.count > 0
            self._put(layer, layer.moving_mean, part.mean, seen)
            self._put(layer, layer.moving_variance, part.variance, seen)

    def _set(self, key, pool):
        """Give a layer the statistics of its pool, where a channel has two values at least."""
        if pool is None:
            return
        layer, enough = self._layers[key], pool.values >= 2
        self._pools[key] = pool
        variance = pool.variance_for(layer)
        new = [pool.mean, variance]
        if layer.renorm:
            # as the layer does: what renorm corrects by has no factor of Bessel
            new += [np.sqrt(variance + layer.epsilon), pool.mean]
            new += [np.sqrt(pool.variance + layer.epsilon)]
        for variable, value in zip(_statistics_of(layer), new, strict=True):
            self._put(layer, variable, value, enough)

    def _put(self, layer, variable, value, where):
        """Assign on every replica, where a channel is wanted."""
        with np.errstate(over="ignore"):
            rounded = value.astype(numbers(variable).dtype)
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"the statistics of {self._paths[id(layer)]!r} must fit into {variable.dtype}; its "
                f"{variable.name} is {np.abs(value).max():.3g}. Scale the inputs down; in place of "
                "a layer with float16 statistics put ours, which has float32: bnlib.keras.swap_in."
            )
        for copy in copies(variable):
            copy.assign(np.where(where, rounded, copy.numpy()))

    def _moves(self, key, pool):
        """Whether another walk would change the statistics of a layer."""
        if pool is None:
            return False
        layer = self._layers[key]
        new = pool.mean, pool.variance_for(layer)
        moved, ratio = _change(layer, statistics(layer), new, pool.values >= 2)
        return _size_of(moved, ratio) > 1e-3

    # The report

    def row(self, place, before):
        """Compare the statistics of a layer with those that it had."""
        layer, pool = place.layer, self._pools.get(id(place.layer))
        channels = before[0].size
        if pool is None or not pool.values.any():
            return Recalibrated("warning", place.path, None, None, 0, channels)
        moved, ratio = _change(layer, before, statistics(layer), pool.values >= 2)
        off = _size_of(moved, ratio)
        level = "ok" if off < 0.1 else "info" if off < 0.5 else "warning"
        if id(layer) in self._unsettled or pool.values.min() < 2:
            level = "warning"
        return Recalibrated(
            level, place.path, moved, ratio, int(pool.values.min()), channels
        )

    def notes(self, rows):
        """Say on how many examples this rests, and what was left undone."""
        examples, batches = self._size
        one_or_more = {"example": examples, "batch": batches, "walk": self._walks}
        examples_, batches_, walks = starmap(plural, one_or_more.items())
        notes = [f"{examples_} in {batches_}; {walks} over the data."]
        fewest = min([examples, *(row.values for row in rows if row.values)])
        if fewest < FEW:
            notes.append(
                f"{fewest} are few. From so many independent values a variance is known to within "
                f"{np.sqrt(2 / fewest):.0%}, a mean to within {np.sqrt(1 / fewest):.2f} "
                "deviations (one standard error); the values of one image are not independent. "
                f"Use {FEW} examples at least, better a thousand."
            )
        if self._by_batch and len(rows) > 1:
            notes.append(
                "Fast: what layers behind the first are fed was normalised batch by batch, so that "
                "their variance comes out low with small batches. method='exact' is right."
            )
        missed = [row.path for row in rows if not row.values and row.mean_moved is None]
        if missed:
            notes.append(f"Left alone, since no data reached them: {_some(missed)}.")
        short = [
            row.path for row in rows if row.values < 2 and row.mean_moved is not None
        ]
        if short:
            notes.append(
                "Channels with fewer than two values were left alone, for one has no variance: "
                f"{_some(short)}."
            )
        if self._unsettled:
            paths = [self._paths[key] for key in self._unsettled]
            notes.append(
                f"Not settled: {_some(paths)}. What they are fed depends on what they, or layers "
                "after them, gave before. Recalibrate again until nothing moves."
            )
        if self._wired:
            notes.append(
                f"Called with training=True: {_some(sorted(self._wired))}. They normalise by the "
                "batch at inference too, so that the layers behind them depend on batch_size."
            )
        return notes


def _order(orders):
    """Merge the orders in which layers were called in different batches into one."""
    merged = []
    for calls in orders:
        place = 0
        for key in calls:
            if key not in merged:
                merged.insert(place, key)
            place = max(place, merged.index(key) + 1)
    return merged


def _in_order(calls, order):
    """Whether each layer is called once, behind those before it."""
    places = [order.index(key) for key in calls]
    return all(a < b for a, b in pairwise(places))


def _change(layer, before, after, seen):
    """Return how far the mean moved, and the ratio of the variances, of the worst channel."""
    (old_mean, old_variance), (mean, variance) = before, after
    spread = variance + layer.epsilon
    moved = np.abs(mean - old_mean)[seen] / np.sqrt(spread)[seen]
    ratio = (old_variance + layer.epsilon)[seen] / spread[seen]
    worst = np.argmax(_away_from_1(ratio)) if seen.any() else None
    return float(moved.max(initial=0)), 1.0 if worst is None else float(ratio[worst])


def _away_from_1(ratio):
    """Return the size of the logarithm; infinite where there is none."""
    positive = np.where(ratio > 0, ratio, np.inf)  # NaN too
    return np.abs(np.log(positive))


def _size_of(moved, ratio):
    """Return one number for a change, infinite when either is NaN."""
    sizes = moved, float(_away_from_1(ratio))
    return np.inf if np.isnan(sizes).any() else max(sizes)


# Sums


class _Part(NamedTuple):
    """The moments of one call. Counts are per channel, since masks may differ between channels.

    Attributes:
        mean: shape `(C,)`, float64; 0 where nothing counts.
        variance: shape `(C,)`, float64.
        count: the sum of the weights.
        values: how many weights are above 0.
    """

    mean: Any
    variance: Any
    count: Any
    values: Any


class _Pool:
    """The moments of all values of some calls together; Chan's rule, for counts per channel."""

    def __init__(self, channels):
        self.mean, self.variance = np.zeros(channels), np.zeros(channels)
        self.count, self.values = np.zeros(channels), np.zeros(channels, int)

    def take(self, part):
        """Merge one more part."""
        self.count = self.count + part.count
        self.values = self.values + part.values
        share = _divide(part.count, self.count)
        away = part.mean - self.mean
        self.mean = self.mean + share * away
        self.variance = (
            (1 - share) * self.variance
            + share * part.variance
            + share * (1 - share) * away**2
        )

    def variance_for(self, layer):
        """Return the variance as a layer wants it, with Bessel's factor or without."""
        if not getattr(layer, "bessel", False):
            return self.variance
        return self.variance * np.where(
            self.count > 1, self.count / np.maximum(self.count - 1, 1e-300), 1
        )


def _measured(layer, x, mask):
    """Return the `_Part` of one call of a layer, or None when there are no values."""
    if not x.size:
        return None
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:  # bfloat16 has a kind of its own
        x = x.astype(np.float32)
    kept = canonical_axes("axis", layer.axis, x.ndim)
    if mask is None:
        mean, variance, count = moments(x, axis=kept)
        every = np.full(mean.shape, count)
        return _Part(mean, variance, every, every)
    averaged = tuple(a for a in range(x.ndim) if a not in kept)
    weights = np.broadcast_to(_weights(layer, mask, x.shape, kept, averaged), x.shape)
    seen = weights > 0
    x = np.where(seen, x, 0).astype(np.float64)
    count = weights.sum(averaged)
    rough = _divide((weights * x).sum(averaged), count)
    x -= np.expand_dims(rough, averaged)
    residue = _divide((weights * x).sum(averaged), count)
    squares = _divide((weights * x * x).sum(averaged), count)
    return _Part(rough + residue, squares - residue**2, count, seen.sum(averaged))


def _weights(layer, mask, shape, kept, averaged):
    """Return what a mask says of each value, to broadcast against the inputs.

    A mask of Keras goes along all axes but the last, and is true or false. Ours may go along the
    averaged axes, or the first of them, and weighs: see bnlib.keras.masks.
    """
    if not isinstance(layer, BatchNormalization):
        return (mask != 0)[..., np.newaxis].astype(np.float64)
    mask = mask.astype(np.float64)
    if mask.shape != tuple(shape[a] for a in averaged) and mask.shape == shape[:-1]:
        return mask[..., np.newaxis]
    mask = mask.reshape(mask.shape + (1,) * (len(averaged) - mask.ndim))
    return np.expand_dims(mask, kept)


def _divide(sums, counts):
    return np.divide(sums, counts, out=np.zeros(np.shape(counts)), where=counts > 0)
