"""The ways to ship: each gives back what went in."""

import keras
import numpy as np
import pytest

from bnlib.book import shipping
from bnlib.keras import BatchNormalization

WAYS = [
    shipping.keras_file,
    shipping.weights_file,
    shipping.saved_model,
    shipping.lite,
    shipping.compiled,
]


@pytest.fixture(params=[keras.layers.BatchNormalization, BatchNormalization])
def model(request):
    made = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(3, 3, dtype="float32"),
            request.param(dtype="float32"),
            keras.layers.Flatten(dtype="float32"),
        ]
    )
    draw = np.random.default_rng(2)
    values = [draw.normal(1, 2, 3) for _ in range(3)] + [draw.uniform(0.1, 4, 3)]
    made.layers[1].set_weights(values)
    return made


@pytest.fixture
def inputs():
    return np.random.default_rng(1).normal(2, 3, (5, 8, 8, 1)).astype("float32")


# Keras 3.15.1 itself asks TensorFlow's variables for arrays in a way that NumPy 2 deprecates
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_each_way_gives_the_outputs_back(model, inputs, tmp_path):
    expected = model.predict(inputs, verbose=0)
    for way in WAYS:
        folder = tmp_path / way.__name__
        folder.mkdir()
        outputs, size = way(model, inputs, folder)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
        assert (size > 0) == (way is not shipping.compiled)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_eight_bits_and_sixteen_are_near(model, inputs, tmp_path):
    expected = model.predict(inputs, verbose=0)
    largest = np.abs(expected).max()
    narrow = shipping.lite_int8(model, inputs, tmp_path, inputs)[0]
    mixed = shipping.mixed(model, inputs, tmp_path)[0]
    for outputs in (narrow, mixed):
        off = np.abs(outputs - expected).max() / largest
        assert 0 < off < 0.05
