"""Two tiny networks for sequences, in NumPy: a recurrent layer and an attention block.

Both take a norm, as `bnlib.book.network.dense` does. Chapter 14 reads the digits with them, one row
of pixels after another.
"""

import numpy as np

from bnlib.book.network import Activation, Dense, Network

__all__ = ["Average", "Each", "Attention", "Recurrent", "Residual", "attentive"]


class Recurrent:
    """h_t = tanh(norm_t(x_t V + h_{t-1} W)): one set of weights, and a norm for each time step.

    The norms of all steps share gamma and beta. Those of batch norm remember statistics of their own.
    """

    def __init__(self, inputs, units, steps, rng, *, norm=None, gamma=1.0):
        self.parameters = {
            "input": rng.normal(0, inputs**-0.5, (inputs, units)),
            "hidden": np.linalg.qr(rng.normal(size=(units, units)))[0],
            "bias": np.zeros(units),
        }
        self.gradients, self.norms = {}, []
        if norm:
            del self.parameters["bias"]
            self.norms = [norm(units) for _ in range(steps)]
            shared = self.norms[0].parameters
            if "gamma" in shared:
                shared["gamma"][:] = gamma
            for each in self.norms[1:]:
                for name in shared:
                    if hasattr(each, name):
                        setattr(each, name, shared[name])
                    else:
                        each.parameters[name] = shared[name]
            self.parameters |= shared

    def __call__(self, x, *, training):
        weights, hidden = self.parameters, np.zeros((len(x), len(self.parameters["hidden"])))
        self._x, self._states = x, [hidden]
        for t in range(x.shape[1]):
            total = x[:, t] @ weights["input"] + hidden @ weights["hidden"]
            if self.norms:
                total = self.norms[min(t, len(self.norms)-1)](total, training=training)
            else:
                total = total + weights["bias"]
            hidden = np.tanh(total)
            self._states.append(hidden)
        return hidden

    def backward(self, grad_y):
        weights, x = self.parameters, self._x
        self.gradients = {name: np.zeros_like(value) for name, value in weights.items()}
        grad_x = np.empty_like(x)
        for t in reversed(range(x.shape[1])):
            grad = grad_y * (1 - self._states[t + 1] ** 2)
            if self.norms:
                grad = self.norms[t].backward(grad)
                for name, value in self.norms[t].gradients.items():
                    self.gradients[name] += value
            else:
                self.gradients["bias"] += grad.sum(axis=0)
            self.gradients["input"] += x[:, t].T @ grad
            self.gradients["hidden"] += self._states[t].T @ grad
            grad_x[:, t] = grad @ weights["input"].T
            grad_y = grad @ weights["hidden"].T
        return grad_x


class Each(Dense):
    """The same dense layer for each token: `(N, T, D)` to `(N, T, C)`."""

    def __call__(self, x, *, training):
        y = super().__call__(x.reshape(-1, x.shape[-1]), training=training)
        return y.reshape(*x.shape[:-1], -1)

    def backward(self, grad_y):
        grad = super().backward(grad_y.reshape(-1, grad_y.shape[-1]))
        return grad.reshape(*grad_y.shape[:-1], -1)


class Places:
    def __init__(self, tokens, width, rng):
        self.parameters, self.gradients = {"place": rng.normal(0, 0.3, (tokens, width))}, {}

    def __call__(self, x, *, training):
        return x + self.parameters["place"][: x.shape[1]]

    def backward(self, grad_y):
        self.gradients = {"place": np.zeros_like(self.parameters["place"])}
        self.gradients["place"][: grad_y.shape[1]] = grad_y.sum(axis=0)
        return grad_y


class Attention:
    """Each token takes a weighted mean of what all tokens offer."""

    def __init__(self, width, rng):
        self.parts = {name: Each(width, width, rng, bias=None) for name in ("query", "key", "value", "out")}
        self.parameters = {n: p.parameters["kernel"] for n, p in self.parts.items()}
        self.gradients, self._scale = {}, width**-0.5

    def __call__(self, x, *, training):
        q, k, v = (self.parts[n](x, training=training) for n in ("query", "key", "value"))
        scores = q @ k.swapaxes(1, 2) * self._scale
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        self._saved = q, k, v, weights
        return self.parts["out"](weights @ v, training=training)

    def backward(self, grad_y):
        q, k, v, weights = self._saved
        grad = self.parts["out"].backward(grad_y)
        grad_v = weights.swapaxes(1, 2) @ grad
        grad_weights = grad @ v.swapaxes(1, 2)
        grad_scores = weights * (grad_weights - (weights * grad_weights).sum(axis=-1, keepdims=True))
        grad_scores = grad_scores * self._scale
        grads = {"query": grad_scores @ k, "key": grad_scores.swapaxes(1, 2) @ q, "value": grad_v}
        grad_x = sum(self.parts[n].backward(g) for n, g in grads.items())
        self.gradients = {n: p.gradients["kernel"] for n, p in self.parts.items()}
        return grad_x


class Average:
    def __init__(self):
        self.parameters, self.gradients = {}, {}

    def __call__(self, x, *, training):
        self._tokens = x.shape[1]
        return x.mean(axis=1)

    def backward(self, grad_y):
        return np.repeat(grad_y[:, None] / self._tokens, self._tokens, axis=1)


class Residual:
    def __init__(self, layers):
        self.layers, self.gradients = layers, {}
        self.parameters = {f"{i} {n}": v for i, l in enumerate(layers) for n, v in l.parameters.items()}

    def __call__(self, x, *, training):
        y = x
        for layer in self.layers:
            y = layer(y, training=training)
        return x + y

    def backward(self, grad_y):
        grad = grad_y
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        self.gradients = {f"{i} {n}": v for i, l in enumerate(self.layers) for n, v in l.gradients.items()}
        return grad_y + grad


def attentive(norm, seed=0, *, tokens=8, inputs=8, width=32, blocks=2):
    rng = np.random.default_rng(seed)
    layers = [Each(inputs, width, rng), Places(tokens, width, rng)]
    def made():
        return [norm(width)] if norm else []
    for _ in range(blocks):
        layers.append(Residual([*made(), Attention(width, rng)]))
        layers.append(Residual([*made(), Each(width, 2 * width, rng, deviation=(2/width)**.5), Activation("relu"), Each(2 * width, width, rng)]))
    return Network([*layers, *made(), Average(), Dense(width, 10, rng)])
