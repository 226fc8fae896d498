"""`recalibrate`: the oracle is all data as one batch, in training mode, with momentum 0."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from samples import friendly

from bnlib.doctor import Recalibrate, recalibrate
from bnlib.keras import BatchNormalization

Keras, layers = keras.layers.BatchNormalization, keras.layers


@pytest.fixture
def float64():
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


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
IMAGES = friendly((30, 6, 6, 2))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exact_is_one_batch_of_all_data(architecture):
    model = disturb(ARCHITECTURES[architecture]())
    expected = oracle(model, IMAGES)
    rng = np.random.default_rng(0)
    for size, order in ((7, np.arange(30)), (20, rng.permutation(30))):
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
    model, x = disturb(residual()), friendly((160, 6, 6, 2))
    expected = oracle(model, x)
    recalibrate(model, x, method="fast", batch_size=160)
    close(statistics_of(model), expected)
    low = {}
    for size in (8, 32):
        report = recalibrate(model, x, method="fast", batch_size=size)
        close(statistics_of(model)[:2], expected[:2])  # the first layer
        low[size] = np.mean(statistics_of(model)[-1] / expected[-1])
        assert "Fast:" in str(report)
    assert low[8] < low[32] < 0.999


# Which layers, and which values


def small(*norms, width=3):
    parts = [part for norm in norms for part in (norm, layers.Dense(width))]
    return disturb(keras.Sequential([keras.Input((width,)), *parts]))


ROWS = friendly((300, 3), np.float32)


def test_a_frozen_layer_keeps_its_statistics_unless_it_is_named():
    model = small(Keras(name="a"), Keras(name="b"))
    model.get_layer("a").trainable = False
    before, state = statistics_of(model), state_of(model)
    report = recalibrate(model, ROWS)
    close(statistics_of(model)[:2], before[:2], 0)
    assert [row.path for row in report] == ["b"]
    assert "Left alone, since frozen: 'a'. layers='all'" in report.notes[-1]
    for wanted in (["a", model.get_layer("b")], "all"):
        assert [row.path for row in recalibrate(model, ROWS, layers=wanted)] == [*"ab"]
    close(statistics_of(model)[:2], (ROWS.mean(0), ROWS.var(0)), 1e-5)
    assert [row.path for row in recalibrate(model, ROWS, layers="b")] == ["b"]
    model.trainable = False
    changed = state_of(model)
    assert changed != state
    with pytest.raises(ValueError, match=r"all of its 2 .* frozen .*layers='all'"):
        recalibrate(model, ROWS)
    with pytest.raises(ValueError, match=r"got \['c'\]. There are 'a', 'b'"):
        recalibrate(model, ROWS, layers=["a", "c"])
    with pytest.raises(ValueError, match="layers must be paths"):
        recalibrate(model, ROWS, layers=[])
    assert state_of(model) == changed


@pytest.mark.parametrize("kind", [Keras, BatchNormalization])
@pytest.mark.parametrize("method", ["exact", "fast"])
def test_values_under_a_mask_do_not_count(kind, method):
    x = friendly((40, 5, 3), np.float32)
    x[7:20, 2:] = x[25] = 0
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, kind()(layers.Masking()(inputs)))
    report = recalibrate(model, x, batch_size=1, method=method)
    values = x[(x != 0).any(-1)].astype(np.float64)
    close(statistics_of(model), (values.mean(0), values.var(0)), 1e-5)
    assert report.rows[0].values == len(values)


class Masked(keras.Model):
    """A layer with a mask of one's own; the kept axis is not the last."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def call(self, inputs, training=None):
        return self.norm(inputs["x"], training=training, mask=inputs["mask"])


@pytest.mark.parametrize("kind", [Keras, BatchNormalization])
def test_channels_may_have_unequal_numbers_of_values(kind):
    """A mask of Keras goes along all axes but the last: with axis=1, along channels too."""
    x, mask = friendly((30, 4, 3), np.float32), np.ones((30, 4), bool)
    mask[:12, 0] = mask[3:, 1] = mask[:, 2] = mask[1:, 3] = False
    x[~mask] = 1e6
    model = Masked(kind(axis=1))
    data = {"x": x, "mask": mask}
    model(data)
    before = statistics_of(disturb(model))
    report = recalibrate(model, data, batch_size=4)
    mean, variance = statistics_of(model)
    for channel in (0, 1, 3):
        values = x[mask[:, channel], channel].astype(np.float64)
        close((mean[channel], variance[channel]), (values.mean(), values.var()), 1e-5)
    # no values: left alone, and said
    assert (mean[2], variance[2]) == tuple(v[2] for v in before)
    assert (report.rows[0].values, report.worst) == (0, "warning")
    assert "fewer than two values" in str(report)


def test_a_mask_along_the_averaged_axes_weighs_for_our_layer():
    x, weights = friendly((20, 3, 4), np.float32), np.ones((20, 4), np.float32)
    weights[:9, :2], weights[12:, 1] = 3, 0
    for axis, batch, mask in ((1, x, weights), (-1, np.swapaxes(x, 1, 2), weights)):
        model = Masked(BatchNormalization(axis=axis, momentum=0.0, bessel=True))
        data = {"x": batch, "mask": mask}
        model(data)
        expected = oracle_with(model, data)
        recalibrate(model, data, batch_size=7)
        close(statistics_of(model), expected, 1e-5)


def oracle_with(model, data):
    """As `oracle`, for layers whose momentum is 0 already."""
    kept = model.get_weights()
    model(data, training=True)
    found = model.get_weights()
    model.set_weights(kept)
    pairs = zip(found, model.weights, strict=True)
    return [value for value, v in pairs if v.name.startswith("moving")]


@pytest.mark.parametrize(
    "settings",
    [
        {"bessel": True},
        {"renorm": True},
        {"renorm": True, "bessel": True},
        {"virtual_batch_size": 300},
        {"zero_debias": True},
        {"synchronized": True},
    ],
)
def test_options_of_our_layer(settings):
    """All that one batch with momentum 0 would set, `renorm`'s own statistics too."""
    zero = {"momentum": 0.0, "renorm_momentum": 0.0}
    model = small(BatchNormalization(**settings, **zero, name="n"))
    layer = model.get_layer("n")
    kept = model.get_weights()
    model(ROWS, training=True)
    expected = {v.name: v.numpy() for v in layer.non_trainable_weights}
    model.set_weights(kept)
    recalibrate(model, ROWS)
    found = {v.name: v.numpy() for v in layer.non_trainable_weights}
    if layer.updates is not None:
        assert (found.pop("updates"), expected.pop("updates")) == (0, 1)
    assert len(found) == (5 if layer.renorm else 2)
    close(found.values(), expected.values(), 1e-5)


def test_statistics_of_keras_renorm_agree_with_each_other():
    """Keras derives the moving variance from `moving_stddev` at its next step."""
    model = small(Keras(renorm=True, momentum=0.999999, name="n"))
    recalibrate(model, ROWS)
    layer, variance = model.get_layer("n"), ROWS.var(0)
    for root in (layer.moving_stddev, layer.renorm_stddev):
        close([root.numpy()], [np.sqrt(variance + layer.epsilon)], 1e-5)
    close([layer.renorm_mean.numpy()], [ROWS.mean(0)], 1e-5)
    model(ROWS[:9], training=True)
    close([layer.moving_variance.numpy()], [variance], 1e-4)


def test_a_list_of_axes():
    x = friendly((20, 4, 3), np.float32)
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, BatchNormalization(axis=[1, 2])(inputs))
    recalibrate(model, x, batch_size=6)
    close(statistics_of(model), (x.mean(0), x.var(0)), 1e-5)


# Layers that are called several times


def test_a_shared_layer_pools_its_calls():
    norm, after = Keras(name="shared"), Keras(name="after")
    one, other = keras.Input((3,)), keras.Input((3,))
    outputs = [after(norm(one)), after(norm(other))]
    model = disturb(keras.Model([one, other], outputs))
    pair = [ROWS, 5 + 2 * ROWS[::-1]]
    report = recalibrate(model, pair)
    both = np.concatenate(pair).astype(np.float64)
    close(statistics_of(model)[:2], (both.mean(0), both.var(0)), 1e-5)
    assert report.rows[0].values == 600
    assert "Not settled" not in str(report)
    assert recalibrate(model, pair).worst == "ok"


def test_a_layer_that_feeds_itself_is_reported_and_settles():
    norm, dense = Keras(name="again"), layers.Dense(3)
    inputs = keras.Input((3,))
    model = disturb(keras.Model(inputs, norm(dense(norm(inputs)))))
    report = recalibrate(model, ROWS)
    assert (report.worst, len(report.notes)) == ("warning", 2)
    assert "Not settled: 'again'" in report.notes[1]
    for _ in range(30):
        report = recalibrate(model, ROWS)
        if "Not settled" not in str(report):
            break
    assert report.worst == "ok"
    both = np.concatenate([ROWS, dense(norm(ROWS))])
    close(statistics_of(model), (both.mean(0), both.var(0)), 5e-3)


def test_in_time_and_in_a_cell():
    """TimeDistributed calls its layer for each step, and an RNN its cell."""
    x = friendly((30, 5, 3), np.float32)
    inputs = keras.Input((None, 3))
    timed = layers.TimeDistributed(Keras(name="inner"), name="timed")(inputs)
    model = disturb(keras.Model(inputs, layers.RNN(Cell(3, name="cell"))(timed)))
    short = [x[:10], x[10:20, :1], x[20:, :3]]  # the first batch has the most steps
    for order in (short, short[::-1]):
        report = recalibrate(model, lambda order=order: iter(order))
        values = np.concatenate([batch.reshape(-1, 3) for batch in short])
        found = model.get_layer("timed").layer
        close(
            (found.moving_mean, found.moving_variance),
            (values.mean(0), values.var(0)),
            1e-5,
        )
        assert [row.path for row in report] == ["timed/inner", "rnn/cell/inside"]
        # Keras runs a cell once more on the first step, in training too
        assert [row.values for row in report] == [90, 90 + 30]


@keras.saving.register_keras_serializable(package="test")
class Cell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = units
        self.inside, self.dense = Keras(name="inside"), layers.Dense(units)

    def build(self, shape):
        self.inside.build(shape)
        self.dense.build(shape)

    def call(self, x, states, training=None):
        state = tf.tanh(self.dense(self.inside(x, training=training)) + states[0])
        return state, [state]


class Forked(keras.Model):
    """Which layers are called, and in what order, depends on the batch."""

    def __init__(self):
        super().__init__()
        self.norms = [Keras(name=f"n{i}") for i in range(4)]
        for norm in self.norms:
            norm.build((None, 3))
        self.built = True

    def call(self, x, training=None):
        first, second, third, _ = self.norms
        if float(x[0, 0]) > 100:
            x = third(second(x, training=training), training=training)
        return first(x, training=training)


def test_layers_that_are_not_always_called():
    model = disturb(Forked())
    batches = ROWS[:100], ROWS[100:] + 200
    before = statistics_of(model)
    report = recalibrate(model, lambda: iter(batches))
    rows = {row.path: row for row in report}
    assert [rows[f"n{i}"].values for i in range(4)] == [300, 200, 200, 0]
    assert (rows["n3"].level, rows["n3"].mean_moved) == ("warning", None)
    assert "no data reached them: 'n3'" in str(report)
    close(statistics_of(model)[6:], before[6:], 0)
    # those before are right, so that the first, which is called last, is right too
    _, second, third, _ = model.norms
    into = np.concatenate([batches[0], third(second(batches[1]))])
    close(statistics_of(model)[:2], (into.mean(0), into.var(0)), 1e-4)


# Types, and numbers that are hard


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("kind", [Keras, BatchNormalization])
def test_mixed_precision_sums_in_float64(policy, kind):
    parts = [kind(dtype=policy), layers.Dense(3, dtype=policy), kind(dtype=policy)]
    model = disturb(keras.Sequential([keras.Input((3,)), *parts]))
    x = (1000 + friendly((4000, 3))).astype(np.float32)
    recalibrate(model, x, batch_size=500)
    low = tf.cast(tf.cast(x, policy[6:]), tf.float64).numpy()
    close(statistics_of(model)[:2], (low.mean(0), low.var(0)), 1e-6)


def test_float16_inputs():
    model = small(Keras())
    x = friendly((3000, 3), np.float16)
    recalibrate(model, x, batch_size=1000)
    wide = x.astype(np.float64)
    close(statistics_of(model), (wide.mean(0), wide.var(0)), 1e-5)


def test_statistics_that_float16_cannot_hold_are_refused():
    part = Keras(dtype="float16")
    model = disturb(keras.Sequential([keras.Input((3,)), part]))
    before = state_of(model)
    with pytest.raises(ValueError, match=r"must fit into float16.*swap_in"):
        recalibrate(model, 1000 * ROWS)
    assert state_of(model) == before


def test_a_large_mean_and_a_constant_channel():
    x = np.concatenate([1e6 + ROWS.astype("f8"), 0 * ROWS[:, :1] + 123456.789], 1)
    model = small(Keras(name="n"), width=4)
    for _ in range(2):
        report = recalibrate(model, x.astype(np.float32), batch_size=9)
        mean, variance = statistics_of(model)
        seen = x.astype(np.float32).astype("f8")
        close((mean, variance), (seen.mean(0), seen.var(0)), 1e-6)
        assert variance[3] == 0
    assert report.worst == "ok"


# The report


def test_levels_and_numbers_say_how_far_off_it_was():
    x = friendly((1000, 3), np.float32)
    model = small(Keras(name="n", epsilon=1e-5))
    layer = model.get_layer("n")

    def after(shift=0.0, factor=1.0):
        mean, variance = x.mean(0), x.var(0)
        mean[1] += shift * np.sqrt(variance[1])
        variance[2] *= factor
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
        (row,) = recalibrate(model, x).rows
        close([row.mean_moved, row.variance_was], [abs(shift), factor], 1e-3)
        assert (row.values, row.channels) == (1000, 3)
        return row.level

    assert [after(v) for v in (0, 0.09, -0.2, 0.6)] == ["ok", "ok", "info", "warning"]
    assert [after(0, v) for v in (1.09, 0.85, 1.2)] == ["ok", "info", "info"]
    assert [after(0, v) for v in (0.4, 1.9)] == ["warning", "warning"]


def test_few_examples_are_said():
    model = small(Keras())
    for count, few in ((20, True), (199, True), (200, False)):
        report = recalibrate(model, ROWS[:count])
        assert report.notes[0].startswith(f"{count} examples in ")
        assert ("are few" in str(report)) == few
        assert len(report.notes) == 1 + few
    assert "to within 32%" in str(recalibrate(model, ROWS[:20]))
    image = friendly((3, 20, 20, 3), np.float32)
    inputs = keras.Input((20, 20, 3))
    report = recalibrate(keras.Model(inputs, Keras()(inputs)), image)
    assert report.rows[0].values == 1200
    assert "3 are few" in str(report)  # the values of one image are alike
    json.loads(report.to_json())


def test_one_example_leaves_the_variance_alone():
    model = small(Keras())
    before = statistics_of(model)
    report = recalibrate(model, ROWS[:1])
    close(statistics_of(model), before, 0)
    assert report.worst == "warning"
    assert "fewer than two values" in str(report)


class Wired(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = Keras(name="n")

    def call(self, x):
        return self.norm(x, training=True)


def test_a_call_with_training_true_is_said():
    model = Wired()
    model(ROWS)
    report = recalibrate(model, ROWS)
    assert "Called with training=True: 'n'" in str(report)
    close(statistics_of(model), (ROWS.mean(0), ROWS.var(0)), 1e-5)
    # in a Functional model the outermost call wins
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Keras()(inputs, training=True))
    assert "training=True" not in str(recalibrate(model, ROWS))


# Data


class Parts(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, place):
        return ROWS[100 * place : 100 * place + 100], np.zeros(100)


def test_data_of_every_kind_give_the_same():
    model = disturb(small(Keras(), Keras()), 1)
    expected = oracle(model, ROWS)
    dataset = tf.data.Dataset.from_tensor_slices((ROWS, ROWS)).shuffle(300)
    kinds = {
        "arrays and targets": (ROWS, np.zeros(300)),
        "tensor": tf.constant(ROWS),
        "dataset": dataset.batch(70),
        "function": lambda: dataset.map(lambda x, y: (x, y)).batch(70),
        "PyDataset": Parts(),
        "batches": lambda: iter([(ROWS[:5], 0), (ROWS[5:], 0)]),
    }
    for data in kinds.values():
        disturb(model, 1)
        recalibrate(model, data)
        close(statistics_of(model), expected, 1e-5)
    disturb(model, 1)
    recalibrate(model, iter([ROWS]), method="fast")
    close(statistics_of(model), expected, 1e-5)


def test_several_inputs_by_name():
    one, other = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = disturb(
        keras.Model({"a": one, "b": other}, Keras()(layers.Add()([one, other])))
    )
    recalibrate(model, {"a": ROWS, "b": ROWS})
    close(statistics_of(model), (2 * ROWS.mean(0), 4 * ROWS.var(0)), 1e-5)


def used_up():
    """A function that gives the same iterator again."""
    batches = iter([ROWS])
    return lambda: batches


def shrinking():
    sizes = iter((300, 200))
    return lambda: iter([ROWS[: next(sizes)]])


REFUSED = {
    "generator": (lambda: (x for x in [ROWS]), r"lambda: batches\(\).*method='fast'"),
    "used up": (used_up, "must hold examples"),
    "other data": (shrinking, "got 300 examples, then 200"),
    "empty": (list, "must hold examples"),
    "no rows": (lambda: ROWS[:0], "must hold examples"),
    "NaN": (lambda: np.concatenate([ROWS, ROWS * np.nan]), "holds NaN"),
    "overflow": (
        lambda: np.concatenate([ROWS, ROWS * 1e37]),
        "^(what 'b' is fed must be finite|the statistics of 'a' must fit into float32)",
    ),
    "list of batches": (
        lambda: [ROWS[:32], ROWS[32:64]],
        "has 1; got 2 .*lambda: batches",
    ),
    "list of pairs": (lambda: [(ROWS, ROWS)], "has 1; got 2 arrays"),
    "list and targets": (lambda: ([ROWS, ROWS], ROWS), "has 1; got 2 arrays"),
    "a number": (lambda: np.array(3.0), r"got a single ndarray.*np\.stack"),
    "rank": (
        lambda: ROWS[:, 0],
        r"must be what .* takes; .* \(32,\) float32: .*(compat|ndim)",
    ),
    "words": (lambda: np.full((8, 3), "a"), r"must be what .* takes; .* \(8, 3\) str"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("method", ["exact", "fast"])
def test_what_is_refused_leaves_the_model_as_it_was(kind, method):
    if method == "fast" and kind in ("generator", "used up", "other data"):
        pytest.skip("one walk is enough")
    model = small(Keras(name="a"), Keras(name="b"), Keras(name="c"))
    model.layers[1].kernel.assign(np.full((3, 3), 1e6))
    make, words = REFUSED[kind]
    before = state_of(model)
    with pytest.raises(ValueError, match=words):
        recalibrate(model, make(), method=method)
    assert state_of(model) == before
    assert all("call" not in vars(layer) for layer in model.layers)
    assert not tf.config.functions_run_eagerly()


def test_an_interruption_on_the_way_leaves_the_model_as_it_was():
    model, walks = small(Keras(), Keras(), Keras()), []

    def data():
        walks.append(1)
        yield ROWS
        if len(walks) == 3:
            raise KeyboardInterrupt

    before = state_of(model)
    with pytest.raises(KeyboardInterrupt):
        recalibrate(model, data)
    assert state_of(model) == before


def test_other_refusals():
    model, x = small(Keras()), ROWS
    with pytest.raises(ValueError, match="method must be 'exact' or 'fast'"):
        recalibrate(model, x, method="slow")
    with pytest.raises(ValueError, match="must have batch norm layers"):
        recalibrate(keras.Sequential([keras.Input((3,)), layers.Dense(1)]), x)
    with pytest.raises(TypeError, match=r"must be a keras\.Model"):
        recalibrate("model.keras", x)
    with pytest.raises(TypeError, match="data must be"):
        recalibrate(model, 3)
    with pytest.raises(ValueError, match="batch_size must be"):
        recalibrate(model, x, batch_size=0)
    with pytest.raises(ValueError, match=r"outside of a tf\.function"):
        tf.function(lambda: recalibrate(model, x) and 0)()


# Statistics that are no numbers


@pytest.mark.parametrize("method", ["exact", "fast"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, -1e-3])
def test_statistics_that_are_no_numbers_are_mended(value, method):
    model = small(Keras(name="a"), Keras(name="b"), Keras(name="c"))
    expected = oracle(model, ROWS)
    for name in ("a", "b"):
        model.get_layer(name).moving_variance.assign([1, value, 1])
        model.get_layer(name).moving_mean.assign([value, 0, 0])
    report = recalibrate(model, ROWS, method=method, batch_size=len(ROWS))
    close(statistics_of(model), expected, 1e-5)
    assert [row.level for row in report][:2] == ["warning", "warning"]
    json.loads(report.to_json())


def test_a_weight_that_is_no_number_is_named():
    model = small(Keras(name="a"), Keras(name="b"), Keras(name="c"))
    kernel = model.layers[3].kernel  # between b and c
    kernel.assign(np.full((3, 3), np.nan))
    before = state_of(model)
    with pytest.raises(
        ValueError, match=f"what 'c' is fed .*{model.layers[3].name}/kernel"
    ):
        recalibrate(model, ROWS)
    assert state_of(model) == before


def test_statistics_that_are_left_out_are_named():
    model = small(Keras(name="a"), Keras(name="b"))
    model.get_layer("a").moving_variance.assign([1, np.nan, 1])
    with pytest.raises(ValueError, match=r"'b' is fed .*is in 'a/moving_variance'"):
        recalibrate(model, ROWS, layers="b")


class EitherWay(keras.Model):
    """Calls one of two branches first, by the batch, and the other on what that gave."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Keras(name="a"), Keras(name="b")

    def call(self, x, training=None):
        if len(x) == 200:
            return self.b(self.a(x, training=training), training=training)
        return self.a(tf.math.log(self.b(x, training=training)), training=training)


def test_what_is_not_finite_is_refused_also_where_another_layer_was_first():
    model = EitherWay()
    model(ROWS[:200])
    before = state_of(model)
    with pytest.raises(ValueError, match="what 'a' is fed must be finite"):
        recalibrate(model, ROWS, batch_size=200)
    assert state_of(model) == before


def test_counts_have_a_plural():
    model = small(Keras())
    first = recalibrate(model, ROWS[:1]).notes[0]
    assert first == "1 example in 1 batch; 1 walk over the data."
    assert "2 examples in 2 batches" in str(recalibrate(model, ROWS[:2], batch_size=1))


# Nothing else changes


class Counting(layers.Layer):
    """A layer with a metric, random numbers and a counter, at inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = keras.metrics.Mean()
        self.seeds = keras.random.SeedGenerator(7)
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.seen.update_state(x)
        self.calls.assign_add(1.0)
        return x + 1e-3 * keras.random.normal(keras.ops.shape(x), seed=self.seeds)


@pytest.mark.parametrize("method", ["exact", "fast"])
def test_nothing_but_the_statistics_changes(method):
    inputs = keras.Input((4, 3))
    x = layers.Dropout(0.5)(Counting()(Keras()(inputs)))
    x = layers.SpectralNormalization(layers.Dense(3))(x)
    x = layers.LSTM(3, stateful=False)(Keras()(x))
    model = keras.Model(inputs, layers.Dense(1)(Keras()(x)))
    model.compile(keras.optimizers.Adam(use_ema=True), "mse", metrics=["mae"])
    x = friendly((32, 4, 3), np.float32)
    model.fit(x, x[:, 0, :1], verbose=0)
    before = state_of(model)
    report = recalibrate(model, x, method=method)
    own = [v for v in model.variables if v.name.startswith("moving")]
    assert len(own) == 6
    changed = [a != b for a, b in zip(before, state_of(model), strict=True)]
    assert sum(changed) == len(own)
    places = [any(v is o for o in own) for v in model.variables]
    assert changed[: len(places)] == places
    assert report.worst == "warning"
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


# A user's model, and the callback


def images():
    from bnlib.book.data import digits

    x, y, x_test, y_test = digits()
    return x[..., np.newaxis], y, x_test[..., np.newaxis], y_test


def digits_model(**ema):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((8, 8, 1))]
    for stride in (1, 1, 2, 1):
        conv = layers.Conv2D(16, 3, stride, padding="same", use_bias=False)
        parts += [conv, Keras(), layers.ReLU()]
    model = keras.Sequential(
        [*parts, layers.GlobalAveragePooling2D(), layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01, **ema), loss, metrics=["accuracy"])
    return model


def accuracy(model, x, y):
    return model.evaluate(x, y, batch_size=256, verbose=0)[1]


@pytest.mark.parametrize("ema", [{}, {"use_ema": True, "ema_momentum": 0.95}])
def test_good_in_fit_and_bad_in_evaluate(ema):
    x, y, x_test, y_test = images()
    model = digits_model(**ema)
    run = model.fit(x, y, batch_size=64, epochs=2, verbose=0)
    assert run.history["accuracy"][-1] > 0.9
    assert accuracy(model, x_test, y_test) < 0.7
    report = recalibrate(model, x, batch_size=256)
    assert accuracy(model, x_test, y_test) > 0.9
    assert report.worst == "warning"
    assert recalibrate(model, x, batch_size=256).worst == "ok"


class Recorder(keras.callbacks.Callback):
    """Notes what the moving means and the weights are at some moments."""

    def __init__(self):
        super().__init__()
        self.tested, self.ended, self.last = [], [], None

    def now(self):
        return self.model.get_weights()

    def on_test_begin(self, logs=None):
        self.tested.append(self.now())

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(self.now())

    def on_train_end(self, logs=None):
        self.last = self.now()


def tiny(**ema):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3), Keras(), layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.05, **ema), "mse")
    return model


def is_right(weights):
    """Whether moving statistics are those of the data, with these weights."""
    kernel, bias, _, _, mean, variance = weights[:6]
    values = ROWS @ kernel + bias
    return np.allclose(mean, values.mean(0), atol=1e-4) and np.allclose(
        variance, values.var(0), rtol=1e-4
    )


TARGETS = ROWS.sum(-1, keepdims=True)


def test_the_callback_at_the_end_of_fit():
    model, callback, recorder = tiny(), Recalibrate(ROWS), Recorder()
    model.fit(ROWS, TARGETS, epochs=2, verbose=0, callbacks=[callback, recorder])
    assert [is_right(w) for w in recorder.ended] == [False, False]
    assert is_right(recorder.last)
    assert is_right(model.get_weights())
    assert [len(report) for report in callback.reports] == [1]


@pytest.mark.parametrize("validated", [True, False])
def test_the_callback_before_each_second_validation(validated):
    model, recorder = tiny(), Recorder()
    callback = Recalibrate(ROWS, every=2, method="fast", layers=iter(["bn"]))
    model.layers[1].name = "bn"
    given = (ROWS, TARGETS) if validated else None
    callbacks = [callback, recorder]
    model.fit(
        ROWS, TARGETS, epochs=5, verbose=0, validation_data=given, callbacks=callbacks
    )
    expected = [False, True, False, True, False]
    if validated:
        assert [is_right(w) for w in recorder.tested] == expected
    assert [is_right(w) for w in recorder.ended] == expected
    assert len(callback.reports) == 3
    model.evaluate(ROWS, TARGETS, verbose=0, callbacks=[callback])
    assert len(callback.reports) == 3


def test_the_callback_after_averaged_weights():
    """At the end the average is in place; with SwapEMAWeights it is in each validation."""
    ema = {"use_ema": True, "ema_momentum": 0.9}
    model, recorder = tiny(**ema), Recorder()
    callbacks = [keras.callbacks.SwapEMAWeights(), Recalibrate(ROWS, every=1), recorder]
    data = {"validation_data": (ROWS, TARGETS)}
    model.fit(ROWS, TARGETS, epochs=2, verbose=0, callbacks=callbacks, **data)
    assert all(is_right(w) for w in recorder.tested)
    # the weights of training are back, the statistics of the average stay
    assert not any(is_right(w) for w in recorder.ended)
    assert is_right(recorder.last)
    plain = tiny(**ema)
    plain.fit(ROWS, TARGETS, epochs=2, verbose=0)
    close(model.trainable_weights, plain.trainable_weights, 1e-6)
    assert not is_right(plain.get_weights())
    other = tiny(**ema)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callbacks = [swap, Recalibrate(ROWS, every=1), saved := Recorder()]
    other.fit(ROWS, TARGETS, epochs=2, verbose=0, callbacks=callbacks)
    assert all(is_right(w) for w in [*saved.ended, saved.last])  # what is saved there


def test_the_callback_behind_one_that_restores_weights():
    model = tiny()
    stop = keras.callbacks.EarlyStopping(
        "loss", patience=0, restore_best_weights=True, min_delta=1e9
    )
    model.fit(ROWS, TARGETS, epochs=5, verbose=0, callbacks=[stop, Recalibrate(ROWS)])
    assert is_right(model.get_weights())


def test_the_callback_refuses_before_training():
    with pytest.raises(ValueError, match="used up after one"):
        Recalibrate(x for x in [ROWS])
    with pytest.raises(ValueError, match="every few epochs"):
        Recalibrate((x for x in [ROWS]), every=2, method="fast")
    assert Recalibrate(ROWS, every=np.int64(2)).every == 2
    with pytest.raises(ValueError, match="which has 1; got 2 arrays"):
        tiny().fit(ROWS, TARGETS, verbose=0, callbacks=[Recalibrate([ROWS, ROWS])])
    for every in (0, 1.5, True):
        with pytest.raises(ValueError, match="every must be a positive"):
            Recalibrate(ROWS, every=every)
    model = tiny()
    before = state_of(model)
    with pytest.raises(ValueError, match="There are 'batch_norm"):
        model.fit(ROWS, TARGETS, verbose=0, callbacks=[Recalibrate(ROWS, layers=["x"])])
    assert state_of(model)[: len(model.variables)] == before[: len(model.variables)]


# Replicas, and memory: processes of their own

REPLICAS = """
import json
import keras, numpy as np, tensorflow as tf
from bnlib.doctor import Recalibrate, recalibrate
from bnlib.keras import BatchNormalization
from bnlib.replicas import mirrored, per_replica

strategy = mirrored(2)
x = np.random.default_rng(0).normal([3, -2, 0], [1, 4, .5], (64, 3)).astype("f4")
found = {}
for layer, settings in (
    (keras.layers.BatchNormalization, {}),
    (BatchNormalization, {"synchronized": True}),
):
    for inside in (False, True):
        with strategy.scope():
            model = keras.Sequential([keras.Input((3,)), layer(**settings, name="n"),
                keras.layers.Dense(2), layer(**settings, name="frozen")])
            model.compile("sgd", "mse")
        model.get_layer("frozen").trainable = False
        held = [v for n in ("n", "frozen") for v in model.get_layer(n).non_trainable_weights[-2:]]
        def copies():
            return [[c.numpy().tolist() for c in strategy.experimental_local_results(v.value)]
                for v in held]
        for i, v in enumerate(held):  # replicas that went apart
            for j, c in enumerate(strategy.experimental_local_results(v.value)):
                c.assign(np.full(v.shape[-1], 1.0 + i + 10 * j, "f4"))
        before = copies()
        try:
            recalibrate(model, np.concatenate([x, np.nan * x]))
        except ValueError:
            failed = copies() == before
        if inside:
            with strategy.scope():
                recalibrate(model, x)
        else:
            recalibrate(model, x)
        after = copies()
        if not inside:
            model.fit(x, x[:, :2], verbose=0, batch_size=16, callbacks=[Recalibrate(x)])
        found[f"{layer} {inside}"] = [before, after, copies(), failed]

def refused(run):
    try:
        run()
    except ValueError as error:
        return str(error)
step = lambda: strategy.run(lambda: recalibrate(model, x) and None)
found["errors"] = [refused(step), refused(tf.function(step))]
found["expected"] = [x.astype("f8").mean(0).tolist(), x.astype("f8").var(0).tolist()]
print(json.dumps(found))
"""


def output_of(code):
    """Run code in a process of its own, and read the JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_all_replicas_get_the_statistics():
    found = output_of(REPLICAS)
    expected = found.pop("expected")
    assert all("outside of strategy.run" in error for error in found.pop("errors"))
    assert len(found) == 4
    for before, after, trained, failed in found.values():
        assert failed
        assert after[2:] == before[2:]  # the frozen layer: each replica its own
        for statistics in (after[:2], trained[:2]):
            for copies, right in zip(statistics, expected, strict=True):
                assert len(copies) == 2
                assert copies[0] == copies[1]
                close(copies[:1], [right], 1e-5)


MEMORY = """
import json, resource
import keras, numpy as np
from bnlib.doctor import recalibrate

inputs = keras.Input((32, 32, 3))
x = keras.layers.BatchNormalization()(inputs)
x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, 2)(x))
model = keras.Model(inputs, x)

def data(count):
    rng = np.random.default_rng(0)
    return lambda: (rng.random((128, 32, 32, 3), "f4") for _ in range(count))

peaks = {}
for method in ("exact", "fast"):
    for count in (2, 2, 8, 32):
        recalibrate(model, data(count), method=method)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        peaks.setdefault(method, []).append(peak)
print(json.dumps(peaks))
"""


def test_memory_does_not_grow_with_the_data():
    """Four, sixteen times 3 MB of data would be 9 and 47 MB more, if they were held."""
    for _, once, four, sixteen in output_of(MEMORY).values():
        assert four - once < 5
        assert sixteen - once < 5
