"""Compare the norms of chapter 14 where they differ, and store what each run reached.

    python benchmarks/variants.py batch     # and each other part: see part_ below
    python benchmarks/variants.py --times   # what each costs; on a quiet machine

Each part is stored in `bnlib/book/stored/variants_PART.json` and takes one to four minutes of one
core. All networks are those of the book's wing, in float64, on the 8x8 digits, with plain gradient
descent; all settings of a part see the same seeds.
"""

import argparse
import os
import tracemalloc
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from bnlib import BatchNorm, batch_norm, batch_norm_backward, variants
from bnlib.book import norms
from bnlib.book.data import digits
from bnlib.book.experiments import keep, sweep
from bnlib.book.network import (
    Dense,
    accuracy,
    convolutional,
    dense,
    recalibrate,
    softmax_cross_entropy,
    train,
)
from bnlib.book.sequences import attentive, recurrent
from bnlib.book.timing import in_turn

STORED = Path(__file__).parents[1] / "bnlib/book/stored"
SEEDS = range(5)
SIZES = [2, 4, 8, 16, 64, 256]
EPOCHS = 6


def quick(channels):
    """Batch norm whose moving statistics follow soon."""
    return BatchNorm(channels, momentum=0.9)


def scaled(rate, batch, least=0.0):
    """Scale a rate that suits a batch of 64."""
    return max(rate * batch / 64, least)


def fit(network, x, y, *, rate, batch, seed, steps=None):
    """Train for some epochs or steps; some of these runs overflow."""
    steps = steps or EPOCHS * (len(x) // batch)
    options = {"rate": rate, "steps": steps, "batch": batch, "seed": seed}
    with np.errstate(all="ignore"):
        return train(network, x, y, softmax_cross_entropy, **options)


# Error against batch size, and batch renorm


def schedule(steps):
    """Batch renorm's limits as in its paper: those of batch norm first, then wider ones."""

    def limits(step):
        share = step / steps
        rmax = 1 + 2 * np.clip((share - 0.05) / 0.35, 0, 1)
        dmax = 5 * np.clip((share - 0.05) / 0.2, 0, 1)
        return float(rmax), float(dmax)

    return limits


def scheduled(batch):
    return lambda channels: norms.Renorm(
        channels, clipping=schedule(EPOCHS * (1347 // batch))
    )


BY_BATCH = {
    "none": lambda batch: None,
    "batch": lambda batch: BatchNorm,
    "renorm": scheduled,
    "ghost": lambda batch: lambda channels: norms.Ghost(channels, 16),
    "group": lambda batch: norms.group(10),
    "layer": lambda batch: norms.layer,
}


def by_batch(seed, *, make, batch, rate=None, steps=None):
    """Train five hidden layers; measure with the moving statistics, and with exact ones."""
    data = digits().flat
    x, x_test = data.x_train / 16, data.x_test / 16
    network = dense([64, *[100] * 5, 10], seed=seed, norm=make)
    rate = rate or scaled(0.1, batch, 0.004)
    losses = fit(
        network, x, data.y_train, rate=rate, batch=batch, seed=seed, steps=steps
    )
    found = {"moving": accuracy(network, x_test, data.y_test)}
    recalibrate(network, [x])
    found["exact"] = accuracy(network, x_test, data.y_test)
    return found | {"loss": round(float(np.mean(losses[-20:])), 4)}


def part_batch():
    settings = {
        f"{name} {batch}": {"make": make(batch), "batch": batch}
        for name, make in BY_BATCH.items()
        for batch in SIZES
        if name != "ghost" or batch > 16
    }
    gentle = {"batch": 256, "rate": 0.1, "steps": 4 * EPOCHS * (1347 // 256)}
    for name in ("none", "batch", "group", "layer"):
        settings[f"{name} gentle"] = {"make": BY_BATCH[name](256), **gentle}
    return sweep(by_batch, settings, SEEDS, progress=True)


def part_renorm():
    steps = EPOCHS * (1347 // 4)

    def renorm(**options):
        return lambda channels: norms.Renorm(channels, **options)

    limits = schedule(steps)
    settings = {
        "batch norm": BatchNorm,
        "no limits": renorm(),
        "limits from the start": renorm(clipping=lambda step: (3.0, 5.0)),
        "schedule": renorm(clipping=limits),
    }
    for momentum in (0.0, 0.5, 0.9, 0.999):
        options = {"clipping": limits, "renorm_momentum": momentum}
        settings[f"momentum {momentum}"] = renorm(**options)
    settings = {name: {"make": make, "batch": 4} for name, make in settings.items()}
    return sweep(by_batch, settings, SEEDS, progress=True)


# Sequences

KINDS = {"none": None, "batch": quick, "layer": norms.layer}


def rows(seed, *, norm, batch):
    """Read the digits row by row; measure with three kinds of statistics."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    network = recurrent(KINDS[norm], seed)
    fit(network, x, data.y_train, rate=scaled(0.5, batch), batch=batch, seed=seed)
    found = {"moving": accuracy(network, x_test, data.y_test)}
    if norm == "batch":
        for name, together in (("each step", False), ("together", True)):
            network.layers[0].measure(x, together=together)
            found[name] = accuracy(network, x_test, data.y_test)
    return found


def part_recurrent():
    settings = {
        f"{norm} {batch}": {"norm": norm, "batch": batch}
        for norm in KINDS
        for batch in (64, 16, 4)
    }
    return sweep(rows, settings, SEEDS, progress=True)


TOKENS = KINDS | {"rms": norms.rms, "tanh": norms.squash}


def tokens(seed, *, norm, batch, rate, steps):
    """Read the eight rows of a digit as eight tokens."""
    data = digits()
    x, x_test = data.x_train / 16, data.x_test / 16
    network = attentive(TOKENS[norm], seed)
    options = {"rate": rate, "batch": batch, "steps": steps, "seed": seed}
    losses = fit(network, x, data.y_train, **options)
    return {
        "test": accuracy(network, x_test, data.y_test),
        "loss": round(float(np.nan_to_num(np.mean(losses[-20:]), nan=99)), 4),
    }


def part_attention():
    settings = {}
    for norm in TOKENS:
        options = {"norm": norm, "batch": 64, "steps": 630}
        settings[f"{norm} 64"] = options | {"rate": 0.05}
        settings[f"{norm} 64 fast"] = options | {"rate": 0.2}
        options = {"norm": norm, "batch": 2, "steps": 2000}
        settings[f"{norm} 2"] = options | {"rate": 0.01}
    return sweep(tokens, settings, SEEDS, progress=True)


# Contrast

IMAGES = {
    "batch": quick,
    "instance": norms.instance,
    "early": lambda channels: (norms.instance if channels == 8 else quick)(channels),
    "halves": lambda channels: norms.Halves(channels, momentum=0.9),
    "group": norms.group(4),
}


def contrast(seed, *, norm):
    """Test under other contrasts; then let the contrast be what is asked for."""
    data = digits()
    x, x_test = (each[..., np.newaxis] / 16 for each in (data.x_train, data.x_test))
    options = {"rate": 0.3, "batch": 64, "steps": 210, "seed": seed}
    network = convolutional(seed, IMAGES[norm])
    fit(network, x, data.y_train, **options)
    found = {
        f"contrast {c}": accuracy(network, c * x_test, data.y_test)
        for c in (1, 0.5, 0.25)
    }
    rng = np.random.default_rng(100 + seed)
    pale, pale_test = (rng.random(len(each)) < 0.5 for each in (x, x_test))
    x, x_test = (
        each * np.where(halved, 0.5, 1)[:, None, None, None]
        for each, halved in ((x, pale), (x_test, pale_test))
    )
    network = convolutional(seed, IMAGES[norm])
    network.layers[-1] = Dense(32, 20, np.random.default_rng(seed))
    fit(network, x, data.y_train + 10 * pale, **options)
    guess = np.argmax(network(x_test, training=False), axis=1)
    found["digit"] = np.mean(guess % 10 == data.y_test)
    found["paleness"] = np.mean(guess // 10 == pale_test)
    return found


def part_contrast():
    settings = {norm: {"norm": norm} for norm in IMAGES}
    return sweep(contrast, settings, SEEDS, progress=True)


# Norms of weights

WEIGHTS = {  # the norm of activations, the norm of weights
    "none": (None, None),
    "batch": (quick, None),
    "layer": (norms.layer, None),
    "weight": (None, "weight norm"),
    "standardised, group": (norms.group(10), "standardised"),
    "scaled": (None, "scaled"),
}


def weights(seed, *, kind, depth, rate):
    """Train a deep ReLU network; measure its accuracy and how its first batch is spread."""
    data = digits().flat
    mean, deviation = data.x_train.mean(), data.x_train.std()
    x, x_test = ((each - mean) / deviation for each in (data.x_train, data.x_test))
    norm, reweight = WEIGHTS[kind]
    network = dense([64, *[100] * depth, 10], seed=seed, norm=norm)
    if reweight:
        network.layers[:-1] = [
            norms.reweighted(layer, reweight) if isinstance(layer, Dense) else layer
            for layer in network.layers[:-1]
        ]
    outputs = network.outputs(x[:64], training=True)
    fit(network, x, data.y_train, rate=rate, batch=64, steps=210, seed=seed)
    last = outputs[-3]  # before the last activation
    return {"test": accuracy(network, x_test, data.y_test), "spread": last.std()}


def part_weights():
    settings = {
        f"{kind} {rate}": {"kind": kind, "depth": 16, "rate": rate}
        for kind in WEIGHTS
        for rate in (0.05, 0.1, 0.2)
    }
    return sweep(weights, settings, SEEDS, progress=True)


# What each costs

SHAPE = 16, 16, 16, 32
FUNCTIONS = {
    "batch": (batch_norm, batch_norm_backward, ()),
    "ghost": (variants.ghost_batch_norm, variants.ghost_batch_norm_backward, (8,)),
    "group": (variants.group_norm, variants.group_norm_backward, (8,)),
    "instance": (variants.instance_norm, variants.instance_norm_backward, ()),
    "layer": (variants.layer_norm, variants.layer_norm_backward, ()),
    "rms": (variants.rms_norm, variants.rms_norm_backward, ()),
}


def numpy_times(rounds):
    """Time one training step, forward and backward, of the functions of bnlib."""
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=(2, *SHAPE)).astype("float32")
    gamma, beta = np.ones(SHAPE[-1]), np.zeros(SHAPE[-1])

    def step(forward, backward, extra):
        def call():
            forward(x, *extra, gamma, *([beta] if forward != variants.rms_norm else []))
            backward(grad, x, *extra, gamma)

        return call

    return in_turn({name: step(*each) for name, each in FUNCTIONS.items()}, rounds)


def keras_times(rounds):
    """Time a convolution with a norm in Keras, compiled: a training step and an inference."""
    import keras
    import tensorflow as tf

    layers = {
        "none": None,
        "batch": keras.layers.BatchNormalization,
        "group": lambda: keras.layers.GroupNormalization(8),
        "layer": keras.layers.LayerNormalization,
        "rms": keras.layers.RMSNormalization,
    }
    x = tf.constant(np.random.default_rng(0).normal(size=SHAPE), "float32")
    steps, answers = {}, {}
    for name, make in layers.items():
        parts = [keras.Input(SHAPE[1:]), keras.layers.Conv2D(32, 3, padding="same")]
        model = keras.Sequential([*parts, *([make()] if make else [])])

        def step(model=model):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x, training=True) ** 3)
            return tape.gradient(loss, model.trainable_variables)

        steps[name] = tf.function(step)
        answers[name] = tf.function(lambda model=model: model(x, training=False))
    # folded into the convolution, batch norm is gone
    return {"step": in_turn(steps, rounds, 5), "answer": in_turn(answers, rounds, 5)}


def memory():
    """Measure the peak of one training step of the book's convolutional network, in MB."""
    data, found = digits(), {}
    kinds = {"none": None, "batch": quick, "group": norms.group(4)}
    for name, norm in kinds.items():
        for batch in (2, 16, 64):
            network = convolutional(0, norm)
            x, y = data.x_train[:batch, ..., np.newaxis] / 16, data.y_train[:batch]
            for _ in range(2):  # the first warms up
                tracemalloc.start()
                _, grad = softmax_cross_entropy(network(x, training=True), y)
                network.backward(grad)
                network.step(0.1)
                peak = tracemalloc.get_traced_memory()[1] / 1e6
                tracemalloc.stop()
            found[f"{name} {batch}"] = round(peak, 3)
    return found


def times(path, rounds):
    found = {"numpy": numpy_times(rounds), "keras": keras_times(rounds)}
    keep(path, __file__, **found, memory=memory(), shape=SHAPE)


def main():
    known = {n[5:]: part for n, part in globals().items() if n.startswith("part_")}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*known, []])
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, default=STORED, help="the folder")
    options = parser.parse_args()
    for name in options.parts:
        records = known[name]()
        keep(options.json / f"variants_{name}.json", __file__, records=records)
    if options.times:
        times(options.json / "variants_times.json", options.rounds)


if __name__ == "__main__":
    main()
