"""A batch norm layer for Keras 3 that takes the place of Keras's own, and swaps whole models.

It needs Keras's TensorFlow backend.
"""

from bnlib._extras import needed

with needed("bnlib.keras", "tf"):
    import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "bnlib.keras needs Keras's TensorFlow backend; Keras runs on "
        f"{keras.backend.backend()!r}. Set the environment variable KERAS_BACKEND=tensorflow "
        "before Keras is imported, or use keras.layers.BatchNormalization."
    )

from bnlib.keras.layer import BatchNormalization
from bnlib.keras.swap import swap_in, swap_out, synchronize

__all__ = ["BatchNormalization", "swap_in", "swap_out", "synchronize"]
