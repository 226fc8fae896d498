"""What a check is, and the tools that all of them use."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bnlib.conformance import _oracle
from bnlib.conformance._adapter import Setting

CHAPTERS = {
    "moments": "part1/02_moments",
    "transform": "part1/03_transform",
    "gradient": "part1/04_gradient",
    "axes": "part1/05_axes",
    "population": "part1/06_population",
    "layer": "part1/07_layer",
    "tf_ops": "part2/09_tf_ops",
    "keras": "part2/10_keras",
    "replicas": "part2/11_replicas",
    "conventions": "part2/12_conventions",
    "shipping": "appendix/shipping",
    "wild": "appendix/wild",
}
CLOSE = 1e-3  # an error of y up to which all is well
BAD = 0.1  # and from which on it is no batch norm
CENTRE = np.array([800.0, -1500.0, 300.0])  # of each channel
SPREAD = np.array([500.0, 2000.0, 1000.0])  # large: epsilon has a check of its own
GAMMA, BETA = np.array([1.5, -0.5, 3.0]), np.array([0.25, 8.0, -2.0])


class Failed(Exception):
    """What a check got, where that is wrong; `level` where it is not the check's own."""

    def __init__(self, got, level=None):
        super().__init__(got)
        self.got, self.level = got, level


class Check(NamedTuple):
    """A check: `run(make)` returns what it got, in words, or raises `Failed`."""

    name: str
    level: str
    expected: str
    meaning: str
    page: str
    run: Callable


def check(chapter, expected, meaning, level="error"):
    """Make a check of a function; it has the function's name."""

    def as_check(run):
        return Check(run.__name__, level, expected, meaning, CHAPTERS[chapter], run)

    return as_check


def checks_of(*modules):
    """Return the checks of modules by name, in their order."""
    found = [v for m in modules for v in vars(m).values() if isinstance(v, Check)]
    return {each.name: each for each in found}


class Make:
    """Make layers by a maker. A layer keeps its setting and the epsilon that it really has."""

    def __init__(self, maker):
        self.maker = maker

    def __call__(self, **changes):
        return self.maker(Setting(3, **changes))

    def best(self, **changes):
        """Make a layer in float64, else in float32; with gamma and beta, else without.

        Returns:
            The layer, and the changes that it took.
        """
        affine = {"gamma": GAMMA, "beta": BETA}
        for dtype in ("float64", "float32"):
            for vectors in (affine, {}):
                asked = {"dtype": dtype} | vectors | changes
                try:
                    call(self(**asked), draw(2, dtype=dtype))
                    return self(**asked), asked
                except NotImplementedError:
                    continue
        raise NotImplementedError


def right(layer, x, known=None, **changes):
    """Return what y must be."""
    setting = Setting(3, **changes)
    return _oracle.batch_norm(x, setting, epsilon_of(layer, setting), known)


def epsilon_of(layer, setting):
    return setting.epsilon if layer.epsilon is None else layer.epsilon


def draw(*shape, seed=0, dtype="float32", axis=-1):
    """Draw a batch with three channels."""
    x = np.random.default_rng(seed).standard_normal((*shape, 3)) * SPREAD + CENTRE
    return np.ascontiguousarray(np.moveaxis(x, -1, axis)).astype(dtype)


def call(layer, x, training=True):
    """Call a layer on a copy of x: only one check is about what it does to x."""
    return layer.forward(x.copy(), training)


def as_wide(y):
    """Return y in long double, to compare other outputs of the same layer with."""
    return np.asarray(y).astype(np.longdouble)


def distance(got, expected):
    """Return the largest difference; infinity where something is not finite."""
    got = np.asarray(got)
    if got.shape != expected.shape:
        raise Failed(f"shape {got.shape}, not {expected.shape}")
    if not got.size:
        return 0.0
    worst = float(np.max(np.abs(got.astype(np.longdouble) - expected)))
    return worst if math.isfinite(worst) else math.inf


def compare(what, got, expected, most, level=None):
    """Fail where the largest difference is more than `most`; return it in words."""
    error = distance(got, expected)
    if error <= most:
        return f"{what} off by {error:.1e}"
    differences = np.abs(np.asarray(got).astype(np.longdouble) - expected)
    place = np.unravel_index(np.nanargmax(_no_nan(differences)), expected.shape)
    values = f"{float(np.asarray(got)[place]):.6g} for {float(expected[place]):.6g}"
    where = ", ".join(map(str, place))
    raise Failed(f"{what} off by {error:.1e}: [{where}] is {values}", level)


def _no_nan(differences):
    return np.where(np.isnan(differences), np.inf, differences)


def graded(what, got, expected):
    """Fail with the level that the size of the error deserves."""
    level = "warning" if distance(got, expected) <= BAD else "error"
    return compare(what, got, expected, CLOSE, level)


def relative(what, got, expected, most):
    """Compare, in parts of the largest expected value."""
    expected = np.asarray(expected, np.longdouble)
    scale = float(np.max(np.abs(expected))) or 1.0
    got = np.asarray(got)
    error = distance(got, expected) / scale
    if error > most:
        shown = ", ".join(f"{float(v):.4g}" for v in np.ravel(got)[:3])
        wanted = ", ".join(f"{float(v):.4g}" for v in np.ravel(expected)[:3])
        raise Failed(f"{what} off by {error:.1e} of its size: {shown} for {wanted}")
    return f"{what} off by {error:.1e} of its size"


def refused(error):
    """Say how a layer refused, in one line."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"refused: {type(error).__name__}: {line[:80]}"
