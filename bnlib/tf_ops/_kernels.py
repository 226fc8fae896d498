"""Three ways through a batch: wide, narrow and fused.

- `Wide` is the formula in float64: right for any data, weights and axes, and slow on large arrays.
- `Narrow` adds up short runs in float32, and their sums in float64: fast, and as right as float32
  can be however many values there are. Where the mean is large it goes on in float64.
- `Fused` is TensorFlow's kernel, which adds up all values of a channel in float32, one by one. On
  a CPU it runs where it is asked for by name, and on a GPU, where its sums are another kernel's.
  It says in `trusted` whether its answer can be believed.

Each has `forward(gamma, beta) -> (y, mean, variance)` and then `backward(grad_y) -> (grad_x,
grad_gamma, grad_beta)`.

How far off can float32 sums be? Adding r numbers one by one loses up to r/2 units in the last
place, and comes close to it where all are equal, or take two values, so that each step rounds the
same way. For a run of `RUN` that is 5e-7 of the sum, and 1e-6 of a variance around 0 whose mean
lies one deviation off; a sweep over two levels finds 1.2e-6 with runs of 28, and less than 1e-6
with these. For a channel of 131,072 values it is 4e-3, and the fused kernel's mean has been seen
1e-2 deviations off, its variance 1e-3 of itself. The gradient's sums are as long as a channel of
`MANY` values at most, or as there are rows, `ROWS` at most. The number of lanes changes nothing:
lanes are channels, or make the runs shorter.
"""

import copy
import functools
import math

import tensorflow as tf

from bnlib.tf_ops import statistics
from bnlib.tf_ops._affine import (
    affine,
    along_row,
    fused,
    image,
    image_of_rows,
    large,
    rows_of,
    suits,
    view,
)
from bnlib.tf_ops._checks import WIDE, beside, dims, inside_xla

FAR = 256.0  # squared: a mean so many deviations from 0 has lost digits
CLOSE = 1.0  # squared: so near to 0, the mean of the squares loses none to the mean's square
MANY = 1 << 17  # values per channel, from which the fused kernel's sums lose digits
ROWS = 1024  # the same for the gradient's, where each place has its own
TINY = 1e-30  # below it, float32 has no digits left for a variance
HUGE = 1e20  # above it, none for what a gradient is multiplied by
RUN = 16  # values that float32 adds up before float64 takes over


class Wide:
    """The formula in float64.

    Args:
        x: the batch.
        where: its `Layout`.
        epsilon: guard inside the root.
        share: each value's share of the weights, beside x; None for equal ones.
        count: values per channel, or the sum of the weights.
        synchronized: whether all replicas are one batch.
    """

    def __init__(self, x, where, epsilon, share, count, *, synchronized=False):
        self.x, self.where, self.epsilon = x, where, epsilon
        self.share, self.count, self.synchronized = share, count, synchronized

    def given(self):
        """Return the tensors, besides x, that it was made with."""
        return [
            tf.stop_gradient(v) for v in (self.share, self.count) if tf.is_tensor(v)
        ]

    def on(self, x, *given):
        """Return the same kernel on another x; `given` takes the place of what that returns."""
        other, given = copy.copy(self), list(given)
        other.x = x
        for name in ("share", "count"):
            if given and tf.is_tensor(getattr(self, name)):
                setattr(other, name, given.pop(0))
        return other

    def moments(self):
        """Measure x, on all replicas if asked."""
        local = statistics.measure(self.x, self.where, self.share, self.count)
        return statistics.sync_moments(local) if self.synchronized else local

    def forward(self, gamma, beta):
        self.batch = self.moments()
        multiplier = tf.cast(gamma, WIDE) * self._inverse()
        mean, beta = self.batch.mean, tf.cast(beta, WIDE)
        y = affine(self.x, mean, multiplier, beta, self.where)
        return y, *self.batch[:2]

    def backward(self, grad_y, gamma):
        """Section 3 of the paper, solved for grad_x; see `bnlib.gradient`."""
        inverse, axes = self._inverse(), self.where.axes
        grad, centred = tf.cast(grad_y, WIDE), self._centred()
        sums = tf.reduce_sum(grad, axes), tf.reduce_sum(grad * centred, axes)
        whole = map(statistics.all_sum, sums) if self.synchronized else sums
        mean_grad, slope = (beside(v, self.x, self.where) for v in whole)
        slope = slope * beside(tf.square(inverse), self.x, self.where)
        grad_x = grad - self._share() * (mean_grad + centred * slope)
        grad_x *= beside(tf.cast(gamma, WIDE) * inverse, self.x, self.where)
        return tf.cast(grad_x, self.x.dtype), sums[1] * inverse, sums[0]

    def _inverse(self):
        return tf.math.rsqrt(self.batch.variance + self.epsilon)

    def _centred(self):
        centred = tf.cast(self.x, WIDE) - beside(self.batch.mean, self.x, self.where)
        if self.share is None:
            return centred
        hidden = (self.share == 0) & ~tf.math.is_finite(centred)
        return tf.where(hidden, tf.zeros_like(centred), centred)

    def _share(self):
        """What part of the mean each value is: of all replicas' mean, if asked."""
        whole = self.batch.count
        if self.share is None and isinstance(whole, int) and whole:
            return 1 / whole
        whole = tf.cast(whole, WIDE)
        if self.share is None:
            return tf.math.reciprocal_no_nan(whole)
        part = tf.math.divide_no_nan(tf.cast(self.count, WIDE), whole)
        return self.share * (
            beside(part, self.x, self.where) if part.shape.rank else part
        )


class Fused:
    """TensorFlow's fused kernel, on any layout; its variance is made biased whatever it returns."""

    def __init__(self, x, where, epsilon, count):
        self.x, self.where, self.epsilon, self.count = x, where, epsilon, count

    def forward(self, gamma, beta):
        options = {"mean": [], "variance": [], "epsilon": self.epsilon}
        self.gamma = tf.cast(gamma, tf.float32)
        vectors = self.gamma, tf.cast(beta, tf.float32)
        y, mean, bessel, *self.saved = fused(
            self.x, *vectors, self.where, is_training=True, **options
        )
        m = tf.cast(self.count, tf.float32)
        variance = bessel * (tf.maximum(m - 1, 1) / m)  # the kernel divides by m - 1
        self.trusted = _near(mean, variance + self.epsilon) & (m <= MANY)
        return tf.reshape(y, tf.shape(self.x)), mean, variance

    def backward(self, grad_y, gamma):
        saved = self.gamma, *self.saved[:3]
        return _fused_grad(self.x, grad_y, self.where, saved, self.epsilon)


class Narrow:
    """Float32 sums of short runs, and float64 beyond.

    Outside XLA a new array as large as x costs more than reading x several times. So the sums are
    taken by ops that write none, and the gradient leaves through the fused kernel.

    Args:
        wide: the kernel to go to where a mean lies far from 0.
    """

    def __init__(self, wide):
        self.x, self.where, self.wide = wide.x, wide.where, wide
        self.epsilon, self.count = wide.epsilon, wide.count

    def forward(self, gamma, beta):
        self.mean, self.variance = self._measure()
        self.near = _near(self.mean, self.variance + self.epsilon)
        multiplier, beta = tf.cast(gamma, WIDE) * self._inverse(), tf.cast(beta, WIDE)
        y = affine(self.x, self.mean, multiplier, beta, self.where)
        return y, self.mean, self.variance

    def _inverse(self):
        return tf.math.rsqrt(self.variance + self.epsilon)

    def _total(self, x, *, squared=False):
        return _total(x, _run(self.x, self.where), squared=squared)

    def _average(self, x, **options):
        total = self._total(x, **options)
        return tf.math.divide_no_nan(total, tf.cast(self.count, WIDE))

    def _measure(self):
        """Look at the squares first: where the mean is near 0, they are all that is needed."""
        x = tf.cast(view(self.x, self.where), tf.float32)
        mean = self._average(x)
        if inside_xla():  # which reads x as often as it likes
            return self._around(x, mean)
        variance = self._average(x, squared=True) - tf.square(mean)
        close = tf.square(mean) <= CLOSE * variance
        close &= _some(variance + self.epsilon)
        return tf.cond(
            tf.reduce_all(close),
            lambda: (mean, variance),
            lambda: self._around(x, mean),
        )

    def _around(self, x, mean):
        """Take the variance around the mean, or both from float64 where 0 is far away."""
        high = tf.cast(mean, tf.float32)
        squares = self._average(tf.square(x - high[:, tf.newaxis]))
        variance = squares - tf.square(mean - tf.cast(high, WIDE))
        near = _near(mean, variance + self.epsilon)
        return tf.cond(near, lambda: (mean, variance), lambda: self.wide.moments()[:2])

    def backward(self, grad_y, gamma):
        """Go by channels where these are short and near 0, else by rows, else by the formula."""
        formula = functools.partial(self._by_formula, grad_y, gamma)
        if inside_xla():
            return formula()
        rows, many = rows_of(self.x, self.where), formula
        if rows is not None:
            tame = tf.reduce_all(_some(self.variance + self.epsilon))
            by_rows = functools.partial(self._by_rows, grad_y, gamma, rows)
            many = functools.partial(
                _choose, _both(rows[0] <= ROWS, tame), by_rows, formula
            )
        if self.where.axis[0] != self.x.shape.rank - 1:
            return many()
        few = _both(self.count <= MANY, self.near)
        return _choose(few, lambda: self._by_channels(grad_y, gamma), many)

    def _by_channels(self, grad_y, gamma):
        """The kernel's own gradient: its sums are as long as a channel."""
        vectors = gamma, self.mean, self.variance
        gamma, mean, variance = (tf.cast(v, tf.float32) for v in vectors)
        saved = gamma, mean, variance, tf.ones([1])
        grads = _fused_grad(self.x, grad_y, self.where, saved, self.epsilon)
        return grads[0], *(tf.cast(v, WIDE) for v in grads[1:])

    def _by_rows(self, grad_y, gamma, rows):
        """Each place in a row is a channel to the kernel, whose sums are as long as there are rows.

        With statistics that are given it returns `multiplier * grad_y`, and `grad_x` is that and a
        line through x.
        """
        inverse, high = self._inverse(), tf.cast(self.mean, tf.float32)
        multiplier = tf.cast(tf.cast(gamma, WIDE) * inverse, tf.float32)
        centre, factor = (
            along_row(v, self.x, self.where, rows[1]) for v in (high, multiplier)
        )
        x, grad_y = (tf.cast(v, tf.float32) for v in (self.x, grad_y))
        scaled, products, sums, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=image_of_rows(grad_y, self.where, *rows),
            x=image_of_rows(x, self.where, *rows),
            scale=factor,
            reserve_space_1=centre,
            reserve_space_2=tf.ones_like(centre),
            reserve_space_3=tf.ones([1]),
            epsilon=0.0,
            is_training=False,
        )
        places = [-1, *dims(view(self.x, self.where))[1:]]
        products, grad_beta = (
            tf.reduce_sum(tf.cast(tf.reshape(v, places), WIDE), (0, 2))
            for v in (products, sums)
        )
        off = self.mean - tf.cast(high, WIDE)
        grad_gamma = (products - off * grad_beta) * inverse
        share = tf.cast(gamma, WIDE) * inverse / tf.cast(self.count, WIDE)
        slope, shift = -share * inverse * grad_gamma, -share * grad_beta
        line = affine(x, self.mean, slope, shift, self.where)
        grad_x = tf.reshape(scaled, tf.shape(x)) + line
        return tf.cast(grad_x, self.x.dtype), grad_gamma, grad_beta

    def _by_formula(self, grad_y, gamma):
        x, grad = (tf.cast(view(v, self.where), tf.float32) for v in (self.x, grad_y))
        inverse = self._inverse()
        multiplier, m = tf.cast(gamma, WIDE) * inverse, tf.cast(self.count, WIDE)
        high, scale = (tf.cast(v, tf.float32) for v in (self.mean, inverse))
        x_hat = (x - high[:, tf.newaxis]) * scale[:, tf.newaxis]
        off = (self.mean - tf.cast(high, WIDE)) * inverse  # what x_hat is too large by
        grad_beta = self._total(grad)
        grad_gamma = self._total(grad * x_hat) - off * grad_beta
        slope = multiplier * grad_gamma / m
        shift = off * slope - multiplier * grad_beta / m
        multiplier, slope, shift = (
            tf.cast(v, tf.float32)[:, tf.newaxis] for v in (multiplier, slope, shift)
        )
        grad_x = tf.cast(grad * multiplier - x_hat * slope + shift, self.x.dtype)
        return tf.reshape(grad_x, tf.shape(self.x)), grad_gamma, grad_beta


def _some(spread):
    """Where there is a spread that float32 has digits for; not beside NaN."""
    return (spread >= TINY) & (spread <= HUGE)


def _near(mean, spread):
    """Whether no mean lies far from 0; beside NaN, infinity and next to nothing, each does."""
    return tf.reduce_all((tf.square(mean) <= FAR * spread) & _some(spread))


def _both(known, later):
    """A condition that may be known while tracing, and one that is not."""
    return known & later if tf.is_tensor(known) else known and later


def _choose(condition, yes, no):
    """Return what one of two functions returns; the graph holds both only if it must."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    return tf.cond(condition, yes, no)


def _fused_grad(x, grad_y, where, saved, epsilon):
    """The fused kernel's gradient; `saved` are gamma, mean, variance and what it hands on."""
    gamma, mean, variance, more = saved
    grad_y, data_format = image(grad_y, where)
    grads = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=grad_y,
        x=image(x, where)[0],
        scale=gamma,
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=more,
        epsilon=epsilon,
        data_format=data_format,
        is_training=True,
    )
    return tf.reshape(grads[0], tf.shape(x)), grads[1], grads[2]


def _run(x, where):
    """How many values next to each other float32 adds up; None where no such number divides them.

    They lie behind the channels, or before them where nothing is behind. A batch of unknown size
    is no hindrance: the number of places in an example is known.
    """
    sizes, axis = x.shape.as_list(), where.axis[0]
    along = sizes[axis + 1 :] or sizes[:axis]
    known = math.prod(n for n in along if n)
    fits = [n for n in range(RUN // 4, RUN + 1) if known % n == 0]
    return fits[-1] if fits else None


def _total(x, run, *, squared=False):
    """Add up (before, channels, after), or its squares, over all but the channels."""
    axis = 0 if x.shape[2] == 1 else 2
    sizes, odd = dims(x), None
    if run is None:
        run, rest = RUN, sizes[axis] % RUN
        x, odd = tf.split(x, [sizes[axis] - rest, rest], axis)
    shape = [*sizes[:axis], sizes[axis] // run, run, *sizes[axis + 1 :]]
    runs = tf.reshape(x, shape)
    if squared:  # the op that squares while it adds
        sums = tf.raw_ops.EuclideanNorm(input=runs, axis=[axis + 1])
        total = tf.reduce_sum(tf.square(tf.cast(sums, WIDE)), (0, 2))
    else:
        total = tf.reduce_sum(tf.cast(tf.reduce_sum(runs, axis + 1), WIDE), (0, 2))
    if odd is None:
        return total
    odd = tf.cast(odd, WIDE)
    return total + tf.reduce_sum(tf.square(odd) if squared else odd, (0, 2))


def on_gpu():
    """Whether there is a GPU, which then does the work."""
    return bool(tf.config.list_physical_devices("GPU"))


def fast_kernel(wide, wanted):
    """Choose between the fused kernel, the narrow one and None; `wanted` is the fused one."""
    x, where = wide.x, wide.where
    if not suits(x, where) or not (wanted or large(x)):
        return None
    if wanted or (on_gpu() and not inside_xla()):
        return Fused(x, where, wide.epsilon, wide.count)
    return Narrow(wide)
