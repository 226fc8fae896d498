"""One batch norm layer in the words of seven frameworks.

`from_*` reads a plain dict that uses a framework's own names into `BNParams`, `to_*` writes it
back. No framework is imported. What a framework cannot hold is refused, unless it is named in
`lose`; Bessel's factor, which changes no output, is lost with a warning: nothing is lost silently.
`compare` and `explain` find the parameter of a converted layer that is wrong. `CONVENTIONS` is the
table of defaults and habits.
"""

from bnlib.conventions._caffe import from_caffe, to_caffe
from bnlib.conventions._compare import compare, explain
from bnlib.conventions._contrib import from_contrib, to_contrib
from bnlib.conventions._flax import from_flax, to_flax
from bnlib.conventions._keras import from_keras, to_keras
from bnlib.conventions._mxnet import from_mxnet, to_mxnet
from bnlib.conventions._onnx import from_onnx, to_onnx
from bnlib.conventions._params import BNParams, variance_factor
from bnlib.conventions._table import CONVENTIONS, Convention
from bnlib.conventions._torch import from_torch, to_torch

__all__ = [
    "CONVENTIONS",
    "BNParams",
    "Convention",
    "compare",
    "explain",
    "from_caffe",
    "from_contrib",
    "from_flax",
    "from_keras",
    "from_mxnet",
    "from_onnx",
    "from_torch",
    "to_caffe",
    "to_contrib",
    "to_flax",
    "to_keras",
    "to_mxnet",
    "to_onnx",
    "to_torch",
    "variance_factor",
]
