"""What the pages need beyond Jupyter Book: described figures, and half the weight.

Sphinx loads this module (see `_config.yml`) and calls `setup`.
"""

import html
import re
import shutil
from pathlib import Path

from docutils import nodes

SHORT = 24  # characters of code that fit any line
PROSE = (nodes.paragraph, nodes.caption, nodes.emphasis, nodes.strong)
TOGETHER = re.compile(
    r"([−-]?[\d.]+e-\d+|\d-D\b|[\d.]+ %|[\d.]+ to [\d.]+|\((?:[\d,NHWCD]+, )+[\d,NHWCD]*\))"
)


def visit_image(translator, node):
    """Write an `<img>`. A figure brings its own description, themes and size: read them.

    MyST-NB would put a file name into `alt`. The class keeps the theme from painting a light box
    behind figures in the dark. The size lets a browser keep the place free while the figure loads.
    """
    path = Path(translator.builder.srcdir, node["uri"])
    is_svg = path.suffix == ".svg" and path.is_file()
    svg = path.read_text(encoding="utf-8") if is_svg else ""
    if title := re.search(r"<title>(.*?)</title>", svg, re.DOTALL):
        node["alt"] = html.unescape(" ".join(title[1].split()))
    if "prefers-color-scheme: dark" in svg:
        node["classes"].append("dark-light")
    type(translator).visit_image(translator, node)
    if box := re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg):
        unit = 4 / 3 if re.search(r'<svg[^>]* width="[\d.]+pt"', svg) else 1  # pt to px
        width, height = (round(float(side) * unit) for side in box.groups())
        size = f'<img width="{width}" height="{height}" '
        translator.body[-1] = translator.body[-1].replace("<img ", size, 1)


def visit_citation(translator, node):
    """Write an entry of the bibliography as an item of its list; docutils' role is deprecated."""
    type(translator).visit_citation(translator, node)
    translator.body[-1] = translator.body[-1].replace("doc-biblioentry", "listitem")


def visit_entry(translator, node):
    """Write a cell of a table; an empty one in the head is the header of nothing."""
    type(translator).visit_entry(translator, node)
    if translator.context[-1] == "</th>\n" and not node.astext().strip():
        translator.body[-1] = translator.body[-1].replace("<th", "<td", 1)
        translator.context[-1] = "</td>\n"


def depart_entry(translator, node):
    type(translator).depart_entry(translator, node)


def keep_together(app, doctree):
    """Mark what no line break may part: short code, a number and its sign or unit, a shape."""
    for code in doctree.findall(nodes.literal):
        if len(code.astext()) <= SHORT:
            code["classes"].append("together")
    for text in list(doctree.findall(nodes.Text)):
        if not isinstance(text.parent, PROSE):
            continue
        pieces = TOGETHER.split(text)
        for place in range(1, len(pieces), 2):
            pieces[place] = nodes.inline("", pieces[place], classes=["together"])
        if len(pieces) > 1:
            new = [nodes.Text(p) if isinstance(p, str) else p for p in pieces if p]
            text.parent.replace(text, new)


def mend(app, pagename, templatename, context, doctree):
    """Correct what extensions write and screen readers stumble over."""
    body = context.get("body", "")
    # A label hides the words that it stands for.
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    if pagename == "_modules/index":  # a list inside a list belongs to an item of it
        body = body.replace("</li>\n<ul>", "\n<ul>")
        body = re.sub("</ul>(?=<)", "</ul></li>\n", body)
    context["body"] = body


def lighten(app, pagename, templatename, context, doctree):
    """Let scripts wait for the page, and name each style sheet once."""
    styles = {style.filename: style for style in context["css_files"]}
    context["css_files"] = list(styles.values())
    at_once = {"", "_static/documentation_options.js"}  # inline, and what they use
    for script in context["script_files"]:
        script.attributes.pop("defer", None)  # pages share these objects
        if script.filename not in at_once and pagename != "search":
            script.attributes["defer"] = "defer"


def prune(app, exception):
    """Delete half of the site: files of the theme that no page loads. See also bnstyles."""
    patterns = ["*.map", "*.ttf", "*macros.html", "fontawesome.js*"]
    for pattern in patterns:
        for path in Path(app.outdir, "_static").rglob(pattern):
            path.unlink()
    shutil.rmtree(Path(app.outdir, "_static/locales"), ignore_errors=True)


def setup(app):
    app.add_node(nodes.image, override=True, html=(visit_image, None))
    app.add_node(nodes.citation, override=True, html=(visit_citation, None))
    app.add_node(nodes.entry, override=True, html=(visit_entry, depart_entry))
    app.connect("doctree-read", keep_together)
    app.connect("html-page-context", mend)
    app.connect("html-page-context", lighten)
    app.connect("build-finished", prune)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
