"""What a chapter shows: figures, tables, and the library's own source.

>>> setup()
>>> show_table(["method", "variance"], [["two passes", 1.0], ["one pass", -0.0123456]])
method      variance
two passes      1.00
one pass     −0.0123
"""

import ast
import inspect
import json
import math
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from importlib import resources
from numbers import Integral, Real
from typing import Any

from bnlib._extras import needed

with needed("bnlib.book.notebook", "notebook"):
    import matplotlib.pyplot as plt
    from IPython import get_ipython
    from IPython.display import display


from bnlib.book import style

__all__ = ["setup", "show", "show_source", "show_table", "span", "stored"]

# Makes TensorFlow write less to stderr; each of the two silences what the other lets through.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}


def setup() -> None:
    """Prepare a notebook: the book's figure style, and a quieter TensorFlow later on."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    style.use()


# Figures


def show(fig: plt.Figure, alt: str) -> None:
    """Show a figure as one SVG that follows the reader's light or dark theme, and close it.

    Args:
        fig: The figure, drawn with the colours of `bnlib.book.style`.
        alt: One or two sentences that say what the figure shows, for those who do not see it.

    Raises:
        ValueError: If `alt` has fewer than 20 or more than 300 characters, or the figure uses a
            colour that has no dark twin, or it takes more than 200 kB.
    """
    alt = " ".join(alt.split())
    if not 20 <= len(alt) <= 300:
        raise ValueError(
            f"alt must be a text of 20 to 300 characters; got {len(alt)}. Say what a reader "
            'should see, as in show(fig, "The mean drifts, the variance stays near 1.").'
        )
    svg = style.svg(fig, alt)
    plt.close(fig)
    _publish({"image/svg+xml": svg, "text/plain": alt})


# Source


def show_source(*objects: Any) -> None:
    """Show the source of functions, classes or modules, docstrings cut to their first line.

    Args:
        *objects: Functions, classes or modules written in Python.

    Raises:
        TypeError: If there is nothing to show, or an object has no Python source.
    """
    if not objects:
        raise TypeError(
            "objects must be at least one; got none. Say what to show, as in show_source(moments)."
        )
    code = "\n\n".join(_source(each) for each in objects)
    fence = "````" if "```" in code else "```"
    _publish({"text/markdown": f"{fence}python\n{code}\n{fence}", "text/plain": code})


def _source(each):
    """Return the source of one object, ready to show."""
    try:
        code = inspect.getsource(each)
    except (TypeError, OSError) as error:
        raise TypeError(
            f"objects must be functions, classes or modules written in Python; got {each!r:.60} "
            f"of type {type(each).__name__}. Pass the function itself: show_source(f), not "
            "show_source(f(x))."
        ) from error
    if code[0].isspace():  # a method
        code = textwrap.dedent(code)
    return _shorten_docstrings(code).strip("\n")


def _shorten_docstrings(code):
    """Cut each docstring to its first line and leave every other character as it is."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, documented)]
    docs = [node.body[0].value for node in nodes if ast.get_docstring(node)]
    lines = code.encode().splitlines(keepends=True)  # ast counts columns in bytes
    for doc in sorted(docs, key=lambda doc: doc.lineno, reverse=True):
        start, end = doc.lineno - 1, doc.end_lineno - 1
        before, after = lines[start][: doc.col_offset], lines[end][doc.end_col_offset :]
        text = ast.get_source_segment(code, doc)
        lines[start : end + 1] = [before + _first_line(text).encode() + after]
    return b"".join(lines).decode()


def _first_line(literal):
    """Cut a string literal, quotes and all, to its first line of text."""
    literal_parts = re.compile(r"""(\w*)(\"{3}|'{3}|"|')(.*)\2""", re.DOTALL)
    opening, quotes, text = literal_parts.fullmatch(literal).groups()
    first = text.removeprefix("\\\n").strip().splitlines()[0].rstrip()
    space = " " if first.endswith((quotes[0], "\\")) else ""
    return opening + quotes + first + space + quotes


# Tables


def show_table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Show a table; numbers that are not integers get three significant digits.

    Args:
        headers: One title per column; Markdown and `$formulas$` are rendered.
        rows: One sequence of cells per row, as many as there are headers.

    Raises:
        ValueError: If a row has more or fewer cells than there are headers.
    """
    rows = [list(row) for row in rows]
    for place, row in enumerate(rows):
        if len(row) != len(headers):
            raise ValueError(
                f"rows must have {len(headers)} cells, one per header; got {len(row)} in row "
                f"{place}: {row!r}"
            )
    right = [
        all(_is_number(row[place]) for row in rows) for place in range(len(headers))
    ]
    cells = [[_cell(value) for value in row] for row in [headers, *rows]]
    _publish(
        {"text/markdown": _markdown(cells, right), "text/plain": _aligned(cells, right)}
    )


def span(values: Iterable[float], digits: int = 2) -> str:
    """Write the range of some values, such as those of several seeds.

    Args:
        values: At least one number.
        digits: Behind the decimal point.

    Returns:
        "low to high", or the one number where both are written alike.

    >>> span([0.912, 0.934, 0.967])
    '0.91 to 0.97'
    >>> span([97.6, 98.2], 0)
    '98'
    """
    values = list(values)
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


# Stored runs


def stored(name: str) -> dict[str, Any]:
    """Read runs that were stored: too many to repeat in a notebook, or too chaotic.

    Args:
        name: Of a file in `bnlib/book/sweeps`, and of the script in `benchmarks` that wrote it.

    Returns:
        What the script wrote, with the `day` and the `surroundings` of the runs.

    >>> stored("network")["runs"][0]["activation"]
    'tanh'
    """
    sweeps = resources.files("bnlib.book") / "sweeps"
    return json.loads((sweeps / f"{name}.json").read_text(encoding="utf-8"))


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)


def _cell(value):
    """Write one value; integers in full, other numbers with three significant digits."""
    if not _is_number(value):
        return " ".join(str(value).split())
    if isinstance(value, Integral):
        text = f"{value:,}"
    elif value == 0 or not math.isfinite(value):
        text = f"{value + 0:g}"  # without the sign of -0.0
    else:
        text = f"{float(value):.2e}"
        exponent = int(text.partition("e")[2])
        if -5 < exponent < 6:
            text = f"{float(text):,.{max(2 - exponent, 0)}f}"
    return re.sub("^-", "−", text)


def _markdown(cells, right):
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in cells]
    lines.insert(1, " | ".join("--:" if numeric else ":--" for numeric in right))
    return "\n".join(f"| {line} |" for line in lines)


def _aligned(cells, right):
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligns = [">" if numeric else "<" for numeric in right]
    rows = [
        [f"{c:{a}{w}}" for c, a, w in zip(row, aligns, widths, strict=True)]
        for row in cells
    ]
    return "\n".join("  ".join(row).rstrip() for row in rows)


def _publish(data):
    """Send all forms to the notebook; outside of one, print the plain form."""
    if get_ipython() is None:
        print(data["text/plain"])  # noqa: T201
    else:
        display(data, raw=True)
