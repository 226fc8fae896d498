"""What all kernels share: how they see an array, and the affine map that each ends with."""

import math

import tensorflow as tf

from bnlib.tf_ops._checks import WIDE, beside, dims, inside_xla

LARGE = 1 << 14  # numbers in x, from which the fused kernel pays in training
LARGE_AFFINE = 1 << 19  # and where the statistics are given
GUESS = 32  # what an unknown dimension is taken for
NARROW = (tf.float16, tf.bfloat16, tf.float32)


def differentiable(fast, plain):
    """Return a function with the values of `fast` and the gradients of `plain`, to any order."""

    @tf.custom_gradient
    def run(*arguments):
        def grad(*upstream):
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                result = tf.nest.flatten(plain(*arguments))
            return tape.gradient(result, arguments, list(upstream))

        return fast(*arguments), grad

    return run


def suits(x, where):
    """Whether a fast kernel can take x: a narrow float dtype, and one axis kept."""
    return x.dtype in NARROW and len(where.axis) == 1


def large(x, least=LARGE):
    """Whether x is so large that a fast kernel pays."""
    return math.prod(n or GUESS for n in x.shape.as_list()) >= least


def view(x, where):
    """See x as (before, channels, after)."""
    sizes, axis = dims(x), where.axis[0]
    if all(isinstance(n, int) for n in sizes[axis:]):
        return tf.reshape(
            x, [-1 if axis else 1, sizes[axis], math.prod(sizes[axis + 1 :])]
        )
    before = math.prod(sizes[:axis]) if axis else 1
    return tf.reshape(x, [before, sizes[axis], -1])


def affine(x, mean, multiplier, beta, where):
    """Compute (x - mean) * multiplier + beta in the dtype of x; vectors may be wider.

    Then a small x is widened too. For a large one the mean is split in two: `x - high` is exact
    where it matters, the rest goes into the shift.
    """
    work = tf.float32 if x.dtype in NARROW else x.dtype
    if mean.dtype != work and not large(x):
        work = mean.dtype
    high = tf.cast(mean, work)
    shift = tf.zeros_like(mean) if beta is None else beta
    if mean.dtype != work:
        shift = shift + (tf.cast(high, WIDE) - mean) * multiplier
    vectors = high, tf.cast(multiplier, work), tf.cast(shift, work)

    def plain(x, high, multiplier, shift):
        high, multiplier, shift = (
            beside(v, x, where) for v in (high, multiplier, shift)
        )
        return tf.cast((tf.cast(x, work) - high) * multiplier + shift, x.dtype)

    def fast(x, high, multiplier, shift):
        given = {"mean": high, "variance": tf.ones_like(high), "epsilon": 0.0}
        y, *_ = fused(x, multiplier, shift, where, is_training=False, **given)
        return tf.reshape(y, tf.shape(x))

    if suits(x, where) and large(x, LARGE_AFFINE) and not inside_xla():
        return differentiable(fast, plain)(x, *vectors)
    return plain(x, *vectors)


def image(x, where):
    """See x as the images that the fused kernel takes, and name their layout."""
    x = view(x, where)
    if x.shape[2] == 1:
        return x[:, tf.newaxis, tf.newaxis, :, 0], "NHWC"
    return x[..., tf.newaxis], "NCHW"


def fused(x, gamma, beta, where, **options):
    picture, data_format = image(x, where)
    return tf.raw_ops.FusedBatchNormV3(
        x=picture, scale=gamma, offset=beta, data_format=data_format, **options
    )
