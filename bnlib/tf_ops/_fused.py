"""TensorFlow's fused kernel, its answer taken as it is.

It takes one axis of channels, and adds up all values of a channel in float32, one by one. On a CPU
it runs where it is asked for by name, and on a GPU, where its sums are another kernel's.
"""

import tensorflow as tf

from bnlib.tf_ops._shapes import image


def forward(batch, gamma, beta):
    """Return `(y, mean, variance, saved)`; saved is what the kernel keeps for its gradient.

    The variance is the biased one, whatever the kernel returns.
    """
    picture, data_format = image(batch.x, batch.where)
    y, mean, bessel, *reserved = tf.raw_ops.FusedBatchNormV3(
        x=picture,
        scale=tf.cast(gamma, tf.float32),
        offset=tf.cast(beta, tf.float32),
        mean=[],
        variance=[],
        epsilon=batch.epsilon,
        data_format=data_format,
        is_training=True,
    )
    m = tf.cast(batch.count, tf.float32)
    variance = bessel * (tf.maximum(m - 1, 1) / m)  # the kernel divides by m - 1
    statistics = (tf.cast(v, tf.float64) for v in (mean, variance))
    return tf.reshape(y, tf.shape(batch.x)), *statistics, reserved


def backward(batch, saved, grad_y, gamma):
    """Return `(grad_x, grad_gamma, grad_beta)`, the last two in float32."""
    picture, data_format = image(grad_y, batch.where)
    mean, variance, more = saved
    grad_x, grad_gamma, grad_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=picture,
        x=image(batch.x, batch.where)[0],
        scale=tf.cast(gamma, tf.float32),
        reserve_space_1=mean,
        reserve_space_2=variance,
        reserve_space_3=more,
        epsilon=batch.epsilon,
        data_format=data_format,
        is_training=True,
    )
    return tf.reshape(grad_x, tf.shape(batch.x)), grad_gamma, grad_beta
