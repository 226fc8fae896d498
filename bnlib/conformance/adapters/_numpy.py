"""An adapter for the layer of the NumPy core."""

import io

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting
from bnlib.layer import BatchNorm
from bnlib.population import Exponential, Population


class NumPy(Adapter):
    """`bnlib.BatchNorm`.

    Args:
        setting: what a check asks for.
        population: a class of `bnlib.population`.
        bessel: whether the moving variance takes in m / (m - 1) times the batch variance.
    """

    def __init__(
        self,
        setting: Setting,
        population: type[Population] = Exponential,
        bessel: bool = False,
    ) -> None:
        if setting.dtype == "bfloat16":
            raise NotImplementedError
        self.setting, self.population, self.bessel = setting, population, bessel
        self.debiased = population is not Exponential
        momentum = [setting.momentum] if hasattr(population(1), "momentum") else []
        self.layer = BatchNorm(
            setting.channels,
            axis=setting.axis,
            epsilon=setting.epsilon,
            population=population(setting.channels, *momentum, bessel=bessel),
        )
        self.layer.gamma[...], self.layer.beta[...] = setting.vectors()

    def forward(self, x, training):
        """Call the layer."""
        return self.layer(x, training=training)

    def gradient(self, x, grad_y):
        """Go forward and back."""
        self.layer(x, training=True, update=False)
        grad_x = self.layer.backward(grad_y)
        return grad_x, *self.layer.gradients.values()

    def masked(self, x, mask):
        """Take the mask as weights."""
        return self.layer(x, training=True, weights=mask)

    def state(self):
        """Return what the population makes of its batches."""
        return self.layer.population.value()[:2]

    def set_state(self, moving_mean, moving_variance):
        """Put both into the population."""
        state = self.layer.population.state()
        state |= {"mean": moving_mean, "variance": moving_variance}
        self.layer.population.restore(state)

    def reloaded(self):
        """Go through NumPy's file format."""
        file = io.BytesIO()
        np.savez(file, **self.layer.state())
        file.seek(0)
        other = type(self)(self.setting, self.population, self.bessel)
        with np.load(file) as state:
            other.layer.restore(dict(state))
        return other
