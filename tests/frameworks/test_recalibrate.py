"""`recalibrate`: the oracle is all data as one batch, in training mode, with momentum 0."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


import keras
import numpy as np
import pytest
import tensorflow as tf
from samples import friendly

from bnlib.doctor import recalibrate

Keras, layers = keras.layers.BatchNormalization, keras.layers


@pytest.fixture
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def norms_of(model):
    return [v for v in model._flatten_layers() if isinstance(v, Keras)]


def disturb(model, seed=0):
    """Give every batch norm layer parameters and statistics that are not the initial ones."""
    rng = np.random.default_rng(seed)
    for layer in norms_of(model):
        for variable in layer.weights:
            if variable.dtype != "int64":
                variable.assign(rng.uniform(0.5, 2, variable.shape))
    return model


def statistics_of(model):
    norms = norms_of(model)
    return [v.numpy() for n in norms for v in (n.moving_mean, n.moving_variance)]


def state_of(model):
    """All that a model has, as bytes: weights, seeds, metrics, optimizer."""
    found = list(model.variables)
    for layer in model._flatten_layers():
        found += [v for metric in layer._metrics for v in metric.variables]
    if getattr(model, "optimizer", None):
        found += [*model.metrics_variables, *model.optimizer.variables]
    return [np.asarray(v.numpy()).tobytes() for v in found]


def close(one, other, tolerance=1e-6):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def oracle(model, x):
    """The statistics after one batch of all data, in training mode without dropout."""
    kept, before = model.get_weights(), []
    for layer in model._flatten_layers():
        name = {Keras: "momentum", layers.Dropout: "rate"}.get(type(layer))
        if name:
            before.append((layer, name, getattr(layer, name)))
            setattr(layer, name, 0.0)
    model(x, training=True)
    found = statistics_of(model)
    for layer, name, value in before:
        setattr(layer, name, value)
    model.set_weights(kept)
    return found


# Against the oracle


def block(channels, units, name):
    """A residual block, as a model of its own, with a batch norm on either branch."""
    inputs = keras.Input((None, None, channels))
    x = layers.Conv2D(units, 3, padding="same")(inputs)
    x = layers.Conv2D(units, 3, padding="same")(layers.ReLU()(Keras(name="one")(x)))
    short = Keras(name="short")(layers.Conv2D(units, 1)(inputs))
    x = layers.Add()([Keras(name="two")(x), short])
    return keras.Model(inputs, layers.ReLU()(x), name=name)


def residual():
    x = inputs = keras.Input((6, 6, 2))
    x = layers.Dropout(0.3)(Keras(name="stem")(layers.Conv2D(4, 3)(x)))
    x = layers.GlobalAveragePooling2D()(block(5, 3, "b")(block(4, 5, "a")(x)))
    return keras.Model(inputs, Keras(name="last")(layers.Dense(3)(x)))


class Subclassed(keras.Model):
    """Layers in an attribute, a list and a dict, called in another order than they are held."""

    def __init__(self):
        super().__init__()
        self.late = Keras(name="late")
        self.steps = [layers.Conv2D(4, 3), Keras(name="early"), layers.Dropout(0.4)]
        self.head = {"a": layers.Dense(3), "b": Keras(name="middle", center=False)}

    def call(self, x, training=None):
        x = self.steps[0](x)
        x = tf.nn.relu(self.steps[1](x, training=training))
        x = tf.reduce_mean(self.steps[2](x, training=training), (1, 2))
        x = tf.nn.tanh(self.head["b"](self.head["a"](x), training=training))
        return self.late(x[:, ::-1], training=training)


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 6, 6, 2)))
    return model


ARCHITECTURES = {"residual": residual, "subclassed": subclassed}
IMAGES = friendly((50, 6, 6, 2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exact_is_one_batch_of_all_data(architecture):
    model = disturb(ARCHITECTURES[architecture]())
    expected = oracle(model, IMAGES)
    rng = np.random.default_rng(0)
    for size, order in ((7, np.arange(50)), (50, rng.permutation(50)), (1, range(50))):
        recalibrate(model, IMAGES[list(order)], batch_size=size)
        close(statistics_of(model), expected)
    report = recalibrate(model, IMAGES)
    assert report.worst == "ok"
    assert max(row.mean_moved for row in report) < 1e-9
    close(statistics_of(model), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_float32_it_is_exact_up_to_rounding(architecture):
    model = disturb(ARCHITECTURES[architecture]())
    x = IMAGES.astype(np.float32)
    expected = oracle(model, x)
    recalibrate(model, x, batch_size=7)
    close(statistics_of(model), expected, 1e-5)


@pytest.mark.usefixtures("float64")
def test_fast_is_exact_in_one_batch_and_low_in_small_ones():
    model, x = disturb(residual()), friendly((400, 6, 6, 2))
    expected = oracle(model, x)
    recalibrate(model, x, method="fast", batch_size=400)
    close(statistics_of(model), expected)
    low = {}
    for size in (8, 32):
        report = recalibrate(model, x, method="fast", batch_size=size)
        close(statistics_of(model)[:2], expected[:2])  # the first layer
        low[size] = np.mean(statistics_of(model)[-1] / expected[-1])
        assert "Fast:" in str(report)
    assert low[8] < low[32] < 0.999
