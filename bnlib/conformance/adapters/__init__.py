"""Adapters that are ready: each a maker for `check_batch_norm`.

Options are given with `functools.partial`, as in
`check_batch_norm(partial(adapters.Function, function=f))`. A framework is imported when its
adapter makes a layer.
"""

from bnlib.conformance.adapters._equinox import Equinox
from bnlib.conformance.adapters._flax import Flax, FlaxNNX
from bnlib.conformance.adapters._functions import Function
from bnlib.conformance.adapters._haiku import Haiku
from bnlib.conformance.adapters._keras import Keras
from bnlib.conformance.adapters._mlx import MLX
from bnlib.conformance.adapters._numpy import NumPy
from bnlib.conformance.adapters._onnx import Onnx
from bnlib.conformance.adapters._paddle import Paddle
from bnlib.conformance.adapters._sonnet import Sonnet
from bnlib.conformance.adapters._tensorflow import TensorFlow
from bnlib.conformance.adapters._tinygrad import Tinygrad
from bnlib.conformance.adapters._torch import Torch

__all__ = [
    "MLX",
    "Equinox",
    "Flax",
    "FlaxNNX",
    "Function",
    "Haiku",
    "Keras",
    "NumPy",
    "Onnx",
    "Paddle",
    "Sonnet",
    "TensorFlow",
    "Tinygrad",
    "Torch",
]
