"""Fold what a reader need not see at first: cells that check, and the library's own source.

A cell tagged `checked` only asserts. On the page it is a small mark that opens. A cell tagged
`hardened` shows how the library does what the chapter has just done in a few lines.
"""

from docutils import nodes

PROMPTS = {
    "checked": "checked",
    "hardened": "The same, hardened: bnlib's own code",
}


def fold_cells(app, doctree):
    """Hide the tagged cells as MyST-NB hides those with `hide-cell`, under words of their own."""
    for cell in doctree.findall(nodes.container):
        for tag, words in PROMPTS.items():
            if f"tag_{tag}" in cell["classes"]:
                cell["hide_mode"] = "all"
                cell["prompt_show"] = cell["prompt_hide"] = words


def setup(app):
    app.connect("doctree-read", fold_cells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
