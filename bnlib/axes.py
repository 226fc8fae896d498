"""Which axes are kept and which are averaged over.

Batch normalization keeps the channels and averages over everything else. Layer, instance and group
norm are the same formula with other axes averaged over, so this choice stands alone, in one
function.
"""

import functools
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


def layout(
    shape: Sequence[int], axis: Axis = -1, *, axes: Axis | None = None
) -> Layout:
    """Split the axes of an array into those kept and those averaged over.

    Args:
        shape: shape of x, for example `(N, H, W, C)`.
        axis: the axis kept, as in Keras: -1 for channels last, 1 for channels first. A tuple keeps
            several.
        axes: the axis, or tuple of axes, averaged over; all others are then kept, whatever `axis`
            is. None averages over all but `axis`.

    Returns:
        The `Layout`.

    Raises:
        TypeError: when `axis` or `axes` is not an integer or a tuple of integers.
        ValueError: for a scalar x, an axis out of range, or one named twice.

    Paper: section 3.2. For convolutions, "different elements of the same feature map, at different
    locations, are normalized in the same way".

    >>> layout((32, 28, 28, 3)).axes
    (0, 1, 2)
    >>> layout((32, 3, 28, 28), axis=1).broadcast
    (1, 3, 1, 1)
    >>> layout((32, 28, 28, 3), axes=(1, 2)).channels
    (32, 3)
    """
    # None is a size that TensorFlow does not know yet
    shape = tuple(None if n is None else operator.index(n) for n in shape)
    ndim = len(shape)
    if ndim == 0:
        raise ValueError(
            "x must have a channel axis; got a scalar. Give it shape (N, C), for "
            "example with np.reshape(x, (-1, 1)) for one channel."
        )
    if axes is None:
        return _keeping(shape, canonical_axes("axis", axis, ndim))
    averaged = canonical_axes("axes", axes, ndim)
    return _keeping(shape, tuple(a for a in range(ndim) if a not in averaged))


@functools.lru_cache(maxsize=256)  # a network has few shapes, and each comes often
def _keeping(shape, kept):
    return Layout(
        axis=kept,
        axes=tuple(a for a in range(len(shape)) if a not in kept),
        channels=tuple(shape[a] for a in kept),
        broadcast=tuple(shape[a] if a in kept else 1 for a in range(len(shape))),
    )


def canonical_axes(name: str, axis: Axis, ndim: int) -> tuple[int, ...]:
    """Return `axis` as sorted integers that are not negative; `name` is for the error."""
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    try:
        named = [
            operator.index(a)
            for a in (axis if isinstance(axis, (tuple, list)) else (axis,))
        ]
    except TypeError:
        raise TypeError(
            f"{name} must be an integer or a tuple of integers; got {axis!r}. "
            "Use -1 for channels last, 1 for channels first."
        ) from None
    for a in named:
        if not -ndim <= a < ndim:
            raise ValueError(
                f"{name} must lie in [{-ndim}, {ndim - 1}] for x with {ndim} dimensions; got {a}. "
                "Use -1 for channels last, 1 for channels first."
            )
    canonical = tuple(sorted({a % ndim for a in named}))
    if not canonical or len(canonical) != len(named):
        raise ValueError(
            f"{name} must name each of its axes once, and at least one; got {axis!r}."
        )
    return canonical
