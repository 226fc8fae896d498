"""pictures: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

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
