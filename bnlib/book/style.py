"""The one figure style of the book: colours with roles, narrow figures, readable text.

A colour says what a thing *is*, in every chapter: `BEFORE` normalization or without it, `AFTER` it
or with it, the `TRUTH`, a `WRONG` result, `MUTED` context, `INK` for text and for the one example
that is followed, `GRID` and `PAPER` behind it all. Several of a kind, such as three momentums,
share a colour and differ by `family`. Each colour has a light and a dark shade (figures follow the
reader's theme) and a lightness of its own (they survive a grey print); what draws data has a dash
and a marker.

>>> use()
>>> fig, ax = figure(height=2.5)
>>> _ = ax.plot([0, 1, 2], [0, 1, 4], **line(TRUTH), label="truth")
>>> _ = ax.plot([0, 1, 2], [0, 1, 5], **points(WRONG), label="wrong")
>>> plt.close(fig)
"""

from typing import Any, NamedTuple

from bnlib._extras import needed

with needed("bnlib.book.style", "notebook"):
    import matplotlib as mpl
    import matplotlib.pyplot as plt


from bnlib.book._svg import adaptive_svg

__all__ = [
    "AFTER",
    "BEFORE",
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "ROLES",
    "TRUTH",
    "WRONG",
    "family",
    "figure",
    "line",
    "points",
    "svg",
    "use",
]

# Inches and points: 10.5 pt stays above 9 px when the figure is shown 350 px wide.
WIDTH, HEIGHT = 5.6, 3.2
TEXT, TITLE = 10.5, 11.5  # points


class Role(NamedTuple):
    """How the book draws one kind of thing."""

    light: str
    dark: str
    dash: str | tuple = "-"
    marker: str = ""


ROLES = {
    "BEFORE": Role("#163c98", "#6ca8f5", "-", "o"),
    "AFTER": Role("#b95b00", "#ffb04d", "-", "s"),
    "TRUTH": Role("#005f46", "#7de8c8", (0, (5, 2)), "D"),
    "WRONG": Role("#c1166b", "#ee62a6", (0, (1.2, 1.2)), "X"),
    "MUTED": Role("#868c94", "#727a84", "-", "v"),
    "INK": Role("#1f2328", "#eef2f6", "-", "^"),
    "GRID": Role("#e3e6ea", "#2b323b"),
    "PAPER": Role("#ffffff", "#14181e"),  # the site's own backgrounds
}
BEFORE, AFTER, TRUTH, WRONG, MUTED, INK, GRID, PAPER = (
    role.light for role in ROLES.values()
)

# dash, strength, width
_MEMBERS = [
    ((0, (1, 1.2)), 0.6, 1.6),
    ((0, (5, 2)), 0.75, 1.8),
    ((0, (7, 2, 1.2, 2)), 0.9, 2.0),
    ("-", 1.0, 2.4),
]

_DARK = {role.light: role.dark for role in ROLES.values()}
_DRAWN = {role.light: role for role in ROLES.values() if role.marker}

_STYLE = {
    "figure.figsize": (WIDTH, HEIGHT),
    "figure.constrained_layout.use": True,
    "figure.facecolor": PAPER,
    "figure.labelsize": TEXT,
    "figure.titlesize": TITLE,
    "axes.facecolor": PAPER,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.titlesize": TITLE,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=[BEFORE, AFTER, TRUTH, WRONG]),
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "xtick.labelsize": TEXT,
    "xtick.minor.size": 0,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.labelsize": TEXT,
    "ytick.minor.size": 0,
    "text.color": INK,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine draws the same letters
    "font.size": TEXT,
    "mathtext.fontset": "dejavusans",
    "legend.fontsize": TEXT,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.5,
    "patch.edgecolor": PAPER,
    "patch.force_edgecolor": True,
    "patch.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "bnlib",
}


def use() -> None:
    """Make matplotlib draw in the style of the book from here on."""
    mpl.rcParams.update(_STYLE)


def figure(
    nrows: int = 1, ncols: int = 1, *, height: float = HEIGHT, **options: Any
) -> tuple:
    """Make a figure as wide as the book's column.

    Args:
        nrows: Rows of axes.
        ncols: Columns of axes.
        height: Height in inches.
        **options: Anything else that `matplotlib.pyplot.subplots` takes.

    Returns:
        The figure and its axes, as from `matplotlib.pyplot.subplots`.
    """
    return plt.subplots(nrows, ncols, figsize=(WIDTH, height), **options)


def line(colour: str) -> dict[str, Any]:
    """Say how to draw a line in one of the book's colours.

    Args:
        colour: `BEFORE`, `AFTER`, `TRUTH`, `WRONG`, `MUTED` or `INK`.

    Returns:
        Keyword arguments for `Axes.plot`: colour and dash.
    """
    role = _role(colour)
    return {"color": role.light, "linestyle": role.dash}


def family(colour: str, member: int) -> dict[str, Any]:
    """Say how to draw one of several lines of a kind, such as those of three momentums.

    They share the colour that says what they are, and differ by strength and dash.

    Args:
        colour: as in `line`.
        member: 0, 1, 2 or 3; the last is the strongest.

    Returns:
        Keyword arguments for `Axes.plot`: colour, dash, strength and width.

    Raises:
        ValueError: for another member.
    """
    if member not in range(len(_MEMBERS)):
        raise ValueError(
            f"member must be 0 to {len(_MEMBERS) - 1}; got {member!r}. A figure with more lines "
            "of a kind is hard to read: leave some out."
        )
    dash, alpha, width = _MEMBERS[member]
    look = {"linestyle": dash, "alpha": alpha, "linewidth": width}
    return {"color": _role(colour).light, **look}


def points(colour: str) -> dict[str, Any]:
    """Say how to draw unconnected points in one of the book's colours.

    Args:
        colour: `BEFORE`, `AFTER`, `TRUTH`, `WRONG`, `MUTED` or `INK`.

    Returns:
        Keyword arguments for `Axes.plot`: colour and marker.
    """
    role = _role(colour)
    return {"color": role.light, "linestyle": "none", "marker": role.marker}


def svg(fig: mpl.figure.Figure, alt: str) -> str:
    """Draw a figure as one SVG that follows the reader's light or dark theme.

    Args:
        fig: The figure, drawn with the colours of this module only.
        alt: What the figure shows, for those who do not see it; becomes the SVG's title.

    Returns:
        The `<svg>` element as text; the same figure gives the same bytes.

    Raises:
        ValueError: If the figure uses a colour that has no dark twin, or takes more than 200 kB.
    """
    return adaptive_svg(fig, alt, dark=_DARK, ink=INK)


def _role(colour):
    if colour not in _DRAWN:
        raise ValueError(
            f"colour must be one of bnlib.book.style that draws data; got {colour!r}. "
            "Use style.BEFORE, AFTER, TRUTH, WRONG, MUTED or INK."
        )
    return _DRAWN[colour]
