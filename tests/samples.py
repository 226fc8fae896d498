"""Inputs that hide nothing: unequal means and scales, large offsets, awkward dtypes.

They need NumPy and hypothesis.
"""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import DTypeLike, NDArray

__all__ = ["ROWS", "batches", "friendly", "hard_rows"]


def friendly(
    shape: tuple[int, ...], dtype: DTypeLike = np.float64, seed: int = 0
) -> NDArray[np.floating]:
    """Draw normal values whose channels differ in mean and scale.

    Args:
        shape: `(..., C)`, the channels last.
        dtype: the type of the result.
        seed: which values are drawn.

    Returns:
        Array of that shape: means from -3 to 5, deviations from 0.5 to 4.
    """
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    mean, scale = np.linspace(-3, 5, channels), np.linspace(0.5, 4, channels)
    return (mean + scale * rng.standard_normal(shape)).astype(dtype)


def hard_rows() -> dict[str, NDArray[np.floating]]:
    """Make the batches on which frameworks lose the variance.

    Returns:
        Arrays `(N, 2)` of several float types, by a name that says what is hard.
    """
    rng = np.random.default_rng(1)
    normal = rng.standard_normal((512, 2))
    rows = {
        f"mean {m:.0e}": (m + normal).astype(np.float32)
        for m in (0, 1e2, 1e4, 1e6, 1e8)
    }
    rows["near 1e25"] = (1e25 * normal).astype(np.float32)
    rows["near 1e-25"] = (1e-25 * normal).astype(np.float32)
    rows["constant 123456.789"] = np.full((4096, 2), 123456.789, np.float32)
    rows["float16 +-6e4"] = np.where(normal > 0, 6e4, -6e4).astype(np.float16)
    rows["float16 1000 or 1002"] = np.where(normal > 0, 1000, 1002).astype(np.float16)
    rows["float64 mean 1e15"] = 1e15 + 8 * np.round(normal)
    rows["one outlier first"] = np.concatenate([np.full((1, 2), 1e6), normal]).astype(
        np.float32
    )
    return rows


ROWS = hard_rows()

# For properties: float64 batches `(N, 3)` of 2 to 13 examples, whose values float32 holds exactly.
batches = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 13), st.just(3)),
    elements=st.floats(-1e3, 1e3, width=32),
)
