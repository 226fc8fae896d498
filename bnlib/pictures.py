"""Pictures that more than one chapter draws, in the style of `bnlib.plots`."""

import numpy as np

from bnlib.plots import AFTER, BEFORE, WRONG, points

__all__ = ["strips"]


def strips(ax, channels, *, labels=None, marked=None):
    """Draw each channel as a strip of dots over a bar: its mean, and one deviation to either side.

    Args:
        ax: where to draw.
        channels: `(N, C)`, or a list of C arrays of any lengths.
        labels: one name per channel; default 0, 1, 2 ...
        marked: the row to draw as one large diamond in every strip.

    Returns:
        None. The channels run from top to bottom.
    """
    columns = channels.T if isinstance(channels, np.ndarray) else channels
    scatter = np.random.default_rng(0)
    for row, values in enumerate(columns):
        _bar(ax, row, values.mean(), values.std())
        _dots(ax, values, row + scatter.uniform(-0.22, 0.22, len(values)))
        if marked is not None:
            diamond = points(WRONG) | {"marker": "D", "markersize": 8}
            ax.plot(values[marked], row, **diamond, zorder=4)
    ax.set_yticks(range(len(columns)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


def _bar(ax, row, mean, deviation):
    ends = [mean - deviation, mean + deviation]
    ax.plot(ends, [row, row], color=AFTER, lw=9, alpha=0.35, solid_capstyle="butt")
    ax.plot([mean, mean], [row - 0.3, row + 0.3], color=AFTER, lw=2.5)


def _dots(ax, values, heights):
    few = len(values) <= 20
    look = points(BEFORE) | {"markersize": 4.5 if few else 3, "markeredgewidth": 0}
    ax.plot(values, heights, **look, alpha=0.9 if few else 0.6)
