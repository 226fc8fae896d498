"""Measure what a large mean does to batch norm in TensorFlow, up to the accuracy of a network.

First the error of the normalised output, by the ratio of mean to deviation. Then the book's network
with a batch norm on its input, trained on digits whose pixels, 0 to 16, have a constant added, as a
sensor has that nobody centred. All in float32. TensorFlow reads whether to use oneDNN when it
starts, so each setting is a process of its own.

    python benchmarks/large_means.py [--seeds 5] [--json bnlib/book/stored/large_means.json]
"""

import argparse
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # before core has its own wish

import numpy as np

DISTANCES = [10.0**k for k in range(8)]
CONSTANTS = [0.0, 1e3, 1e4, 1e5, 1e6, 1e7]


def error(norm, x):
    """The largest error of a channel, averaged over the channels."""
    import tensorflow as tf

    import bnlib

    truth, *_ = bnlib.batch_norm(x.astype(np.float64))
    y = norm(x.shape[-1])(tf.constant(x[:, np.newaxis, np.newaxis]), True)
    return float(np.abs(y[:, 0, 0].numpy() - truth).max(axis=0).mean())


def measure(seeds):
    """Return {"errors": ..., "right": ...} for the setting of this process."""
    from rich.progress import track

    from bnlib.book.convnet import as_images
    from bnlib.book.network import accuracy
    from bnlib.book.tf_network import (
        FusedNorm,
        Network,
        PlainNorm,
        SafeNorm,
        train,
    )

    norms = {"two functions": PlainNorm, "fused": FusedNorm, "bnlib": SafeNorm}
    noise = np.random.default_rng(0).normal(size=(3000, 64))
    errors = {
        name: [error(norm, (noise + d).astype("f4")) for d in DISTANCES]
        for name, norm in norms.items()
    }
    x, y, x_test, y_test = as_images("float64")
    cases = [(name, norm, 0.9) for name, norm in norms.items()]
    cases.append(("two functions, momentum 0.99", PlainNorm, 0.99))
    found = {name: {} for name, *_ in cases}
    for constant in track(CONSTANTS, "constants"):
        a, b = ((16 * images + constant).astype("f4") for images in (x, x_test))
        for name, norm, momentum in cases:
            rows = []
            for seed in range(seeds):
                maker = functools.partial(norm, momentum=momentum)
                net = Network(maker, seed, "float32", first=True)
                train(net, a, y, seed=seed)
                moving = float(net.first.moving_mean[0]) - constant
                inference = accuracy(net, b, y_test)
                rows.append(
                    {
                        "inference": inference,
                        "batch": accuracy(net, b, y_test, training=True),
                        "moving mean less the constant": moving,
                    }
                )
            found[name][f"{constant:g}"] = rows
    return {"errors": errors, "right": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the figures here")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write("\n" + json.dumps(measure(options.seeds)))
        return
    from core import surroundings

    stored = {"surroundings": surroundings(), "distances": DISTANCES}
    for setting in ("0", "1"):
        ended = subprocess.run(
            [sys.executable, __file__, "--one", "--seeds", str(options.seeds)],
            env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": setting},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        name = "oneDNN on" if setting == "1" else "oneDNN off"
        stored[name] = json.loads(ended.stdout.splitlines()[-1])
    if options.json:
        options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
