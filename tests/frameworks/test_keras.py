"""Our Keras layer: Keras's own tests, masks, what only ours can do, and whole models.

Its comparison with Keras's is in test_keras_agrees.py, Keras's faults in test_keras_faults.py.
"""

import threading
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import keras.src.layers.normalization.batch_normalization_test as theirs
import numpy as np
import pytest
import tensorflow as tf
from keras_pair import TOLERANCE, Keras, assert_close, step, wide
from reference import channel_values, loop_moments
from samples import ROWS, friendly

import bnlib
from bnlib import tf_ops
from bnlib.keras import BatchNormalization, swap_in, swap_out


@pytest.mark.filterwarnings(
    "ignore"
)  # theirs: NumPy's copy keyword, and names in tests
class TestKerasOwnTests(theirs.BatchNormalizationTest):
    """Keras's test file for its layer, with ours in its place."""

    @pytest.fixture(autouse=True)
    def ours_in_its_place(self, monkeypatch):
        names = {n: getattr(keras.layers, n) for n in dir(keras.layers)}
        names["BatchNormalization"] = BatchNormalization
        monkeypatch.setattr(theirs, "layers", types.SimpleNamespace(**names))

    def test_renorm_correctness(self):
        """Theirs wants the moving variance derived from an average of deviations.

        All its other expectations hold: the failure must be this one, by this much.
        """
        with pytest.raises(AssertionError, match="Not equal to tolerance") as caught:
            super().test_renorm_correctness()
        lines = [str(entry.statement) for entry in caught.traceback]
        assert any("layer.moving_stddev" in line for line in lines)


del theirs.BatchNormalizationTest  # or pytest would collect it here too


# What only ours gets right


@pytest.mark.parametrize("synchronized", [False, True])
@pytest.mark.parametrize("row", [r for r in ROWS if ROWS[r].dtype == np.float32])
def test_large_means_are_normalised(row, synchronized):
    for x in (ROWS[row], np.tile(ROWS[row], (40, 1))):
        layer = BatchNormalization(synchronized=synchronized)
        expected, *_ = bnlib.batch_norm(x)
        outliers = row == "one outlier first" and not synchronized
        # float32 sums keep four digits of the rest beside values a million times as large
        assert_close([layer(x, training=True)], [expected], 1e-4 if outliers else 1e-5)


# Masks, against loops


def full(weights, axes):
    """See weights along some axes as an array that broadcasts against x."""
    return np.expand_dims(weights, axes)


def masks():
    """By kind: shape of x, axis, the mask, and how that weighs each value of x."""
    rng = np.random.default_rng(1)
    chosen, weights = rng.random((5, 7)) < 0.6, rng.uniform(0, 3, (5, 7))
    weights[chosen] = 0
    some, channels = np.arange(5) != 2, rng.random((5, 4)) < 0.7
    one = np.arange(7) < 5
    return {
        "boolean": ((5, 7, 3), -1, chosen, full(chosen, 2)),
        "weights": ((5, 7, 3), -1, weights, full(weights, 2)),
        "small weights": ((5, 7, 3), -1, weights / 1e3, full(weights / 1e3, 2)),
        "whole numbers": ((5, 7, 3), -1, 2 * chosen, full(chosen, 2)),
        "per example": ((5, 7, 3), -1, some, full(some, (1, 2))),
        "beside the channels": ((5, 3, 7), 1, chosen, full(chosen, 1)),
        "over the channels, as Keras makes it": (
            (5, 4, 7),
            1,
            channels,
            full(channels, 2),
        ),
        "one channel": ((7, 1), -1, one, full(one, 1)),
        "of an image": (
            (2, 5, 7, 3),
            -1,
            [chosen, ~chosen],
            full([chosen, ~chosen], 3),
        ),
        "several axes": ((5, 7, 3), [1, 2], some, full(some, (1, 2))),
    }


MASKS = masks()
POLICIES = ["float32", "float64", "mixed_float16", "mixed_bfloat16"]


def masked(kind, policy):
    """Return x with NaN where nothing counts, the layer, the mask, and what to expect."""
    shape, axis, mask, weights = MASKS[kind]
    layer = BatchNormalization(axis=axis, momentum=0.0, dtype=policy)
    x = tf.cast(friendly(shape, np.float64), layer.compute_dtype)
    if weights.dtype == float:  # Keras casts whatever is given to a layer
        mask = weights = wide(tf.cast(weights, x.dtype))
        mask = mask.reshape(mask.shape[: len(shape) - 1])
    exact, weights = wide(x), np.broadcast_to(weights, shape)
    flat, share = (
        v.reshape(shape[0], -1) if axis == [1, 2] else v for v in (exact, weights)
    )
    kept = -1 if axis == [1, 2] else axis
    per_channel = zip(
        channel_values(flat, kept), channel_values(share, kept), strict=True
    )
    moments = [loop_moments(np.array([v]).T, weights=w) for v, w in per_channel]
    mean, variance = (np.array([float(m[i][0]) for m in moments]) for i in (0, 1))
    where = bnlib.layout(shape, tuple(axis) if axis == [1, 2] else axis)
    y = exact - mean.reshape(where.broadcast)
    y /= np.sqrt(variance.reshape(where.broadcast) + 1e-3)
    hidden = np.where(weights == 0, np.nan, exact)
    expected = y, mean.reshape(where.channels), variance.reshape(where.channels)
    return tf.cast(hidden, x.dtype), layer, tf.constant(mask), weights > 0, expected


def check_masked(layer, y, visible, expected):
    assert y.dtype == layer.compute_dtype
    limit = TOLERANCE[layer.compute_dtype]
    assert_close([wide(y)[visible]], [expected[0][visible]], limit)
    moving = wide(layer.moving_mean), wide(layer.moving_variance)
    assert_close(moving, expected[1:], min(limit, 1e-5))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind(kind, policy):
    x, layer, mask, visible, expected = masked(kind, policy)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, mask=mask)
        loss = tf.reduce_sum(tf.where(visible, y, tf.zeros_like(y)) ** 3)
    check_masked(layer, y, visible, expected)
    assert np.isfinite(wide(tape.gradient(loss, x))).all()


def test_masks_of_every_kind_compiled():
    """All in one program, for compiling takes its time."""
    policies = [POLICIES[i % 4] for i in range(len(MASKS))]
    cases = [masked(*case) for case in zip(MASKS, policies, strict=True)]
    for x, layer, *_ in cases:
        layer.build(x.shape)
    layers = [layer for _, layer, *_ in cases]

    @tf.function(jit_compile=True)
    def run(xs, masks):
        given = zip(layers, xs, masks, strict=True)
        return [layer(x, training=True, mask=m) for layer, x, m in given]

    ys = run([x for x, *_ in cases], [mask for _, _, mask, *_ in cases])
    for y, (_, layer, _, visible, expected) in zip(ys, cases, strict=True):
        check_masked(layer, y, visible, expected)


@pytest.mark.parametrize(
    "settings",
    [{"momentum": None}, {"zero_debias": True}, {"bessel": True, "momentum": 0.0}],
)
def test_one_value_leaves_no_trace_of_the_first_variance(settings):
    """As the single example that an epoch ends with; the first full batch then counts in full."""
    x, layer = friendly((7, 3), np.float32), BatchNormalization(**settings)
    layer(x, training=True, mask=np.arange(7) == 2)
    assert_close([layer.moving_mean, layer.moving_variance], [x[2], np.ones(3)], 1e-5)
    layer(x, training=True)
    factor = 7 / 6 if layer.bessel else 1
    expected = [x.mean(0), factor * x.var(0)]
    assert_close([layer.moving_mean, layer.moving_variance], expected)


@pytest.mark.parametrize("total", [0.5, 2.5])
def test_bessel_takes_a_sum_of_weights_for_the_number_of_values(total):
    x, weights = friendly((5, 3), np.float32), np.array([1, 2, 0, 3, 4]) * total / 10
    layer = BatchNormalization(bessel=True, momentum=0.0)
    layer(x, training=True, mask=weights)
    mean, variance, _ = bnlib.moments(x, weights=weights)
    expected = variance * total / (total - 1) if total > 1 else np.ones(3)
    assert_close([layer.moving_mean, layer.moving_variance], [mean, expected])


# Batches of nothing, and of one


@pytest.mark.parametrize(
    "settings",
    [{}, {"momentum": None}, {"zero_debias": True}, {"renorm": True}, {"bessel": True}],
)
@pytest.mark.parametrize("nothing", ["masked", "empty"])
def test_a_batch_of_nothing_leaves_the_statistics_alone(settings, nothing):
    layer = BatchNormalization(**settings)
    layer(friendly((7, 3), np.float32), training=True)
    before = layer.get_weights()
    x = friendly((7, 3), np.float32, 1)
    if nothing == "masked":
        y = layer(x, training=True, mask=np.zeros(7, bool))
        assert np.isfinite(y).all()
    else:
        assert layer(x[:0], training=True).shape == (0, 3)
        unknown = tf.function(
            lambda x: layer(x, training=True),
            input_signature=[tf.TensorSpec([None, 3])],
        )
        unknown(x[:0])
    for mine, was in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, was)


def test_one_value_per_channel_warns_and_brings_no_variance():
    layer = BatchNormalization(momentum=0.5)
    with pytest.warns(UserWarning, match="one value per channel"):
        y = layer(np.array([[3.0, 5.0]], np.float32), training=True)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_allclose(layer.get_weights()[2], [1.5, 2.5])
    np.testing.assert_array_equal(layer.get_weights()[3], 1)


# The population's options, against the core's estimators


@pytest.mark.parametrize("bessel", [False, True])
@pytest.mark.parametrize(
    ("settings", "estimator"),
    [
        ({"momentum": 0.8}, lambda **b: bnlib.Exponential(3, 0.8, **b)),
        (
            {"momentum": 0.8, "zero_debias": True},
            lambda **b: bnlib.DebiasedExponential(3, 0.8, **b),
        ),
        ({"momentum": None}, lambda **b: bnlib.Cumulative(3, **b)),
    ],
)
def test_the_population_is_that_of_the_core(settings, estimator, bessel):
    layer, population = (
        BatchNormalization(**settings, bessel=bessel),
        estimator(bessel=bessel),
    )
    for n, seed in zip((2, 5, 3, 7), range(4), strict=True):
        x = friendly((n, 3), np.float32, seed)
        layer(x, training=True)
        population.update(bnlib.moments(x))
    assert_close([layer.moving_mean, layer.moving_variance], population.value()[:2])


def test_renorm_averages_the_variance():
    layer = BatchNormalization(renorm=True, momentum=0.9)
    layer(np.full((4, 1), 7.0, np.float32), training=True)
    np.testing.assert_allclose(layer.moving_variance, [0.9], rtol=1e-6)  # Keras: 0.8147
    layer.moving_variance.assign([100.0])
    layer(np.array([[1.0], [3.0]], np.float32), training=True)
    np.testing.assert_allclose(layer.moving_variance, [90.1], rtol=1e-6)  # Keras: 1.18


def test_renorm_clips_by_a_schedule():
    def rmax(step):
        return tf.where(step < 1, 1.0, 2.0)

    x = np.array([[-10.0], [10.0]], np.float32)
    layer = BatchNormalization(renorm=True, renorm_clipping={"rmax": rmax, "dmax": 0.0})
    for limit in (1.0, 2.0):
        y = layer(x, training=True)
        np.testing.assert_allclose(y, [[-limit], [limit]], rtol=1e-4)


def test_ghost_batches_are_those_of_keras_2():
    x = friendly((6, 3), np.float32)
    layer = BatchNormalization(virtual_batch_size=2, momentum=0.0)
    y = layer(x, training=True)
    groups = [bnlib.batch_norm(x[i::3]) for i in range(3)]
    for i, (expected, *_) in enumerate(groups):
        assert_close([y[i::3]], [expected])
    assert_close([layer.moving_variance], [np.mean([v for _, _, v in groups], axis=0)])


def test_adjustment_comes_before_gamma_and_beta():
    x = friendly((5, 3), np.float32)
    layer = BatchNormalization(adjustment=lambda shape: (2.0, 1.0))
    layer.build(x.shape)
    layer.gamma.assign([3.0] * 3), layer.beta.assign([5.0] * 3)
    expected = (bnlib.batch_norm(x)[0] * 2 + 1) * 3 + 5
    assert_close([layer(x, training=True)], [expected])
    assert_close(
        [layer(x)],
        [bnlib.batch_norm_inference(x, *layer.get_weights()[2:], [3.0] * 3, [5.0] * 3)],
    )


def test_several_axes_are_kept():
    x = friendly((7, 5, 3), np.float32)
    layer = BatchNormalization(axis=[1, 2], momentum=0.0)
    assert_close([layer(x, training=True)], [bnlib.batch_norm(x, axis=(1, 2))[0]])
    assert layer.moving_mean.shape == (5, 3)


# Arguments, saving, and whole models


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"momentum": -0.1}, "momentum must lie in"),
        ({"epsilon": -1}, "epsilon must be finite"),
        ({"axis": []}, "axis must be an integer"),
        ({"axis": [1, 1]}, "axis must be an integer"),
        ({"renorm_clipping": {"rmx": 1}}, "rmin, rmax and dmax"),
        ({"renorm_clipping": {"rmin": 2, "rmax": 1}}, "rmax=1.0, rmin=2.0"),
        ({"renorm_clipping": {"rmin": -1}}, "non-negative"),
        ({"renorm_clipping": {"dmax": -1}}, "non-negative"),
        ({"momentum": None, "zero_debias": True}, "zero_debias"),
        ({"virtual_batch_size": 0}, "positive integer"),
        ({"virtual_batch_size": True}, "positive integer"),
        ({"virtual_batch_size": 2, "renorm": True}, "cannot be combined"),
        ({"fused": 3}, "fused must be"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        BatchNormalization(**settings)


def test_a_wrong_axis_is_refused_when_built():
    with pytest.raises(ValueError, match="axis must lie in"):
        BatchNormalization(axis=3).build((None, 5))
    with pytest.raises(ValueError, match="known size"):
        BatchNormalization(axis=1).build((None, None, 3))


def small_model(norm):
    x = inputs = keras.Input((8, 8, 3))
    x = norm(name="a")(keras.layers.Conv2D(5, 3)(x))
    inner = keras.Sequential(
        [keras.Input((6, 6, 5)), keras.layers.Conv2D(7, 3), norm(name="b")]
    )
    x = keras.layers.Flatten()(inner(x))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def test_a_swap_keeps_what_is_frozen():
    model = small_model(Keras)
    model.layers[2].trainable = False
    assert [x.trainable for x in swap_in(model)._flatten_layers()] == [
        x.trainable for x in model._flatten_layers()
    ]


def test_a_swap_that_would_lose_something_is_refused():
    model = keras.Sequential([keras.Input((3,)), BatchNormalization(zero_debias=True)])
    with pytest.raises(ValueError, match="zero_debias"):
        swap_out(model)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras with NumPy 2
def test_a_model_is_saved_and_loaded(tmp_path):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 3.0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            BatchNormalization(
                renorm=True, renorm_clipping={"rmax": schedule, "dmax": 5.0}
            ),
            BatchNormalization(axis=[1], momentum=None, bessel=True, fused=False),
            BatchNormalization(virtual_batch_size=2, zero_debias=True),
        ]
    )
    x = friendly((6, 3), np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for _ in range(2):
        assert_close([again(x, training=True)], [model(x, training=True)], 1e-6)
    assert_close(again.get_weights(), model.get_weights(), 1e-6)


@pytest.fixture
def float64():
    """Float32 gradients of ResNet50 are off by a hundredth, with Keras's layer as with ours."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def residual(weights, input_shape, classes):
    """Return a network of the kind of ResNet50, with two blocks for its sixteen."""
    layers = keras.layers
    inputs = keras.Input(input_shape)
    x = layers.Activation("relu")(Keras()(layers.Conv2D(8, 3, strides=2)(inputs)))
    for filters in (8, 16):
        y = Keras()(layers.Conv2D(filters, 3, padding="same", strides=2)(x))
        y = layers.Conv2D(filters, 3, padding="same")(layers.Activation("relu")(y))
        x = Keras()(layers.Conv2D(filters, 1, strides=2)(x))
        x = layers.Activation("relu")(layers.Add()([x, Keras()(y)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, "softmax")(x))


@pytest.mark.parametrize(
    ("build", "norms", "rate"),
    [
        (residual, 7, 0.1),
        pytest.param(keras.applications.ResNet50, 53, 0.01, marks=pytest.mark.slow),
    ],
)
def test_resnet50_trains_on_the_path_of_keras(float64, build, norms, rate):
    keras.utils.set_random_seed(0)
    model = build(weights=None, input_shape=(32, 32, 3), classes=10)
    ours = swap_in(model)
    assert sum(isinstance(x, BatchNormalization) for x in ours.layers) == norms
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 32, 32, 3)), rng.integers(10, size=8)
    assert_close([ours(x)], [model(x)], 1e-12)
    losses = []
    for each in (model, ours):
        optimizer = keras.optimizers.SGD(rate)
        each.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        losses.append([each.train_on_batch(x, labels) for _ in range(3)])
    # each step multiplies a difference by some thousands: the fifth shows the last digit's
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert losses[0][-1] < 0.9 * losses[0][0]
    expected, back = ours(x), swap_out(ours)
    assert_close([back(x)], [expected], 1e-12)
    model.set_weights(ours.get_weights())
    assert_close([model(x)], [expected], 1e-12)


# Replicas that are threads; those of TensorFlow are in test_keras_faults.py


@pytest.fixture
def together(monkeypatch):
    """Return a function that runs several functions at once, as replicas of one strategy."""

    def run(*functions):
        barrier, shared = threading.Barrier(len(functions), timeout=60), {}

        def all_reduce(operation, value):
            shared[threading.get_ident()] = value
            barrier.wait()
            total = tf.add_n(list(shared.values()))
            barrier.wait()
            return total

        own = threading.local()

        def numbered(place, function):
            own.context = types.SimpleNamespace(
                num_replicas_in_sync=len(functions),
                replica_id_in_sync_group=place,
                all_reduce=all_reduce,
            )
            return function()

        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: own.context)
        with ThreadPoolExecutor(len(functions)) as pool:
            jobs = [pool.submit(numbered, *each) for each in enumerate(functions)]
            return [job.result() for job in jobs]

    return run


@pytest.mark.parametrize("weighted", [False, True])
def test_synchronized_replicas_are_one_batch(together, weighted):
    sizes, rng = (5, 3, 9), np.random.default_rng(4)
    parts = [100 * k + friendly((n, 3), np.float32, k) for k, n in enumerate(sizes)]
    grads = [rng.standard_normal((n, 3), np.float32) for n in sizes]
    masks = [rng.uniform(0, 0.1, n).astype("f4") for n in sizes]
    settings = {"momentum": 0.0, "bessel": not weighted}

    def replica(layer, x, grad_y, mask):
        layer.build(x.shape)
        layer.gamma.assign([2.0, -1.0, 3.0])
        results = step(layer, tf.constant(x), grad_y, mask=mask if weighted else None)
        return *results, layer.get_weights()[2:]

    layers = [BatchNormalization(synchronized=True, **settings) for _ in parts]
    given = zip(layers, parts, grads, masks, strict=True)
    found = together(*(partial(replica, *each) for each in given))
    whole = [np.concatenate(v) for v in (parts, grads, masks)]
    expected = replica(BatchNormalization(**settings), *whole)
    y, grad_x, *grad_parameters, states = zip(*found, strict=True)
    assert_close([np.concatenate(y), np.concatenate(grad_x)], expected[:2])
    assert_close([sum(map(wide, g)) for g in grad_parameters], expected[2:4])
    for state in states:
        assert_close(state, expected[4])


# What is refused, in our words


@pytest.mark.parametrize("mode", ["eager", "function", "unknown", "fit"])
def test_groups_that_do_not_divide_the_batch(mode):
    layer = BatchNormalization(virtual_batch_size=4)
    x = friendly((6, 3), np.float32)
    words = r"virtual_batch_size must divide .*; got 4 .* drop_remainder=True"
    if mode in ("unknown", "fit"):
        inputs = keras.Input((3,))
        model = keras.Model(inputs, layer(inputs))
        model.compile(loss="mse")
        spec = [tf.TensorSpec([None, 3])]
        call = tf.function(lambda x: layer(x, training=True), input_signature=spec)
        run = model.train_on_batch if mode == "fit" else lambda x, _: call(x)
        run(x[:4], x[:4])
        kind = tf.errors.InvalidArgumentError if mode == "unknown" else Exception
        with pytest.raises(kind, match=words):
            run(x, x)
        return
    run = layer if mode == "eager" else tf.function(layer)
    with pytest.raises(ValueError, match=words):
        run(tf.constant(x), training=True)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["eager", "function"])
def test_ragged_and_sparse_inputs(mode, training):
    ragged = tf.RaggedTensor.from_row_lengths(friendly((7, 3), np.float32), [4, 1, 2])
    layer = BatchNormalization()
    layer.build((None, None, 3))
    run = layer if mode == "eager" else tf.function(layer)
    with pytest.raises(TypeError, match=r"dense tensor; got a Ragged.*row_lengths"):
        run(ragged, training=training)
    with pytest.raises(TypeError, match=r"x must be a dense tensor; got a Ragged"):
        tf_ops.batch_norm(ragged)
    with pytest.raises(TypeError, match=r"x must be a dense tensor; got a Sparse"):
        tf_ops.moments(tf.sparse.from_dense(friendly((7, 3))))
    dense, mask = ragged.to_tensor(), tf.sequence_mask(ragged.row_lengths())
    layer(dense, training=True, mask=mask)
    assert_close([layer.moving_mean * 100], [ragged.flat_values.numpy().mean(0)])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "settings", [{}, {"virtual_batch_size": 2}, {"renorm": True}, {"bessel": True}]
)
def test_an_empty_batch_leaves_every_statistic_alone(settings, known):
    layer = BatchNormalization(moving_variance_initializer="ones", **settings)
    layer.build((None, 3))
    x = np.random.default_rng(0).normal(3, 2, (8, 3)).astype("f4")
    layer(x, training=True)
    before = [wide(v) for v in layer.non_trainable_variables]
    shape = [0, 3] if known else [None, 3]
    step = tf.function(
        lambda x: layer(x, training=True),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )
    assert step(x[:0]).shape == (0, 3)
    for old, new in zip(before, layer.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(wide(new), old)


@pytest.mark.parametrize("false", [False, 0, np.False_])
def test_every_false_is_false(false):
    assert BatchNormalization(fused=false).fused is False
