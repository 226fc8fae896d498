"""Set up .venv: every version from the lock, then bnlib itself, editable; `torch` adds PyTorch.

`peers` makes another one inside it, with the newest versions of what `make conformance` checks.

`make` runs this with whatever Python there is: the standard library is enough for it, and a Python
that is too old can still read it, and be told so.
"""

import importlib.util
import sys
from pathlib import Path

from tools.installer import install, say

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
PEERS = VENV / "peers"
NEEDED = (3, 11)


def step(what, python, *options):
    """Run a module of some Python; end in one line if it fails."""
    command = [str(python), "-m", *map(str, options)]
    fault = install(command, VENV / "setup.log")
    if fault:
        sys.exit(f"{what} failed: {fault}")


def make_environment():
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            f"{sys.executable} has no ensurepip, so it makes no environments: on Debian "
            "and Ubuntu, apt-get install python3-venv, then run make again"
        )
    say(f"Setting up {VENV}, once; how long it takes depends on the network.")
    step("Making the environment", sys.executable, "venv", VENV)


def set_up():
    lock = ROOT / "requirements.lock"
    [uv] = [line for line in lock.read_text().split() if line.startswith("uv==")]
    if not (PYTHON.exists() and (VENV / "bin/pip").exists()):
        make_environment()
    step("Installing uv", PYTHON, "pip", "install", "--no-input", uv)
    # Else UV_SYSTEM_PYTHON or UV_PYTHON would choose another one.
    into = "uv", "pip", "install", "--python", PYTHON
    step("Installing the lock", PYTHON, *into, "-r", lock)
    step("Installing bnlib", PYTHON, *into, "--no-deps", "-e", ROOT)


def add_torch():
    # pip, not uv: it takes a CPU build where one is offered.
    lock = ROOT / "requirements-torch.lock"
    step("Installing PyTorch", PYTHON, "pip", "install", "--no-input", "-r", lock)


def make_peers():
    python = PEERS / "bin/python"
    step("Making the environment", sys.executable, "venv", "--clear", PEERS)
    lock = ROOT / "requirements-torch.lock"
    step("Installing PyTorch", python, "pip", "install", "--no-input", "-r", lock)
    into = "uv", "pip", "install", "--python", python
    step("Installing the peers", PYTHON, *into, "-e", f"{ROOT}[peers]")


def main():
    if sys.version_info < NEEDED:
        sys.exit(
            "Python {}.{} or newer is needed, and {} is {}.{}. "
            "Name another one, as in: make PYTHON=python3.11".format(
                *NEEDED, sys.executable, *sys.version_info[:2]
            )
        )
    try:
        {"torch": add_torch, "peers": make_peers}.get("".join(sys.argv[1:]), set_up)()
    except OSError as error:
        sys.exit(f"{VENV} cannot be set up: {error}")


if __name__ == "__main__":
    main()
