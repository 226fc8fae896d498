"""bnlib: batch normalization rebuilt from scratch.

This line costs NumPy and nothing heavier. TensorFlow, Keras and matplotlib come only with the
modules that need them, and each of those is imported by its own name.
"""

from bnlib.axes import Layout, layout
from bnlib.moments import Moments, merge_moments, moments
from bnlib.transform import batch_norm, batch_norm_inference, normalize, scale_and_shift

__version__ = "0.1.0"

__all__ = [
    "Layout",
    "Moments",
    "batch_norm",
    "batch_norm_inference",
    "layout",
    "merge_moments",
    "moments",
    "normalize",
    "scale_and_shift",
]
