"""The one canonical form, in Keras's vocabulary, and the factor between two kinds of variance."""

import operator
from dataclasses import KW_ONLY, dataclass, fields

import numpy as np

from bnlib._checks import as_epsilon, as_floating, as_momentum
from bnlib._typing import Array, ArrayLike
from bnlib.layer import BatchNorm
from bnlib.population import Cumulative, Exponential
from bnlib.transform import batch_norm_inference

__all__ = ["BNParams", "variance_factor"]


@dataclass(frozen=True, eq=False)
class BNParams:
    """Hold all that a trained batch norm layer is, whatever framework it came from.

    The arrays are copied, keep their dtype, and cannot be written to. To change a setting use
    `dataclasses.replace(params, momentum=0.99)`.

    Attributes:
        moving_mean: shape `(C,)`.
        moving_variance: shape `(C,)`, not negative.
        gamma: shape `(C,)`; None where there is none.
        beta: shape `(C,)`; None where there is none.
        epsilon: guard inside the root. There is no default: it differs between frameworks.
        momentum: weight of the OLD value; None is the plain average of all batches.
        axis: the axis of the channels.
        bessel: whether training feeds the moving variance with m / (m - 1) times the batch's.
        updates: how many batches were seen; counts only with momentum None.

    >>> params = BNParams([2.0], [4.0], gamma=[6.0], epsilon=0, momentum=0.9)
    >>> params.inference([[3.0]])
    array([[3.]])
    """

    moving_mean: np.ndarray
    moving_variance: np.ndarray
    gamma: np.ndarray | None = None
    beta: np.ndarray | None = None
    _: KW_ONLY
    epsilon: float
    momentum: float | None
    axis: int = -1
    bessel: bool = False
    updates: int = 0

    def __post_init__(self):
        for name in ("moving_mean", "moving_variance", "gamma", "beta"):
            if getattr(self, name) is not None or name.startswith("moving"):
                self._put(name, self._vector(name))
        if np.any(self.moving_variance < 0):
            raise ValueError(
                f"moving_variance must not be negative; got {self.moving_variance.min()}. "
                "Is it a log, or the mean in its place?"
            )
        self._put("epsilon", as_epsilon(self.epsilon))
        if self.momentum is not None:
            self._put("momentum", as_momentum(self.momentum))
        self._put("axis", _whole("axis", self.axis, "Use -1 or 1."))
        self._put("updates", _whole("updates", self.updates, "Count the batches."))
        if not isinstance(self.bessel, (bool, np.bool_)):
            raise TypeError(
                f"bessel must be True or False; got {self.bessel!r}. See CONVENTIONS."
            )

    def _put(self, name, value):
        object.__setattr__(self, name, value)  # frozen for everybody else

    def _vector(self, name):
        """Return one field as a finite vector, as long as moving_mean, that nobody can change."""
        array = np.array(as_floating(name, getattr(self, name)))
        shape = self.moving_mean.shape if name != "moving_mean" else array.shape
        if array.ndim != 1 or array.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape if len(shape) == 1 else '(C,)'}, one number per "
                f"channel; got {array.shape}. Reshape it, or check the order of the arrays."
            )
        if not np.all(np.isfinite(array)):
            raise ValueError(
                f"{name} must be finite; got {array}. The layer is damaged: compute its "
                "statistics anew, or train it again, before you convert it."
            )
        array.flags.writeable = False
        return array

    def __eq__(self, other):
        """Whether all fields are equal, exactly."""
        return isinstance(other, BNParams) and all(
            np.array_equal(getattr(self, field.name), getattr(other, field.name))
            for field in fields(self)
        )

    __hash__ = None

    def inference(self, x: ArrayLike) -> Array:
        """Normalise `x` by the moving statistics.

        Args:
            x: an array with the channels on `axis`.

        Returns:
            y, shape and dtype of x.
        """
        options = {"axis": self.axis, "epsilon": self.epsilon}
        statistics = self.moving_mean, self.moving_variance
        return batch_norm_inference(x, *statistics, self.gamma, self.beta, **options)

    def layer(self) -> BatchNorm:
        """Return a `bnlib.BatchNorm` that trains on from here, with the same habits."""
        channels = self.moving_mean.size
        population = (
            Cumulative(channels, bessel=self.bessel)
            if self.momentum is None
            else Exponential(channels, self.momentum, bessel=self.bessel)
        )
        population.mean = self.moving_mean.astype(float)
        population.variance = self.moving_variance.astype(float)
        population.updates = self.updates
        layer = BatchNorm(
            channels, axis=self.axis, epsilon=self.epsilon, population=population
        )
        layer.gamma = None if self.gamma is None else self.gamma.astype(float)
        layer.beta = None if self.beta is None else self.beta.astype(float)
        return layer


def _whole(name, value, remedy):
    """Return `value` as an int, or say what is wrong with it."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be one whole number; got {value!r}. {remedy}"
        ) from None


def variance_factor(count: int, *, source: bool, target: bool) -> float:
    """Say how much more a batch gives to the moving variance after a conversion than before.

        target with Bessel, source without    count / (count - 1)
        source with Bessel, target without    (count - 1) / count
        otherwise                             1

    A model that trains on in `target` drifts to a moving variance that is larger by this factor.
    Inference with the converted numbers is not affected.

    Args:
        count: values per channel in one training batch: for images N * H * W.
        source: the `bessel` of where the model comes from.
        target: the `bessel` of where it goes.

    Returns:
        The factor.

    Raises:
        TypeError: when count is not a whole number.
        ValueError: when count is below 2, and Bessel's factor is asked for.

    >>> variance_factor(4, source=False, target=True)
    1.3333333333333333
    >>> variance_factor(1568, source=True, target=True)
    1.0
    """
    count = _whole("count", count, "For images it is N * H * W.")
    if bool(source) == bool(target):
        return 1.0
    if count < 2:
        raise ValueError(
            f"count must be at least 2, since Bessel's factor is count / (count - 1); got {count}."
        )
    return count / (count - 1) if target else (count - 1) / count
