"""How the checks speak to a batch norm: what a user writes to have theirs checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bnlib._typing import Array

__all__ = ["Adapter", "Setting"]


@dataclass(frozen=True)
class Setting:
    """What a check asks a layer to be.

    Attributes:
        channels: C.
        ndim: how many axes x will have.
        axis: the axis that is kept; -1, or 1 for channels first.
        epsilon: guard inside the root.
        momentum: weight of the old moving average.
        gamma: shape `(C,)`, float64; None for ones.
        beta: shape `(C,)`, float64; None for zeros.
        dtype: of x: "float32", "float64", "float16" or "bfloat16". Sixteen bits mean x and y alone;
            parameters and statistics may be wider.
    """

    channels: int
    ndim: int = 2
    axis: int = -1
    epsilon: float = 1e-3
    momentum: float = 0.5
    gamma: Array | None = None
    beta: Array | None = None
    dtype: str = "float32"

    def vectors(self) -> tuple[Array, Array]:
        """Return gamma and beta, with ones and zeros where None is.

        Returns:
            Two arrays of shape `(C,)`, float64.
        """
        ones = np.ones(self.channels) if self.gamma is None else self.gamma
        return ones, np.zeros(self.channels) if self.beta is None else self.beta


class Adapter:
    """One batch norm layer, made as a `Setting` says and spoken to in NumPy arrays.

    Write a subclass whose constructor takes a `Setting`, and define `forward`. Define more, and
    more is checked: what raises NotImplementedError is reported as "not offered", and is no
    failure. Raise it for settings that your layer does not have, too. Hand x over as it is,
    without a copy where your framework can: "input never modified" looks at it afterwards.

    Attributes:
        epsilon: what the layer really uses; None for what the setting says.
        bessel: whether the moving variance is said to take in m / (m - 1) times the batch variance;
            None where nothing is said.
        debiased: the same for moving statistics that forget their initial values at once.

    >>> import bnlib
    >>> class Mine(Adapter):
    ...     def __init__(self, setting):
    ...         self.setting = setting
    ...
    ...     def forward(self, x, training):
    ...         if not training:
    ...             raise NotImplementedError
    ...         options = {"axis": self.setting.axis, "epsilon": self.setting.epsilon}
    ...         return bnlib.batch_norm(x, *self.setting.vectors(), **options)[0]
    >>> Mine(Setting(3)).forward(np.ones((2, 3)), training=True).sum()
    np.float64(0.0)
    """

    epsilon: float | None = None
    bessel: bool | None = None
    debiased: bool | None = None

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def forward(self, x: Array, training: bool) -> Array:
        """Call the layer.

        Args:
            x: the batch, of the shape and dtype that the setting says.
            training: True for batch statistics, which the layer takes in; False for its own.

        Returns:
            y, in the dtype that the layer gives.

        Raises:
            NotImplementedError: for a mode that the layer does not have.
        """
        raise NotImplementedError

    def gradient(self, x: Array, grad_y: Array) -> tuple[Array, Array, Array]:
        """Return the gradients of `sum(grad_y * y)` in training mode.

        Args:
            x: the batch.
            grad_y: of its shape.

        Returns:
            grad_x, grad_gamma, grad_beta; None for either of the last two where there is none.

        Raises:
            NotImplementedError: where there is no gradient.
        """
        raise NotImplementedError

    def second_derivative(self, x: Array, grad_y: Array, direction: Array) -> Array:
        """Return the gradient of `sum(direction * grad_x)` with respect to x.

        Args:
            x: the batch.
            grad_y: of its shape.
            direction: of its shape.

        Returns:
            An array of the shape of x.

        Raises:
            NotImplementedError: where it cannot be differentiated twice.
        """
        raise NotImplementedError

    def masked(self, x: Array, mask: Array) -> Array:
        """Call the layer in training mode with a mask.

        Args:
            x: the batch, `(N, T, C)`.
            mask: booleans, `(N, T)`; False hides a step.

        Returns:
            y; what it holds in hidden places is not looked at.

        Raises:
            NotImplementedError: where there are no masks.
        """
        raise NotImplementedError

    def replicated(self, parts: Sequence[Array]) -> Sequence[Array]:
        """Call the layer in training mode on several replicas, as one synchronised layer.

        Args:
            parts: the batch of each replica, `(N, C)`, all of one length.

        Returns:
            y of each. `state` is then that of any of them.

        Raises:
            NotImplementedError: where its adapter has no replicas.
        """
        raise NotImplementedError("its adapter has no replicas")

    def state(self) -> tuple[Array, Array]:
        """Return copies of the moving statistics.

        Returns:
            moving_mean and moving_variance, `(C,)` each.

        Raises:
            NotImplementedError: where there are none.
        """
        raise NotImplementedError

    def set_state(self, moving_mean: Array, moving_variance: Array) -> None:
        """Put moving statistics in.

        Args:
            moving_mean: shape `(C,)`, float64.
            moving_variance: the same.

        Raises:
            NotImplementedError: where that cannot be done.
        """
        raise NotImplementedError

    def freeze(self) -> None:
        """Freeze the layer: from now on training mode is to be inference.

        Raises:
            NotImplementedError: where that is not known.
        """
        raise NotImplementedError

    def reloaded(self) -> "Adapter":
        """Save the layer, and load it anew.

        Returns:
            Another adapter, around the layer that was loaded.

        Raises:
            NotImplementedError: where nothing is saved.
        """
        raise NotImplementedError
