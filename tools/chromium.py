"""Open a page in Chromium, to print or to draw it; nothing is asked of other hosts."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright


def find_chromium() -> str:
    """Return the path of Chromium, or say how to get it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, names)), None
    )
    if not found:
        raise SystemExit(
            f"Chromium is needed, and none of {', '.join(names)} is in the PATH: "
            "apt-get install chromium, or set CHROMIUM to its path"
        )
    return found


@contextmanager
def open_page(file: Path, **settings):
    """Yield a local page, loaded and with its fonts and images ready.

    Args:
        file: An HTML file.
        **settings: What Playwright's `new_page` takes, such as `viewport`.
    """
    with sync_playwright() as playwright:
        # Only our own files are opened, and a container may run as root.
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox"]
        )
        page = browser.new_page(color_scheme="light", **settings)
        page.route("http*://**", lambda route: route.abort())
        page.goto(file.resolve().as_uri(), wait_until="load", timeout=120_000)
        page.evaluate("document.fonts.ready.then(() => true)")
        yield page
        browser.close()
