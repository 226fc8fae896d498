"""A screen needs one style sheet: it says what the sheets said, and nothing that no page needs."""

import re
from pathlib import Path
from types import SimpleNamespace

import pydata_sphinx_theme
import pytest
from building import load_extension
from fontTools.ttLib import TTFont

from tools.server import serve

FONTS = Path(
    pydata_sphinx_theme.__file__,
    "../theme/pydata_sphinx_theme/static/vendor/fontawesome/webfonts",
).resolve()
LINKS = """<link href="{up}_static/styles/theme.css?digest=1" rel="stylesheet" />
<link rel="stylesheet" type="text/css" href="{up}_static/styles/look.css" />
<link media="print" rel="stylesheet" href="{up}_static/print.css?v=2" />
"""
PAGE = """<!doctype html><html data-theme="light"><head><title>Page</title>
{links}<script src="{up}_static/page.js" defer></script></head><body>
<h1 id="top" class="big red">Title</h1><p class="note">Text <i class="icon"></i></p>
<p class="late">Coloured by the last sheet.</p><p id="grown">Grown by a script.</p>
</body></html>"""
SHEETS = {
    "basic.css": ".red {color: rgb(9, 0, 0)} .gone {color: blue}",
    "styles/theme.css": '/* why */ @import "../basic.css";',
    "styles/look.css": """/*! Licence */
@font-face {font-family: Icons; src: url("../fonts/fa-solid-900.woff2") format("woff2")}
.icon:before {font-family: Icons; content: "\\f00c"}
.unused:before {content: "\\f00d"}
.big, .unused .big, .gone {font-size: 40px}
#top {margin: 7px} #nowhere {margin: 8px}
h1:not(.gone) {padding: 3px}
html[data-theme="light"] .note {background: rgb(0, 9, 0) url(data:image/png;base64,AA)}
@media (min-width: 1px) {.grown {color: rgb(0, 0, 9)} .gone {color: blue}}
@media (max-width: 2px) {.gone {color: blue}}
.late {color: rgb(1, 1, 1)}
""",
    "print.css": "#top {color: rgb(2, 2, 2)} .made-for-paper {color: blue}",
    "extra.css": ".late {color: rgb(3, 3, 3)}",
}


def bundle(site):
    bnstyles = load_extension("bnstyles")
    bnstyles.bundle(SimpleNamespace(outdir=str(site)), None)
    return (site / "_static/book.css").read_text()


@pytest.fixture
def site(tmp_path):
    """Write a site of two pages; one, deeper, asks for one sheet more."""
    for name, text in SHEETS.items():
        path = tmp_path / "_static" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "_static/fonts").mkdir()
    font = (FONTS / "fa-solid-900.woff2").read_bytes()
    (tmp_path / "_static/fonts/fa-solid-900.woff2").write_bytes(font)
    (tmp_path / "_static/page.js").write_text(
        'document.querySelector("#grown").classList.add("grown")'
    )
    for name in ("index.html", "part/chapter.html"):
        up = "../" * name.count("/")
        links = LINKS.format(up=up)
        if up:
            links += f'<link rel="stylesheet" href="{up}_static/extra.css">'
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PAGE.format(up=up, links=links))
    return tmp_path


def looks(chromium, site, name):
    """Return what a browser makes of each element: all its computed styles, on screen and paper."""
    with serve(site) as base, chromium.new_page() as page:
        answers = []
        page.on("response", lambda response: answers.append(response.status))
        page.goto(base + name)
        page.wait_for_load_state("networkidle")
        found = []
        for media in ("screen", "print"):
            page.emulate_media(media=media)
            found.append(
                page.evaluate(
                    """() => [...document.querySelectorAll("body, body *")].map(node =>
                    ["", "::before"].map(part => [...getComputedStyle(node, part)].map(
                    name => [name, getComputedStyle(node, part)[name]])))"""
                )
            )
        assert set(answers) == {200}
    return found


def test_every_element_looks_as_before(chromium, site):
    before = looks(chromium, site, "part/chapter.html")
    bundle(site)
    assert looks(chromium, site, "part/chapter.html") == before


def test_each_page_asks_for_one_sheet(site):
    bundle(site)
    for name, up in (("index.html", ""), ("part/chapter.html", "../")):
        text = (site / name).read_text()
        link, paper = re.findall("<link.*", text)
        assert f'href="{up}_static/print.css?v=2"' in paper
        assert re.search(rf'href="{up}_static/book\.css\?v=\w{{8}}"', link)
        assert "<title>Page</title>" in text
        assert "page.js" in text
    assert {path.name for path in site.rglob("*.css")} == {"book.css", "print.css"}


def test_what_no_page_needs_is_left_out(site):
    text = bundle(site)
    for word in ("gone {", "gone,", "unused", "nowhere", "max-width", "why", "@import"):
        assert word not in text
    for word in (".big{", "/*! Licence */", "h1:not(.gone)", ".grown", "data:image"):
        assert word in text


def test_icons_that_no_page_shows_leave_their_font(site):
    path = site / "_static/fonts/fa-solid-900.woff2"
    before = path.stat().st_size
    bundle(site)
    with TTFont(path) as font:
        assert 0xF00C in font.getBestCmap()
        assert 0xF00D not in font.getBestCmap()
    assert path.stat().st_size < before / 20


def test_a_site_built_again_stays_as_it_is(site):
    bundle(site)
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    bundle(site)
    assert {p: p.read_bytes() for p in site.rglob("*") if p.is_file()} == before


def test_a_version_of_the_sheet_has_its_own_address(site):
    bundle(site)
    before = (site / "index.html").read_text()
    style = site / "_static/late.css"
    style.write_text(".late {color: red}")
    (site / "index.html").write_text(
        PAGE.format(up="", links='<link rel="stylesheet" href="_static/late.css">')
    )
    bundle(site)
    after = (site / "index.html").read_text()
    assert re.findall(r"book\.css\?v=\w+", after) != re.findall(
        r"book\.css\?v=\w+", before
    )
