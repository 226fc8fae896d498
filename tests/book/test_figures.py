"""pictures: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from bnlib.book import figures, style


@pytest.fixture
def ax():
    fig, ax = style.figure()
    yield ax
    plt.close(fig)


def test_strips_draw_every_value_and_the_right_bars(ax):
    x = np.random.default_rng(0).normal((3, -2), (1, 5), (30, 2))
    figures.strips(ax, x, labels=["a", "b"], marked=4)
    lines = [np.column_stack(line.get_data()) for line in ax.lines]
    dots = [line[:, 0] for line in lines if len(line) == 30]
    np.testing.assert_array_equal(dots, x.T)
    bars = [line[:, 0] for line in lines if len(line) == 2 and np.ptp(line[:, 1]) == 0]
    expected = [[c.mean() - c.std(), c.mean() + c.std()] for c in x.T]
    np.testing.assert_allclose(bars, expected)
    assert [line[0, 0] for line in lines if len(line) == 1] == list(x[4])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


def test_strips_take_channels_of_different_lengths(ax):
    figures.strips(ax, [np.arange(3.0), np.arange(5.0)])
    assert {len(line.get_xdata()) for line in ax.lines} == {2, 3, 5}
    assert ax.yaxis_inverted(), "channel 0 is on top"


def coloured(ax, colour):
    """Return the rectangles of one colour as rows of `left, top, right, bottom`."""
    (patch,) = [p for p in ax.patches if to_hex(p.get_facecolor()) == colour]
    return patch.get_path().vertices.reshape(-1, 10)[:, [0, 1, 4, 5]]


def area(rectangles):
    return np.sum(np.prod(rectangles[:, 2:] - rectangles[:, :2], axis=1))


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
        ((4, 5, 7, 6), {"parts": 2}, 2 * 5 * 7),  # ghost batch norm
    ],
)
def test_averaged_colours_the_values_of_one_mean(ax, shape, options, together):
    figures.averaged(ax, shape, **options)
    whole, part = coloured(ax, style.GRID), coloured(ax, style.AFTER)
    assert area(part) == pytest.approx(together)
    assert area(whole) == pytest.approx(np.prod(shape))
    assert len(np.unique(whole, axis=0)) == len(whole), "no map covers another"
    for left, top, _, bottom in part:
        around = (whole[:, 0] == left) & (whole[:, 1] <= top) & (whole[:, 3] >= bottom)
        assert around.sum() == 1, "each coloured run lies in one column of one map"
    limits = [*ax.get_xlim(), *ax.get_ylim()]
    assert whole[:, [0, 2]].min() >= limits[0]
    assert whole[:, [0, 2]].max() <= limits[1]
    assert whole[:, [1, 3]].max() <= limits[2]
    assert whole[:, [1, 3]].min() >= limits[3]


def test_averaged_cuts_the_maps_into_squares(ax):
    figures.averaged(ax, (2, 5, 2, 1))
    (cuts,) = ax.collections
    heights = [line[0, 1] for line in cuts.get_segments()]
    tops = ax.get_yticks() - 2.5
    np.testing.assert_allclose(heights, np.add.outer(tops, range(1, 5)).ravel())


def test_averaged_puts_examples_in_rows_and_channels_in_columns(ax):
    figures.averaged(ax, (4, 5, 5, 3), location=(2, 2), colour=style.WRONG)
    assert area(coloured(ax, style.WRONG)) == pytest.approx(4 * 5 * 5)
    (dots,) = ax.lines
    columns, rows = dots.get_data()
    assert len(set(columns)) == 1
    np.testing.assert_allclose(columns, ax.get_xticks()[1])
    np.testing.assert_allclose(rows, ax.get_yticks())


def test_a_picture_of_maps_is_small():
    fig, ax = style.figure()
    figures.averaged(ax, (4, 5, 5, 3))
    assert len(style.svg(fig, "Four examples of three maps.")) < 25_000
    plt.close(fig)


def test_graph_joins_the_boxes_that_it_was_told_to(ax):
    boxes = {"x": (0, 1, "input"), "y": (2, 0, "output")}
    figures.graph(ax, boxes, [("x", "y", style.BEFORE)], shaded={"y"})
    ax.set(xlim=(-1, 3), ylim=(-1, 2))
    drawn = {text.get_text(): text.get_bbox_patch() for text in ax.texts}
    assert to_hex(drawn["input"].get_facecolor()) == style.PAPER
    assert to_hex(drawn["output"].get_facecolor()) == style.GRID
    (arrow,) = ax.patches
    assert (arrow.patchA, arrow.patchB) == (drawn["input"], drawn["output"])
    assert to_hex(arrow.get_edgecolor()) == style.BEFORE


def test_ridges_draw_the_counts_upwards_from_each_row(ax):
    rows = [
        np.array([0.5, 0.5, 1.5, 9.0]),
        np.array([[1.5], [np.nan]]),
        np.array([7.0]),
    ]
    figures.ridges(ax, rows, [0, 1, 2], color=style.AFTER, labels=["a", "b", "c"])
    heights = [patch.get_data().values for patch in ax.patches]
    np.testing.assert_allclose(
        heights, [[-0.85, -0.425], [1, 0.15], [2, 2]], err_msg="outside: not drawn"
    )
    assert ax.yaxis_inverted(), "row 0 is on top"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
