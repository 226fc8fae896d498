"""Ship the book's convolutional network in every way, and store how much the logits differ.

Two whole models of Keras are shipped too, with random weights and statistics. It needs what the
book does not: tf2onnx, onnxruntime, jax and torch. A way that fails is stored with its error.

    python benchmarks/shipping.py [--seeds 2] [--json bnlib/book/stored/shipping.json]
"""

import argparse
import functools
import importlib.metadata
import json
import tempfile
from pathlib import Path

import keras
import numpy as np
from core import surroundings
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib.book import shipping
from bnlib.book.convnet import as_images, convolutional
from bnlib.keras import swap_in, swap_out

EXTRAS = "tf2onnx", "onnx", "onnxruntime"


def trained(seed):
    """Train the network with Keras's layer, in float32 for five epochs."""
    x, y, *_ = as_images()
    keras.utils.set_random_seed(seed)
    network = convolutional(seed, lambda: keras.layers.BatchNormalization(momentum=0.9))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
    network.fit(x, y, batch_size=64, epochs=5, verbose=0)
    return network


def ways():
    """Return each way by its name on the page."""
    x = as_images()[0]
    on = functools.partial
    return {
        ".keras": shipping.keras_file,
        "weights": shipping.weights_file,
        "SavedModel": shipping.saved_model,
        "TFLite, float32": shipping.lite,
        "TFLite, int8": on(shipping.lite_int8, examples=x[:200]),
        "ONNX": shipping.onnx,
        "XLA": shipping.compiled,
        "mixed_bfloat16": shipping.mixed,
        "JAX backend": on(shipping.on_backend, backend="jax"),
        "PyTorch backend": on(shipping.on_backend, backend="torch"),
    }


def ship(way, network, inputs, expected):
    """Return the largest difference of the logits, of any label's answer, and the size."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            logits, size = way(network, inputs, Path(folder))
        except Exception as error:
            lines = str(error).strip().splitlines()
            said = [each for each in lines if each.split(":")[0].endswith("Error")]
            return {"failed": [*lines, *said][-1][:200]}
    changed = np.mean(logits.argmax(axis=1) != expected.argmax(axis=1))
    return {
        "difference": float(np.abs(logits - expected).max()),
        "answers changed": float(changed),
        "bytes": size,
    }


WHOLE = {
    "MobileNetV2": keras.applications.MobileNetV2,
    "ResNet50": keras.applications.ResNet50,
}


def randomized(name):
    """Make a whole model of Keras for images of 96 x 96, with random statistics in each layer."""
    keras.utils.set_random_seed(0)
    model = WHOLE[name](
        weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            gamma, variance = rng.uniform(0.5, 1.5, (2, *shape))
            beta, mean = rng.normal(0, 0.1, (2, *shape))
            layer.set_weights([gamma, beta, mean, variance])
    return model


def whole():
    """Return, for each whole model and way, the largest difference over the largest output."""
    found = {}
    inputs = np.random.default_rng(1).normal(size=(4, 96, 96, 3)).astype("float32")
    kept = {
        "swapped": lambda model, inputs, folder: (model.predict(inputs, verbose=0), 0),
        **{
            name: way
            for name, way in ways().items()
            if name in (".keras", "SavedModel", "TFLite, float32", "ONNX")
        },
    }
    for name in WHOLE:
        theirs = randomized(name)
        ours = swap_in(theirs)
        models = {"Keras's": theirs, "ours": ours, "swapped out": swap_out(ours)}
        expected = theirs.predict(inputs, verbose=0)
        largest = float(np.abs(expected).max())
        count = sum(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in theirs.layers
        )
        about = {"batch norm layers": count, "largest output": largest}
        about["spread"] = float(np.ptp(expected, axis=0).max())
        found[name] = about | {"ways": {}}
        for way in kept:
            of = {
                whose: ship(kept[way], model, inputs, expected)
                for whose, model in models.items()
            }
            for result in of.values():
                if "difference" in result:
                    result["difference"] /= largest
            found[name]["ways"][way] = of
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    inputs, console, found = as_images()[2], Console(width=120), {}
    largest = []
    for seed in track(range(options.seeds), "Shipping", console=console):
        theirs = trained(seed)
        ours = swap_in(theirs)
        models = {"Keras's": theirs, "ours": ours, "swapped out": swap_out(ours)}
        expected = theirs.predict(inputs, verbose=0)
        largest.append(float(np.abs(expected).max()))
        for name, way in ways().items():
            for whose, model in models.items():
                result = ship(way, model, inputs, expected)
                found.setdefault(name, {}).setdefault(whose, []).append(result)
    with tempfile.TemporaryDirectory() as folder:
        kinds = {}
        for whose, model in models.items():
            (Path(folder) / whose).mkdir()
            kinds[whose] = shipping.onnx_operations(model, Path(folder) / whose)
    large = whole()
    table = Table("way", *models)
    for name, of in found.items():
        cells = [
            results[0].get("failed")
            or f"{max(r['difference'] for r in results):.1e}, {results[0]['bytes']} bytes"
            for results in of.values()
        ]
        table.add_row(name, *cells)
    console.print(table, kinds, large)
    if options.json:
        about = surroundings()
        about["versions"] |= {n: importlib.metadata.version(n) for n in EXTRAS}
        text = {"surroundings": about, "largest logit": largest, "ways": found}
        text |= {"ONNX operations": kinds, "whole": large}
        options.json.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
