"""What all tests share: which of them are slow, and which stay together.

`make test` runs two workers side by side, and leaves the slow tests to `make test-slow`.
"""

import os
from pathlib import Path

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers have two cores between them, and OpenMP's threads wait by spinning.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# Files of tests that share nothing, so that any may run in either worker. Those of every other file
# run in one, in order, for they share what is dear: processes, kernels, compiled functions.
SPREAD = {"test_faults.py"}


def unit_of_work(nodeid):
    """Say what is handed to a worker at once: a file, or a single test of some files."""
    file = nodeid.split("::")[0]
    return nodeid if Path(file).name in SPREAD else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out work as above; groups (`--dist loadgroup`) do not work in pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = unit_of_work
    return scheduler


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "slow_if(condition): slow where the condition, a function of parameters by name, holds",
    )


def pytest_itemcollected(item):
    for mark in item.iter_markers("slow_if"):
        (condition,) = mark.args
        names = condition.__code__.co_varnames[: condition.__code__.co_argcount]
        if condition(*(item.callspec.params[name] for name in names)):
            item.add_marker(pytest.mark.slow)


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
