"""An adapter for Equinox, on JAX."""

import io
from functools import partial

import numpy as np

from bnlib.conformance._adapter import Setting
from bnlib.conformance.adapters._jax import OnJax

BATCH = "batch"  # the name of the axis of examples


class Equinox(OnJax):
    """`equinox.nn.BatchNorm`.

    Statistics that are put in are for inference: its averages forget where they start.

    Args:
        setting: what a check asks for.
        mode: "ema", its default, or "batch".
    """

    debiased = True

    def __init__(self, setting: Setting, mode: str = "ema") -> None:
        import equinox

        if setting.axis % setting.ndim != 1:
            raise NotImplementedError("channels last is not Equinox's layout")
        super().__init__(setting)
        self.equinox, self.mode = equinox, mode
        self.known = None  # what was put in
        self.kept = self.jax.tree.leaves(self._make()[1])

    def _make(self, axis_name=BATCH):
        """Return a layer and its initial state."""
        setting = self.setting
        asked = {"eps": setting.epsilon, "momentum": setting.momentum}
        asked |= {"mode": self.mode, "dtype": self.wide, "axis_name": axis_name}
        make = self.equinox.nn.make_with_state(self.equinox.nn.BatchNorm)
        return make(setting.channels, **asked)

    def _with(self, kept, axis_name=BATCH):
        """Return a layer, and a state that holds what was kept."""
        layer, fresh = self._make(axis_name)
        return layer, self.jax.tree.unflatten(self.jax.tree.structure(fresh), kept)

    def _apply(self, x, gamma, beta, kept, axis_name=BATCH, **options):
        layer, state = self._with(kept, axis_name)
        affine = (gamma, beta)
        layer = self.equinox.tree_at(lambda v: (v.weight, v.bias), layer, affine)
        both = {"in_axes": (0, None), "out_axes": (0, None)}
        call = self.jax.vmap(partial(layer, **options), axis_name=BATCH, **both)
        y, new = call(x, state)
        return y, self.jax.tree.leaves(new)

    def _train(self, x, gamma, beta, axis_name=None):
        self.known = None
        names = (BATCH, axis_name) if axis_name else BATCH
        return self._apply(x, gamma, beta, self.kept, names)

    def _infer(self, x):
        return self._apply(x, *self.vectors, self._used(), inference=True)[0]

    def _used(self):
        return self.kept if self.known is None else self.known

    def state(self):
        """Return what inference would take."""
        layer, state = self._with(self._used())
        weight = 1.0
        if self.mode == "batch" and state.get(layer.batch_counter) > 0:
            weight -= self.setting.momentum ** int(state.get(layer.batch_counter))
        return tuple(np.array(v) / weight for v in state.get(self._place(layer)))

    def _place(self, layer):
        return getattr(layer, f"{self.mode}_state_index")

    def set_state(self, moving_mean, moving_variance):
        """Keep statistics for inference."""
        layer, state = self._with(self.jax.tree.leaves(self._make()[1]))
        values = tuple(map(self._wide, (moving_mean, moving_variance)))
        self.known = self.jax.tree.leaves(state.set(self._place(layer), values))

    def reloaded(self):
        """Go through Equinox's format of files."""
        file = io.BytesIO()
        self.equinox.tree_serialise_leaves(file, (self.vectors, self.kept))
        file.seek(0)
        other = type(self)(self.setting, self.mode)
        like = other.vectors, other.kept
        loaded = self.equinox.tree_deserialise_leaves(file, like)
        other.vectors, other.kept = loaded
        return other
