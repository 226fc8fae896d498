"""List the Chinese words of the glossary in the index."""

import re

from docutils import nodes


def index_chinese(app, doctree):
    """List the Chinese words of the glossary in the index, under one heading."""
    index = app.env.get_domain("index").entries
    for term in doctree.findall(nodes.term):
        definition = term.next_node(nodes.definition, descend=False, siblings=True)
        if not (term["ids"] and definition):
            continue
        for words in re.findall(r'<span lang="zh">(.*?)</span>', definition.astext()):
            entry = f"{words} ({term.astext()})"
            index[app.env.docname].append(("single", entry, term["ids"][0], "", "中文"))


def setup(app):
    app.connect("doctree-read", index_chinese)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
