"""Fold five architectures of `keras.applications`, and time their answers: part of `make bench`.

Each has random statistics and parameters that suit what its layers get, so that the comparison of
outputs that `fold` makes is evidence. What it leaves is told by the layers before and after it. One
image and a batch of eight are timed, with `predict_on_batch` and as a `tf.function`, with batch
norm and folded in turn in one process. The figure is the time folded over the time with batch norm.

    python benchmarks/fold_models.py [--rounds 7] [--size 128] [--json FILE]
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
from core import surroundings
from rich.console import Console
from rich.table import Table

from bnlib.book.timing import in_turn
from bnlib.doctor import fold
from bnlib.doctor._evidence import shaken

MODELS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121", "Xception")
BATCHES = {"one image": 1, "eight images": 8}


def pair(name, size):
    """Return a model with random statistics, its fold, and the report."""
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(size, size, 3), classes=10)
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("f4")
    model = shaken(model, images)
    return model, *fold(model, images)


def predict(model, images):
    """Return a function without arguments that answers by `predict_on_batch`."""
    return lambda: model.predict_on_batch(images)


def compiled(model, images):
    """Return a function without arguments that answers as a `tf.function`."""
    answer, x = tf.function(model), tf.constant(images)
    return lambda: answer(x, training=False).numpy()


WAYS = {"predict_on_batch": predict, "tf.function": compiled}


def measure(model, folded, size, rounds):
    """Return {batch: {way: {"with batch norm" or "folded": milliseconds}}}."""
    found = {}
    for batch, count in BATCHES.items():
        images = np.random.default_rng(1).normal(size=(count, size, size, 3))
        images = images.astype("f4")
        found[batch] = {
            name: in_turn(
                {
                    "with batch norm": way(model, images),
                    "folded": way(folded, images),
                },
                rounds,
            )
            for name, way in WAYS.items()
        }
    return found


def left(report):
    """Count the layers that were left, by what is before and after them."""
    counts = {}
    for row in report.at_least("info"):
        kinds = [part.split(")")[0] for part in row.why.split("(")[1:]]
        reason = " and ".join(kinds) or row.why
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=128, help="of the images")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    console, stored = Console(width=120), {}
    columns = Table(
        "model", "folded", "difference", "batch", "way", "with BN", "folded", "ratio"
    )
    for name in options.models:
        model, folded, report = pair(name, options.size)
        rows = [row for row in report if row.into]
        apart = max(row.difference for row in rows)
        times = measure(model, folded, options.size, options.rounds)
        stored[name] = {
            "batch norm layers": len(report),
            "folded": len(rows),
            "left": left(report),
            "difference": apart,
            "milliseconds": times,
        }
        counts = f"{len(rows)} of {len(report)}"
        for batch, ways in times.items():
            for way, (before, after) in ((w, t.values()) for w, t in ways.items()):
                cells = [f"{before:.1f} ms", f"{after:.1f} ms", f"{after / before:.2f}"]
                columns.add_row(name, counts, f"{apart:.1g}", batch, way, *cells)
        console.print(name, *report.notes, left(report))
        keras.backend.clear_session()
    console.print(columns)
    if options.json:
        text = {"surroundings": surroundings(), "size": options.size, "models": stored}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
