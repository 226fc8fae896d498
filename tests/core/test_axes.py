"""layout: which axes are kept, which are averaged over."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlib import layout

SHAPE = (2, 3, 5, 7, 11)  # a different prime for each axis


@pytest.mark.parametrize(
    ("ndim", "axis", "axes", "broadcast"),
    [
        (2, -1, (0,), (1, 3)),
        (2, 1, (0,), (1, 3)),
        (3, -1, (0, 1), (1, 1, 5)),
        (3, 1, (0, 2), (1, 3, 1)),
        (4, -1, (0, 1, 2), (1, 1, 1, 7)),
        (4, 1, (0, 2, 3), (1, 3, 1, 1)),
        (5, -1, (0, 1, 2, 3), (1, 1, 1, 1, 11)),
        (5, 1, (0, 2, 3, 4), (1, 3, 1, 1, 1)),
        (4, (0, -1), (1, 2), (2, 1, 1, 7)),  # instance norm
        (4, 0, (1, 2, 3), (2, 1, 1, 1)),  # layer norm's statistics
    ],
)
def test_each_rank_and_layout(ndim, axis, axes, broadcast):
    where = layout(SHAPE[:ndim], axis)
    assert where.axes == axes
    assert where.broadcast == broadcast
    assert where.channels == tuple(SHAPE[a] for a in where.axis)


@given(st.integers(1, 5), st.data())
def test_kept_and_averaged_axes_are_a_partition(ndim, data):
    axis = data.draw(st.integers(-ndim, ndim - 1))
    where = layout(SHAPE[:ndim], axis)
    assert sorted(where.axis + where.axes) == list(range(ndim))
    assert where == layout(SHAPE[:ndim], axis % ndim), (
        "a negative axis counts from the end"
    )


def test_order_of_a_tuple_does_not_matter():
    assert layout(SHAPE, (-1, 0)) == layout(SHAPE, [0, 4])


@pytest.mark.parametrize(
    ("shape", "axis", "error", "words"),
    [
        ((), -1, ValueError, "got a scalar"),
        ((2, 3), 2, ValueError, r"lie in \[-2, 1\].*got 2"),
        ((2, 3), -3, ValueError, "got -3"),
        ((2, 3), (1, -1), ValueError, "once"),
        ((2, 3), (), ValueError, "at least one"),
        ((2, 3), 1.0, TypeError, "got 1.0"),
        ((2, 3), "channels_last", TypeError, "Use -1"),
        ((2, 3), None, TypeError, "got None"),
    ],
)
def test_errors_say_expected_received_remedy(shape, axis, error, words):
    with pytest.raises(error, match=words):
        layout(shape, axis)


def test_numpy_integers_are_integers():
    assert layout((2, 3), np.int64(1)) == layout((2, 3), 1)


def test_no_call_changes_what_the_next_one_gets():
    """Equal numbers of other types are remembered as what they are equal to."""
    assert type(layout(np.array([5, 7])).channels[0]) is int
    assert type(layout((np.int64(5), 8)).channels[0]) is int
    assert layout([None, 3]).channels == (3,)
    with pytest.raises(TypeError, match="float"):
        layout((2.0, 3.0))
    with pytest.raises(TypeError, match="axis must be an integer"):
        layout((2, 3), 1.0)
