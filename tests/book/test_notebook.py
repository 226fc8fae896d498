"""What a chapter shows: one adaptive figure, source without essays, tables of three digits."""

import ast
import collections
import fractions
import inspect
import io
import os
import subprocess
import sys
import textwrap
import tokenize
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from bnlib import Moments, axes
from bnlib.book import notebook, style
from bnlib.book.notebook import show, show_source, show_table

ALT = "A line that rises from 0 to 1."


@pytest.fixture
def shown(monkeypatch):
    """Collect what is shown, as a notebook would."""
    collected = []
    monkeypatch.setattr(notebook, "_publish", collected.append)
    return collected


@pytest.fixture(autouse=True)
def close_figures():
    with mpl.rc_context():
        style.use()
        yield
    plt.close("all")


# setup


def test_setup_is_silent_and_keeps_the_readers_choices():
    code = (
        "import os, bnlib.book.notebook as n; n.setup(); import matplotlib as m;"
        "assert m.rcParams['svg.hashsalt'] == 'bnlib';"
        "assert os.environ['TF_CPP_MIN_LOG_LEVEL'] == '1';"
        "assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == '0'"
    )
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("TF_")
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# show


def a_figure():
    fig, ax = style.figure()
    ax.plot([0, 1], [0, 1], **style.line(style.TRUTH))
    return fig


def test_show_gives_one_svg_with_its_description_and_closes_the_figure(shown):
    fig = a_figure()
    assert show(fig, "A line\n    that rises from 0 to 1.") is None
    (output,) = shown
    assert output.keys() == {"image/svg+xml", "text/plain"}
    assert output["text/plain"] == ALT
    assert f"<title>{ALT}</title>" in output["image/svg+xml"]
    assert not plt.fignum_exists(fig.number)


@pytest.mark.parametrize("alt", ["", "A line.", " " * 40, "x" * 19, "x" * 301])
def test_show_asks_for_a_description(shown, alt):
    with pytest.raises(
        ValueError, match=r"text of 20 to 300 characters; got \d+\. Say what"
    ):
        show(a_figure(), alt)
    assert shown == []


@pytest.mark.parametrize("alt", ["x" * 20, "x" * 300])
def test_show_takes_short_and_long_descriptions(shown, alt):
    show(a_figure(), alt)
    assert len(shown) == 1


def test_show_requires_a_description():
    with pytest.raises(TypeError, match="alt"):
        show(a_figure())


def test_outside_a_notebook_the_plain_form_is_printed(capsys):
    show(a_figure(), ALT)
    assert capsys.readouterr().out == f"{ALT}\n"


# show_source


class Pair(NamedTuple):
    """Two numbers.

    They belong together.
    """

    first: float  # the one
    second: float

    def total(self):
        """Add — the two.

        It takes a while to say more.
        """
        note = """Not
        a docstring."""
        return self.first + self.second, note


SHORT_PAIR = '''
class Pair(NamedTuple):
    """Two numbers."""

    first: float  # the one
    second: float

    def total(self):
        """Add — the two."""
        note = """Not
        a docstring."""
        return self.first + self.second, note
'''.strip()


def test_docstrings_are_cut_to_their_first_line(shown):
    show_source(Pair)
    assert shown == [
        {"text/markdown": f"```python\n{SHORT_PAIR}\n```", "text/plain": SHORT_PAIR}
    ]


def test_several_objects_are_joined(shown):
    show_source(close_figures, a_figure)
    code = shown[0]["text/plain"]
    assert code.startswith("@pytest.fixture(autouse=True)\ndef close_figures")
    assert '    plt.close("all")\n\ndef a_figure():' in code


def test_a_method_is_shown_at_the_margin(shown):
    show_source(Pair.total)
    assert shown[0]["text/plain"] == textwrap.dedent(
        SHORT_PAIR[SHORT_PAIR.index("    def") :]
    )


def has_ticks():
    """Show a ```fence```."""


def test_a_fence_inside_the_code_does_not_end_it(shown):
    show_source(has_ticks)
    assert shown[0]["text/markdown"].startswith("````python\ndef")
    assert shown[0]["text/markdown"].endswith("\n````")


@pytest.mark.parametrize("thing", [3.5, "moments", None, len, Moments(0, 1, 2)])
def test_what_has_no_source_is_refused(thing):
    with pytest.raises(
        TypeError,
        match=r"functions, classes or modules .* of type \w+\. Pass the function",
    ):
        show_source(thing)


def test_nothing_is_refused():
    with pytest.raises(TypeError, match=r"as in show_source\(moments\)"):
        show_source()


DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def take_docstrings(tree):
    """Empty the docstrings of a tree and return them."""
    nodes = [
        n for n in ast.walk(tree) if isinstance(n, DOCUMENTED) and ast.get_docstring(n)
    ]
    docs = [ast.get_docstring(node) for node in nodes]
    for node in nodes:
        node.body[0].value.value = ""
    return docs


def comments(code):
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


@pytest.mark.parametrize(
    "module",
    [axes, notebook, style, ast, collections, fractions, np.linalg._linalg, textwrap],
    ids=lambda module: module.__name__,
)
def test_only_docstrings_are_altered(shown, module):
    show_source(module)
    long, short = inspect.getsource(module), shown[0]["text/plain"]
    before, after = ast.parse(long), ast.parse(short)
    docs = take_docstrings(before)
    assert take_docstrings(after) == [doc.splitlines()[0].strip() for doc in docs]
    assert ast.dump(after) == ast.dump(before)
    assert comments(short) == comments(long)
    assert any("\n" in doc for doc in docs)


# show_table


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (1.0, "1.00"),
        (0.5, "0.500"),
        (-3.14159, "−3.14"),
        (1234.5, "1,230"),
        (999.99, "1,000"),
        (123456.0, "123,000"),
        (999999.0, "1.00e+06"),
        (1e25, "1.00e+25"),
        (0.00012345, "0.000123"),
        (9.999e-5, "0.000100"),
        (1.2345e-5, "1.23e-05"),
        (5e-324, "4.94e-324"),
        (0.0, "0"),
        (-0.0, "0"),
        (float("nan"), "nan"),
        (float("-inf"), "−inf"),
        (np.float32(0.1), "0.100"),
        (np.float16(1.5), "1.50"),
        (7, "7"),
        (-(10**30), "−1" + ",000" * 10),
        (np.int64(12345678), "12,345,678"),
        (True, "True"),
        (np.bool_(False), "False"),
        ("two\n  lines", "two lines"),
        (None, "None"),
    ],
)
def test_cells(shown, value, written):
    show_table(["x"], [[value]])
    assert shown[0]["text/plain"].splitlines()[1].strip() == written


def test_table_in_both_forms(shown):
    show_table(["variance of |x|", "method"], ([1.0, "one|pass"], [-1234, r"$\|x\|$"]))
    assert shown == [
        {
            "text/markdown": "| variance of \\|x\\| | method |\n"
            "| --: | :-- |\n"
            "| 1.00 | one\\|pass |\n"
            "| −1,234 | $\\\\|x\\\\|$ |",
            "text/plain": "variance of |x|  method\n"
            "           1.00  one|pass\n"
            "         −1,234  $\\|x\\|$",
        }
    ]


def test_a_column_with_words_is_aligned_left(shown):
    show_table(["n", "b"], [[1, True], ["many", False]])
    assert shown[0]["text/markdown"].splitlines()[1] == "| :-- | :-- |"


def test_a_table_without_rows_shows_its_headers(shown):
    show_table(["a", "b"], [])
    assert shown[0]["text/plain"] == "a  b"


def test_a_row_of_the_wrong_length_is_refused(shown):
    with pytest.raises(
        ValueError, match=r"rows must have 2 cells.*got 3 in row 1: \[4, 5, 6\]"
    ):
        show_table(["a", "b"], [[1, 2], [4, 5, 6]])
    assert shown == []
