"""Train sick networks, audit them, and recalibrate them: one fault each, and MobileNetV2.

The book's network is trained with each of the four faults of chapter 15 alone, in float64.

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

from bnlib.book.convnet import as_images, patient
from bnlib.doctor import audit, fold, recalibrate

EPOCHS, BATCH, EXAMPLES, RATE = 8, 64, 256, 5e-3


FAULTS = {
    "none": {},
    "momentum 0.999": {"momentum": 0.999},
    "training=True": {"training": True},
    "axis 1": {"axis": 1},
    "dropout": {"dropout": 0.4},
    "training=True, dropout": {"training": True, "dropout": 0.4},
}


def one_fault(seed, settings):
    """Return what `fit` and `predict` say, before and after; and the report before."""
    x_train, _, x_test, y_test = as_images("float64")
    model = patient(seed, **settings)

    def right():
        logits = model(x_test, training=False).numpy()
        single = [np.argmax(model(x_test[i : i + 1])) for i in range(100)]
        return {
            "predict": float((logits.argmax(1) == y_test).mean()),
            "alone": float((single == y_test[:100]).mean()),
        }

    rows = audit(model, x_train, batch_size=BATCH).at_least("warning")
    report = [[f.code, f.level, f.where, f.message] for f in rows]
    run = {"fit": model.history.history["accuracy"][-1], "report": report}
    weights = model.get_weights()
    run["before"] = right()
    model.set_weights(weights)  # to ask a wired model one at a time changes it
    recalibrate(model, x_train)
    return run | {"recalibrated": right()}


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


def set_precision(dtype):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    seeds = range(options.seeds)
    set_precision("float64")
    alone = {
        name: [one_fault(seed, settings) for seed in seeds]
        for name, settings in track(FAULTS.items())
    }
    set_precision("float32")
    runs = [one_run(seed) for seed in track(seeds)]
    console = Console(width=150)
    for run in [alone, *runs]:
        console.print(run)
    if options.json:
        settings = {
            "epochs": EPOCHS,
            "batch": BATCH,
            "examples": EXAMPLES,
            "rate": RATE,
        }
        text = {"surroundings": surroundings(), "settings": settings}
        text |= {"faults": alone, "runs": runs}
        options.json.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    main()
