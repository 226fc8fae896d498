"""Measure what batch norm buys, for chapter 13, and store what each run reached.

    python benchmarks/experiments.py [PART ...] [--json bnlib/book/stored/experiments.json]

Everything is float64, on the 8x8 digits, by plain gradient descent. It takes about five minutes of
one core. The parts are the functions below whose names begin with part_.
"""

import itertools
import os
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bnlib import BatchNorm
from bnlib.book import network
from bnlib.book.data import digits
from bnlib.book.experiments import store_parts, sweep
from bnlib.book.network import (
    Activation,
    Conv2D,
    Dense,
    Network,
    accuracy,
    dense,
    recalibrate,
    softmax_cross_entropy,
    squared_error,
    train,
)

EPOCH = 21  # steps of 64 digits
network.ACTIVATIONS["elu"] = (
    lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    lambda y: np.where(y > 0, 1.0, y + 1),
)


def remember(channels):
    """Make the batch norm layer of all runs."""
    return BatchNorm(channels, momentum=0.9)


def data_of(pixels):
    """Return the digits with pixels "raw" (0 to 16), "divided" by 16, or "standardised"."""
    data = digits().flat
    shift = data.x_train.mean() if pixels == "standardised" else 0
    by = {"raw": 1, "divided": 16, "standardised": data.x_train.std()}[pixels]
    x_train, x_test = ((x - shift) / by for x in (data.x_train, data.x_test))
    return data._replace(x_train=x_train, x_test=x_test)


def rounded(values):
    return np.round(np.asarray(values, float), 4).tolist()


def score(net, data, *, training=False):
    """Return the held-out accuracy; with `training`, by the test batch's own statistics."""
    return accuracy(net, data.x_test, data.y_test, training=training, update=False)


def first_at(accuracies, target, every):
    """Return the first step at which the target was reached, or None."""
    found = np.flatnonzero(np.array(accuracies) >= target)
    return int(found[0]) * every if len(found) else None


# Two networks of R2RT


def r2rt(seed, pixels, norm, factor=1, steps=1000, every=10, neurons=False, data=None):
    """Train R2RT's network, and look now and then with the test batch's own statistics."""
    data = data or data_of(pixels)
    sizes = [data.x_train.shape[1], 100, 100, 10]
    net = dense(
        sizes, "sigmoid", seed=seed, norm=remember if norm else None, deviation=1
    )
    seen, units = [], []

    def look(step):
        if step % every == 0:
            seen.append(score(net, data, training=True))
        if neurons and step % 50 == 0:
            second = 4 if norm else 2  # what enters the sigmoids of layer 2
            z = net.outputs(data.x_test, training=True, update=False)[second][:, :5]
            beta = (net.norms[1].beta if norm else np.zeros(5))[:5]
            units.append(
                rounded([z.mean(axis=0), *np.percentile(z, [15, 50, 85], axis=0), beta])
            )

    options = {"rate": 0.6 * factor, "steps": steps, "batch": 60, "seed": seed}
    train(net, data.x_train, data.y_train, softmax_cross_entropy, **options, after=look)
    found = {"curve": rounded(seen[:: 50 // every]), "last": rounded(seen[-1])}
    found |= {f"to {t}": first_at(seen, t / 100, every) for t in (80, 90, 95)}
    return found | ({"neurons": units} if neurons else {})


def part_r2rt():
    both = itertools.product(("raw", "divided"), (False, True))
    settings = {f"{p} {n}": {"pixels": p, "norm": n} for p, n in both}
    records = sweep(told(r2rt), settings, range(6), progress=True)
    shown = {name: setting | {"neurons": True} for name, setting in settings.items()}
    return {"runs": records, "neurons": sweep(told(r2rt), shown, [0])}


def part_rates():
    three = itertools.product((1, 5, 30), (False, True))
    settings = {
        f"{f} {n}": {"pixels": "raw", "norm": n, "factor": f, "steps": 600}
        for f, n in three
    }
    return sweep(told(r2rt), settings, range(6), progress=True)


# Steps to a target, in settings old and sound


def reach(
    seed,
    sizes,
    activation,
    norm,
    rate,
    deviation=None,
    pixels="standardised",
    steps=200,
    batch=64,
):
    """Train, and look every 5 steps as in inference."""
    data = data_of(pixels)
    net = dense(
        sizes,
        activation,
        seed=seed,
        norm=remember if norm else None,
        deviation=deviation,
    )
    seen = []

    def look(step):
        if step % 5 == 0:
            seen.append(score(net, data))

    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    train(net, data.x_train, data.y_train, softmax_cross_entropy, **options, after=look)
    found = {f"to {t}": first_at(seen, t / 100, 5) for t in (90, 95)}
    found["last"] = rounded(seen[-1])
    return found | ({"curve": rounded(seen[::2])} if steps > 1000 else {})


PLATEAU = {
    "sizes": [64, 100, 100, 100, 10],
    "activation": "sigmoid",
    "deviation": 0.1,
    "pixels": "divided",
    "rate": 0.6,
    "steps": 1500,
    "batch": 60,
}
SOUND = {
    "tanh, 2 layers": {"sizes": [64, 100, 100, 10], "activation": "tanh"},
    "relu, 2 layers": {"sizes": [64, 100, 100, 10], "activation": "relu"},
}
SMALL = {"sizes": [64, 100, 100, 10], "activation": "relu", "rate": 0.01, "steps": 600}
SOUND_RATES = [0.1, 0.2, 0.4, 0.8, 1.6]


def part_plateau():
    settings = {f"plateau {n}": PLATEAU | {"norm": n} for n in (False, True)}
    settings |= {f"small rate {n}": SMALL | {"norm": n} for n in (False, True)}
    for name, setting in SOUND.items():
        for norm, rate in itertools.product((False, True), SOUND_RATES):
            settings[f"{name} {norm} {rate}"] = setting | {"norm": norm, "rate": rate}
    return sweep(told(reach), settings, range(6), progress=True)


# Initial scale, and the rate


def start(seed, scale, rate, norm, steps=210):
    """Train three tanh layers from `scale` times sound weights."""
    data = data_of("standardised")
    net = dense(
        [64, 30, 30, 30, 10], "tanh", seed=seed, norm=remember if norm else None
    )
    for layer in [each for each in net.layers if isinstance(each, Dense)][:-1]:
        layer.parameters["kernel"] *= scale
    options = {"rate": rate, "steps": steps, "batch": 64, "seed": seed}
    train(net, data.x_train, data.y_train, softmax_cross_entropy, **options)
    return {"last": rounded(score(net, data))}


SCALES = [1 / 16, 1 / 4, 1, 4, 16]
START_RATES = [0.02, 0.1, 0.5, 2.5, 12.5]


def part_start():
    grid = itertools.product((False, True), SCALES, START_RATES)
    settings = {f"{n} {s} {r}": {"scale": s, "rate": r, "norm": n} for n, s, r in grid}
    return sweep(told(start), settings, range(5), progress=True)


# He, ELU and batch norm


def elu(seed, depth, he, norm, rate, epochs, activation="elu"):
    """Train `depth` layers of 50 units, from He's weights or from deviation 0.05."""
    data, seen = data_of("standardised"), []
    net = dense(
        [64, *depth * [50], 10],
        activation,
        seed=seed,
        norm=remember if norm else None,
        deviation=None if he else 0.05,
    )
    if he and activation != "relu":
        for layer in [each for each in net.layers if isinstance(each, Dense)][:-1]:
            layer.parameters["kernel"] *= 2**0.5

    def look(step):
        if step % EPOCH == 0:
            seen.append(score(net, data))

    options = {"rate": rate, "steps": EPOCH * epochs, "batch": 64, "seed": seed}
    with np.errstate(all="ignore"):
        train(
            net,
            data.x_train,
            data.y_train,
            softmax_cross_entropy,
            **options,
            after=look,
        )
    return {"curve": rounded(seen), "last": rounded(seen[-1])}


def part_elu():
    settings = {
        f"start {he} {n} {r}": {
            "depth": 5,
            "he": he,
            "norm": n,
            "rate": r,
            "epochs": 25,
        }
        for he, n, r in itertools.product((False, True), (False, True), (0.1, 0.4))
    }
    for depth, n, r in itertools.product((1, 2, 4, 8), (False, True), (0.1, 0.4)):
        settings[f"depth {depth} {n} {r}"] = {
            "depth": depth,
            "he": True,
            "norm": n,
            "rate": r,
            "epochs": 10,
        }
    return sweep(told(elu), settings, range(6), progress=True)


# Before or after the activation, and the pooling


def place(seed, activation, where, rate, epochs=10):
    """Train four layers of 50 units; look at loss and accuracy, train and test, each epoch."""
    data, seen = data_of("standardised"), []
    options = {} if where == "none" else {"norm": remember, "place": where}
    net = dense([64, 50, 50, 50, 50, 10], activation, seed=seed, **options)

    def look(step):
        if step % EPOCH == 0:
            pairs = [(data.x_train, data.y_train), (data.x_test, data.y_test)]
            both = [(net(x, training=False), y) for x, y in pairs]
            losses = [softmax_cross_entropy(z, y)[0] for z, y in both]
            seen.append(losses + [np.mean(z.argmax(axis=1) == y) for z, y in both])

    options = {"rate": rate, "steps": EPOCH * epochs, "batch": 64, "seed": seed}
    with np.errstate(all="ignore"):
        train(
            net,
            data.x_train,
            data.y_train,
            softmax_cross_entropy,
            **options,
            after=look,
        )
    names = ("train loss", "test loss", "train", "test")
    found = dict(zip(names, map(rounded, zip(*seen, strict=True)), strict=True))
    return found | {"last": found["test"][-1]}


def part_place():
    four = itertools.product(
        ("relu", "elu", "tanh", "sigmoid"), ("none", "before", "after"), (0.1, 0.5)
    )
    settings = {
        f"{a} {w} {r}": {"activation": a, "where": w, "rate": r} for a, w, r in four
    }
    return sweep(told(place), settings, range(8), progress=True)


class Pool:
    """Pool 2 x 2 places, by their maximum or mean."""

    def __init__(self, kind):
        self.parameters, self.gradients, self.kind = {}, {}, kind

    def __call__(self, x, *, training):
        """Map `(N, H, W, C)` to half the height and width."""
        n, h, w, c = x.shape
        parts = x.reshape(n, h // 2, 2, w // 2, 2, c)
        if self.kind == "mean":
            self._share = np.broadcast_to(0.25, parts.shape)
            return parts.mean(axis=(2, 4))
        y = parts.max(axis=(2, 4))
        hit = parts == y[:, :, np.newaxis, :, np.newaxis]
        self._share = hit / hit.sum(axis=(2, 4), keepdims=True)
        return y

    def backward(self, grad_y):
        """Return grad_x."""
        n, h, w, c = grad_y.shape
        grad = grad_y[:, :, np.newaxis, :, np.newaxis] * self._share
        return grad.reshape(n, 2 * h, 2 * w, c)


class Flat:
    """Lay each image out as one row."""

    def __init__(self):
        self.parameters, self.gradients = {}, {}

    def __call__(self, x, *, training):
        """Map `(N, H, W, C)` to rows."""
        self._shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad_y):
        """Return grad_x."""
        return grad_y.reshape(self._shape)


ORDERS = [
    "norm relu pool",
    "pool norm relu",
    "relu norm pool",
    "relu pool norm",
    "relu pool",
]


def pooling(seed, order, kind, rate=0.3, steps=150):
    """Train two convolutions, each followed by what `order` says."""
    data, rng, layers, inputs = digits(), np.random.default_rng(seed), [], 1
    for filters in (8, 16):
        layers.append(Conv2D(inputs, filters, rng, deviation=(2 / 9 / inputs) ** 0.5))
        make = {
            "norm": partial(remember, filters),
            "relu": partial(Activation, "relu"),
            "pool": partial(Pool, kind),
        }
        layers += [make[each]() for each in order.split()]
        inputs = filters
    net = Network([*layers, Flat(), Dense(64, 10, rng)])
    x_train, x_test = (x[..., np.newaxis] / 16 for x in (data.x_train, data.x_test))
    options = {"rate": rate, "steps": steps, "batch": 64, "seed": seed}
    train(net, x_train, data.y_train, softmax_cross_entropy, **options)
    return {"last": rounded(accuracy(net, x_test, data.y_test))}


def part_pooling():
    both = itertools.product(ORDERS, ("max", "mean"))
    settings = {f"{k}: {o}": {"order": o, "kind": k} for o, k in both}
    return sweep(told(pooling), settings, range(6), progress=True)


# At the output, and at the first layer of an encoder


def output(seed, task, normed, batch, rate=0.1, steps=400):
    """Train a classifier, or a regression of the pixels' mean, with batch norm on the output."""
    data = data_of("standardised")
    if task == "regression":
        level = data.x_train.mean(axis=1), data.x_test.mean(axis=1)
        targets = [(y - level[0].mean()) / level[0].std() for y in level]
        targets, loss = [y[:, np.newaxis] for y in targets], squared_error
        rate = rate / 4
    else:
        targets, loss = (data.y_train, data.y_test), softmax_cross_entropy
    net = dense(
        [64, 100, 100, 10 if task != "regression" else 1], seed=seed, norm=remember
    )
    if normed:
        net.layers.append(remember(net.layers[-1].parameters["bias"].size))
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    train(net, data.x_train, targets[0], loss, **options)
    recalibrate(net, np.array_split(data.x_train, 4))
    y = net(data.x_test, training=False)
    found = {"loss": rounded(loss(y, targets[1])[0])}
    return (
        found if task == "regression" else found | {"last": rounded(score(net, data))}
    )


def part_output():
    three = itertools.product(("classes", "regression"), (False, True), (4, 64))
    settings = {
        f"{t} {n} {b}": {"task": t, "normed": n, "batch": b} for t, n, b in three
    }
    return sweep(told(output), settings, range(6), progress=True)


class Unet:
    """A small encoder and decoder with one skip, for 8 x 8 images: pix2pix in little.

    Args:
        seed: of the weights.
        norms: "none", "all" or "all but the first": where batch norm stands in the encoder and
            decoder. It never stands behind the last layer.
    """

    def __init__(self, seed, norms):
        rng, others = np.random.default_rng(seed), norms != "none"

        def block(inputs, filters, stride, norm):
            deviation = (2 / 9 / inputs) ** 0.5
            bias = None if norm else 0.0
            made = [
                Conv2D(
                    inputs, filters, rng, stride=stride, deviation=deviation, bias=bias
                )
            ]
            return [*made, *([remember(filters)] if norm else []), Activation("relu")]

        self.blocks = [
            block(1, 8, 2, norms == "all"),
            block(8, 16, 2, others),
            block(16, 8, 1, others),
            [Conv2D(16, 1, rng)],
        ]
        self.layers = [layer for each in self.blocks for layer in each]

    @property
    def parameters(self):
        """All arrays, by the number of the layer and their name."""
        pairs = enumerate(self.layers)
        return {(k, n): v for k, each in pairs for n, v in each.parameters.items()}

    @property
    def gradients(self):
        """Their gradients."""
        pairs = enumerate(self.layers)
        return {(k, n): v for k, each in pairs for n, v in each.gradients.items()}

    def __call__(self, x, *, training):
        """Map `(N, 8, 8, 1)` to the same shape."""
        down, bottom, up, last = self.blocks
        h = run(down, x, training)
        deep = doubled(run(bottom, h, training))
        both = np.concatenate([run(up, deep, training), h], axis=-1)
        return run(last, doubled(both), training)

    def backward(self, grad):
        """Return grad_x."""
        down, bottom, up, last = self.blocks
        grad = halved(back(last, grad))
        deep, skipped = grad[..., :8], grad[..., 8:]
        return back(down, skipped + back(bottom, halved(back(up, deep))))


def run(layers, x, training):
    for layer in layers:
        x = layer(x, training=training)
    return x


def back(layers, grad):
    for layer in reversed(layers):
        grad = layer.backward(grad)
    return grad


def doubled(x):
    """Repeat each place of the maps twice each way."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def halved(grad):
    """Sum the gradient over each four places: the backward pass of `doubled`."""
    n, h, w, c = grad.shape
    return grad.reshape(n, h // 2, 2, w // 2, 2, c).sum(axis=(2, 4))


def encoder(seed, norms, batch, rate=0.05, steps=800):
    """Train to give back digits of random brightness; how much of the brightness comes back?"""
    data, rng = digits(), np.random.default_rng(seed)
    x_train, x_test = (
        x[..., np.newaxis] / 16 * rng.uniform(0.2, 1, (len(x), 1, 1, 1))
        for x in (data.x_train, data.x_test)
    )
    net = Network([Unet(seed, norms)])
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    train(net, x_train, x_train, squared_error, **options)
    parts = [x_test[k : k + batch] for k in range(0, 448, batch)]
    y = np.concatenate([net(part, training=True) for part in parts])
    x = np.concatenate(parts)
    levels = [each.mean(axis=(1, 2, 3)) for each in (x, y)]
    left = np.mean((levels[0] - levels[1]) ** 2) / levels[0].var()
    return {
        "error": rounded(np.mean((x - y) ** 2) / x.var()),
        "level": rounded(left),
    }


def part_encoder():
    both = itertools.product(("none", "all but the first", "all"), (1, 8))
    settings = {f"{n} {b}": {"norms": n, "batch": b} for n, b in both}
    return sweep(told(encoder), settings, range(6), progress=True)


# With dropout


class Dropout:
    """Set a share of the values to 0 in training, and enlarge the others to make up for it."""

    def __init__(self, share, rng):
        self.parameters, self.gradients = {}, {}
        self.share, self.rng = share, rng

    def __call__(self, x, *, training):
        """Drop in training, and do nothing in inference."""
        kept = self.rng.random(x.shape) >= self.share if training else True
        self._kept = kept / (1 - self.share) if training else 1.0
        return x * self._kept

    def backward(self, grad_y):
        """Return grad_x."""
        return grad_y * self._kept


def dropout(seed, norm, drops, rate, share=0.5, examples=150, steps=400):
    """Train three ReLU layers on few digits, with dropout behind the layers `drops`."""
    data, rng = data_of("standardised"), np.random.default_rng(seed)
    rows = rng.permutation(len(data.x_train))[:examples]
    x, y = data.x_train[rows], data.y_train[rows]
    layers, inputs = [], 64
    for k in range(3):
        layers.append(Dense(inputs, 100, rng, deviation=(2 / inputs) ** 0.5))
        layers += [remember(100)] if norm else []
        layers.append(Activation("relu"))
        layers += [Dropout(share, np.random.default_rng(100 * seed + k))] * (k in drops)
        inputs = 100
    net = Network([*layers, Dense(inputs, 10, rng)])
    options = {"rate": rate, "steps": steps, "batch": 50, "seed": seed}
    with np.errstate(all="ignore"):
        train(net, x, y, softmax_cross_entropy, **options)
    logits = net(data.x_test, training=False)
    found = {"train": rounded(accuracy(net, x, y)), "last": rounded(score(net, data))}
    found["loss"] = rounded(softmax_cross_entropy(logits, data.y_test)[0])
    if norm:
        kept = [layer.population.value()[1] for layer in net.norms]
        recalibrate(net, [x])
        exact = [layer.population.value()[1] for layer in net.norms]
        pairs = zip(kept, exact, strict=True)
        found["ratio"] = rounded([a.mean() / b.mean() for a, b in pairs])
        found["recalibrated"] = rounded(score(net, data))
    return found


DROPS = {
    "neither": (False, []),
    "dropout behind all": (False, [0, 1, 2]),
    "norm": (True, []),
    "norm, dropout behind all": (True, [0, 1, 2]),
    "norm, dropout behind the last": (True, [2]),
}


def part_dropout():
    settings = {
        f"{name} {rate}": {"norm": norm, "drops": drops, "rate": rate}
        for name, (norm, drops) in DROPS.items()
        for rate in (0.05, 0.2)
    }
    return sweep(told(dropout), settings, range(8), progress=True)


def told(run):
    """Let each record hold its setting's arguments as well."""
    return lambda seed, **setting: setting | run(seed=seed, **setting)


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
