"""What all kernels share: how they see an array, and the affine map that each ends with."""

import math

import tensorflow as tf

from bnlib.tf_ops._checks import WIDE, beside, dims, forward_mode, inside_xla

LARGE = 1 << 14  # numbers in x, from which the fused kernel pays in training
LARGE_AFFINE = 1 << 19  # and where the statistics are given
GUESS = 32  # what an unknown dimension is taken for
LEAST, MOST = 8, 1024  # rows to cut x into
NARROW = (tf.float16, tf.bfloat16, tf.float32)


def differentiable(fast, plain):
    """Return a function with the values of `fast` and the gradients of `plain`, to any order.

    Where a `tf.autodiff.ForwardAccumulator` follows an argument, it is `plain` alone: forward mode
    looks at each op, and never at a gradient that replaces theirs.
    """

    @tf.custom_gradient
    def run(*arguments):
        def grad(*upstream):
            return gradients(plain, arguments, upstream)

        return fast(*arguments), grad

    def choose(*arguments):
        if forward_mode(arguments):
            return plain(*arguments)
        return run(*map(tf.identity, arguments))  # of this graph, not of one around it

    return choose


def gradients(function, arguments, upstream):
    """Return what flows back from the results of `function` to its arguments.

    In a graph by `tf.gradients`: while TensorFlow prepares a `tf.function` for forward mode, no
    tape records. There an upstream may be None, which stands for zeros.
    """
    arguments = [tf.identity(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        results = tf.nest.flatten(function(*arguments))
    pairs = zip(results, upstream, strict=True)
    pairs = [(result, flow) for result, flow in pairs if flow is not None]
    results, upstream = map(list, zip(*pairs, strict=True))
    if tf.executing_eagerly():
        return tape.gradient(results, arguments, upstream, unconnected_gradients="zero")
    return tf.gradients(results, arguments, upstream, unconnected_gradients="zero")


def suits(x, where):
    """Whether a fast kernel can take x: a narrow float dtype, and one axis kept."""
    return x.dtype in NARROW and len(where.axis) == 1


def large(x, least=LARGE):
    """Whether x is so large that a fast kernel pays."""
    return math.prod(n or GUESS for n in x.shape.as_list()) >= least


def view(x, where):
    """See x as (before, channels, after)."""
    sizes, axis = dims(x), where.axis[0]
    around = math.prod(sizes[:axis]), math.prod(sizes[axis + 1 :])
    return tf.reshape(x, [around[0], sizes[axis], around[1]])


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

    def fast(x, *vectors):
        picture = image(x, where)[0]
        if rows is not None:
            vectors = [along_row(v, x, where, rows[1]) for v in vectors]
            picture = image_of_rows(x, where, *rows)
        high, multiplier, shift = vectors
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=picture,
            scale=multiplier,
            offset=shift,
            mean=high,
            variance=tf.ones_like(high),
            epsilon=0.0,
            is_training=False,
        )
        return tf.reshape(y, tf.shape(x))

    last = where.axis[0] == x.shape.rank - 1
    rows = None if last or len(where.axis) > 1 else rows_of(x, where)
    pays = suits(x, where) and large(x, LARGE_AFFINE) and (last or rows is not None)
    if pays and not inside_xla():
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


def rows_of(x, where):
    """Return `(rows, parts)`: x as rows of so many parts, each with all channels, or None.

    Numbers where they are known, else scalars. A row is one example or more of them, or a piece of
    one, so that the batch may have any size. There are at least `LEAST` rows, as far as one can
    tell: vectors as long as a row then cost little beside x.
    """
    sizes, axis = dims(x), where.axis[0]
    known = x.shape.as_list()[:axis]
    if None not in known:
        before = math.prod(known)
        fits = [n for n in range(LEAST, min(before, MOST) + 1) if before % n == 0]
        rows = min(fits, key=lambda n: abs(n - GUESS), default=None)
        return rows and (rows, before // rows)
    for end in range(1, axis + 1):
        if math.prod(n or GUESS for n in known[:end]) >= LEAST:
            return math.prod(sizes[:end]), math.prod(sizes[end:axis])
    return None


def along_row(vector, x, where, parts):
    """Repeat a vector of channels for each place in a row."""
    _, channels, after = dims(view(x, where))
    vector = tf.broadcast_to(vector[:, tf.newaxis], [parts, channels, after])
    return tf.reshape(vector, [-1])


def image_of_rows(x, where, rows, parts):
    """See x as images of one point, with a channel for each place in a row."""
    _, channels, after = dims(view(x, where))
    return tf.reshape(x, [rows, 1, 1, parts * channels * after])
