"""The types of public signatures, in one place.

What goes in is anything that NumPy can read as an array; what comes out is an array of floats.
"""

from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Array", "ArrayLike", "Axis", "Channels", "State", "Statistics", "Tensor"]

Array: TypeAlias = NDArray[np.floating[Any]]
Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | list[SupportsIndex]
Channels: TypeAlias = int | tuple[int, ...]
State: TypeAlias = dict[str, NDArray[Any]]
Tensor: TypeAlias = Any  # TensorFlow and Keras do not tell their types
Statistics: TypeAlias = tuple[ArrayLike, ArrayLike, float]  # mean, variance, count
