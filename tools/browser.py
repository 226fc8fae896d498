"""Start the browser, for whatever needs one: tests, PDF, social card, Lighthouse.

The one place that knows where Chromium comes from. In this order:

1. what CHROMIUM names, and then nothing else;
2. the system's Chromium or Chrome;
3. Playwright's headless shell, which is fetched into the project and needs no root;
4. what apt-get installs, for root on Debian and its kin.

A browser counts when it starts and opens a page. `python -m tools.browser` prints the path of the
first that does. If none does, it says in one line what was tried and what to do.
"""

import functools
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Error, sync_playwright

from tools.installer import install, say

ROOT = Path(__file__).resolve().parents[1]
if os.environ.get("PLAYWRIGHT_BROWSERS_PATH") == "0":
    del os.environ["PLAYWRIGHT_BROWSERS_PATH"]  # Playwright's word for its own folder
CACHE = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or ROOT / ".venv/browsers")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NAMES += ("chrome",)
APPLICATIONS = ("Google Chrome", "Chromium")  # on a Mac, they are in no PATH
# Only our own files are opened, and a container, such as CI's, may run as root.
ARGUMENTS = ["--no-sandbox"]
ADVICE = "Install Chromium, or set CHROMIUM to the path of a browser."

_running: list[Browser] = []


@functools.cache
def find() -> str:
    """Return the path of the first browser that starts; get one if there is none.

    Raises:
        SystemExit: If none can be had.
    """
    tried = []
    with sync_playwright() as playwright:
        for path in _choices(tried):
            if not (reason := _fault(playwright, path)):
                return path
            tried.append(f"{path} does not start ({reason})")
            if not os.environ.get("CHROMIUM"):
                say(tried[-1])
    raise SystemExit(f"No browser: {'; '.join(dict.fromkeys(tried))}. {ADVICE}")


@contextmanager
def start():
    """Yield the browser of this process: a second call gets the one that runs already."""
    if _running:
        yield _running[0]
        return
    path = find()
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=path, args=ARGUMENTS) as browser,
    ):
        _running.append(browser)
        try:
            yield browser
        finally:
            _running.clear()


@contextmanager
def open_page(file: Path, **settings):
    """Yield a local page, loaded and with its fonts and images ready.

    Nothing that it asks of other hosts leaves this machine.

    Args:
        file: An HTML file.
        **settings: What Playwright's `new_page` takes, such as `viewport`.
    """
    with start() as browser, browser.new_page(color_scheme="light", **settings) as page:
        page.route("http*://**", lambda route: route.abort())
        page.goto(file.resolve().as_uri(), wait_until="load", timeout=120_000)
        page.evaluate("document.fonts.ready.then(() => true)")
        yield page


def _choices(tried):
    """Yield the paths of browsers, the nearest first; note in `tried` where none was found."""
    if named := os.environ.get("CHROMIUM"):
        if not (path := shutil.which(named)):
            raise SystemExit(
                f"CHROMIUM must be the path of a browser; got {named!r}, which is no "
                "program. Correct it, or unset it: then a browser is looked for."
            )
        yield path
        return
    yield from _system(tried)
    yield from _headless_shell(tried)
    yield from _apt(tried)


def _system(tried):
    places = [
        f"/Applications/{name}.app/Contents/MacOS/{name}" for name in APPLICATIONS
    ]
    found = [path for name in (*NAMES, *places) if (path := shutil.which(name))]
    # Two names often lead to one program.
    yield from {os.path.realpath(path): path for path in found}.values()
    if not found:
        tried.append(f"none of {', '.join(NAMES)} is in the PATH")


def _headless_shell(tried):
    """Yield Playwright's headless shell, for which a complete cache needs no network."""
    fault = _install(
        sys.executable, *("-m", "playwright", "install", "--only-shell", "chromium")
    )
    found = sorted(CACHE.glob("chromium_headless_shell-*/*/*headless[-_]shell"))
    if fault or not found:
        fault = fault or "the installer brought nothing"
        tried.append(f"Playwright's headless shell could not be fetched ({fault})")
        say(tried[-1])
    yield from map(str, reversed(found))


def _apt(tried):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        tried.append("apt-get is not there, or not for this user")
        return
    say("apt-get installs Chromium now.")
    patience = ("-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1")
    _install("apt-get", "update", "-q", *patience)
    fault = _install(
        *("apt-get", "install", "-q", "-y", "--no-install-recommends", *patience),
        "chromium",
    )
    if fault:
        tried.append(f"apt-get could not install it ({fault})")
    yield from _system(tried)


def _install(*command):
    """Run an installer; return why it failed, in one line."""
    return install(
        command,
        CACHE / "install.log",
        PLAYWRIGHT_BROWSERS_PATH=str(CACHE),
        PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT="10000",  # ms; it tries five times
        DEBIAN_FRONTEND="noninteractive",
    )


def _fault(playwright, path):
    """Start a browser and open a page; return in one line what went wrong, or nothing."""
    try:
        with playwright.chromium.launch(
            executable_path=path, args=ARGUMENTS, timeout=60_000
        ) as browser:
            browser.new_page().close()
    except Error as error:
        said = re.findall(r"\[err\] (?:\S+: )?(.*)", error.message)
        return said[-1] if said else error.message.splitlines()[0]
    return ""


if __name__ == "__main__":
    print(find())
