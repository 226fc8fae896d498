"""pictures: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from bnlib import pictures, plots


@pytest.fixture
def ax():
    fig, ax = plots.figure()
    yield ax
    plt.close(fig)


def test_strips_draw_every_value_and_the_right_bars(ax):
    x = np.random.default_rng(0).normal((3, -2), (1, 5), (30, 2))
    pictures.strips(ax, x, labels=["a", "b"], marked=4)
    lines = [np.column_stack(line.get_data()) for line in ax.lines]
    dots = [line[:, 0] for line in lines if len(line) == 30]
    np.testing.assert_array_equal(dots, x.T)
    bars = [line[:, 0] for line in lines if len(line) == 2 and np.ptp(line[:, 1]) == 0]
    expected = [[c.mean() - c.std(), c.mean() + c.std()] for c in x.T]
    np.testing.assert_allclose(bars, expected)
    assert [line[0, 0] for line in lines if len(line) == 1] == list(x[4])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_strips_take_channels_of_different_lengths(ax):
    pictures.strips(ax, [np.arange(3.0), np.arange(5.0)])
    assert {len(line.get_xdata()) for line in ax.lines} == {2, 3, 5}
    assert ax.yaxis_inverted(), "channel 0 is on top"


def coloured(ax, colour):
    """Return the centres of the squares of one colour, top to bottom."""
    (patch,) = [p for p in ax.patches if to_hex(p.get_facecolor()) == colour]
    return patch.get_path().vertices[::5] + 0.5


def count_coloured(ax):
    return len(coloured(ax, plots.AFTER)), len(coloured(ax, plots.GRID))


@pytest.mark.parametrize(
    ("shape", "options", "together"),
    [
        ((2, 3), {}, 2),
        ((2, 5, 3), {}, 2 * 5),
        ((2, 3, 5), {"axis": 1, "channel": 1}, 2 * 5),
        ((2, 5, 7, 3), {}, 2 * 5 * 7),
        ((2, 3, 5, 7), {"axis": 1, "channel": 1}, 2 * 5 * 7),
        ((2, 3, 5, 7), {"axis": -1, "channel": 1}, 2 * 3 * 5),  # the wrong axis
        ((2, 3, 5, 7, 4), {}, 2 * 3 * 5 * 7),
        ((2, 5, 7, 3), {"axis": 0}, 5 * 7 * 3),  # layer norm
        ((2, 5, 7, 3), {"axis": (0, -1)}, 5 * 7),  # instance norm
        ((2, 5, 7, 6), {"axis": 0, "groups": 2}, 5 * 7 * 3),  # group norm
    ],
)
def test_averaged_colours_the_values_of_one_mean(ax, shape, options, together):
    pictures.averaged(ax, shape, **options)
    assert count_coloured(ax) == (together, np.prod(shape) - together)
    every = np.concatenate([coloured(ax, c) for c in (plots.AFTER, plots.GRID)])
    assert len(np.unique(every, axis=0)) == len(every), "no square covers another"
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    assert np.all((every - 0.5 >= [left, top]) & (every + 0.5 <= [right, bottom]))


def test_averaged_puts_examples_in_rows_and_channels_in_columns(ax):
    pictures.averaged(ax, (4, 5, 5, 3), location=(2, 2))
    (dots,) = ax.lines
    columns, rows = dots.get_data()
    assert len(set(columns)) == 1
    np.testing.assert_allclose(columns, ax.get_xticks()[1])
    np.testing.assert_allclose(rows, ax.get_yticks())


def test_a_picture_of_maps_is_small():
    fig, ax = plots.figure()
    pictures.averaged(ax, (4, 5, 5, 3))
    assert len(plots.svg(fig, "Four examples of three maps.")) < 60_000
    plt.close(fig)


def test_graph_joins_the_boxes_that_it_was_told_to(ax):
    boxes = {"x": (0, 1, "input"), "y": (2, 0, "output")}
    pictures.graph(ax, boxes, [("x", "y", plots.BEFORE)], shaded={"y"})
    ax.set(xlim=(-1, 3), ylim=(-1, 2))
    drawn = {text.get_text(): text.get_bbox_patch() for text in ax.texts}
    assert to_hex(drawn["input"].get_facecolor()) == plots.PAPER
    assert to_hex(drawn["output"].get_facecolor()) == plots.GRID
    (arrow,) = ax.patches
    assert (arrow.patchA, arrow.patchB) == (drawn["input"], drawn["output"])
    assert to_hex(arrow.get_edgecolor()) == plots.BEFORE
