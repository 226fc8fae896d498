"""Time batch norm on a GPU, beside the time to copy x there, and say how far it is off.

Without a GPU nothing is measured, and the script says so; `--cpu` times one array of chapter 9
on the CPU, in float32. `bnlib.book.gpu` has the code, and a page of the book runs it in a notebook.

    python benchmarks/gpu.py [--rounds 30] [--no-resnet] [--json FILE]
    python benchmarks/gpu.py --cpu --no-resnet --rounds 9 --json bnlib/book/stored/gpu_cpu.json
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
    parser.add_argument("--cpu", action="store_true", help="time one array on the CPU")
    parser.add_argument("--no-resnet", action="store_true", help="leave ResNet50 out")
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()
    if gpu.device() == "/CPU:0" and not options.cpu:
        sys.exit("TensorFlow sees no GPU here: nothing was measured.")
    place = "/CPU:0" if options.cpu else gpu.device()
    shapes, few = gpu.SHAPES, {"rounds": options.rounds, "place": place}
    if options.cpu:
        shapes, few = [(32, 56, 56, 64)], few | {"dtypes": ["float32"], "together": 2}
    measured = {
        "steps": gpu.steps(shapes, **few),
        "accuracy": gpu.accuracy(place=place),
    }
    if not options.no_resnet:
        small = {"images": 2, "size": 32, "rounds": 1} if options.cpu else {}
        measured["resnet50"] = gpu.resnet50(place=place, **small)
    console = Console(width=140)
    headings, rows = gpu.in_copies(measured["steps"])
    table = Table(*headings, title="a step in copies of x: eager / tf.function / XLA")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for name in measured.keys() - {"steps"}:
        table = Table(*measured[name][0], title=name)
        for record in measured[name]:
            table.add_row(*map(_cell, record.values()))
        console.print(table)
    if options.json:
        text = json.dumps(gpu.report(**measured), indent=2)
        options.json.write_text(text + "\n")


def _cell(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
