"""Ask whether the links that lead out of the book still work: `make links`.

Sphinx follows them. Here its answers become one line for each link that is broken. Without a
network nothing is wrong, and nothing is known.
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "_build/links"  # Jupyter Book would mix its answers with the site
ANSWERS = FOLDER / "_build/html/output.json"
SEVERAL = 4  # hosts to try before one says that there is no network


def outside_links(book: Path) -> list[str]:
    """List the addresses of other hosts in the sources of the book."""
    texts = [path.read_text(encoding="utf-8") for path in book.rglob("*.md")]
    for path in book.rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts += ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    text = "\n".join(texts)
    found = set(re.findall(r"https?://[^\s)>\]\"'`]+", text))
    for path in book.glob("*.bib"):
        entries = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"\burl\s*=\s*\{(.+?)\}", entries))
        found |= {
            f"https://doi.org/{d}"
            for d in re.findall(r"\bdoi\s*=\s*\{(.+?)\}", entries)
        }
    return sorted(found)


def answers(link: str) -> bool:
    """Say whether a link answers now."""
    request = urllib.request.Request(
        link, method="HEAD", headers={"User-Agent": "bnlib"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


def broken(lines: str) -> list[str]:
    """Turn Sphinx's answers, one JSON text a line, into the faults among them."""
    found = [json.loads(line) for line in lines.splitlines() if line.strip()]
    return [
        f"{one['filename']}: {one['uri']}: {one['info'] or one['status']}"
        for one in found
        if one["status"] in ("broken", "timeout")
    ]


def main() -> int:
    """Return 1 if a link is broken."""
    links = outside_links(ROOT / "book")
    by_host = {link.split("/")[2]: link for link in reversed(links)}
    if not any(map(answers, list(by_host.values())[:SEVERAL])):
        print(f"no network: {len(links)} links not checked")
        return 0
    ANSWERS.unlink(missing_ok=True)
    program = Path(sys.executable).with_name("jupyter-book")
    command = [
        program,
        "build",
        "book",
        "--config",
        "_config.yml",
        "--path-output",
        FOLDER,
    ]
    done = subprocess.run([*command, "--builder", "linkcheck"], cwd=ROOT, check=False)
    if not ANSWERS.is_file():
        print(
            "The links were not checked: the build above ended before. Does `make book` work?"
        )
        return done.returncode or 1
    faults = broken(ANSWERS.read_text(encoding="utf-8"))
    print("\n".join(faults) or "all links work")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
