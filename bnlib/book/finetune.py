"""Fine-tune the book's convolutional network on changed digits: chapter 10 compares four policies.

The network is trained on all digits first. Then it gets a few examples of another domain, such as
brighter ones, and some or all of its parts are trained further.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bnlib._extras import needed
from bnlib.book.convnet import as_images, convolutional
from bnlib.book.network import accuracy, batches

with needed("bnlib.book.finetune", "tf"):
    import keras
    import tensorflow as tf

__all__ = [
    "DOMAINS",
    "POLICIES",
    "Tuned",
    "examples",
    "fine_tune",
    "freeze_batch_norm",
    "pretrained",
    "with_new_statistics",
]

POLICIES = (
    "head only",
    "batch norm frozen",
    "training=False",
    "all",
)  # what is trained

DOMAINS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same": lambda x: x,
    "brighter": lambda x: x + 0.5,
    "inverted": lambda x: 1 - x,
}


class Tuned(keras.Model):
    """A base with a head, whose base can be held in inference.

    Args:
        base: a model or layer, such as a pretrained one without its last layer.
        head: the layer behind it.
        hold: whether the base is always called with `training=False`, also by `fit`.
    """

    def __init__(self, base: Any, head: Any, *, hold: bool = False) -> None:
        super().__init__()
        self.base, self.head, self.hold = base, head, hold

    def call(self, x: Any, training: Any = None) -> Any:
        """Return the head's outputs for a batch `x`."""
        return self.head(self.base(x, training=False if self.hold else training))


def freeze_batch_norm(model: Any) -> None:
    """Freeze each batch norm layer of a model, and of the models within it. Compile afterwards.

    Args:
        model: a Keras model; its layers' `trainable` is set.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        elif hasattr(layer, "layers"):  # a model as a layer
            freeze_batch_norm(layer)


def pretrained(seed: int = 0, *, momentum: float = 0.9, steps: int = 210) -> Any:
    """Train the book's network on the digits, in float64.

    Args:
        seed: of the weights and of the order of the digits.
        momentum: of the batch norm layers.
        steps: of gradient descent, with 64 examples each and a rate of 0.5.

    Returns:
        A `keras.Sequential` with logits `(N, 10)`.
    """
    x, y, *_ = as_images("float64")

    def norm():
        return keras.layers.BatchNormalization(momentum=momentum, dtype="float64")

    model = convolutional(seed, norm, dtype="float64")
    _train(model, x, y, rate=0.5, batches=_some(len(x), 64, steps, seed))
    return model


def examples(domain: str, n: int = 60, *, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Draw a few examples of a domain to train on, and all 450 to test with.

    Args:
        domain: one of `DOMAINS`.
        n: how many training examples.
        seed: of the draw.

    Returns:
        x `(n, 8, 8, 1)`, y `(n,)`, x_test `(450, 8, 8, 1)`, y_test `(450,)`.

    >>> examples("inverted")[0].shape
    (60, 8, 8, 1)
    """
    x, y, x_test, y_test = as_images("float64")
    rows = np.random.default_rng(100 + seed).permutation(len(x))[:n]
    change = DOMAINS[domain]
    return change(x[rows]), y[rows], change(x_test), y_test


def with_new_statistics(model: Any, x: np.ndarray) -> Any:
    """Return a copy of a model whose moving statistics are those of `x`, all else as it was.

    No labels are needed. All of `x` is one batch, taken in with momentum 0.

    Args:
        model: a Keras model with batch norm.
        x: the examples, used as one batch.

    Returns:
        The copy.
    """
    copy = _copy(model)
    norms = [
        layer
        for layer in copy.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    copy(x, training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return copy


def fine_tune(
    model: Any,
    policy: str,
    data: Sequence[np.ndarray],
    *,
    rate: float = 0.005,
    batch: int = 10,
    marks: Sequence[int] = (0, 10, 100),
    by_class: bool = False,
    seed: int = 0,
) -> list[float]:
    """Train a copy of a model further, and say how accurate it is on the way.

    Args:
        model: a `keras.Sequential` whose last layer is the head; it is not changed.
        policy: what is trained, one of `POLICIES`. "head only" freezes the base, "batch norm
            frozen" freezes the batch norm layers alone, "training=False" trains every weight but
            calls the base in inference mode, "all" holds nothing.
        data: x, y, x_test, y_test, as `examples` gives them.
        rate: of plain gradient descent.
        batch: how many examples a step sees.
        marks: the steps after which the accuracy is taken; training ends with the last.
        by_class: whether each batch holds one class only.
        seed: of the order of the examples.

    Returns:
        The accuracy on x_test in inference at each mark.

    Raises:
        ValueError: if there is no such policy.
    """
    if policy not in POLICIES:
        raise ValueError(
            f"policy must be one of {', '.join(POLICIES)}; got {policy!r}."
        )
    x, y, x_test, y_test = data
    copy = _copy(model)
    base = keras.Model(copy.inputs, copy.layers[-2].output)
    tuned = Tuned(base, copy.layers[-1], hold=policy == "training=False")
    tuned(x[:1])  # builds it
    if policy == "head only":
        base.trainable = False
    elif policy == "batch norm frozen":
        freeze_batch_norm(base)
    steps = max(marks)
    rows = (
        _of_one_class(y, batch, steps, seed)
        if by_class
        else _some(len(x), batch, steps, seed)
    )
    found = {0: accuracy(tuned, x_test, y_test)}

    def note(step):
        if step in marks:
            found[step] = accuracy(tuned, x_test, y_test)

    _train(tuned, x, y, rate=rate, batches=rows, after=note)
    return [found[mark] for mark in marks]


def _copy(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _train(model, x, y, *, rate, batches, after=lambda step: None):
    """Do one step of gradient descent for each array of rows; then call `after` with its number."""
    optimizer = keras.optimizers.SGD(rate)
    variables = model.trainable_variables
    optimizer.build(variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, [v.value for v in variables]), variables)

    for number, rows in enumerate(batches, start=1):
        step(tf.constant(x[rows]), tf.constant(y[rows]))
        after(number)


def _some(examples, size, steps, seed):
    return itertools.islice(batches(examples, size, np.random.default_rng(seed)), steps)


def _of_one_class(y, batch, steps, seed):
    """Give the rows of each step: some of one class, drawn with repetition; class after class."""
    rng, classes = np.random.default_rng(seed), np.array([], int)
    for _ in range(steps):
        if not len(classes):
            classes = rng.permutation(np.unique(y))
        yield rng.choice(np.flatnonzero(y == classes[0]), batch)
        classes = classes[1:]
