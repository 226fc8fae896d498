"""Small trees of files, commands, and small books, for tests to build and to spoil."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from facts import ROOT

# What every book needs of ours, besides its pages.
BOOK = ["_config.yml", "vendor", "book/_ext", "book/_static", "book/_templates"]
BOOK += ["book/references.bib"]


def plant(root, files):
    """Write a small tree, `{path: text}`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(*command, cwd=ROOT, **options):
    """Run a command and return what became of it, with what it said."""
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def run_without_bnlib(code, cwd):
    """Run code where all packages are but bnlib; without -S an editable one would be found."""
    packages = [p for p in sys.path if p.endswith("site-packages")]
    start = f"import importlib.util, sys; sys.path += {packages!r}\n"
    start += "assert importlib.util.find_spec('bnlib') is None\n"
    done = run(sys.executable, "-I", "-S", "-c", start + code, cwd=cwd, timeout=300)
    assert done.returncode == 0, done.stderr


def load_extension(name):
    """Import one of the book's extensions, such as "bnstyles"."""
    path = ROOT / f"book/_ext/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lay_out_book(folder, pages, also=()):
    """Copy the project's configuration, and more of its files, for a book of these pages."""
    for part in [*BOOK, *also]:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    plant(folder, {f"book/{name}": text for name, text in pages.items()})


def jupyter_book(*options):
    """Return the command that builds the book of the folder in which it runs."""
    program = Path(sys.executable).with_name("jupyter-book")
    settings = ["--config", "_config.yml", "--path-output", "."]
    return [program, "build", "book", *settings, *options]


def build(folder, text):
    """Build a book of one page with the project's configuration, and without a system node."""
    toc = "format: jb-book\nroot: index\n"
    index = f"{text}\n```{{bibliography}}\n```\n"
    lay_out_book(folder, {"_toc.yml": toc, "index.md": index})
    command = jupyter_book("-n", "-W", "--keep-going")
    alone = {**os.environ, "PATH": "", "NO_COLOR": "1"}
    return run(*command, cwd=folder, env=alone, timeout=120)
