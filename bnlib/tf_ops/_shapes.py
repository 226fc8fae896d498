"""How a tensor is seen: its shape, its channels, and as the images that the fused kernel takes."""

import math

import tensorflow as tf

GUESS = 32  # what an unknown dimension is taken for
LEAST_ROWS, MOST_ROWS = 8, 1024  # into how many rows x may be cut


def static_or_dynamic_shape(x):
    """Return the shape of x: a number where it is known, else a scalar tensor."""
    known = x.shape.as_list()
    if None not in known:
        return known
    found = tf.shape(x)
    return [found[i] if n is None else n for i, n in enumerate(known)]


def has_at_least(x, numbers):
    """Whether x holds so many numbers, as far as one can tell."""
    return math.prod(n or GUESS for n in x.shape.as_list()) >= numbers


def values_per_channel(x, where):
    """Return how many values each channel has: an integer where known, else a float64 scalar."""
    sizes = [static_or_dynamic_shape(x)[a] for a in where.axes]
    if all(isinstance(n, int) for n in sizes):
        return math.prod(sizes)
    return tf.cast(tf.reduce_prod(tf.stack(sizes)), tf.float64)


def broadcast_channels(vector, x, where):
    """Shape one value per channel of `where` so that it broadcasts against x."""
    if where.axis == (x.shape.rank - 1,):
        return vector
    sizes = static_or_dynamic_shape(x)
    shape = [n if a in where.axis else 1 for a, n in enumerate(sizes)]
    return tf.reshape(vector, shape)


# For one axis of channels, as the fast kernels have it


def before_channels_after(x, where):
    """See x with three axes: those before the channels in one, the channels, those after in one."""
    sizes, axis = static_or_dynamic_shape(x), where.axis[0]
    around = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
    return tf.reshape(x, [around[0], sizes[axis], around[1]])


def image(x, where):
    """See x as the images that the fused kernel takes, and name their layout."""
    x = before_channels_after(x, where)
    if x.shape[2] == 1:
        return x[:, tf.newaxis, tf.newaxis, :, 0], "NHWC"
    return x[..., tf.newaxis], "NCHW"


def rows_of(x, where):
    """Return `(rows, parts)`: how to cut x into rows of so many parts, each with all channels.

    They are numbers where the shape is known, else scalars. A row is one example or more of them,
    or a piece of one, so that the batch may have any size. There are at least `LEAST_ROWS`, as far
    as one can tell: vectors as long as a row then cost little beside x. None where x cannot be cut.
    """
    sizes, axis = static_or_dynamic_shape(x), where.axis[0]
    known = x.shape.as_list()[:axis]
    if None not in known:
        before = math.prod(known)
        fits = [
            n for n in range(LEAST_ROWS, min(before, MOST_ROWS) + 1) if before % n == 0
        ]
        rows = min(fits, key=lambda n: abs(n - GUESS), default=None)
        return rows and (rows, before // rows)
    for end in range(1, axis + 1):
        if math.prod(n or GUESS for n in known[:end]) >= LEAST_ROWS:
            return math.prod(sizes[:end]), math.prod(sizes[end:axis])
    return None


def along_row(vector, x, where, parts):
    """Repeat a vector of channels for each place in a row."""
    _, channels, after = static_or_dynamic_shape(before_channels_after(x, where))
    vector = tf.broadcast_to(vector[:, tf.newaxis], [parts, channels, after])
    return tf.reshape(vector, [-1])


def image_of_rows(x, where, rows, parts):
    """See x as images of one point, with a channel for each place in a row."""
    _, channels, after = static_or_dynamic_shape(before_channels_after(x, where))
    return tf.reshape(x, [rows, 1, 1, parts * channels * after])
