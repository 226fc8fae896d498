"""Three ways through a batch: wide, fused and narrow.

- `Wide` is the formula in float64: right for any data, weights and axes, and slow on large arrays.
- `Fused` is TensorFlow's kernel: fast, and wrong where the mean is large beside the deviation. It
  says in `trusted` whether its answer can be believed.
- `Narrow` is for XLA, where the fused kernel is slow: float32 in two passes, and the statistics
  again in float64 where the mean is large.

Each has `forward(gamma, beta) -> (y, mean, variance)` and then `backward(grad_y) -> (grad_x,
grad_gamma, grad_beta)`.
"""

import copy

import tensorflow as tf

from bnlib.tf_ops import statistics
from bnlib.tf_ops._affine import affine, fused, image, large, suits, view
from bnlib.tf_ops._checks import WIDE, beside, dims, inside_xla

FAR = 256.0  # squared: a mean so many deviations from 0 has lost digits
MANY = 1 << 17  # values per channel, from which the fused kernel's sums lose digits
TINY = 1e-30  # below it, float32 has no digits left for a variance
RUN = 64  # values that float32 adds up before float64 takes over


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

    def on(self, x):
        """Return the same kernel on another tensor of x's shape."""
        other = copy.copy(self)
        other.x = x
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
        grad_y, data_format = image(grad_y, self.where)
        grads = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=grad_y,
            x=image(self.x, self.where)[0],
            scale=self.gamma,
            reserve_space_1=self.saved[0],
            reserve_space_2=self.saved[1],
            reserve_space_3=self.saved[2],
            epsilon=self.epsilon,
            data_format=data_format,
            is_training=True,
        )
        return tf.reshape(grads[0], tf.shape(self.x)), grads[1], grads[2]


class Narrow:
    """Float32 sums in two passes; for XLA, where the fused kernel is slow."""

    def __init__(self, wide):
        self.x, self.where, self.wide = wide.x, wide.where, wide
        self.epsilon, self.count = wide.epsilon, wide.count

    def forward(self, gamma, beta):
        self.mean, self.variance = self._measure()
        inverse = tf.math.rsqrt(self.variance + self.epsilon)
        multiplier, beta = tf.cast(gamma, WIDE) * inverse, tf.cast(beta, WIDE)
        y = affine(self.x, self.mean, multiplier, beta, self.where)
        return y, self.mean, self.variance

    def _measure(self):
        x = tf.cast(view(self.x, self.where), tf.float32)
        m = tf.cast(self.count, WIDE)
        mean = _total(x) / m
        high = tf.cast(mean, tf.float32)
        squares = _total(tf.square(x - high[:, tf.newaxis])) / m
        variance = squares - tf.square(mean - tf.cast(high, WIDE))
        near = _near(mean, variance + self.epsilon)
        return tf.cond(near, lambda: (mean, variance), lambda: self.wide.moments()[:2])

    def backward(self, grad_y, gamma):
        x, grad = (tf.cast(view(v, self.where), tf.float32) for v in (self.x, grad_y))
        inverse = tf.math.rsqrt(self.variance + self.epsilon)
        multiplier, m = tf.cast(gamma, WIDE) * inverse, tf.cast(self.count, WIDE)
        high, scale = (tf.cast(v, tf.float32) for v in (self.mean, inverse))
        x_hat = (x - high[:, tf.newaxis]) * scale[:, tf.newaxis]
        off = (self.mean - tf.cast(high, WIDE)) * inverse  # what x_hat is too large by
        grad_beta = _total(grad)
        grad_gamma = _total(grad * x_hat) - off * grad_beta
        slope = multiplier * grad_gamma / m
        shift = off * slope - multiplier * grad_beta / m
        multiplier, slope, shift = (
            tf.cast(v, tf.float32)[:, tf.newaxis] for v in (multiplier, slope, shift)
        )
        grad_x = tf.cast(grad * multiplier - x_hat * slope + shift, self.x.dtype)
        return tf.reshape(grad_x, tf.shape(self.x)), grad_gamma, grad_beta


def _near(mean, spread):
    """Whether no mean lies far from 0; beside NaN, infinity and next to nothing, each does."""
    near = (tf.square(mean) <= FAR * spread) & (spread >= TINY)
    return tf.reduce_all(near & tf.math.is_finite(spread))


def _total(x):
    """Sum (before, channels, after) over all but the channels: runs in float32, then float64."""
    axis = 0 if x.shape[2] == 1 else 2
    sizes = dims(x)
    rest = sizes[axis] % RUN
    even = isinstance(rest, int) and rest == 0
    whole, odd = (x, None) if even else tf.split(x, [sizes[axis] - rest, rest], axis)
    runs = tf.reshape(
        whole, [*sizes[:axis], sizes[axis] // RUN, RUN, *sizes[axis + 1 :]]
    )
    total = tf.reduce_sum(tf.cast(tf.reduce_sum(runs, axis + 1), WIDE), (0, 2))
    return total if odd is None else total + tf.reduce_sum(tf.cast(odd, WIDE), (0, 2))


def fast_kernel(wide, wanted):
    """Choose between the fused kernel, the one for XLA, and None; `wanted` is the fused one."""
    x, where, count = wide.x, wide.where, wide.count
    if not suits(x, where) or not (wanted or large(x)):
        return None
    if not wanted and (inside_xla() or (isinstance(count, int) and count > MANY)):
        return Narrow(wide)
    return Fused(x, where, wide.epsilon, count)
