"""The book where it is published: its address, its card, its index, its PDF, its links.

A book of a few pages is built with an address, as GitHub Actions does, and without one. The chapter
in it is a real one, with mathematics, figures, an explorable and exercises.
"""

import io
import os
import re
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pypdf
import pytest
import yaml
from browsing import (
    broken_links,
    console_messages,
    failed_resources,
    look,
    outside_requests,
    pages_of,
    phone_overflow,
    poor_alternatives,
)
from bs4 import BeautifulSoup
from building import jupyter_book, lay_out_book, load_extension
from facts import ROOT
from PIL import Image
from sphinx.errors import ExtensionError

import bnlib
from tools import book_pdf, card, chapters, links
from tools.server import serve

CHAPTER = "part1/03_transform"
REPOSITORY, SITE = "https://github.com/Ann/bn-book", "https://ann.github.io/bn-book/"
TOC = f"""
format: jb-book
root: index
parts:
  - caption: Part
    chapters:
      - file: {CHAPTER}
  - caption: Appendix
    chapters:
      - file: glossary
      - file: bibliography
      - file: changelog
      - file: genindex
"""
HOME = """---
myst:
  html_meta:
    description: A book of "few" pages.
---
# A book

[A chapter](part1/03_transform), and a link that [leads out](https://example.org/page).

Take 5 % of `x[0]`, below 1e-6, in 0.1 to 0.2 of all, for the shape (N, H, W, C), with
`a_name_that_is_longer_than_a_word`.

```{eval-rst}
.. automodule:: bnlib.axes
   :members:
```
"""


bnaddress, bnlinks = load_extension("bnaddress"), load_extension("bnlinks")


# Two books


def start_build(folder, toc, home, **said):
    """Start to build a book of some of our pages; `said` is said by the environment."""
    names = re.findall(r"file: (\S+)", toc)
    pages = [f"book/{name}{'.ipynb' if '/' in name else '.md'}" for name in names]
    also = ["CHANGELOG.md", "requirements.lock", *pages]
    lay_out_book(folder, {"_toc.yml": toc, "index.md": home}, also)
    spoken = {k: v for k, v in os.environ.items() if not k.startswith("BOOK_")}
    return subprocess.Popen(
        jupyter_book(),
        cwd=folder,
        env={**spoken, **said, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def site_of(folder, process):
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return folder / "_build/html"


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Build both at once, at odd paths: the one with an address, and the one without."""
    here, there = map(
        tmp_path_factory.mktemp, ("mit \u00f6rtchen", "ohne \u00f6rtchen")
    )
    addressed = start_build(
        here, TOC, HOME, BOOK_REPOSITORY=REPOSITORY, BOOK_PDF="book.pdf"
    )
    few = re.sub(r" +- file: (glossary|bibliography|changelog)\n", "", TOC)
    plain = start_build(there, few, HOME)
    return site_of(here, addressed), site_of(there, plain)


@pytest.fixture(scope="module")
def site(sites):
    return sites[0]


@pytest.fixture(scope="module")
def plain(sites):
    return sites[1]


@pytest.fixture(scope="module")
def pages(browser, site, plain):
    """Open every page of the site with an address, and the chapter of the one without."""
    (site / "book.pdf").write_bytes(b"")
    with serve(site) as base, serve(plain) as other:
        found = {path: look(browser, base + path) for path in pages_of(site)}
        return found, base, look(browser, f"{other}{CHAPTER}.html")


def page(site, name):
    return BeautifulSoup((site / f"{name}.html").read_text(), "html.parser")


def hrefs(site, name):
    return [link["href"] for link in page(site, name).select("a[href]")]


def meta(site, name):
    tags = page(site, name).select("meta[property], meta[name]")
    return {tag.get("property") or tag["name"]: tag["content"] for tag in tags}


# One address, in one place


@pytest.mark.parametrize(
    ("repository", "site"),
    [
        ("", ""),
        ("https://github.com/Ann/bn.book.git", "https://ann.github.io/bn.book/"),
        ("https://github.com/ann/Ann.github.io/", "https://ann.github.io/"),
    ],
)
def test_the_site_follows_from_the_repository(repository, site):
    assert bnaddress.find_site("", bnaddress.find_repository(repository)) == site
    given = bnaddress.find_site(" https://bn.example.org/book ", repository)
    assert given == "https://bn.example.org/book/"


@pytest.mark.parametrize(
    "value", ["ann/bn", "git@github.com:ann/bn", "https://github.com/ann"]
)
def test_a_wrong_repository_is_refused(value):
    with pytest.raises(
        ExtensionError, match=rf"owner/name, and is '{value}'.*BOOK_REPOSITORY"
    ):
        bnaddress.find_repository(value)


def test_a_wrong_site_is_refused():
    with pytest.raises(ExtensionError, match=r"is 'bn\.example\.org'.*BOOK_URL"):
        bnaddress.find_site("bn.example.org", "")


def test_the_project_itself_is_at_home_nowhere():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["repository"]["url"] == config["html"]["baseurl"] == ""


def test_actions_set_the_address_by_themselves():
    text = (ROOT / ".github/workflows/pages.yml").read_text()
    assert "BOOK_REPOSITORY: ${{ github.server_url }}/${{ github.repository }}" in text
    assert "BOOK_URL: ${{ steps.pages.outputs.base_url }}" in text
    assert "make book pdf" in text


def test_a_notebook_can_be_opened_and_its_source_read(site):
    found = hrefs(site, CHAPTER)
    name = REPOSITORY.removeprefix("https://github.com/")
    book = f"book/{CHAPTER}.ipynb"
    assert (ROOT / book).is_file()
    assert (ROOT / f"text/{CHAPTER}.md").is_file()
    assert f"https://colab.research.google.com/github/{name}/blob/main/{book}" in found
    assert f"https://mybinder.org/v2/gh/{name}/main?urlpath=lab/tree/{book}" in found
    assert f"{REPOSITORY}/blob/main/text/{CHAPTER}.md" in found
    assert "../book.pdf" in found


def test_a_page_that_is_no_notebook_has_no_launch_buttons(site):
    for name, source in [
        ("glossary", "book/glossary.md"),
        ("changelog", "CHANGELOG.md"),
    ]:
        found = hrefs(site, name)
        assert f"{REPOSITORY}/blob/main/{source}" in found
        assert (ROOT / source).is_file()
        assert [link for link in found if "colab" in link or "binder" in link] == []


def test_every_page_has_one_address_and_a_card(site):
    seen = {}
    for path in pages_of(site):
        name = path.removesuffix(".html")
        if name == "search" or name.startswith("_modules"):
            assert not page(site, name).select('link[rel="canonical"], meta[property]')
            continue
        [link] = page(site, name).select('link[rel="canonical"]')
        facts = meta(site, name)
        assert (
            facts["og:url"] == link["href"] == SITE + ("" if name == "index" else path)
        )
        assert facts["og:title"] == page(site, name).select_one("h1").contents[0]
        assert facts["og:description"] == facts["description"]
        assert facts["twitter:card"] == "summary_large_image"
        assert (site / facts["og:image"].removeprefix(SITE)).is_file()
        seen[name] = link["href"]
    assert {"index", CHAPTER, "genindex", "changelog"} <= set(seen)
    assert meta(site, "index")["og:description"] == 'A book of "few" pages.'
    sitemap = ElementTree.parse(site / "sitemap.xml")
    assert {node.text for node in sitemap.iter() if node.tag.endswith("}loc")} == set(
        seen.values()
    )


def test_without_an_address_there_is_nothing_dead(plain):
    assert not (plain / "sitemap.xml").exists()
    for path in pages_of(plain):
        name = path.removesuffix(".html")
        text = (plain / path).read_text()
        assert not re.search(
            r"github\.(com|io)|mybinder|research\.google|book\.pdf", text
        ), path
        assert not page(plain, name).select(
            'link[rel="canonical"], meta[property^="og:"]'
        )


def test_both_are_fit_to_be_published(pages):
    found, _, without = pages
    rules = (
        outside_requests,
        failed_resources,
        console_messages,
        poor_alternatives,
        phone_overflow,
    )
    faults = [rule(one) for one in [*found.values(), without] for rule in rules]
    assert [fault for some in faults for fault in some] == []


def test_what_belongs_together_is_not_parted(site):
    marked = page(site, "index").select("article > section > p .together")
    assert [node.get_text() for node in marked] == [
        "5 %",
        "x[0]",
        "1e-6",
        "0.1 to 0.2",
        "(N, H, W, C)",
    ]


def test_links_lead_somewhere(pages, site):
    found, base, _ = pages
    faults = broken_links(found.values(), site, base)
    # The glossary and the chapter name pages that this small book does not have.
    assert [
        fault for fault in faults if not re.search(r"part\d/|appendix/", fault)
    ] == []


def test_binder_installs_the_project_with_its_exact_versions():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [part["pip"] for part in conda if isinstance(part, dict)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pip == ["-r requirements.lock", "-e ."]
    lock = (ROOT / "requirements.lock").read_text()
    for needed in ("numpy", "tensorflow", "matplotlib", "ipykernel", "scikit-learn"):
        assert re.search(rf"(?m)^{needed}==", lock), needed
    assert f"python={project['requires-python'].removeprefix('>=')}" in conda


# The card and the logo


def test_the_card_is_what_its_script_draws():
    drawn = Image.open(card.TARGET)
    assert drawn.size == (1200, 630)
    assert card.TARGET.stat().st_size < 100_000
    assert drawn.text["drawn from"] == card.fingerprint(), "run `python -m tools.card`"
    assert len(drawn.convert("RGB").getcolors(1 << 20)) > 20


def test_the_logo_is_on_every_page_and_follows_the_theme(site):
    logo = (site / "_static/logo.svg").read_text()
    assert "prefers-color-scheme: dark" in logo
    assert len(logo) < 2_000
    for name in ("index", CHAPTER):
        images = page(site, name).select("a.navbar-brand img")
        assert {Path(image["src"]).name for image in images} == {"logo.svg"}


# Finding things


def test_the_index_holds_the_terms_and_the_functions(site, plain):
    sidebar = [link for link in hrefs(plain, "index") if link == "genindex.html"]
    assert sidebar
    index = page(site, "genindex")
    words = [link.get_text() for link in index.select(".indextable a")]
    assert {"momentum", "folding", "layout() (in module bnlib.axes)"} <= set(words)
    assert "动量 (momentum)" in words
    glossary = page(site, "glossary")
    terms = {
        term.contents[0].strip().replace("\u2019", "'")
        for term in glossary.select("dl.glossary dt")
    }
    assert len(terms) > 40
    assert terms <= set(words)
    chinese = {span.get_text() for span in glossary.select("dl.glossary [lang=zh]")}
    assert chinese == {
        re.sub(r" \(.*", "", word) for word in words if word[0] > "\u2fff"
    }
    anchors = {link["href"].partition("#")[2] for link in index.select(".indextable a")}
    anchors = {anchor for anchor in anchors if anchor.startswith("term-")}
    assert len(anchors) == len(terms)
    assert anchors <= {node["id"] for node in glossary.select("[id]")}


def test_functions_link_to_their_source(site):
    [link] = [
        link for link in hrefs(site, "index") if link.endswith("axes.html#layout")
    ]
    file, anchor = link.split("#")
    assert page(site, file.removesuffix(".html")).select(f'[id="{anchor}"]')


def bib_entries():
    text = (ROOT / "book/references.bib").read_text()
    for entry in re.findall(r"(?ms)^@.*?^}", text):
        fields = dict(re.findall(r"(?m)^  (\w+)\s*= \{(.*)\},$", entry))
        yield re.search(r"\{(\w+),", entry)[1], fields


def test_every_source_can_be_reached(site):
    found = set(hrefs(site, "bibliography"))
    entries = dict(bib_entries())
    assert len(entries) >= 9
    for name, fields in entries.items():
        if "doi" in fields:
            assert re.fullmatch(r"10\.\d{4,5}/\S+", fields["doi"]), name
            assert f"https://doi.org/{fields['doi']}" in found
        else:
            assert fields["url"] in found, name
        if "eprint" in fields:
            assert fields["doi"] == f"10.48550/arXiv.{fields['eprint']}"


def test_the_reference_names_the_chapter_of_each_module():
    text = (ROOT / "book/api.md").read_text()
    sections = dict(re.findall(r"(?ms)^## (bnlib[\w.]+)\n\n(.*?)\n\n", text))
    pages = [page for part in chapters.read_parts(ROOT) for page in part.pages]
    for page in (page for page in pages if page.paper):
        module, _ = chapters.module_of(ROOT, page.stem)
        where = f"Chapter {page.number}" if page.number else "Appendix"
        assert sections[module] == f"{where}: [{page.title}]({page.page})."
    assert [name for name, below in sections.items() if below.startswith("```")] == []


# What was made with what


def test_every_page_says_its_versions(site):
    pins = dict(
        re.findall(r"(?m)^(\w+)==(\S+)$", (ROOT / "requirements.lock").read_text())
    )
    for path in pages_of(site):
        footer = page(site, path.removesuffix(".html")).select_one(".extra_footer")
        said = " ".join(footer.get_text().split())
        assert said == (
            f"bnlib {bnlib.__version__}. The chapters were executed with "
            f"TensorFlow {pins['tensorflow']} and Keras {pins['keras']}."
        )
        target = (site / path).parent / footer.a["href"].rstrip("#")
        assert (
            footer.a["href"] == "#"
            or target.resolve() == (site / "changelog.html").resolve()
        )


def test_the_changelog_is_in_the_book(site):
    said = page(site, "changelog").select_one("article").get_text()
    for line in re.findall(r"(?m)^- `?([\w.]+)", (ROOT / "CHANGELOG.md").read_text()):
        assert line in said


# On paper


@pytest.fixture(scope="module")
def pdf(site):
    return pypdf.PdfReader(io.BytesIO(book_pdf.make(site)))


@pytest.fixture(scope="module")
def texts(pdf):
    """Read the words of each page; NFKC takes ligatures apart."""
    return [unicodedata.normalize("NFKC", one.extract_text()) for one in pdf.pages]


def squeezed(text):
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text))


def test_the_pdf_has_the_text_and_the_figures(pdf, texts, site):
    text = squeezed("".join(texts))
    article = page(site, CHAPTER).select_one("article")
    lines = [
        line
        for block in article.select("div.cell_input pre")
        if not block.find_parent("details")
        for line in block.get_text().splitlines()
    ]
    assert len(lines) > 50
    assert [line for line in lines if squeezed(line) not in text] == []
    for heading in article.select("h2"):
        assert squeezed(heading.contents[0]) in text
    objects = [pdf.get_object(number + 1) for number in range(len(pdf.xref[0]))]
    described = [
        one["/Alt"]
        for one in objects
        if isinstance(one, dict) and one.get("/S") == "/Figure" and "/Alt" in one
    ]
    assert {image["alt"] for image in article.select("img")} <= set(described)


def test_the_pdf_begins_with_a_title_and_counts_its_pages(pdf, texts):
    assert texts[0].startswith("Batch normalization, rebuilt")
    assert SITE in texts[0]
    assert [
        n for n, text in enumerate(texts, 1) if len(text) < 40
    ] == []  # no empty page
    listed = re.findall(
        r"(?m)(The transform|Glossary|Changelog|Solutions)\D*?(\d+)$", texts[1]
    )
    assert [title for title, _ in listed] == [
        "The transform",
        "Glossary",
        "Changelog",
        "Solutions",
    ]
    for title, number in listed:
        assert re.match(rf"{number}\n(.+\n)?{title}\n", texts[int(number) - 1])
    titles = [one.title for one in pdf.outline if not isinstance(one, list)]
    assert "Contents" in titles


def test_solutions_stand_at_the_end(texts, site):
    last = next(
        n for n, text in enumerate(texts) if re.match(r"\d+\nSolutions\n", text)
    )
    body, end = squeezed("".join(texts[:last])), squeezed("".join(texts[last:]))
    chapter = page(site, CHAPTER)
    [*boxes] = chapter.select("div.solution")
    assert boxes
    given = [
        pre for pre in chapter.select("pre") if not pre.find_parent(class_="solution")
    ]
    stubs = squeezed("".join(pre.get_text() for pre in given))
    for box in boxes:
        line = squeezed(box.select_one("pre").get_text())[:60]
        assert line in end
        assert line not in body or line in stubs  # as the cell for the answer begins
    assert body.count("Itssolutionisattheend.") == len(boxes)


def test_links_of_the_pdf_stay_in_it_or_lead_out(pdf):
    actions = [
        note.get_object().get("/A", {}).get("/URI", "")
        for one in pdf.pages
        for note in one.get("/Annots", [])
    ]
    schemes = {urlsplit(str(uri)).scheme for uri in actions}
    assert schemes <= {"", "https"}
    assert "https://example.org/page" in actions


CUT = """all => all.filter(box => box.scrollWidth > box.clientWidth + 1)
  .map(box => box.textContent.slice(0, 60))"""


def cut_code(folder, text):
    """List the blocks of code that are wider than the paper."""
    file = folder / "book.html"
    file.write_text(text, encoding="utf-8")
    paper = {"width": round(170 / 25.4 * 96), "height": 1000}  # A4 between its margins
    with book_pdf.open_page(file, viewport=paper) as opened:
        opened.emulate_media(media="print")
        return opened.eval_on_selector_all("pre", CUT)


def test_no_code_is_cut_off(site, tmp_path):
    chapters = book_pdf.read_chapters(site, [CHAPTER])
    book_pdf.clean(chapters[0], site)
    text = book_pdf.compose(chapters, site, {})
    assert cut_code(tmp_path, text) == []
    stiff = "<style>.bd-article pre {white-space: pre !important}</style></head>"
    planted = text.replace("</pre>", f"{'x' * 200}</pre>", 1).replace(
        "</head>", stiff, 1
    )
    assert cut_code(tmp_path, planted) != []


def test_a_book_without_a_site_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["book_pdf", "--site", str(tmp_path)])
    with pytest.raises(SystemExit, match="make book"):
        book_pdf.main()


# Links that lead out


def test_offline_nothing_is_checked_and_nothing_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(links, "answers", lambda link: False)
    monkeypatch.setattr(links.subprocess, "run", None)
    assert links.main() == 0
    assert re.fullmatch(
        r"no network: \d\d+ links not checked\n", capsys.readouterr().out
    )


def test_outside_links_are_found_in_all_sources():
    found = links.outside_links(ROOT / "book")
    assert "https://creativecommons.org/licenses/by/4.0/" in found  # Markdown
    assert (
        "https://kevinzakka.github.io/2016/09/14/batch_normalization/" in found
    )  # a notebook
    assert "https://doi.org/10.1109/CVPR.2018.00286" in found


def test_a_broken_link_is_named():
    said = "\n".join(
        f'{{"filename": "index.md", "uri": "https://x.org/{status}", "status": "{status}", '
        '"info": "404"}}'.replace("}}", "}")
        for status in ("working", "redirected", "broken", "ignored", "timeout")
    )
    assert links.broken(said) == [
        "index.md: https://x.org/broken: 404",
        "index.md: https://x.org/timeout: 404",
    ]


def test_a_doi_is_asked_for_at_its_registry():
    ask = bnlinks.ask_for_the_doi
    assert ask(None, "https://doi.org/10.1/x") == "https://doi.org/api/handles/10.1/x"
    assert ask(None, "https://example.org") is None


def test_links_are_checked_every_week():
    text = (ROOT / ".github/workflows/links.yml").read_text()
    assert re.search(r'cron: "\d+ \d+ \* \* \d"', text)
    assert "run: make links" in text
