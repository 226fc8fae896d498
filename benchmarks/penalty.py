"""Train critics with a gradient penalty, each with another norm layer, and store the results.

A WGAN-GP critic on points in the plane. The penalty asks for gradients of norm 1. Keras's batch
norm has a wrong second derivative; ours has the right one; layer norm keeps examples apart. The
critic sees real and fake points in a batch of each kind, or with our batch norm also in one batch.

    python benchmarks/penalty.py [--seeds 8] [--steps 600] [--json bnlib/book/stored/penalty.json]
"""

import argparse
import json
from pathlib import Path

import keras
import numpy as np
from core import surroundings
from rich.console import Console
from rich.progress import track
from rich.table import Table

import bnlib.keras
from bnlib.book import critic

TOGETHER = "our batch norm, one batch"
NORMS = {
    "Keras's batch norm": lambda: keras.layers.BatchNormalization(dtype="float64"),
    "our batch norm": lambda: bnlib.keras.BatchNormalization(dtype="float64"),
    "layer norm": lambda: keras.layers.LayerNormalization(dtype="float64"),
    "no norm": None,
    TOGETHER: lambda: bnlib.keras.BatchNormalization(dtype="float64"),
}
LAST = 100  # steps that are averaged


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    runs = [(name, seed) for name in NORMS for seed in range(options.seeds)]
    found = {name: {"gap": [], "penalty": [], "norm": []} for name in NORMS}
    console = Console(width=110)
    for name, seed in track(runs, "Training", console=console, transient=True):
        _, history = critic.train(
            NORMS[name], seed, steps=options.steps, together=name == TOGETHER
        )
        means = history[-LAST:].mean(axis=0)
        for key, value in zip(found[name], means, strict=True):
            found[name][key].append(float(value))
    table = Table("norm layer", "gap", "penalty", "norm", title="mean (least to most)")
    for name, of in found.items():
        cells = [
            f"{np.mean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in of.values()
        ]
        table.add_row(name, *cells)
    console.print(table)
    if options.json:
        text = {
            "surroundings": surroundings(),
            "steps": options.steps,
            "last": LAST,
            "critics": found,
        }
        options.json.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
