"""What a tool has found: rows of one kind, as text, as a table, in a notebook, and as JSON."""

import dataclasses
import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

__all__ = ["LEVELS", "Report", "Row"]

LEVELS = ("ok", "info", "warning", "error")
STYLES = {"ok": "green", "info": "cyan", "warning": "yellow", "error": "bold red"}


@dataclass(frozen=True)
class Row:
    """One line of a report; each tool has its own kind.

    Attributes:
        level: one of `LEVELS`: how bad it is.
        columns: the names of the attributes that a table shows, in order.
    """

    level: str
    columns: ClassVar[tuple[str, ...]] = ("level",)

    def __post_init__(self) -> None:
        """Check the level.

        Raises:
            ValueError: for a level that there is not.
        """
        _check(self.level)


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Report(Generic[R]):
    """What a tool has found. It has a length, and its rows can be walked.

    `print(report)` writes plain text, `rich.print(report)` a table; a notebook shows a table.

    Attributes:
        title: what was done, to what.
        rows: the rows.
        notes: sentences about the whole, such as how many examples were used.

    >>> report = Report("audit of 'net'", (Row("error"), Row("info")), ("2 layers.",))
    >>> len(report), report.worst, len(report.at_least("warning"))
    (2, 'error', 1)
    """

    title: str
    rows: tuple[R, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        """Walk the rows."""
        return iter(self.rows)

    def __bool__(self) -> bool:
        """Say True: a report without rows is still one."""
        return True

    @property
    def worst(self) -> str:
        """The worst level among the rows; "ok" when there are none."""
        return max((row.level for row in self.rows), key=LEVELS.index, default="ok")

    def at_least(self, level: str) -> tuple[R, ...]:
        """Return the rows of this level, and of worse ones.

        Args:
            level: one of `LEVELS`.

        Returns:
            The rows, in their order.

        Raises:
            ValueError: for a level that there is not.
        """
        least = _check(level)
        return tuple(row for row in self.rows if LEVELS.index(row.level) >= least)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole as dicts, lists, strings and plain numbers.

        Returns:
            A dict with "title", "rows" and "notes".
        """
        rows = [_plain(dataclasses.asdict(row)) for row in self.rows]
        return {"title": self.title, "rows": rows, "notes": list(self.notes)}

    def to_json(self) -> str:
        """Return the whole as JSON; NaN and infinities become the words "nan", "inf", "-inf".

        Returns:
            The text, indented.
        """
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def __str__(self) -> str:
        """Write title, table and notes as plain text."""
        lines = [self.title]
        widths = [max(map(len, column)) for column in zip(*self._cells(), strict=True)]
        for cells in self._cells() if self.rows else ():
            padded = (c.ljust(w) for c, w in zip(cells, widths, strict=True))
            lines.append("  " + "  ".join(padded).rstrip())
        return "\n".join([*lines, *self.notes])

    def _cells(self):
        """Return the heads and the rows of the table, as strings."""
        names = self.rows[0].columns if self.rows else ()
        heads = [name.replace("_", " ") for name in names]
        return [heads, *([_text(getattr(r, n)) for n in names] for r in self.rows)]

    def _repr_html_(self) -> str:
        heads, *rows = self._cells()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>"
            for cells in rows
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        title = f"<p><strong>{html.escape(self.title)}</strong></p>"
        return title + (table if rows else "") + notes

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """Draw the report in a terminal, by Rich."""
        from rich.table import Column, Table
        from rich.text import Text

        heads, *rows = self._cells()
        columns = (Column(name, overflow="fold") for name in heads)
        table = Table(*columns, title=self.title, title_justify="left")
        for row, cells in zip(self.rows, rows, strict=True):
            table.add_row(*map(Text, cells), style=STYLES[row.level])
        yield table if rows else Text(self.title)
        yield from map(Text, self.notes)


def _check(level):
    """Return the place of a level, or say which ones there are."""
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}.")
    return LEVELS.index(level)


def _text(value):
    """Write one cell: floats with three digits."""
    if value is None:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.3g}"
    return str(value)


def _plain(value):
    """Turn what a row holds into what JSON has."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if callable(value):
        return value.__name__
    return value
