"""The rules that keep the project easy to read: imports, stems, code map, docstrings, types.

Each rule is a function that returns its faults as strings. It is asserted on the project, where it
must find none, and then on planted faults, which it must find: a rule that cannot fail is no rule.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


# Reading the project


def library(root):
    """Map each module of bnlib ("moments", "exercises.axes", "__init__") to its tree."""
    trees = {}
    for path in sorted((root / "bnlib").rglob("*.py")):
        parts = path.relative_to(root / "bnlib").with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__") or "__init__"
        trees[name] = ast.parse(path.read_text(), str(path))
    return trees


def public_names(tree):
    """Return what a module lists in `__all__`, without importing it."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def is_private(module):
    return any(part.startswith("_") for part in module.split("."))


def has_module(root, name):
    return any(
        (root / "bnlib" / tail).is_file()
        for tail in (f"{name}.py", f"{name}/__init__.py")
    )


def chapters(root):
    return sorted((root / "book").glob("part*/*.ipynb"))


def plant(root, files):
    """Write a small tree, `{path: text}`, for a rule to find fault with."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


# Imports: one way, in the order of this table: modules | packages added to those of the lines above

LAYERS = """
axes blocks moments transform gradient population layer parameters variants | numpy
__init__                                                             |
tf_ops keras replicas conventions doctor                             | tensorflow keras
network data                                                         | rich pooch sklearn
_svg plots pictures notebook experiments claims exercises            | matplotlib IPython
conformance cli                                                      |
"""
TABLE = [
    [cell.split() for cell in line.split("|")] for line in LAYERS.strip().splitlines()
]
CORE = TABLE[0][0]
ORDER = [module for modules, _ in TABLE for module in modules]
COMPILED = {"_numba": {"numba"}}  # imported by name, when somebody asks for it
LAZY = {"conformance", "cli"}  # inside functions these may import anything


def rank(module):
    """Place a module in the order; a private one that is not in the table comes first."""
    head = module.split(".")[0]
    return ORDER.index(head) if head in ORDER else -1


def packages(module):
    """Return the third-party packages that a module may import."""
    here = max(rank(module), 0)
    below = {
        package
        for modules, added in TABLE
        if rank(modules[0]) <= here
        for package in added
    }
    return below | COMPILED.get(module, set())


def imported(node, trees, lazy=False):
    """Yield `(name, lazy)` for each import below `node`; lazy means inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            inner = [
                a.name
                for a in child.names
                if child.module == "bnlib" and a.name in trees
            ]
            if len(inner) < len(child.names):
                yield "." * child.level + (child.module or ""), lazy
            yield from ((f"bnlib.{name}", lazy) for name in inner)
        else:
            inside = isinstance(
                child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
            )
            yield from imported(child, trees, lazy or inside)


def may_import(module, name, lazy):
    top, _, rest = name.partition(".")
    if top in sys.stdlib_module_names or (lazy and module in LAZY):
        return True
    importer = (
        "__init__" if module in LAZY else module
    )  # when loaded, as light as bnlib itself
    if top != "bnlib":
        return top in packages(importer)
    same_package = rest.split(".")[0] == module.split(".")[0]
    both_private = is_private(module) and is_private(rest)
    return same_package or both_private or rank(rest or "__init__") < rank(importer)


def import_faults(root):
    trees = library(root)
    unplaced = [m for m in trees if not is_private(m) and m.split(".")[0] not in ORDER]
    if unplaced:
        return [f"bnlib.{module} is in no layer of the table" for module in unplaced]
    return [
        f"bnlib.{module} must not import {name}"
        for module, tree in trees.items()
        for name, lazy in imported(tree, trees)
        if not may_import(module, name, lazy)
    ]


def test_imports_run_one_way():
    assert "moments" in library(ROOT)
    assert import_faults(ROOT) == []


@pytest.mark.parametrize(
    ("path", "code", "fault"),
    [
        ("axes.py", "import bnlib.moments", "bnlib.axes must not import bnlib.moments"),
        (
            "axes.py",
            "from bnlib import moments",
            "bnlib.axes must not import bnlib.moments",
        ),
        ("axes.py", "from bnlib import fold", "bnlib.axes must not import bnlib"),
        ("axes.py", "from .moments import x", "bnlib.axes must not import .moments"),
        (
            "moments.py",
            "import scipy.stats",
            "bnlib.moments must not import scipy.stats",
        ),
        (
            "moments.py",
            "def f():\n  import keras",
            "bnlib.moments must not import keras",
        ),
        ("_checks.py", "import bnlib.axes", "bnlib._checks must not import bnlib.axes"),
        (
            "__init__.py",
            "import bnlib.tf_ops",
            "bnlib.__init__ must not import bnlib.tf_ops",
        ),
        (
            "keras/layer.py",
            "import matplotlib",
            "bnlib.keras.layer must not import matplotlib",
        ),
        ("parameters.py", "import bnlib", "bnlib.parameters must not import bnlib"),
        (
            "style.py",
            "import bnlib.book.notebook",
            "bnlib.book.style must not import bnlib.book.notebook",
        ),
        ("cli.py", "import tensorflow", "bnlib.cli must not import tensorflow"),
        ("cli.py", "import bnlib.doctor", "bnlib.cli must not import bnlib.doctor"),
        ("mystery.py", "", "bnlib.mystery is in no layer of the table"),
    ],
)
def test_a_wrong_import_is_found(tmp_path, path, code, fault):
    plant(tmp_path, {"bnlib/moments.py": "", f"bnlib/{path}": code})
    assert fault in import_faults(tmp_path)


def test_a_right_import_is_left_alone(tmp_path):
    plant(
        tmp_path,
        {
            "bnlib/__init__.py": "from bnlib.moments import moments",
            "bnlib/moments.py": "import math, numpy.linalg\nfrom bnlib._checks import wide",
            "bnlib/keras/layer.py": "import tensorflow\nfrom bnlib.keras.axis import f",
            "bnlib/keras/axis.py": "import bnlib.moments",
            "bnlib/book/exercises/__init__.py": "import bnlib.book.exercises.moments",
            "bnlib/book/exercises/moments.py": "from bnlib import moments",
            "bnlib/cli.py": "def main():\n  import argparse, pandas, bnlib.doctor",
        },
    )
    assert import_faults(tmp_path) == []


# The stem rule: chapter NN_name is about bnlib/name.py, and tests/test_name.py checks it


def stem_faults(root):
    faults = []
    for notebook in chapters(root):
        number, _, stem = notebook.stem.partition("_")
        if not re.fullmatch(r"\d\d", number) or not has_module(root, stem):
            faults.append(f"{notebook.name}: no module bnlib/{stem}.py")
        text = f"text/{notebook.parent.name}/{notebook.stem}.md"
        if not (root / text).is_file():
            faults.append(f"{notebook.name}: no text {text}")
    for module in sorted({m.split(".")[0] for m in library(root) if not is_private(m)}):
        if not (root / f"tests/test_{module}.py").is_file():
            faults.append(f"bnlib.{module}: no test tests/test_{module}.py")
    return faults


def test_stems_agree():
    assert len(chapters(ROOT)) >= 2
    assert stem_faults(ROOT) == []


def test_a_missing_twin_is_found(tmp_path):
    plant(
        tmp_path,
        {
            "book/part1/02_moments.ipynb": "",
            "book/part1/03_transform.ipynb": "",
            "text/part1/02_moments.md": "",
            "bnlib/moments.py": "",
            "bnlib/_checks.py": "",
            "bnlib/keras/__init__.py": "",
            "tests/test_moments.py": "",
        },
    )
    assert stem_faults(tmp_path) == [
        "03_transform.ipynb: no module bnlib/transform.py",
        "03_transform.ipynb: no text text/part1/03_transform.md",
        "bnlib.keras: no test tests/test_keras.py",
    ]


# The code map: chapter | module | public names | place in the paper


def code_map_rows(root):
    lines = (root / "book/code_map.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in lines
        if "|" in line
    ]
    return [row for row in rows if len(row) > 1 and re.match(r"`?bnlib\.", row[1])]


def row_faults(root, trees, row):
    """Compare one row with the modules, tests and chapters that it names."""
    if len(row) != 4:
        return [f"{row[1]}: {len(row)} cells, not 4"]
    chapter, module, names, _ = row
    stem = module.strip("`").removeprefix("bnlib.")
    if stem not in trees:
        return [f"bnlib.{stem}: no such module"]
    faults = []
    wrong = public_names(trees[stem]) ^ set(re.findall(r"`(\w+)`", names))
    if wrong:
        faults.append(f"bnlib.{stem}: names differ from __all__: {sorted(wrong)}")
    if not (root / f"tests/test_{stem}.py").is_file():
        faults.append(f"bnlib.{stem}: no file tests/test_{stem}.py")
    for target in re.findall(r"\]\((.+?)\)", chapter):
        if (
            not re.search(rf"/\d\d_{stem}\.ipynb$", target)
            or not (root / "book" / target).exists()
        ):
            faults.append(f"bnlib.{stem}: wrong chapter {target}")
    return faults


def code_map_faults(root):
    trees, rows = library(root), code_map_rows(root)
    faults = [fault for row in rows for fault in row_faults(root, trees, row)]
    listed = {row[1].strip("`").removeprefix("bnlib.") for row in rows}
    faults += [
        f"bnlib.{m}: not in the map" for m in CORE if m in trees and m not in listed
    ]
    text = (root / "book/code_map.md").read_text()
    for notebook in chapters(root):
        link = notebook.relative_to(root / "book").as_posix()
        if f"]({link})" not in text:
            faults.append(f"{link}: not in the map")
    return faults


def test_code_map_is_true():
    assert len(code_map_rows(ROOT)) >= 3
    assert code_map_faults(ROOT) == []


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("| 2 | bnlib.moments | `moments` |", "bnlib.moments: 3 cells, not 4"),
        ("| 2 | bnlib.momenta | `moments` | 3 |", "bnlib.momenta: no such module"),
        (
            "| 2 | `bnlib.moments` | `moments`, `mean` | 3 |",
            "bnlib.moments: names differ from __all__: ['Moments', 'mean']",
        ),
        ("| 2 | bnlib.axes | | 3 |", "bnlib.axes: no file tests/test_axes.py"),
        (
            "| 2 [m](part1/03_axes.ipynb) | bnlib.moments | `moments` | 3 |",
            "bnlib.moments: wrong chapter part1/03_axes.ipynb",
        ),
        ("", "bnlib.moments: not in the map"),
        ("", "part1/02_moments.ipynb: not in the map"),
    ],
)
def test_an_untrue_code_map_is_found(tmp_path, row, fault):
    head = "| chapter | module | public names | paper |\n|---|---|---|---|\n"
    plant(
        tmp_path,
        {
            "bnlib/moments.py": '__all__ = ["Moments", "moments"]',
            "bnlib/axes.py": "",
            "tests/test_moments.py": "",
            "book/part1/02_moments.ipynb": "",
            "book/part1/03_axes.ipynb": "",
            "book/code_map.md": head + row,
        },
    )
    assert fault in code_map_faults(tmp_path)


# Documentation: every public name is described, shown running, and in the reference


def returns_a_value(function):
    returns = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    return any(node.value is not None for node in returns)


def missing_sections(module, node):
    """Name what the docstring of a public function or class lacks."""
    doc = ast.get_docstring(node)
    if not doc:
        return ["any text"]
    if module.startswith(
        "exercises"
    ):  # all of one form, `check(answer)`: one line says it
        return []
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
            (f"bnlib/{m}.py" for m in ("exercises", "moments", "plots")), code
        ),
    )
    assert docstring_faults(tmp_path) == [
        "bnlib.book.exercises.bare: docstring without any text",
        "bnlib.moments.Pair: docstring without Args: or Attributes:",
        "bnlib.moments.half: docstring without Args:",
        "bnlib.moments.half: docstring without Returns:",
        "bnlib.moments.half: docstring without >>>",
        "bnlib.moments.bare: docstring without any text",
        "bnlib.book.style.Pair: docstring without Args: or Attributes:",
        "bnlib.book.style.half: docstring without Args:",
        "bnlib.book.style.half: docstring without Returns:",
        "bnlib.book.style.bare: docstring without any text",
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


BOOKS = {"network", "data", "_svg", "plots", "pictures", "notebook", "exercises"}
KERAS_SAYS = {"keras.layer"}  # a layer's methods are Keras's, which has no types


def type_faults(root):
    return [
        f"bnlib.{module}.{name}: no type for {', '.join(untyped(function))}"
        for module, tree in library(root).items()
        if module.split(".")[0] not in BOOKS and module not in KERAS_SAYS
        for node in tree.body
        if getattr(node, "name", None) in public_names(tree)
        for name, function in offered(node)
        if untyped(function)
    ]


def test_public_names_have_types():
    """What the book needs for itself may do without."""
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
        ("user_script.py", ["__init__", "blocks"]),
        ("user_script_frameworks.py", ["tf_ops", "keras", "conventions", "replicas"]),
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
        found = subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--output-format=concise", "-"],
            input=f"def f(x):\n{body}    return x\n",
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert rule in found.stdout, found.stdout + found.stderr
