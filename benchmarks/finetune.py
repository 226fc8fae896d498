"""Compare four policies of fine-tuning, for five seeds: minutes, on one core.

The book's network is trained on the digits, and then further on 60 digits of another domain. Each
setting changes one thing of the first: how large the rate is, how many examples a batch has, what
is in it, and the momentum of the moving statistics. Accuracies are in inference, on 450 digits of
the new domain. What Keras trains in float64 differs little between processors, but it does differ.

    python benchmarks/finetune.py [--seeds 5] [--json FILE]
"""

import argparse
import functools
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from core import surroundings
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bnlib.book.finetune import (
    POLICIES,
    examples,
    fine_tune,
    pretrained,
    with_new_statistics,
)
from bnlib.book.network import accuracy

MARKS = (0, 5, 10, 20, 50, 100, 200, 400)
SETTINGS = {
    "as it is": ({}, ["the same", "brighter", "inverted"]),
    "batches of 1": ({"batch": 1}, ["the same", "brighter"]),
    "batches of one class": ({"by_class": True}, ["the same", "brighter"]),
    "momentum 0.99": ({"momentum": 0.99}, ["brighter"]),
    "rate 0.05": ({"rate": 0.05}, ["brighter"]),
}


@functools.cache
def trained(seed, momentum):
    return pretrained(seed, momentum=momentum)


def compare(setting, domain, seeds):
    """Return {policy: accuracies (seeds, marks)}, and those with new statistics alone (seeds,)."""
    options = dict(SETTINGS[setting][0])
    momentum = options.pop("momentum", 0.9)
    found = {policy: [] for policy in POLICIES}
    found["statistics only"] = []
    for seed in range(seeds):
        model, data = trained(seed, momentum), examples(domain, seed=seed)
        for policy in POLICIES:
            path = fine_tune(model, policy, data, marks=MARKS, seed=seed, **options)
            found[policy].append(path)
        renewed = with_new_statistics(model, data[0])
        found["statistics only"].append(accuracy(renewed, *data[2:]))
    return found


def report(console, title, found):
    """Print the lowest and highest accuracy over the seeds at each mark."""
    table = Table("policy", *(f"{mark}" for mark in MARKS), title=title)
    for policy in POLICIES:
        marks = zip(*found[policy], strict=True)
        table.add_row(policy, *(f"{min(m):.3f} to {max(m):.3f}" for m in marks))
    console.print(table)
    console.print("statistics only:", *(f"{s:.3f}" for s in found["statistics only"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="store the accuracies here")
    options = parser.parse_args()
    console, results = Console(width=150), {}
    pairs = [(name, domain) for name, (_, of) in SETTINGS.items() for domain in of]
    for setting, domain in track(pairs, "Fine-tuning", console=console):
        found = compare(setting, domain, options.seeds)
        results.setdefault(setting, {})[domain] = found
        report(console, f"{setting}, {domain}", found)
    if options.json:
        text = {"surroundings": surroundings(), "marks": MARKS, "accuracy": results}
        options.json.write_text(json.dumps(text) + "\n")


if __name__ == "__main__":
    main()
