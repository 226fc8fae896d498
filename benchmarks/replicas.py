"""Train with few examples per replica, and time the exchange: the figures of chapter 11.

Three layers (Keras's alone, ours alone, ours synchronised) train the same network on the same
batches, 2 examples on each of 4 logical CPU devices, from several seeds. Then one step of each is
timed, in turn. Seeds give the same accuracies in each run.

    python benchmarks/replicas.py [--seeds 5] [--epochs 5] [--json FILE]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

from bnlib.book.data import digits
from bnlib.book.timing import in_turn, surroundings
from bnlib.keras import BatchNormalization
from bnlib.replicas import mirrored, per_replica, train_step

REPLICAS, EXAMPLES, WIDTH, RATE = 4, 2, 64, 0.1
LAYERS = {
    "Keras, alone": (keras.layers.BatchNormalization, False),
    "ours, alone": (BatchNormalization, False),
    "ours, synchronised": (BatchNormalization, True),
}


def network(norm):
    """Five dense layers, batch norm before each relu."""
    layers = [keras.Input((64,))]
    for _ in range(4):
        layers += [
            keras.layers.Dense(WIDTH, use_bias=False),
            norm(),
            keras.layers.ReLU(),
        ]
    return keras.Sequential([*layers, keras.layers.Dense(10)])


def loss(labels, outputs):
    return keras.losses.sparse_categorical_crossentropy(
        labels, outputs, from_logits=True
    )


def made(strategy, name, seed):
    """Return a fresh network and its training step."""
    kind, synchronized = LAYERS[name]
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        model = network(lambda: kind(synchronized=synchronized))
        optimizer = keras.optimizers.SGD(RATE)
    return model, train_step(strategy, model, optimizer, loss)


def batches(strategy, x, y, seed, epochs):
    """Yield the parts of each batch, in an order that depends on the seed alone."""
    rng, size = np.random.default_rng(seed), strategy.num_replicas_in_sync * EXAMPLES
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - size + 1, size):
            chosen = np.split(
                order[start : start + size], len(order[:size]) // EXAMPLES
            )
            yield [per_replica(strategy, [v[c] for c in chosen]) for v in (x, y)]


def accuracy(strategy, name, seed, epochs):
    data = digits()
    x, x_test = (images.reshape(-1, 64) / 16 for images in (data.x_train, data.x_test))
    model, step = made(strategy, name, seed)
    for parts in batches(strategy, x, data.y_train, seed, epochs):
        step(*parts)
    outputs = model(x_test, training=False).numpy()  # by what .numpy() and saving read
    return float(np.mean(outputs.argmax(1) == data.y_test))


def step_times(strategy, rounds):
    """Return the median milliseconds of one step with each layer."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(EXAMPLES, 64)) for _ in range(REPLICAS)]
    labels = [rng.integers(10, size=EXAMPLES) for _ in range(REPLICAS)]
    given = [per_replica(strategy, each) for each in (parts, labels)]
    steps = {name: made(strategy, name, 0)[1] for name in LAYERS}
    calls = {name: lambda s=step: s(*given).numpy() for name, step in steps.items()}
    for call in calls.values():
        call()
    return in_turn(calls, rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    keras.config.set_floatx("float64")
    tf.get_logger().setLevel("ERROR")
    strategy, seeds = mirrored(REPLICAS), range(options.seeds)
    found = {
        "surroundings": surroundings(),
        "settings": {
            "replicas": REPLICAS,
            "examples per replica": EXAMPLES,
            "epochs": options.epochs,
            "seeds": list(seeds),
            "rounds": options.rounds,
        },
        "milliseconds per step": step_times(strategy, options.rounds),
        "accuracy": {name: [] for name in LAYERS},
    }
    for seed in seeds:
        for name, values in found["accuracy"].items():
            values.append(accuracy(strategy, name, seed, options.epochs))
            print(seed, name, values[-1], flush=True)
        if options.json:  # after each seed: it takes a while
            options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(found["milliseconds per step"])


if __name__ == "__main__":
    main()
