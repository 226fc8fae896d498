"""How tests are dealt out: what is slow, and what stays together in one worker."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import mended
import pytest


@pytest.mark.slow_if(lambda number, word: number == 2 and word == "b")
@pytest.mark.parametrize("word", ["a", "b"])
@pytest.mark.parametrize("number", [1, 2])
def test_some_cases_are_marked_slow(request, number, word):
    marked = request.node.get_closest_marker("slow") is not None
    assert marked == ((number, word) == (2, "b"))


def test_a_file_stays_together_unless_its_tests_share_nothing():
    assert (
        conftest.unit_of_work("tests/core/test_axes.py::test_a[x]")
        == "tests/core/test_axes.py"
    )
    assert (
        conftest.unit_of_work("tests/core/test_axes.py::A::test_b")
        == "tests/core/test_axes.py"
    )
    alone = "tests/project/test_faults.py::test_planted_fault_is_caught[x::y]"
    assert conftest.unit_of_work(alone) == alone


def test_what_is_spread_exists():
    tests = Path(conftest.__file__).parent
    assert [name for name in conftest.SPREAD if not list(tests.rglob(name))] == []


def test_one_worker_has_all_of_a_file(tmp_path):
    """In two workers, with what the installed pytest and its plugin make of our conftest."""
    for module in (conftest, mended):
        shutil.copy(module.__file__, tmp_path)
    code = "import pytest\n\n@pytest.mark.parametrize('n', range(6))\ndef test_a(n): pass\n"
    for name in ("test_one.py", "test_two.py", *conftest.SPREAD):
        (tmp_path / name).write_text(code)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n2", "-v", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.findall(r"\[(gw\d)\] .* PASSED (\w+\.py)::", run.stdout)
    assert len(found) == 18, run.stdout + run.stderr
    of_one_and_two = {pair for pair in found if pair[1] not in conftest.SPREAD}
    assert len(of_one_and_two) == 2
    assert len({worker for worker, _ in found}) == 2
