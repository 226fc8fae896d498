"""Adapters that are ready: each a maker for `check_batch_norm`.

Options are given with `functools.partial`, as in
`check_batch_norm(partial(adapters.Function, function=f))`. A framework is imported when its
adapter makes a layer.
"""

from bnlib.conformance.adapters._flax import Flax
from bnlib.conformance.adapters._functions import Function
from bnlib.conformance.adapters._keras import Keras
from bnlib.conformance.adapters._numpy import NumPy
from bnlib.conformance.adapters._onnx import Onnx
from bnlib.conformance.adapters._tensorflow import TensorFlow
from bnlib.conformance.adapters._torch import Torch

__all__ = ["Flax", "Function", "Keras", "NumPy", "Onnx", "TensorFlow", "Torch"]
