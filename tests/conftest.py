"""What all tests share: which of them are slow, and which must stay together, what ends a run.

`make test` runs two workers side by side, and leaves the slow tests to `make test-slow`.
"""

import os
from pathlib import Path

import pytest
from mended import pytest_terminal_summary, still

__all__ = ["pytest_terminal_summary", "still"]

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers have two cores between them, and OpenMP's threads wait by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files of many independent tests, any of which may run in any worker. Those of every other file
# run in one, in order, for they share what is dear: processes, kernels, compiled functions.
SPREAD = {"test_faults"}


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "slow_if(condition): slow where the condition, a function of parameters by name, holds",
    )


def pytest_itemcollected(item):
    for mark in item.iter_markers("slow_if"):
        names = mark.args[0].__code__.co_varnames[: mark.args[0].__code__.co_argcount]
        if mark.args[0](*(item.callspec.params[name] for name in names)):
            item.add_marker(pytest.mark.slow)
    stem = Path(item.path).stem
    if stem not in SPREAD and not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group(stem))


@pytest.fixture(scope="session")
def chromium():
    """Start the one browser of all tests."""
    from tools.browser import start

    with start() as browser:
        yield browser


@pytest.fixture(scope="module")
def browser(chromium):
    """Open a context, from which nothing that is asked of other hosts leaves this machine."""
    from browsing import open_context

    with open_context(chromium) as context:
        yield context
