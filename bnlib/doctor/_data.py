"""Data of any kind, as batches of what a model takes: arrays, `tf.data`, generators, PyDatasets."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

import keras
import numpy as np
import tensorflow as tf

MEMORY = (np.ndarray, tf.Tensor, list, dict)  # at hand as a whole


class Batches:
    """The batches of some data, without their targets. Nothing is held but one batch.

    Args:
        data: arrays as the model takes them, of any structure, or a tuple `(inputs, targets)`; a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator or another iterable of
            batches, each of them inputs or a tuple `(inputs, targets[, weights])`; or a function
            without arguments that returns such an iterable.
        batch_size: for arrays; the last batch may be smaller.

    Attributes:
        repeatable: whether the data can be walked more than once.

    Raises:
        TypeError: for anything else.
        ValueError: for an endless dataset, or a `batch_size` that is none.
    """

    def __init__(self, data: Any, batch_size: int = 32):
        if isinstance(batch_size, bool) or not (
            isinstance(batch_size, Integral) and batch_size > 0
        ):
            raise ValueError(
                f"batch_size must be a positive whole number; got {batch_size!r}. Use 32 when in "
                "doubt."
            )
        self._data, self._size = data, batch_size
        self._walks = 0
        self.repeatable = not isinstance(data, Iterator)
        if isinstance(data, (str, bytes)) or not (
            isinstance(data, (*MEMORY, tuple, tf.data.Dataset, keras.utils.PyDataset))
            or hasattr(data, "__iter__")
            or callable(data)
        ):
            raise TypeError(
                "data must be arrays, a tf.data.Dataset, a PyDataset, an iterable of batches or a "
                f"function that returns one; got {type(data).__name__}."
            )
        if (
            isinstance(data, tf.data.Dataset)
            and data.cardinality() == tf.data.INFINITE_CARDINALITY
        ):
            raise ValueError(
                "data must end; got a dataset that repeats for ever. Take a part: data.take(100)."
            )

    def __len__(self) -> int:
        """Return the number of batches, 0 when it is not known before they are walked."""
        if isinstance(self._data, (*MEMORY, tuple)):
            return math.ceil(_examples(_first(self._arrays())) / self._size)
        if isinstance(self._data, tf.data.Dataset):
            return max(0, int(self._data.cardinality()))
        if isinstance(self._data, keras.utils.PyDataset):
            return self._data.num_batches or 0
        return len(self._data) if hasattr(self._data, "__len__") else 0

    def __iter__(self) -> Iterator[Any]:
        """Yield the inputs of each batch, checked.

        Raises:
            ValueError: when there is nothing, when an input holds NaN or infinity, or when a
                generator was walked before.
        """
        if self._walks and not self.repeatable:
            raise ValueError(
                "data must allow another walk; got an iterator, which is used up. Pass a function "
                "that makes it anew."
            )
        self._walks += 1
        examples = 0
        for place, batch in enumerate(self._parts()):
            size = _examples(_first(batch))
            if not size:
                continue
            examples += size
            for each in keras.tree.flatten(batch):
                values = np.asarray(each)
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ValueError(
                        f"data must be finite; batch {place} holds NaN or infinity, which would "
                        "spread to every statistic. Clean the data first."
                    )
            yield batch
        if not examples:
            raise ValueError("data must hold examples; got none.")

    def _arrays(self):
        data = self._data
        return data[0] if isinstance(data, tuple) else data

    def _parts(self):
        if isinstance(self._data, (*MEMORY, tuple)):
            arrays = keras.tree.map_structure(_as_array, self._arrays())
            _same_length(arrays)
            for start in range(0, len(_first(arrays)), self._size):
                part = slice(start, start + self._size)
                yield keras.tree.map_structure(lambda v, part=part: v[part], arrays)
            return
        data = self._data() if isinstance(self._data, Callable) else self._data
        if isinstance(data, keras.utils.PyDataset):
            data = map(data.__getitem__, range(data.num_batches))
        for batch in data:
            inputs, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
            yield keras.tree.map_structure(_as_array, inputs)


def check_list(data, model):
    """See whether a list holds an array for each input of a model: it may be meant as batches.

    Args:
        data: of any kind; what is no list, and no tuple that begins with one, is left alone.
        model: of one that is code nobody knows how many inputs it has.

    Raises:
        ValueError: when there is another number of arrays.
    """
    inputs = data[0] if isinstance(data, tuple) and data else data
    expected = len(keras.tree.flatten(getattr(model, "inputs", None) or []))
    if not (isinstance(inputs, list) and inputs and expected):
        return
    got = len(keras.tree.flatten(inputs))
    if got != expected:
        raise ValueError(
            f"data, when they are a list, must be an array for each input of {model.name!r}, which "
            f"has {expected}; got {plural('array', got)}. For a list of batches write "
            "lambda: batches, for a list of examples np.stack(examples), for targets "
            "(inputs, targets)."
        )


@contextlib.contextmanager
def taken(model, batch):
    """Say in short words when a model does not take a batch; Keras's take ten lines.

    Raises:
        ValueError: in place of what a call raises for shapes and types.
    """
    try:
        yield
    except (ValueError, TypeError, tf.errors.OpError) as error:
        given = [f"{v.shape} {_kind(v)}" for v in keras.tree.flatten(batch)]
        text = re.sub(r"\x1b\[\d*m", "", str(error)).split("Arguments received")[0]
        text = re.sub(r"Exception encountered when calling [^\n]*\n", "", text)
        raise ValueError(
            f"data must be what {model.name!r} takes; it does not run on a batch of "
            f"{', '.join(given)}: {' '.join(text.split())}"
        ) from error


def _kind(array):
    return getattr(array.dtype, "name", array.dtype)


def plural(word, count):
    """Write a count: 1 batch, 2 batches."""
    ending = "es" if word.endswith("ch") else "s"
    return f"{count} {word}{'' if count == 1 else ending}"


def _as_array(value):
    return value if isinstance(value, tf.Tensor) else np.asarray(value)


def _first(batch):
    arrays = keras.tree.flatten(batch)
    if not arrays:
        raise ValueError("data must hold examples; got none.")
    return arrays[0]


def _examples(array):
    if np.ndim(array) == 0:
        raise ValueError(
            f"data must be arrays with a row for each example; got a single {type(array).__name__}."
            " A list of examples is no array: np.stack(examples)."
        )
    return len(array)


def _same_length(arrays):
    sizes = {_examples(each) for each in keras.tree.flatten(arrays)}
    if len(sizes) > 1:
        raise ValueError(
            f"the arrays of data must have one length; got {sorted(sizes)}. Targets go into a "
            "tuple: (inputs, targets)."
        )


def tracked(batches, text):
    """Walk batches, and show a progress bar when a person watches a terminal and has Rich."""
    try:
        from rich.console import Console
        from rich.progress import track
    except ModuleNotFoundError:
        return iter(batches)
    console = Console(stderr=True)
    if not console.is_terminal:
        return iter(batches)
    total = len(batches) or None
    return iter(track(batches, text, total=total, console=console, transient=True))
