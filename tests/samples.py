"""Inputs that hide nothing: unequal means and scales, large offsets, awkward dtypes."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


def friendly(shape, dtype=np.float64, seed=0):
    """Values whose channels differ in mean and scale: no input that hides a bug."""
    rng = np.random.default_rng(seed)
    channels = shape[-1]
    mean, scale = np.linspace(-3, 5, channels), np.linspace(0.5, 4, channels)
    return (mean + scale * rng.standard_normal(shape)).astype(dtype)


def hard_rows():
    """The batches on which frameworks lose the variance, by name."""
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


# A few examples of three channels, for properties.
batches = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 13), st.just(3)),
    elements=st.floats(-1e3, 1e3, width=32),
)
