"""Release the library: compare the tag with the version, and try the wheel where nothing else is.

    python -m tools.release check v1.2.3    is this the tag of the version in bnlib/__init__.py?
    python -m tools.release try dist        install the wheel in a fresh environment, and use it

`.github/workflows/release.yml` does both before it publishes, and the tests do the second.
"""

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

import bnlib

# Run by the fresh environment's Python, which sees neither the checkout nor PYTHONPATH.
PROGRAM = """
import importlib.metadata, importlib.util, sys
from pathlib import Path

import numpy as np

import bnlib
from bnlib import axes, blocks, gradient, layer, moments, parameters, population, transform

home, version = Path(bnlib.__file__).resolve().parent, sys.argv[1]
assert home.is_relative_to(Path(sys.prefix).resolve()), f"bnlib comes from {home}"
assert bnlib.__version__ == importlib.metadata.version("bnlib-book") == version
assert (home / "py.typed").is_file(), "py.typed is missing"
assert importlib.util.find_spec("bnlib_pytest"), "the plugin of pytest is missing"
heavy = {"tensorflow", "keras", "matplotlib"} & set(sys.modules)
assert not heavy, f"import bnlib brings {heavy}"

x = np.array([[1, 10], [2, 20], [3, 60]], np.float32)
y, mean, variance = bnlib.batch_norm(x, gamma=[1, 1], beta=[0, 100])
np.testing.assert_allclose(mean, [2, 30])
np.testing.assert_allclose(y.mean(axis=0), [0, 100], atol=1e-5)
norm = bnlib.BatchNorm(2)
norm(x, training=True)
assert norm.backward(y).shape == norm(x, training=False).shape == (3, 2)
large = np.tile(x, (10_000, 1))
np.testing.assert_allclose(bnlib.moments(large).variance, variance, rtol=1e-6)
print("bnlib", version, "works where nothing else is installed")
"""


def check_tag(tag: str) -> str:
    """Return what is wrong with a tag, or nothing."""
    if tag == f"v{bnlib.__version__}":
        return ""
    return (
        f"the tag must be v{bnlib.__version__}, the version in bnlib/__init__.py; got {tag}. "
        "Change one of them, and CITATION.cff and CHANGELOG.md with it."
    )


def try_wheel(wheel: Path, *, borrow: bool = False) -> subprocess.CompletedProcess:
    """Install a wheel in a fresh environment and run a small program there.

    Args:
        wheel: The file.
        borrow: Whether NumPy is taken from this environment, instead of being installed.

    Returns:
        The first command that failed, or the program's run.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder)
        paths = sysconfig.get_paths("venv", {"base": folder, "platbase": folder})
        python = Path(paths["scripts"]) / Path(sys.executable).name
        install = [sys.executable, "-m", "uv", "pip", "install", "--python", python]
        install += ["--no-deps"] if borrow else []
        done = _run(*install, wheel.resolve(), cwd=folder)
        if done.returncode:
            return done
        if borrow:
            borrowed = Path(paths["purelib"], "borrowed.pth")
            borrowed.write_text(sysconfig.get_path("platlib") + "\n")
        return _run(python, "-I", "-c", PROGRAM, bnlib.__version__, cwd=folder)


def _run(*command, cwd):
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )


def main() -> int:
    """Return 1 if the tag is wrong or the wheel does not work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("check", help="compare a tag with the version").add_argument("tag")
    trying = verbs.add_parser("try", help="install the wheel in a folder, and use it")
    trying.add_argument("folder", type=Path)
    options = parser.parse_args()
    if options.verb == "check":
        fault = check_tag(options.tag)
        print(fault or f"{options.tag} is the tag of this version")
        return int(bool(fault))
    wheels = sorted(options.folder.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{options.folder} must hold one wheel; it holds {len(wheels)}.")
        return 1
    done = try_wheel(wheels[0])
    print(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
