"""The layer against Keras's own: outputs, gradients, states, files, in every way of use.

What Keras gets wrong is in test_keras_faults.py, and is left out here.
"""

import copy
import itertools
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_pair import Keras, assert_close, pair, sample, step
from samples import friendly

from bnlib.keras import BatchNormalization, swap_in, swap_out

BOTH = [Keras, BatchNormalization]
PLACES = [
    ((13, 3), -1),
    ((3, 13), 0),
    ((7, 5, 3), -1),
    ((7, 3, 5), 1),
    ((5, 7, 11, 3), -1),
    ((5, 3, 7, 11), 1),
    ((5, 7, 3, 11), -2),
    ((2, 3, 5, 7, 11), -1),
    ((2, 3, 5, 7, 11), 1),
    ((4099, 13), -1),
    ((61, 5, 7, 11), 1),
]
POLICIES = ["float32", "float64", "mixed_float16", "mixed_bfloat16"]
FLAGS = list(itertools.product([True, False], repeat=2))
WRAPS = {
    "eager": lambda f: f,
    "function": tf.function,
    "unknown": lambda f: tf.function(f, reduce_retracing=True),
    "xla": lambda f: tf.function(f, jit_compile=True),
}


def draw(place, policy, steps, masked):
    """Batches, cotangents and masks, the same for both layers."""
    (shape, axis), rng = place, np.random.default_rng(7)
    dtype = keras.dtype_policies.get(policy).compute_dtype
    for seed in range(steps):
        x = tf.cast(sample(shape, axis, seed), dtype)
        mask = tf.constant(rng.random(shape[:-1]) < 0.7) if masked else None
        yield x, tf.cast(rng.standard_normal(shape), dtype), mask


def journey(layer, place, policy, masked, mode="eager", steps=3):
    """Train some steps; return all that came of each."""
    if not layer.built:
        layer.build((None, *place[0][1:]) if place[1] else place[0])
    rng = np.random.default_rng(5)
    for v in layer.trainable_variables:
        v.assign(rng.normal(1, 0.5, v.shape))
    call = WRAPS[mode](lambda x, g, m: step(layer, x, g, mask=m))
    found = []
    for x, grad_y, mask in draw(place, policy, steps, masked):
        found += call(x, grad_y, mask)
        found += [
            layer(x, training=False),
            layer(x),
            *map(np.copy, layer.get_weights()),
        ]
    return found


def same_journey(place, policy, masked, mode="eager", **settings):
    settings = {"axis": place[1], "momentum": 0.7, "dtype": policy} | settings
    theirs, mine = (journey(x, place, policy, masked, mode) for x in pair(**settings))
    # Keras adds 1e-7 to the number of values under a mask
    limit = 1e-6 if masked and policy == "float64" else None
    assert [tf.convert_to_tensor(v).dtype for v in mine] == [
        tf.convert_to_tensor(v).dtype for v in theirs
    ]
    assert_close(mine, theirs, limit)


# One layer


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("number", range(len(PLACES)))
def test_steps_of_every_rank_axis_and_dtype(number, policy):
    turn = (number + POLICIES.index(policy)) % 4  # each policy meets each pair of flags
    center, scale = FLAGS[turn]
    same_journey(PLACES[number], policy, False, center=center, scale=scale)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "number", [i for i, (_, axis) in enumerate(PLACES) if axis == -1]
)
def test_steps_with_a_mask(number, policy):
    center, scale = FLAGS[(number // 2 + POLICIES.index(policy)) % 4]
    same_journey(PLACES[number], policy, True, center=center, scale=scale)


@pytest.mark.parametrize(
    ("mode", "place", "policy", "masked"),
    [
        ("function", PLACES[0], "float32", True),
        ("function", PLACES[8], "mixed_bfloat16", False),
        ("function", PLACES[10], "mixed_float16", False),
        ("xla", PLACES[2], "mixed_float16", True),
        ("xla", PLACES[3], "float64", False),
        ("xla", PLACES[10], "float32", False),
    ],
)
def test_compiled_steps(mode, place, policy, masked):
    same_journey(place, policy, masked, mode)


def test_batches_of_unknown_size():
    rng, found = np.random.default_rng(2), []
    grads = {n: rng.standard_normal((n, 3), np.float32) for n in (5, 13, 4099, 3)}
    for layer in pair(momentum=0.7):
        layer.build((None, 3))

        @tf.function(input_signature=[tf.TensorSpec([None, 3])] * 2)
        def run(x, grad_y, layer=layer):
            return step(layer, x, grad_y)

        found.append([])
        for n, grad_y in grads.items():
            x = friendly((n, 3), np.float32, n)
            found[-1] += [*run(x, grad_y), *layer.get_weights()]
    assert_close(*found[::-1], tolerance=2e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("number", [0, 5])
def test_steps_with_renorm(number, policy):
    """All but the moving variance, which Keras gets wrong: see test_keras_faults.py."""
    place, found = PLACES[number], []
    settings = {"axis": place[1], "dtype": policy, "renorm": True, "momentum": 0.7}
    clipping = {"rmin": 0.7, "rmax": 2.5, "dmax": 0.3}
    for layer in pair(**settings, renorm_clipping=clipping, renorm_momentum=0.6):
        found.append([])
        for x, grad_y, _ in draw(place, policy, 3, False):
            found[-1] += step(layer, x, grad_y)
            names = "moving_mean", "renorm_mean", "renorm_stddev"
            found[-1] += [tf.identity(getattr(layer, name)) for name in names]
    assert_close(*found[::-1], tolerance=None)


SETTINGS = {
    "everything": {
        "axis": 1,
        "momentum": 0.8,
        "epsilon": 0.01,
        "beta_initializer": keras.initializers.RandomNormal(seed=1),
        "gamma_initializer": keras.initializers.RandomUniform(1, 2, seed=2),
        "moving_mean_initializer": keras.initializers.Constant(3),
        "moving_variance_initializer": keras.initializers.Constant(5),
        "beta_regularizer": keras.regularizers.L2(0.3),
        "gamma_regularizer": keras.regularizers.L1(0.2),
        "beta_constraint": keras.constraints.MaxNorm(0.5),
        "gamma_constraint": keras.constraints.NonNeg(),
        "synchronized": True,
        "name": "norm",
        "trainable": False,
        "dtype": "mixed_bfloat16",
    },
    "renorm": {
        "renorm": True,
        "renorm_clipping": {"rmax": 3.0, "rmin": 0.3, "dmax": 5.0},
        "renorm_momentum": 0.9,
        "center": False,
        "scale": False,
    },
    "as numpy has them": {
        "axis": np.int64(1),
        "momentum": np.float32(0.9),
        "epsilon": np.float64(1e-3),
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_configs_carry_over(name):
    theirs, ours = pair(**SETTINGS[name])
    expected, found = theirs.get_config(), ours.get_config()
    if not ours.renorm:
        expected["renorm_clipping"] = {}
    expected["name"] = ours.name
    assert {key: found[key] for key in expected} == expected
    assert keras.saving.serialize_keras_object(ours)  # which needs Python's own numbers
    again = BatchNormalization.from_config(expected)
    assert again.get_config() == found
    assert type(again.momentum) is type(again.epsilon) is float
    clone = BatchNormalization.from_config(found)
    for layer in (theirs, ours, again, clone):
        layer.build((None, 5))
    assert_close(ours.get_weights(), theirs.get_weights(), 1e-7)
    assert_close(again.get_weights(), theirs.get_weights(), 1e-7)
    assert clone.trainable == theirs.trainable
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]


def test_positional_arguments_are_those_of_keras():
    given = (1, 0.8, 0.01, False, True, "ones", "zeros", "ones", "zeros")
    theirs, ours = Keras(*given).get_config(), BatchNormalization(*given).get_config()
    for name in set(theirs) - {"name", "renorm_clipping"}:
        assert ours[name] == theirs[name]


@pytest.mark.parametrize("number", [1, 3])
def test_what_is_changed_after_building_is_obeyed(number):
    """As is done to a pretrained model: momentum and epsilon are read at each call."""
    found = []
    for layer in pair(axis=PLACES[number][1]):
        layer.build(PLACES[number][0])
        layer.momentum, layer.epsilon = 0.3, 0.5
        found.append(journey(layer, PLACES[number], "float32", False))
    assert_close(*found, tolerance=2e-5)


def test_regularizers_initializers_and_constraints():
    settings = {**SETTINGS["everything"], "trainable": True, "dtype": "float32"}
    found = []
    for norm in BOTH:
        model = keras.Sequential([keras.Input((3, 5)), norm(**settings)])
        model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
        x, y = friendly((8, 3, 5), np.float32), friendly((8, 3, 5), np.float32, 1)
        found.append([model.train_on_batch(x, y) for _ in range(3)])
        found[-1] += [model.evaluate(x, y, verbose=0), *model.get_weights()]
    assert_close(*found, tolerance=1e-5)
    assert np.linalg.norm(found[1][5]) <= 0.5 + 1e-6  # beta's constraint was at work


def test_stateless_calls():
    found = []
    x = friendly((7, 3), np.float32)
    for layer in pair(momentum=0.7):
        layer.build(x.shape)
        before = [v.numpy() for v in layer.non_trainable_variables]
        given = [friendly((3,), np.float32, 1), friendly((3,), np.float32, 2)]
        y, state = layer.stateless_call(given, before, x, training=True)
        again, state = layer.stateless_call(given, state, x, training=True)
        after = [v.numpy() for v in layer.non_trainable_variables]
        assert_close(after, before, 1e-12)  # nothing has happened to the layer
        found.append([y, again, *state])
    assert_close(*found, tolerance=1e-5)


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_two_calls_on_one_layer(mode):
    """The second sees the statistics that the first left, and both get into the gradient."""
    first, second = friendly((7, 3), np.float32), 5 + friendly((4, 3), np.float32, 1)
    found = []
    for layer in pair(momentum=0.7):
        layer.build(first.shape)

        def run(a, b, layer=layer):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(a, training=True) ** 3)
                loss += tf.reduce_sum(layer(b, training=True) ** 3)
                loss += tf.reduce_sum(layer(b, training=False) ** 2)
            sources = [layer.gamma.value, layer.beta.value]
            return [loss, *tape.gradient(loss, sources)]

        results = WRAPS[mode](run)(tf.constant(first), tf.constant(second))
        found.append([*results, *layer.get_weights()])
    assert_close(*found, tolerance=1e-5)


def test_inside_other_machinery():
    """A loop, recomputation, and a Jacobian by vectorization."""
    x = friendly((6, 5, 3), np.float32)
    found = []
    for norm in BOTH:
        each = keras.layers.TimeDistributed(norm(momentum=0.7))
        y = [each(x, training=True)]
        layer = norm(momentum=0.7)
        layer.build((None, 3))
        y.append(
            tf.function(lambda x, f=layer: tf.map_fn(lambda v: f(v, training=True), x))(
                x
            )
        )
        with keras.RematScope(mode="full"):
            again = norm(momentum=0.7)
        y += step(again, tf.constant(x[0]), x[1])
        with tf.GradientTape() as tape:
            here = tf.constant(x[0])
            tape.watch(here)
            out = layer(here, training=True)
        y.append(tape.jacobian(out, here))
        found.append(y + each.get_weights() + again.get_weights() + layer.get_weights())
    assert_close(*found, tolerance=2e-5)


# Whole models


def functional(norm):
    """With a model inside, and a mask that Keras makes."""
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(11, 3, mask_zero=True)(inputs)
    x = norm(name="masked", momentum=0.8)(x)
    inner = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(7), norm(name="inner")]
    )
    x = inner(keras.layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def sequential(norm):
    layers = [keras.layers.Conv2D(3, 2), norm(momentum=0.8), keras.layers.Flatten()]
    return keras.Sequential([keras.Input((5, 7, 2)), *layers, keras.layers.Dense(2)])


def subclassed(norm):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = keras.layers.Dense(5), norm(momentum=0.8)
            self.head = keras.layers.Dense(2)

        def call(self, x, training=None):
            return self.head(
                keras.ops.relu(self.norm(self.dense(x), training=training))
            )

    model = Model()
    model(np.zeros((2, 5), np.float32))
    return model


def shared(norm):
    """One layer in two streams."""
    a, b = keras.Input((5,)), keras.Input((5,))
    layer = norm(momentum=0.8)
    joined = keras.layers.concatenate([layer(a), layer(keras.layers.Dense(5)(b))])
    return keras.Model([a, b], keras.layers.Dense(2)(joined))


KINDS = {
    functional: lambda rng: rng.integers(0, 11, (24, 5)),
    sequential: lambda rng: rng.normal(3, 2, (24, 5, 7, 2)).astype("f4"),
    subclassed: lambda rng: rng.normal(3, 2, (24, 5)).astype("f4"),
    shared: lambda rng: [rng.normal(m, 2, (24, 5)).astype("f4") for m in (3, -1)],
}


def twins(kind, **compiled):
    """Two models with the same weights, Keras's and ours, and data for them."""
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    models = [kind(norm) for norm in BOTH]
    models[1].set_weights(models[0].get_weights())
    for model in models:
        model.compile(keras.optimizers.SGD(0.05), "mse", **compiled)
    return models, KINDS[kind](rng), rng.normal(size=(24, 2)).astype("f4")


@pytest.mark.parametrize(
    ("kind", "compiled"),
    [
        (functional, {"jit_compile": False}),
        (functional, {"jit_compile": True}),
        (sequential, {"run_eagerly": True}),
        (sequential, {"jit_compile": False}),
        (subclassed, {"jit_compile": False}),
        (subclassed, {"run_eagerly": True}),
        (shared, {"run_eagerly": True}),
        (shared, {"jit_compile": False}),
    ],
)
def test_a_model_lives_the_life_of_its_twin(kind, compiled):
    models, x, y = twins(kind, **compiled)
    few = [v[:3] for v in x] if isinstance(x, list) else x[:3]
    found = []
    for model in models:
        log = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        found.append([*log.history["loss"], model.train_on_batch(x, y)])
        found[-1] += [model.evaluate(x, y, batch_size=16, verbose=0)]
        found[-1] += [model.predict(few, verbose=0), *model.get_weights()]
    assert_close(found[1], found[0], 2e-4)
    assert found[0][2] < found[0][0]  # it learns: the comparison means something


def test_mixed_precision_with_a_scaled_loss():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        models, x, y = twins(sequential, jit_compile=False)
    finally:
        keras.config.set_dtype_policy("float32")
    found = []
    for model in models:
        log = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        found.append([*log.history["loss"], *model.get_weights()])
    assert_close(found[1], found[0], 5e-3)


@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
@pytest.mark.parametrize("what", ["the layer", "its parent", "the whole model"])
def test_freezing_and_unfreezing(what):
    """Before `compile` takes notice, and after: the flags are Keras's, and so is the outcome."""
    models, x, y = twins(functional, jit_compile=False)
    found = []
    for model in models:
        inner = model.layers[4]
        frozen = {
            "the layer": inner.get_layer("inner"),
            "its parent": inner,
            "the whole model": model,
        }[what]
        states = []
        for trainable, compiles in (
            (True, False),
            (False, False),
            (False, True),
            (True, True),
        ):
            frozen.trainable = trainable
            if compiles:
                model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
            before = inner.get_layer("inner").get_weights()
            model.train_on_batch(x, y)
            after = inner.get_layer("inner").get_weights()
            states.append(
                [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
            )
            found += [np.concatenate(after), model.predict_on_batch(x)]
        assert [all(s) for s in states] == [False, states[1][0], True, False]
    half = len(found) // 2
    assert_close(found[half:], found[:half], 2e-5)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [True, False, None])
def test_training_and_trainable(trainable, training):
    x = friendly((7, 3), np.float32)
    found = []
    for layer in pair(momentum=0.7):
        layer.trainable = trainable
        y = layer(x, training=training)
        assert len(layer.trainable_variables) == 2 * trainable
        found.append([y, *layer.get_weights()])
        moved = np.any(layer.get_weights()[2])
        assert moved == bool(trainable and training)
    assert_close(*found)


# Files and copies


@pytest.mark.parametrize(
    "settings", [{}, {"renorm": True}, {"center": False, "dtype": "float64"}]
)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras with NumPy 2
def test_weights_files_go_both_ways(settings, tmp_path):
    x = friendly((9, 5), np.float32)

    def model(norm):
        return keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(3), norm(**settings)]
        )

    for source, target in itertools.permutations(BOTH):
        old, new = model(source), model(target)
        old(x, training=True)
        old.save_weights(tmp_path / "a.weights.h5")
        new.load_weights(tmp_path / "a.weights.h5")
        for mine, other in zip(new.get_weights(), old.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)
        assert_close([new(x)], [old(x)], 1e-5)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras with NumPy 2
@pytest.mark.parametrize("kind", [functional, shared])
def test_models_are_saved_cloned_and_swapped(kind, tmp_path):
    models, x, y = twins(kind, jit_compile=False)
    theirs, ours = models
    for model in models:
        model.train_on_batch(x, y)
    ours.save(tmp_path / "ours.keras")
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    theirs.save(tmp_path / "theirs.keras")
    swapped = swap_in(keras.models.load_model(tmp_path / "theirs.keras"))
    cloned = keras.models.clone_model(ours)
    cloned.set_weights(ours.get_weights())
    back = swap_out(ours)
    expected = theirs.predict_on_batch(x)
    for model in (ours, loaded, swapped, cloned, back):
        assert_close([model.predict_on_batch(x)], [expected])
    for model, norm in (
        (loaded, BOTH[1]),
        (swapped, BOTH[1]),
        (cloned, BOTH[1]),
        (back, Keras),
    ):
        norms = [v for v in model._flatten_layers() if isinstance(v, Keras)]
        assert {type(v) for v in norms} == {norm}
    for model in (loaded, theirs):  # the optimizer and the layer go on
        model.train_on_batch(x, y)
    assert_close(loaded.get_weights(), theirs.get_weights(), 1e-4)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_copies_share_nothing():
    x = friendly((7, 3), np.float32)
    layer = BatchNormalization(momentum=0.5)
    layer(x, training=True)
    before = layer.get_weights()
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_close(other.get_weights(), before, 1e-7)
        other(x, training=True)
        assert np.abs(other.get_weights()[2] - before[2]).max() > 0.1
        assert_close(layer.get_weights(), before, 1e-12)


def test_an_exported_model(tmp_path):
    model = sequential(BatchNormalization)
    x = friendly((4, 5, 7, 2), np.float32)
    model(x, training=True)
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    assert_close([served.serve(x)], [model(x)])
