"""Put the explorables into the pages: where a still picture stands alone, its widget comes to life.

A chapter holds nothing but an image from `_static/explorables/`, so it reads well in a notebook.
Here the paragraph around the image NAME.svg becomes the element <bn-NAME>, with the image inside
for readers without scripts and for paper. Only such pages load the script and its style sheet.
"""

from pathlib import PurePosixPath

from docutils import nodes

ASSETS = ("_static/explorables.js", "_static/explorables.css")


class explorable(nodes.General, nodes.Element):  # noqa: N801, as docutils names its nodes
    """One widget, with its still picture inside."""


def visit_explorable(translator, node):
    name = node["name"]
    translator.body.append(f'<bn-{name} id="explorable-{name}">')


def depart_explorable(translator, node):
    translator.body.append(f"</bn-{node['name']}>\n")


def bring_to_life(app, doctree):
    """Replace each paragraph that holds a still picture; its words are for notebooks."""
    for image in list(doctree.findall(nodes.image)):
        path = PurePosixPath(image["uri"])
        if path.parent.name == "explorables" and path.suffix == ".svg":
            image["classes"].append("still")
            widget = explorable("", image.deepcopy(), name=path.stem)
            image.parent.replace_self(widget)


def load_where_needed(app, pagename, templatename, context, doctree):
    """Jupyter Book would load every script below _static on every page."""
    if doctree is not None and doctree.next_node(explorable):
        return
    for kind in ("script_files", "css_files"):
        context[kind] = [file for file in context[kind] if file.filename not in ASSETS]


def setup(app):
    app.add_node(explorable, html=(visit_explorable, depart_explorable))
    app.connect("doctree-read", bring_to_life, priority=400)
    app.connect("html-page-context", load_where_needed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
