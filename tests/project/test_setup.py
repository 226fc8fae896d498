"""Two commands on any machine: what is missing comes, or is named in one line.

Each test runs the real thing, `make` in a copy of the project or `python -m tools.browser`, on a
machine that lacks something: a PATH without it, a server that does not answer, a folder that
cannot be written.
"""

import ctypes
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from facts import ROOT

from tools.browser import find
from tools.installer import install

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
UNREACHABLE = {
    "PIP_INDEX_URL": NOWHERE,
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_FIND_LINKS": "",
    "PIP_RETRIES": "1",
    "UV_DEFAULT_INDEX": NOWHERE,
    "UV_FIND_LINKS": "",
    "UV_NO_CONFIG": "1",
    "UV_NO_CACHE": "1",
    "UV_HTTP_RETRIES": "0",
}


def run(*command, prepare=None, cwd=ROOT, **said):
    """Run a program as a user does; return its exit code, its output, and its complaints."""
    ours = ("MAKE", "MFLAGS", "PIP_", "UV_", "CHROMIUM", "PLAYWRIGHT_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept | said,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        preexec_fn=prepare,
    )
    return done.returncode, done.stdout, done.stderr


def lines(said):
    """Return the lines that the user reads, without those in which make says that it stops."""
    return [line for line in said.splitlines() if not line.startswith("make")]


def program(path, text):
    """Write a program, for the shell unless it says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path):
    """Copy what a set-up reads, into a folder with a space and an umlaut."""
    folder = tmp_path / "mein b\u00fcch"
    for name in ("Makefile", "requirements.lock", "requirements-torch.lock"):
        folder.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder)
    for name in ("pyproject.toml", "README.md", "LICENSE", "tools", "bnlib", "book"):
        source = ROOT / name
        if source.is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "*.ipynb")
            shutil.copytree(source, folder / name, ignore=skipped)
        else:
            shutil.copy(source, folder)
    (folder / "vendor").mkdir()
    (folder / "tests").mkdir()  # what `make lint` gives to mypy
    for script in ROOT.glob("tests/user_script*.py"):
        shutil.copy(script, folder / "tests")
    return folder


# The environment


def test_an_old_python_is_told_so(clone):
    disguise = (
        "import runpy, sys; sys.version_info = (3, 10, 13, 'final', 0); "
        "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
    )
    old = program(
        clone.parent / "bin/python3",
        f'shift; exec {shlex.quote(sys.executable)} -c "{disguise}" "$@"',
    )
    path = f"{old.parent}{os.pathsep}{os.environ['PATH']}"
    code, out, said = run("make", "-C", str(clone), "book", PATH=path)
    assert code != 0
    [line] = lines(out + said)
    assert line.startswith("Python 3.11 or newer is needed, and ")
    assert line.endswith(" is 3.10. Name another one, as in: make PYTHON=python3.11")
    assert not (clone / ".venv").exists()


def test_an_old_python_can_read_what_tells_it_so():
    for name in ("environment", "installer"):
        text = (ROOT / f"tools/{name}.py").read_text()
        assert not re.search(r":=|\bmatch \w+:|\w \| None", text)


def test_no_python_at_all_is_told(clone):
    code, out, said = run("make", "-C", str(clone), "test", "PYTHON=python-9")
    assert code != 0
    assert lines(out + said) == [
        "Python 3.11 or newer is needed, and there is no python-9"
    ]


def forget_that_root_may_write():
    """Give up the right of root to write where the mode forbids it, in a child process."""
    drop, dac_override = 24, 1
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(drop, dac_override, 0, 0, 0)


@pytest.fixture
def read_only(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv/.ready").touch()
    clone.chmod(0o555)
    yield clone
    clone.chmod(0o755)


@pytest.mark.parametrize("verb", ["book", "test", "pdf", "lint"])
def test_a_folder_that_cannot_be_written_is_named(read_only, verb):
    command = ("make", "-C", str(read_only), verb)
    code, out, said = run(*command, prepare=forget_that_root_may_write)
    assert code != 0
    assert lines(out + said) == [
        f'cannot write in "{read_only}": copy the folder to where you may'
    ]


def test_without_a_network_one_line_says_so_and_names_the_log(clone):
    """First pip has no network, then uv, which comes here from our own environment."""
    for installer, needs in (("uv", "uv=="), ("the lock", "")):
        code, out, said = run("make", "-C", str(clone), "book", **UNREACHABLE)
        assert code != 0
        *_, line = lines(out + said)
        assert len(lines(out + said)) <= 2
        assert line.startswith(f"Installing {installer} failed: no network? ")
        log = Path(line.partition("all it said is in ")[2])
        assert log.is_relative_to(clone)
        assert needs in log.read_text()
        assert not (clone / ".venv/.ready").exists()
        [ours] = Path(sys.prefix).glob("lib/python*/site-packages")
        [theirs] = (clone / ".venv").glob("lib/python*/site-packages")
        for part in ours.glob("uv*"):
            shutil.copytree(part, theirs / part.name, dirs_exist_ok=True)
        shutil.copy(Path(sys.prefix) / "bin/uv", clone / ".venv/bin")


def test_a_path_with_a_space_and_an_umlaut(clone):
    """Its environment is ours, found by a link: only the path differs."""
    assert " " in str(clone)
    assert not str(clone).isascii()
    (clone / ".venv").symlink_to(sys.prefix)
    code, out, said = run(
        *("make", "--no-print-directory", "-C", str(clone)),
        *("lint", "browser", "--old-file=.venv/.ready"),
    )
    assert (code, said) == (0, ""), out + said
    assert out.splitlines()[-1] == find()


@pytest.mark.slow
def test_the_book_is_made_and_tested_at_such_a_path(tmp_path):
    """All of it, with an environment of its own; needs a network, or what an earlier one left."""
    folder = tmp_path / "mein b\u00fcch"
    left_out = shutil.ignore_patterns(".*", "_build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=left_out)
    make = ("make", "--no-print-directory", "-C", str(folder))
    code, out, said = run(*make, "book")
    assert code == 0, out + said
    index = folder / "_build/html/index.html"
    assert out.splitlines()[-1] == f"The book is ready. Open {index.as_uri()}"
    names = (
        "core/test_moments",
        "book/test_style",
        "book/test_data",
        "site/test_explorables",
    )
    tests = (f"tests/{name}.py" for name in names)
    python = (str(folder / ".venv/bin/python"), "-m", "pytest", "-q", "-n", "0")
    code, out, said = run(*python, *tests, cwd=folder)
    assert code == 0, out + said
    site = ("tests/site/test_site.py", "-k", "from_disk or search or links_lead")
    code, out, said = run(*python, *site, cwd=folder)
    assert code == 0, out + said


@pytest.mark.parametrize("name", ["UV_SYSTEM_PYTHON", "UV_PYTHON"])
def test_the_environment_is_what_is_filled(name, monkeypatch):
    """Whatever interpreter uv is told to prefer elsewhere."""
    from tools import environment

    commands = []
    monkeypatch.setenv(name, "1" if "SYSTEM" in name else sys.executable)
    monkeypatch.setattr(environment, "install", lambda c, log: commands.append(c) or "")
    environment.set_up()
    into = [c[c.index("--python") + 1] for c in commands if "uv" in c]
    assert into == [str(environment.PYTHON)] * 2


# What an installer says


def installed(tmp_path, script):
    return install(["sh", "-c", script], tmp_path / "log")


def test_of_an_installer_the_progress_is_shown_and_all_is_kept(tmp_path, capfd):
    chatter = (
        "Downloading torch (800MB)\n|##  | 20% of 9 MiB\nGet:1 chromium\nUnpacking\n"
    )
    assert installed(tmp_path, f"printf '%s' '{chatter}'; echo odd >&2") == ""
    out, said = capfd.readouterr()
    assert (out, said) == ("", chatter.replace("Unpacking\n", ""))
    assert (tmp_path / "log").read_text() == chatter + "odd\n"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo first; echo last; exit 3", "last"),
        ("echo 'ERROR: no space left' >&2; echo bye; exit 1", "no space left"),
        ("echo 'error: dns error: x'; exit 1", "no network? dns error: x"),
        ("exit 1", "it says nothing"),
    ],
)
def test_of_an_installer_that_fails_one_line_is_shown(tmp_path, script, fault):
    assert (
        installed(tmp_path, script) == f"{fault}; all it said is in {tmp_path / 'log'}"
    )


# What CI runs, and who starts a browser


def test_ci_runs_the_two_verbs_and_nothing_else():
    script = (ROOT / ".ci/run").read_text()
    commands = [line for line in script.splitlines() if line and line[0] != "#"]
    assert commands == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        "make test",
        "make test-slow",
    ]


def test_one_place_starts_the_browser():
    starts = re.compile(
        r"sync_playwright|executable_path|--no-sandbox|chromium\.launch"
    )
    files = [
        p for name in ("bnlib", "tests", "tools") for p in (ROOT / name).rglob("*.py")
    ]
    found = {path.name for path in files if starts.search(path.read_text())}
    assert found == {"browser.py", Path(__file__).name}


# The browser


@pytest.fixture
def bare(tmp_path):
    """Return the environment of a machine without a browser, and a folder for programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder, {
        "PATH": str(folder),
        "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "cache"),
        "PLAYWRIGHT_DOWNLOAD_HOST": NOWHERE,
    }


def find_browser(said, user=1000):
    """Run `python -m tools.browser` as root or as another user, as far as it can tell."""
    code = (
        f"import os, runpy; os.geteuid = lambda: {user}; "
        "runpy.run_module('tools.browser', run_name='__main__')"
    )
    return run(sys.executable, "-c", code, **said)


def working(path, note):
    """Write a browser that starts, and leaves a note when it does."""
    here = f"PATH={shlex.quote(os.environ['PATH'])}"
    return program(path, f'echo x >> {note}; {here} exec {find()} "$@"')


def test_the_browser_of_the_system_comes_first(bare, tmp_path):
    folder, said = bare
    browser = working(folder / "google-chrome", tmp_path / "started")
    assert find_browser(said) == (0, f"{browser}\n", "")
    assert (tmp_path / "started").exists()


def test_the_browser_that_is_named_comes_before_it(bare, tmp_path):
    folder, said = bare
    working(folder / "chromium", tmp_path / "started")
    named = working(tmp_path / "elsewhere/named", tmp_path / "named")
    assert find_browser(said | {"CHROMIUM": str(named)}) == (0, f"{named}\n", "")
    assert not (tmp_path / "started").exists()


LACKING = """#!/bin/sh
echo "$0: error while loading shared libraries: libnss3.so: cannot open it" >&2; exit 127
"""
BROKEN = [
    pytest.param(LACKING, id="lacks a library"),
    pytest.param("exit 1", id="ends", marks=pytest.mark.slow),
    pytest.param("kill -SEGV $$", id="crashes", marks=pytest.mark.slow),
    pytest.param("#! no program", id="is no program"),
]


@pytest.mark.parametrize("script", BROKEN)
def test_a_broken_browser_that_is_named_ends_in_one_line(bare, tmp_path, script):
    folder, said = bare
    working(folder / "chromium", tmp_path / "started")
    named = program(tmp_path / "named", script)
    code, out, complaint = find_browser(said | {"CHROMIUM": str(named)})
    assert (code, out) == (1, "")
    reason = ".*libnss3.so: .*" if script == LACKING else ".+"
    assert re.fullmatch(
        rf"No browser: {named} does not start \({reason}\)\. "
        "Install Chromium, or set CHROMIUM to the path of a browser\\.\n",
        complaint,
    )


def test_a_name_that_is_no_program_ends_in_one_line(bare, tmp_path):
    (tmp_path / "text").write_text("not a program")
    for named in ("nowhere", str(tmp_path / "text")):
        code, out, complaint = find_browser(bare[1] | {"CHROMIUM": named})
        assert (code, out) == (1, "")
        assert complaint == (
            f"CHROMIUM must be the path of a browser; got '{named}', which is no program. "
            "Correct it, or unset it: then a browser is looked for.\n"
        )


@pytest.mark.parametrize("script", BROKEN)
def test_a_broken_browser_is_passed_over_with_one_line(bare, tmp_path, script):
    folder, said = bare
    broken = program(folder / "chromium", script)
    browser = working(folder / "google-chrome", tmp_path / "started")
    code, out, complaint = find_browser(said)
    assert (code, out) == (0, f"{browser}\n")
    assert re.fullmatch(rf"{broken} does not start \(.*\)\n", complaint)


def test_without_any_browser_one_line_says_what_was_tried(bare):
    code, out, complaint = find_browser(bare[1])
    assert (code, out) == (1, "")
    *_, line = complaint.splitlines()
    assert re.fullmatch(
        r"No browser: none of chromium, .* is in the PATH; "
        r"Playwright's headless shell could not be fetched \(.*ECONNREFUSED.*\); "
        r"apt-get is not there, or not for this user\. Install Chromium, or set CHROMIUM .*",
        line,
    )


@contextmanager
def serving(answer):
    """Serve what `answer(path)` returns on a free port; yield the URL and the paths asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = answer(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def archive(path, program):
    """Return a ZIP file as Playwright's server has it, with our program as headless shell."""
    names = [
        f"chrome-headless-shell-{system}/chrome-headless-shell"
        for system in ("linux64", "linux-arm64", "mac-x64", "mac-arm64")
    ]
    names += ["chrome-linux/headless_shell", "ffmpeg-linux", "ffmpeg-mac"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o755 << 16
            zipped.writestr(entry, program)
    return file.getvalue()


def test_the_headless_shell_is_fetched_once_and_started(bare, tmp_path):
    _, said = bare
    shell = working(tmp_path / "shell", tmp_path / "started").read_text()
    with serving(lambda path: archive(path, shell)) as (url, asked):
        code, out, progress = find_browser(said | {"PLAYWRIGHT_DOWNLOAD_HOST": url})
    assert code == 0, progress
    assert asked
    assert Path(out.strip()).is_relative_to(tmp_path / "cache")
    assert "Downloading Chrome Headless Shell" in progress
    assert re.search(r"\| 100% of ", progress)
    assert (tmp_path / "started").exists()
    assert find_browser(said) == (0, out, ""), "it is there: no network is needed"


def test_a_headless_shell_that_lacks_libraries_is_passed_over(bare):
    _, said = bare
    with serving(lambda path: archive(path, LACKING)) as (url, _):
        code, out, complaint = find_browser(said | {"PLAYWRIGHT_DOWNLOAD_HOST": url})
    assert (code, out) == (1, "")
    *_, line = complaint.splitlines()
    assert re.match(
        "No browser: .*headless.shell does not start .*libnss3.so.* Install", line
    )


def test_apt_comes_last_and_for_root_alone(bare, tmp_path):
    folder, said = bare
    said["PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"] = "1"
    working(tmp_path / "later/chromium", tmp_path / "started")
    bring = f"/bin/cp {tmp_path}/later/chromium {folder}"
    note = tmp_path / "apt"
    program(
        folder / "apt-get",
        f'echo "$@" >> {note}; echo Get:1 chromium; case "$*" in *" chromium") {bring};; esac',
    )
    code, _, complaint = find_browser(said, user=1000)
    assert code == 1
    assert not note.exists()
    assert complaint.splitlines()[-1].startswith("No browser: ")
    code, out, progress = find_browser(said, user=0)
    assert (code, out) == (0, f"{folder / 'chromium'}\n"), progress
    update, last = note.read_text().splitlines()
    assert update.startswith("update ")
    assert re.fullmatch("install .*--no-install-recommends .*chromium", last)
    assert "apt-get installs Chromium now.\nGet:1 chromium\n" in progress
    assert (tmp_path / "started").exists()


def test_an_apt_that_fails_is_told(bare):
    folder, said = bare
    said["PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD"] = "1"
    program(folder / "apt-get", "echo 'E: Unable to locate package chromium'; exit 100")
    code, _, complaint = find_browser(said, user=0)
    assert code == 1
    assert (
        "apt-get could not install it (Unable to locate" in complaint.splitlines()[-1]
    )


@pytest.mark.parametrize(
    "patience", ["300", pytest.param("", marks=pytest.mark.slow)], ids=["short", "ours"]
)
def test_a_server_that_never_answers_is_given_up(bare, patience):
    _, said = bare
    end = threading.Event()
    with serving(lambda path: end.wait(300) and b"") as (url, asked):
        said |= {"PLAYWRIGHT_DOWNLOAD_HOST": url}
        if patience:
            said["PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT"] = patience
        code, _, complaint = find_browser(said)
        end.set()
    assert code == 1
    assert len(asked) == 5
    assert "could not be fetched" in complaint
