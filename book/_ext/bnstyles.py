"""One style sheet for all pages, without the rules and the icons that no page uses.

A phone paints nothing before it has every style sheet. There were thirteen files, and most of what
they say is about parts of the theme that this book does not have. Sphinx loads this module (see
`_config.yml`) and calls `setup`.
"""

import hashlib
import itertools
import os
import re
from pathlib import Path

import tinycss2
from fontTools import subset

LINK = re.compile(r'<link\b[^>]*\brel="stylesheet"[^>]*>\n?')
FOR_ALL = re.compile(r'<link\b(?![^>]*\bmedia=)[^>]*\brel="stylesheet"[^>]*>\n?')
GROUPS = ("media", "supports", "layer", "container")  # rules that hold rules


def sheets_of(site, link):
    """List the style sheets that pages link, in the order of the links."""
    found = {}
    for page in sorted(site.rglob("*.html")):
        for tag in link.findall(page.read_text(encoding="utf-8")):
            [address] = re.findall(r'href="([^"?]*)', tag)
            found[(page.parent / address).resolve()] = True
    return list(found)


def read_sheet(path, static):
    """Read a sheet as it would stand in the folder `static`, with what it imports."""

    def moved(match):
        target = Path(os.path.relpath(path.parent / match[1], static))
        return f"url({target.as_posix()})"

    def imported(match):
        return read_sheet((path.parent / match[1]).resolve(), static)

    text = path.read_text(encoding="utf-8")
    text = re.sub(r"""url\(["']?(?!data:|#)([^)"']+)["']?\)""", moved, text)
    return re.sub(r"""@import\s+["']([^"']+)["'];""", imported, text)


def names_in(site):
    """Collect what may be a class or an identifier: from tags, and any word of a script."""
    names = set()
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for said in re.findall(r'\b(?:class|id)="([^"]*)"', text):
            names.update(said.split())
        for script in re.findall(r"<script[^>]*>(.+?)</script>", text, re.DOTALL):
            names.update(re.findall(r"[\w-]+", script))
    for path in site.rglob("*.js"):
        names.update(re.findall(r"[\w-]+", path.read_text(encoding="utf-8")))
    return names


def is_used(selector, names):
    """Tell whether a page may have what a selector asks for.

    Functions such as `:not(.hidden)` are not looked into: what is doubtful stays.
    """
    asked = [token.value for token in selector if token.type == "hash"]
    asked += [
        name.value
        for dot, name in itertools.pairwise(selector)
        if dot == "." and name.type == "ident"
    ]
    return names.issuperset(asked)


def slim(rules, names):
    """Yield the text of the rules that some page may use, and notices of copyright."""
    for rule in rules:
        if rule.type == "qualified-rule":
            groups = itertools.groupby(rule.prelude, lambda token: token == ",")
            selectors = [list(tokens) for is_comma, tokens in groups if not is_comma]
            used = [one for one in selectors if is_used(one, names)]
            if heads := [tinycss2.serialize(selector).strip() for selector in used]:
                yield f"{','.join(heads)}{{{tinycss2.serialize(rule.content).strip()}}}"
        elif rule.type == "at-rule" and rule.lower_at_keyword in GROUPS:
            inner = tinycss2.parse_rule_list(rule.content or [], True, True)
            if body := "\n".join(slim(inner, names)):
                yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{body}}}"
        elif rule.type != "comment" or rule.value.startswith("!"):
            yield rule.serialize()


def draw_only(folder, characters):
    """Keep of each icon font what is drawn with these characters."""
    options = subset.Options(flavor="woff2")
    for path in folder.rglob("fa-*.woff2"):
        subsetter = subset.Subsetter(options)
        subsetter.populate(text=characters)
        with subset.load_font(str(path), options) as font:
            subsetter.subset(font)
            subset.save_font(font, str(path), options)


def bundle(app, exception):
    """Give the built site one style sheet. Those for paper, which no screen awaits, stay apart."""
    site = Path(app.outdir).resolve()
    static = site / "_static"
    target = static / "book.css"
    sheets = [path for path in sheets_of(site, FOR_ALL) if path != target]
    if exception or not sheets:  # each page has been bundled already
        return
    text = "\n".join(read_sheet(path, static) for path in sheets)
    rules = tinycss2.parse_stylesheet(text, skip_whitespace=True)
    text = '@charset "UTF-8";\n' + "\n".join(slim(rules, names_in(site)))
    target.write_text(text, encoding="utf-8")
    version = hashlib.sha256(text.encode()).hexdigest()[:8]
    for page in site.rglob("*.html"):
        here = "../" * (len(page.relative_to(site).parts) - 1)
        link = f'<link rel="stylesheet" href="{here}_static/book.css?v={version}">\n'
        first, *rest = FOR_ALL.split(page.read_text(encoding="utf-8"))
        page.write_text(first + link + "".join(rest), encoding="utf-8")
    for path in set(static.rglob("*.css")) - set(sheets_of(site, LINK)):
        path.unlink()
    draw_only(static, "".join(re.findall("[\ue000-\uf8ff]", text)))


def for_paper_only(app, pagename, templatename, context, doctree):
    """Let no screen wait for the style sheet of the printed page."""
    for style in context["css_files"]:
        if style.filename == "_static/print.css":
            style.attributes["media"] = "print"


def setup(app):
    app.connect("html-page-context", for_paper_only)
    app.connect("build-finished", bundle, priority=900)  # the theme writes a sheet late
    return {"parallel_read_safe": True, "parallel_write_safe": True}
