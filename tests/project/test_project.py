"""The project as a package: pins, versions, licences, wheel and release, what its pages promise.

As in test_rules.py, a rule is a function that returns its faults, and is tried on planted ones.
"""

import importlib.metadata
import os
import re
import sys
import tarfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from building import run
from facts import NAME, PROJECT, ROOT
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

import bnlib
from bnlib._extras import DISTRIBUTION
from tools import release
from tools.notebooks import read_text

README = (ROOT / "README.md").read_text()
LOCKS = ("requirements.lock", "requirements-torch.lock")
LOCK = "\n".join((ROOT / name).read_text() for name in LOCKS)
HEAVY = {"tensorflow", "keras", "matplotlib", "sklearn", "IPython", "scipy"}


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


LIGHT = ["conventions", "blocks", "cli", "conformance"]  # the last two import lazily


def test_import_brings_nothing_heavy():
    there = [name for name in LIGHT if find_spec(f"bnlib.{name}")]
    assert {"conventions", "blocks"} <= set(there)
    for module in ["bnlib", *(f"bnlib.{name}" for name in there)]:
        assert heavy_modules(f"import {module}") == set(), module
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
    """List what is locked: what bnlib and its extras need; `bnlib-book[...]` stands for others.

    `make conformance` takes the newest peers, and stores their versions.
    """
    extras = {k: v for k, v in PROJECT["optional-dependencies"].items() if k != "peers"}
    lines = PROJECT["dependencies"] + [
        line for extra in extras.values() for line in extra
    ]
    return [r for r in map(Requirement, lines) if r.name != NAME]


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
    names = [*pins(LOCK), "bnlib", NAME]
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
    assert environment["name"] == NAME
    assert f"conda activate {NAME}" in (ROOT / "environment.yml").read_text()
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
    assert "version" in PROJECT["dynamic"]  # read from bnlib/__init__.py
    assert importlib.metadata.version(NAME) == bnlib.__version__ == citation["version"]
    assert f"## [{bnlib.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


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


def build(kind, source, out, **environment):
    """Build a wheel or an sdist with the setuptools at hand, which asks no network."""
    said = {k: v for k, v in os.environ.items() if not k.startswith("BOOK_")}
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    built = run(sys.executable, "-c", code, cwd=source, env=said | environment)
    assert built.returncode == 0, built.stderr
    [path] = out.iterdir()
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Build the sdist from a copy of the project."""
    source = tmp_path_factory.mktemp("source")
    for name, text in project_files().items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [root] = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def wheel_file(unpacked, tmp_path_factory):
    """Build the wheel from the sdist, as an installer without wheels does."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def wheel(wheel_file):
    with ZipFile(wheel_file) as wheel:
        yield wheel


def metadata_of(path):
    with ZipFile(path) as wheel:
        [name] = [n for n in wheel.namelist() if n.endswith("/METADATA")]
        return Parser().parsestr(wheel.read(name).decode())


def library_files():
    """List the package, and the plugin of pytest beside it."""
    within = {path for path in project_files() if path.startswith("bnlib/")}
    return within | {"bnlib_pytest.py"}


def test_wheel_holds_the_library_and_nothing_else(wheel):
    metadata = f"{NAME.replace('-', '_')}-{bnlib.__version__}.dist-info/"
    code = {name for name in wheel.namelist() if not name.startswith(metadata)}
    assert code == library_files()
    assert "bnlib/py.typed" in code
    licences = [name for name in wheel.namelist() if "/licenses/" in name]
    assert licences == [f"{metadata}licenses/LICENSE"]  # there is no prose to license


def test_wheel_requires_numpy_alone(wheel):
    metadata = metadata_of(wheel.filename)
    assert metadata["Name"] == NAME
    needed = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert [r.name for r in needed if r.marker is None] == ["numpy"]
    assert len(needed) > 10


def test_sdist_holds_what_builds_the_library(sdist):
    with tarfile.open(sdist) as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
    files = {member.name.partition("/")[2] for member in members}
    made = {f for f in files if ".egg-info/" in f} | {"PKG-INFO", "setup.cfg"}
    around = {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"}
    around |= {"pyproject.toml", "setup.py", "MANIFEST.in"}
    assert files - made == library_files() | around


def test_a_build_with_an_address_has_links_and_one_without_has_none(
    wheel_file, unpacked, tmp_path
):
    bare = metadata_of(wheel_file)
    assert bare.get_all("Project-URL") is None
    assert "](book/_static/story.svg)" in bare.get_payload()
    home, site = "https://github.com/ann/bn", "https://ann.github.io/bn/"
    told = {"BOOK_REPOSITORY": f"{home}/", "BOOK_URL": site}
    metadata = metadata_of(build("wheel", unpacked, tmp_path, **told))
    assert metadata.get_all("Project-URL") == [
        f"Documentation, {site}",
        f"Repository, {home}",
        f"Changelog, {home}/blob/HEAD/CHANGELOG.md",
        f"Issues, {home}/issues",
    ]
    page = metadata.get_payload()
    assert f"]({home}/raw/HEAD/book/_static/story.svg)" in page
    assert f"[CONTRIBUTING.md]({home}/blob/HEAD/CONTRIBUTING.md)" in page
    links = re.findall(r"\]\((.+?)\)", page)
    assert [link for link in links if not link.startswith("https://")] == []


# A release


def test_a_tag_is_that_of_the_version():
    assert release.check_tag(f"v{bnlib.__version__}") == ""
    for tag in (bnlib.__version__, "v99.0.0", f"v{bnlib.__version__}.post1"):
        assert f"must be v{bnlib.__version__}" in release.check_tag(tag)


def test_the_wheel_works_where_nothing_else_is(wheel_file):
    done = release.try_wheel(wheel_file, borrow=True)
    assert done.returncode == 0, done.stderr
    assert f"bnlib {bnlib.__version__} works" in done.stdout


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("bnlib/moments.py", "ModuleNotFoundError"),
        ("bnlib/py.typed", "py.typed is missing"),
        ("bnlib_pytest.py", "the plugin of pytest is missing"),
    ],
)
def test_a_wheel_that_lacks_a_file_is_found(wheel_file, tmp_path, file, words):
    with ZipFile(wheel_file) as whole, ZipFile(tmp_path / wheel_file.name, "w") as less:
        for name in whole.namelist():
            if name != file:
                less.writestr(name, whole.read(name))
    done = release.try_wheel(tmp_path / wheel_file.name, borrow=True)
    assert done.returncode == 1
    assert words in done.stderr, done.stderr


# Types, as a user's checker sees them


def mypy(script):
    return run(sys.executable, "-m", "mypy", str(script))


@pytest.mark.slow
def test_a_users_script_has_right_types(tmp_path):
    right = (ROOT / "tests/user_script.py").read_text()
    (tmp_path / "right.py").write_text(right)
    done = mypy(tmp_path / "right.py")
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = right + 'bnlib.moments(x, axis="last")\nbnlib.Cumulative(3).update(x)\n'
    (tmp_path / "wrong.py").write_text(wrong)
    done = mypy(tmp_path / "wrong.py")
    assert done.returncode == 1
    assert "Found 2 errors" in done.stdout, done.stdout


# Nobody else's code: what is installed by name is ours, or a declared dependency


def installs(text):
    """Yield what each `pip install` in a text would install by name: `(name, line)`."""
    for line in text.splitlines():
        plain = re.sub(r"\$\$?\([^)]*\)|\$\{\{.*?\}\}", "$", line)  # filled in later
        for command in re.finditer(r"\bpip3? install(?=\s)", plain):
            # It ends with its line, backtick, comment or string, or at the next command.
            rest = re.split(r"[`#;|&)\\]", plain[command.end() :])[0]
            words = iter(words_of(rest))
            for word in words:
                if word in ("-r", "-c", "--python", "--resolution"):
                    next(words, None)
                elif not re.match(
                    r"[-.$/<]|\{DISTRIBUTION\}|\S*\.(?:whl|tar\.gz)$", word
                ):
                    yield word, line


def words_of(rest):
    """Split into words, quoted or bare, up to a quote that closes what is around."""
    word, place = re.compile(r"""\s+(?:"([^"]+)"|'([^']+)'|([^\s"']+))"""), 0
    while found := word.match(rest, place):
        place = found.end()
        yield found[1] or found[2] or found[3].rstrip(".,:") or "."


def install_faults(texts):
    ours = {
        canonicalize_name(name) for name in [NAME, *(r.name for r in requirements())]
    }
    faults = []
    for path, text in texts.items():
        for word, line in installs(text):
            try:
                known = canonicalize_name(Requirement(word).name) in ours
            except InvalidRequirement:
                known = False
            if not known:
                faults.append(f"{path}: {line.strip()}")
    return faults


def test_messages_name_our_distribution():
    assert DISTRIBUTION == NAME  # what f-strings put in is not seen below


def test_only_our_packages_are_installed():
    texts = {p: t for p, t in project_files().items() if not p.endswith(".ipynb")}
    named = {name for text in texts.values() for name, _ in installs(text)}
    assert {f"{NAME}[notebook]", f"{NAME}[fast]"} <= named
    assert install_faults(texts) == []


@pytest.mark.parametrize(
    "line",
    [
        '%pip {} -q "bnlib[notebook]"',
        "!pip3 {} bnlib",
        "uv pip {} --python x bn-lib",
        'raise ImportError("numba is needed: pip {} numbba.")',
        "run `pip {} -e . leftpad`",
        "pip {} numpy 'leftpad @ git+https://example.org/x'",
        "pip {} git+https://example.org/x",
        "pip {} numpy && pip {} leftpad",
    ],
)
def test_somebody_elses_package_is_found(line):
    line = line.replace("{}", "install")  # so that this file holds none
    assert install_faults({"page.md": line}) == [f"page.md: {line}"]


@pytest.mark.parametrize(
    "line",
    [
        '%pip {} -q "bnlib-book[notebook]"',
        "blocks.use()  # pip {} bnlib_book[fast]",
        "say(\"numba is needed: pip {} 'bnlib-book[fast]'.\")",
        "`pip {} .` brings NumPy, `pip {} '.[tf]'` TensorFlow",
        "uv pip {} --python x --no-deps -e .",
        "pip {} -r requirements.lock numpy",
        'pip {} "bnlib-book @ git+https://github.com/owner/name"',
        "pip {} dist/x.whl",
        "pip {} $NAME",
        'needs numba: pip {} "{DISTRIBUTION}[{extra}]".',
        'pip {} --resolution ${{ matrix.resolution }} -e ".[test]"',
        'pip {} --quiet "$$(grep uv requirements.lock)"',
        'assert "pip {}" in text',
        "with the node that pip {}ed",
    ],
)
def test_our_packages_are_left_alone(line):
    assert install_faults({"page.md": line.replace("{}", "install")}) == []


def colab_faults(notebook):
    """In Colab a notebook installs our distribution, whole, before it imports from it."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    first = next(iter(code), "")
    faults = []
    for name in (name for source in code for name, _ in installs(source)):
        wanted = Requirement(name)
        if wanted.name != NAME or wanted.extras != {"notebook"}:
            faults.append(f"installs {name}")
    if not re.search(
        r'"google.colab" in sys.modules:\n +%pip install .*\nfrom bnlib', first
    ):
        faults.append("its first cell does not install bnlib in Colab")
    return faults


def test_in_colab_a_notebook_installs_our_package():
    texts = sorted(ROOT.glob("text/**/*.md"))
    assert len(texts) > 10
    assert [
        (p.name, colab_faults(read_text(p)))
        for p in texts
        if colab_faults(read_text(p))
    ] == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("bnlib-book[notebook]", "bnlib[notebook]", "installs bnlib[notebook]"),
        ("bnlib-book[notebook]", "bnlib-book", "installs bnlib-book"),
        ("google.colab", "colab", "its first cell does not install bnlib in Colab"),
        (
            "%pip install -q",
            "pass  #",
            "its first cell does not install bnlib in Colab",
        ),
    ],
)
def test_a_colab_cell_that_reaches_another_package_is_found(tmp_path, old, new, fault):
    text = (ROOT / "text/part1/02_moments.md").read_text()
    assert colab_faults(read_text(ROOT / "text/part1/02_moments.md")) == []
    (tmp_path / "x.md").write_text(text.replace(old, new))
    assert colab_faults(read_text(tmp_path / "x.md")) == [fault]


def test_what_a_failed_recipe_wrote_is_not_up_to_date(tmp_path):
    """Sphinx writes the site, and then fails over a warning: the second try must not be content."""
    rule = next(
        line
        for line in (ROOT / "Makefile").read_text().splitlines()
        if line.startswith(".DELETE_ON_ERROR")
    )
    (tmp_path / "Makefile").write_text(f"{rule}\nsite:\n\techo > site && false\n")
    assert run("make", "site", cwd=tmp_path).returncode != 0
    assert run("make", "site", cwd=tmp_path).returncode != 0
