"""Read the library's docstrings as they are written: Google style, Markdown tables, plain formulas.

Sphinx takes docstrings for reStructuredText. Its own extension napoleon translates the sections;
what is left is translated here.
"""

from collections import _tuplegetter
from itertools import groupby


def translate(app, what, name, obj, options, lines):
    """Turn Markdown tables and indented formulas into reStructuredText, in place."""
    translated = []
    for is_table, rows in groupby(lines, key=lambda line: line.startswith("|")):
        block = list(rows)
        translated += list_table(block) if is_table else literal_formulas(block)
    lines[:] = translated


def list_table(rows):
    """Return the directive for a Markdown table."""
    directive = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        if not set(row) <= set("|-: "):
            first, *others = (cell.strip() for cell in row.strip("|").split("|"))
            directive += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return directive


def literal_formulas(lines):
    """Keep the line breaks of formulas, which stand indented below a paragraph."""
    for i in reversed(range(2, len(lines))):
        above, gap, line = lines[i - 2 : i + 1]
        if line.startswith("    ") and not gap and above and not above.startswith(" "):
            lines[i:i] = [".. code-block:: text", ""]
    return lines


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the fields of a NamedTuple: its docstring's `Attributes:` describe them."""
    return skip or isinstance(obj, _tuplegetter)


def setup(app):
    app.connect("autodoc-process-docstring", translate, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_tuple_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
