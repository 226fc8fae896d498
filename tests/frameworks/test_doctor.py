"""What the doctor's tools share: data of any kind as batches, and layers by their paths.

The tools have files of their own: test_audit.py, test_recalibrate.py, test_fold.py.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import pytest
import tensorflow as tf

from bnlib import doctor
from bnlib.doctor._data import Batches
from bnlib.doctor._layers import batch_norms, places

layers = keras.layers
X = np.arange(20, dtype="f4").reshape(10, 2)
Y = np.zeros(10)


class Loader(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, place):
        part = slice(4 * place, 4 * place + 4)
        return X[part], Y[part]


def in_parts(targets):
    for start in range(0, 10, 4):
        part = slice(start, start + 4)
        yield (X[part], Y[part]) if targets else X[part]


KINDS = {
    "array": lambda: X,
    "tensor": lambda: tf.constant(X),
    "inputs and targets": lambda: (X, Y),
    "dataset": lambda: tf.data.Dataset.from_tensor_slices(X).batch(4),
    "dataset with targets": lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(4),
    "PyDataset": lambda: Loader(),
    "generator": lambda: in_parts(False),
    "generator with targets": lambda: in_parts(True),
    "function": lambda: lambda: in_parts(True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_kind(kind):
    batches = Batches(KINDS[kind](), batch_size=4)
    found = [np.asarray(batch) for batch in batches]
    assert [len(batch) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(found), X)
    assert batches.repeatable == (not kind.startswith("generator"))
    if batches.repeatable:
        assert len(list(batches)) == 3
    else:
        with pytest.raises(ValueError, match="used up"):
            list(batches)


def test_several_inputs():
    named = {"a": X, "b": X[:, :1]}
    found = list(Batches(named, batch_size=6))
    assert [len(each["b"]) for each in found] == [6, 4]
    pair = list(Batches([X, X[:, :1]], batch_size=6))
    assert [each[1].shape for each in pair] == [(6, 1), (4, 1)]
    with pytest.raises(ValueError, match="one length"):
        list(Batches([X, X[:3]]))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (X[:0], "got none"),
        (np.where(X > 3, np.nan, X), "must be finite"),
        (lambda: iter(()), "got none"),
    ],
)
def test_data_of_no_use(data, words):
    with pytest.raises(ValueError, match=words):
        list(Batches(data))


def test_what_is_no_data():
    for data in (3, "images.npz", None):
        with pytest.raises(TypeError, match="data must be arrays"):
            Batches(data)
    endless = tf.data.Dataset.from_tensor_slices(X).batch(4).repeat()
    with pytest.raises(ValueError, match="repeats for ever"):
        Batches(endless)


def test_paths_of_nested_layers():
    inner = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, name="d"),
            layers.BatchNormalization(name="n"),
        ],
        name="inner",
    )
    inputs = keras.Input((3, 2))
    h = layers.TimeDistributed(inner, name="steps")(inputs)
    h = layers.BatchNormalization(name="last")(h)
    model = keras.Model(inputs, h)
    assert [p.path for p in batch_norms(model)] == ["steps/inner/n", "last"]
    assert {"steps", "steps/inner", "steps/inner/d"} <= {p.path for p in places(model)}


def test_a_shared_layer_is_listed_once():
    norm = layers.BatchNormalization(name="norm")
    a, b = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([a, b], layers.Add()([norm(a), norm(b)]))
    assert [p.path for p in batch_norms(model)] == ["norm"]


def test_models_that_cannot_be_examined():
    with pytest.raises(TypeError, match=r"must be a keras\.Model; got str"):
        batch_norms("model.keras")
    with pytest.raises(ValueError, match="has none"):
        batch_norms(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))
    with pytest.raises(ValueError, match="must be built"):
        batch_norms(keras.Sequential([layers.BatchNormalization()]))


def test_the_familys_names():
    family = {"audit", "recalibrate", "fold", "swap_in", "swap_out", "synchronize"}
    assert family <= set(doctor.__all__)
