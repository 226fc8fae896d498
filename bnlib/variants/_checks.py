"""Checks that only the variants need."""

import operator

from bnlib.axes import canonical_axes

__all__: list[str] = []


def as_channels(axis, ndim):
    """Return the axes of the channels, which are not those of the examples."""
    channels = canonical_axes("axis", axis, ndim)
    if 0 in channels:
        raise ValueError(
            f"axis must leave axis 0 to the examples; got {axis!r} for x with {ndim} "
            "dimensions. Use -1 for channels last, 1 for channels first."
        )
    return channels


def as_channel(axis, ndim):
    """Return the one axis of the channels."""
    channels = as_channels(axis, ndim)
    if len(channels) != 1:
        raise ValueError(
            f"axis must name one axis, that of the channels; got {axis!r}. Reshape x so that "
            "its channels lie along one axis."
        )
    return channels[0]


def space(shape, axis):
    """Return the axes that are neither examples nor channels; there must be one."""
    channels = as_channels(axis, len(shape))
    between = tuple(a for a in range(1, len(shape)) if a not in channels)
    if not between:
        raise ValueError(
            f"x must have an axis of space beside examples and channels; got shape {shape}, "
            f"whose channels are on axis {channels}: of one value nothing is left once its mean "
            "is taken away. Without space, use layer_norm."
        )
    return between


def as_divisor(name, value, whole, what):
    """Return `value` as an integer that divides `whole`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}.") from None
    if number < 1 or whole % number:
        divisors = [n for n in range(1, whole + 1) if whole % n == 0] or [1]
        raise ValueError(
            f"{name} must divide the {whole} {what} of x; got {number}. "
            f"Choose among {shortened(divisors)}."
        )
    return number


def shortened(numbers):
    """Write numbers out, the middle of a long list left out."""
    words = list(map(str, numbers))
    if len(words) > 12:
        words[8:-3] = ["..."]
    return ", ".join(words)
