"""Reports: levels, order, what is written for people and for programs."""

import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from bnlib.reports import LEVELS, Report, Row


@dataclass(frozen=True)
class Found(Row):
    columns: ClassVar[tuple[str, ...]] = ("level", "layer", "off_by")
    layer: str
    off_by: Any
    hidden: Any = None


ROWS = (
    Found("warning", "a/bn", np.float32(0.12345), {"mean": np.arange(2)}),
    Found("error", "b", float("nan"), (np.int64(3), None, True)),
    Found("ok", "<c> [d]", None),
)
REPORT = Report("audit of 'x'", ROWS, ("3 layers.", "No data."))


def test_it_is_a_sequence_with_a_worst_row():
    assert len(REPORT) == 3
    assert [row.layer for row in REPORT] == ["a/bn", "b", "<c> [d]"]
    assert REPORT.worst == "error"
    assert Report("none").worst == "ok"
    assert Report("none")  # true without rows


@pytest.mark.parametrize(
    ("level", "count"), list(zip(LEVELS, (3, 2, 2, 1), strict=True))
)
def test_at_least(level, count):
    assert len(REPORT.at_least(level)) == count


def test_levels_that_there_are_not():
    with pytest.raises(ValueError, match="ok, info, warning, error; got 'fatal'"):
        REPORT.at_least("fatal")
    with pytest.raises(ValueError, match="got 'bad'"):
        Found("bad", "x", 1)


def test_as_text():
    assert str(REPORT).splitlines() == [
        "audit of 'x'",
        "  level    layer    off by",
        "  warning  a/bn     0.123",
        "  error    b        nan",
        "  ok       <c> [d]",
        "3 layers.",
        "No data.",
    ]
    assert str(Report("nothing found", (), ("a note",))) == "nothing found\na note"


def test_as_json():
    read = json.loads(REPORT.to_json())
    assert read["title"] == "audit of 'x'"
    assert read["notes"] == ["3 layers.", "No data."]
    first, second, _ = read["rows"]
    assert first["hidden"] == {"mean": [0, 1]}
    assert first["off_by"] == pytest.approx(0.12345)
    assert second["off_by"] == "nan"
    assert second["hidden"] == [3, None, True]


def test_in_a_notebook_nothing_is_taken_for_markup():
    page = REPORT._repr_html_()
    assert "&lt;c&gt; [d]" in page
    assert page.count("<tr>") == 4
    assert "<table" not in Report("none")._repr_html_()


def test_in_a_terminal_nothing_is_taken_for_markup():
    console = pytest.importorskip("rich.console")
    for report, words in (
        (REPORT, "<c> [d]"),
        (Report("none", (), ("[note]",)), "[note]"),
    ):
        screen = console.Console(width=60, file=io.StringIO())
        screen.print(report)
        assert words in screen.file.getvalue()
