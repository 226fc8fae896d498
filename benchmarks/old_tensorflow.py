"""Ask slim, the last of tf.contrib.layers, and tf.layers; for "Reading old TensorFlow".

    python benchmarks/old_tensorflow.py [--json bnlib/book/stored/old_tensorflow.json]

It needs tf_slim and tf_keras, which the book's environment does not have. Half a minute.
"""

import argparse
import datetime
import importlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

STORED = Path(__file__).parents[1] / "bnlib/book/stored/old_tensorflow.json"
v1 = tf.compat.v1


def import_slim():
    """Import tf_slim, for which TensorFlow 2.21 and tf_keras 2.21 lack three old names."""
    from tensorflow.python.framework import ops

    for name in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        inside = importlib.import_module(f"tf_keras.src.legacy_tf_layers{name}")
        sys.modules[f"tf_keras.legacy_tf_layers{name}"] = inside
    ops.Tensor = tf.Tensor
    return importlib.import_module("tf_slim")


def cases(slim):
    """Return calls by name; each builds a part of a graph from a batch of images or of rows."""

    def cond(x):
        phase, layer = v1.placeholder(tf.bool, ()), slim.batch_norm
        return v1.cond(
            phase,
            lambda: layer(x, is_training=True, scope="bn", updates_collections=None),
            lambda: layer(x, is_training=False, scope="bn", reuse=True),
        )

    norm = {"normalizer_fn": slim.batch_norm}
    return {
        "conv2d": lambda x: slim.conv2d(x, 4, 3),
        "conv2d, normalizer_fn": lambda x: slim.conv2d(x, 4, 3, **norm),
        "conv2d, normalizer_fn, biases_initializer": lambda x: slim.conv2d(
            x, 4, 3, biases_initializer=v1.ones_initializer(), **norm
        ),
        "batch_norm": lambda x: slim.batch_norm(x),
        "batch_norm, scale": lambda x: slim.batch_norm(x, scale=True),
        "batch_norm, zero_debias": lambda x: slim.batch_norm(
            x, zero_debias_moving_mean=True
        ),
        "twice, no scope": lambda x: [slim.batch_norm(x), slim.batch_norm(x)],
        "twice, one scope": lambda x: [
            slim.batch_norm(x, scope="bn"),
            slim.batch_norm(x, scope="bn"),
        ],
        "twice, one scope, reuse": lambda x: [
            slim.batch_norm(x, scope="bn"),
            slim.batch_norm(x, scope="bn", reuse=True),
        ],
        "tf.cond, reuse in the second branch": cond,
    }


def build(call):
    """Build one case in a graph of its own; return its variables, updates and error."""
    with tf.Graph().as_default():
        error = None
        try:
            call(v1.placeholder(tf.float32, (None, 8, 8, 3)))
        except ValueError as found:
            error = str(found).splitlines()[0]
        return {
            "variables": [v.op.name for v in v1.global_variables()],
            "updates": len(v1.get_collection(v1.GraphKeys.UPDATE_OPS)),
            "error": error,
        }


def debiased(slim):
    """Return all variables after each of two batches of 1, 2, 3, 4 with zero_debias."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (4, 1))
        y = slim.batch_norm(
            x,
            decay=0.9,
            zero_debias_moving_mean=True,
            is_training=True,
            updates_collections=None,
        )
        session.run(v1.global_variables_initializer())
        found = []
        for _ in range(2):
            session.run(y, {x: [[1], [2], [3], [4]]})
            found.append(
                {
                    v.op.name: round(float(session.run(v).ravel()[0]), 6)
                    for v in v1.global_variables()
                }
            )
    return found


LAYERS = {
    "nothing": {},
    "momentum=0.9": {"momentum": 0.9},
    "epsilon=0.1": {"epsilon": 0.1},
    "center=False": {"center": False},
    "scale=False": {"scale": False},
    "axis=1": {"axis": 1},
    "gamma_initializer, beta_regularizer": {
        "gamma_initializer": v1.constant_initializer(2.0),
        "beta_initializer": v1.ones_initializer(),
        "beta_regularizer": lambda beta: 0.01 * tf.reduce_sum(beta**2),
    },
}


def with_layers(batch_normalization, **settings):
    """Call tf.layers.batch_normalization on one batch, in both modes, with its updates."""
    batch = np.random.default_rng(0).normal(1, 2, (4, 3, 2))
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.constant(batch)
        y = batch_normalization(x, training=True, name="bn", **settings)
        again = batch_normalization(x, name="bn", reuse=True, **settings)
        updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
        session.run(v1.global_variables_initializer())
        trained, _ = session.run([y, updates])
        return {
            "variables": [v.op.name for v in v1.global_variables()],
            "training": trained.tolist(),
            "no training given": session.run(again).tolist(),
            "loss": [
                float(v) for v in session.run(v1.losses.get_regularization_losses())
            ],
        }


def refused(slim):
    """Return what slim says to three calls that it refuses."""
    calls = {
        'data_format="CHWN"': ((None, 8, 8, 3), {"data_format": "CHWN"}),
        "a placeholder without a rank": (None, {}),
        "a placeholder without channels": ((None, 8, 8, None), {}),
    }
    found = {}
    for name, (shape, settings) in calls.items():
        with tf.Graph().as_default():
            try:
                slim.batch_norm(v1.placeholder(tf.float32, shape), **settings)
            except ValueError as error:
                found[name] = str(error).splitlines()[0]
    return found


def main():
    from core import surroundings  # beside this file

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    slim, where = import_slim(), surroundings()
    for name in ("tf_slim", "tf_keras"):
        where["versions"][name] = version(name)
    stored = {"day": f"{datetime.date.today()}", "surroundings": where}
    stored["cases"] = {name: build(call) for name, call in cases(slim).items()}
    stored["zero_debias"] = debiased(slim)
    layers = sys.modules["tf_keras.legacy_tf_layers.normalization"]
    stored["tf.layers"] = {
        name: with_layers(layers.batch_normalization, **settings)
        for name, settings in LAYERS.items()
    }
    stored["refused"] = refused(slim)
    options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
