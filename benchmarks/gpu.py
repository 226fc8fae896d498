"""Time batch norm on a GPU, beside the time to copy x there, and say how far it is off.

Without a GPU nothing is measured, and the script says so; `--cpu` runs the same code on small
arrays, to see that it works, and its figures mean nothing. `bnlib.book.gpu` has the code, and a
page of the book runs it in a notebook.

    python benchmarks/gpu.py [--rounds 30] [--no-resnet] [--json FILE]
"""

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

from rich.console import Console
from rich.table import Table

from bnlib.book import gpu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cpu", action="store_true", help="only see that it works")
    parser.add_argument("--no-resnet", action="store_true", help="leave ResNet50 out")
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    if gpu.device() == "/CPU:0" and not options.cpu:
        sys.exit("TensorFlow sees no GPU here: nothing was measured.")
    place = "/CPU:0" if options.cpu else gpu.device()
    shapes = gpu.SMALL if options.cpu else gpu.SHAPES
    measured = {
        "steps": gpu.steps(shapes, rounds=options.rounds, place=place),
        "accuracy": gpu.accuracy(place=place),
    }
    if not options.no_resnet:
        small = {"images": 2, "size": 32, "rounds": 1} if options.cpu else {}
        measured["resnet50"] = gpu.resnet50(place=place, **small)
    for name, records in measured.items():
        columns = Table(*records[0], title=name)
        for record in records:
            columns.add_row(*map(_cell, record.values()))
        Console(width=120).print(columns)
    if options.json:
        text = json.dumps(gpu.report(**measured), indent=2)
        options.json.write_text(text + "\n")


def _cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
