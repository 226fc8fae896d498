"""Run named tests on a copy of the project, with one fault after another planted in it.

All in one process, because TensorFlow takes its time to start: `python planting.py FOLDER` reads
`{name: [file, text, fault, test]}` as JSON and answers `{name: [exit code, output]}`.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path


def run(folder, *tests):
    """Run tests of the copy, and forget its modules."""
    import pytest

    said, path = io.StringIO(), list(sys.path)
    options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=short"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = pytest.main([*options, *(f"{folder}/tests/{test}" for test in tests)])
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        ours = str(getattr(module, "__file__", None)).startswith(str(folder))
        if ours or name.endswith("_test"):  # Keras's own test, which ours changes
            del sys.modules[name]
    return int(code), said.getvalue()


def plant(folder, file, text, fault, test):
    path = folder / "bnlib" / file
    source = path.read_text()
    if source.count(text) != 1:
        return -1, f"the fault no longer fits {file}: {text!r}"
    path.write_text(source.replace(text, fault))
    try:
        return run(folder, test)
    finally:
        path.write_text(source)


def main():
    folder, faults = Path(sys.argv[1]).resolve(), json.load(sys.stdin)
    os.chdir(folder)
    tests = sorted({test for *_, test in faults.values()})
    answers = {"no fault": run(folder, *tests)}
    for name, fault in faults.items():
        answers[name] = plant(folder, *fault)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
