"""Let Lighthouse judge the built site: `make lighthouse`, after `make book`.

The landing page and every chapter, as a phone and as a desktop, from a server that compresses. What
is not 100 in accessibility, best practices or SEO fails. Performance is shown only: it follows the
load of the machine. Give paths of pages to look at these alone, and `--runs 1` for a quick look.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from rich.live import Live
from rich.table import Table

from tools.browser import ARGUMENTS, find
from tools.server import Quiet, serve

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("BOOK_SITE", ROOT / "_build/html"))
LIGHTHOUSE = "lighthouse@12.8.2"  # the newest that takes Node 20
FLAWLESS = ("accessibility", "best-practices", "seo")
CATEGORIES = ("performance", *FLAWLESS)
TEXTS = (".css", ".html", ".js", ".json", ".svg", ".xml")


class Compressing(Quiet):
    """Serves files as a web host does: texts compressed, connections kept."""

    protocol_version = "HTTP/1.1"

    def send_head(self):
        path = Path(self.translate_path(self.path))
        if path.suffix not in TEXTS or not path.is_file():
            return super().send_head()
        data = gzip.compress(path.read_bytes())
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        return BytesIO(data)


def judge(url, device):
    """Return Lighthouse's report on one page, as `phone` or `desktop`."""
    command = ["npx", "--yes", LIGHTHOUSE, url, "--quiet", "--output=json"]
    command += [f"--only-categories={','.join(CATEGORIES)}"]
    command += [f"--chrome-flags=--headless=new {' '.join(ARGUMENTS)}"]
    command += ["--preset=desktop"] * (device == "desktop")
    environment = os.environ | {"CHROME_PATH": find()}
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        sys.exit(f"expected a report on {url} from {LIGHTHOUSE}, got:\n{done.stderr}")
    return json.loads(done.stdout)


def summarize(reports):
    """Return the median scores, the median layout shift, and which audits failed, of some runs."""
    scores = {
        name: statistics.median(
            round(100 * (report["categories"][name]["score"] or 0))
            for report in reports
        )
        for name in CATEGORIES
    }
    shift = statistics.median(
        report["audits"]["cumulative-layout-shift"].get("numericValue", 0)
        for report in reports
    )
    return scores, shift, sorted(set().union(*map(failed_audits, reports)))


def failed_audits(report):
    """Name the audits that keep a page from 100 where it must have 100."""
    return {
        audit["id"]
        for name in FLAWLESS
        for audit in report["categories"][name]["auditRefs"]
        if audit["weight"]
        and (report["audits"][audit["id"]]["score"] or 0) < 1
        and report["audits"][audit["id"]]["scoreDisplayMode"]
        not in ("notApplicable", "manual")
    }


def pages():
    chapters = sorted(
        path.relative_to(SITE).as_posix() for path in SITE.glob("part*/*.html")
    )
    return ["index.html", *chapters]


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "pages", nargs="*", help="paths such as part1/02_moments.html; default: all"
    )
    parser.add_argument(
        "--runs", type=int, default=5, help="take the median of so many; default: 5"
    )
    return parser.parse_args()


def main():
    asked = read_arguments()
    if not shutil.which("npx"):
        sys.exit(
            "make lighthouse needs Node 20 or newer, with npx: install it and try again"
        )
    if not (SITE / "index.html").is_file():
        sys.exit(f"expected a built site in {SITE}, found none: `make book` builds it")
    table = Table("page", "device", *CATEGORIES, "shift", "failed audits")
    faults = 0
    with serve(SITE, Compressing) as base, Live(table):
        for page in asked.pages or pages():
            for device in ("phone", "desktop"):
                reports = [judge(base + page, device) for _ in range(asked.runs)]
                scores, shift, failed = summarize(reports)
                faults += any(scores[name] < 100 for name in FLAWLESS)
                marks = [f"{scores[name]:.0f}" for name in CATEGORIES]
                table.add_row(page, device, *marks, f"{shift:.3f}", ", ".join(failed))
    if faults:
        sys.exit(
            f"{faults} times below 100 in {', '.join(FLAWLESS)}: see the failed audits"
        )


if __name__ == "__main__":
    main()
