"""Run the experiments of chapter 16, on what is said of batch norm, and store their records.

    python benchmarks/claims.py [--seeds 400 407] [--jobs 2] [--json bnlib/book/stored/claims.json]

Ten minutes of one core. Where an experiment has a grid of learning rates, they are tried first,
with two other seeds, 100 and 101. Each experiment names the seeds that decide. What the records are
taken to show is in `bnlib.book.claims`.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.experiments import by_setting, keep, sweep


def run(name, seeds=None):
    """Tune the rates of an experiment, then run it, with its own seeds or others."""
    experiment = EXPERIMENTS[name]
    seeds = seeds or experiment.seeds
    return experiment.tune(), sweep(experiment.run, experiment.settings, seeds)


def store(path, tuning, records):
    """Keep what the experiments found."""
    keep(path, __file__, tuning=tuning, records=records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ends = {"type": int, "nargs": 2, "metavar": ("FIRST", "LAST")}
    parser.add_argument("--seeds", **ends, help="not each's own")
    parser.add_argument("--jobs", type=int, default=2, help="experiments at a time")
    parser.add_argument("--json", type=Path, help="store the records here")
    options = parser.parse_args()
    found, tuning, console = {}, {}, Console(width=120)
    with ProcessPoolExecutor(options.jobs) as pool:
        seeds = options.seeds and range(options.seeds[0], options.seeds[1] + 1)
        results = pool.map(run, EXPERIMENTS, [seeds] * len(EXPERIMENTS))
        for name in track(EXPERIMENTS, "experiments", console=console):
            tuning[name], runs = next(results)
            found[name] = runs
            table = Table("setting", "measure", "each seed", title=name)
            for measure in [key for key in runs[0] if key not in ("setting", "seed")]:
                for setting, values in by_setting(runs, measure).items():
                    table.add_row(setting, measure, " ".join(map(str, values.round(3))))
            console.print(table)
    if options.json:
        store(options.json, tuning, found)


if __name__ == "__main__":
    main()
