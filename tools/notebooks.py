"""Make the notebooks: read text/**/*.md, run every cell, store book/**/*.ipynb with the outputs.

Check them with `--test`: nbval runs every cell again and compares the outputs with the stored.

Only what changed is run. A notebook is up to date while everything that its outputs depend on (its
text, the library, the locked versions, this file, and the notebook itself) has the fingerprint
recorded in _build/notebooks.json after its last run; that it was made and that it was checked are
recorded apart. Without a record, as in a fresh clone, it is run. The result depends on those files
alone, so a second run changes no byte.

A notebook with a failing cell stays as it was.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from rich.console import Console
from rich.progress import track
from rich.text import Text

from bnlib.book.notebook import QUIET

ROOT = Path(__file__).resolve().parents[1]
CELL_TIMEOUT = 300  # seconds
ENVIRONMENT = {
    **QUIET,
    "OPENBLAS_NUM_THREADS": "1",  # adds in the same order on every run
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one of the user's
}
# What C libraries write to stderr is no output of a cell: on a machine without a GPU no setting
# keeps TensorFlow from it. Python's warnings still are output.
KERNEL = ["--IPKernelApp.capture_fd_output=False", "--log-level=ERROR"]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
SANITIZE = "tests/nbval_sanitize.cfg"
NBVAL = ["--nbval", "--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT}"]
NBVAL += ["--nbval-sanitize-with", SANITIZE]
# What is done with a notebook, and which files that depends on besides those that all runs do.
DEEDS = {"made": [], "checked": ["book/conftest.py", "tools/tolerance.py", SANITIZE]}
console = Console(highlight=False, soft_wrap=True)


def read_text(path: Path) -> nbformat.NotebookNode:
    """Read a chapter's text as a notebook without outputs.

    Args:
        path: A MyST Markdown file.

    Returns:
        The notebook, with clean metadata and with identifiers that depend on the cells alone.
    """
    notebook = jupytext.read(path, fmt="md:myst")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    kept = {key: value for key, value in notebook.metadata.items() if key == "myst"}
    notebook.metadata = nbformat.from_dict({**METADATA, **kept})
    copies = Counter()
    for cell in notebook.cells:
        content = f"{cell.cell_type}\n{cell.source}"
        copies[content] += 1
        numbered = f"{copies[content]}\n{content}"
        cell.id = hashlib.sha256(numbered.encode()).hexdigest()[:8]
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """Run every cell in a fresh kernel.

    Args:
        notebook: The notebook; its outputs are filled in.
        folder: Where the kernel runs.

    Returns:
        The content of the .ipynb file.

    Raises:
        CellControlSignal: If a cell fails or takes too long.
        DeadKernelError: If the kernel dies.
    """
    metadata = notebook.metadata.copy()
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=KERNEL,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    notebook.metadata = metadata  # the kernel added its version of Python
    return nbformat.writes(notebook) + "\n"


# What is up to date


def find_texts(root: Path) -> dict[str, tuple[Path, Path]]:
    """Map the name of each chapter, such as "part1/02_moments", to its text and its notebook."""
    texts = sorted(root.glob("text/**/*.md"))
    names = [
        text.relative_to(root / "text").with_suffix("").as_posix() for text in texts
    ]
    return {
        name: (text, root / "book" / f"{name}.ipynb")
        for name, text in zip(names, texts, strict=True)
    }


def fingerprint(root: Path, *files: Path) -> str:
    """Hash everything that the outputs of all notebooks depend on, and some files."""
    digest = hashlib.sha256()
    library = sorted([*root.glob("bnlib/**/*.py"), *root.glob("bnlib/**/*.json")])
    locks = sorted(root.glob("requirements*.lock"))
    for path in [Path(__file__), *locks, *library, *files]:
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


class Record:
    """What was done with each notebook, "made" or "checked", and its fingerprint then."""

    def __init__(self, root: Path):
        self.root = root
        self.texts = find_texts(root)
        self.file = root / "_build" / "notebooks.json"
        self.done = json.loads(self.file.read_text()) if self.file.exists() else {}

    def mark(self, deed: str, name: str) -> str:
        """Return the fingerprint that a notebook has now, as far as a deed depends on it."""
        also = [self.root / file for file in DEEDS[deed]]
        return fingerprint(self.root, *self.texts[name], *also)

    def is_stale(self, deed: str, name: str) -> bool:
        """Tell whether something changed since the deed was done."""
        return self.done.get(f"{deed} {name}") != self.mark(deed, name)

    def remember(self, deed: str, name: str, mark: str) -> None:
        """Note that a deed was done."""
        self.done[f"{deed} {name}"] = mark
        replace(self.file, json.dumps(self.done, indent=1, sort_keys=True) + "\n")


def replace(path: Path, content: str) -> None:
    """Write a file in one step: an interruption leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(content, encoding="utf-8", newline="\n")
    new.replace(path)


# Making and checking


def make(text: Path, notebook: Path, *, check: bool) -> str:
    """Run one chapter, and store the notebook unless this is a check.

    Args:
        text: The chapter's text.
        notebook: Where the notebook is stored.
        check: Whether to leave the stored notebook alone.

    Returns:
        What became of it: "stored", "unchanged", "would change" or "failed".
    """
    notebook.parent.mkdir(parents=True, exist_ok=True)
    try:
        content = execute(read_text(text), notebook.parent)
    except (CellControlSignal, DeadKernelError) as error:
        console.print(
            Text.from_ansi(f"{text}\n{error}")
        )  # the cell's source and the traceback
        return "failed"
    if notebook.exists() and notebook.read_bytes() == content.encode():
        return "unchanged"
    if check:
        return "would change"
    replace(notebook, content)
    return "stored"


def make_all(root: Path, *, everything: bool = False, check: bool = False) -> Counter:
    """Make every notebook of a project and count what became of them.

    Args:
        root: The folder that holds text/, book/ and bnlib/.
        everything: Whether to run the notebooks that are up to date as well.
        check: Whether to run them all and store none.

    Returns:
        How many were "up to date", "stored", "unchanged", "would change" or "failed".
    """
    record, outcomes = Record(root), Counter()
    for name in track(list(record.texts), "Running", console=console, transient=True):
        start, outcome = time.perf_counter(), "up to date"
        if everything or check or record.is_stale("made", name):
            outcome = make(*record.texts[name], check=check)
        if outcome in ("stored", "unchanged"):
            record.remember("made", name, record.mark("made", name))
        console.print(f"{name}: {outcome} ({time.perf_counter() - start:.1f} s)")
        outcomes[outcome] += 1
    return outcomes


def check_all(root: Path, options: list[str]) -> int:
    """Let nbval check the notebooks that changed since they last passed.

    Args:
        root: The folder that holds text/, book/ and bnlib/.
        options: Further ones for pytest.

    Returns:
        The exit code of pytest.
    """
    record = Record(root)
    stale = {
        name: record.mark("checked", name)
        for name in record.texts
        if record.is_stale("checked", name)
    }
    fresh, every = len(record.texts) - len(stale), len(record.texts)
    console.print(f"{fresh} of {every} notebooks are up to date")
    if not stale:
        return 0
    files = [str(record.texts[name][1].relative_to(root)) for name in stale]
    command = [sys.executable, "-m", "pytest", *NBVAL, *options, *files]
    code = subprocess.run(command, cwd=root).returncode
    if code == 0:
        for name, mark in stale.items():
            record.remember("checked", name, mark)
    return code


def main() -> int:
    """Return 1 if a cell failed, a check found a change, or there was nothing to do."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--all", action="store_true", help="run also what is up to date"
    )
    parser.add_argument("--check", action="store_true", help="run all, store nothing")
    parser.add_argument(
        "--root", type=Path, default=ROOT, help="the project (default: this one)"
    )
    parser.add_argument(
        "--test",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="check what changed with nbval; the rest is for pytest",
    )
    options = parser.parse_args()
    os.environ.update(ENVIRONMENT)
    if options.test is not None:
        return check_all(options.root.resolve(), options.test)
    outcomes = make_all(
        options.root.resolve(), everything=options.all, check=options.check
    )
    if not outcomes:
        console.print(f"no text/**/*.md in {options.root}")
    return int(not outcomes or outcomes["failed"] + outcomes["would change"] > 0)


if __name__ == "__main__":
    sys.exit(main())
