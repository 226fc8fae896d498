"""A batch whose arguments have been checked: what the private functions of the core work on.

The public functions make one at their door. The private ones that they call check nothing.
"""

import math
from typing import NamedTuple

import numpy as np

from bnlib._checks import as_floating, wide
from bnlib._typing import Array
from bnlib.axes import Layout, layout

__all__: list[str] = []


class Batch(NamedTuple):
    """The input, and what is averaged over.

    Attributes:
        x: floating array, in C's order.
        where: the `Layout` of the statistics.
        features: the `Layout` of gamma and beta, whose `axes` are those that their gradients are
            summed over; the same one unless `axes` was given.
        count: values per statistic, or the sum of their weights.
        share: each value's part of the weights, shaped to broadcast against x; None if equal.
    """

    x: Array
    where: Layout
    features: Layout
    count: float
    share: Array | None = None


def as_batch(name, x, axis, axes):
    """Check x, and split its axes. It may be empty."""
    x = as_floating(name, x)
    features = layout(x.shape, axis)
    where = features if axes is None else layout(x.shape, axes=axes)
    features = where if features == where else features  # then they are one object
    return Batch(x, where, features, math.prod(map(x.shape.__getitem__, where.axes)))


def as_weighted_batch(x, axis, axes, weights):
    """Check x, which must not be empty, and the weights of its values."""
    batch = as_batch("x", x, axis, axes)
    where, shape = batch.where, batch.x.shape
    if not where.axes or not batch.count:
        raise ValueError(
            f"x must have at least one value per channel; got shape {shape}, which leaves none to "
            f"average once axis {where.axis} is kept. Skip an empty batch; give a single row a "
            "batch axis, x[np.newaxis]."
        )
    if weights is None:
        return batch
    weights, total = _as_weights(weights, [shape[a] for a in where.axes])
    beside_x = [1 if a in where.axis else n for a, n in enumerate(shape)]
    share = (weights / total).reshape(beside_x)
    return batch._replace(count=float(total), share=share)


def _as_weights(weights, sizes):
    """Check the weights, broadcast them over the averaged axes, and add them up.

    They line up with these axes from the left: in batch norm `(N,)` weighs whole examples.
    """
    weights = as_floating("weights", weights)
    full = weights.shape + (1,) * (len(sizes) - weights.ndim)
    fits = len(full) == len(sizes) and all(
        f in (1, s) for f, s in zip(full, sizes, strict=True)
    )
    if weights.ndim == 0 or not fits:
        raise ValueError(
            f"weights must have shape {(sizes[0],)}, along the first axis averaged over, or "
            f"{tuple(sizes)}, along all of them; got {weights.shape}. Reshape them."
        )
    weights = np.broadcast_to(weights.reshape(full), sizes)
    total = weights.sum(dtype=wide(weights.dtype))
    if not (np.all(weights >= 0) and 0 < total < np.inf):
        raise ValueError(
            f"weights must be finite, at least 0, and not all 0; got minimum {weights.min()} and "
            f"sum {total}. Leave out a batch whose weights are all 0."
        )
    return weights, total
