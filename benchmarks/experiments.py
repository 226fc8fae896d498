"""Measure what batch norm buys, for chapter 13, and store what each run reached.

    python benchmarks/experiments.py [PART ...] [--json bnlib/book/stored/experiments.json]

Everything is float64, on the 8x8 digits, by plain gradient descent. It takes about twelve minutes
of one core. The parts are the functions below whose names begin with part_. Where networks are
compared at their best rates, the best rate of each has a worse one on either side, but for six
settings that chapter 13 names.
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
GUESSING = {"last": 0.1}
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


def enlarge(net, factor):
    """Multiply the weights of all dense layers but the last."""
    for layer in [each for each in net.layers if isinstance(each, Dense)][:-1]:
        layer.parameters["kernel"] *= factor


def score(net, data, *, training=False):
    """Return the held-out accuracy; with `training`, by the test batch's own statistics."""
    return accuracy(net, data.x_test, data.y_test, training=training, update=False)


def first_at(accuracies, target, every):
    """Return the first step at which the target was reached, or None."""
    found = np.flatnonzero(np.array(accuracies) >= target)
    return int(found[0]) * every if len(found) else None


def watched(net, data, see, every, **options):
    """Train to classify, and return what `see` gives before the first step, and every so often."""
    seen = []

    def look(step):
        if step % every == 0:
            seen.append(see())

    options |= {"loss": softmax_cross_entropy, "after": look}
    with np.errstate(all="ignore"):  # some runs overflow
        train(net, data.x_train, data.y_train, **options)
    return seen


# Two networks of R2RT


def r2rt(seed, pixels, norm, factor=1, steps=1000, every=10, neurons=False, data=None):
    """Train R2RT's network, and look now and then with the test batch's own statistics."""
    data = data or data_of(pixels)
    sizes = [data.x_train.shape[1], 100, 100, 10]
    net = dense(
        sizes, "sigmoid", seed=seed, norm=remember if norm else None, deviation=1
    )

    def see():
        second = 4 if norm else 2  # what enters the sigmoids of layer 2
        z = net.outputs(data.x_test, training=True, update=False)[second][:, :5]
        beta = (net.norms[1].beta if norm else np.zeros(5))[:5]
        return rounded([z.mean(axis=0), *np.percentile(z, [15, 50, 85], axis=0), beta])

    options = {"rate": 0.6 * factor, "steps": steps, "batch": 60, "seed": seed}
    if neurons:
        return {"neurons": watched(net, data, see, 50, **options)}
    seen = watched(net, data, lambda: score(net, data, training=True), every, **options)
    found = {"curve": rounded(seen[:: 50 // every]), "last": rounded(seen[-1])}
    return found | {f"to {t}": first_at(seen, t / 100, every) for t in (80, 90, 95)}


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
    """Train, and look at each step as in inference."""
    data = data_of(pixels)
    norm = remember if norm else None
    net = dense(sizes, activation, seed=seed, norm=norm, deviation=deviation)
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    seen = watched(net, data, lambda: score(net, data), 1, **options)
    found = {f"to {t}": first_at(seen, t / 100, 1) for t in (90, 95)}
    return found | {"last": rounded(seen[-1])}


THREE = {"sizes": [64, 100, 100, 100, 10], "activation": "sigmoid", "batch": 60}
SMALL = {"sizes": [64, 100, 100, 10], "activation": "relu", "rate": 0.01, "steps": 600}
DOUBLED = [0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 9.6, 19.2]
STARTS = [  # pixels and deviation of the weights; steps and rates, without and with batch norm
    ("divided", 0.1, (1500, DOUBLED[2:6]), (150, DOUBLED[:6])),
    ("divided", 0.4, (300, DOUBLED[1:5]), (100, DOUBLED[2:7])),
    ("divided", 0.6, (300, DOUBLED[1:5]), (100, DOUBLED[2:7])),
    ("divided", 0.8, (300, DOUBLED[1:5]), (100, DOUBLED[2:8])),
    ("standardised", 0.2, (300, DOUBLED[1:5]), (100, DOUBLED[1:6])),
    ("standardised", 0.4, (300, DOUBLED[1:5]), (100, DOUBLED[2:7])),
]
SOUND_RATES = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2]


def part_plateau():
    settings = {f"small rate {n}": SMALL | {"norm": n} for n in (False, True)}
    for pixels, deviation, *both in STARTS:
        start = THREE | {"pixels": pixels, "deviation": deviation}
        for norm, (steps, rates) in zip((False, True), both, strict=True):
            for rate in rates:
                setting = start | {"norm": norm, "rate": rate, "steps": steps}
                settings[f"{pixels} {deviation} {norm} {rate}"] = setting
    for name, norm in itertools.product(("tanh", "relu"), (False, True)):
        for rate in SOUND_RATES[norm : 5 + norm]:
            setting = {"sizes": [64, 100, 100, 10], "activation": name}
            settings[f"{name} {norm} {rate}"] = setting | {"norm": norm, "rate": rate}
    lost = GUESSING | {"to 90": None, "to 95": None}
    return sweep(told(reach, lost), settings, range(6), progress=True)


# Initial scale, and the rate


def start(seed, scale, rate, norm, steps=210):
    """Train three tanh layers from `scale` times sound weights."""
    data = data_of("standardised")
    net = dense(
        [64, 30, 30, 30, 10], "tanh", seed=seed, norm=remember if norm else None
    )
    enlarge(net, scale)
    options = {"rate": rate, "steps": steps, "batch": 64, "seed": seed}
    train(net, data.x_train, data.y_train, softmax_cross_entropy, **options)
    return {"last": rounded(score(net, data))}


SCALES = [1 / 16, 1 / 4, 1, 4, 16]
START_RATES = [0.02, 0.1, 0.5, 2.5, 12.5]


def part_start():
    grid = itertools.product((False, True), SCALES, START_RATES)
    settings = {f"{n} {s} {r}": {"scale": s, "rate": r, "norm": n} for n, s, r in grid}
    return sweep(told(start, GUESSING), settings, range(6), progress=True)


# He, ELU and batch norm


def elu(seed, depth, he, norm, rate, epochs=25):
    """Train `depth` layers of 50 units, from He's weights or from deviation 0.05."""
    data, norm = data_of("standardised"), remember if norm else None
    deviation = None if he else 0.05
    sizes = [64, *depth * [50], 10]
    net = dense(sizes, "elu", seed=seed, norm=norm, deviation=deviation)
    if he:
        enlarge(net, 2**0.5)
    options = {"rate": rate, "steps": EPOCH * epochs, "batch": 64, "seed": seed}
    seen = watched(net, data, lambda: score(net, data), EPOCH, **options)
    return {"curve": rounded(seen), "last": rounded(seen[-1])}


ELU_RATES = {  # by depth, and whether from He's weights: without, and with batch norm
    (5, False): ([0.1, 0.2, 0.4, 0.8], [0.025, 0.05, 0.1, 0.2, 0.4]),
    (5, True): ([0.05, 0.1, 0.2, 0.4], [0.1, 0.2, 0.4, 0.8, 1.6]),
    (2, True): ([0.1, 0.2, 0.4, 0.8], [0.1, 0.2, 0.4, 0.8, 1.6]),
    (1, True): ([0.2, 0.4, 0.8, 1.6, 3.2], [0.2, 0.4, 0.8, 1.6, 3.2]),
}


def part_elu():
    settings = {
        f"{depth} {he} {norm} {rate}": {"depth": depth, "he": he, "norm": norm}
        | {"rate": rate}
        for (depth, he), both in ELU_RATES.items()
        for norm, rates in zip((False, True), both, strict=True)
        for rate in rates
    }
    lost = GUESSING | {"curve": 26 * [0.1]}
    return sweep(told(elu, lost), settings, range(6), progress=True)


# Before or after the activation, and the pooling


def place(seed, activation, where, rate, factor=1, epochs=10):
    """Train four layers of 50 units; look at loss and accuracy, train and test, each epoch."""
    data = data_of("standardised")
    options = {} if where == "none" else {"norm": remember, "place": where}
    net = dense([64, 50, 50, 50, 50, 10], activation, seed=seed, **options)
    enlarge(net, factor)

    def see():
        pairs = [(data.x_train, data.y_train), (data.x_test, data.y_test)]
        both = [(net(x, training=False), y) for x, y in pairs]
        losses = [softmax_cross_entropy(z, y)[0] for z, y in both]
        return [*losses, score(net, data)]

    options = {"rate": rate, "steps": EPOCH * epochs, "batch": 64, "seed": seed}
    seen = watched(net, data, see, EPOCH, **options)
    names = ("train loss", "test loss", "test")
    found = dict(zip(names, map(rounded, zip(*seen, strict=True)), strict=True))
    return found | {"last": found["test"][-1]}


PLACE_RATES = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4]


def part_place():
    settings = {}
    for activation in ("relu", "elu", "tanh", "sigmoid"):
        sigmoid = activation == "sigmoid"
        for where in ("none", "before", "after"):
            few = slice(1, 6) if where == "none" else slice(2, 7)
            for rate in PLACE_RATES[slice(0, 8) if sigmoid else few]:
                # without batch norm, the sigmoid needs weights four times as large
                factor = 4 if sigmoid and where == "none" else 1
                settings[f"{activation} {where} {rate}"] = {
                    "activation": activation,
                    "where": where,
                    "rate": rate,
                    "factor": factor,
                }
    lost = GUESSING | dict.fromkeys(("train loss", "test loss"), 11 * [None])
    return sweep(told(place, lost), settings, range(8), progress=True)


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


ORDERS = ["norm relu pool", "pool norm relu", "relu norm pool", "relu pool norm"]
POOL_RATES = [0.1, 0.3, 1, 3]


def pooling(seed, order, kind, rate, steps=150):
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
    with np.errstate(all="ignore"):
        train(net, x_train, data.y_train, softmax_cross_entropy, **options)
    return {"last": rounded(accuracy(net, x_test, data.y_test))}


def part_pooling():
    three = itertools.product(("max", "mean"), ORDERS, POOL_RATES)
    settings = {
        f"{k}: {o} {r}": {"order": o, "kind": k, "rate": r} for k, o, r in three
    }
    return sweep(told(pooling, GUESSING), settings, range(6), progress=True)


# At the output, and at the first layer of an encoder


def output(seed, task, normed, batch, rate, steps=400):
    """Train a classifier, or a regression of the pixels' mean, with batch norm on the output."""
    data = data_of("standardised")
    if task == "regression":
        level = data.x_train.mean(axis=1), data.x_test.mean(axis=1)
        targets = [(y - level[0].mean()) / level[0].std() for y in level]
        targets, loss = [y[:, np.newaxis] for y in targets], squared_error
    else:
        targets, loss = (data.y_train, data.y_test), softmax_cross_entropy
    outputs = 1 if task == "regression" else 10
    net = dense([64, 100, 100, outputs], seed=seed, norm=remember)
    if normed:
        net.layers.append(remember(outputs))
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    with np.errstate(all="ignore"):
        train(net, data.x_train, targets[0], loss, **options)
        recalibrate(net, np.array_split(data.x_train, 4))
        found = loss(net(data.x_test, training=False), targets[1])[0]
    return {"loss": rounded(found) if np.isfinite(found) else None}


OUTPUT_RATES = {  # by task and batch: without, and with batch norm on the output
    ("classes", 64): ([0.4, 0.8, 1.2, 1.6, 2.4, 4.8], [0.4, 0.8, 1.2, 1.6, 2.4, 4.8]),
    ("classes", 4): ([0.025, 0.05, 0.1, 0.2, 0.4], [0.05, 0.1, 0.2, 0.4, 0.8]),
    ("regression", 64): ([0.0125, 0.025, 0.05, 0.1, 0.2], [0.05, 0.1, 0.2, 0.4, 0.8]),
    ("regression", 4): ([0.0125, 0.025, 0.05, 0.1], [0.025, 0.05, 0.1, 0.2, 0.4]),
}


def part_output():
    settings = {
        f"{task} {batch} {normed} {rate}": {"task": task, "normed": normed}
        | {"batch": batch, "rate": rate}
        for (task, batch), both in OUTPUT_RATES.items()
        for normed, rates in zip((False, True), both, strict=True)
        for rate in rates
    }
    lost = {"loss": None}
    return sweep(told(output, lost), settings, range(6), progress=True)


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


def encoder(seed, norms, batch, rate, steps=400):
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


ENCODER_RATES = [0.006, 0.0125, 0.025, 0.05, 0.1]


def part_encoder():
    settings = {
        f"{norms} {batch} {rate}": {"norms": norms, "batch": batch, "rate": rate}
        for norms, batch in itertools.product(
            ("none", "all but the first", "all"), (1, 8)
        )
        for rate in (ENCODER_RATES[:4] if norms == "all" else ENCODER_RATES[1:])
    }
    return sweep(told(encoder, {"level": None}), settings, range(6), progress=True)


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
    found = {"last": rounded(score(net, data))}
    if norm:
        kept = [layer.population.value()[1] for layer in net.norms]
        recalibrate(net, [x])
        exact = [layer.population.value()[1] for layer in net.norms]
        pairs = zip(kept, exact, strict=True)
        found["ratio"] = rounded([a.mean() / b.mean() for a, b in pairs])
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
        for rate in (
            [0.1, 0.2, 0.4, 0.8, 1.6, 3.2] if norm else [0.05, 0.1, 0.2, 0.4, 0.8]
        )
    }
    lost = GUESSING | {"ratio": 3 * [None]}
    return sweep(told(dropout, lost), settings, range(8), progress=True)


def told(run, lost=None):
    """Let each record hold its setting's arguments as well.

    Where the statistics of a batch overflow in a run, `lost` is what it found.
    """

    def measured(seed, **setting):
        try:
            return setting | run(seed=seed, **setting)
        except ValueError:
            if lost is None:
                raise
            return setting | lost

    return measured


if __name__ == "__main__":
    parts = {name[5:]: run for name, run in globals().items() if name[:5] == "part_"}
    store_parts(__file__, parts)
