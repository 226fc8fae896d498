"""Float32 sums of short runs, and float64 beyond: fast, and as right as float32 can be.

This holds for any number of values. Where the mean is large, it goes on in float64.

Outside XLA a new array as large as x costs more than reading x several times. So the sums are
taken by ops that write none, and the gradient leaves through the fused kernel.

How far off can float32 sums be? Adding r numbers one by one loses up to r/2 units in the last
place, and comes close to it where all are equal, or take two values, so that each step rounds the
same way. For a run of `RUN` that is 5e-7 of the sum, and 1e-6 of a variance around 0 whose mean
lies one deviation off; a sweep over two levels finds 1.2e-6 with runs of 28, and less than 1e-6
with these. For a channel of 131,072 values it is 4e-3, and the fused kernel's mean has been seen
1e-2 deviations off, its variance 1e-3 of itself. The gradient's sums are as long as a channel of
`MANY` values at most, or as there are rows, `ROWS` at most. The number of lanes changes nothing:
lanes are channels, or make the runs shorter.
"""

import functools
import math

import tensorflow as tf

from bnlib.tf_ops import _fused
from bnlib.tf_ops._affine import affine
from bnlib.tf_ops._digits import MANY, has_digits, means_are_near_zero
from bnlib.tf_ops._runtime import inside_xla
from bnlib.tf_ops._shapes import (
    along_row,
    before_channels_after,
    image_of_rows,
    rows_of,
    static_or_dynamic_shape,
)
from bnlib.tf_ops.moments import measure

CLOSE = 1.0  # squared: so near to 0, the mean of the squares loses none to the mean's square
ROWS = 1024  # rows, from which the gradient's sums over them lose digits
RUN = 16  # values that float32 adds up before float64 takes over
FEW = 32  # runs in a channel, up to which XLA on a CPU is several times slower


def forward(batch, gamma, beta):
    """Return `(y, mean, variance, saved)`; saved are mean and variance."""
    mean, variance = _measure(batch)
    gamma, beta = (tf.cast(v, tf.float64) for v in (gamma, beta))
    multiplier = gamma * tf.math.rsqrt(variance + batch.epsilon)
    y = affine(batch.x, mean, multiplier, beta, batch.where)
    return y, mean, variance, (mean, variance)


def _measure(batch):
    """Look at the squares first: where the mean is near 0, they are all that is needed."""
    x = tf.cast(before_channels_after(batch.x, batch.where), tf.float32)
    mean = _average(x, batch)
    if inside_xla():  # where another pass over x costs next to nothing
        return _measure_around(mean, x, batch)
    variance = _average(x, batch, squared=True) - tf.square(mean)
    close = tf.square(mean) <= CLOSE * variance
    close &= has_digits(variance + batch.epsilon)
    return tf.cond(
        tf.reduce_all(close),
        lambda: (mean, variance),
        lambda: _measure_around(mean, x, batch),
    )


def _measure_around(mean, x, batch):
    """Take the variance around the mean, or both from float64 where 0 is far away."""
    high = tf.cast(mean, tf.float32)
    squares = _average(tf.square(x - high[:, tf.newaxis]), batch)
    variance = squares - tf.square(mean - tf.cast(high, tf.float64))
    near = means_are_near_zero(mean, variance + batch.epsilon)
    return tf.cond(near, lambda: (mean, variance), lambda: measure(batch)[:2])


def backward(batch, saved, grad_y, gamma):
    """Return `(grad_x, grad_gamma, grad_beta)`, in the first of three ways that loses no digits.

    They are the fused kernel's gradient, over channels that are short enough for its sums; the
    same kernel over rows, if there are few; and the formula, which always holds. Outside XLA that
    is the slowest of the three.
    """
    given = batch, saved, grad_y, gamma
    by_formula = functools.partial(_by_formula, *given)
    if inside_xla():
        return by_formula()
    rows = rows_of(batch.x, batch.where)
    by_rows = functools.partial(_by_rows, *given, rows)
    by_channels = functools.partial(_by_channels, *given)

    def by_rows_or_formula():
        return _choose(_rows_are_short(rows, batch, saved), by_rows, by_formula)

    short = _channels_are_short(batch, saved)
    return _choose(short, by_channels, by_rows_or_formula)


def _channels_are_short(batch, saved):
    """Whether float32 may add up whole channels; False where they are not the last axis."""
    if batch.where.axis[0] != batch.x.shape.rank - 1:
        return False
    mean, variance = saved
    near = means_are_near_zero(mean, variance + batch.epsilon)
    return _both(batch.count <= MANY, near)


def _rows_are_short(rows, batch, saved):
    """Whether x can be cut into rows, so few that float32 may add up over them."""
    if rows is None:
        return False
    _, variance = saved
    digits = tf.reduce_all(has_digits(variance + batch.epsilon))
    return _both(rows[0] <= ROWS, digits)


def _both(known, later):
    """Join a condition that may be known while tracing, and one that is not."""
    return known & later if tf.is_tensor(known) else known and later


def _choose(condition, yes, no):
    """Return what one of two functions returns; the graph holds both only if it must."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    return tf.cond(condition, yes, no)


def _by_channels(batch, saved, grad_y, gamma):
    """The fused kernel's own gradient; its sums are as long as a channel."""
    mean, variance = (tf.cast(v, tf.float32) for v in saved)
    saved = mean, variance, tf.ones([1])
    grad_x, *others = _fused.backward(batch, saved, grad_y, gamma)
    return grad_x, *(tf.cast(v, tf.float64) for v in others)


def _by_rows(batch, saved, grad_y, gamma, rows):
    """The fused kernel's gradient for given statistics, with a channel for each place in a row.

    Its sums are then as long as there are rows. It returns `multiplier * grad_y`; `grad_x` is that
    and a line through x, by which the statistics depend on x.
    """
    (mean, variance), where = saved, batch.where
    inverse, high = tf.math.rsqrt(variance + batch.epsilon), tf.cast(mean, tf.float32)
    multiplier = tf.cast(gamma, tf.float64) * inverse
    centre, factor = (
        along_row(tf.cast(v, tf.float32), batch.x, where, rows[1])
        for v in (high, multiplier)
    )
    x, grad_y = (tf.cast(v, tf.float32) for v in (batch.x, grad_y))
    scaled, products, sums, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=image_of_rows(grad_y, where, *rows),
        x=image_of_rows(x, where, *rows),
        scale=factor,
        reserve_space_1=centre,
        reserve_space_2=tf.ones_like(centre),
        reserve_space_3=tf.ones([1]),
        epsilon=0.0,
        is_training=False,
    )
    _, *sizes = static_or_dynamic_shape(before_channels_after(x, where))
    products, grad_beta = (
        tf.reduce_sum(tf.cast(tf.reshape(v, [-1, *sizes]), tf.float64), (0, 2))
        for v in (products, sums)
    )
    off = mean - tf.cast(high, tf.float64)  # what x - high is too large by
    grad_gamma = (products - off * grad_beta) * inverse
    share = multiplier / tf.cast(batch.count, tf.float64)
    line = affine(x, mean, -share * inverse * grad_gamma, -share * grad_beta, where)
    grad_x = tf.reshape(scaled, tf.shape(x)) + line
    return tf.cast(grad_x, batch.x.dtype), grad_gamma, grad_beta


def _by_formula(batch, saved, grad_y, gamma):
    """The gradient as `bnlib.gradient` has it, with sums of short runs."""
    mean, variance = saved
    x, grad = (
        tf.cast(before_channels_after(v, batch.where), tf.float32)
        for v in (batch.x, grad_y)
    )
    inverse = tf.math.rsqrt(variance + batch.epsilon)
    multiplier = tf.cast(gamma, tf.float64) * inverse
    m = tf.cast(batch.count, tf.float64)
    high, scale = (tf.cast(v, tf.float32) for v in (mean, inverse))
    x_hat = (x - high[:, tf.newaxis]) * scale[:, tf.newaxis]
    off = (mean - tf.cast(high, tf.float64)) * inverse  # what x_hat is too large by
    grad_beta = _total(grad, batch)
    grad_gamma = _total(grad * x_hat, batch) - off * grad_beta
    slope = multiplier * grad_gamma / m
    shift = off * slope - multiplier * grad_beta / m
    multiplier, slope, shift = (
        tf.cast(v, tf.float32)[:, tf.newaxis] for v in (multiplier, slope, shift)
    )
    grad_x = tf.cast(grad * multiplier - x_hat * slope + shift, batch.x.dtype)
    return tf.reshape(grad_x, tf.shape(batch.x)), grad_gamma, grad_beta


# Sums of short runs


def _average(x, batch, **options):
    total = _total(x, batch, **options)
    return tf.math.divide_no_nan(total, tf.cast(batch.count, tf.float64))


def _total(x, batch, *, squared=False):
    """Add up x, seen as (before, channels, after), or its squares, over all but the channels."""
    axis = 0 if x.shape[2] == 1 else 2
    if axis == 0:  # XLA adds up several times as fast where no axis of one is behind
        x = tf.squeeze(x, 2)
    sizes, run, odd = static_or_dynamic_shape(x), _run(batch), None
    if run is None:
        run, rest = RUN, sizes[axis] % RUN
        x, odd = tf.split(x, [sizes[axis] - rest, rest], axis)
    shape = [*sizes[:axis], sizes[axis] // run, run, *sizes[axis + 1 :]]
    runs = tf.reshape(x, shape)
    if squared:  # by the op that squares while it adds
        norms = tf.raw_ops.EuclideanNorm(input=runs, axis=[axis + 1])
        sums = tf.square(tf.cast(norms, tf.float64))
    else:
        sums = tf.cast(tf.reduce_sum(runs, axis + 1), tf.float64)
    others = [0] if axis == 0 else [0, 2]
    total = tf.reduce_sum(sums, others)
    if odd is None:
        return total
    odd = tf.cast(odd, tf.float64)
    return total + tf.reduce_sum(tf.square(odd) if squared else odd, others)


def _run(batch):
    """How many values next to each other float32 adds up; None where no such number divides them.

    They lie behind the channels, or before them where nothing is behind. A batch of unknown size
    is no hindrance: the number of places in an example is known.
    """
    sizes, axis = batch.x.shape.as_list(), batch.where.axis[0]
    behind = sizes[axis + 1 :]
    known = math.prod(n for n in behind or sizes[:axis] if n)
    least, most = RUN // 4, RUN
    if not behind and known <= FEW * RUN and None not in sizes and inside_xla():
        least, most = 1, max(1, known // (FEW + 1))
    fits = [n for n in range(least, most + 1) if known % n == 0]
    return fits[-1] if fits else None
