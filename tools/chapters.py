"""Make everything that lists the chapters from the one list, book/chapters.toml: `make chapters`.

A file of its own is book/_toc.yml. In the others a list stands between two comments, BEGIN and END,
and what is around them is written by hand. One more list, book/rows.toml, becomes book/rows.md.
"""

import ast
import re
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

from tools import rows

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 120  # of a line in the pages
BEGIN, END = "<!-- made by make chapters: {} -->", "<!-- end -->"


@dataclass(frozen=True)
class Page:
    """One page of the book; book/chapters.toml says what the fields are."""

    page: str
    title: str = ""
    sentence: str = ""
    holds: str = ""
    paper: str = ""

    @property
    def number(self):
        """Return the number of a chapter; a page of the appendix has none."""
        found = re.search(r"/(\d\d)_", self.page)
        return int(found[1]) if found else None

    @property
    def stem(self):
        """Return the name that the module and its test have."""
        return re.sub(r"^.*/(\d\d_)?", "", self.page)


@dataclass(frozen=True)
class Part:
    """One part of the book."""

    caption: str
    pages: list[Page]
    says: str = ""


def read_parts(root: Path) -> list[Part]:
    """Read the list of a project."""
    listed = tomllib.loads((root / "book/chapters.toml").read_text(encoding="utf-8"))
    return [
        Part(**{**part, "pages": [Page(**page) for page in part["pages"]]})
        for part in listed["part"]
    ]


# The modules


def module_of(root: Path, stem: str) -> tuple[str, Path]:
    """Return the name and the file of the module that a page is about."""
    for package in ("bnlib", "bnlib/book"):
        for tail in (f"{stem}.py", f"{stem}/__init__.py"):
            if (root / package / tail).is_file():
                return f"{package}/{stem}".replace("/", "."), root / package / tail
    raise FileNotFoundError(
        f"a chapter must be about a module of its name; got {stem}, and there is neither "
        f"bnlib/{stem}.py nor bnlib/book/{stem}.py. Write it, or correct book/chapters.toml."
    )


def public_names(tree: ast.Module) -> list[str]:
    """Return what a module lists in `__all__`, without importing it."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


# What is made


def make_toc(parts):
    lines = ["# Made by make chapters, from chapters.toml.", "format: jb-book"]
    lines += ["root: index", "parts:"]
    for part in parts:
        lines.append(f'  - caption: "{part.caption}"')
        lines += ["    numbered: 1"] * any(page.number for page in part.pages)
        lines.append("    chapters:")
        lines += [f"      - file: {page.page}" for page in part.pages]
    return "\n".join(lines) + "\n"


def list_chapters(parts):
    """Write the landing page's list: each part with its chapters."""
    blocks = []
    for part in parts:
        chapters = [page for page in part.pages if page.number]
        if chapters:
            items = [
                f"{c.number}. [{c.title}]({c.page}): {c.sentence}" for c in chapters
            ]
            blocks += [part.says, "\n".join(map(wrap_item, items))]
    return "\n\n".join(blocks)


def wrap_item(text):
    """Break the lines of an item, without parting a link's address."""
    indent = " " * (text.index(" ") + 1)
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def table(*rows):
    """Write a Markdown table; the first row is its head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def map_code(root, pages):
    """Write the table of the code map."""
    rows = []
    for page in pages:
        module, file = module_of(root, page.stem)
        names = public_names(ast.parse(file.read_text(encoding="utf-8")))
        place = f"{page.number or 'appendix'} [{page.stem}]({page.page}.ipynb)"
        names = ", ".join(f"`{name}`" for name in names)
        rows.append((place, f"`{module}`", names, page.paper))
    return table(("chapter", "module", "public names", "place in the paper"), *rows)


def list_modules(root, pages):
    """Write README's table."""
    rows = [
        (
            f"{page.number or 'appendix'} [{page.title}](book/{page.page}.ipynb)",
            f"`{module_of(root, page.stem)[0]}`",
            page.holds,
        )
        for page in pages
    ]
    return table(("chapter", "module", "what it holds"), *rows)


def refer(root, pages):
    """Write the reference's sections: the library first, then what serves the book alone."""
    sections = []
    for page in pages:
        module, _ = module_of(root, page.stem)
        where = f"Chapter {page.number}" if page.number else "Appendix"
        sections.append(
            f"## {module}\n\n{where}: [{page.title}]({page.page}).\n\n{autodoc(module)}"
        )
    sections.sort(key=lambda text: text.startswith("## bnlib.book."))
    return "\n\n".join(sections)


def refer_to_exercises(root, pages):
    """Write the reference of the exercises, a module for each chapter that has some."""
    there = [
        f"bnlib.book.exercises.{page.stem}"
        for page in pages
        if (root / f"bnlib/book/exercises/{page.stem}.py").is_file()
    ]
    return autodoc("bnlib.book.exercises", "bnlib.book.exercises.build", *there)


def number_pages(root, pages):
    """Give the number and the title of each page that is a notebook; the appendix has no number."""
    return {
        page.page: (
            str(page.number or ""),
            page.title or first_heading(root, page.page),
        )
        for page in pages
        if "/" in page.page
    }


def first_heading(root, page):
    text = (root / f"text/{page}.md").read_text(encoding="utf-8")
    return re.search(r"^# (.+)$", text, re.MULTILINE)[1]


def autodoc(*modules):
    directives = [f".. automodule:: {module}\n   :members:" for module in modules]
    return "```{eval-rst}\n" + "\n\n".join(directives) + "\n```"


def make_all(root: Path) -> dict[Path, str]:
    """Return each file that lists chapters, as the list would have it.

    Args:
        root: The folder of the project.

    Returns:
        The text of each file, by its path.

    Raises:
        FileNotFoundError: If there is no module for a chapter.
        ValueError: If a file lacks its two comments.
    """
    parts = read_parts(root)
    everything = [page for part in parts for page in part.pages]
    pages = [page for page in everything if page.paper]
    lists = {
        "book/index.md": {"chapters": list_chapters(parts)},
        "book/code_map.md": {"modules": map_code(root, pages)},
        "book/api.md": {
            "reference": refer(root, pages),
            "exercises": refer_to_exercises(root, pages),
        },
        "README.md": {"modules": list_modules(root, pages)},
        "book/rows.md": {
            "rows": rows.write_tables(root, number_pages(root, everything))
        },
    }
    made = {root / "book/_toc.yml": make_toc(parts)}
    for name, filled in lists.items():
        text = (root / name).read_text(encoding="utf-8")
        for place, content in filled.items():
            text = fill(text, place, content, name)
        made[root / name] = text
    return made


def fill(text, place, content, name):
    """Put a list between its two comments."""
    before, begin, rest = text.partition(BEGIN.format(place))
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"{name} must have the lines {BEGIN.format(place)} and {END}; got none. "
            "Put them where the list belongs."
        )
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main() -> None:
    for path, text in make_all(ROOT).items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: made anew")


if __name__ == "__main__":
    main()
