"""Run the conformance checks on the batch norms that are installed; for the page of that name.

    python benchmarks/conformance.py [--only NAME ...] [--json FILE]

Each runs in a process of its own, since Keras has one backend a process. What is not installed is
left out, and said; a failure that WHY does not explain ends the run. `make conformance` runs it in
an environment that has the peers, and stores the table. It takes six minutes of a processor.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bnlib.conformance import adapters, check_batch_norm

ALSO = (  # whose versions are stored beside the usual ones
    *("flax", "dm-haiku", "equinox", "mlx", "paddlepaddle", "dm-sonnet", "tinygrad"),
    *("onnx", "onnxruntime"),
)


def two_lines(x, gamma, beta, epsilon, axis):
    """Write batch norm as most would, in NumPy."""
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    shape = [-1 if a == axis % x.ndim else 1 for a in range(x.ndim)]
    gamma, beta = (v.astype(x.dtype).reshape(shape) for v in (gamma, beta))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return gamma * (x - mean) / (variance + x.dtype.type(epsilon)) ** 0.5 + beta


def of_tf_nn():
    import tensorflow as tf

    def of_the_dtype(x, axis, *vectors):
        if axis != -1:
            raise NotImplementedError("channels last alone")
        return [tf.cast(v, x.dtype) for v in vectors]

    def training(x, gamma, beta, axis, epsilon):
        gamma, beta = of_the_dtype(x, axis, gamma, beta)
        mean, variance = tf.nn.moments(x, range(x.ndim - 1))
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)

    def inference(x, mean, variance, gamma, beta, axis, epsilon):
        vectors = of_the_dtype(x, axis, mean, variance, beta, gamma)
        return tf.nn.batch_normalization(x, *vectors, epsilon)

    return partial(adapters.TensorFlow, training=training, inference=inference)


def of_fused_kernel():
    import tensorflow as tf

    def call(x, gamma, beta, axis, epsilon, **statistics):
        if x.ndim not in (2, 4) or axis != -1 or x.dtype == tf.float64:
            raise NotImplementedError("images, channels last, no float64")
        images = x[:, tf.newaxis, tf.newaxis, :] if x.ndim == 2 else x
        y, _, _ = tf.compat.v1.nn.fused_batch_norm(
            images, gamma, beta, epsilon=epsilon, **statistics
        )
        return tf.reshape(y, x.shape)

    def inference(x, mean, variance, *vectors, **options):
        known = {"mean": mean, "variance": variance, "is_training": False}
        return call(x, *vectors, **options, **known)

    return partial(adapters.TensorFlow, training=call, inference=inference)


def of_our_layer():
    from bnlib.keras import BatchNormalization
    from bnlib.replicas import mirrored

    mirrored(2)  # before TensorFlow starts
    return partial(adapters.Keras, layer=BatchNormalization, synchronized=True)


def of_keras_synchronized():
    from bnlib.replicas import mirrored

    mirrored(2)
    return partial(adapters.Keras, synchronized=True)


CLANG = "the compiler clang"
# name: (what must be installed, Keras's backend, a function that returns the maker)
ALL = {
    "bnlib on NumPy": (["numpy"], None, lambda: adapters.NumPy),
    "bnlib.tf_ops": (["tensorflow"], None, lambda: adapters.TensorFlow),
    "bnlib.keras": (["keras", "tensorflow"], "tensorflow", of_our_layer),
    "two lines of NumPy": (
        ["numpy"],
        None,
        lambda: partial(adapters.Function, function=two_lines),
    ),
    "tf.nn's two functions": (["tensorflow"], None, of_tf_nn),
    "TensorFlow's fused kernel": (["tensorflow"], None, of_fused_kernel),
    "Keras on TensorFlow": (
        ["keras", "tensorflow"],
        "tensorflow",
        lambda: adapters.Keras,
    ),
    "Keras synchronized": (
        ["keras", "tensorflow"],
        "tensorflow",
        of_keras_synchronized,
    ),
    "Keras on JAX": (["keras", "jax"], "jax", lambda: adapters.Keras),
    "Keras on PyTorch": (["keras", "torch"], "torch", lambda: adapters.Keras),
    "PyTorch": (["torch"], None, lambda: adapters.Torch),
    "Flax": (["flax", "jax"], None, lambda: adapters.Flax),
    "Flax with slow variance": (
        ["flax", "jax"],
        None,
        lambda: partial(adapters.Flax, use_fast_variance=False),
    ),
    "Flax NNX": (["flax", "jax"], None, lambda: adapters.FlaxNNX),
    "Haiku": (["dm-haiku", "jax"], None, lambda: adapters.Haiku),
    "Equinox": (["equinox", "jax"], None, lambda: adapters.Equinox),
    "Equinox in batch mode": (
        ["equinox", "jax"],
        None,
        lambda: partial(adapters.Equinox, mode="batch"),
    ),
    "MLX": (["mlx"], None, lambda: adapters.MLX),
    "PaddlePaddle": (["paddlepaddle"], None, lambda: adapters.Paddle),
    "Sonnet": (["dm-sonnet", "tensorflow"], None, lambda: adapters.Sonnet),
    "tinygrad": (["tinygrad", CLANG], None, lambda: adapters.Tinygrad),
    "ONNX's reference": (["onnx"], None, lambda: adapters.Onnx),
    "onnxruntime": (
        ["onnx", "onnxruntime"],
        None,
        lambda: partial(adapters.Onnx, runtime="onnxruntime"),
    ),
}


ONE_PASS = "Keras synchronized", "Keras on PyTorch", "Flax", "Flax NNX", "Haiku"
FAR = "mean_1e2", "mean_1e4", "mean_1e6", "mean_1e8"
# (checks, of whom or None for the rest, why they fail): the first that fits is shown.
WHY = [
    (
        FAR,
        ONE_PASS,
        "The variance is E[x^2] - E[x]^2. It is the small difference of two large numbers, and what"
        " float32 leaves of it is noise, zero, or negative and then NaN.",
    ),
    (
        (*FAR, "constant_channel"),
        ("Keras on JAX",),
        "y is x * scale + shift. Both are as large as the mean is in deviations, and are rounded"
        " there.",
    ),
    (
        FAR,
        None,
        "The mean is summed in float32, and wrong in its last digits. Every x - mean is off by"
        " that, and the variance by its square. Where y is x * scale + shift, that rounding comes"
        " on top.",
    ),
    (
        ("constant_channel",),
        None,
        "The float32 mean misses the constant by a little; the variance is the square of that miss,"
        " and y is the miss over its own size, near 1 where it should be 0.",
    ),
    (
        ("values_of_1e25",),
        None,
        "The square of 1e25 is no float32: the variance is infinite, and y is 0, or NaN where"
        " infinity is subtracted from infinity.",
    ),
    (
        ("inference_mean_1e6",),
        None,
        "Inference is x * scale + shift, each rounded at the size of the mean; (x - mean) * scale"
        " loses nothing.",
    ),
    (
        ("empty_batch",),
        None,
        "The mean of no values is NaN, and it is blended into the moving statistics.",
    ),
    (
        ("second_derivative",),
        ("PaddlePaddle",),
        "Its kernel for the second derivative ends in an error on a CPU.",
    ),
    (
        ("second_derivative",),
        None,
        "The mean is held still inside the variance, by tf.nn.moments and by tinygrad: right for"
        " the first derivative, wrong for the second.",
    ),
    (
        ("training", "gradient_x", "gradient_sum", "gradient_orthogonal"),
        ("Equinox",),
        "In its default mode training normalises by the moving average, in which this batch has a"
        " share of 1 - momentum. What y and its gradient are depends on the batches before.",
    ),
    (
        ("moving_variance",),
        ("Equinox in batch mode",),
        "The average starts at 1, and is divided by 1 - momentum^n as if it started at 0: the"
        " variance is too large by momentum^n / (1 - momentum^n).",
    ),
    (
        ("batch_of_one",),
        ("PaddlePaddle",),
        "With one value a channel it returns x as it is.",
    ),
    (
        ("float64",),
        None,
        "On every backend but TensorFlow, Keras's result_type makes float32 of float64, so a"
        " float64 layer computes in float32.",
    ),
    (
        ("float16", "float16_range"),
        ("two lines of NumPy",),
        "np.var adds the squares of float16 values in float16, where 65504 is the largest number.",
    ),
    (
        ("float16_range",),
        ("tf.nn's two functions", "Sonnet"),
        "tf.nn.moments sums in float32, and then returns the variance in float16, where it does not"
        " fit.",
    ),
    (
        ("float16", "float16_range", "bfloat16"),
        ("ONNX's reference", "Haiku", "MLX"),
        "All is computed in the dtype of x, sums included.",
    ),
    (
        ("float16", "float16_range", "bfloat16"),
        ("Equinox in batch mode", "tinygrad"),
        "The parameters are float32, and y follows.",
    ),
    (
        ("bfloat16",),
        ("two lines of NumPy",),
        "In NumPy bfloat16 ** 0.5 is float32, and y follows.",
    ),
]


def reason(name, check):
    """Return why a check fails."""
    for checks, names, why in WHY:
        if check in checks and (names is None or name in names):
            return why
    sys.exit(f"{name} fails {check}: say why in WHY, and run it again.")


def installed(package):
    if package == CLANG:
        return shutil.which("clang") is not None
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return package == "tensorflow" and installed("tensorflow-cpu")
    return True


def in_its_process(name, backend):
    """Check one of them, and return its rows."""
    environment = os.environ | ({"KERAS_BACKEND": backend} if backend else {})
    command = [sys.executable, __file__, "--one", name]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{name} could not be checked:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    from core import surroundings  # beside this file
    from rich.progress import track

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ALL, help="keep the others' rows")
    parser.add_argument("--json", type=Path, help="store it here")
    parser.add_argument("--one", choices=ALL, help="check this one, and print its rows")
    options = parser.parse_args()
    if options.one:
        report = check_batch_norm(ALL[options.one][2]())
        print(json.dumps(report.to_dict()["rows"]))
        return
    where, checks, found = surroundings(), [], {}
    if options.only and options.json and options.json.exists():
        found = json.loads(options.json.read_text())["found"]
    for package in filter(installed, ALSO):
        where["versions"][package] = importlib.metadata.version(package)
    for name in track(options.only or ALL, "checking"):
        packages, backend, _ = ALL[name]
        missing = [package for package in packages if not installed(package)]
        if missing:
            print(f"{name} is left out: {', '.join(missing)} not installed")
            continue
        rows = in_its_process(name, backend)
        own = "check", "level", "outcome", "got"
        found[name] = [
            {key: row[key] for key in own}
            | (
                {"why": reason(name, row["check"])}
                if row["outcome"] == "failed"
                else {}
            )
            for row in rows
        ]
        shared = "check", "expected", "meaning", "link"
        checks = [{key: row[key] for key in shared} for row in rows]
        print(
            name,
            *(f"{row['check']}: {row['got']}" for row in found[name] if "why" in row),
        )
    found = {name: found[name] for name in ALL if name in found}
    made = {"day": f"{datetime.date.today()}", "surroundings": where}
    text = json.dumps(made | {"checks": checks, "found": found}, separators=(",", ":"))
    if options.json:
        options.json.write_text(text.replace('{"check"', '\n{"check"') + "\n")


if __name__ == "__main__":
    main()
