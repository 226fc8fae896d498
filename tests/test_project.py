"""The project as a package: pins, versions, licences, the wheel, and what its pages promise.

As in test_rules.py, a rule is a function that returns its faults, and is tried on planted ones.
"""

import re
import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bnlib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
LOCKS = ("requirements.lock", "requirements-torch.lock")
LOCK = "\n".join((ROOT / name).read_text() for name in LOCKS)
HEAVY = {"tensorflow", "keras", "matplotlib", "sklearn", "IPython", "scipy"}


def run(*command, cwd=ROOT):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def project_files():
    """Map the path of each text file that a commit would hold to its text."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, listed.stderr
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        try:
            texts[name] = (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # an image or a font; a file removed but not yet committed
    return texts


# What `import bnlib` costs


def heavy_modules(statement):
    done = run(sys.executable, "-c", f"{statement}\nimport sys; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split()) & HEAVY


def test_import_brings_nothing_heavy():
    assert heavy_modules("import bnlib") == set()
    assert heavy_modules("import bnlib, matplotlib") == {"matplotlib"}


def cost_beside_numpy(module, runs):
    """Return the time that importing `module` adds, as a share of importing NumPy.

    Both are timed in one process, so that they meet the same load; minima, so that a hiccup of the
    machine does not count.
    """
    timed = f"""
from time import perf_counter as clock
start = clock()
import numpy
middle = clock()
import {module}
print(middle - start, clock() - middle)
"""
    outputs = [run(sys.executable, "-c", timed).stdout.split() for _ in range(runs)]
    numpy_alone, on_top = (
        min(map(float, times)) for times in zip(*outputs, strict=True)
    )
    return on_top / numpy_alone


def test_import_costs_little_beside_numpy():
    assert cost_beside_numpy("bnlib", runs=7) < 0.3
    assert cost_beside_numpy("matplotlib.pyplot", runs=2) > 0.3


# Pins: ranges in pyproject.toml, exact versions in the two locks, no number anywhere else


def requirements():
    """List what bnlib and its extras need; an extra's `bnlib[...]` stands for other extras."""
    extras = PROJECT["optional-dependencies"]
    lines = PROJECT["dependencies"] + [
        line for extra in extras.values() for line in extra
    ]
    return [r for r in map(Requirement, lines) if r.name != "bnlib"]


def pins(lock):
    """Map each name in a lock to the set of versions that it is pinned to."""
    versions = {}
    for line in filter(
        None, (line.split("#")[0].strip() for line in lock.splitlines())
    ):
        requirement = Requirement(line)
        exact = re.fullmatch(r"==([\w.+!]+)", str(requirement.specifier))
        versions.setdefault(canonicalize_name(requirement.name), set()).add(
            exact and exact[1]
        )
    return versions


def lock_faults(lock):
    pinned = pins(lock)
    faults = [
        f"{name}: not an exact version"
        for name, found in pinned.items()
        if None in found
    ]
    for need in requirements():
        found = pinned.get(canonicalize_name(need.name), {None}) - {None}
        if not found:
            faults.append(f"{need.name}: not in the lock")
        faults += [
            f"{need}: locked to {v}" for v in sorted(found) if v not in need.specifier
        ]
    return faults


def stray_pins(texts, names):
    """Find versions of `names` written outside pyproject.toml and the lock."""
    pattern = rf"(?<![\w-])({'|'.join(map(re.escape, names))})(\[[\w,]+\])?\s*[=<>~!]=?\s*\d[\w.]*"
    return [
        f"{path}: {match[0]}"
        for path, text in texts.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


def test_lock_pins_what_pyproject_asks_for():
    assert len(requirements()) > 15
    assert lock_faults(LOCK) == []


@pytest.mark.parametrize(
    ("numpy", "faults"),
    [
        ("", ["numpy: not in the lock"]),
        ("numpy==1.0", ["numpy>=1.26: locked to 1.0"]),
        ("numpy>=2", ["numpy: not an exact version", "numpy: not in the lock"]),
    ],
)
def test_a_wrong_lock_is_found(numpy, faults):
    assert lock_faults(re.sub(r"(?m)^numpy==.*$", numpy, LOCK)) == faults


def test_no_other_file_pins_a_version():
    names = [*pins(LOCK), "bnlib"]
    elsewhere = {
        path: text
        for path, text in project_files().items()
        if ("/" not in path or path.startswith((".github/", ".ci/")))
        and path not in ("pyproject.toml", *LOCKS)
    }
    assert "environment.yml" in elsewhere
    assert stray_pins(elsewhere, names) == []


@pytest.mark.parametrize(
    "line", ["numpy==2.4.6", "- numpy=2", 'pip install "numpy[x] >= 2"']
)
def test_a_stray_pin_is_found(line):
    assert len(stray_pins({"environment.yml": line}, ["keras", "numpy"])) == 1
    assert stray_pins({"environment.yml": line}, ["keras", "num"]) == []


def test_conda_environment_is_the_same_environment():
    floor = PROJECT["requires-python"].removeprefix(">=")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    assert environment["dependencies"] == [
        f"python={floor}",
        "pip",
        "make",
        {"pip": ["-r requirements.lock", "-e ."]},
    ]


@pytest.mark.parametrize("workflow", ["ci.yml", "pages.yml"])
def test_public_ci_runs_the_locked_python(workflow):
    text = (ROOT / ".github/workflows" / workflow).read_text()
    assert set(re.findall(r'python-version: "(.+)"', text)) == {
        PROJECT["requires-python"].removeprefix(">=")
    }


# One version, one licence, one author


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert Path(bnlib.__file__).parent == ROOT / "bnlib"
    assert PROJECT["version"] == bnlib.__version__ == citation["version"]
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_one_licence_and_one_author():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    code, prose = (ROOT / "LICENSE").read_text(), (ROOT / "LICENSE-prose").read_text()
    [author] = PROJECT["authors"]
    assert citation["authors"] == PROJECT["authors"]
    assert PROJECT["license"] == citation["license"] == "MIT"
    assert code.startswith("MIT License\n")
    assert "https://creativecommons.org/licenses/by/4.0/" in prose
    assert author["name"] in code
    assert author["name"] in prose


# README: the first screen


def readme_block():
    """Return the first fenced Python block of the README."""
    return re.search(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)[1]


def run_doctest(text, folder):
    """Run doctest on a text in a fresh interpreter, away from the checkout; warnings are errors."""
    (folder / "example.txt").write_text(text)
    return run(
        sys.executable, "-W", "error", "-m", "doctest", "example.txt", cwd=folder
    )


def test_readme_example_runs(tmp_path):
    block = readme_block()
    assert "import bnlib" in block or "from bnlib" in block
    assert block.count(">>>") >= 3
    done = run_doctest(block, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_readme_output_is_found(tmp_path):
    outputs = [
        line
        for line in readme_block().splitlines()
        if not line.startswith((">>>", "..."))
    ]
    shown = next(line for line in outputs if line.strip())
    assert (
        run_doctest(
            readme_block().replace(shown, "[something else]"), tmp_path
        ).returncode
        == 1
    )


def test_readme_opens_with_the_two_commands_and_a_picture():
    screen = "\n".join(README.splitlines()[:40])
    assert "make book" in screen
    assert "make test" in screen
    assert "pip install" in screen
    [(alt, picture)] = re.findall(r"!\[(.*?)\]\((.+?)\)", screen)
    assert len(alt) >= 20
    assert (ROOT / picture).is_file()


# Pages name only what exists


def make_verbs(texts):
    """Yield each target that a page says to `make`: in backticks, in a command, in a `run:`."""
    pattern = r"(?:^|`|run: |entry: |&& )make((?: [a-z][a-z-]*)+)"
    for path, text in texts.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield from ((path, verb) for verb in match[1].split())


def test_pages_name_verbs_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    pages = {
        p: t for p, t in project_files().items() if p.endswith((".md", ".yml", ".yaml"))
    }
    verbs = set(make_verbs(pages))
    assert {("README.md", "test"), (".github/workflows/ci.yml", "test")} <= verbs
    assert [f"{page}: make {verb}" for page, verb in verbs if verb not in targets] == []


def test_verbs_are_found_where_they_stand():
    page = (
        "Make sure.\nmake book\n`make lint` - run: make test-lib test\n\tto make things"
    )
    assert [verb for _, verb in make_verbs({"x": page})] == [
        "book",
        "lint",
        "test-lib",
        "test",
    ]


# No file tells where it was made


def machine_traces(texts):
    """Find paths of one machine, and package servers other than the public default."""
    home = r"(?<![\w.})-])/(?:work|root|home|Users|tmp|mnt)/\w+"
    server = r"(?:index[-_]url|find-links|registry)\W{1,4}https?:|https?://(?!127\.)(?:\d+\.){3}\d+"
    return [
        f"{path}: {match[0]}"
        for path, text in texts.items()
        for match in re.finditer(f"{home}|{server}", text)
    ]


def test_no_file_names_a_machine():
    assert machine_traces(project_files()) == []


@pytest.mark.parametrize(
    "parts",
    [
        ('File "', "/home", "/ann/x.py"),
        ("file://", "/root", "/book"),
        ("--index", "-url ", "https", "://packages.example"),
        ("registry=", "http", "://localhost"),
        ("http", "://10.1", ".2.3:8080/simple"),
    ],
)
def test_a_machine_trace_is_found(parts):
    assert len(machine_traces({"page.md": "".join(parts)})) == 1


@pytest.mark.parametrize(
    "text", ["https://example.org/home/page", "_build/tmp/x", "text/part1"]
)
def test_an_innocent_path_is_left_alone(text):
    assert machine_traces({"page.md": text}) == []


# The wheel: bnlib, its metadata and nothing else

BUILD = (
    "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel from a copy of the project, with the setuptools at hand: no network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name, text in project_files().items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    built = run(sys.executable, "-c", BUILD, str(out), cwd=source)
    assert built.returncode == 0, built.stderr
    [path] = out.glob("*.whl")
    return ZipFile(path)


def test_wheel_holds_the_library_and_nothing_else(wheel):
    metadata = f"bnlib-{PROJECT['version']}.dist-info/"
    code = {name for name in wheel.namelist() if not name.startswith(metadata)}
    assert code == {path for path in project_files() if path.startswith("bnlib/")}
    assert f"{metadata}licenses/LICENSE" in wheel.namelist()


def test_wheel_requires_numpy_alone(wheel):
    [name] = [n for n in wheel.namelist() if n.endswith("/METADATA")]
    metadata = Parser().parsestr(wheel.read(name).decode())
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert [r.name for r in needed if r.marker is None] == ["numpy"]
    assert len(needed) > 10
