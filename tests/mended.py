"""Faults of other packages, shown by tests: is each still there, or mended?

With the locked version a mended fault turns its test red, because then the book says what is no
longer true. With any other version, as in newest.yml, it only goes into the table that ends a run,
on GitHub into the summary of the job too.
"""

import importlib.metadata
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAULT = "fault of another package"


def locked(package):
    """Return the version that the locks pin a package to."""
    lock = "\n".join(
        path.read_text() for path in sorted(ROOT.glob("requirements*.lock"))
    )
    return re.search(rf"(?m)^{package}==(\S+)", lock)[1]


def refusal(call, *args, **options):
    """Return what a call raises, as text, and nothing if it does not."""
    try:
        call(*args, **options)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"
    return ""


@pytest.fixture
def still(request):
    """Return a function that notes whether a package has a fault yet, and requires it if locked."""

    def note(fault, present, package="keras"):
        version = importlib.metadata.version(package)
        row = [package, version, "still there" if present else "mended", fault]
        request.node.user_properties.append((FAULT, row))
        assert present or version.partition("+")[0] != locked(package), (
            f"{package} {version} no longer shows this fault: {fault}. "
            "Say so where the book and the layer's documentation name it, and drop this half of "
            "the test."
        )

    return note


def rows_of(reports):
    """Collect the faults that the reports note; one that shows in some cases only is both."""
    states = {}
    for report in reports:
        for name, row in getattr(report, "user_properties", ()):
            if name == FAULT and report.when == "call":
                package, version, state, fault = row
                states.setdefault((package, version, fault), set()).add(state)
    return [
        (package, version, " and ".join(sorted(found)), fault)
        for (package, version, fault), found in sorted(states.items())
    ]


def as_markdown(rows):
    head = ["package", "version", "", "fault"]
    lines = [head, ["---"] * 4, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def pytest_terminal_summary(terminalreporter):
    """Show the table, mended faults first; one line where all is as the lock has it."""
    stats = terminalreporter.stats
    rows = rows_of(
        report for kind in ("passed", "failed") for report in stats.get(kind, ())
    )
    if not rows:
        return
    usual = all(
        state == "still there" and version.partition("+")[0] == locked(package)
        for package, version, state, _ in rows
    )
    if usual:
        terminalreporter.write_line(
            f"{len(rows)} faults of other packages: still there"
        )
        return
    rows.sort(key=lambda row: "mended" not in row[2])
    terminalreporter.section("faults of other packages")
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        terminalreporter.write_line("  ".join(cells).rstrip())
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(f"\n### Faults of other packages\n\n{as_markdown(rows)}")
