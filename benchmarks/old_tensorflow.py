"""Ask slim, the last of tf.contrib.layers, which variables it makes; for "Reading old TensorFlow".

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
    options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
