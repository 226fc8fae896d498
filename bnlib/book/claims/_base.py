"""What the experiments share: data, one norm with parts to switch, training, a score."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnlib import BatchNorm
from bnlib.book.data import digits
from bnlib.book.network import accuracy, recalibrate, softmax_cross_entropy, train


@dataclass(frozen=True)
class Experiment:
    """A seeded run, and the settings to run it under.

    Where there is a grid, each setting has the best `rate` of it: the one of the highest mean `aim`
    over `TUNING_SEEDS`, which the experiment itself does not use; of two equal, the smaller.

    Attributes:
        run: called as `run(seed=seed, **setting)`; returns what it measured, by name.
        settings: the arguments of `run`, by a name for each setting.
        grid: learning rates that were tried for each setting; empty where all have one rate.
        grids: the same for settings that need others, by name.
        aim: of a record, what a good rate makes high.
        untuned: settings whose rate is given.
        seeds: that decide.
    """

    run: Callable[..., Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, Any]]
    grid: tuple[float, ...] = ()
    grids: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    aim: Callable[[Mapping[str, Any]], float] = lambda record: record["accuracy"]
    untuned: tuple[str, ...] = ()
    seeds: tuple[int, ...] = tuple(range(200, 208))

    def rates(self, name: str) -> tuple[float, ...]:
        """Return the rates that are tried for a setting; none where its rate is given."""
        return () if name in self.untuned else self.grids.get(name, self.grid)

    def tune(self) -> dict[str, dict[str, float]]:
        """Return the mean aim of each setting at each rate of the grid."""
        return {
            name: {
                str(rate): float(
                    np.mean(
                        [
                            self.aim(self.run(seed=seed, **{**setting, "rate": rate}))
                            for seed in TUNING_SEEDS
                        ]
                    )
                )
                for rate in self.rates(name)
            }
            for name, setting in self.settings.items()
            if self.rates(name)
        }


TUNING_SEEDS = 100, 101


def best_rates(tuning: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return for each setting the rate of the highest mean; of two equal, the smaller."""
    return {
        name: float(max(means, key=lambda rate: (round(means[rate], 9), -float(rate))))
        for name, means in tuning.items()
    }


@functools.cache
def standardised():
    """Return the digits as rows: less the mean of all pixels, divided by their deviation."""
    data = digits().flat
    mean, deviation = data.x_train.mean(), data.x_train.std()
    x_train, x_test = ((x - mean) / deviation for x in (data.x_train, data.x_test))
    return data._replace(x_train=x_train, x_test=x_test)


def batch_norm(channels, momentum=0.9):
    """Make the library's layer, with a memory of about ten batches."""
    return BatchNorm(channels, momentum=momentum)


class Norm:
    """Standardise by halves, or in parts of a batch, or with noise put on top.

    Args:
        channels: C.
        centre: whether the mean is subtracted.
        divide: whether the deviation, or without `centre` the root mean square, divides.
        ghost: how many examples share statistics; None for all.
        noise: in training each channel is multiplied by exp(noise / 2 * z) and moved by noise * z',
            with new Gaussian z and z' at every call.
        each: the same for noise that each value of each example gets besides, of its own.
        rng: for the noise.
        epsilon: guard inside the root.
    """

    def __init__(
        self,
        channels,
        *,
        centre=True,
        divide=True,
        ghost=None,
        noise=0.0,
        each=0.0,
        rng=None,
        epsilon=1e-3,
    ):
        self.centre, self.divide, self.epsilon = centre, divide, epsilon
        self.ghost, self.noise, self.each, self.rng = ghost, noise, each, rng
        self.parameters = {"gamma": np.ones(channels), "beta": np.zeros(channels)}
        self.gradients = {}
        self.moving_mean, self.moving_variance = np.zeros(channels), np.ones(channels)

    def __call__(self, x, *, training):
        """Normalise `(N, ..., C)`; in inference by the moving statistics, which nothing moves."""
        self.x_hat = self._by_batch(x) if training else self._by_memory(x)
        self.scale = np.ones(x.shape[-1])
        y = self.x_hat * self.parameters["gamma"] + self.parameters["beta"]
        if training and self.noise + self.each:
            draws = self.rng.normal(
                0, self.noise, (2, *(1,) * (x.ndim - 1), x.shape[-1])
            )
            if self.each:
                draws = draws + self.rng.normal(0, self.each, (2, *x.shape))
            self.scale = np.exp(draws[0] / 2)
            y = y * self.scale + draws[1]
        return y

    def backward(self, grad_y):
        """Return grad_x of the last call, which was in training."""
        rows = tuple(range(grad_y.ndim - 1))
        grad_y = grad_y * self.scale
        self.gradients["gamma"] = (grad_y * self.x_hat).sum(axis=rows)
        self.gradients["beta"] = grad_y.sum(axis=rows)
        grad, axes = self._cut(grad_y * self.parameters["gamma"])
        x_hat, _ = self._cut(self.x_hat)
        if self.divide:
            along = np.mean(grad * x_hat, axis=axes, keepdims=True)
            grad = (grad - x_hat * along) / self.root
        if self.centre:
            grad = grad - grad.mean(axis=axes, keepdims=True)
        return grad.reshape(grad_y.shape)

    def _by_batch(self, x):
        shape = x.shape
        x, axes = self._cut(x)
        if self.centre:
            x = x - x.mean(axis=axes, keepdims=True)
        square = np.mean(x**2, axis=axes, keepdims=True)
        self.root = np.sqrt(square + self.epsilon) if self.divide else 1.0
        return (x / self.root).reshape(shape)

    def _by_memory(self, x):
        """Normalise by what `recalibrate` left."""
        mean, square = self.moving_mean, self.moving_variance
        if not self.centre:
            mean, square = 0.0, square + mean**2
        return (x - mean) / (np.sqrt(square + self.epsilon) if self.divide else 1.0)

    def _cut(self, x):
        """Return the array in its parts, and the axes over which each part is averaged."""
        if self.ghost:
            parts = x.reshape(-1, self.ghost, *x.shape[1:])
            return parts, tuple(range(1, x.ndim))
        return x, tuple(range(x.ndim - 1))


def learn(network, *, seed, rate, steps, batch=64, data=None, after=None):
    """Train on the digits by plain gradient descent; a run that overflows goes on in silence."""
    data = data or standardised()
    loss, options = softmax_cross_entropy, {"rate": rate, "steps": steps}
    with np.errstate(all="ignore"):
        train(
            network,
            data.x_train,
            data.y_train,
            loss,
            **options,
            batch=batch,
            seed=seed,
            after=after,
        )
    return network


def score(network, data=None):
    """Return the share of test digits that are right, with exact population statistics."""
    data = data or standardised()
    with np.errstate(all="ignore"):
        recalibrate(network, [data.x_train])
        return float(accuracy(network, data.x_test, data.y_test))


def steps_to(network, target, *, seed, rate, steps, batch=60, data=None):
    """Train, and return the first step at which the score is `target`; `steps` if none is.

    It looks every ten steps, later every fifty.
    """
    reached = []

    def look(step):
        due = step % (10 if step < 200 else 50) == 0
        if due and score(network, data) >= target:
            reached.append(step)
            raise StopIteration

    try:
        options = {"rate": rate, "steps": steps, "batch": batch}
        learn(network, seed=seed, **options, data=data, after=look)
    except StopIteration:
        pass
    return reached[0] if reached else steps
