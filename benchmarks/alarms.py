"""Audit models that nobody has spoilt, and list what is found: false alarms are the measure.

The models of `keras.applications`, without weights: as they are, without data and with; and with
the statistics of the data, measured with all of it as one batch, where nothing is at its start any
more. What is to be expected is BN001 as long as the statistics are at their start, and BN009 where
a convolution has a bias that batch norm makes useless.

    python benchmarks/alarms.py [--only NAME] [--examples 64] [--batch 16] [--json FILE]
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
from core import surroundings
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib.doctor import audit
from bnlib.keras._running import call, in_training

MODELS = (
    "ResNet50",
    "ResNet50V2",
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "DenseNet121",
    "Xception",
    "InceptionV3",
    "NASNetMobile",
)
SIZE = 80  # InceptionV3 takes no less than 75
NORM = keras.layers.BatchNormalization


def images(examples):
    """Return images of spots of all sizes, as a photograph has them, with pixels from 0 to 255."""
    rng, images = np.random.default_rng(0), np.zeros((examples, SIZE, SIZE, 3))
    for size in (80, 40, 20, 10, 5, 2, 1):
        spots = rng.normal(0, 1, (examples, SIZE // size, SIZE // size, 3))
        images += spots.repeat(size, 1).repeat(size, 2)
    return np.clip(128 + 25 * images, 0, 255).astype("float32")


def found(report):
    """Return what a report says, in short."""
    return [
        {
            "code": row.code,
            "level": row.level,
            "layers": len(row.layers),
            "message": row.message,
        }
        for row in report
    ]


def settle(model, x):
    """Give a model the statistics of x, all of it as one batch, with momentum 0."""
    norms = [v for v in model._flatten_layers() if isinstance(v, NORM)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    with in_training(norms):
        call(model, x, training=False)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum


def alarms(name, x, batch):
    """Return what is found in one model, in each state of it."""
    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=x.shape[1:])
    norms = sum(isinstance(v, NORM) for v in model._flatten_layers())
    states = {"untouched": found(audit(model))}
    states["untouched, with data"] = found(audit(model, x, batch_size=batch))
    settle(model, x)
    states["with the statistics of the data"] = found(audit(model, x, batch_size=batch))
    return {"norms": norms, "found": states}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="only models with this in the name")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path, help="store what was found here")
    options = parser.parse_args()
    x, results = images(options.examples), {}
    for name in track([name for name in MODELS if options.only in name], "models"):
        results[name] = alarms(name, x, options.batch)
        keras.backend.clear_session()
        if options.json:  # as far as it has come
            stored = {
                "surroundings": surroundings(),
                "examples": options.examples,
                "batch": options.batch,
                "image": SIZE,
                "models": results,
            }
            options.json.write_text(json.dumps(stored, indent=2) + "\n")
    Console(width=150).print(table(results))


def table(results):
    """Return a line for each model: the codes, and in how many layers."""
    shown = Table("model", "layers")
    for result in results.values():
        for state in result["found"]:
            shown.add_column(state)
        break
    for name, result in results.items():
        cells = (
            ", ".join(f"{row['code']} in {row['layers']}" for row in rows)
            for rows in result["found"].values()
        )
        shown.add_row(name, str(result["norms"]), *cells)
    return shown


if __name__ == "__main__":
    main()
