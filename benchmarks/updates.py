"""Time the three cures for updates that never run, with slim's layer; for chapter 7.

    python benchmarks/updates.py [--json bnlib/book/stored/updates.json]

Ten dense layers with batch norm train in graph mode: in one process, and with the variables in a
second process, a parameter server. It needs tf_slim and tf_keras, which the book's environment does
not have. A minute.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from old_tensorflow import import_slim  # beside this file

from bnlib.book.experiments import keep

STORED = Path(__file__).parents[1] / "bnlib/book/stored/updates.json"
CURES = ["never", "the step depends on them", "fetched beside the step", "in place"]
LAYERS, UNITS, BATCH = 10, 64, 64
ROUNDS, STEPS = 150, 2  # in each round every cure makes so many steps
v1 = tf.compat.v1


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def build(slim, cure, device, target):
    """Build the network in a graph of its own; return a function that makes one step."""
    graph = tf.Graph()
    apart = graph.container(
        "".join(filter(str.isalpha, cure))
    )  # a server shares variables by name
    with graph.as_default(), apart, v1.device(device):
        v1.set_random_seed(0)
        x = v1.placeholder(tf.float32, (None, UNITS))
        collection = None if cure == "in place" else v1.GraphKeys.UPDATE_OPS
        settings = {"is_training": True, "updates_collections": collection}
        h = x
        for _ in range(LAYERS):
            h = slim.fully_connected(
                h,
                UNITS,
                normalizer_fn=slim.batch_norm,
                normalizer_params=settings | {"decay": 0.9},
            )
        out = slim.fully_connected(h, 1, activation_fn=None)
        updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
        first = updates if cure == "the step depends on them" else []
        with tf.control_dependencies(first):
            optimizer = v1.train.GradientDescentOptimizer(0.01)
            step = optimizer.minimize(tf.reduce_mean((out - 1) ** 2))
        fetched = [step, updates] if cure == "fetched beside the step" else step
        moving = [v for v in v1.global_variables() if "moving_mean" in v.op.name]
        start = v1.global_variables_initializer()
    session = v1.Session(target, graph=graph)
    session.run(start)
    batch = np.random.default_rng(0).normal(size=(BATCH, UNITS)).astype("float32")
    return (
        lambda: session.run(fetched, {x: batch}),
        lambda: sum(bool(np.any(session.run(v))) for v in moving),
    )


def measure(slim, device, target):
    """Return, for each cure, the milliseconds of a step in each round, and what moved."""
    made = {cure: build(slim, cure, device, target) for cure in CURES}
    times = {cure: [] for cure in CURES}
    for turn in range(-20, ROUNDS):  # the first ones warm up
        for cure, (step, _) in made.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn >= 0:
                times[cure].append(1e3 * (time.perf_counter() - start) / STEPS)
    moved = {cure: count() for cure, (_, count) in made.items()}
    return {
        "milliseconds": {
            cure: np.quantile(t, [0.25, 0.5, 0.75]) for cure, t in times.items()
        },
        "layers whose statistics moved": moved,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    parser.add_argument("--serve", nargs=2, help="be the parameter server of this pair")
    options = parser.parse_args()
    if options.serve:
        pair = {"ps": options.serve[:1], "worker": options.serve[1:]}
        tf.distribute.Server(pair, job_name="ps", task_index=0).join()
    slim, addresses = import_slim(), [free_port(), free_port()]
    with subprocess.Popen([sys.executable, __file__, "--serve", *addresses]) as child:
        try:
            cluster = tf.train.ClusterSpec(
                {"ps": addresses[:1], "worker": addresses[1:]}
            )
            server = tf.distribute.Server(cluster, job_name="worker", task_index=0)
            here = "/job:worker/task:0"
            apart = v1.train.replica_device_setter(cluster=cluster, worker_device=here)
            found = {
                "one process": measure(slim, here, server.target),
                "a parameter server": measure(slim, apart, server.target),
            }
        finally:
            child.kill()
    keep(
        options.json,
        __file__,
        layers=LAYERS,
        tf_slim=version("tf_slim"),
        found=found,
    )


if __name__ == "__main__":
    main()
