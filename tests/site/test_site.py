"""The built site, opened in Chromium: it works, it needs nobody else, and it shows what was stored.

`make test-site` builds it first. Each check is also tried on a page with that fault planted.
"""

import io
import itertools
import os
import random
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browsing import (
    LOOKS,
    TRANSFER,
    broken_links,
    heavy,
    look,
    look_at_all,
    output_faults,
    page_faults,
    pages_of,
)
from bs4 import BeautifulSoup
from building import build
from facts import ROOT
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from PIL import Image
from sphinxcontrib.katex import katex_version

from tools import picture
from tools.server import serve

SITE = Path(os.environ.get("BOOK_SITE", ROOT / "_build/html"))
CHAPTER = "part1/02_moments.html"
NOTEBOOKS = sorted((ROOT / "book").glob("part*/*.ipynb"))


@pytest.fixture(scope="module")
def base():
    assert (SITE / "index.html").is_file(), "the site is not built: `make book`"
    with serve(SITE) as url:
        yield url


# One page of each kind. In it axe looks at both themes on both sizes, in the others at one of the
# four in turn; the rest is slow, and `make test-slow` does it.
KINDS_OF_PAGES = [
    *("index.html", CHAPTER, "appendix/questions.html", "glossary.html", "api.html"),
    *("bibliography.html", "genindex.html", "search.html", "_modules/bnlib/axes.html"),
]


def quick_looks():
    """Say how each page is looked at: `{path: looks}`."""
    turns = itertools.cycle(LOOKS)
    return {
        path: LOOKS if path in KINDS_OF_PAGES else (next(turns),)
        for path in pages_of(SITE)
    }


def look_at_site(browser, base, looks):
    """Open pages once each: {path: what happened}."""
    found = look_at_all(browser, {base + path: some for path, some in looks.items()})
    return dict(zip(looks, found, strict=True))


@pytest.fixture(scope="module")
def pages(browser, base):
    return look_at_site(browser, base, quick_looks())


# Every page


def test_pages_are_there(pages):
    expected = {
        "index.html",
        "api.html",
        "search.html",
        "genindex.html",
        "bibliography.html",
    }
    expected |= {f"{book.parent.name}/{book.stem}.html" for book in NOTEBOOKS}
    assert len(NOTEBOOKS) >= 2
    assert expected <= set(pages)


def test_every_page_is_fit_to_be_published(pages):
    assert [fault for page in pages.values() for fault in page_faults(page)] == []


@pytest.mark.slow
def test_every_page_shuts_nobody_out_in_the_other_looks(browser, base):
    others = {path: set(LOOKS) - {*some} for path, some in quick_looks().items()}
    others = {path: looks for path, looks in others.items() if looks}
    assert len(others) > 50
    seen = look_at_site(browser, base, others)
    assert [fault for page in seen.values() for fault in page_faults(page)] == []


def test_all_pages_together_are_looked_at_in_every_look():
    looks = quick_looks()
    assert set(KINDS_OF_PAGES) <= set(looks)
    for kind in ("_modules/", "part", ""):
        some = [looks[path] for path in looks if path.startswith(kind)]
        assert set(itertools.chain(*some)) == set(LOOKS)


def test_links_lead_somewhere(pages, base):
    assert broken_links(pages.values(), SITE, base) == []


@pytest.mark.parametrize("page", ["index.html", CHAPTER, "api.html"])
def test_pages_open_from_disk(browser, page):
    assert page_faults(look(browser, (SITE / page).as_uri())) == []


def test_pages_are_light(pages):
    assert [fault for page in pages.values() for fault in heavy(page, SITE)] == []
    assert {path.name for path in SITE.rglob("*.css")} == {"book.css", "print.css"}


# What was stored is what is shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_site_shows_the_stored_outputs(pages, path):
    page = pages[f"{path.parent.name}/{path.stem}.html"]
    assert output_faults(page, nbformat.read(path, as_version=4), SITE) == []


FOLDED = {"checked": "checked", "hardened": "The same, hardened: bnlib's own code"}


def fold_faults(page, notebook):
    """Compare the folded cells of a page with the tagged cells of its notebook."""
    faults = []
    for tag, words in FOLDED.items():
        tagged = [c.source for c in notebook.cells if tag in c.metadata.get("tags", [])]
        cells = BeautifulSoup(page, "html.parser").select(f"div.cell.tag_{tag}")
        folds = [cell.find("details", recursive=False) for cell in cells]
        if len(cells) != len(tagged):
            faults.append(f"{len(cells)} cells {tag}, not {len(tagged)}")
        for cell, fold, source in zip(cells, folds, tagged, strict=False):
            if fold is None or fold.has_attr("open"):
                faults.append(f"{source[:40]!r} is not folded")
            elif cell.get_text().strip() != fold.get_text().strip():
                faults.append(f"{source[:40]!r} shows more than its mark")
            elif words not in fold.find("summary").get_text():
                faults.append(f"{source[:40]!r} is not marked {words!r}")
            elif source.split()[0] not in fold.get_text():
                faults.append(f"{source[:40]!r} is not in its fold")
    return faults


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_checked_or_hardened_is_folded(path):
    page = (SITE / path.parent.name / f"{path.stem}.html").read_text(encoding="utf-8")
    assert fold_faults(page, nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("<details", "<details open", "is not folded"),
        ("<details", "<div", "is not folded"),
        (">checked<", ">Show the code<", "is not marked 'checked'"),
        ("tag_checked", "tag_other", "cells checked, not"),
    ],
)
def test_a_check_in_the_open_is_found(old, new, fault):
    [path] = [path for path in NOTEBOOKS if path.stem == "03_transform"]
    page = (SITE / "part1/03_transform.html").read_text(encoding="utf-8")
    before, tag, after = page.partition("tag_checked")
    spoilt = before + (tag + after).replace(old, new, 2 if ">" in old else 1)
    assert fault in "\n".join(fold_faults(spoilt, nbformat.read(path, as_version=4)))


def formulas(notebook):
    """Count the formulas in a notebook's Markdown and in the captions of its figures."""
    parser = MarkdownIt().use(dollarmath_plugin).use(amsmath_plugin)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    texts += [str(cell.metadata.get("mystnb", "")) for cell in notebook.cells]
    blocks = [token for text in texts for token in parser.parse(text)]
    tokens = blocks + [child for block in blocks for child in block.children or []]
    return sum(token.type.startswith(("math_", "amsmath")) for token in tokens)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_mathematics_is_rendered(pages, path):
    page = pages[f"{path.parent.name}/{path.stem}.html"]
    assert page.facts["math"] >= formulas(nbformat.read(path, as_version=4))


def test_there_is_mathematics_to_count():
    """Else the test above proves nothing."""
    assert sum(formulas(nbformat.read(path, as_version=4)) for path in NOTEBOOKS) > 100


# What a reader does


def test_search_finds_pages(browser, base):
    for url in (base, SITE.as_uri() + "/"):
        page, complaints = browser.new_page(), []
        page.on("pageerror", lambda error, to=complaints: to.append(str(error)))
        page.on(
            "console",
            lambda m, to=complaints: to.append(m.text) if m.type == "error" else 0,
        )
        page.goto(url + "search.html?q=variance")
        page.wait_for_selector("#search-results p:has-text('found')")
        links = page.eval_on_selector_all(
            "#search-results li a", "all => all.map(a => a.href)"
        )
        assert any(CHAPTER in link for link in links)
        if url == base:
            page.wait_for_selector("#search-results li:first-child p.context")
        assert complaints == []
        page.close()


def brightness(element):
    """Return the median brightness, from 0 to 255, of what is drawn: that of its paper."""
    return np.median(Image.open(io.BytesIO(element.screenshot())).convert("L"))


def test_the_theme_button_turns_page_and_figures(browser, base):
    for system in ("light", "dark"):
        page = browser.new_page()
        page.emulate_media(color_scheme=system)
        page.goto(base + CHAPTER)
        seen = {}
        for _ in range(3):
            mode = page.evaluate("document.documentElement.dataset.mode")
            article, figure = (
                page.locator(".bd-article h1"),
                page.locator("figure img").first,
            )
            seen[mode] = brightness(article), brightness(figure)
            page.locator("button.theme-switch-button:visible").click()
        assert min(seen["light"]) > 240
        assert max(seen["dark"]) < 40
        assert seen["auto"] == seen[system]
        page.close()


# What has the focus: which of these kinds it is, and whether a reader sees that it has it
KINDS = [
    *("#pst-skip-link", ".search-button__button", ".theme-switch-button"),
    *("nav[aria-label=Main]", ".copybtn", ".toggle-button", "bn-gradient"),
]
FOCUSED = """kinds => {
  const node = document.activeElement, {width, height} = node.getBoundingClientRect();
  const {outlineStyle, outlineWidth, boxShadow, opacity} = getComputedStyle(node);
  const ring = outlineStyle !== "none" && parseFloat(outlineWidth) > 0 || boxShadow !== "none";
  return {
    html: node.outerHTML.split(">")[0],
    kinds: kinds.filter(kind => node.closest(kind)),
    seen: ring && +opacity > 0 && width > 0 && height > 0,
  };
}"""


def walk(browser, url):
    """Press Tab from the top of a page to its end; return what had the focus."""
    page, stops = browser.new_page(), []
    page.emulate_media(reduced_motion="reduce")
    page.goto(url)
    while not stops or not stops[-1]["html"].startswith("<body"):
        assert len(stops) < 500, f"Tab is caught, at {stops[-1]['html']}"
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUSED, KINDS))
    page.close()
    return stops[:-1]


def test_the_keyboard_reaches_everything(browser, base):
    stops = walk(browser, base + "part1/04_gradient.html")
    assert stops[0]["kinds"] == ["#pst-skip-link"]
    assert {kind for stop in stops for kind in stop["kinds"]} == set(KINDS)
    assert [stop["html"] for stop in stops if not stop["seen"]] == []


def test_planted_traps_for_the_keyboard_are_found(browser, copy):
    unseen = (
        "<style>button.copybtn:focus-visible {opacity: 0 !important}</style></head>"
    )
    stops = walk(browser, spoil(copy, "</head>", unseen))
    assert any(not stop["seen"] for stop in stops if ".copybtn" in stop["kinds"])
    with pytest.raises(AssertionError, match="Tab is caught"):
        walk(
            browser,
            spoil(
                copy, "</article>", '<a href="#" onblur="this.focus()">x</a></article>'
            ),
        )


# What the pages are made of


def test_the_style_of_mathematics_has_the_version_of_its_renderer():
    style = (ROOT / "vendor/katex/katex.min.css").read_text()
    assert f'content:"{katex_version}"' in style
    fonts = {
        Path(font).name for font in re.findall(r"url\((fonts/[^)]*woff2)\)", style)
    }
    assert fonts == {font.name for font in (ROOT / "vendor/katex/fonts").iterdir()}


def test_the_picture_is_what_its_script_draws():
    assert picture.TARGET.read_text(encoding="utf-8") == picture.draw()


# Planted faults: each must be found

FAULTS = [
    (
        "</head>",
        '<script src="https://example.com/x.js"></script></head>',
        "another host",
    ),
    ("</head>", '<link rel="stylesheet" href="gone.css"></head>', "cannot load"),
    (
        "</head>",
        "<script>throw new Error('planted')</script></head>",
        "page error: planted",
    ),
    (
        "</head>",
        "<script>console.warn('planted')</script></head>",
        "console warning: planted",
    ),
    ("</article>", r"<p>Divide by \(\sigma\).</p></article>", "raw TeX"),
    ("</article>", "<p>Then $x_1 = 2$.</p></article>", "raw TeX"),
    ("</article>", '<span class="katex-error">x_</span></article>', "could not render"),
    ('class="katex"', 'class="planted"', "formulas without KaTeX"),
    (
        "</article>",
        '<img src="story.svg" alt="story.svg"></article>',
        "alt text of story.svg",
    ),
    (
        "</article>",
        '<img src="story.svg" alt="A picture."></article>',
        "alt text of story.svg",
    ),
    ("</article>", '<p style="width: 900px">wide</p></article>', "wider than a phone"),
    ("</article>", "<h1>Another</h1></article>", "2 headings h1"),
    ("</article>", "<h2>A</h2><h4>B</h4></article>", "h4 follows h2: 'B'"),
    (
        "</body>",
        "<script>setTimeout(() => document.body.prepend(Object.assign("
        "document.createElement('hr'), {style: 'height: 400px'})), 20)</script></body>",
        "the layout shifts",
    ),
]
BARRIERS = [
    ("<button>", "</button>", "button-name"),
    ('<p style="color: #888">', "grey</p>", "color-contrast"),
    ('<p style="color: #444">', "dark</p>", "in the dark"),
    ("<ul>", "<ul><li>x</li></ul></ul>", "list"),
    ("<table><tr><th>", "</th></tr><tr><td>1</td></tr></table>", "empty-table-header"),
    ('<button aria-label="Toggle">', "Show</button>", "label-content-name-mismatch"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Copy the site, with one page that the tests may spoil."""
    site = tmp_path_factory.mktemp("site") / "html"
    shutil.copytree(SITE, site, ignore=shutil.ignore_patterns("_modules", "_sources"))
    shutil.copy(site / "_images/story.svg", site / "part1")
    with serve(site) as url:
        yield site, url


def spoil(copy, old, new):
    """Write a chapter with a fault; return the URL of the page."""
    site, url = copy
    html = (SITE / CHAPTER).read_text(encoding="utf-8")
    assert old in html
    (site / "part1/spoiled.html").write_text(html.replace(old, new), encoding="utf-8")
    return f"{url}part1/spoiled.html"


@pytest.mark.parametrize(
    ("old", "new", "fault"), FAULTS, ids=[new[:40] for _, new, _ in FAULTS]
)
def test_a_planted_fault_is_found(browser, copy, old, new, fault):
    faults = page_faults(look(browser, spoil(copy, old, new)))
    assert any(fault in found for found in faults), faults


def test_planted_barriers_are_found(browser, copy):
    planted = "".join(opening + closing for opening, closing, _ in BARRIERS)
    page = look(browser, spoil(copy, "</article>", planted + "</article>"), LOOKS)
    for *_, fault in BARRIERS:
        assert any(fault in found for found in page_faults(page)), fault


def test_planted_weight_is_found(browser, copy):
    site, _ = copy
    noise = random.Random(1).randbytes(TRANSFER).hex()
    (site / "part1/heavy.js").write_text(f"// {noise}")
    url = spoil(copy, "</head>", '<script src="heavy.js"></script></head>')
    faults = heavy(look(browser, url), site)
    assert re.findall("bytes (?:to|of) [a-z]+", str(faults)) == [
        "bytes to transfer",
        "bytes of scripts",
    ]


@pytest.mark.parametrize("href", ["gone.html", "#gone", "03_transform.html#gone"])
def test_a_planted_broken_link_is_found(browser, copy, href):
    site, url = copy
    spoiled = look(
        browser, spoil(copy, "</article>", f'<a href="{href}">x</a></article>')
    )
    other = look(browser, url + "part1/03_transform.html")
    found = [
        fault for fault in broken_links([spoiled, other], site, url) if "gone" in fault
    ]
    assert len(found) == 1


def test_an_output_that_was_not_stored_is_found(browser, copy):
    site, _ = copy
    notebook = nbformat.read(ROOT / "book/part1/02_moments.ipynb", as_version=4)
    for old, new, fault in [
        ("(100, 6)\n", "(100, 7)\n", "text differs"),
        ("load_sample_image", "load_wine", "code differs"),
        (
            re.search(r"[0-9a-f]{64}\.svg", (SITE / CHAPTER).read_text())[0],
            "story.svg",
            "figures differ",
        ),
    ]:
        page = look(browser, spoil(copy, old, new))
        faults = output_faults(page, notebook, site)
        assert any(fault in found for found in faults), faults


# A book with a fault is not built

SOUND = "# A book\n\nBy {cite:t}`ioffe2015`: $x_1$.\n"
BROKEN = r"""
[A section](#nowhere), {cite}`nobody1900`, ![](gone.svg) and $\nosuchmacro$.

```{eval-rst}
See :py:func:`bnlib.nothing`.
```
"""


def test_a_sound_book_is_built_at_an_odd_path(tmp_path):
    folder = tmp_path / "mein b\u00fcch"
    done = build(folder, SOUND)
    assert done.returncode == 0, done.stderr
    assert 'class="katex"' in (folder / "_build/html/index.html").read_text()


def test_a_broken_book_is_not_built(tmp_path):
    done = build(tmp_path, SOUND + BROKEN)
    assert done.returncode != 0
    for fault in ("nowhere", "nobody1900", "gone.svg", "nosuchmacro", "bnlib.nothing"):
        assert re.search(f"WARNING: .*{fault}", done.stderr), fault
