"""Other norms: the same two functions over other axes, and norms of the weights.

A layer that normalises activations measures `moments` over some axes, normalises by them, then
scales and shifts. What tells one norm from another is which axes are averaged over, and which
axes gamma and beta run along:

| norm | averages over | gamma and beta run along |
|---|---|---|
| batch | examples and space | channels |
| ghost batch | some examples, and space | channels |
| layer | the axes that you name | the same axes |
| instance | space | channels |
| group | space and some channels | channels |
| RMS, pixel | the axes that you name; the mean is 0 | the same axes; pixel norm has none |
| filter response | space; the mean is 0 | channels |

`batch_renorm` is batch norm whose scale and shift lead to the statistics of the population, and
`dynamic_tanh` measures nothing. The norms of weights do the same to a kernel. Each function has a
backward pass, named after it.
"""

from bnlib.variants._axes import (
    group_norm,
    group_norm_backward,
    instance_norm,
    instance_norm_backward,
    layer_norm,
    layer_norm_backward,
)
from bnlib.variants._batch import (
    batch_renorm,
    batch_renorm_backward,
    ghost_batch_norm,
    ghost_batch_norm_backward,
)
from bnlib.variants._square import (
    filter_response_norm,
    filter_response_norm_backward,
    pixel_norm,
    pixel_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from bnlib.variants._tanh import (
    dynamic_tanh,
    dynamic_tanh_backward,
)
from bnlib.variants._weights import (
    scaled_weight_standardization,
    scaled_weight_standardization_backward,
    spectral_norm,
    spectral_norm_backward,
    weight_norm,
    weight_norm_backward,
    weight_standardization,
    weight_standardization_backward,
)

__all__ = [
    "batch_renorm",
    "batch_renorm_backward",
    "dynamic_tanh",
    "dynamic_tanh_backward",
    "filter_response_norm",
    "filter_response_norm_backward",
    "ghost_batch_norm",
    "ghost_batch_norm_backward",
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
    "pixel_norm",
    "pixel_norm_backward",
    "rms_norm",
    "rms_norm_backward",
    "scaled_weight_standardization",
    "scaled_weight_standardization_backward",
    "spectral_norm",
    "spectral_norm_backward",
    "weight_norm",
    "weight_norm_backward",
    "weight_standardization",
    "weight_standardization_backward",
]
