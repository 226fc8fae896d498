"""Train an architecture of keras.applications for a little, audit it, and recalibrate it.

MobileNetV2 comes with a momentum of 0.999, so that its moving statistics are far behind after a few
hundred steps: `fit` reports one accuracy and `predict` another. The digits are enlarged to 32 x 32.

    python benchmarks/doctor.py [--seeds 3] [--json bnlib/book/stored/doctor.json]
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np
from core import surroundings
from rich.console import Console
from rich.progress import track

from bnlib.book.convnet import as_images
from bnlib.doctor import audit, fold, recalibrate

EPOCHS, BATCH, EXAMPLES, RATE = 8, 64, 256, 5e-3


def enlarged():
    """Return the digits as images of 32 x 32 with three channels."""
    x_train, y_train, x_test, y_test = as_images()
    large = [np.kron(x, np.ones((1, 4, 4, 3), "f4")) for x in (x_train, x_test)]
    return *large, y_train, y_test


def one_run(seed):
    x_train, x_test, y_train, y_test = enlarged()
    keras.utils.set_random_seed(seed)
    model = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=10
    )
    model.compile(
        keras.optimizers.Adam(RATE),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = model.fit(x_train, y_train, BATCH, EPOCHS, verbose=0).history
    weights = model.get_weights()

    def right(each):
        return float((each.predict(x_test, verbose=0).argmax(1) == y_test).mean())

    def findings():
        report = audit(model, x_train[:EXAMPLES], batch_size=BATCH)
        return [[f.code, f.level, len(f.layers), f.message] for f in report]

    run = {"fit": history["accuracy"][-1], "before": right(model)}
    run["findings"] = findings()
    for method in ("fast", "exact"):
        model.set_weights(weights)
        start = time.perf_counter()
        recalibrate(model, x_train[:EXAMPLES], method=method, batch_size=BATCH)
        run[method] = {"right": right(model), "seconds": time.perf_counter() - start}
    run["findings after"] = findings()
    folded, report = fold(model, x_test[:BATCH])
    run["folded"] = {
        "right": right(folded),
        "layers": sum(row.into is not None for row in report),
        "of": len(report),
    }
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    runs = [one_run(seed) for seed in track(range(options.seeds))]
    console = Console(width=150)
    for run in runs:
        console.print(run)
    if options.json:
        settings = {
            "epochs": EPOCHS,
            "batch": BATCH,
            "examples": EXAMPLES,
            "rate": RATE,
        }
        text = {"surroundings": surroundings(), "settings": settings, "runs": runs}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
