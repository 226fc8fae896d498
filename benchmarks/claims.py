"""Run the experiments of chapter 16, on what is said of batch norm, and store their records.

    python benchmarks/claims.py [--seeds 8] [--json bnlib/book/stored/claims.json]

Four minutes of one core. What the records are taken to show is in `bnlib.book.claims`.
"""

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib.book.claims._experiments import EXPERIMENTS
from bnlib.book.experiments import by_setting, keep, sweep


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="store the records here")
    options = parser.parse_args()
    found, console = {}, Console(width=120)
    for name, experiment in track(EXPERIMENTS.items(), "experiments", console=console):
        runs = sweep(experiment.run, experiment.settings, range(options.seeds))
        found[name] = runs
        table = Table("setting", "measure", "each seed", title=name)
        for measure in [key for key in runs[0] if key not in ("setting", "seed")]:
            for setting, values in by_setting(runs, measure).items():
                table.add_row(setting, measure, " ".join(map(str, values.round(3))))
        console.print(table)
    if options.json:
        keep(options.json, __file__, seeds=options.seeds, records=found)


if __name__ == "__main__":
    main()
