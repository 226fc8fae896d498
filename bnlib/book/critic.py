"""A critic with a gradient penalty, as in WGAN-GP, on points in the plane.

The penalty is made of a gradient, so training differentiates twice. "Training in the wild" uses it
to see what a wrong second derivative of batch norm costs; `benchmarks/penalty.py` stores its runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bnlib._extras import needed

with needed("bnlib.book.critic", "tf"):
    import keras
    import tensorflow as tf

__all__ = ["Points", "critic", "losses", "points", "train"]


class Points(NamedTuple):
    """A batch for a critic.

    Attributes:
        real: near eight places on a ring of radius 2, `(N, 2)`.
        fake: normal around 0, `(N, 2)`.
        between: one point on the line from each fake to a real one, `(N, 2)`.
    """

    real: np.ndarray
    fake: np.ndarray
    between: np.ndarray


def points(rng: np.random.Generator, n: int = 64) -> Points:
    """Draw a batch of float64 points.

    Args:
        rng: where the numbers come from.
        n: how many of each kind.

    Returns:
        The `Points`.

    >>> points(np.random.default_rng(0)).between.shape
    (64, 2)
    """
    angle = rng.integers(0, 8, n) * np.pi / 4
    real = 2 * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(0, 0.1, (n, 2))
    fake = rng.normal(0, 1, (n, 2))
    share = rng.uniform(size=(n, 1))
    return Points(real, fake, share * real + (1 - share) * fake)


def critic(seed: int, norm: Callable[[], Any] | None) -> Any:
    """Make a critic: two dense layers of 64 units with softplus, and one output, in float64.

    Args:
        seed: of the weights.
        norm: called without arguments for the norm layer before each softplus; None for none.

    Returns:
        A `keras.Sequential` that takes `(N, 2)` and gives `(N, 1)`.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((2,), dtype="float64")])
    for _ in range(2):
        model.add(keras.layers.Dense(64, dtype="float64"))
        if norm:
            model.add(norm())
        model.add(keras.layers.Activation("softplus", dtype="float64"))
    model.add(keras.layers.Dense(1, dtype="float64"))
    return model


def losses(
    model: Any, batch: Points, *, together: bool = False
) -> tuple[Any, Any, Any]:
    """Return what a critic with a gradient penalty is trained by.

    Args:
        model: the critic, run in training mode; on the points between alone.
        batch: arrays or tensors.
        together: whether it sees real and fake points in one batch; else in one of each kind.

    Returns:
        mean answer to fakes minus mean answer to real ones, which is to fall; the penalty, the mean
        of (norm - 1)^2 over the gradients at the points between; the mean norm.

    Source: Gulrajani et al. (2017), Algorithm 1.
    """
    real, fake, between = (tf.convert_to_tensor(each) for each in batch)
    with tf.GradientTape() as tape:
        tape.watch(between)
        answers = model(between, training=True)
    gradient = tape.gradient(answers, between)
    norms = tf.sqrt(tf.reduce_sum(gradient**2, 1) + 1e-12)
    if together:
        both = model(tf.concat([fake, real], 0), training=True)
        of_fake, of_real = tf.split(both, [len(fake), len(real)])
    else:
        of_fake, of_real = (model(each, training=True) for each in (fake, real))
    gap = tf.reduce_mean(of_fake) - tf.reduce_mean(of_real)
    return gap, tf.reduce_mean((norms - 1) ** 2), tf.reduce_mean(norms)


def train(
    norm: Callable[[], Any] | None,
    seed: int,
    *,
    steps: int,
    weight: float = 10.0,
    together: bool = False,
) -> tuple[Any, np.ndarray]:
    """Train a critic by Adam at a rate of 0.001.

    Args:
        norm: as in `critic`.
        seed: of the weights and of the points.
        steps: how many, each with 64 points of a kind.
        weight: of the penalty in the loss.
        together: as in `losses`.

    Returns:
        The critic; and of each step what `losses` returns, `(steps, 3)`.
    """
    model = critic(seed, norm)
    optimizer = keras.optimizers.Adam(1e-3, beta_1=0.5, beta_2=0.9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(*batch):
        with tf.GradientTape() as tape:
            gap, penalty, size = losses(model, batch, together=together)
            loss = gap + weight * penalty
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return gap, penalty, size

    rng = np.random.default_rng(seed)
    history = [step(*map(tf.constant, points(rng))) for _ in range(steps)]
    return model, np.array([[float(each) for each in row] for row in history])
