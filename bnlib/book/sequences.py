"""Two tiny networks for sequences, in NumPy: a recurrent layer and blocks of attention.

Both take a norm, as `bnlib.book.network.dense` does. Chapter 14 reads the digits with them, one row
of pixels after the other.
"""

import numpy as np

from bnlib.book.network import Activation, Dense, Network
from bnlib.layer import BatchNorm
from bnlib.moments import merge_moments, moments

__all__ = [
    "Attention",
    "Average",
    "Each",
    "Places",
    "Recurrent",
    "Residual",
    "attentive",
    "recurrent",
]


class Recurrent:
    """h_t = tanh(norm_t(x_t V + h_(t-1) W)), from h_0 = 0; the last h is the output.

    The norms of all time steps share gamma and beta. Those of batch norm remember statistics of
    their own, one set for each step.

    Args:
        inputs: D.
        units: C.
        steps: T.
        rng: a `numpy.random.Generator`.
        norm: called with the number of units for the norm of each step; None for a bias instead.

    Attributes:
        parameters: `input`, `hidden`, and `bias` or those of the norm.
        gradients: of the last `backward`, with the same names.
        norms: of each step.
    """

    def __init__(self, inputs, units, steps, rng, *, norm=None):
        self.parameters = {
            "input": rng.normal(0, inputs**-0.5, (inputs, units)),
            "hidden": np.linalg.qr(rng.normal(size=(units, units)))[0],
        }
        self.gradients = {}
        self.norms = [norm(units) for _ in range(steps)] if norm else []
        for each in self.norms[1:]:
            _share(self.norms[0], each)
        own = self.norms[0].parameters if norm else {"bias": np.zeros(units)}
        self.parameters |= own

    def totals(self, x, *, training):
        """Yield x_t V + h_(t-1) W of each step, before the norm; `training` as in a call."""
        weights, hidden = self.parameters, np.zeros_like(self.parameters["hidden"][:1])
        hidden = hidden.repeat(len(x), axis=0)
        self._x, self._states = x, [hidden]
        for t in range(x.shape[1]):
            total = x[:, t] @ weights["input"] + hidden @ weights["hidden"]
            yield total
            if self.norms:
                total = self.norms[t](total, training=training)
            hidden = np.tanh(total + weights.get("bias", 0))
            self._states.append(hidden)

    def __call__(self, x, *, training):
        """Map `(N, T, D)` to `(N, C)`, and keep all states for `backward`."""
        for _ in self.totals(x, training=training):
            pass
        return self._states[-1]

    def backward(self, grad_y):
        """Return grad_x: through all steps, from the last to the first."""
        weights, x = self.parameters, self._x
        grads = {name: np.zeros_like(value) for name, value in weights.items()}
        grad_x = np.empty_like(x)
        for t in reversed(range(x.shape[1])):
            grad = grad_y * (1 - self._states[t + 1] ** 2)
            if self.norms:
                grad = self.norms[t].backward(grad)
                for name, value in self.norms[t].gradients.items():
                    grads[name] += value
            else:
                grads["bias"] += grad.sum(axis=0)
            grads["input"] += x[:, t].T @ grad
            grads["hidden"] += self._states[t].T @ grad
            grad_x[:, t] = grad @ weights["input"].T
            grad_y = grad @ weights["hidden"].T
        self.gradients = grads
        return grad_x

    def measure(self, x, *, together=False):
        """Give batch norm the exact statistics of x, step after step.

        Args:
            x: `(N, T, D)`.
            together: whether all steps get one set, those of the values of all steps pooled.

        Returns:
            The `Moments` of each step.
        """
        found = []
        for norm, total in zip(self.norms, self.totals(x, training=False), strict=True):
            found.append(moments(total))
            _restore(norm, found[-1])
        if together:
            for norm in self.norms:
                _restore(norm, merge_moments(found))
        return found


def recurrent(norm=None, seed=0, *, steps=8, inputs=8, units=48, outputs=10):
    """Make a network of a recurrent layer and a dense one.

    Args:
        norm: as in `Recurrent`.
        seed: of the weights, which do not depend on `norm`.
        steps: T.
        inputs: D.
        units: of the recurrent layer.
        outputs: of the dense layer.

    Returns:
        The `Network`; it takes `(N, T, D)`.
    """
    rng = np.random.default_rng(seed)
    first = Recurrent(inputs, units, steps, rng, norm=norm)
    return Network([first, Dense(units, outputs, rng)])


class Each(Dense):
    """A dense layer, the same for each token: `(N, T, D)` to `(N, T, C)`.

    Args: as `Dense`.
    """

    def __call__(self, x, *, training):
        """Map each token."""
        y = super().__call__(x.reshape(-1, x.shape[-1]), training=training)
        return y.reshape(*x.shape[:-1], -1)

    def backward(self, grad_y):
        """Return grad_x."""
        grad = super().backward(grad_y.reshape(-1, grad_y.shape[-1]))
        return grad.reshape(*grad_y.shape[:-1], -1)


class Places:
    """Add to each token a vector that says where it stands, and that is learned.

    Args:
        tokens: T.
        width: C.
        rng: a `numpy.random.Generator`.
    """

    def __init__(self, tokens, width, rng):
        self.parameters = {"place": rng.normal(0, 0.3, (tokens, width))}
        self.gradients = {}

    def __call__(self, x, *, training):
        """Add the vectors; `training` changes nothing here."""
        return x + self.parameters["place"]

    def backward(self, grad_y):
        """Return grad_x."""
        self.gradients = {"place": grad_y.sum(axis=0)}
        return grad_y


class Attention:
    """Each token takes a weighted mean of what all tokens offer: one head.

    Args:
        width: C.
        rng: a `numpy.random.Generator`.
        causal: whether a token sees only itself and those before it.
    """

    def __init__(self, width, rng, *, causal=False):
        names = ("query", "key", "value", "out")
        self._parts = {name: Each(width, width, rng, bias=None) for name in names}
        self.parameters = {n: p.parameters["kernel"] for n, p in self._parts.items()}
        self.gradients, self._scale, self._causal = {}, width**-0.5, causal

    def __call__(self, x, *, training):
        """Map `(N, T, C)` to the same shape; `training` changes nothing here."""
        names = ("query", "key", "value")
        q, k, v = (self._parts[name](x, training=training) for name in names)
        scores = q @ k.swapaxes(1, 2) * self._scale
        if self._causal:
            scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        self._saved = q, k, v, weights
        return self._parts["out"](weights @ v, training=training)

    def backward(self, grad_y):
        """Return grad_x."""
        q, k, v, weights = self._saved
        grad = self._parts["out"].backward(grad_y)
        grad_weights = grad @ v.swapaxes(1, 2)
        grad_weights -= (weights * grad_weights).sum(axis=-1, keepdims=True)
        grad_scores = weights * grad_weights * self._scale
        grad_x = self._parts["query"].backward(grad_scores @ k)
        grad_x += self._parts["key"].backward(grad_scores.swapaxes(1, 2) @ q)
        grad_x += self._parts["value"].backward(weights.swapaxes(1, 2) @ grad)
        self.gradients = {n: p.gradients["kernel"] for n, p in self._parts.items()}
        return grad_x


class Average:
    """The mean of all tokens: `(N, T, C)` to `(N, C)`.

    Attributes:
        parameters: an empty dict.
        gradients: an empty dict.
    """

    def __init__(self):
        self.parameters, self.gradients = {}, {}

    def __call__(self, x, *, training):
        """Average over the tokens; `training` changes nothing here."""
        self._shape = x.shape
        return x.mean(axis=1)

    def backward(self, grad_y):
        """Return grad_x: each token gets an equal part."""
        return np.broadcast_to(grad_y[:, None] / self._shape[1], self._shape)


class Residual:
    """x plus what some layers make of it.

    Args:
        layers: in order.
    """

    def __init__(self, layers):
        self.layers, self.gradients = list(layers), {}
        self.parameters = _named(layer.parameters for layer in self.layers)

    def __call__(self, x, *, training):
        """Add the two ways."""
        y = x
        for layer in self.layers:
            y = layer(y, training=training)
        return x + y

    def backward(self, grad_y):
        """Return grad_x: the sum of both ways."""
        grad = grad_y
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        self.gradients = _named(layer.gradients for layer in self.layers)
        return grad_y + grad


def attentive(norm=None, seed=0, *, tokens=8, inputs=8, width=32, causal=False):
    """Make a network with one block of a transformer: attention, then two dense layers.

    Args:
        norm: called with the width, for the norm before each part of the block and at its end;
            None for a network without.
        seed: of the weights, which do not depend on `norm`.
        tokens: T.
        inputs: D.
        width: of a token inside.
        causal: as in `Attention`.

    Returns:
        The `Network`; it takes `(N, T, D)` and gives logits `(N, 10)`.
    """
    rng = np.random.default_rng(seed)

    def normed(*layers):
        return [norm(width), *layers] if norm else list(layers)

    start = [Each(inputs, width, rng), Places(tokens, width, rng)]
    attention = Residual(normed(Attention(width, rng, causal=causal)))
    wider = Each(width, 2 * width, rng, deviation=(2 / width) ** 0.5)
    narrower = Each(2 * width, width, rng)
    both = Residual(normed(wider, Activation("relu"), narrower))
    end = normed(Average(), Dense(width, 10, rng))
    return Network([*start, attention, both, *end])


def _share(first, other):
    """Let two norms have the same arrays of parameters."""
    for name, value in first.parameters.items():
        if isinstance(other, BatchNorm):
            setattr(other, name, value)
        else:
            other.parameters[name] = value


def _restore(norm, exact):
    norm.population.restore(norm.population.state() | exact._asdict())


def _named(dicts):
    """Join the dicts of several layers, and number the names."""
    return {
        f"{k} {n}": value for k, each in enumerate(dicts) for n, value in each.items()
    }
