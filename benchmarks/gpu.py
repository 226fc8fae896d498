"""Time batch norm on a GPU, beside the time to copy x there: a ceiling set by the memory.

TensorFlow is needed, PyTorch and JAX are second witnesses where they are installed and see the
GPU. All candidates take turns in one process. A step is forward and backward in training mode.
Without a GPU nothing is measured, and the script says so; `--cpu` runs the same code to see that it
works, and its figures mean nothing.

    python benchmarks/gpu.py [--rounds 30] [--json book/part2/gpu.json]
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import keras
import numpy as np
import tensorflow as tf
from core import in_turn, surroundings
from rich.console import Console
from rich.table import Table

from bnlib.keras import BatchNormalization

SHAPES = [(32, 112, 112, 64), (256, 56, 56, 64), (256, 14, 14, 256), (65536, 1024)]
DTYPES = ("float32", "float16")


def on_tensorflow(x, grad_y, device):
    """Return calls of our layer, Keras's, and a copy, on TensorFlow."""
    with tf.device(device):
        x, grad_y = tf.constant(x), tf.constant(grad_y)
    layers = {
        "ours": BatchNormalization(dtype=_policy(x)),
        "ours, fused=True": BatchNormalization(dtype=_policy(x), fused=True),
        "Keras": keras.layers.BatchNormalization(dtype=_policy(x)),
    }
    calls = {}
    for name, layer in layers.items():
        layer.build(x.shape)

        def step(x, grad_y, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return y, tape.gradient(y, x, grad_y)

        for mode, xla in (("tf.function", False), ("XLA", True)):
            run = tf.function(step, jit_compile=xla)
            calls[f"{name}, {mode}"] = lambda run=run: _finished(run(x, grad_y))
    copy = tf.function(lambda x: tf.raw_ops.DeepCopy(x=x))
    return {"copy of x": lambda: _finished(copy(x)), **calls}


def _policy(x):
    return "mixed_float16" if x.dtype == tf.float16 else "float32"


def _finished(result):
    tf.test.experimental.sync_devices()
    return result


def on_torch(x, grad_y, device):
    """Return a call of PyTorch's kernel."""
    import torch

    place = "cuda" if "GPU" in device else "cpu"
    if place == "cuda" and not torch.cuda.is_available():
        raise ImportError("PyTorch sees no GPU")
    order = (0, x.ndim - 1, *range(1, x.ndim - 1))
    x, grad_y = (torch.tensor(v.transpose(order), device=place) for v in (x, grad_y))
    layer = torch.nn.BatchNorm2d if x.ndim == 4 else torch.nn.BatchNorm1d
    layer = layer(x.shape[1]).to(place)

    def step():
        y = layer(x.requires_grad_())
        found = torch.autograd.grad(y, x, grad_y)
        if place == "cuda":
            torch.cuda.synchronize()
        return found

    return {"PyTorch, channels first": step}


def on_jax(x, grad_y, device):
    """Return a call of the plain formula, compiled by JAX."""
    import jax

    if "GPU" in device and jax.default_backend() != "gpu":
        raise ImportError("JAX sees no GPU")
    axes = tuple(range(x.ndim - 1))

    def norm(x):
        wide = x.astype("float32")
        mean, variance = wide.mean(axes), wide.var(axes)
        y = (wide - mean) * jax.lax.rsqrt(variance + 1e-3)
        return y.astype(x.dtype)

    @jax.jit
    def step(x, grad_y):
        y, back = jax.vjp(norm, x)
        return y, back(grad_y)

    x, grad_y = jax.device_put(x), jax.device_put(grad_y)
    return {"JAX, jit": lambda: jax.block_until_ready(step(x, grad_y))}


def measure(shape, dtype, device, rounds, console):
    """Return {candidate: milliseconds}."""
    rng, calls = np.random.default_rng(0), {}
    x = rng.standard_normal(shape, "f4") + np.float32(0.5)
    grad_y = rng.standard_normal(shape, "f4")
    for make in (on_tensorflow, on_torch, on_jax):
        try:
            calls |= make(x.astype(dtype), grad_y.astype(dtype), device)
        except ImportError as error:
            console.print(f"left out: {error}")
    return in_turn(calls, rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cpu", action="store_true", help="only see that it works")
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    console, stored = Console(width=120), {}
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and not options.cpu:
        sys.exit("TensorFlow sees no GPU here: nothing was measured.")
    shapes = [(4, 8, 8, 16), (64, 32)] if options.cpu else SHAPES
    for shape in shapes:
        for dtype in DTYPES:
            device = "/CPU:0" if options.cpu else "/GPU:0"
            times = measure(shape, dtype, device, options.rounds, console)
            title = f"{shape}, {dtype}, a training step"
            columns = Table("candidate", "time", "copies of x", title=title)
            for name, ms in times.items():
                columns.add_row(name, f"{ms:.3f} ms", f"{ms / times['copy of x']:.1f}")
            console.print(columns)
            stored[f"{shape}, {dtype}"] = times
    if options.json:
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        where = surroundings() | {"gpu": details.get("device_name", "none")}
        text = {"surroundings": where, "milliseconds": stored}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
