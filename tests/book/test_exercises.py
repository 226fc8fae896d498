"""Each checker accepts a right answer, and tells each likely wrong one apart."""

import copy
import math
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from bnlib import (
    BatchNorm,
    Cumulative,
    Pooled,
    batch_norm,
    fold,
    merge_moments,
)
from bnlib.book.claims import Claim
from bnlib.book.exercises import axes as on_axes
from bnlib.book.exercises import claims as on_claims
from bnlib.book.exercises import conventions as on_conventions
from bnlib.book.exercises import doctor as on_doctor
from bnlib.book.exercises import experiments as on_experiments
from bnlib.book.exercises import gradient as on_gradient
from bnlib.book.exercises import keras as on_keras
from bnlib.book.exercises import layer as on_layer
from bnlib.book.exercises import moments as on_moments
from bnlib.book.exercises import network as on_network
from bnlib.book.exercises import parameters as on_parameters
from bnlib.book.exercises import population as on_population
from bnlib.book.exercises import replicas as on_replicas
from bnlib.book.exercises import shipping as on_shipping
from bnlib.book.exercises import swapping as on_swapping
from bnlib.book.exercises import tf_ops as on_tf_ops
from bnlib.book.exercises import transform as on_transform
from bnlib.book.exercises import variants as on_variants
from bnlib.book.exercises import wild as on_wild
from bnlib.book.network import Activation, Conv2D, Dense, Network, recalibrate
from bnlib.book.tf_network import PlainNorm
from bnlib.doctor import Fault
from bnlib.variants import weight_norm_backward


def hidden(x, mask, faulty=False):
    """The moments of the rows where mask is True; the fault counts the others as 0."""
    kept = np.where(mask[:, None], x, 0)
    mean = kept.sum(axis=0) / mask.sum()
    away = kept - mean
    away = away if faulty else np.where(mask[:, None], away, 0)
    return mean, (away**2).sum(axis=0) / mask.sum()


def over(x, groups, axes):
    """Normalise over some axes of channels cut in groups."""
    cut = x.reshape(*x.shape[:-1], groups, -1)
    mean, variance = cut.mean(axes, keepdims=True), cut.var(axes, keepdims=True)
    return ((cut - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)


def grouped(x, groups, mixed=False, strided=False):
    """Group norm, or that of channels first where they are last, or of channels that lie apart."""
    n, h, w, c = x.shape
    shape, axes = (n, h * w, groups, c // groups), (1, 3)
    if mixed:
        shape, axes = (n, groups, -1), -1
    if strided:
        shape, axes = (n, h * w, c // groups, groups), (1, 2)
    cut = x.reshape(shape)
    mean, variance = (f(axis=axes, keepdims=True) for f in (cut.mean, cut.var))
    return ((cut - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)


def averaged_variances(mean_a, variance_a, n_a, mean_b, variance_b, n_b):
    n = n_a + n_b
    return (n_a * mean_a + n_b * mean_b) / n, (n_a * variance_a + n_b * variance_b) / n


def backward(grad_y, x, gamma, epsilon, mean=1, variance=1, root=1):
    """The closed form, with factors that switch its parts off."""
    s = np.sqrt(x.var(0) + epsilon)
    x_hat = (x - x.mean(0)) / s
    shift, stretch = grad_y.mean(0), x_hat * (grad_y * x_hat).mean(0)
    grad_x = gamma * s**-root * (grad_y - mean * shift - variance * stretch)
    return grad_x, (grad_y * x_hat).sum(0), grad_y.sum(0)


def spoilt(change):
    """Answer rightly, then change the three gradients."""
    return lambda *a: change(*backward(*a), a[2])


def gamma_forgotten(grad_y, x, gamma, epsilon):
    """The closed form with gamma inside, but for the term of the variance."""
    s = np.sqrt(x.var(0) + epsilon)
    x_hat = (x - x.mean(0)) / s
    grad_gamma, g = (grad_y * x_hat).sum(0), grad_y * gamma
    grad_x = (g - g.mean(0) - x_hat * grad_gamma / len(x)) / s
    return grad_x, grad_gamma, grad_y.sum(0)


def rms(grad_y, x, epsilon, along=1, level=0, root=1, of_x=False):
    """The gradient of RMS norm, with factors on its parts."""
    r = np.sqrt((x**2).mean(1, keepdims=True) + epsilon)
    y = x if of_x else x / r
    shift = level * grad_y.mean(1, keepdims=True)
    stretch = along * y * (grad_y * y).mean(1, keepdims=True)
    return (grad_y - shift - stretch) / r**root


def merged(large, small, multipliers, shifts, alone=None):
    """Three branches as one kernel and bias; `alone` is batch norm alone, as a matrix."""
    kernel = large * multipliers[0]
    alone = np.eye(len(shifts[0])) if alone is None else alone
    kernel[1, 1] += small[0, 0] * multipliers[1] + alone * multipliers[2]
    return kernel, shifts.sum(axis=0)


def test_three_branches_are_one_convolution_at_the_border_too():
    rng = np.random.default_rng(0)
    large, small = rng.normal(size=(3, 3, 3, 3)), rng.normal(size=(1, 1, 3, 3))
    multipliers, shifts = rng.normal(size=(2, 3, 3))
    x = rng.normal(size=(2, 4, 5, 3))
    first, one = (Conv2D(3, 3, rng, bias=None) for _ in range(2))
    first.parameters = {"kernel": large}
    kernel, bias = merged(large, small, multipliers, shifts)
    one.parameters = {"kernel": kernel, "bias": bias}
    outputs = [first(x, training=False), x @ small[0, 0], x]
    expected = sum(
        m * h + s for h, m, s in zip(outputs, multipliers, shifts, strict=True)
    )
    np.testing.assert_allclose(one(x, training=False), expected, rtol=1e-10, atol=1e-12)


def folded_network(
    network, back, change=lambda kernel, bias: (kernel, bias), loosely=False
):
    """Fold each batch norm into a layer up to so many places back, then spoil it."""
    layers = []
    for layer in network.layers:
        places = range(len(layers) - 1, max(len(layers) - 1 - back, -1), -1)
        places = [k for k in places if "kernel" in layers[k].parameters]
        places = [
            k for k in places if loosely or isinstance(layers[k], (Conv2D, Dense))
        ]
        if isinstance(layer, BatchNorm) and places:
            linear = layers[places[0]] = copy.copy(layers[places[0]])
            known = *layer.population.value()[:2], layer.gamma, layer.beta
            old = linear.parameters["kernel"], linear.parameters.get("bias")
            kernel, bias = change(*fold(*old, *known, epsilon=layer.epsilon))
            linear.parameters = {"kernel": kernel, "bias": bias}
        else:
            layers.append(layer)
    return Network(layers)


def folded_in_place(network):
    """Fold rightly, and change the network that was given."""
    answer = folded_network(network, 1)
    network.layers[0].parameters["kernel"] *= 2
    return answer


def folded_into_itself(network):
    """Fold rightly, and write the kernels of the result into the network that was given."""
    answer = folded_network(network, 1)
    network.layers[:] = answer.layers
    return answer


def forgetting_afterwards(network):
    """Fold rightly, and reset a batch norm layer that no test of the outputs would miss."""
    answer = folded_network(copy.deepcopy(network), 1)
    network.norms[0].population.mean[:] = 0
    return answer


def without_norms(network):
    return Network([each for each in network.layers if not isinstance(each, BatchNorm)])


def _faulty(**faults):
    """Return a layer of `tf.nn` with one fault, for the exercise that writes it."""

    class Faulty(PlainNorm):
        def __init__(self, channels, momentum, epsilon):
            super().__init__(
                channels,
                momentum=faults.get("momentum", momentum),
                epsilon=faults.get("epsilon", epsilon),
                update=faults.get("update", True),
            )
            if "moving_mean" in faults:
                del self.moving_mean
            if "start" in faults:
                self.gamma.assign(faults["start"] * self.gamma)
            if "trainable" in faults:
                self.moving_mean = tf.Variable(self.moving_mean)

        def __call__(self, x, training):
            if "swapped" in faults:
                mean, variance = tf.nn.moments(x, [0, 1, 2])
                return tf.nn.batch_normalization(
                    x, mean, variance, self.gamma, self.beta, self.epsilon
                )
            if len(x.shape) < faults.get("rank", 0):
                raise ValueError(f"images must have 4 axes; got {len(x.shape)}.")
            if "rows" in faults and len(x.shape) == 2:
                return x
            y = super().__call__(x, faults.get("mode", training))
            if "always" in faults and not training:
                self.remember(self.moving_mean + 1, self.moving_variance)
            return y

        def remember(self, mean, variance):
            if "equals" in faults:
                self.moving_mean = 0.75 * self.moving_mean + 0.25 * mean
                return
            m = 60 if "bessel" in faults else np.inf
            super().remember(mean, variance * (m / (m - 1) if m == 60 else 1))

    return Faulty


def _moves(times):
    """Return an answer to the exercise that counts reads and writes: so many of an array."""
    return lambda shape, each, bandwidth: times * np.prod(shape) * each / bandwidth


def first(x, gamma, beta, epsilon=1e-3):
    """Batch norm of `(N, C, ...)`: move the channels to the end and back."""
    x = np.moveaxis(x, 1, -1)
    over = tuple(range(x.ndim - 1))
    x_hat = (x - x.mean(over)) / np.sqrt(x.var(over) + epsilon)
    return np.moveaxis(gamma * x_hat + beta, -1, 1)


def image_backward(grad_y, x, gamma, over=lambda x: x[..., 0].size):
    axes = tuple(range(x.ndim - 1))
    s = np.sqrt(x.var(axes) + 1e-3)
    x_hat = (x - x.mean(axes)) / s
    grad_gamma, grad_beta = (grad_y * x_hat).sum(axes), grad_y.sum(axes)
    grad_x = gamma / s * (grad_y - (grad_beta + x_hat * grad_gamma) / over(x))
    return grad_x, grad_gamma, grad_beta


def places_apart(grad_y, x, gamma):
    """The backward pass with each place of the upstream gradient centred by itself."""
    grad_x, *others = image_backward(grad_y, x, gamma)
    axes = tuple(range(x.ndim - 1))
    lost = (grad_y.mean(0) - grad_y.mean(axes)) / np.sqrt(x.var(axes) + 1e-3)
    return grad_x - gamma * lost, *others


def in_groups(x, gamma, beta, groups, epsilon=1e-3, first=1, ddof=0, **wrong):
    neighbours = wrong.get("neighbours", 1)
    shape = (groups, -1) if neighbours else (-1, groups)
    within = x.ndim if neighbours else x.ndim - 1
    split = x.reshape(*x.shape[:-1], *shape)
    axes = (*range(first, x.ndim - 1), within) if wrong.get("places", 1) else within
    mean = split.mean(axes, keepdims=True)
    s = np.sqrt(split.var(axes, keepdims=True, ddof=ddof) + epsilon)
    return gamma * ((split - mean) / s).reshape(x.shape) + beta


def layer_by_layer(network, batches, population=Pooled, own=False):
    """Recalibration, with its likely faults."""
    hidden = list(batches)
    for layer in network.layers:
        if isinstance(layer, BatchNorm):
            layer.population = population(len(layer.gamma))
            seen = [layer(h, training=True) for h in hidden]
            hidden = seen if own else [layer(h, training=False) for h in hidden]
        else:
            hidden = [layer(h, training=False) for h in hidden]


def on_their_own(network, batches):
    layer_by_layer(network, batches, own=True)


def averaging(network, batches):
    layer_by_layer(network, batches, population=Cumulative)


def first_only(network, batches):
    layer_by_layer(Network(network.layers[:3]), batches)


def without_means(network, batches):
    layer_by_layer(network, batches)
    network.norms[0].population.mean[:] = 0


def training_it(network, batches):
    network.layers[0].parameters["kernel"] += 1


class Two:
    """A layer with two modes and a switch, and the faults that it may have."""

    def __init__(self, channels, fault=None):
        self.mean, self.variance = np.zeros(channels), np.ones(channels)
        self.fault = fault

    def __call__(self, x, *, training, update=True):
        now = x.mean(axis=0), x.var(axis=0)
        if training or self.fault == "always":
            self.last = now
        moves = training or self.fault in ("always", "kept")
        if moves and self.fault != "never" and (update or self.fault == "deaf"):
            self.mean = 0.9 * self.mean + 0.1 * self.last[0]
            self.variance = 0.9 * self.variance + 0.1 * self.last[1]
        looks = self.fault == "looks" and not update
        if self.fault == "memory" or looks or not (training or self.fault == "batch"):
            now = self.mean, self.variance
        return (x - now[0]) / np.sqrt(now[1] + 1e-3)


class Switchless(Two):
    def __call__(self, x, *, training):
        return super().__call__(x, training=training)


def in_use(network, x, y, size, **mode):
    """Accuracy in batches; right with the default mode."""
    mode = mode or {"training": False}
    parts = [slice(k, k + size) for k in range(0, len(x), size)]
    return sum((network(x[p], **mode).argmax(1) == y[p]).sum() for p in parts) / len(x)


def mean_of_batches(network, x, y, size):
    parts = [slice(k, k + size) for k in range(0, len(x), size)]
    return np.mean([in_use(network, x[p], y[p], size) for p in parts])


def _into(y, x, gamma, beta, epsilon):
    """Write batch norm into y, whatever type y has."""
    y[...] = _renormed(x, gamma, beta, epsilon)
    return y


def _renormed(x, gamma, beta, epsilon):
    return batch_norm(x, gamma, beta, epsilon=epsilon)[0]


def _fourth_root(factor):
    return lambda r, rate, c, t: (r**4 + factor * (rate * c) ** 2 * t) ** 0.25


SORTED = {"a": 2, "b": 3, "c": 1}
SHARES = {"batch": 16 * 196, "instance": 196, "layer": 256 * 196, "group": 8 * 196}
SHARES |= {"changed": ["batch"]}


def dense_back(**wrong):
    """The gradients of a dense layer; wrong where a function for x, k or b is given."""
    right = {
        "x": lambda x, k, g: g @ k.T,
        "k": lambda x, k, g: x.T @ g,
        "b": lambda x, k, g: g.sum(0),
    }
    return lambda *a: [each(*a) for each in (right | wrong).values()]


def leaky(share=1, bend=1):
    """The growth under batch norm, with a leaky ReLU; wrong for other arguments."""

    def growth(a):
        square, mean = (1 + a**2) / 2, share * (1 - bend * a) / np.sqrt(2 * np.pi)
        return square / (square - mean**2)

    return growth


def _on_replica(n=None, again=False, alone=False, factor=1):
    """Backward on one replica; n counts the examples, and the switches are faults."""

    def backward(g, x_hat, s, count, all_sum):
        own = np.array([(g * x_hat).sum(0), g.sum(0)])
        sums = own if alone else all_sum(own)
        stretch, shift = sums / (count if n is None else n(g))
        given = sums if again else factor * own
        return (g - shift - x_hat * stretch) / s, *given

    return backward


def _lost_gamma():
    """Return gamma of the layer that lost it, from the ratio of its outputs."""
    recorded, suspects = on_conventions.suspect()
    (x, y), wrong = recorded["bn3"], suspects["bn3"]
    return (y[0] - wrong.beta) / (wrong.inference(x)[0] - wrong.beta)


def _gain(of, name):
    with_it, without = (
        of("accuracy", f"{name} 20, {norm}") for norm in ("batch norm", "none")
    )
    return with_it - without


def _claim(**changes):
    parts = {
        "key": "mine",
        "gist": "In twenty layers batch norm is worth more with sigmoid than with ReLU.",
        "who": "the reader",
        "section": "claims-depth",
        "predicts": "the gain with sigmoid is ten points above that with ReLU",
        "experiment": "deep",
        "core": lambda of: _gain(of, "sigmoid") > _gain(of, "relu") + 0.1,
        "stated": "holds",
        "conditions": "Each at its own best rate.",
        "control": {
            "sigmoid learns with it": lambda of: (
                of("accuracy", "sigmoid 20, batch norm") > 0.5
            )
        },
    }
    return Claim(**(parts | changes))


def _same_in_training(*, restore=True, mode=True, statistics=True):
    """Return an answer to the exercise of swapping; with a False, a wrong one."""

    def same(model, copy, x):
        found = []
        for each in (model, copy):
            before = each.get_weights()
            y = np.asarray(each(x, training=mode))
            found.append([y, *(each.get_weights() if statistics else [])])
            if restore:
                each.set_weights(before)
        return all(
            np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(*found, strict=True)
        )

    return same


ANSWERS = [
    (on_moments.batch_size, 400, "Correct. With 400 values"),
    (on_moments.batch_size, 1600, "starts from the mean"),
    (on_moments.batch_size, 200, "The miss is the root of that variance"),
    (on_moments.batch_size, 40_000, "took the variance, 100, for the deviation"),
    (on_moments.batch_size, 500, "off by 0.447, and it may be off by 0.5"),
    (on_moments.batch_size, 20, "off by 2.24"),
    (on_moments.batch_size, 0, "1 or more"),
    (on_moments.batch_size, ..., "where the ... stands"),
    (on_moments.masked, lambda x, m: hidden(x, m), "Correct. The hidden rows"),
    (on_moments.masked, lambda x, m: (x[m].mean(0), x[m].var(0)), "Correct."),
    (on_moments.masked, lambda x, m: None, "returns nothing"),
    (on_moments.masked, lambda x, m: hidden(x, m, True), "What do the hidden rows"),
    (
        on_moments.masked,
        lambda x, m: (hidden(x, m)[0] * m.mean(), x.var(0)),
        "Two of six rows hidden: the mean",
    ),
    (on_moments.masked, lambda x, m: (x.mean(0), x.var(0, ddof=1)), "divide by all of"),
    (
        on_moments.masked,
        lambda x, m: (m @ x / m.sum(), m @ (x - m @ x / m.sum()) ** 2 / m.sum()),
        "NaN in the hidden rows: the answer is NaN",
    ),
    (
        on_moments.masked,
        lambda x, m: (x[m].mean(0), (x[m] ** 2).mean(0) - x[m].mean(0) ** 2),
        "A mean of a billion",
    ),
    (on_moments.effective, lambda n, r: n / (1 + (n - 1) * r), "Correct. For many"),
    (on_moments.effective, lambda n, r: None, "returns nothing"),
    (on_moments.effective, lambda n, r: n / (1 + n * r), "no pair"),
    (
        on_moments.effective,
        lambda n, r: n / (1 + (n - 1) * r / 2),
        "is in the sum twice",
    ),
    (on_moments.effective, lambda n, r: n / (1 + n * (n - 1) * r), "n squared"),
    (on_moments.effective, lambda n, r: 1 / (1 + (n - 1) * r), "share that is left"),
    (on_moments.effective, lambda n, r: (1 + (n - 1) * r) / n, "Turn it over"),
    (on_moments.effective, lambda n, r: float(n), "as if rho were 0"),
    (on_moments.effective, lambda n, r: n * (1 - r), "must stay finite"),
    (on_moments.effective, lambda n, r: 1 / r, "very many"),
    (on_moments.effective, lambda n, r: 2.0, "worth their number"),
    (on_moments.effective, lambda n, r: n if not r else 2.0, "equal places are worth"),
    (on_moments.pool, lambda *parts: _pooled(*parts), "Correct. The same"),
    (on_moments.pool, averaged_variances, "distance between the means"),
    (
        on_moments.pool,
        lambda ma, va, na, mb, vb, nb: ((ma + mb) / 2, va),
        "same weight",
    ),
    (on_moments.pool, lambda ma, va, na, mb, vb, nb: (ma, va), "mean is off"),
    (
        on_moments.pool,
        lambda ma, va, na, mb, vb, nb: _pooled(ma, va, 8, mb, vb, 4),
        "With 3 and 9 rows the mean is off",
    ),
    (
        on_moments.pool,
        lambda *p: (_pooled(*p)[0], _pooled(*p[:2], 8, *p[3:5], 4)[1]),
        "With 3 and 9 rows the mean is right",
    ),
    (on_moments.pool, lambda *p: (_pooled(*p)[0], p[1]), "within plus spread between"),
    (on_transform.farthest, [0] * 8 + [1] * 2, "Correct. Two of ten"),
    (on_transform.farthest, [0] * 8 + [-1] * 2, "turn it round"),
    (on_transform.farthest, [0] * 9 + [1], "normalises to -0.333. You have sent one"),
    (on_transform.farthest, [0] * 9 + [-1], "send two"),
    (on_transform.farthest, [1] * 10, "All ten are equal"),
    (on_transform.farthest, list(range(10)), "normalises to 1.22. More"),
    (on_transform.farthest, [0, 1], "yours holds 2"),
    (on_transform.repaired, _renormed, "Correct. An array made like x"),
    (on_transform.repaired, lambda *a: None, "returns nothing"),
    (on_transform.repaired, lambda *a: a[0].mean(), "yours has ()"),
    (
        on_transform.repaired,
        lambda *a: _into(np.empty_like(a[0]), *a),
        "on some pixels",
    ),
    (on_transform.repaired, lambda *a: _into(a[0], *a), "x itself was changed"),
    (on_transform.repaired, lambda *a: _renormed(*a) + 1, "Random decimals"),
    (on_transform.norm_after, _fourth_root(2), "Correct. The fourth root"),
    (on_transform.norm_after, lambda *a: None, "returns nothing"),
    (on_transform.norm_after, lambda *a: _fourth_root(2)(*a) ** 2, "squared norm"),
    (on_transform.norm_after, _fourth_root(1), "derivative of u^2"),
    (
        on_transform.norm_after,
        lambda r, rate, c, t: np.sqrt(r**2 + (rate * c) ** 2 * t),
        "norm c throughout",
    ),
    (
        on_transform.norm_after,
        lambda r, rate, c, t: np.sqrt(r**2 + (rate * c / r) ** 2 * t),
        "the gradient shrinks",
    ),
    (
        on_transform.norm_after,
        lambda r, rate, c, t: r + rate * c / r * t,
        "squares add, lengths do not",
    ),
    (on_transform.norm_after, lambda r, *a: r, "20000 steps lead to 7.75, and yours"),
    # gradient
    (on_gradient.repaired, backward, "Correct. Gamma stands"),
    (on_gradient.repaired, lambda *a: None, "returns nothing"),
    (on_gradient.repaired, lambda *a: a[0], "Return 3 arrays"),
    (on_gradient.repaired, gamma_forgotten, "for gamma = 1. Compare"),
    (on_gradient.repaired, lambda *a: backward(*a, 1, 0), "where it was right"),
    (on_gradient.repaired, lambda *a: backward(*a, 0, 1), "all ones"),
    (on_gradient.repaired, spoilt(lambda x, g, b, k: (x, b, g)), "grad_gamma was"),
    (on_gradient.repaired, spoilt(lambda x, g, b, k: (x, g, 2 * b)), "grad_beta was"),
    (on_gradient.repaired, spoilt(lambda x, g, b, k: (x, x, b)), "grad_gamma should"),
    (on_gradient.repaired, lambda g, x, k, e: backward(g, x, k, 0), "Epsilon is lost"),
    (on_gradient.repaired, spoilt(lambda x, g, b, k: (x * k, g, b)), "twice now"),
    (on_gradient.repaired, spoilt(lambda x, g, b, k: (x / k, g, b)), "in none"),
    (on_gradient.repaired, spoilt(lambda x, g, b, k: (x * np.nan, g, b)), "be finite"),
    (on_gradient.rms, rms, "Correct. One sum less than batch norm, and one path fewer"),
    (on_gradient.rms, lambda *a: rms(*a) * np.nan, "be finite"),
    (on_gradient.rms, lambda *a: None, "returns nothing"),
    (on_gradient.rms, lambda *a: rms(*a, along=0), "direct path alone"),
    (on_gradient.rms, lambda *a: rms(*a, level=1), "That is batch norm's"),
    (on_gradient.rms, lambda *a: rms(*a, along=5), "not the sum"),
    (on_gradient.rms, lambda *a: rms(*a, along=0.2), "twice"),
    (on_gradient.rms, lambda *a: rms(*a, along=-1), "which sign"),
    (on_gradient.rms, lambda *a: rms(*a, along=2), "a 2 below the line"),
    (on_gradient.rms, lambda *a: rms(*a, along=0.5), "the square brings a 2"),
    (on_gradient.rms, lambda *a: rms(*a, root=0), "division by r is missing"),
    (on_gradient.rms, lambda g, x, e: rms(g.T, x.T, e).T, "here over features"),
    (on_gradient.rms, lambda g, x, e: rms(g.T, x.T, 0).T, "here over features"),
    (on_gradient.rms, lambda *a: rms(*a, of_x=True), "has y where yours has x"),
    (on_gradient.rms, lambda g, x, e: 0 * g, "Two paths"),
    (on_gradient.swallowed, [0, 2, 4, 6, 8], "Correct. A shift plus"),
    (on_gradient.swallowed, [1, 1, 1, 1, 1], "the text had them"),
    (on_gradient.swallowed, [0, 0, 0, 0, 0], "nothing to swallow"),
    (on_gradient.swallowed, [1, 0, 0, 0, 0], "0.283 reaches x"),
    (on_gradient.swallowed, [1, 2], "yours are 2"),
    (on_gradient.swallowed, [np.nan] * 5, "finite numbers"),
    (on_gradient.swallowed, [np.inf, 1, 2, 3, 4], "finite numbers"),
    # axes
    (on_axes.shares, SHARES, "Correct. The other three"),
    (on_axes.shares, SHARES | {"changed": "batch"}, "Correct. The other three"),
    (on_axes.shares, SHARES | {"changed": ["batch", "group"]}, "a mean of group norm"),
    (on_axes.shares, SHARES | {"changed": []}, "averages over the examples"),
    (on_axes.shares, SHARES | {"changed": ["all"]}, "give a list of names"),
    (on_axes.shares, SHARES | {"changed": 1}, "give a list of names"),
    (on_axes.shares, 3136, "a dict with the names"),
    (on_axes.shares, SHARES | {"layer": ...}, "where each ... stands"),
    (on_axes.shares, SHARES | {"batch": 256}, "batch: that is how many means"),
    (on_axes.shares, SHARES | {"batch": 16 * 256 * 14}, "channels are second"),
    (on_axes.shares, SHARES | {"instance": 16 * 196}, "all examples"),
    (on_axes.shares, SHARES | {"layer": 256}, "one location"),
    (on_axes.shares, SHARES | {"group": 32 * 196}, "how many channels has each"),
    (on_axes.shares, SHARES | {"group": 7}, "group: Multiply"),
    (on_axes.shares, SHARES | {"batch": 3136.0}, "Correct. The other"),
    (on_axes.shares, SHARES | {"instance": 256 * 196}, "mixes the channels"),
    (on_axes.shares, SHARES | {"layer": 196}, "channels are averaged as well"),
    (on_axes.shares, SHARES | {"layer": 16 * 256 * 196}, "the whole batch"),
    (on_axes.shares, SHARES | {"batch": 16 * 256 * 14.0}, "channels are second"),
    (on_axes.shares, SHARES | {"batch": None}, "batch: give one number"),
    (on_axes.backward, image_backward, "Correct. Dense"),
    (on_axes.backward, lambda *a: None, "Return 3 arrays"),
    (on_axes.backward, lambda *a: image_backward(*a, over=len), "and must sum to 0"),
    (on_axes.backward, lambda *a: image_backward(*a, over=len), "Right for (7, 3) and"),
    (on_axes.backward, lambda *a: image_backward(*a)[::-1], "grad_x should have shape"),
    (
        on_axes.backward,
        lambda g, x, k: image_backward(g, x, 2 * k),
        "grad_x is off; its",
    ),
    (on_axes.backward, places_apart, "its channels sum to 0, as they must"),
    (on_axes.backward, lambda g, x, k: 1 / 0, "raised ZeroDivisionError"),
    (on_axes.group, in_groups, "Correct. Four ranks"),
    (on_axes.group, lambda *a: None, "returns nothing"),
    (on_axes.group, lambda *a: in_groups(*a, epsilon=0), "where is epsilon"),
    (on_axes.group, lambda *a: in_groups(*a, first=0), "belongs to one example"),
    (on_axes.group, lambda x, g, b, n: in_groups(x, 1, 0, n), "are not used"),
    (on_axes.group, lambda *a: in_groups(*a, places=False), "over all places too"),
    (on_axes.group, lambda *a: in_groups(*a, neighbours=False), "every so-many-th"),
    (on_axes.group, lambda *a: in_groups(*a, ddof=1), "not by one less"),
    (on_axes.group, lambda *a: in_groups(*a[:3], 6 // a[3]), "not how many channels"),
    (on_axes.group, lambda x, g, b, n: x, "fails for shape (5, 6) with groups=2"),
    # population
    (
        on_population.steps,
        lambda m, v, s: max(0, int(np.floor(np.log(s * v) / np.log(m))) + 1),
        "Correct. 459",
    ),
    (
        on_population.steps,
        lambda m, v, s: int(np.floor(np.log(s * v) / np.log(m))) + 1,
        "gave -6. The limit is share * variance = 2",
    ),
    (
        on_population.steps,
        lambda m, v, s: np.log(s * v) / np.log(m),
        "return a whole number",
    ),
    (on_population.steps, lambda m, v, s: np.nan, "gave NaN"),
    (on_population.steps, lambda m, v, s: None, "returns nothing"),
    (on_population.steps, lambda m, v, s: 1 / (1 - m), "a third is left"),
    (
        on_population.steps,
        lambda m, v, s: int(np.log(s) / np.log(m)) + 1,
        "small beside 0.02",
    ),
    (
        on_population.steps,
        lambda m, v, s: int(np.log(s * v) / np.log(m)),
        "one update early",
    ),
    (
        on_population.steps,
        lambda m, v, s: int(np.log(s * v) / np.log(m)) + 2,
        "one update late",
    ),
    (
        on_population.steps,
        lambda m, v, s: int(np.log(s / v) / np.log(m)) + 1,
        "share * variance: a share of the true variance",
    ),
    (on_population.steps, lambda m, v, s: 7, "Take logarithms"),
    (on_population.rate, lambda t, m: (1 - m) / (1 - m**t), "Correct. It falls"),
    (on_population.rate, lambda t, m: None, "returns nothing"),
    (on_population.rate, lambda t, m: 1 - m, "the first rate is 1"),
    (on_population.rate, lambda t, m: 1 - m, "rate of the plain moving average"),
    (on_population.rate, lambda t, m: 1 / (1 - m**t), "numerator is missing"),
    (on_population.rate, lambda t, m: np.nan, "gave NaN"),
    (on_population.rate, lambda t, m: 1 / t, "the plain average"),
    (
        on_population.rate,
        lambda t, m: 1 / (1 - m**t) if t > 1 else 1,
        "numerator is missing",
    ),
    (
        on_population.rate,
        lambda t, m: (1 - m) / (1 - m ** (t - 1)) if t > 1 else 1,
        "one update behind",
    ),
    (
        on_population.rate,
        lambda t, m: 1 - m if t > 1 else 1,
        "rate of the plain moving average",
    ),
    (on_population.rate, lambda t, m: m**t / m, "is 15.26 then"),
    (on_population.recalibration, recalibrate, "Correct. The same statistics"),
    (on_population.recalibration, lambda n, b: None, "first batch norm layer has not"),
    (on_population.recalibration, first_only, "second batch norm layer has not"),
    (
        on_population.recalibration,
        on_their_own,
        "in batches of 6, the variance of the sec",
    ),
    (on_population.recalibration, without_means, "the mean of the first"),
    (on_population.recalibration, training_it, "A weight has changed"),
    (
        on_population.recalibration,
        lambda n, b: recalibrate(n, [np.concatenate(b)]),
        "given 24 examples at once, and the batches have 6",
    ),
    (
        on_population.recalibration,
        averaging,
        "in batches of 6, the variance of the first",
    ),
    # layer
    (on_layer.repaired, Two, "Correct"),
    (on_layer.repaired, Switchless, "The switch `update` is gone"),
    (on_layer.repaired, lambda c: Two(c, "kept"), "The same question twice"),
    (on_layer.repaired, lambda c: Two(c, "always"), "The same question twice"),
    (on_layer.repaired, lambda c: Two(c, "never"), "Does training still move"),
    (on_layer.repaired, lambda c: Two(c, "batch"), "uses the batch now"),
    (on_layer.repaired, lambda c: Two(c, "memory"), "In training it should use"),
    (on_layer.repaired, lambda c: Two(c, "deaf"), "left a trace"),
    (on_layer.repaired, lambda c: Two(c, "looks"), "should still use the batch"),
    (on_layer.evaluate, in_use, "Correct. The same"),
    (on_layer.evaluate, lambda n, x, y, size: None, "returns nothing"),
    (
        on_layer.evaluate,
        lambda *a: in_use(*a, training=True),
        "changed the population",
    ),
    (
        on_layer.evaluate,
        lambda *a: in_use(*a, training=True, update=False),
        "Whose statistics",
    ),
    (on_layer.evaluate, lambda n, x, y, size: 0.5, "You found 0.5"),
    (on_layer.evaluate, lambda n, x, y, size: in_use(n, x, y, 23), "at once"),
    (
        on_layer.evaluate,
        lambda n, x, y, k: in_use(n, x[: len(x) // k * k], y[: len(x) // k * k], k),
        "count for less",
    ),
    (on_layer.evaluate, mean_of_batches, "10, 10 and 3"),
    (
        on_layer.diagnose,
        ["Underfitting", "statistics", "overfitting", "dropout", "shift"],
        "Correct. One pass",
    ),
    (on_layer.diagnose, ["overfitting"] * 5, "A: it is bad"),
    (on_layer.diagnose, ["underfitting"] + ["overfitting"] * 4, "B: compare"),
    (on_layer.diagnose, ["underfitting"] + ["statistics"] * 4, "C: it is"),
    (
        on_layer.diagnose,
        ["underfitting", "statistics"] + ["overfitting"] * 3,
        "D: in which mode",
    ),
    (
        on_layer.diagnose,
        ["underfitting", "statistics", "overfitting", "dropout", "overfitting"],
        "E: compare",
    ),
    (on_layer.diagnose, ["statistics", "bad luck"], "five words"),
    # experiments
    (on_experiments.sign_test, lambda d: _signs(d), "Correct. With five"),
    (on_experiments.sign_test, lambda d: None, "returns nothing"),
    (on_experiments.sign_test, lambda d: _signs(d, ends=1), "one end only"),
    (on_experiments.sign_test, lambda d: np.mean(d > 0), "Five wins of five"),
    (on_experiments.sign_test, lambda d: _signs(d, more=False), "seven and eight"),
    (
        on_experiments.sign_test,
        lambda d: _signs(d, odd=0.01),
        "Six wins of eight should",
    ),
    (on_experiments.sign_test, lambda d: _signs(d, turned=False), "the larger count"),
    (on_experiments.sign_test, lambda d: _signs(d, most=2), "the answer is 1"),
    (on_experiments.sign_test, lambda d: _signs(d, ties=True), "Leave it out"),
    (on_experiments.steps_to, lambda *a: _steps_to(*a), "Correct. A run"),
    (on_experiments.steps_to, lambda *a: _steps_to(*a, never=0), "the fastest of all"),
    (on_experiments.steps_to, lambda *a: _steps_to(*a, never=np.inf), "Correct. A run"),
    (on_experiments.steps_to, lambda *a: _steps_to(*a, never=-10), "needs np.inf"),
    (on_experiments.steps_to, lambda a, t, e: _steps_to(a, t, 1), "the place"),
    (on_experiments.steps_to, lambda a, t, e: 40, "first reached at step 20"),
    (on_experiments.steps_to, lambda a, t, e: _steps_to(a, t, e) or None, "at step 0"),
    (on_experiments.steps_to, lambda *a: _steps_above(*a), "has reached 0.9"),
    (on_experiments.variance_shift, lambda p: _shift(p), "Correct. Half"),
    (
        on_experiments.variance_shift,
        lambda p: _shift(p, scaled=False),
        "the variance in training",
    ),
    (on_experiments.variance_shift, lambda p: 2 + p, "ratio must be 1"),
    (on_experiments.variance_shift, lambda p: None, "returns nothing"),
    (on_experiments.variance_shift, lambda p: 1 / (1 - p), "the mean square"),
    (on_experiments.variance_shift, lambda p: _shift(p) * (1 - p) ** 2, "enlarged"),
    (on_experiments.variance_shift, lambda p: 1 / _shift(p), "the other way round"),
    (
        on_experiments.variance_shift,
        lambda p: _shift(p, mean=1 - p),
        "The mean is the same",
    ),
    (on_experiments.variance_shift, lambda p: (1 - p) ** -2, "drops none"),
    (on_experiments.variance_shift, lambda p: 1 + p, "the same squared mean"),
    # network
    (on_network.saturated, 2.3 / 1.96 / np.sqrt(30), "Correct. About one"),
    (on_network.saturated, 1, "67 % of the values"),
    (on_network.saturated, 2.3 / 1.96, "deviation of the sum"),
    (on_network.saturated, -1, "positive"),
    (on_network.dense_backward, dense_back(), "Correct. Three gradients"),
    (on_network.dense_backward, lambda x, k, g: None, "returns nothing"),
    (on_network.dense_backward, lambda x, k, g: g, "Return 3 arrays"),
    (on_network.dense_backward, lambda x, k, g: (x, k, g), "shape (3,)"),
    (on_network.dense_backward, dense_back(x=lambda x, k, g: g @ k), "other way"),
    (on_network.dense_backward, dense_back(x=lambda x, k, g: x), "grad_x: y[i, k]"),
    (on_network.dense_backward, dense_back(k=lambda x, k, g: g.T @ x), "transposed"),
    (
        on_network.dense_backward,
        dense_back(k=lambda x, k, g: x.T @ g / 5),
        "has taken any mean",
    ),
    (on_network.dense_backward, dense_back(k=lambda x, k, g: k), "grad_kernel: sum"),
    (on_network.dense_backward, dense_back(b=lambda x, k, g: g.mean(0)), "not a mean"),
    (
        on_network.dense_backward,
        dense_back(b=lambda x, k, g: k[0]),
        "with the factor 1",
    ),
    (on_network.growth, leaky(), "Correct. From pi"),
    (on_network.growth, lambda a: None, "returns nothing"),
    (on_network.growth, lambda a: 1, "without batch norm"),
    (on_network.growth, lambda a: leaky()(a) ** 0.5, "Its square"),
    (on_network.growth, lambda a: leaky()(a) / (1 + a**2) * 2, "not always 1"),
    (on_network.growth, leaky(share=2), "over all of them"),
    (on_network.growth, leaky(bend=0), "has a mean as well"),
    (on_network.growth, leaky(bend=-1), "Mind a sign"),
    (on_network.growth, lambda a: 2, "yours gives 2"),
    (on_network.dead, lambda y: (y == 0).all(axis=0).sum(), "Correct. And it tells"),
    (on_network.dead, lambda y: (~(y > 0).any(axis=0)).sum(), "one of my inputs"),
    (on_network.dead, lambda y: (y == 0).any(axis=0).sum(), "what ReLU is for"),
    (on_network.dead, lambda y: (y == 0).all(axis=1).sum(), "Two of the five"),
    (on_network.dead, lambda y: (y == 0).all(axis=0), "Return one number"),
    (on_network.dead, lambda y: 2 if np.isfinite(y).all() else 0, "until one unit"),
    # parameters
    (on_parameters.before_and_after, (74_240, 73_856), "Correct. Four vectors"),
    (on_parameters.before_and_after, (73_984, 73_856), "keeps more than what"),
    (on_parameters.before_and_after, (74_368, 73_856), "has no bias"),
    (on_parameters.before_and_after, (73_728, 73_728), "the kernel alone"),
    (on_parameters.before_and_after, (7, 7), "What does batch norm keep"),
    (on_parameters.before_and_after, (74_240, 73_728), "go somewhere"),
    (on_parameters.before_and_after, (74_240, 74_240), "left as it was"),
    (on_parameters.before_and_after, (74_240, 7), "what else"),
    (on_parameters.before_and_after, ..., "where the ... stands"),
    (on_parameters.walk, lambda n: folded_network(n, 1), "Correct. It looks"),
    (on_parameters.walk, lambda n: folded_network(n, 9), "of 6 networks give other"),
    (on_parameters.walk, lambda n: n, "batch norm, ReLU: right, but something"),
    (on_parameters.walk, lambda n: n.layers, "return a Network"),
    (on_parameters.walk, lambda n: without_norms(n), "6 of 6 networks give"),
    (on_parameters.walk, lambda n: folded_in_place(n), "given has changed"),
    (on_parameters.walk, folded_into_itself, "given has changed"),
    (on_parameters.walk, forgetting_afterwards, "given has changed"),
    (
        on_parameters.walk,
        lambda n: folded_network(n, 1, lambda k, b: (0 * k, b)),
        "networks give other outputs",
    ),
    (
        on_parameters.walk,
        lambda n: folded_network(n, 1, lambda k, b: (0.7 * k, b)),
        "networks give other outputs",
    ),
    (
        on_parameters.walk,
        lambda n: folded_network(n, 1, lambda k, b: (k, 0 * b)),
        "networks give other outputs",
    ),
    (
        on_parameters.walk,
        lambda n: folded_network(n, 1, loosely=True),
        "1 of 6 networks give other outputs",
    ),
    (on_parameters.before_and_after, 5, "Give a pair"),
    (on_parameters.branches, lambda *parts: merged(*parts), "Correct. Exact at the"),
    (on_parameters.branches, lambda k, one, m, s: (k, s[0]), "the large branch alone"),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, one, m, s)[0][::-1] * m[0], s[0]),
        "the large branch alone",
    ),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, 0 * one, m, s)[0] + one * m[1], s[0]),
        "has only one",
    ),
    (on_parameters.branches, lambda k, one, m, s: (k * m[0], s[0]), "two branches are"),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, one, m * [[1], [1], [0]], s)[0], s[0]),
        "batch norm alone is missing",
    ),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, 0 * one, m, s)[0], s[0]),
        "the 1x1 branch is missing",
    ),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, one * m[1][:, None] / m[1], m, s)[0], s[0]),
        "the columns",
    ),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, one, m, s, alone=np.ones((3, 3)))[0], s[0]),
        "keeps channels apart",
    ),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, one, m, s, alone=np.eye(3) / m[2])[0], s[0]),
        "has a multiplier too",
    ),
    (
        on_parameters.branches,
        lambda k, one, m, s: (merged(k, 2 * one, m, s)[0], s[0]),
        "three branches meet",
    ),
    (
        on_parameters.branches,
        lambda *parts: (merged(*parts)[0], parts[-1][0]),
        "Each branch has a shift",
    ),
    (
        on_parameters.branches,
        lambda *parts: (merged(*parts)[0], parts[-1][0] @ parts[1][0, 0]),
        "the outputs are added",
    ),
    # conventions
    (
        on_conventions.momentum,
        lambda old, now, new: np.mean((new - now) / (old - now)),
        "Correct. And 1 minus",
    ),
    (on_conventions.momentum, lambda old, now, new: None, "returns nothing"),
    (
        on_conventions.momentum,
        lambda old, now, new: (new - now) / (old - now),
        "return one number",
    ),
    (
        on_conventions.momentum,
        lambda old, now, new: np.mean((new - old) / (now - old)),
        "That is PyTorch's",
    ),
    (on_conventions.momentum, lambda old, now, new: 0.9, "What is after - batch"),
    (on_conventions.caffe, lambda m, v, w: _divided(m, v, w), "Correct. As Caffe"),
    (on_conventions.caffe, lambda m, v, w: None, "returns nothing"),
    (on_conventions.caffe, lambda m, v, w: (m, v), "what was their weight"),
    (on_conventions.caffe, lambda m, v, w: (m / w, v / w**2), "divided by the factor"),
    (on_conventions.caffe, lambda m, v, w: (m / w, v / w), "factor 0"),
    (on_conventions.caffe, lambda m, v, w: (m * (1 / w), v * (1 / w)), "factor 0"),
    (
        on_conventions.caffe,
        lambda m, v, w: (m / 8, v / 8),
        "divided by the factor",
    ),
    (
        on_conventions.wrong_parameter,
        ("bn3", "gamma", _lost_gamma()),
        "Correct. With this gamma",
    ),
    (on_conventions.wrong_parameter, ("bn3", "gamma"), "a layer, a field"),
    (on_conventions.wrong_parameter, ("conv", "gamma", 0), "bn1, bn2 and bn3"),
    (on_conventions.wrong_parameter, ("bn1", "gamma", 0), "Which layer does not"),
    (on_conventions.wrong_parameter, ("bn3", "eps", 0), "no field of BNParams"),
    (on_conventions.wrong_parameter, ("bn3", "momentum", 0), "not show in outputs"),
    (on_conventions.wrong_parameter, ("bn3", "beta", 0), "bn3 is the right choice"),
    (on_conventions.wrong_parameter, ("bn3", "gamma", [1.0] * 4), "what is the ratio"),
    (on_conventions.convert, lambda s, e: _converted(s, e), "Correct. The outputs"),
    (on_conventions.convert, lambda s, e: None, "three lists"),
    (on_conventions.convert, lambda s, e: ([], [], []), "1, 4 and 2 arrays"),
    (
        on_conventions.convert,
        lambda s, e: ([s["conv.weight"]], *_converted(s, e)[1:]),
        r"height, width, in, out: (3, 4, 2, 5); got (5, 2, 3, 4)",
    ),
    (
        on_conventions.convert,
        lambda s, e: ([s["conv.weight"].reshape(3, 4, 2, 5)], *_converted(s, e)[1:]),
        "was reshaped",
    ),
    (
        on_conventions.convert,
        lambda s, e: (*_converted(s, e)[:2], [s["fc.weight"], s["fc.bias"]]),
        "out, in",
    ),
    (
        on_conventions.convert,
        lambda s, e: (*_converted(s, e)[:2], [s["fc.weight"].T, 2 * s["fc.bias"]]),
        "needs no change",
    ),
    (
        on_conventions.convert,
        lambda s, e: (
            _converted(s, e)[0],
            _converted(s, e)[1][::-1],
            _converted(s, e)[2],
        ),
        "Keras's order is gamma",
    ),
    (on_conventions.convert, lambda s, e: _in_gamma(s, e), "Correct. The outputs"),
    (on_conventions.convert, lambda s, e: _in_gamma(s, 2 * e), "Leave gamma, beta"),
    (
        on_conventions.convert,
        lambda s, e: (
            _converted(s, e)[0],
            [*_converted(s, e)[1][:3], 1.0],
            _converted(s, e)[2],
        ),
        "one number a channel",
    ),
    (on_conventions.convert, lambda s, e: _converted(s, 0), "under PyTorch's root"),
    (on_conventions.convert, lambda s, e: _converted(s, e**2), "variance + eps"),
    # tf_ops
    (on_tf_ops.biased, lambda v, n: v * (n - 1) / n, "Correct. The same"),
    (on_tf_ops.biased, lambda v, n: None, "returns nothing"),
    (on_tf_ops.biased, lambda v, n: 1.25, "shape ()"),
    (on_tf_ops.biased, lambda v, n: v, "Which factor"),
    (on_tf_ops.biased, lambda v, n: v * n / (n - 1), "take it out"),
    (on_tf_ops.biased, lambda v, n: v / n, "5/4"),
    (on_tf_ops.biased, lambda v, n: 0.75 * v - (n == 1), "One value has variance 0"),
    (on_tf_ops.biased, lambda v, n: v / (n / (n - 1)), "multiply instead"),
    (on_tf_ops.channels_first, first, "Correct. Width"),
    (on_tf_ops.channels_first, lambda x, g, b: first(x, b, g), "offset before the"),
    (on_tf_ops.channels_first, lambda x, g, b: x.mean(), "has ()"),
    (
        on_tf_ops.channels_first,
        lambda x, g, b: batch_norm(x, g, b)[0],
        "channels are axis 1",
    ),
    (
        on_tf_ops.channels_first,
        lambda x, g, b: batch_norm(x, axis=1)[0] * g + b,
        "lie along axis 1",
    ),
    (on_tf_ops.channels_first, lambda x, g, b: x, "Which axes"),
    (
        on_tf_ops.channels_first,
        lambda x, g, b: (
            (x - x.mean((0, 2, 3))) / np.sqrt(x.var((0, 2, 3)) + 1e-3) * g + b
        ),
        "The axes are right",
    ),
    (on_tf_ops.step_time, _moves(13), "Correct. In float16"),
    (on_tf_ops.step_time, lambda s, n, b: None, "returns nothing"),
    (on_tf_ops.step_time, lambda s, n, b: np.array(s), "one number"),
    (on_tf_ops.step_time, _moves(1), "one move"),
    (on_tf_ops.step_time, _moves(5), "ReLU alone"),
    (on_tf_ops.step_time, _moves(8), "batch norm alone, or with"),
    (on_tf_ops.step_time, _moves(10), "What does its backward"),
    (on_tf_ops.step_time, _moves(11), "two are missing"),
    (on_tf_ops.step_time, _moves(12), "reads two arrays"),
    (on_tf_ops.step_time, _moves(37), "what is the least"),
    (on_tf_ops.step_time, lambda s, n, b: 13 * np.prod(s) / b, "bytes has one"),
    (on_tf_ops.step_time, lambda s, n, b: b, "over bytes in a second"),
    (on_tf_ops.step_time, lambda s, n, b: 52 * np.prod(s) / b, "2 bytes"),
    (on_tf_ops.layer, PlainNorm, "Correct. Two variables"),
    (on_tf_ops.layer, _faulty(moving_mean=None), "needs `self.moving_mean`"),
    (on_tf_ops.layer, _faulty(start=2), "start at 1"),
    (on_tf_ops.layer, _faulty(trainable=True), "with trainable=False"),
    (on_tf_ops.layer, _faulty(swapped=True), "offset before the scale"),
    (on_tf_ops.layer, _faulty(epsilon=1e-3), "epsilon that the layer is given"),
    (on_tf_ops.layer, _faulty(mode=False), "the moments of each channel"),
    (on_tf_ops.layer, _faulty(update=False), "is still 0"),
    (on_tf_ops.layer, _faulty(momentum=0.25), "momentum weighs the old"),
    (on_tf_ops.layer, _faulty(bessel=True), "And the variance?"),
    (on_tf_ops.layer, _faulty(mode=True), "In inference: the moving"),
    (on_tf_ops.layer, _faulty(always=True), "leave the moving statistics alone"),
    (on_tf_ops.layer, _faulty(equals=True), "a symbol of the traced"),
    (on_tf_ops.layer, _faulty(rank=4), "(N, C) raise an error"),
    (on_tf_ops.layer, _faulty(rows=True), "And on rows"),
    # keras
    (
        on_claims.flaws,
        {"A": "tautology", "B": "control", "C": "seeds", "D": "rates"},
        "Correct. Each",
    ),
    (on_claims.flaws, 3, "Give a dict"),
    (
        on_claims.flaws,
        {"A": "bad", "B": "control", "C": "seeds", "D": "rates"},
        "is none",
    ),
    (
        on_claims.flaws,
        {"A": "seeds", "B": "control", "C": "seeds", "D": "rates"},
        "otherwise",
    ),
    (
        on_claims.flaws,
        {"A": "tautology", "B": "seeds", "C": "seeds", "D": "rates"},
        "learned at all",
    ),
    (
        on_claims.flaws,
        {"A": "tautology", "B": "control", "C": "control", "D": "rates"},
        "How often",
    ),
    (
        on_claims.flaws,
        {"A": "tautology", "B": "control", "C": "seeds", "D": "control"},
        "What else differs",
    ),
    (
        on_claims.effective,
        lambda r, c, n, t: r / np.sqrt(n**2 + 2 * (r * c) ** 2 * t),
        "Correct. After",
    ),
    (on_claims.effective, lambda r, c, n, t: None, "returns nothing"),
    (on_claims.effective, lambda r, c, n, t: r, "Before the first step"),
    (
        on_claims.effective,
        lambda r, c, n, t: r / np.sqrt(n**2 + (r * c) ** 2 * t),
        "factor of 2",
    ),
    (
        on_claims.effective,
        lambda r, c, n, t: r / (n + (r * c) ** 2 * t / n),
        "gradient shrinks",
    ),
    (on_claims.effective, lambda r, c, n, t: r / n, "it is not right"),
    (
        on_claims.effective,
        lambda r, c, n, t: r / (n + 2 * (r * c) ** 2 * t),
        "square of the squared norm",
    ),
    (
        on_claims.effective,
        lambda r, c, n, t: r / (n**2 + 2 * (r * c) ** 2 * t) if t else r / n,
        "neither its root nor its square",
    ),
    (
        on_claims.effective,
        lambda r, c, n, t: np.sqrt(n**2 + 2 * (r * c) ** 2 * t) if t else r / n,
        "That is the squared norm",
    ),
    (on_claims.weighed, _claim(), "Correct. It came true in 8 of 8"),
    (on_claims.weighed, 3, "Give a Claim"),
    (on_claims.weighed, _claim(experiment="whole"), "experiment that has"),
    (on_claims.weighed, _claim(predicts="..."), "Say in words"),
    (on_claims.weighed, _claim(core=lambda of: True), "for each seed"),
    (
        on_claims.weighed,
        _claim(core=lambda of: of("accuracy", "relu") > 0),
        "has no setting",
    ),
    (
        on_claims.weighed,
        _claim(core=lambda of: _gain(of, "relu") > _gain(of, "sigmoid") + 0.1),
        "should be True",
    ),
    (
        on_claims.weighed,
        _claim(core=lambda of: of("accuracy", "sigmoid 20, batch norm") > 0),
        "should be False",
    ),
    *(
        (
            on_claims.weighed,
            _claim(
                core=lambda of, by=by: (
                    of("accuracy", "sigmoid 20, batch norm")
                    > of("accuracy", "relu 20, batch norm") + by
                ),
                stated="fails",
            ),
            "what the networks reach",
        )
        for by in (0, 0.1)
    ),
    *(
        (
            on_claims.weighed,
            _claim(
                core=lambda of, times=times: (
                    _gain(of, "sigmoid") / of("accuracy", "sigmoid 20, none")
                    > times * _gain(of, "relu") / of("accuracy", "relu 20, none")
                )
            ),
            "how many times more",
        )
        for times in (1, 1.1)
    ),
    *(
        (
            on_claims.weighed,
            _claim(
                core=lambda of, by=by: _gain(of, "sigmoid") > _gain(of, "relu") + by
            ),
            hint,
        )
        for by, hint in (
            (0, "Ask for a margin"),
            (0.01, "Five points more are enough"),
            (0.15, "Ten points were asked"),
            (0.3, "Ten points were asked"),
        )
    ),
    (
        on_claims.weighed,
        _claim(control={"relu 50": lambda of: of("accuracy", "relu 50, none") > 0.15}),
        "does not fail",
    ),
    (on_claims.weighed, _claim(control={}), "Give a control"),
    (
        on_claims.weighed,
        _claim(control={"above 0": lambda of: of("accuracy", "relu 20, none") >= 0}),
        "does not fail",
    ),
    (on_claims.weighed, _claim(stated="rubbish"), "You state"),
    (on_claims.chance, (9 / 256, 18 / 256), "Correct. Nine"),
    (on_claims.chance, (0.034, 0.069), "Correct. Nine"),  # thrown
    (on_claims.chance, 3, "two numbers"),
    (on_claims.chance, (1 / 256, 2 / 256), "Seven are enough"),
    (on_claims.chance, (8 / 256, 18 / 256), "exactly seven"),
    (on_claims.chance, (0.5, 1), "Count the rows"),
    (on_claims.chance, (9 / 256, 9 / 256), "one head at most"),
    (on_doctor.reports, SORTED | {"d": "BN006"}, "Correct. The memory"),
    (on_doctor.reports, {"a": 2}, "a dict such as"),
    (on_doctor.reports, SORTED | {"a": 3, "d": "BN006"}, "one of the three"),
    (on_doctor.reports, {"a": 1, "b": 2, "c": 3, "d": "BN006"}, "its owner can wait"),
    (on_doctor.reports, {"a": 3, "b": 2, "c": 1, "d": "BN006"}, "change a call"),
    (on_doctor.reports, SORTED | {"d": "BN008"}, "what will norm_3 be told"),
    (on_doctor.reports, SORTED | {"d": 4}, "one of the two codes"),
    (on_doctor.rule, lambda case: _odd_epsilon(case), "Correct. It finds"),
    (on_doctor.rule, lambda case: [], "Nothing is found"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, all), "All epsilons agree"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, "usual"), "the odd one out"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, "both"), "you name"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, "1e-3"), "Two layers"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, "silent"), "a sentence"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, "first"), "ask what most"),
    (on_doctor.rule, lambda case: None, "returns nothing"),
    (on_doctor.rule, lambda case: ["norm_1"], "Yield Fault"),
    (on_doctor.rule, lambda case: _odd_epsilon(case, "median"), "The middle one"),
    (on_doctor.walks, 3, "Correct. Three"),
    (on_doctor.walks, 1, "What was the second fed"),
    (on_doctor.walks, 4, "nothing moves"),
    (on_doctor.walks, 0, "The statistics are 0 and 1"),
    (on_doctor.walks, 2, "What was norm_3 fed"),
    (on_doctor.walks, 5, "at most"),
    (on_replicas.pool, lambda m, v, n: _pool(m, v, n), "Correct. The spread within"),
    (on_replicas.pool, lambda m, v, n: (m.mean(0), v.mean(0)), "count alike"),
    (on_replicas.pool, lambda m, v, n: (m.max(0), v.mean(0)), "weigh by the counts"),
    (
        on_replicas.pool,
        lambda m, v, n: [np.average(a, axis=0, weights=n) for a in (m, v)],
        "your variance does not know",
    ),
    (on_replicas.pool, lambda m, v, n: _pool_in_part(m, v, n, "within"), "weigh it by"),
    (
        on_replicas.pool,
        lambda m, v, n: _pool_in_part(m, v, n, "between"),
        "weighted mean",
    ),
    (on_replicas.pool, lambda m, v, n: (_pool(m, v, n)[0], v[0]), "The mean is right"),
    (on_replicas.shares, lambda losses, n: losses.sum() / n, "Correct. The sum"),
    (on_replicas.shares, lambda losses, n: losses / n, "Return one number"),
    (on_replicas.shares, lambda losses, n: losses.mean(), "too large"),
    (on_replicas.shares, lambda losses, n: losses.mean() / 3, "counts three times"),
    (on_replicas.shares, lambda losses, n: losses.sum() / 6, "use count"),
    (on_replicas.shares, lambda losses, n: losses.sum(), "add up to 30"),
    (on_replicas.backward, _on_replica(), "Correct. Pooled sums"),
    (on_replicas.backward, _on_replica(n=len, again=True), "divided by 2, 7 or 4"),
    (on_replicas.backward, _on_replica(n=len), "divided by 2, 7 or 4"),
    (on_replicas.backward, _on_replica(again=True), "three times too large"),
    (on_replicas.backward, _on_replica(n=len, alone=True), "its own two means"),
    (on_replicas.backward, _on_replica(n=lambda _: 1), "not the part of this"),
    (on_replicas.backward, _on_replica(factor=2), "does not add up"),
    (on_replicas.backward, lambda *a: None, "returns nothing"),
    (on_replicas.backward, lambda *a: a[0], "Return 3 arrays"),
    (on_replicas.backward, lambda *a: (a[0], 1, 1), "one per channel"),
    (on_replicas.backward, lambda *a: (a[0][0], a[2], a[2]), "as g has"),
    (on_replicas.backward, lambda *a: a[-1](a[0]), "arrays of one shape"),
    (on_keras.switches, ["moving", "batch", "moving", "moving"], "Correct. Four"),
    (on_keras.switches, ["moving", "batch"], "Give four words"),
    (on_keras.switches, ["moving", "batch", "frozen", "moving"], "Give four words"),
    (on_keras.switches, ["batch", "batch", "moving", "moving"], "1: who says"),
    (on_keras.switches, ["moving", "moving", "moving", "moving"], "What is left"),
    (on_keras.switches, ["moving", "batch", "batch", "moving"], "the layer's flag"),
    (on_keras.switches, ["moving", "batch", "moving", "batch"], "Keras or you"),
    (on_keras.repair, lambda *a: _tuned(*a), "Correct. Both stand still"),
    (on_keras.repair, lambda *a: None, "Return the model"),
    (on_keras.repair, lambda *a: _tuned(*a, "fc"), "not compiled"),
    (on_keras.repair, lambda *a: _tuned(*a, "uc"), "Both batch norm layers moved"),
    (on_keras.repair, lambda *a: _tuned(*a, "fuc"), "Both batch norm layers moved"),
    (on_keras.repair, lambda *a: _tuned(*a, "ucf"), "compile last"),
    (on_keras.repair, lambda *a: _tuned(*a, "ucfc"), "Correct. Both stand still"),
    (on_keras.repair, lambda *a: _held(*a), "gamma and beta are trained"),
    (on_keras.repair, lambda *a: _tuned(*a, "cf"), "dense layers of the base"),
    (on_keras.repair, lambda *a: _tuned(*a, "ushc"), "in a model within"),
    (on_keras.repair, lambda *a: _tuned(*a, "udc"), "right in the base"),
    (on_keras.repair, lambda *a: _tuned(*a, "ufhc"), "The head is not trained"),
    (on_keras.renew, lambda m, x: _renewed(m, x), "Correct. New statistics"),
    (on_keras.renew, lambda m, x: m.predict(x, verbose=0), "In which mode"),
    (on_keras.renew, lambda m, x: m(x, training=True), "weighs the old"),
    (on_keras.renew, lambda m, x: _renewed(m, x, back=False), "afterwards"),
    (on_keras.renew, lambda m, x: _renewed(m, x, first=True), "Layer 2 of 2"),
    (on_keras.renew, lambda m, x: _trained(m, x), "A weight was trained"),
    (on_keras.shared, (4, 29), "Correct. 4 within"),
    (on_keras.shared, (29, 29), "one stream at a time"),
    (on_keras.shared, (4, 4), "between the streams"),
    (on_keras.shared, (29, 4), "swapped"),
    (on_keras.shared, (4, 104), "variance of the two means"),
    (on_keras.shared, (4, 25), "left out the 4 within"),
    (on_keras.shared, 4, "two numbers"),
    # variants
    (on_variants.groups, lambda x, groups: grouped(x, groups), "Correct. One group"),
    (
        on_variants.groups,
        lambda x, groups: grouped(x, groups, mixed=True),
        "One group is right. With 2",
    ),
    (on_variants.groups, lambda x, groups: grouped(x, 1), "all channels, whatever"),
    (on_variants.groups, lambda x, groups: over(x, groups, (1, 2)), "the places, not"),
    (on_variants.groups, lambda x, groups: over(x, groups, 4), "the channels alone"),
    (
        on_variants.groups,
        lambda x, groups: over(x, groups, (1, 2, 3)),
        "the places, not",
    ),
    (
        on_variants.groups,
        lambda x, groups: over(x, groups, (0, 1, 2, 4)),
        "examples too",
    ),
    (on_variants.groups, lambda x, groups: 2 * x, "values differ from"),
    (
        on_variants.groups,
        lambda x, groups: grouped(x, groups, strided=True),
        "neighbouring channels",
    ),
    (on_variants.groups, lambda x, groups: x[0], "should have shape"),
    (on_variants.direction, weight_norm_backward, "Correct. grad_v is at right"),
    (
        on_variants.direction,
        lambda grad, v, g: (grad, (grad * v).sum(axis=0)),
        "not v",
    ),
    (on_variants.direction, lambda grad, v, g: (grad, g), "g itself so far"),
    (on_variants.direction, lambda grad, v, g: (grad, 3 * g), "scales its column"),
    (
        on_variants.direction,
        lambda grad, v, g: (
            g / np.sqrt((v**2).sum(axis=0)) * grad,
            weight_norm_backward(grad, v, g)[1],
        ),
        "the length depends on v",
    ),
    (
        on_variants.direction,
        lambda grad, v, g: (grad, weight_norm_backward(grad, v, g)[1]),
        "at right angles to v; its product",
    ),
    (
        on_variants.direction,
        lambda grad, v, g: (
            weight_norm_backward(grad, v, np.ones_like(g))[0],
            weight_norm_backward(grad, v, g)[1],
        ),
        "Its length is not",
    ),
    (on_variants.direction, lambda grad, v, g: grad, "two arrays"),
    (on_variants.blind, on_variants.BLIND, "Correct. What a norm averages"),
    (
        on_variants.blind,
        on_variants.BLIND | {"batch": {"image 0 brighter"}},
        "it notices one of yours",
    ),
    (on_variants.blind, on_variants.BLIND | {"layer": set()}, "blind to 3 more"),
    (on_variants.blind, {}, "with the keys"),
    (on_variants.blind, on_variants.BLIND | {"layer": "all"}, "give a set of names"),
    (on_variants.blind, on_variants.BLIND | {"layer": {"all"}}, "none of the changes"),
    (on_variants.blind, on_variants.BLIND | {"layer": [set()]}, "none of the changes"),
    # appendix
    (on_swapping.training, _same_in_training(), "Correct. It sees outputs"),
    (on_swapping.training, _same_in_training(restore=False), "Put the weights back"),
    (on_swapping.training, _same_in_training(mode=False), "ask for training=True"),
    (on_swapping.training, _same_in_training(statistics=False), "another momentum"),
    (on_swapping.training, lambda model, copy, x: False, "is said to differ"),
    (on_swapping.training, lambda model, copy, x: None, "True or False"),
    (on_wild.stall, (1, 2), "Correct. It never leaves 1"),
    (on_wild.stall, (0.5, 8), "where float32 takes it"),
    (on_wild.stall, (0.695, 2), "first move, 0.0005"),
    (on_wild.stall, (1, 1), "first move is 0.007"),
    (on_wild.stall, (1, 4), "where the gap grows"),
    (on_wild.stall, 1, "two numbers"),
    (on_shipping.compare, lambda m, c: _compare(m, c), "Correct. It refuses four"),
    (on_shipping.compare, lambda m, c: _compare(m, c, False), "forgets the statistics"),
    (on_shipping.compare, lambda m, c: False, "changes nothing is refused"),
    (on_shipping.compare, lambda m, c: None, "True or False"),
]


def _used(x, mean, variance, gamma, beta):
    return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def _tuned(base, head, order="ufc"):
    """Unfreeze, freeze batch norm (all; s: right in the base; d: deeper), compile, in an order."""
    import keras

    model = keras.Sequential([base, head])
    *_, norm, inner = base.layers
    for letter in order:
        if letter == "u":
            base.trainable = True
        elif letter == "c" and order != "fc":
            model.compile(keras.optimizers.SGD(0.01), "mse")
        elif letter == "h":
            head.trainable = order[1] == "s"
        if letter in "fs":
            norm.trainable = False
        if letter in "fd":
            inner.layers[-1].trainable = False
    return model


def _held(base, head):
    from bnlib.book.finetune import Tuned

    model = Tuned(base, head, hold=True)
    base.trainable = True
    model.compile("sgd", "mse")
    return model


def _renewed(model, x, *, back=True, first=False):
    norms = [layer for layer in model.layers if hasattr(layer, "momentum")]
    kept = [norm.momentum for norm in norms]
    for norm in norms[:1] if first else norms:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum if back else 0.0


def _trained(model, x):
    model.compile("sgd", "mse")
    model.fit(x, x[:, :3], verbose=0)


def _compare(model, convert, drawn=True):
    rng = np.random.default_rng(0)
    norm, inputs = model.layers[1], rng.normal(size=(32, 4))
    if drawn:
        drawn = [rng.normal(size=3) for _ in range(3)]
        norm.set_weights([*drawn, rng.uniform(0.005, 0.02, 3)])
    return np.allclose(model(inputs), convert(model)(inputs), atol=1e-4)


def _pooled(mean_a, variance_a, n_a, mean_b, variance_b, n_b):
    from bnlib import Moments

    return merge_moments(
        [Moments(mean_a, variance_a, n_a), Moments(mean_b, variance_b, n_b)]
    )[:2]


def _odd_epsilon(case, kind=None):
    """The rule of the chapter on the doctor, right or with a fault."""
    found = {place.path: place.layer.epsilon for place in case.norms}
    usual = 1e-5 if kind == "1e-3" else Counter(found.values()).most_common(1)[0][0]
    if kind == "first":
        usual = next(iter(found.values()))
    if kind == "median":
        usual = np.median(list(found.values()))
    differ = len(set(found.values())) > 1
    for path, epsilon in found.items():
        wrong = {
            None: epsilon != usual,
            all: True,
            "usual": differ and epsilon == usual,
            "both": differ,
        }.get(kind, epsilon != usual)
        if wrong:
            yield Fault(path, "" if kind == "silent" else "epsilon differs.", {})


def _pool(means, variances, counts):
    mean = np.average(means, axis=0, weights=counts)
    return mean, np.average(variances + (means - mean) ** 2, axis=0, weights=counts)


def _pool_in_part(means, variances, counts, fault):
    """Pool, but weigh one of the two terms as if all parts were of one size."""
    mean = np.average(means, axis=0, weights=counts)
    if fault == "within":
        between = np.average((means - mean) ** 2, axis=0, weights=counts)
        return mean, variances.mean(axis=0) + between
    return mean, np.average(variances, axis=0, weights=counts) + means.var(axis=0)


def _converted(state, eps):
    """The right answer for a PyTorch network, with this much added to the variance."""
    names = ("weight", "bias", "running_mean", "running_var")
    norm = [state[f"bn.{name}"] for name in names]
    norm[3] = norm[3] + eps
    conv = [state["conv.weight"].transpose(2, 3, 1, 0)]
    return conv, norm, [state["fc.weight"].T, state["fc.bias"]]


def _in_gamma(state, eps):
    """Another right answer: gamma makes up for epsilon, and the variance stays."""
    conv, norm, dense = _converted(state, 0)
    norm[0] = norm[0] * np.sqrt(norm[3] / (norm[3] + eps))
    return conv, norm, dense


def _divided(sum_mean, sum_variance, factor):
    share = 0 if factor == 0 else 1 / factor
    return sum_mean * share, sum_variance * share


def _scaled(train, test, by):
    return [(x - by.mean(axis=0)) / by.std(axis=0) for x in (train, test)]


def _fold_then_add(kernel, bias, *batch_norm, epsilon=0.1):
    kernel, shift = fold(kernel, None, *batch_norm[:-1], epsilon=epsilon)
    return kernel, shift + bias


def _signs(differences, ends=2, more=True, odd=0.0, turned=True, most=1, ties=False):
    kept = differences if ties else differences[differences != 0]
    n, wins = len(kept), int(np.sum(kept > 0))
    wins = max(wins, n - wins) if turned else wins
    counts = range(wins, n + 1) if more else [wins]
    share = ends * sum(math.comb(n, k) for k in counts) / 2**n
    return min(share, most) + (odd if n == 8 else 0)


def _steps_to(accuracies, target, every, never=None):
    hits = [k for k, each in enumerate(accuracies) if each >= target]
    return hits[0] * every if hits else never


def _steps_above(accuracies, target, every):
    return _steps_to(accuracies, np.nextafter(target, 1), every, np.inf)


def _shift(p, mean=1, *, scaled=True):
    variance = 0.5 / (1 - p) - 0.5 / np.pi / mean**2
    return variance / (0.5 - 0.5 / np.pi) if scaled else variance


@pytest.mark.parametrize(("check", "answer", "feedback"), ANSWERS)
def test_feedback(check, answer, feedback, capsys):
    assert check(answer) is None
    printed = capsys.readouterr().out
    assert feedback in printed
    assert printed.startswith(
        "Correct." if feedback.startswith("Correct") else "Not yet."
    )


def test_the_outputs_that_walk_compares_depend_on_every_layer():
    for name, network, x, _ in on_parameters.walked():
        outputs = network.outputs(x, training=False)
        assert outputs[-1].std(axis=0).min() > 0.05, name
        for layer, y in zip(network.layers, outputs, strict=True):
            assert y.std(axis=0).max() > 0.05, name
            if isinstance(layer, Activation):
                assert 0.05 < np.mean(y > 0) < 0.95, name


def test_every_checker_has_a_right_and_a_wrong_answer_here():
    for module in (
        on_axes,
        on_claims,
        on_conventions,
        on_doctor,
        on_experiments,
        on_gradient,
        on_keras,
        on_layer,
        on_moments,
        on_network,
        on_parameters,
        on_population,
        on_replicas,
        on_tf_ops,
        on_transform,
        on_variants,
    ):
        for name in module.__all__:
            verdicts = {
                f.startswith("Correct")
                for check, _, f in ANSWERS
                if check is getattr(module, name)
            }
            assert verdicts == {True, False}, name
