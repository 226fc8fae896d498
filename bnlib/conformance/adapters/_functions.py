"""An adapter for a plain function of x."""

import inspect
from collections.abc import Callable
from typing import Any

from bnlib.conformance._adapter import Adapter, Setting


class Function(Adapter):
    """A function of x that normalises by the batch: training mode, and nothing else.

    Args:
        setting: what a check asks for.
        function: called with x, and by name with whichever it takes of `gamma`, `beta`, `epsilon`
            and `axis`. It returns y, or a tuple that begins with y.
        epsilon: what the function uses, where it takes none.

    >>> from functools import partial
    >>> from bnlib.conformance import check_batch_norm
    >>> def mine(x):
    ...     return (x - x.mean(0)) / (x.var(0) + 1e-3) ** 0.5
    >>> report = check_batch_norm(partial(Function, function=mine), only={"transform"})
    >>> report.worst
    'ok'
    """

    def __init__(
        self, setting: Setting, function: Callable[..., Any], epsilon: float = 1e-3
    ) -> None:
        taken = inspect.signature(function).parameters
        gamma, beta = setting.vectors()
        asked = {"gamma": gamma, "beta": beta}
        asked |= {"epsilon": setting.epsilon, "axis": setting.axis}
        affine = setting.gamma is not None or setting.beta is not None
        if affine and not {"gamma", "beta"} <= set(taken):
            raise NotImplementedError
        if setting.ndim > 2 and setting.axis != -1 and "axis" not in taken:
            raise NotImplementedError
        if "epsilon" not in taken:
            self.epsilon = epsilon
        self.function = function
        self.options = {name: v for name, v in asked.items() if name in taken}

    def forward(self, x, training):
        """Call the function."""
        if not training:
            raise NotImplementedError
        y = self.function(x, **self.options)
        return y[0] if isinstance(y, tuple) else y
