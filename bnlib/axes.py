"""Which axes are kept and which are averaged over.

Batch normalization keeps the channels and averages over everything else. Layer, instance and group
norm are the same formula with other axes kept, so this choice stands alone, in one function.
"""

import operator
from collections.abc import Sequence
from typing import NamedTuple

from bnlib._typing import Axis

__all__ = ["Layout", "layout"]


class Layout(NamedTuple):
    """How an array is split into channels and the values that each channel averages.

    Attributes:
        axis: the axes kept, in ascending order, none negative.
        axes: the axes averaged over, as `tf.nn.moments` names them.
        channels: the shape of one statistic, for example `(C,)`.
        broadcast: the shape that broadcasts a statistic against x, for example `(1, 1, 1, C)`.
    """

    axis: tuple[int, ...]
    axes: tuple[int, ...]
    channels: tuple[int, ...]
    broadcast: tuple[int, ...]


def layout(shape: Sequence[int], axis: Axis = -1) -> Layout:
    """Split the axes of an array into those kept and those averaged over.

    Args:
        shape: shape of x, for example `(N, H, W, C)`.
        axis: the axis kept, as in Keras: -1 for channels last, 1 for channels first. A tuple keeps
            several: `(0, -1)` is instance norm.

    Returns:
        The `Layout`.

    Raises:
        TypeError: when `axis` is not an integer or a tuple of integers.
        ValueError: for a scalar x, an axis out of range, or one named twice.

    Paper: section 3.2. For convolutions, "different elements of the same feature map, at different
    locations, are normalized in the same way".

    >>> layout((32, 28, 28, 3)).axes
    (0, 1, 2)
    >>> layout((32, 3, 28, 28), axis=1).broadcast
    (1, 3, 1, 1)
    """
    ndim = len(shape)
    if ndim == 0:
        raise ValueError(
            "x must have a channel axis; got a scalar. Give it shape (N, C), for "
            "example with np.reshape(x, (-1, 1)) for one channel."
        )
    kept = _kept(axis, ndim)
    return Layout(
        axis=kept,
        axes=tuple(a for a in range(ndim) if a not in kept),
        channels=tuple(shape[a] for a in kept),
        broadcast=tuple(shape[a] if a in kept else 1 for a in range(ndim)),
    )


def _kept(axis, ndim):
    """Return the kept axes as sorted, non-negative integers."""
    try:
        named = [
            operator.index(a)
            for a in (axis if isinstance(axis, (tuple, list)) else (axis,))
        ]
    except TypeError:
        raise TypeError(
            f"axis must be an integer or a tuple of integers; got {axis!r}. "
            "Use -1 for channels last, 1 for channels first."
        ) from None
    for a in named:
        if not -ndim <= a < ndim:
            raise ValueError(
                f"axis must lie in [{-ndim}, {ndim - 1}] for x with {ndim} dimensions; got {a}. "
                "Use -1 for channels last, 1 for channels first."
            )
    kept = tuple(sorted({a % ndim for a in named}))
    if not kept or len(kept) != len(named):
        raise ValueError(
            f"axis must name each kept axis once, and at least one; got {axis!r}."
        )
    return kept
