"""GitHub's workflows would run: what tests import is installed, what is published is tested.

The Makefile's verbs are held to the same. As in test_rules.py, rules are tried on planted faults.
"""

import ast
import importlib.metadata
import re
import sys

import pytest
import yaml
from facts import CORE, FRAMEWORKS, NAME, PROJECT, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import workflows

FILES = sorted(ROOT.glob(".github/workflows/*.yml"))
EXTRAS = PROJECT["optional-dependencies"]
MODULES = importlib.metadata.packages_distributions()


def load(name):
    return yaml.safe_load((ROOT / ".github/workflows" / name).read_text())


def jobs(name):
    return load(name)["jobs"]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


# actionlint


def test_actionlint_finds_no_fault():
    """`make lint` asks the same; here it is made sure that it asks about all of them."""
    assert workflows.fetch() == ""
    done = workflows.check(FILES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {"ci.yml", "newest.yml", "pages.yml", "release.yml"} <= {
        f.name for f in FILES
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "needs: [test, build]",
            "needs: [tests]",
            'needs job "tests" which does not exist',
        ),
        ("github.repository }}", "github.repo }}", 'property "repo" is not defined'),
        ("id-token: write", "id-token: yes", "is invalid for permission"),
        ("runs-on: ubuntu-latest", "runs_on: ubuntu-latest", "runs_on"),
    ],
)
def test_a_wrong_workflow_is_found(tmp_path, old, new, words):
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert old in text
    path = tmp_path / "release.yml"
    path.write_text(text.replace(old, new))
    assert workflows.fetch() == ""
    done = workflows.check([path])
    assert done.returncode == 1
    assert words in done.stdout, done.stdout


# What is installed is what is imported


def brings(extras):
    """Return the distributions that bnlib with these extras asks for by name."""
    lines, names = list(PROJECT["dependencies"]), set()
    lines += [line for extra in extras for line in EXTRAS[extra]]
    while lines:
        requirement = Requirement(lines.pop())
        if requirement.name == NAME:
            lines += [line for extra in requirement.extras for line in EXTRAS[extra]]
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def imports(path):
    """Yield the modules of other projects that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            named = parts if is_namespace(node.module) else [node.module]
        else:
            continue
        yield from (name for name in named if name.split(".")[0] not in OURS)


OURS = {"benchmarks", "bnlib", "tools", "conftest", *sys.stdlib_module_names}
OURS |= {path.stem for path in ROOT.glob("tests/**/*.py")}


def is_namespace(module):
    return len(MODULES.get(module, ())) > 1


def distribution(module):
    """Return the distribution that brings a module; one of a namespace has the module's name."""
    top = module.split(".")[0]
    if is_namespace(top):
        return canonicalize_name("-".join(module.split(".")[:2]))
    return canonicalize_name(MODULES.get(top, [top])[0])


def uninstalled(paths, extras):
    """List the imports that the extras do not ask for by name."""
    there = brings(extras)
    return [
        f"{path.name}: {module}"
        for path in paths
        for module in imports(path)
        if distribution(module) not in there
    ]


def library(names):
    """List the files of modules and packages of bnlib."""
    places = [ROOT / "bnlib" / name for name in names]
    files = [file for place in places for file in place.rglob("*.py")]
    return files + [file for p in places if (file := p.with_suffix(".py")).is_file()]


def test_the_library_imports_what_its_extras_bring():
    """NumPy alone, or, where somebody asks for it by name, numba."""
    private = [p.stem for p in ROOT.glob("bnlib/_*.py") if p.stem != "__init__"]
    core = {*library([*CORE, *private]), ROOT / "bnlib/__init__.py"}
    numba, wing = ROOT / "bnlib/blocks/_numba.py", library(["book"])
    assert uninstalled(core - {numba}, []) == []
    assert uninstalled([numba], ["fast"]) == []
    assert uninstalled(library(FRAMEWORKS - {"doctor"}), ["tf"]) == []
    assert uninstalled(library(["doctor"]), ["tools"]) == []
    left = {line.split(": ")[1] for line in uninstalled(wing, ["tf", "notebook"])}
    by_name = {"torch", "onnx", "onnxruntime"}  # a page asks for them, and does without
    of_tensorflow = {
        "google.protobuf"
    }  # it comes with TensorFlow, which is built on it
    assert left <= by_name | of_tensorflow
    assert len(core) + len(library(FRAMEWORKS)) + len(wing) > 50


def all_tests():
    found = [
        p for part in ("tests", "tools", "book") for p in ROOT.glob(f"{part}/**/*.py")
    ]
    return [path for path in found if "node_modules" not in path.parts]


def test_make_installs_what_the_tests_import():
    """Its environment is that of `dev`; PyTorch has a lock of its own."""
    makefile = (ROOT / "Makefile").read_text()
    assert "--extra dev " in makefile
    assert re.search(r"^test-lib:.*\$\(TORCH\)", makefile, re.MULTILINE)
    assert len(all_tests()) > 40
    assert uninstalled(all_tests(), ["dev", "torch"]) == []


def test_newest_installs_what_the_tests_import():
    [job] = jobs("newest.yml").values()
    [extras] = re.findall(r'install -e "\.\[([\w,-]+)\]"', "\n".join(commands(job)))
    assert uninstalled(all_tests(), extras.split(",")) == []


def core_files():
    """List the files that the core's job hands to pytest."""
    [command] = [c for c in commands(jobs("ci.yml")["core"]) if "pytest" in c]
    return [ROOT / word for word in command.split() if word.endswith(".py")]


def with_helpers(paths):
    """Add the modules of tests/ that the files import."""
    todo, found = list(paths), set()
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                helper = ROOT / f"tests/{node.module}.py"
                todo += [helper] if helper.is_file() else []
    return sorted(found)


def test_the_cores_tests_need_no_more_than_its_job_installs():
    [extras] = re.findall(
        r"\.\[([\w,-]+)\]", "\n".join(commands(jobs("ci.yml")["core"]))
    )
    assert extras == "test-core"
    assert brings(["test-core"]) == {"numpy", "pytest", "hypothesis"}
    files = with_helpers(core_files())
    assert ROOT / "tests/samples.py" in files
    assert uninstalled(files, ["test-core"]) == []


def test_the_cores_job_runs_all_of_the_core():
    """Of packages also the private files that have examples."""
    places = [ROOT / "bnlib" / name for name in CORE]
    files = [file for p in places for file in (p.with_suffix(".py"), p / "__init__.py")]
    files = {file for file in files if file.is_file()}
    tests = {ROOT / f"tests/core/test_{name}.py" for name in CORE}
    private = {file for p in places for file in p.glob("_[a-z]*.py")}
    private = {file for file in private if ">>> " in file.read_text()}
    assert {"_axes.py", "_settings.py"} <= {file.name for file in private}
    expected = files | private | {test for test in tests if test.is_file()}
    assert set(core_files()) == expected
    assert len(files) == len(set(core_files()) & tests)


def test_the_core_is_tested_on_three_systems_and_with_the_oldest_releases():
    matrix = jobs("ci.yml")["core"]["strategy"]["matrix"]
    assert {system.split("-")[0] for system in matrix["os"]} == {
        "ubuntu",
        "macos",
        "windows",
    }
    assert [also["resolution"] for also in matrix["include"]] == ["lowest-direct"]


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import torch.nn", "x.py: torch.nn"),
        (
            "def f():\n    from pydata_sphinx_theme import y",
            "x.py: pydata_sphinx_theme",
        ),
        ("from sphinxcontrib import katex", "x.py: sphinxcontrib.katex"),
        ("import numpy, scipy.stats", "x.py: scipy.stats"),
        ("def f():\n    import matplotlib", "x.py: matplotlib"),
    ],
)
def test_an_import_that_is_not_installed_is_found(tmp_path, code, fault):
    (tmp_path / "x.py").write_text(f"import numpy, pytest, samples, os.path\n{code}\n")
    assert uninstalled([tmp_path / "x.py"], ["test-core", "tf"]) == [fault]
    (tmp_path / "x.py").write_text(f"import numpy, bnlib.axes, os.path\n{code}\n")
    assert uninstalled([tmp_path / "x.py"], []) == [fault]


def test_what_an_extra_brings_through_another_counts():
    assert {"keras", "sphinx", "numba", "hypothesis"} <= brings(["dev"])
    assert brings(["tf"]) == {"numpy", "tensorflow", "keras"}


# What is published has passed


def test_pages_wait_for_every_job():
    found = jobs("pages.yml")
    assert found["test"]["uses"] == "./.github/workflows/ci.yml"
    assert found["build"]["needs"] == "test"
    assert found["deploy"]["needs"] == "build"
    verbs = [
        part["verbs"].split()
        for part in jobs("ci.yml")["test"]["strategy"]["matrix"]["include"]
    ]
    makefile = (ROOT / "Makefile").read_text()
    test = re.search(r"^test: ([a-z -]+)$", makefile, re.MULTILINE)[1].split()
    tests = sorted(
        {verb for verb in test if verb == "lint" or verb.startswith("test-")}
    )
    assert sorted(verb for part in verbs for verb in part) == tests


def test_a_release_is_tested_tried_and_needs_no_password():
    found = jobs("release.yml")
    assert load("release.yml")[True] == {
        "push": {"tags": ["v*"]}
    }  # YAML reads `on` as true
    assert found["test"]["uses"] == "./.github/workflows/ci.yml"
    assert 'make dist TAG="$GITHUB_REF_NAME"' in commands(found["build"])
    publish = found["publish"]
    assert sorted(publish["needs"]) == ["build", "test"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert not re.search(r"password|secrets", text.replace("no password", ""))
    recipe = re.search(
        r"^dist:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    steps = recipe[1].splitlines()
    order = ["release check", "rm -rf dist", "uv build", "release try dist"]
    assert [
        words for step, words in zip(steps, order, strict=True) if words not in step
    ] == []


def test_each_job_has_a_limit_on_its_time():
    for path in FILES:
        for name, job in jobs(path.name).items():
            assert (
                "uses" in job or job.get("timeout-minutes", 0) >= 10 or name == "deploy"
            )
