"""The batch that all kernels are given: arguments that have been checked, once, at the door."""

from typing import Any, NamedTuple

import tensorflow as tf

from bnlib._checks import as_epsilon
from bnlib.axes import Layout
from bnlib.tf_ops._checks import as_floating, layouts
from bnlib.tf_ops._weights import shares


class Batch(NamedTuple):
    """A batch, and how it is to be normalised.

    Attributes:
        x: floating tensor, shape `(N, ..., C)`.
        where: the `Layout` of the statistics.
        features: the `Layout` of gamma and beta; mostly the same.
        epsilon: guard inside the root.
        share: each value's share of the sum of the weights, float64, which broadcasts against x;
            None where all count alike.
        count: values per channel, or the sum of the weights: an integer where it is known, else a
            float64 tensor; None where the statistics are given.
        synchronized: whether all replicas are one batch.
    """

    x: Any
    where: Layout
    features: Layout
    epsilon: float = 0.0
    share: Any = None
    count: Any = None
    synchronized: bool = False

    def tensors(self):
        """Return x, and share and count where they are tensors; these get no gradient.

        A function that is to be differentiated is given them as arguments, for TensorFlow's forward
        mode fails on tensors that a function merely closes over.
        """
        others = filter(tf.is_tensor, (self.share, self.count))
        return [self.x, *map(tf.stop_gradient, others)]

    def with_tensors(self, x, *others):
        """Return the same batch with other tensors in the place of those above."""
        names = [n for n in ("share", "count") if tf.is_tensor(getattr(self, n))]
        return self._replace(x=x, **dict(zip(names, others, strict=True)))


def checked_batch(x, axis, axes, *, weights=None, epsilon=0.0):
    """Check the arguments of a public function, and return the `Batch`."""
    x = as_floating("x", x)
    where, features = layouts(x, axis, axes)
    share, count = shares(weights, x, where)
    check_not_empty(count, x)
    return Batch(x, where, features, as_epsilon(epsilon), share, count)


def check_not_empty(count, x):
    """Raise where it is known that there are no values.

    Raises:
        ValueError: when count is 0.
    """
    known = isinstance(count, int) or tf.executing_eagerly()
    if known and count == 0:
        raise ValueError(
            f"x must have at least one value per channel; got shape {tuple(x.shape)}, which with "
            "its weights leaves none to average. Skip an empty batch, or one whose weights "
            "are all 0."
        )
