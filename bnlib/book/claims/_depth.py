"""How deep, and how gradients travel: down through layers, and back through time."""

import numpy as np

from bnlib import BatchNorm
from bnlib.book.claims._base import Experiment, Norm, batch_norm, learn, standardised
from bnlib.book.network import Activation, Dense, Network, accuracy, dense


class Residual:
    """y = x + inner(x)."""

    def __init__(self, inner):
        self.inner, self.parameters, self.gradients = inner, {}, {}

    def __call__(self, x, *, training):
        for_each = x
        for layer in self.inner:
            for_each = layer(for_each, training=training)
        return x + for_each

    def backward(self, grad):
        inner = grad
        for layer in reversed(self.inner):
            inner = layer.backward(inner)
        return grad + inner


def deep(seed, activation, depth, norm=True):
    """Train a deep dense network of 50 units a layer; score the test digits as one batch."""
    sizes = [64, *[50] * depth, 10]
    network = dense(sizes, activation, seed=seed, norm=batch_norm if norm else None)
    learn(network, seed=seed, rate=0.1, steps=120)
    data = standardised()
    logits = network(data.x_test, training=True)
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == data.y_test))}


DEEP = Experiment(
    deep,
    {
        "sigmoid 20, none": {"activation": "sigmoid", "depth": 20, "norm": False},
        "sigmoid 20, batch norm": {"activation": "sigmoid", "depth": 20},
        "relu 20, batch norm": {"activation": "relu", "depth": 20},
        "relu 50, batch norm": {"activation": "relu", "depth": 50},
    },
)


def gradients(seed, activation, norm, residual=False, depth=40, units=100):
    """Measure before training the factor by which the gradient grows per layer going down."""
    rng, data = np.random.default_rng(seed), standardised()
    gain = 2 if activation == "relu" else 1
    first = Dense(64, units, rng)
    blocks = []
    for _ in range(depth):
        kernel = Dense(units, units, rng, deviation=(gain / units) ** 0.5)
        blocks.append(
            [kernel, *([Norm(units)] if norm else []), Activation(activation)]
        )
    if residual:
        layers = [Residual(block) for block in blocks]
    else:
        layers = [layer for block in blocks for layer in block]
    x = first(data.x_train[:128], training=True)
    for layer in layers:
        x = layer(x, training=True)
    grad, sizes = rng.normal(0, 1, x.shape), []
    for layer in reversed(layers):
        grad = layer.backward(grad)
        if isinstance(layer, Residual | Dense):
            sizes.append(np.sqrt(np.mean(grad**2)))
    low, high = sizes[9], sizes[-1]
    return {
        "growth": float((high / low) ** (1 / (len(sizes) - 10))),
        "all layers": float(high / sizes[0]),
    }


GRADIENTS = Experiment(
    gradients,
    {
        "sigmoid, none": {"activation": "sigmoid", "norm": False},
        "sigmoid, batch norm": {"activation": "sigmoid", "norm": True},
        "tanh, batch norm": {"activation": "tanh", "norm": True},
        "relu, none": {"activation": "relu", "norm": False},
        "relu, batch norm": {"activation": "relu", "norm": True},
        "relu, batch norm, skips": {
            "activation": "relu",
            "norm": True,
            "residual": True,
        },
    },
)


class Recurrent:
    """h = tanh(norm(x_t @ input) + norm(h @ hidden)) over the rows of an image; gives the last h.

    Args:
        units: C.
        rng: a `numpy.random.Generator`.
        where: the norms: "" for none, "input", or "both".
        each: whether each time has statistics of its own in inference; else all share those of the
            whole sequence.
    """

    def __init__(self, inputs, units, rng, *, where="", times=8, gamma=1.0, each=True):
        self.parameters = {
            "input": rng.normal(0, inputs**-0.5, (inputs, units)),
            "hidden": rng.normal(0, units**-0.5, (units, units)),
            "bias": np.zeros(units),
        }
        self.norms, self.each, self.times = {}, each, times
        for name in {"": [], "input": ["input"], "both": ["input", "hidden"]}[where]:
            self.parameters[f"gamma {name}"] = np.full(units, gamma)
            self.norms[name] = [
                BatchNorm(units, scale=False, center=False, momentum=0.9)
                for _ in range(times)
            ]
        self.gradients = {}

    def __call__(self, x, *, training, alone=False):
        """Map `(N, T, D)` to `(N, C)`."""
        p, h = self.parameters, np.zeros((len(x), len(self.parameters["bias"])))
        self._seen, self._x = [], x
        for t in range(self.times):
            sums = {"input": x[:, t] @ p["input"], "hidden": h @ p["hidden"]}
            hats = {}
            for name, norms in self.norms.items():
                if name == "hidden" and t == 0:
                    continue
                norm = norms[t]
                hats[name] = norm(sums[name], training=training)
                sums[name] = hats[name] * p[f"gamma {name}"]
            before, h = h, np.tanh(sums["input"] + sums["hidden"] + p["bias"])
            self._seen.append((before, h, hats))
        return h

    def share(self):
        """Let all times use the mean of their statistics, as one layer called at each would."""
        for name, norms in self.norms.items():
            used = norms[1:] if name == "hidden" else norms
            values = [norm.population.value() for norm in used]
            mean = np.mean([v.mean for v in values], axis=0)
            square = np.mean([v.variance + v.mean**2 for v in values], axis=0)
            for norm in used:
                state = norm.population.state()
                norm.population.restore(
                    state | {"mean": mean, "variance": square - mean**2}
                )

    def backward(self, grad):
        """Propagate through time; no gradient goes to the images."""
        p = self.parameters
        self.gradients = {name: np.zeros_like(value) for name, value in p.items()}
        g = self.gradients
        for t in reversed(range(self.times)):
            before, h, hats = self._seen[t]
            grad = grad * (1 - h**2)
            g["bias"] += grad.sum(axis=0)
            parts = {"input": grad, "hidden": grad}
            for name, hat in hats.items():
                g[f"gamma {name}"] += (grad * hat).sum(axis=0)
                parts[name] = self.norms[name][t].backward(grad * p[f"gamma {name}"])
            g["input"] += self._x[:, t].T @ parts["input"]
            g["hidden"] += before.T @ parts["hidden"]
            grad = parts["hidden"] @ p["hidden"].T
        return grad


def recurrent(seed, where, longer, gamma=1.0, rate=0.2, steps=200):
    """Train on the digits read row by row, each row `longer` times."""
    rng, data = np.random.default_rng(seed), standardised()
    x, x_test = (
        np.repeat(v.reshape(-1, 8, 8), longer, axis=1)
        for v in (data.x_train, data.x_test)
    )
    cell = Recurrent(8, 30, rng, where=where, gamma=gamma, times=8 * longer)
    network = Network([cell, Dense(30, 10, rng)])
    data = data._replace(x_train=x, x_test=x_test)
    learn(network, seed=seed, rate=rate, steps=steps, data=data)
    each = accuracy(network, x_test, data.y_test)
    cell.share()
    shared = accuracy(network, x_test, data.y_test)
    return {"accuracy": float(each), "shared": float(shared)}


RECURRENT = Experiment(
    recurrent,
    {
        "8 times, none": {"where": "", "longer": 1},
        "8 times, batch norm": {"where": "both", "longer": 1, "gamma": 0.1},
        "24 times, none": {"where": "", "longer": 3},
        "24 times, batch norm": {"where": "both", "longer": 3, "gamma": 0.1},
    },
)
