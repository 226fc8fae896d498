"""Train a network of 20 layers with and without batch norm, at both levels of TensorFlow.

After Udacity's lesson, reduced from MNIST to the digits: 19 convolutions, 100 units and ten logits,
Adam with a rate of 0.002. Stored are the shares of right answers on the test digits, and on 100 of
them that come one at a time.

    python benchmarks/depth.py [--seeds 5] [--json bnlib/book/stored/depth.json]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # before core has its own wish

import tensorflow as tf
from core import surroundings
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib.book.convnet import as_images
from bnlib.book.network import accuracy
from bnlib.book.tf_network import Deep, PlainNorm, deep_in_keras, singly, train

STEPS, RATE = 150, 0.002
NETWORKS = {
    "tf.nn, no batch norm": lambda seed: Deep(None, seed),
    "tf.nn, no batch norm, He": lambda seed: Deep(None, seed, None),
    "tf.nn, batch norm": lambda seed: Deep(PlainNorm, seed),
    "Keras, no batch norm": lambda seed: deep_in_keras(False, seed),
    "Keras, batch norm": lambda seed: deep_in_keras(True, seed),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    x, y, x_test, y_test = as_images("float32")
    found = {}
    for name, make in NETWORKS.items():
        found[name] = []
        for seed in track(range(options.seeds), name):
            net = make(seed)
            train(net, x, y, steps=STEPS, rate=RATE, seed=seed, adam=True)
            call = tf.function(net)
            found[name].append(
                {
                    "test": accuracy(net, x_test, y_test),
                    "one at a time": singly(call, x_test[:100], y_test[:100]),
                }
            )
    shown = Table("network", "test", "one at a time")
    for name, rows in found.items():
        columns = ([f"{row[k]:.2f}" for row in rows] for k in ("test", "one at a time"))
        shown.add_row(name, *map(" ".join, columns))
    Console(width=120).print(shown)
    if options.json:
        stored = {"surroundings": surroundings(), "steps": STEPS, "right": found}
        options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
