"""Population statistics: what a layer remembers of the batches that it has seen.

Each estimator is fed the moments of one batch after another and says what it makes of them. Three
of the four differ in a single number, the *rate*: how much of the distance to the new batch is
covered.

| estimator | rate at update t | forgets |
|---|---|---|
| `Exponential` | 1 - momentum | its initial 0 and 1 slowly, then old batches |
| `DebiasedExponential` | (1 - momentum) / (1 - momentum^t) | its initial values at once |
| `Cumulative` | 1 / t | nothing: the plain average of the batches |

`Pooled` keeps the exact moments of all values together, whatever the batches were.
"""

from collections.abc import Mapping

import numpy as np

from bnlib._checks import as_momentum, finite_moments
from bnlib._typing import Array, ArrayLike, Channels, State, Statistics
from bnlib.moments import Moments, merge_moments

__all__ = ["Cumulative", "DebiasedExponential", "Exponential", "Pooled", "Population"]


class Population:
    """What all estimators share: `update(moments)`, `value()`, and a state that can be saved.

    Args:
        channels: C, or a tuple.
        bessel: whether each batch variance is multiplied by m / (m - 1) on its way in, as PyTorch
            does; a batch with m = 1 then has no variance to offer, and its variance is left out.

    Attributes:
        mean: shape `(C,)`, float64; 0 before the first update.
        variance: shape `(C,)`, float64; 1 before the first update.
        count: how many values per channel were seen.
        updates: how many batches were seen.
        bessel: as given.
    """

    def __init__(self, channels: Channels, *, bessel: bool = False) -> None:
        self.mean: Array = np.zeros(channels)
        self.variance: Array = np.ones(channels)
        self.count: float = 0
        self.updates = 0
        self.bessel = bessel

    def __repr__(self) -> str:
        """Show the arguments that make an equal estimator."""
        shape = self.mean.shape
        shown = [repr(shape[0] if len(shape) == 1 else shape)]
        if hasattr(self, "momentum"):
            shown.append(f"momentum={self.momentum}")
        shown += ["bessel=True"] if self.bessel else []
        return f"{type(self).__name__}({', '.join(shown)})"

    def update(self, batch: Statistics) -> None:
        """Take in the moments of one more batch.

        Args:
            batch: `Moments` of shape `(C,)`. One with count 0 is ignored.

        Raises:
            ValueError: when the shape differs, or a value is not finite: one NaN here would stay.
        """
        if batch[2] == 0:
            return
        batch = finite_moments(batch, self.mean.shape)
        self.updates += 1
        self._take_in(Moments(*batch))
        self.count += batch[2]

    def _take_in(self, batch):
        """Blend: cover `rate` of the distance between the old value and the batch's."""
        rate = self.rate(self.updates)
        self.mean = self.mean + rate * (batch.mean - self.mean)
        if self.bessel and batch.count <= 1:
            return
        factor = batch.count / (batch.count - 1) if self.bessel else 1
        self.variance = self.variance + rate * (factor * batch.variance - self.variance)

    def rate(self, t: int) -> float:
        """Say how much of the distance to the t-th batch is covered.

        Args:
            t: the number of the update, counted from 1.

        Returns:
            A number in [0, 1].

        Raises:
            TypeError: in `Population` itself, which has no rate: each estimator brings its own.
        """
        raise TypeError(
            f"{type(self).__name__} has no rate: use Exponential, DebiasedExponential, Cumulative "
            "or Pooled, or define rate(t) in your subclass."
        )

    def value(self) -> Moments:
        """Return the present estimate.

        Returns:
            `Moments`; its arrays are copies, safe to change.
        """
        return Moments(self.mean.copy(), self.variance.copy(), self.count)

    def state(self) -> State:
        """Return everything that `restore` needs.

        Returns:
            mean, variance, count and updates, by name, as arrays.
        """
        names = ("mean", "variance", "count", "updates")
        return {name: np.array(getattr(self, name)) for name in names}

    def restore(self, state: Mapping[str, ArrayLike]) -> None:
        """Put back what `state` gave, exactly.

        Args:
            state: dict of arrays, as from `state()`.

        Raises:
            ValueError: when a name is missing or unknown, or a shape differs. Nothing is changed
                then.
        """
        here = self.state()
        if set(state) != set(here):
            raise ValueError(f"state must hold {sorted(here)}; got {sorted(state)}.")
        for name, value in state.items():
            if np.shape(value) != here[name].shape:
                raise ValueError(
                    f"state[{name!r}] must have shape {here[name].shape}; got {np.shape(value)}."
                )
        self.mean = np.array(state["mean"], float)
        self.variance = np.array(state["variance"], float)
        self.count = np.asarray(state["count"]).item()
        self.updates = int(state["updates"])


class Exponential(Population):
    """The usual moving average: new = momentum * old + (1 - momentum) * batch.

    Keras and most others have it. It starts at 0 and 1, and of that start momentum^t is left after
    t updates.

    Args:
        channels: C, or a tuple.
        momentum: weight of the OLD value, in [0, 1].
        bessel: see `Population`.

    >>> population = Exponential(1, momentum=0.9)
    >>> population.update(Moments([10.0], [5.0], 32))
    >>> population.value()
    Moments(mean=array([1.]), variance=array([1.4]), count=32)
    """

    def __init__(
        self, channels: Channels, momentum: float = 0.99, *, bessel: bool = False
    ) -> None:
        super().__init__(channels, bessel=bessel)
        self.momentum = as_momentum(momentum)

    def rate(self, t: int) -> float:
        """1 - momentum, always."""
        return 1 - self.momentum


class DebiasedExponential(Exponential):
    """The moving average without its start: the first batch counts in full.

    Dividing the average from 0 by 1 - momentum^t, as Adam does, is the same as this rate. With
    momentum 1 the rate is 1 / t. Unlike tf.contrib's `zero_debias_moving_mean`, the variance is
    treated like the mean.

    Args:
        channels: C, or a tuple.
        momentum: weight of the OLD value, in [0, 1], once the start is forgotten.
        bessel: see `Population`.

    >>> population = DebiasedExponential(1, momentum=0.9)
    >>> population.update(Moments([10.0], [5.0], 32))
    >>> population.value()
    Moments(mean=array([10.]), variance=array([5.]), count=32)
    """

    def rate(self, t: int) -> float:
        """(1 - momentum) / (1 - momentum^t), from 1 down to 1 - momentum."""
        if self.momentum == 1:
            return 1 / t
        return (1 - self.momentum) / (1 - self.momentum**t)


class Cumulative(Population):
    """The plain average of all batches: PyTorch's momentum=None.

    Args:
        channels: C, or a tuple.
        bessel: see `Population`.

    >>> population = Cumulative(1)
    >>> for mean in (1.0, 2.0, 6.0):
    ...     population.update(Moments([mean], [0.0], 8))
    >>> population.value().mean
    array([3.])
    """

    def rate(self, t: int) -> float:
        """1 / t."""
        return 1 / t


class Pooled(Population):
    """The exact moments of all values seen, as if they had been one batch.

    The batches may be of any size, and cut anywhere. With `bessel`, `value()` multiplies the pooled
    variance by n / (n - 1), n being all values.

    Args:
        channels: C, or a tuple.
        bessel: see above: the factor belongs to the whole, not to each batch.

    >>> population = Pooled(1)
    >>> population.update(Moments([0.0], [0.0], 1))
    >>> population.update(Moments([3.0], [0.0], 2))
    >>> population.value()
    Moments(mean=array([2.]), variance=array([2.]), count=3)
    """

    def _take_in(self, batch):
        """Merge by Chan's rule."""
        self.mean, self.variance, _ = merge_moments(
            [Moments(self.mean, self.variance, self.count), batch]
        )

    def value(self) -> Moments:
        """Return the moments of all values seen.

        Returns:
            `Moments`; with `bessel` the variance is multiplied by n / (n - 1).
        """
        mean, variance, count = super().value()
        factor = count / (count - 1) if self.bessel and count > 1 else 1
        return Moments(mean, variance * factor, count)
