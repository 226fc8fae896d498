"""Where float32 has digits enough: the limits that the fast kernels keep to."""

import tensorflow as tf

FAR = 256.0  # squared: a mean so many deviations from 0 has lost digits
MANY = 1 << 17  # values per channel, from which the fused kernel's sums lose digits
TINY = 1e-30  # below it, float32 has no digits left for a variance
HUGE = 1e20  # above it, none for what a gradient is multiplied by


def has_digits(variance):
    """Whether float32 has digits for each variance; a variance that is NaN has none."""
    return (variance >= TINY) & (variance <= HUGE)


def means_are_near_zero(mean, variance):
    """Whether every mean lies within 16 deviations of 0, and every variance has digits.

    With NaN or infinity in a channel the answer is no, since no comparison with NaN holds.
    """
    return tf.reduce_all((tf.square(mean) <= FAR * variance) & has_digits(variance))
