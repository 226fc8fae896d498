"""Figures that chapters call by name, in the style of `bnlib.book.style`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bnlib._extras import needed

with needed("bnlib.book.figures", "notebook"):
    from matplotlib.axes import Axes
    from matplotlib.patches import FancyArrowPatch, PathPatch
    from matplotlib.path import Path


from bnlib._typing import Axis
from bnlib.axes import layout
from bnlib.book.style import AFTER, BEFORE, GRID, INK, MUTED, PAPER, line, points

__all__ = ["averaged", "graph", "ridges", "strips"]


def strips(
    ax: Axes,
    channels: np.ndarray | Sequence[np.ndarray],
    *,
    labels: Sequence[str] | None = None,
    marked: int | None = None,
) -> None:
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
            diamond = points(INK) | {"marker": "D", "markersize": 8}
            ax.plot(values[marked], row, **diamond, zorder=4)
    ax.set_yticks(range(len(columns)), labels)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)


def ridges(
    ax: Axes,
    rows: Sequence[np.ndarray],
    edges: Sequence[float] | np.ndarray,
    *,
    color: str,
    labels: Sequence[str] | None = None,
) -> None:
    """Draw one histogram per row, each scaled to its own highest bar.

    Args:
        ax: where to draw.
        rows: arrays of any shape, the first at the top.
        edges: of the bins; what lies outside is not drawn.
        color: of the histograms.
        labels: one name per row; default 1, 2, 3 ...

    Returns:
        None.
    """
    for row, values in enumerate(rows):
        counts, _ = np.histogram(values, edges)
        heights = row - 0.85 * counts / max(counts.max(), 1)
        ax.stairs(heights, edges, baseline=row, fill=True, color=color)
        ax.axhline(row, color=MUTED, lw=0.6)
    ax.set_yticks(range(len(rows)), labels or range(1, len(rows) + 1))
    ax.set(xlim=(edges[0], edges[-1]), ylim=(len(rows) - 0.9, -1))
    ax.grid(axis="y", visible=False)


def _bar(ax, row, mean, deviation):
    ends = [mean - deviation, mean + deviation]
    ax.plot(ends, [row, row], color=AFTER, lw=9, alpha=0.35, solid_capstyle="butt")
    ax.plot([mean, mean], [row - 0.3, row + 0.3], color=AFTER, lw=2.5)


def _dots(ax, values, heights):
    few = len(values) <= 20
    look = points(BEFORE) | {"markersize": 4.5 if few else 3, "markeredgewidth": 0}
    ax.plot(values, heights, **look, alpha=0.9 if few else 0.6)


def averaged(
    ax: Axes,
    shape: Sequence[int],
    axis: Axis = -1,
    *,
    channel: int = -1,
    groups: int | None = None,
    parts: int | None = None,
    location: Sequence[int] | None = None,
    colour: str = AFTER,
) -> None:
    """Draw an array as a table of feature maps, and colour the values that share one mean.

    One row per example, one column per channel, one square per value. A sequence is one row of
    squares, a volume is its slices side by side.

    Args:
        ax: where to draw.
        shape: `(N, ..., C)`, or another order with `channel`; none to three axes of space.
        axis: the axes kept, as in `layout`.
        channel: which axis of `shape` holds the channels.
        groups: also keep apart this many groups of channels, as group norm does.
        parts: also keep apart this many parts of the batch, as ghost batch norm does.
        location: a place in the map, for example `(h, w)`, dotted in every coloured map.
        colour: of the values that share one mean.

    Returns:
        None.
    """
    maps = _as_maps(_one_set(shape, axis, channel, groups, parts), channel)
    for fill, chosen in ((GRID, np.ones_like(maps)), (colour, maps)):
        columns = _outline(_columns(chosen))
        ax.add_patch(PathPatch(columns, facecolor=fill, edgecolor=PAPER, lw=0.8))
    if location is not None:
        here = np.zeros_like(maps)
        here[:, :, *(0, 0, *location)[-3:]] = True
        x, y, _, _ = _columns(here & maps).T
        ax.plot(x + 0.5, y + 0.5, "o", color=PAPER, markersize=6)
    _finish_maps(ax, maps.shape)


def _one_set(shape, axis, channel, groups, parts):
    """Mark the values that are averaged together with the one in the middle of the array."""
    places = np.indices(shape, sparse=True)
    middle = [n // 2 for n in shape]
    same = np.ones(shape, dtype=bool)
    for a in layout(shape, axis).axis:
        same &= places[a] == middle[a]
    for cut, number in ((channel, groups), (0, parts)):
        if number is not None:
            size = shape[cut] // number
            same &= places[cut] // size == middle[cut] // size
    return same


def _as_maps(mask, channel):
    """Bring an array of any rank to `(N, C, D, H, W)`."""
    maps = np.moveaxis(mask, channel, 1)
    n, c, *space = maps.shape
    return maps.reshape(n, c, *(1, 1, 1, *space)[-3:])


def _pitch(shape):
    """Say how far it is from one map, and one slice, to the next: `(down, right, slice)`."""
    *_, depth, height, width = shape
    return height + 0.8, depth * (width + 0.5) + 0.6, width + 0.5


def _columns(chosen):
    """Place the marked run in each column of each map: rows of `x, y, width, height`.

    A map has far fewer columns than squares, and a figure must be small.
    """
    down, right, beside = _pitch(chosen.shape)
    n, c, d, w = np.nonzero(chosen.any(axis=3))
    runs = chosen[n, c, d, :, w]
    x, y = c * right + d * beside + w, n * down + runs.argmax(axis=1)
    return np.stack([x, y, np.ones(len(n)), runs.sum(axis=1)], axis=-1)


def _outline(rectangles):
    """Join rectangles into one path."""
    around = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    vertices = rectangles[:, np.newaxis, :2] + rectangles[:, np.newaxis, 2:] * around
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    return Path(vertices.reshape(-1, 2), np.tile(codes, len(rectangles)))


def _finish_maps(ax, shape):
    """Cut the columns into squares, and number examples and channels."""
    (n, c, _, height, _), (down, right, _) = shape, _pitch(shape)
    cuts = np.add.outer(np.arange(n) * down, range(1, height)).ravel()
    ax.hlines(cuts, 0, c * right, color=PAPER, lw=0.8)
    ax.set_xticks(np.arange(c) * right + (right - 1.1) / 2, range(c))
    ax.set_yticks(np.arange(n) * down + height / 2, range(n))
    ax.set(xlim=(-0.2, c * right - 0.9), ylim=(n * down - 0.6, -0.2), aspect="equal")
    ax.set(xlabel="channel", ylabel="example")
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def graph(
    ax: Axes,
    boxes: Mapping[str, Any],
    arrows: Iterable[tuple[str, str, str | Mapping[str, Any]]],
    *,
    shaded: Collection[str] = (),
) -> None:
    """Draw a computational graph: boxes with text, and arrows between them.

    Args:
        ax: where to draw; its limits are yours to set.
        boxes: name of each box: `(x, y, text)`.
        arrows: `(from, to, look)` each: a colour of `bnlib.book.style` that draws data, or what
            `style.family` says, for several paths of a kind.
        shaded: the names of the boxes to fill.

    Returns:
        None.
    """
    frames = {}
    for name, (x, y, text) in boxes.items():
        fill = GRID if name in shaded else PAPER
        frame = {"boxstyle": "round,pad=0.35", "fc": fill, "ec": MUTED, "lw": 1}
        drawn = ax.text(x, y, text, ha="center", va="center", bbox=frame, zorder=3)
        frames[name] = drawn.get_bbox_patch()
    for start, end, look in arrows:
        drawn = {"linewidth": 2.2, **(line(look) if isinstance(look, str) else look)}
        drawn |= {"arrowstyle": "-|>", "mutation_scale": 13, "shrinkA": 1}
        ends = {"patchA": frames[start], "patchB": frames[end]}
        tail, head = boxes[start][:2], boxes[end][:2]
        ax.add_patch(FancyArrowPatch(tail, head, **drawn, **ends))
    ax.set_axis_off()
