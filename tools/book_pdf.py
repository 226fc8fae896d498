"""Print the built site as one book: `make pdf` writes _build/bnlib-book.pdf.

The articles of all pages are joined into one document, which Chromium prints. So the book shows
what the site shows, its links lead from page to page, its headings make the PDF's outline, and its
pages are counted through. It is printed twice: the first says on which page each chapter begins.

What only works on a screen is changed. Solutions move to the end, code that the site hides stays
hidden, a picture that moves stands still.
"""

import argparse
import io
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pypdf
from bs4 import BeautifulSoup

from tools.browser import open_page

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("genindex", "search")  # lists for a screen: a reader of the PDF searches
ON_SCREEN = (
    ".headerlink, .viewcode-link, details.above-input, .toctree-wrapper, script, button"
)
SAYS = (
    "Code that the site hides, which mostly draws figures, is left out; the notebooks have it. "
    "Pictures that move on the site stand still."
)


@dataclass
class Chapter:
    """One page of the site on its way into the book."""

    name: str  # "part1/02_moments"
    title: str
    part: str
    article: BeautifulSoup

    @property
    def slug(self):
        return self.name.replace("/", "-")

    @property
    def number(self):
        found = re.search(r"/(\d\d)_", self.name)
        return str(int(found[1])) if found else ""


def read_soup(file):
    return BeautifulSoup(file.read_text(encoding="utf-8"), "html.parser")


def read_chapters(site: Path, only: list[str] | None = None) -> list[Chapter]:
    """Read the pages in the order of the table of contents.

    Args:
        site: The folder of the built site.
        only: The pages to read, such as "part1/02_moments"; by default all of them.

    Returns:
        The chapters, each with its article as it is on the site.
    """
    home = read_soup(site / "index.html")
    entries, part = [("index", "About this book", "")], ""
    for found in home.select(".bd-docs-nav .caption-text, .bd-docs-nav a.internal"):
        if found.name == "a":
            entries.append(
                (found["href"].removesuffix(".html"), found.get_text(), part)
            )
        else:
            part = found.get_text()
    wanted = [
        entry
        for entry in entries
        if entry[0] not in LEFT_OUT and (only is None or entry[0] in only)
    ]
    return [
        Chapter(
            *entry,
            read_soup(site / f"{entry[0]}.html").select_one("article.bd-article"),
        )
        for entry in wanted
    ]


# One document


def clean(chapter, site):
    """Take away what needs a screen, and let images be found from anywhere."""
    for part in chapter.article.select(ON_SCREEN):
        part.decompose()
    for cell in chapter.article.select("div.cell"):
        if not cell.get_text(strip=True) and not cell.find("img"):
            cell.decompose()
    heading = chapter.article.find("h1")
    heading.string = chapter.title
    folder = (site / chapter.name).parent
    for image in chapter.article.select("img[src]"):
        image["src"] = (folder / unquote(image["src"])).resolve().as_uri()


def join(chapters, site):
    """Make every id unique, and every link between pages one inside the book."""
    known = {c.slug for c in chapters}
    for chapter in chapters:
        for node in chapter.article.select("[id]"):
            node["id"] = f"{chapter.slug}--{node['id']}"
            known.add(node["id"])
    for chapter in chapters:
        for link in chapter.article.select("a[href]"):
            turn(link, chapter, site, known)


def turn(link, chapter, site, known):
    """Point one link to its place in the book; without one, keep its words."""
    page, anchor = urldefrag(link["href"])
    if re.match(r"https?:|mailto:", page):
        if (
            link.get_text().strip() in link["href"]
            or "doi.org" in page
            or "arxiv.org" in page
        ):
            link["class"] = [*link.get("class", []), "address"]
        return
    target = (
        (site / chapter.name).parent / unquote(page) if page else site / chapter.name
    )
    name = target.resolve().relative_to(site.resolve()).as_posix().removesuffix(".html")
    slug = name.replace("/", "-")
    place = f"{slug}--{unquote(anchor)}"
    found = next((one for one in (place, slug) if one in known), None)
    if found:
        link["href"] = f"#{found}"
    else:
        link.unwrap()


def move_solutions(chapters):
    """Take the solutions out of the chapters; return them, each named for its exercise."""
    moved = []
    for chapter in chapters:
        exercise, here = None, []
        for box in chapter.article.select("div.exercise, div.solution"):
            if "exercise" in box["class"]:
                exercise = box
                continue
            name = exercise.select_one(".caption-number").get_text(strip=True)
            box.select_one("p.admonition-title").clear()
            back = BeautifulSoup(
                f'<a href="#{exercise["id"]}">{name}</a>', "html.parser"
            )
            box.select_one("p.admonition-title").append(back)
            to = f' <a class="to-solution" href="#{box["id"]}">Its solution is at the end.</a>'
            exercise.append(BeautifulSoup(f"<p>{to}</p>", "html.parser"))
            here.append(box.extract())
        if here:
            moved.append((chapter, here))
    return moved


def solutions(chapters):
    """Return the last chapter: all solutions, under the titles of their chapters."""
    moved = move_solutions(chapters)
    if not moved:
        return []
    text = "<article class='bd-article'><section><h1>Solutions</h1>"
    for chapter, boxes in moved:
        text += f"<h2>{chapter.title}</h2>" + "".join(map(str, boxes))
    article = BeautifulSoup(text + "</section></article>", "html.parser")
    return [Chapter("solutions", "Solutions", "", article)]


def contents(chapters, pages):
    """Return the table of contents, with the number of each chapter's first page."""
    lines, part = (
        ["<section class='book-contents bd-article'><h1>Contents</h1><ol>"],
        "",
    )
    for c in chapters:
        if c.part and c.part != part:
            part = c.part
            lines.append(f"</ol><h2>{part}</h2><ol>")
        page = pages.get(c.slug, "")
        lines.append(
            f"<li><a href='#{c.slug}' data-number='{c.number}'><span>{c.title}</span>"
            f"<span class='leader'></span><span>{page}</span></a></li>"
        )
    return "\n".join([*lines, "</ol></section>"])


def compose(chapters: list[Chapter], site: Path, pages: dict[str, int]) -> str:
    """Return the whole book as one HTML document."""
    home = read_soup(site / "index.html")
    styles = [
        f'<link rel="stylesheet" href="{(site / link["href"].split("?")[0]).resolve().as_uri()}">'
        for link in home.select('link[rel="stylesheet"]')
    ]
    title = home.title.get_text(strip=True)
    author = home.select_one(".component-author")
    made_with = home.select_one(".extra_footer")
    logo = (site / "_static/logo.svg").resolve().as_uri()
    facts = [" ".join(node.get_text().split()) for node in (author, made_with) if node]
    if address := home.select_one('link[rel="canonical"]'):
        facts.append(
            f"<a class='address' href='{address['href']}'>{address['href']}</a>"
        )
    body = [
        f"<section class='book-title'><img src='{logo}' alt=''><h1>{title}</h1>",
        *(f"<p>{fact}</p>" for fact in [*facts, SAYS]),
        "</section>",
        contents(chapters, pages),
    ]
    for c in chapters:
        eyebrow = f"Chapter {c.number}" if c.number else c.part
        body.append(
            f"<section class='book-chapter' id='{c.slug}'>"
            f"<p class='eyebrow'>{eyebrow}</p>{c.article}</section>"
        )
    head = f'<meta charset="utf-8"><title>{title}</title>' + "\n".join(styles)
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light">'
        f"<head>{head}</head><body>" + "\n".join(body) + "</body></html>"
    )


# Paper


def print_page(text: str) -> bytes:
    """Print an HTML document and return the PDF."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "book.html")
        file.write_text(text, encoding="utf-8")
        with open_page(file) as page:
            return page.pdf(
                prefer_css_page_size=True,
                print_background=True,
                tagged=True,
                outline=True,
            )


def first_pages(pdf: bytes, chapters: list[Chapter]) -> dict[str, int]:
    """Return the number of the page on which each chapter begins."""
    reader = pypdf.PdfReader(io.BytesIO(pdf))
    places = {
        name.removeprefix("/"): place
        for name, place in reader.named_destinations.items()
    }
    return {
        c.slug: reader.get_destination_page_number(places[c.slug]) + 1
        for c in chapters
        if c.slug in places
    }


def make(site: Path, only: list[str] | None = None) -> bytes:
    """Print a built site, or some pages of it, as one book.

    Args:
        site: The folder of the built site.
        only: The pages to print, such as "part1/02_moments"; by default all of them.

    Returns:
        The content of the PDF.
    """
    chapters = read_chapters(site, only)
    for chapter in chapters:
        clean(chapter, site)
    join(chapters, site)
    chapters += solutions(chapters)
    draft = print_page(compose(chapters, site, {}))
    return print_page(compose(chapters, site, first_pages(draft, chapters)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "pages", nargs="*", help="such as part1/02_moments; default: all"
    )
    parser.add_argument("--site", type=Path, default=ROOT / "_build/html")
    parser.add_argument("--out", type=Path, default=ROOT / "_build/bnlib-book.pdf")
    options = parser.parse_args()
    if not (options.site / "index.html").is_file():
        raise SystemExit(f"no site in {options.site}: build it with `make book`")
    options.out.write_bytes(make(options.site, options.pages or None))
    count = len(pypdf.PdfReader(options.out).pages)
    print(f"{options.out}: {count} pages, {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
