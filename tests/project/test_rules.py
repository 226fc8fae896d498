"""The rules that keep the project easy to read: imports, stems, chapters, docstrings, types.

Most rules are functions that return their faults as strings. Each is asserted on the project, where
it must find none, and then on planted faults, which it must find: a rule that cannot fail is none.
"""

import ast
import re
import shutil
import sys

import pytest
from building import plant, run
from facts import CORE, ROOT

from tools import chapters
from tools.chapters import make_all, module_of, public_names, read_parts

# Reading the project


def library(root):
    """Map each module of bnlib ("moments", "book.exercises.axes", "__init__") to its tree."""
    trees = {}
    for path in sorted((root / "bnlib").rglob("*.py")):
        parts = path.relative_to(root / "bnlib").with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__") or "__init__"
        trees[name] = ast.parse(path.read_text(), str(path))
    return trees


def is_private(module):
    return any(part.startswith("_") for part in module.split("."))


def notebooks(root):
    return sorted((root / "book").glob("part*/*.ipynb"))


# Imports: one way, in the order of the layers in pyproject.toml, which import-linter checks


def lint_imports(root):
    """Run import-linter on the bnlib of a folder, with the contracts of the project."""
    code = "from importlinter.cli import lint_imports_command as main; main()"
    command = [sys.executable, "-c", code, "--no-cache", "--no-logo"]
    command.append(ROOT / "pyproject.toml")
    return run(*command, cwd=root)


@pytest.fixture
def copied(tmp_path):
    """Copy the library, for a wrong import to be planted in."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bnlib", tmp_path / "bnlib", ignore=skipped)
    return tmp_path


def add(root, path, code):
    with (root / "bnlib" / path).open("a") as file:
        file.write(f"\n{code}\n")


def test_imports_run_one_way():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 3 kept, 0 broken." in done.stdout
    assert {"moments", "axes", "blocks", "variants"} <= set(CORE)


@pytest.mark.parametrize(
    ("path", "code", "fault"),
    [
        ("axes.py", "import bnlib.moments", "bnlib.axes -> bnlib.moments"),
        ("axes.py", "from bnlib import moments", "bnlib.axes -> bnlib.moments"),
        ("axes.py", "from bnlib import fold", "bnlib.axes -> bnlib "),
        ("axes.py", "from .moments import x", "bnlib.axes -> bnlib.moments"),
        ("blocks/_numpy.py", "import bnlib.axes", "bnlib.blocks._numpy -> bnlib.axes"),
        (
            "moments.py",
            "def f():\n  import bnlib.keras",
            "bnlib.moments -> bnlib.keras",
        ),
        ("_checks.py", "import bnlib.axes", "bnlib._checks -> bnlib.axes"),
        ("parameters.py", "import bnlib", "bnlib.parameters -> bnlib "),
        ("layer.py", "import bnlib.book.data", "bnlib.layer -> bnlib.book.data"),
        (
            "replicas.py",
            "from bnlib.book import workers",
            "bnlib.replicas -> bnlib.book.workers",
        ),
        (
            "keras/layer.py",
            "import bnlib.replicas",
            "bnlib.keras.layer -> bnlib.replicas",
        ),
        (
            "book/style.py",
            "import bnlib.book.notebook",
            "bnlib.book.style -> bnlib.book.notebook",
        ),
        ("mystery.py", "", "not listed as layers:\n\n- bnlib.mystery\n"),
        ("book/mystery.py", "", "not listed as layers:\n\n- bnlib.book.mystery\n"),
    ],
)
def test_a_wrong_import_is_found(copied, path, code, fault):
    add(copied, path, code)
    done = lint_imports(copied)
    assert done.returncode == 1
    assert fault in done.stdout


def test_a_right_import_is_left_alone(copied):
    add(copied, "moments.py", "import math, numpy.linalg")
    add(copied, "doctor.py", "import keras, bnlib.keras")
    add(
        copied,
        "book/claims/__init__.py",
        "from bnlib import moments\nimport bnlib.doctor",
    )
    add(copied, "cli.py", "def main():\n  import argparse, pandas, bnlib.doctor")
    done = lint_imports(copied)
    assert done.returncode == 0, done.stdout


# The stem rule: chapter NN_name is about name.py, and tests/**/test_name.py checks it


def has_module(root, stem):
    try:
        return bool(module_of(root, stem))
    except FileNotFoundError:
        return False


def stem_faults(root):
    faults = []
    for notebook in notebooks(root):
        number, _, stem = notebook.stem.partition("_")
        if not re.fullmatch(r"\d\d", number) or not has_module(root, stem):
            faults.append(f"{notebook.name}: no module {stem}.py")
        text = f"text/{notebook.parent.name}/{notebook.stem}.md"
        if not (root / text).is_file():
            faults.append(f"{notebook.name}: no text {text}")
    trees = library(root)
    modules = {m.removeprefix("book.").split(".")[0]: m for m in trees if m != "book"}
    for stem, module in sorted(modules.items()):
        if not is_private(stem) and not list(root.glob(f"tests/**/test_{stem}.py")):
            faults.append(f"bnlib.{module}: no test test_{stem}.py")
    return faults


def test_stems_agree():
    assert len(notebooks(ROOT)) >= 12
    assert stem_faults(ROOT) == []


def test_a_missing_twin_is_found(tmp_path):
    plant(
        tmp_path,
        {
            "book/part1/01_network.ipynb": "",
            "book/part1/02_moments.ipynb": "",
            "book/part1/03_transform.ipynb": "",
            "text/part1/01_network.md": "",
            "text/part1/02_moments.md": "",
            "bnlib/moments.py": "",
            "bnlib/_checks.py": "",
            "bnlib/keras/__init__.py": "",
            "bnlib/book/__init__.py": "",
            "bnlib/book/network.py": "",
            "bnlib/book/style.py": "",
            "tests/core/test_moments.py": "",
            "tests/book/test_network.py": "",
        },
    )
    assert stem_faults(tmp_path) == [
        "03_transform.ipynb: no module transform.py",
        "03_transform.ipynb: no text text/part1/03_transform.md",
        "bnlib.keras: no test test_keras.py",
        "bnlib.book.style: no test test_style.py",
    ]


# One list of chapters, book/chapters.toml, from which the others are made


def list_faults(root):
    """Compare the list with the files, and with what was made from it."""
    pages = [page for part in read_parts(root) for page in part.pages]
    listed = {page.page for page in pages}
    faults = [
        f"{page}: not in book/chapters.toml"
        for notebook in sorted((root / "book").glob("*/*.ipynb"))
        if (page := f"{notebook.parent.name}/{notebook.stem}") not in listed
    ]
    numbers = [page.number for page in pages if page.number]
    if numbers != sorted(set(numbers)):
        faults.append(f"chapters are out of order: {numbers}")
    for page in pages:
        folder = "text" if "/" in page.page else "book"
        text = root / folder / f"{page.page}.md"
        if not text.is_file():
            faults.append(f"{page.page}: no {folder}/{page.page}.md")
        elif page.title and f"\n# {page.title}\n" not in f"\n{text.read_text()}":
            faults.append(f"{page.page}: its heading is not {page.title!r}")
    about = {page.stem for page in pages if page.paper}
    faults += [
        f"bnlib.{name}: in no chapter"
        for name in CORE
        if name in library(root) and name not in about
    ]
    if not faults:
        faults += [
            f"{path.relative_to(root)}: not what `make chapters` makes"
            for path, text in make_all(root).items()
            if path.read_text() != text
        ]
    return faults


def test_what_lists_the_chapters_is_made_from_one_list():
    assert list_faults(ROOT) == []
    assert {path.name for path in make_all(ROOT)} == {
        "README.md",
        "_toc.yml",
        "api.md",
        "code_map.md",
        "index.md",
        "rows.md",
    }


LIST = """
[[part]]
caption = "Part I"
says = "Part I:"

[[part.pages]]
page = "part1/02_moments"
title = "Moments"
sentence = "two"
holds = "both"
paper = "1"
"""

ROWS = """
[[group]]
title = "One"
rows = [{ id = "A1", asks = "Why?", at = ["part1/02_moments#because"] }]
"""


@pytest.fixture
def listed(tmp_path):
    """Make a book of one chapter."""
    begin, end = chapters.BEGIN, chapters.END
    plant(
        tmp_path,
        {
            "bnlib/moments.py": '__all__ = ["Moments", "moments"]',
            "text/part1/02_moments.md": "---\nx: 1\n---\n\n# Moments\n\nText.\n",
            "book/part1/02_moments.ipynb": '{"cells": []}',
            "book/chapters.toml": LIST,
            "book/rows.toml": ROWS,
            "book/rows.md": f"{begin.format('rows')}\n{end}\n",
            "book/_toc.yml": "",
            "book/index.md": f"Before.\n{begin.format('chapters')}\n{end}\nAfter.\n",
            "book/code_map.md": f"{begin.format('modules')}\n{end}\n",
            "book/api.md": "".join(
                f"{begin.format(name)}\n{end}\n" for name in ("reference", "exercises")
            ),
            "README.md": f"{begin.format('modules')}\n{end}\n",
        },
    )
    for path, text in make_all(tmp_path).items():
        path.write_text(text)
    return tmp_path


def test_a_list_is_made_between_its_comments(listed):
    assert list_faults(listed) == []
    said = {path: path.read_text() for path in make_all(listed)}
    assert "      - file: part1/02_moments\n" in said[listed / "book/_toc.yml"]
    index = said[listed / "book/index.md"]
    assert index.startswith("Before.\n")
    assert index.endswith("\nAfter.\n")
    assert "\n\nPart I:\n\n2. [Moments](part1/02_moments): two\n\n" in index
    row = "| 2 [moments](part1/02_moments.ipynb) | `bnlib.moments` | `Moments`, `moments` | 1 |"
    assert row in said[listed / "book/code_map.md"]
    row = "| 2 [Moments](book/part1/02_moments.ipynb) | `bnlib.moments` | both |"
    assert row in said[listed / "README.md"]
    assert "\nChapter 2: [Moments](part1/02_moments).\n" in said[listed / "book/api.md"]


@pytest.mark.parametrize(
    ("path", "old", "new", "fault"),
    [
        (
            "text/part1/02_moments.md",
            "# Moments",
            "# Momenta",
            "part1/02_moments: its heading is not 'Moments'",
        ),
        (
            "book/chapters.toml",
            "02_moments",
            "03_moments",
            "part1/02_moments: not in book/chapters.toml",
        ),
        (
            "book/chapters.toml",
            "02_moments",
            "03_moments",
            "part1/03_moments: no text/part1/03_moments.md",
        ),
        (
            "book/chapters.toml",
            '"two"',
            '"three"',
            "book/index.md: not what `make chapters` makes",
        ),
        (
            "bnlib/moments.py",
            '"moments"',
            '"mean"',
            "book/code_map.md: not what `make chapters` makes",
        ),
        ("book/code_map.md", "| 1 |", "|", "book/code_map.md: not what"),
        ("README.md", "both", "one", "README.md: not what `make chapters` makes"),
        ("book/api.md", "members", "member", "book/api.md: not what"),
        (
            "book/rows.toml",
            "Why",
            "How",
            "book/rows.md: not what `make chapters` makes",
        ),
        ("book/_toc.yml", "02", "03", "book/_toc.yml: not what `make chapters` makes"),
    ],
)
def test_an_untrue_list_is_found(listed, path, old, new, fault):
    text = (listed / path).read_text()
    assert old in text
    (listed / path).write_text(text.replace(old, new))
    assert fault in "\n".join(list_faults(listed))


def test_chapters_out_of_order_are_found(listed):
    text = (listed / "book/chapters.toml").read_text()
    (listed / "book/chapters.toml").write_text(text + text)
    assert list_faults(listed) == ["chapters are out of order: [2, 2]"]


def test_a_module_of_the_core_without_a_chapter_is_found(listed):
    plant(listed, {"bnlib/axes.py": ""})
    assert list_faults(listed) == ["bnlib.axes: in no chapter"]


def test_a_list_that_cannot_be_made_says_why(listed):
    with pytest.raises(FileNotFoundError, match=r"neither bnlib/momenta\.py nor"):
        module_of(listed, "momenta")
    (listed / "README.md").write_text("")
    with pytest.raises(ValueError, match=r"README.md must have the lines <!-- made by"):
        make_all(listed)


# Documentation: every public name is described, shown running, and in the reference


def returns_a_value(function):
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    return any(node.value is not None for node in returns)


def missing_sections(module, node):
    """Name what the docstring of a public function or class lacks."""
    doc = ast.get_docstring(node)
    if not doc:
        return ["any text"]
    if module.startswith("book.exercises"):
        return []  # all of one form, `check(answer)`: one line says it
    if isinstance(node, ast.ClassDef):
        return (
            [] if "Args:" in doc or "Attributes:" in doc else ["Args: or Attributes:"]
        )
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    wanted = {
        "Args:": bool(arguments),
        "Returns:": returns_a_value(node),
        ">>>": module in CORE,
    }
    return [
        section for section, needed in wanted.items() if needed and section not in doc
    ]


def docstring_faults(root):
    return [
        f"bnlib.{module}.{node.name}: docstring without {section}"
        for module, tree in library(root).items()
        for node in tree.body
        if getattr(node, "name", None) in public_names(tree)
        for section in missing_sections(module, node)
    ]


def reference_faults(root):
    """List the public names that no directive of book/api.md brings into the reference.

    What a package offers as its own is looked for there, not in the module that it comes from.
    """
    text, trees = (root / "book/api.md").read_text(), library(root)
    modules = set(re.findall(r"automodule:: bnlib\.([\w.]+)\n +:members:", text))
    names = set(
        re.findall(r"auto(?:function|class|data|exception):: bnlib\.([\w.]+)", text)
    )

    def offered_above(module, name):
        package = module.rpartition(".")[0]
        return package in trees and name in public_names(trees[package])

    return [
        f"bnlib.{module}.{name}: not in book/api.md"
        for module, tree in trees.items()
        if not is_private(module) and module not in modules
        for name in sorted(public_names(tree))
        if f"{module}.{name}" not in names and not offered_above(module, name)
    ]


def test_public_names_are_documented():
    assert docstring_faults(ROOT) == []
    assert reference_faults(ROOT) == []


def test_a_poor_docstring_is_found(tmp_path):
    code = '''
__all__ = ["Pair", "half", "bare"]
class Pair:
    """Two."""
def half(x):
    """Halve."""
    return x / 2
def bare(): pass
def _private(x): return x
'''
    plant(
        tmp_path,
        dict.fromkeys(
            (f"bnlib/{m}.py" for m in ("book/exercises", "book/style", "moments")), code
        ),
    )
    assert docstring_faults(tmp_path) == [
        "bnlib.book.exercises.bare: docstring without any text",
        "bnlib.book.style.Pair: docstring without Args: or Attributes:",
        "bnlib.book.style.half: docstring without Args:",
        "bnlib.book.style.half: docstring without Returns:",
        "bnlib.book.style.bare: docstring without any text",
        "bnlib.moments.Pair: docstring without Args: or Attributes:",
        "bnlib.moments.half: docstring without Args:",
        "bnlib.moments.half: docstring without Returns:",
        "bnlib.moments.half: docstring without >>>",
        "bnlib.moments.bare: docstring without any text",
    ]


def test_a_name_missing_from_the_reference_is_found(tmp_path):
    api = ".. automodule:: bnlib.axes\n   :members:\n.. autofunction:: bnlib.moments.moments\n"
    plant(
        tmp_path,
        {
            "bnlib/axes.py": '__all__ = ["layout"]',
            "bnlib/moments.py": '__all__ = ["moments", "merge_moments"]',
            "bnlib/tf_ops/__init__.py": '__all__ = ["normalize"]',
            "bnlib/tf_ops/inner.py": '__all__ = ["normalize", "forgotten"]',
            "book/api.md": api,
        },
    )
    assert reference_faults(tmp_path) == [
        "bnlib.moments.merge_moments: not in book/api.md",
        "bnlib.tf_ops.normalize: not in book/api.md",
        "bnlib.tf_ops.inner.forgotten: not in book/api.md",
    ]


# Types: what a user calls says what it takes and gives


def untyped(function):
    """Name the arguments of a function, and its result, that have no type."""
    a = function.args
    named = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    bare = [arg.arg for arg in named if arg and not arg.annotation]
    bare = [name for name in bare if name not in ("self", "cls")]
    return bare + ([] if function.returns else ["return"])


def offered(node):
    """Yield a public function, or the public methods of a public class."""
    if isinstance(node, ast.FunctionDef):
        yield node.name, node
    elif isinstance(node, ast.ClassDef):
        for inner in node.body:
            special = getattr(inner, "name", "") in ("__init__", "__call__")
            if isinstance(inner, ast.FunctionDef) and (
                special or not inner.name.startswith("_")
            ):
                yield f"{node.name}.{inner.name}", inner


KERAS_SAYS = {"keras.layer"}  # a layer's methods are Keras's, which has no types
PLAIN = (
    "book.network",
    "book.norms",
    "book.sequences",
    "book.exercises",
)  # plain layers


def type_faults(root):
    return [
        f"bnlib.{module}.{name}: no type for {', '.join(untyped(function))}"
        for module, tree in library(root).items()
        if not module.startswith(PLAIN) and module not in KERAS_SAYS
        for node in tree.body
        if getattr(node, "name", None) in public_names(tree)
        for name, function in offered(node)
        if untyped(function)
    ]


def test_public_names_have_types():
    assert type_faults(ROOT) == []


def test_a_missing_type_is_found(tmp_path):
    code = """
__all__ = ["Moments", "moments"]
class Moments:
    def __init__(self, x): ...
    def value(self) -> float: ...
    def _inner(self, x): ...
def moments(x: int, *rest, axis=-1): ...
def helper(x): ...
"""
    plant(tmp_path, {"bnlib/moments.py": code, "bnlib/book/network.py": code})
    assert type_faults(tmp_path) == [
        "bnlib.moments.Moments.__init__: no type for x, return",
        "bnlib.moments.moments: no type for axis, rest, return",
    ]


@pytest.mark.parametrize(
    ("script", "modules"),
    [
        ("user_script.py", ["__init__", "blocks", "variants"]),
        (
            "user_script_frameworks.py",
            ["tf_ops", "keras", "conventions", "replicas", "conformance"],
        ),
    ],
)
def test_the_users_script_touches_every_public_name(script, modules):
    """So that the type checker, which reads it, has seen them all."""
    nodes = list(ast.walk(ast.parse((ROOT / "tests" / script).read_text())))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {
        alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    trees = library(ROOT)
    assert [
        (m, n) for m in modules for n in public_names(trees[m]) if n not in used
    ] == []


# Any system: the library asks nothing of POSIX without looking whether it is there

POSIX_MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "fork",
    "forkpty",
    "getpgid",
    "getuid",
    "kill",
    "killpg",
    "nice",
    "setpgid",
}
POSIX_NAMES |= {"sched_getaffinity", "setsid", "uname", "SIGKILL", "SIGHUP", "SIGUSR1"}
POSIX_NAMES |= {"preexec_fn", "start_new_session"}


def posix_faults(root):
    faults = []
    for module, tree in library(root).items():
        for node in ast.walk(tree):
            said = set()
            if isinstance(node, ast.Import):
                said = {alias.name for alias in node.names} & POSIX_MODULES
            elif isinstance(node, ast.ImportFrom):
                said = {node.module} & POSIX_MODULES
            elif isinstance(node, ast.Attribute):
                whose = getattr(node.value, "id", "")
                said = {node.attr} & POSIX_NAMES if whose in ("os", "signal") else set()
            elif isinstance(node, ast.keyword):
                said = {node.arg} & POSIX_NAMES
                if node.arg == "reuse_port" and isinstance(node.value, ast.Constant):
                    said = {"reuse_port"}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said = set(re.findall(r"^/(?:proc|dev|tmp|etc)\b", node.value))
            faults += [f"bnlib.{module}: {name}" for name in sorted(said)]
    return faults


def test_the_library_asks_nothing_of_posix():
    assert posix_faults(ROOT) == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("import os\nos.sched_getaffinity(0)", "sched_getaffinity"),
        ("import signal\nx = signal.SIGKILL", "SIGKILL"),
        ("import resource", "resource"),
        ("from fcntl import flock", "fcntl"),
        ("open('/proc/cpuinfo')", "/proc"),
        ("server(reuse_port=True)", "reuse_port"),
        ("Popen(x, start_new_session=True)", "start_new_session"),
    ],
)
def test_what_only_posix_has_is_found(tmp_path, code, name):
    plant(tmp_path, {"bnlib/book/data.py": code})
    assert posix_faults(tmp_path) == [f"bnlib.book.data: {name}"]


# Complexity: ruff watches, at a generous value


def test_a_function_that_does_too_much_is_found():
    branches = "".join(f"    if x == {i}:\n        x += 1\n" for i in range(16))
    lines = "    x += 1\n" * 70
    for body, rule in ((branches, "C901"), (lines, "PLR0915")):
        ruff = (sys.executable, "-m", "ruff", "check", "--output-format=concise", "-")
        found = run(*ruff, input=f"def f(x):\n{body}    return x\n")
        assert rule in found.stdout, found.stdout + found.stderr
