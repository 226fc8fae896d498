"""A batch norm layer: the transform, plus a memory, plus a mode that it is always told.

The only class of the NumPy core with mutable state. The mathematics is in `transform` and
`gradient`, the memory is a `population` that the layer is given.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bnlib._checks import as_epsilon, as_floating
from bnlib._typing import Array, ArrayLike, Axis, Channels, State
from bnlib.gradient import batch_norm_backward, batch_norm_inference_backward
from bnlib.moments import moments
from bnlib.population import Exponential, Population
from bnlib.transform import batch_norm_inference

__all__ = ["BatchNorm"]


class BatchNorm:
    """Batch normalization with Keras's arguments and defaults.

    Args:
        channels: C.
        axis: the axis that is kept, -1 for channels last, 1 for channels first.
        momentum: weight of the old moving average; not used when `population` is given.
        epsilon: guard inside the root.
        center: whether there is a beta.
        scale: whether there is a gamma.
        population: an estimator from `bnlib.population`; default `Exponential(channels,
            momentum)`.

    Attributes:
        gamma: shape `(C,)`, or None with `scale=False`.
        beta: shape `(C,)`, or None with `center=False`.
        population: what the layer remembers; see `bnlib.population`.
        gradients: dict of the last `backward`: `gamma`, `beta`.

    >>> layer = BatchNorm(1, momentum=0.5)
    >>> y = layer([[1.0], [3.0]], training=True)
    >>> layer.population.value()
    Moments(mean=array([1.]), variance=array([1.]), count=2)
    >>> layer
    BatchNorm(1, axis=-1, momentum=0.5, epsilon=0.001)
    """

    def __init__(
        self,
        channels: Channels,
        *,
        axis: Axis = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        population: Population | None = None,
    ) -> None:
        self.axis, self.epsilon = axis, as_epsilon(epsilon)
        self._channels = channels
        self.gamma: Array | None = np.ones(channels) if scale else None
        self.beta: Array | None = np.zeros(channels) if center else None
        self.population: Population = (
            Exponential(channels, momentum) if population is None else population
        )
        self.gradients: dict[str, Array] = {}
        self._saved: Any = None

    def __repr__(self) -> str:
        """Show the arguments that make an equal layer; the population if it is not the usual."""
        plain = type(self.population) is Exponential and not self.population.bessel
        shown = [repr(self._channels), f"axis={self.axis}"]
        shown += [f"momentum={self.population.momentum}"] if plain else []
        shown.append(f"epsilon={self.epsilon}")
        shown += ["center=False"] if self.beta is None else []
        shown += ["scale=False"] if self.gamma is None else []
        shown += [] if plain else [f"population={self.population!r}"]
        return f"BatchNorm({', '.join(shown)})"

    def __call__(
        self,
        x: ArrayLike,
        *,
        training: bool,
        update: bool = True,
        weights: ArrayLike | None = None,
    ) -> Array:
        """Normalise `x` by its own statistics, or by the population's.

        Args:
            x: shape `(N, ..., C)`.
            training: True for batch statistics, False for the population's. There is no default: a
                wrong guess is the commonest fault of batch norm.
            update: in training, whether the population takes the batch in. False looks without
                touching.
            weights: in training, as in `moments`.

        Returns:
            y, shape and dtype of x.

        Raises:
            TypeError: when `training` is not a boolean.
            ValueError: for what `batch_norm` and `Population.update` refuse.
        """
        if not isinstance(training, (bool, np.bool_)):
            raise TypeError(f"training must be True or False; got {training!r}.")
        x = as_floating("x", x)  # each function below would reorder it anew
        if training:
            batch = moments(x, axis=self.axis, weights=weights)
        else:
            batch = self.population.value()
        options = {"axis": self.axis, "epsilon": self.epsilon}
        y = batch_norm_inference(x, *batch[:2], self.gamma, self.beta, **options)
        if training and update:
            self.population.update(batch)
        self._saved = (x, training, weights, batch)
        return y

    def backward(self, grad_y: ArrayLike) -> Array:
        """Propagate the loss gradient through the last call, in the mode that it had.

        Args:
            grad_y: gradient of the loss with respect to y.

        Returns:
            grad_x. The gradients of gamma and beta are left in `gradients`.

        Raises:
            ValueError: when the layer has not been called, or the shapes differ.
        """
        if self._saved is None:
            raise ValueError("backward needs a forward pass: call the layer first.")
        x, training, weights, batch = self._saved
        options = {"axis": self.axis, "epsilon": self.epsilon}
        if training:
            known = {"weights": weights, "statistics": batch}
            grads = batch_norm_backward(grad_y, x, self.gamma, **known, **options)
        else:
            grads = batch_norm_inference_backward(
                grad_y, x, batch.mean, batch.variance, self.gamma, **options
            )
        named = {"gamma": grads[1], "beta": grads[2]}
        self.gradients = {name: named[name] for name in self.parameters}
        return grads[0]

    @property
    def parameters(self) -> dict[str, Array]:
        """The trainable arrays by name; update them in place."""
        named = {"gamma": self.gamma, "beta": self.beta}
        return {name: value for name, value in named.items() if value is not None}

    def state(self) -> State:
        """Return parameters and population as one dict of arrays.

        Returns:
            `gamma` and `beta` where they exist, and the population's state.
        """
        return {
            name: value.copy() for name, value in self.parameters.items()
        } | self.population.state()

    def restore(self, state: Mapping[str, ArrayLike]) -> None:
        """Put back what `state` gave, exactly.

        Args:
            state: dict of arrays, as from `state()`.

        Raises:
            ValueError: when a name is missing or unknown, or a shape differs. Nothing is changed
                then.
        """
        own = self.parameters
        for name, value in own.items():
            if np.shape(state.get(name)) != value.shape:
                raise ValueError(
                    f"state must hold {name!r} of shape {value.shape}; "
                    f"got {np.shape(state[name]) if name in state else 'nothing'}."
                )
        self.population.restore(
            {name: value for name, value in state.items() if name not in own}
        )
        for name, value in own.items():
            value[...] = state[name]
