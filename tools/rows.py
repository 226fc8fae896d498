"""Make the page of what the book's sources ask from the one list, book/rows.toml.

Each row names the sections that answer it. Their headings are read from the stored notebooks, and
so is whether a cell was run in them.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 3  # headings that have an anchor; _config.yml says the same


@dataclass(frozen=True)
class Row:
    """One question, and the sections that answer it: page#anchor, the best first."""

    id: str
    asks: str
    at: list[str]


@dataclass
class Section:
    """One section of a notebook, with those inside it."""

    title: str
    level: int
    runs: bool = False  # whether a cell in it was run and shows something


def read_groups(root: Path) -> list[tuple[str, list[Row]]]:
    """Read the list of a project: the title of each group, and its rows."""
    listed = tomllib.loads((root / "book/rows.toml").read_text(encoding="utf-8"))
    return [
        (group["title"], [Row(**row) for row in group["rows"]])
        for group in listed["group"]
    ]


def read_sections(notebook: Path) -> dict[str, Section]:
    """Read the sections of a notebook, by the anchor that the site gives them."""
    sections: dict[str, Section] = {}
    inside: list[Section] = []  # the section that is read, and those around it
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            for marks, title in headings("".join(cell["source"])):
                section = Section(title, len(marks))
                inside = [each for each in inside if each.level < section.level]
                inside.append(section)
                if section.level <= DEEPEST:
                    sections[anchor(title, sections)] = section
        elif cell["cell_type"] == "code" and cell["execution_count"]:
            for section in inside if cell["outputs"] else []:
                section.runs = True
    return sections


def headings(markdown):
    """Find the headings of a text, and not the comments in the code that it quotes."""
    prose = re.sub(r"^(```+|~~~+).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^(#{1,6}) +(.+?)\s*$", prose, flags=re.MULTILINE)


def anchor(title, taken=()):
    """Write the anchor of a heading as MyST does."""
    slug = re.sub(r"[^\w\- ]", "", title.strip().lower().replace(" ", "-"))
    unique, count = slug, 0
    while unique in taken:
        count += 1
        unique = f"{slug}-{count}"
    return unique


def write_tables(root: Path, chapters: dict[str, tuple[str, str]]) -> str:
    """Write the tables of the page.

    Args:
        root: The folder of the project.
        chapters: The number of each page, empty in the appendix, and its title.

    Returns:
        Markdown: a heading and a table for each group.
    """
    known: dict[str, dict[str, Section]] = {}
    blocks = []
    for title, rows in read_groups(root):
        lines = ["| Question | Chapter | Section |", "|:--|:--|:--|"]
        for row in rows:
            first, *others = [link(root, place, chapters, known) for place in row.at]
            also = ", ".join(f"{target} ({chapter})" for chapter, target in others)
            section = f"{first[1]}; also {also}" if others else first[1]
            lines.append(f"| {row.asks} | {first[0]} | {section} |")
        blocks.append(f"## {title}\n\n" + "\n".join(lines))
    return "\n\n".join(blocks)


def link(root, place, chapters, known):
    """Write one place: its chapter, and a link with the heading of the section."""
    page, _, name = place.partition("#")
    if page not in known:
        known[page] = read_sections(root / f"book/{page}.ipynb")
    number, title = chapters[page]
    if name in known[page]:
        title, page = known[page][name].title, f"{page}.ipynb#{name}"
        return number or "appendix", f"[{title}]({page})"
    return number or "appendix", f"[{title}]({page}.ipynb)"
