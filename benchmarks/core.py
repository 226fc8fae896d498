"""Time bnlib's NumPy core beside its peers: `make bench`.

Each row is one shape and one phase. All candidates take turns, A B C A B C, in one process, so that
whatever else the machine does hits them alike; the figure is the median over the rounds.
Ratios are to textbook NumPy: below 1 is faster. A peer that is not installed is named.

    python benchmarks/core.py [--rounds 15] [--shapes 56] [--json benchmarks/core.json]
"""

import argparse
import json
from pathlib import Path

from candidates import CANDIDATES, PHASES, Batch
from rich.console import Console
from rich.table import Table

from bnlib.book import timing
from bnlib.book.timing import in_turn

SHAPES = {
    "(32, 32)": ((32, 32), -1),
    "(64, 64)": ((64, 64), -1),
    "(64, 256)": ((64, 256), -1),
    "(128, 256)": ((128, 256), -1),
    "(256, 512)": ((256, 512), -1),
    "(8192, 1024)": ((8192, 1024), -1),
    "(32, 56, 56, 64)": ((32, 56, 56, 64), -1),
    "(32, 64, 56, 56) channels first": ((32, 64, 56, 56), 1),
    "(64, 28, 28, 128)": ((64, 28, 28, 128), -1),
}


def measure(shape, axis, candidates, rounds):
    """Return {candidate: {phase: milliseconds}} for one shape."""
    batch = Batch(shape, axis)
    together = max(
        1, 2**19 // batch.x.size
    )  # a small array is timed many times at once
    calls = {name: phases(batch) for name, phases in candidates.items()}
    found = {name: {} for name in calls}
    for phase in PHASES:
        now = {name: of[phase] for name, of in calls.items() if phase in of}
        for name, value in in_turn(now, rounds, together).items():
            found[name][phase] = value
    for of in found.values():
        parts = [of.get(phase) for phase in PHASES[:2]]
        if None not in parts:
            of.setdefault("forward + backward", sum(parts))
    return found


def table(title, found):
    """One line a candidate: milliseconds, and the ratio to the textbook."""
    columns = Table(title=title, title_justify="left")
    columns.add_column("candidate")
    for phase in PHASES:
        columns.add_column(phase, justify="right")
    for name, of in found.items():
        cells = [
            f"{of[phase]:.3g} ms  {of[phase] / found['textbook NumPy'][phase]:.2f}x"
            if phase in of
            else "-"
            for phase in PHASES
        ]
        columns.add_row(
            name, *cells, style="bold" if name.startswith("bnlib") else None
        )
    return columns


def surroundings():
    """Tell what the figures depend on, with the model of the processor where Linux tells it."""
    about, file = timing.surroundings(), Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    models = (line.split(": ")[1] for line in lines if line.startswith("model name"))
    return about | {"cpu": next(models, about["cpu"])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--shapes", default="", help="only shapes whose name contains this"
    )
    parser.add_argument("--json", type=Path, help="store the figures here")
    options = parser.parse_args()

    console, candidates = Console(width=150), {}
    for name, make in CANDIDATES.items():
        try:
            candidates[name] = make()
        except ImportError as error:
            console.print(f"{name}: left out, {error}")
    results = {}
    for name, (shape, axis) in SHAPES.items():
        if options.shapes in name:
            results[name] = measure(shape, axis, candidates, options.rounds)
            console.print(table(name, results[name]))
    if options.json:
        stored = {"surroundings": surroundings(), "milliseconds": results}
        options.json.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
