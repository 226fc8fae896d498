"""A mended fault of another package is red with the locked version, and a line with any other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mended import locked, refusal

TESTS = Path(__file__).parents[1]
CASES = """
import mended
import numpy as np
import pytest

def test_one(still):
    still("it rains", True, "numpy")

@pytest.mark.parametrize("present", [True, False])
def test_two(still, present):
    still("it pours", present, "numpy")

def test_three(still):
    still("the sun is hot", False, "numpy")
    assert not still("the moon is cold", True, "numpy")

def test_four():
    pass
"""


def run(folder, version="", chosen=""):
    """Run the cases as if NumPy were locked to this version, or as it is."""
    lock = f"mended.locked = lambda package: {version!r}\n" if version else ""
    conftest = "from mended import pytest_terminal_summary, still\n"
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_cases.py").write_text(CASES + lock)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-k",
            chosen,
            "test_cases.py",
        ],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(TESTS), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")},
        capture_output=True,
        text=True,
    )


def test_with_the_locked_version_a_mended_fault_is_red(tmp_path):
    assert locked("numpy") == np.__version__
    done = run(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "2 failed, 3 passed" in done.stdout, done.stdout
    assert "no longer shows this fault: the sun is hot. Say so where" in done.stdout


def test_with_another_version_a_table_says_what_is_mended(tmp_path):
    done = run(tmp_path, version="0.1")
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout
    table = done.stdout.partition("faults of other packages")[2].splitlines()
    start = f"numpy  {np.__version__}  "
    rows = [line.removeprefix(start) for line in table if line.startswith(start)]
    assert rows == [
        "mended and still there  it pours",
        "mended                  the sun is hot",
        "still there             it rains",
        "still there             the moon is cold",
    ]
    summary = (tmp_path / "summary.md").read_text().splitlines()
    assert "### Faults of other packages" in summary
    assert f"| numpy | {np.__version__} | mended | the sun is hot |" in summary
    assert len(summary) == 9


def test_where_nothing_is_mended_one_line_is_enough(tmp_path):
    done = run(tmp_path, chosen="one or cold")
    assert "1 faults of other packages: still there" in done.stdout
    assert "it rains" not in done.stdout
    assert not (tmp_path / "summary.md").exists()
    done = run(tmp_path, chosen="one", version="0.1")
    assert "still there  it rains" in done.stdout


def test_a_run_without_faults_says_nothing(tmp_path):
    done = run(tmp_path, chosen="four")
    assert "1 passed" in done.stdout
    assert "faults of other packages" not in done.stdout


@pytest.mark.parametrize(
    ("text", "said"), [("1", ""), ("x", "ValueError: could not convert")]
)
def test_refusal_is_what_is_raised(text, said):
    assert refusal(float, text).startswith(said)
    assert bool(refusal(float, text)) == bool(said)
