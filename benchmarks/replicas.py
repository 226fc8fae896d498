"""Train with few examples per replica, count and time the exchanges: the figures of chapter 11.

A dense network and the book's convolutional one see 8 digits in each step: on one device, or 2 on
each of 4 logical CPU devices, with Keras's layer or ours, synchronised or not. Each is scored with
three kinds of statistics, so that a fault of the memory can be told from one of the weights:

- "moving": what the layers remember, as it is read and saved;
- "recalibrated": exact ones, layer by layer, of all training digits;
- "as in training": those of test batches as large as a replica's in training, 2 or 8.

Then one step of each is timed, in turn, and the exchanges in its graph are counted. "five
exchanges" is our layer as it was before count, mean and variance travelled together. Seeds give the
same accuracies in each run, on one processor.

    python benchmarks/replicas.py [--seeds 3] [--epochs 5] [--only times] [--json FILE]
"""

import argparse
import contextlib
import importlib
import json
import os
from collections import Counter
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from core import surroundings
from rich.progress import track

from bnlib.book.convnet import as_images, convolutional
from bnlib.book.timing import in_turn
from bnlib.keras import BatchNormalization
from bnlib.replicas import mirrored, per_replica, train_step
from bnlib.tf_ops import _float64
from bnlib.tf_ops._replicas import all_sum

STORED = Path(__file__).parents[1] / "bnlib/book/stored/replicas.json"
REPLICAS, EXAMPLES, WIDTH, RATE = 4, 2, 64, 0.1
Keras = keras.layers.BatchNormalization
moments = importlib.import_module(
    "bnlib.tf_ops.moments"
)  # the module, not the function

# name: (layer, synchronized, whether the 8 are on one device)
LAYERS = {
    "one device with 8": (Keras, False, True),
    "Keras, alone": (Keras, False, False),
    "ours, alone": (BatchNormalization, False, False),
    "Keras, synchronised": (Keras, True, False),
    "ours, synchronised": (BatchNormalization, True, False),
}


def dense(norm):
    """Five dense layers, batch norm before each relu; takes images."""
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten()]
    for _ in range(4):
        layers += [
            keras.layers.Dense(WIDTH, use_bias=False),
            norm(),
            keras.layers.ReLU(),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(10)])


def network(name, norm, seed):
    keras.utils.set_random_seed(seed)
    return dense(norm) if name == "dense" else convolutional(seed, norm)


def loss(labels, outputs):
    return keras.losses.sparse_categorical_crossentropy(
        labels, outputs, from_logits=True
    )


def made(strategy, net, name, seed):
    """Return a fresh network and its training step."""
    kind, synchronized, _ = LAYERS[name]
    with strategy.scope():
        model = network(net, lambda: kind(synchronized=synchronized), seed)
        optimizer = keras.optimizers.SGD(RATE)
    return model, train_step(strategy, model, optimizer, loss)


def strategy_of(name, many):
    return tf.distribute.OneDeviceStrategy("CPU:0") if LAYERS[name][2] else many


def batches(strategy, x, y, seed, epochs):
    """Yield the parts of each batch of 8, in an order that depends on the seed alone."""
    rng, size = np.random.default_rng(seed), REPLICAS * EXAMPLES
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - size + 1, size):
            parts = np.split(order[start : start + size], strategy.num_replicas_in_sync)
            yield [per_replica(strategy, [v[c] for c in parts]) for v in (x, y)]


def accuracy(model, x, y, *, size=None):
    """Score with moving statistics, or with those of test batches of one size."""
    if size is None:
        outputs = model(x, training=False).numpy()
    else:
        call = tf.function(lambda part: model(part, training=True), autograph=False)
        x, y = (v[: len(v) // size * size] for v in (x, y))
        outputs = np.concatenate([call(part) for part in x.reshape(-1, size, 8, 8, 1)])
    return float(np.mean(outputs.argmax(1) == y))


def recalibrate(model, x):
    """Give each batch norm layer the exact statistics of what arrives there."""
    for layer in model.layers:
        if isinstance(layer, Keras):
            axes = tuple(range(x.ndim - 1))
            layer.moving_mean.assign(x.mean(axis=axes))
            layer.moving_variance.assign(x.var(axis=axes))
        x = layer(x, training=False).numpy()


def scores(many, net, name, seed, epochs):
    """Train, and return the three accuracies in percent."""
    strategy = strategy_of(name, many)
    x, y, x_test, y_test = as_images("float64")
    order = np.random.default_rng(0).permutation(len(x_test))  # for batches of any size
    x_test, y_test = x_test[order], y_test[order]
    model, step = made(strategy, net, name, seed)
    for parts in batches(strategy, x, y, seed, epochs):
        step(*parts)
    plain = network(net, Keras, seed)
    plain.set_weights(
        [w.numpy() for w in model.weights]
    )  # what .numpy() and saving read
    found = {"moving": accuracy(plain, x_test, y_test)}
    _, synchronized, one = LAYERS[name]
    recalibrate(plain, x)
    found["recalibrated"] = accuracy(plain, x_test, y_test)
    size = REPLICAS * EXAMPLES if synchronized or one else EXAMPLES
    found["as in training"] = accuracy(plain, x_test, y_test, size=size)
    return {key: round(100 * value, 1) for key, value in found.items()}


@contextlib.contextmanager
def apart():
    """Exchange as before: counts, means and squares each on their own, and two sums backward."""

    def sync_moments(local):
        mean, variance, count = (tf.cast(value, tf.float64) for value in local)
        whole = all_sum(count)
        centre = tf.math.divide_no_nan(all_sum(count * mean), whole)
        squares = all_sum(count * (variance + tf.square(mean - centre)))
        return moments.Moments(centre, tf.math.divide_no_nan(squares, whole), whole)

    def all_sums(*values):
        return [all_sum(value) for value in values]

    with (
        mock.patch.object(moments, "sync_moments", sync_moments),
        mock.patch.object(_float64, "all_sums", all_sums),
    ):
        yield


def exchanges(trace):
    """Count the all-reduces that replica 0 asks for while a step is traced."""
    found, plain = Counter(), tf.distribute.ReplicaContext.all_reduce

    def counted(self, *given, **settings):
        found[int(tf.get_static_value(self.replica_id_in_sync_group))] += 1
        return plain(self, *given, **settings)

    with mock.patch.object(tf.distribute.ReplicaContext, "all_reduce", counted):
        trace()
    return found[0]


def step_times(many, net, rounds):
    """Return the median milliseconds of one step with each layer, and its exchanges."""
    x, y, *_ = as_images("float64")
    calls, counts = {}, {}
    for name in [*LAYERS, "ours, synchronised, five exchanges"]:
        before = "five" in name
        kind = "ours, synchronised" if before else name
        strategy = strategy_of(kind, many)
        with apart() if before else contextlib.nullcontext():
            _, step = made(strategy, net, kind, 0)
            given = next(batches(strategy, x, y, 0, 1))
            counts[name] = exchanges(lambda s=step, g=given: s(*g))
        calls[name] = lambda s=step, g=given: s(*g).numpy()
    return in_turn(calls, rounds), counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--only", choices=["times"], help="keep stored accuracies")
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    keras.config.set_floatx("float64")
    tf.get_logger().setLevel("ERROR")
    many, nets = mirrored(REPLICAS), ("dense", "convolutional")
    timed = {net: step_times(many, net, options.rounds) for net in nets}
    found = {
        "surroundings": surroundings(),
        "settings": {
            "replicas": REPLICAS,
            "examples per replica": EXAMPLES,
            "rate": RATE,
            "epochs": options.epochs,
            "seeds": list(range(options.seeds)),
            "rounds": options.rounds,
        },
        "milliseconds per step": {net: times for net, (times, _) in timed.items()},
        "exchanges per step": {net: counts for net, (_, counts) in timed.items()},
        "accuracy": {net: {name: [] for name in LAYERS} for net in nets},
    }
    print(
        json.dumps(
            [found[f"{what} per step"] for what in ("milliseconds", "exchanges")]
        )
    )
    if options.only:
        found["accuracy"] = json.loads(options.json.read_text())["accuracy"]
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        return
    runs = [
        (s, net, name) for s in range(options.seeds) for net in nets for name in LAYERS
    ]
    for seed, net, name in track(runs, "train"):
        now = scores(many, net, name, seed, options.epochs)
        found["accuracy"][net][name].append(now)
        print(seed, net, name, now, flush=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
