"""bnlib: batch normalization rebuilt from scratch.

This line costs NumPy and nothing heavier. TensorFlow, Keras and matplotlib come only with the
modules that need them, and each of those is imported by its own name.
"""

from bnlib.axes import Layout, layout
from bnlib.gradient import (
    batch_norm_backward,
    batch_norm_backward_staged,
    batch_norm_inference_backward,
)
from bnlib.layer import BatchNorm
from bnlib.moments import Moments, merge_moments, moments
from bnlib.parameters import (
    Affine,
    ParameterCount,
    as_affine,
    count_parameters,
    fold,
    fold_forward,
)
from bnlib.population import (
    Cumulative,
    DebiasedExponential,
    Exponential,
    Pooled,
    Population,
)
from bnlib.transform import batch_norm, batch_norm_inference, normalize, scale_and_shift

__version__ = "0.1.0"

__all__ = [
    "Affine",
    "BatchNorm",
    "Cumulative",
    "DebiasedExponential",
    "Exponential",
    "Layout",
    "Moments",
    "ParameterCount",
    "Pooled",
    "Population",
    "as_affine",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_backward_staged",
    "batch_norm_inference",
    "batch_norm_inference_backward",
    "count_parameters",
    "fold",
    "fold_forward",
    "layout",
    "merge_moments",
    "moments",
    "normalize",
    "scale_and_shift",
]
