"""`swap_in`, `swap_out`, `synchronize`: models of all kinds, their state and training, refusals."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


import keras
import numpy as np
import pytest
import tensorflow as tf
from building import run_without_bnlib
from samples import friendly

from bnlib.keras import BatchNormalization, swap_in, swap_out, synchronize

Keras, layers = keras.layers.BatchNormalization, keras.layers
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__:DeprecationWarning"  # Keras with NumPy 2, when it saves or copies
)


def norms_of(model):
    """The types of the batch norm layers, at any depth."""
    return [type(v) for v in model._flatten_layers() if isinstance(v, Keras)]


def disturb(model, seed=0):
    """Give every batch norm layer statistics and parameters that are not the initial ones."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        if isinstance(layer, Keras):
            for variable in layer.weights:
                variable.assign(rng.uniform(0.5, 2, variable.shape))
    return model


def values_of(model):
    return [v.numpy() for v in model.variables]


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_swapped(model, x, kind=BatchNormalization, count=None, **settings):
    """Swap a model that gives outputs that vary, and compare all that a user can see."""
    before = values_of(model)
    expected = np.asarray(model(x))
    assert np.ptp(expected) > 0
    other = (swap_in if kind is BatchNormalization else swap_out)(model, **settings)
    assert norms_of(other) == [kind] * (count or len(norms_of(model)))
    np.testing.assert_allclose(other(x), expected, rtol=1e-4, atol=1e-5)
    assert_same(values_of(other), before)
    assert [v.path.split("/")[-2:] for v in other.variables] == [
        v.path.split("/")[-2:] for v in model.variables
    ]
    return other


# State that is in no weight


def test_an_adapted_normalization_comes_along():
    data = friendly((50, 3), np.float32)
    norm = layers.Normalization()
    norm.adapt(data)
    model = keras.Sequential([keras.Input((3,)), norm, Keras(), layers.Dense(2)])
    other = assert_swapped(disturb(model), data)
    lost = keras.models.clone_model(model)
    lost.set_weights(model.get_weights())
    # the fault that this is about: equal weights, other outputs
    assert np.abs(np.asarray(lost(data)) - np.asarray(model(data))).max() > 0.1
    assert_swapped(other, data, Keras)


@pytest.mark.parametrize("inside", [False, True])
def test_words_and_bins_come_along(inside):
    texts = np.array([["one two"], ["two three three"], ["four"], ["one one"]])
    ages = np.array([[1.0], [25.0], [37.0], [80.0]], np.float32)
    vectors = layers.TextVectorization(output_mode="tf_idf")
    lookup = layers.StringLookup(output_mode="one_hot")
    bins = layers.Discretization(num_bins=3, output_mode="one_hot")
    vectors.adapt(texts[:, 0])
    lookup.adapt(texts)
    bins.adapt(ages)
    text, age = (
        keras.Input((1,), dtype="string", name="text"),
        keras.Input((1,), name="age"),
    )
    parts = [layers.Reshape((5,))(vectors(text)), lookup(text), bins(age)]
    if inside:
        joined = [keras.Input(p.shape[1:]) for p in parts]
        head = keras.Model(joined, Keras()(layers.Concatenate()(joined)))
        outputs = head(parts)
    else:
        outputs = Keras()(layers.Concatenate()(parts))
    model = disturb(keras.Model({"text": text, "age": age}, outputs))
    x = {"text": tf.constant(texts), "age": tf.constant(ages)}
    assert_swapped(model, x)


def test_random_streams_go_on_where_they_were():
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dropout(0.5), Keras(), layers.GaussianNoise(1.0)]
    )
    x = friendly((2, 30), np.float32)
    model(x, training=True)
    other = swap_in(model)
    for _ in range(2):
        np.testing.assert_allclose(
            other(x, training=True), model(x, training=True), atol=1e-4
        )


@keras.saving.register_keras_serializable(package="test")
class Sampling(layers.Layer):
    """As in a variational autoencoder: random numbers at inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(7)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


def test_looking_leaves_no_trace():
    model = keras.Sequential([keras.Input((30,)), Sampling(), Keras(), layers.Dense(2)])
    before = values_of(model)
    swap_in(model)
    assert_same(values_of(model), before)
    assert all("call" not in vars(v) for v in model._flatten_layers())
    assert not tf.config.functions_run_eagerly()


# A swap verifies itself


@keras.saving.register_keras_serializable(package="test")
class Forgetful(layers.Layer):
    """A layer with state of which neither its weights nor its configuration know."""

    factor = 1.0

    def call(self, x):
        return x * self.factor


@keras.saving.register_keras_serializable(package="test")
class Noisy(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


def forgetful_model():
    forgetful = Forgetful(name="forgetful")
    parts = [Keras(), forgetful, layers.ReLU(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *parts])
    forgetful.factor = 3.0
    return model


def test_a_difference_names_the_first_layer_that_differs():
    words = (
        r"first layer that differs is 'forgetful' \(Forgetful\): its outputs differ by "
        r"\d.*where \d.* is allowed.*verify=False"
    )
    with pytest.raises(ValueError, match=words):
        swap_in(forgetful_model())
    assert norms_of(swap_in(forgetful_model(), verify=False)) == [BatchNormalization]


def test_layers_that_differ_are_found_behind_others_that_hide_it():
    """The outputs are equal: nothing gets through the last layer."""
    parts = [
        Forgetful(name="forgetful"),
        Keras(),
        layers.Dense(2, kernel_initializer="zeros"),
    ]
    model = keras.Sequential([keras.Input((3,)), *parts])
    model.layers[0].factor = 3.0
    with pytest.raises(ValueError, match="'forgetful'"):
        swap_in(model)


def test_a_wrong_layer_would_be_found(monkeypatch):
    """A fault planted in the swap itself is found, and the layer named."""
    parts = [keras.Input((3,)), layers.Dense(4), Keras(name="n"), layers.Dense(2)]
    model = disturb(keras.Sequential(parts))
    make = BatchNormalization.from_config
    monkeypatch.setattr(
        BatchNormalization,
        "from_config",
        classmethod(lambda cls, config: make(config | {"epsilon": 5e-3})),
    )
    with pytest.raises(ValueError, match=r"first layer that differs is 'n' \(Batch"):
        swap_in(model)


def test_noise_is_told_from_a_fault():
    model = keras.Sequential([keras.Input((3,)), Noisy(name="noisy"), Keras()])
    with pytest.raises(ValueError, match=r"other outputs each time.*'noisy'.*seed"):
        swap_in(model)
    assert norms_of(swap_in(model, verify=False)) == [BatchNormalization]


def test_a_batch_of_ones_own():
    x = friendly((5, 3), np.float32)
    with pytest.raises(ValueError, match="'forgetful'"):
        swap_in(forgetful_model(), verify=x)
    # a batch that shows nothing is the user's choice
    assert norms_of(swap_in(forgetful_model(), verify=0 * x)) == [BatchNormalization]


@keras.saving.register_keras_serializable(package="test")
class Places(layers.Layer):
    """Numbers for at most 20 places, as in a transformer."""

    def call(self, x):
        return x + tf.gather(tf.ones((20, 3), x.dtype), tf.range(tf.shape(x)[1]))


def inputs_of_all_kinds():
    """Models that only run on the right kind of batch."""
    whole = keras.Input((4,), dtype="int32")
    as_float = keras.Input((4,))
    embedded = lambda x: layers.Flatten()(layers.Embedding(5, 3)(x))  # noqa: E731
    image = keras.Input((None, None, 3))
    small = layers.MaxPooling2D(100)(image)  # nothing is left of 64 x 64
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 2, padding="same")(small))
    sequence = keras.Input((None, 3))
    mixed = {
        "a": keras.Input((3,), name="a"),
        "b": keras.Input((3,), dtype="bool", name="b"),
        "c": keras.Input((None,), dtype="uint8", name="c"),
    }
    joined = [mixed["a"], layers.Identity()(mixed["b"]), embedded_mean(mixed["c"])]
    joined = [layers.Lambda(lambda v: tf.cast(v, "float32"))(v) for v in joined]
    fixed = keras.Input(batch_shape=(3, 2))
    return {
        "indices": (whole, embedded(whole)),
        "indices as floats": (as_float, embedded(as_float)),
        "an image of unknown size": (image, pooled),
        "a sequence of at most 20": (sequence, Places()(sequence)),
        "a dict": (mixed, layers.Concatenate()(joined)),
        "a fixed batch": (fixed, fixed),
        "several": (
            [whole, as_float],
            layers.Add()([embedded(whole), embedded(as_float)]),
        ),
    }


def embedded_mean(x):
    return layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(x))


@pytest.mark.parametrize("kind", inputs_of_all_kinds())
def test_batches_are_made_for_every_kind_of_input(kind):
    inputs, outputs = inputs_of_all_kinds()[kind]
    model = disturb(keras.Model(inputs, Keras()(outputs)))
    other = swap_in(model)
    assert norms_of(other) == [BatchNormalization]
    assert keras.tree.map_structure(
        lambda t: (t.shape, t.dtype, t.name, t._keras_history.operation.name),
        other.input,
    ) == keras.tree.map_structure(
        lambda t: (t.shape, t.dtype, t.name, t._keras_history.operation.name),
        model.input,
    )


def test_where_no_batch_can_be_made_one_is_asked_for():
    sparse = keras.Input((4,), sparse=True)
    model = keras.Model(sparse, Keras()(layers.Dense(3)(sparse)))
    with pytest.raises(ValueError, match=r"sparse.*verify=<arrays.*verify=False"):
        swap_in(model)
    batch = tf.sparse.from_dense(friendly((2, 4), np.float32))
    for other in (swap_in(model, verify=False), swap_in(model, verify=batch)):
        assert other.inputs[0].sparse
        np.testing.assert_allclose(other(batch), model(batch), rtol=1e-5, atol=1e-6)

    def strict(x):
        tf.debugging.assert_greater(x, 1000.0)
        return x

    inputs = keras.Input((3,))
    model = keras.Model(inputs, Keras()(layers.Lambda(strict)(inputs)))
    with pytest.raises(
        ValueError, match=r"does not run on a batch that is made up.*verify=<"
    ):
        swap_in(model)
    swap_in(model, verify=np.full((2, 3), 2000.0))


@pytest.mark.parametrize(
    "policy", ["float64", "mixed_float16", "mixed_bfloat16", "float16"]
)
def test_tolerances_fit_the_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        parts = [
            layers.Conv2D(8, 3),
            Keras(),
            layers.ReLU(),
            layers.Conv2D(8, 3),
            Keras(),
        ]
        model = disturb(keras.Sequential([keras.Input((9, 9, 3)), *parts]))
        other = swap_in(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert norms_of(swap_out(other)) == [Keras, Keras]


def test_a_large_mean_is_no_difference():
    """Keras's layer loses digits there, and ours does not."""
    model = keras.Sequential([keras.Input((3,)), Keras(momentum=0.0), layers.Dense(2)])
    x = (1e5 + friendly((500, 3))).astype(np.float32)
    model(x, training=True)
    swap_in(model, verify=x)


# Every kind of model


class Block(layers.Layer):
    """A residual block that holds layers in an attribute, a list, a dict and a tuple."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first = Keras(name="first")
        self.rest = [layers.Dense(units, name="a"), Keras(name="second")]
        self.named = {"norm": Keras(name="third"), "other": 3}
        self.pair = (Keras(name="fourth"), layers.Dense(units, name="b"))
        self.units = units

    def build(self, shape):
        width = (*shape[:-1], self.units)
        self.first.build(shape)
        self.rest[0].build(shape)
        self.pair[1].build(width)
        for norm in (self.rest[1], self.named["norm"], self.pair[0]):
            norm.build(width)

    def call(self, x, training=None):
        x = self.rest[0](self.first(x, training=training))
        for norm in (self.rest[1], self.named["norm"], self.pair[0]):
            x = norm(x, training=training)
        return self.pair[1](x)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def holding_model():
    x = inputs = keras.Input((4, 3))
    x = layers.TimeDistributed(Keras(name="timed"))(x)
    x = Block(5, name="block")(x)
    return disturb(keras.Model(inputs, Keras()(x)))


def test_layers_that_hold_others_are_parts_of_a_copy():
    model, x = holding_model(), friendly((2, 4, 3), np.float32)
    model.get_layer("block").named["norm"].trainable = False
    model.get_layer("block").rest[0].trainable = False
    kept = list(model._flatten_layers())
    other = assert_swapped(model, x, count=6)
    assert [v.trainable for v in other._flatten_layers()] == [
        v.trainable for v in model._flatten_layers()
    ]
    assert list(model._flatten_layers()) == kept
    back = assert_swapped(other, x, Keras, count=6)
    assert isinstance(back.get_layer("block").pair, tuple)


def test_a_copy_has_what_was_set_on_the_layers_of_a_block():
    """And not what the code of the block would make anew."""
    other = swap_in(holding_model())
    other.get_layer("block").first.bessel = True
    assert swap_in(other).get_layer("block").first.bessel
    with pytest.raises(ValueError, match=r"bessel.*'first'"):
        swap_out(other)


def recurrent():
    x = inputs = keras.Input((None, 3))
    x = layers.Masking()(x)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(Keras()(x))
    x = layers.MultiHeadAttention(2, 3)(x, x)
    return keras.Model(inputs, Keras()(layers.LSTM(5)(Keras()(x))))


def arithmetic():
    inputs = keras.Input((4, 4, 3))
    x = 2 * layers.Conv2D(3, 3, padding="same")(inputs) + inputs
    x = keras.ops.relu(Keras()(x))[:, 1:, :, :2]
    x = keras.ops.reshape(keras.ops.transpose(x, (0, 3, 1, 2)), (-1, 24))
    return keras.Model(
        inputs, [Keras()(x), keras.ops.mean(x, axis=1, keepdims=True)][0]
    )


def local_functions():
    def twice(x):
        return 2 * x

    offset = np.float32(3)
    parts = [layers.Dense(4, activation=twice), layers.Lambda(lambda x: x - offset)]
    return keras.Sequential([keras.Input((3,)), *parts, Keras(), Local(2)])


class Local(layers.Layer):
    """A class that nobody registered."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.TimeDistributed(Keras())
        self.units = units

    def call(self, x):
        return self.inner(x[:, None])[:, 0]

    def get_config(self):
        return super().get_config() | {"units": self.units}


def stateful():
    inputs = keras.Input(batch_shape=(2, 5, 3))
    return keras.Model(inputs, Keras()(layers.LSTM(4, stateful=True)(inputs)))


def states_of(model):
    """What a stateful layer remembers of the last batch: Keras does not count it as a weight."""
    found = [v.states for v in model.layers if getattr(v, "stateful", False)]
    return [v.numpy() for v in keras.tree.flatten(found)]


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (recurrent, (2, 7, 3)),
        (arithmetic, (2, 4, 4, 3)),
        (local_functions, (2, 3)),
        (stateful, (2, 5, 3)),
    ],
)
def test_all_that_a_graph_may_hold(build, shape):
    model, x = disturb(build()), friendly(shape, np.float32)
    model(x)
    before = values_of(model) + states_of(model)
    other = swap_in(model)
    assert_same(values_of(model) + states_of(model), before)
    assert len(states_of(model)) == (2 if build is stateful else 0)
    assert set(norms_of(other)) == {BatchNormalization}
    for _ in range(2):  # a stateful layer goes on from where it was
        np.testing.assert_allclose(other(x), model(x), rtol=1e-4, atol=1e-5)


class Net(keras.Model):
    """Subclassed: blocks, a Functional part, a shared layer, and a wrapper."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        x = inputs = keras.Input((3,))
        self.part = keras.Model(
            inputs, Keras(name="inner")(layers.Dense(4)(x)), name="part"
        )
        self.plain = keras.Sequential([layers.Dense(3)])
        self.shared = Keras(name="shared")
        self.steps = [self.plain, self.shared, [layers.Dropout(0.5), self.shared]]
        self.dense_too = self.part.layers[1]
        self.block = Block(5)
        self.timed = layers.TimeDistributed(Keras())

    def call(self, x, training=None):
        x = self.part(x, training=training)
        x = self.steps[1](self.plain(x), training=training)
        x = self.steps[2][1](self.steps[2][0](x, training=training), training=training)
        x = self.block(x, training=training)
        return self.timed(x[:, None], training=training)[:, 0]


def net():
    model = Net()
    model(friendly((4, 3), np.float32))
    return disturb(model)


def test_a_subclassed_model_is_changed_in_place():
    model, x = net(), friendly((4, 3), np.float32)
    names = [v.name for v in model._flatten_layers()]
    paths, before = [v.path for v in model.variables], values_of(model)
    plain, block = model.plain, model.block
    expected = model.predict(x, verbose=0)
    with pytest.raises(ValueError, match="in_place=True"):
        swap_in(model)
    assert swap_in(model, in_place=True) is model
    assert norms_of(model) == 7 * [BatchNormalization]
    assert model.shared is model.steps[1] is model.steps[2][1]
    assert (
        model.dense_too is model.part.layers[1]
    )  # what was shared with the graph still is
    assert model.plain is plain
    assert model.block is block
    np.testing.assert_allclose(
        model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)
    assert [v.name for v in model._flatten_layers()] == names
    assert [v.path for v in model.variables] == paths
    assert_same(values_of(model), before)
    model.shared.beta.assign(model.shared.beta + 1)  # what Keras traced before is gone
    np.testing.assert_allclose(
        model.predict(x, verbose=0), model(x), rtol=1e-4, atol=1e-5
    )
    before = values_of(model)
    swap_out(model, in_place=True)
    assert norms_of(model) == 7 * [Keras]
    assert_same(values_of(model), before)


def test_a_model_changed_in_place_is_saved_and_exported(tmp_path):
    model, x = net(), friendly((4, 3), np.float32)
    swap_in(model, in_place=True)
    model.save_weights(tmp_path / "a.weights.h5")
    other = net()
    swap_in(other, in_place=True)
    other.set_weights([0 * w for w in other.get_weights()])
    other.load_weights(tmp_path / "a.weights.h5")
    assert_same(other.get_weights(), model.get_weights())
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(served.serve(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_failed_change_in_place_leaves_all_as_it_was(monkeypatch):
    model, x = net(), friendly((4, 3), np.float32)
    kept, before = list(model._flatten_layers()), values_of(model)
    held = *model.block.pair, model.block.named["norm"], model.part, model.timed.layer
    expected = np.asarray(model(x))
    make = BatchNormalization.from_config
    monkeypatch.setattr(
        BatchNormalization,
        "from_config",
        classmethod(lambda cls, config: make(config | {"epsilon": 0.5})),
    )
    with pytest.raises(ValueError, match="'inner'"):
        swap_in(model, in_place=True)
    assert list(model._flatten_layers()) == kept
    now = *model.block.pair, model.block.named["norm"], model.part, model.timed.layer
    assert all(one is other for one, other in zip(held, now, strict=True))
    assert_same(values_of(model), before)
    np.testing.assert_array_equal(model(x), expected)


class Pair(keras.Model):
    """Its call takes two arguments, and no `training`."""

    def __init__(self):
        super().__init__()
        self.norms = [Keras(name="one"), Keras(name="two")]

    def call(self, a, b):
        return self.norms[0](a) + self.norms[1](b)[:, :3]


class BuiltPair(Pair):
    def build(self, a_shape, b_shape):
        self.norms[0].build(a_shape)
        self.norms[1].build(b_shape)


@pytest.mark.parametrize("kind", [Pair, BuiltPair])
def test_a_call_with_several_arguments(kind):
    model = kind()
    a, b = friendly((4, 3), np.float32), friendly((4, 5), np.float32)
    model(a, b)
    expected = np.asarray(disturb(model)(a, b))
    if kind is Pair:  # Keras keeps the shape of the first alone
        with pytest.raises(
            ValueError, match=r"several arguments: a, b. .*verify=\{'a': <"
        ):
            swap_in(model, in_place=True)
    batch = {"a": a, "b": b} if kind is Pair else True
    swap_in(model, in_place=True, verify=batch)
    assert norms_of(model) == 2 * [BatchNormalization]
    np.testing.assert_allclose(model(a, b), expected, rtol=1e-5, atol=1e-5)


class Hiding(keras.Model):
    def __init__(self):
        super().__init__()
        self.norms = {Keras(name="hidden")}

    def call(self, x):
        return next(iter(self.norms))(x)


def test_what_cannot_be_swapped_is_refused_in_words():
    hiding = Hiding()
    hiding(friendly((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"\['hidden'\] must be held in an attribute"):
        swap_in(hiding, in_place=True)
    assert norms_of(hiding) == [Keras]
    model = keras.Sequential([keras.Input((3,)), Keras()])
    with pytest.raises(ValueError, match="in_place must be False"):
        swap_in(model, in_place=True)
    with pytest.raises(ValueError, match="must be built"):
        swap_in(keras.Sequential([Keras()]))
    with pytest.raises(ValueError, match="must hold batch norm layers"):
        swap_in(model.layers[0])
    with pytest.raises(TypeError, match=r"must be a keras.Model; got str"):
        swap_in("model.keras")
    for text in ("zero_debias", "bessel"):
        ours = keras.Sequential([keras.Input((3,)), BatchNormalization(**{text: True})])
        with pytest.raises(ValueError, match=text):
            swap_out(ours)


# Classes and names


class Trainer(keras.Model):
    """A Functional model with a step of its own."""

    def train_step(self, data):
        return super().train_step(data) | {"steps": 1.0}


class Stack(keras.Sequential):
    def doubled(self, x):
        return 2 * self(x)


class Own(keras.Model):
    def __init__(self, units):
        inputs = keras.Input((3,))
        super().__init__(inputs=inputs, outputs=Keras()(layers.Dense(units)(inputs)))


def test_class_and_names_are_kept():
    x = inputs = keras.Input((3,))
    y = Keras(name="b")(layers.Dense(2, name="a")(x))
    model = Trainer(inputs, [y, layers.ReLU(name="c")(y)], name="trainer")
    other = swap_in(model)
    assert type(other) is Trainer
    assert other.name == "trainer"
    assert other.output_names == model.output_names == ["b", "c"]
    assert [v.name for v in other.layers] == [v.name for v in model.layers]
    assert other.layers[0].name.startswith("input_layer")
    stack = Stack([keras.Input((3,), name="here"), Keras()], name="stack")
    other = swap_in(stack)
    assert (type(other), other.name) == (Stack, "stack")
    assert [v.name for v in other._layers] == [v.name for v in stack._layers]
    assert other.doubled(np.ones((1, 3))).shape == (1, 3)


def test_a_class_that_a_copy_would_lose_is_refused():
    own = Own(4)
    with pytest.raises(
        ValueError, match=r"Own has an __init__ of its own.*keras.Model\("
    ):
        swap_in(own)
    plain = swap_in(keras.Model(own.inputs, own.outputs))
    assert norms_of(plain) == [BatchNormalization]


# Training goes on


def trained(build, optimizer, x, y, **settings):
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(optimizer, "mse", metrics=["mae"], **settings)
    for _ in range(3):
        model.train_on_batch(x, y)
    return model


def sequential():
    parts = [layers.Dense(7), Keras(), layers.Dropout(0.2), layers.Dense(5), Keras()]
    return keras.Sequential([keras.Input((3,)), *parts, layers.Dense(2)])


def subclassed():
    model = Net()
    model(friendly((4, 3), np.float32))
    return model


def adam():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1, use_ema=True)
    optimizer.exclude_from_weight_decay(var_names=["beta"])
    return optimizer


@pytest.mark.parametrize(
    ("build", "optimizer", "policy"),
    [
        (sequential, adam, "float64"),
        (sequential, lambda: keras.optimizers.SGD(0.05, momentum=0.9), "mixed_float16"),
        (subclassed, adam, "float64"),
    ],
)
def test_a_model_that_is_swapped_while_it_trains_takes_the_same_steps(
    build, optimizer, policy
):
    x = friendly((16, 3), np.float32)
    y = np.random.default_rng(0).normal(size=(16, 5 if build is subclassed else 2))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = trained(build, optimizer(), x, y, run_eagerly=True)
        twin = trained(build, optimizer(), x, y, run_eagerly=True)
        twin = swap_in(twin, in_place=build is subclassed)
    finally:
        keras.config.set_dtype_policy(before)
    assert twin.compiled
    assert set(norms_of(twin)) == {BatchNormalization}
    assert (
        int(twin.optimizer.iterations) >= 2
    )  # one may be lost to the search for a scale
    assert_same(*[[v.numpy() for v in m.optimizer.variables] for m in (model, twin)])
    rough = 1e-9 if policy == "float64" else 1e-2
    for _ in range(3):
        one, other = (m.train_on_batch(x, y, return_dict=True) for m in (model, twin))
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=rough)
    assert set(one) == set(other) == {"loss", "mae"}
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=rough, atol=rough)
    moved = zip(twin.optimizer.variables, model.optimizer.variables, strict=True)
    assert all(one is not other for one, other in moved)


class Tiny(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.norm = layers.Dense(4), Keras(momentum=0.5)

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


def test_functions_that_keras_traced_before_run_with_the_new_layers():
    x, y = friendly((8, 3), np.float32), np.ones((8, 4))
    model, twin = (
        trained(Tiny, keras.optimizers.SGD(0.1, momentum=0.9), x, y) for _ in range(2)
    )
    model.predict_on_batch(x)
    old = model.norm
    before = old.get_weights()
    swap_in(model, in_place=True)
    for each in (model, twin):
        each.train_on_batch(x, y)
    assert_same(old.get_weights(), before)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert np.abs(model.norm.get_weights()[2] - before[2]).max() > 1e-3
    np.testing.assert_allclose(
        model.predict_on_batch(x), twin.predict_on_batch(x), rtol=1e-3, atol=1e-4
    )


def test_a_fresh_optimizer_would_be_seen():
    """The test above can fail: without the state of the optimizer the steps differ."""
    x, y = friendly((16, 3), np.float32), np.ones((16, 2))
    model = trained(sequential, keras.optimizers.Adam(0.01), x, y, run_eagerly=True)
    twin = swap_in(model)
    twin.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    one, other = (m.train_on_batch(x, y) for m in (model, twin))
    one, other = (m.get_weights()[0] for m in (model, twin))
    assert np.abs(one - other).max() > 1e-3


def test_what_was_frozen_after_compiling_keeps_its_place_in_the_optimizer():
    x, y = friendly((16, 3), np.float32), np.ones((16, 2))
    model = trained(sequential, keras.optimizers.Adam(0.01), x, y, run_eagerly=True)
    model.layers[0].trainable = False
    twin = swap_in(model)
    assert not twin.layers[0].trainable
    assert len(twin.optimizer.variables) == len(model.optimizer.variables)


class OwnCompile(keras.Model):
    def compile(self, other, **settings):
        super().compile(**settings)
        self.other = other


def test_what_cannot_be_compiled_alike_is_not_compiled():
    inputs = keras.Input((3,))
    model = OwnCompile(inputs, Keras()(inputs))
    model.compile(other=1, loss="mse")
    with pytest.warns(
        UserWarning, match="is not compiled: OwnCompile has a compile of its own"
    ):
        other = swap_in(model)
    assert not other.compiled
    with pytest.raises(ValueError, match="compile"):
        other.fit(np.ones((4, 3)), np.ones((4, 3)), verbose=0)
    assert model.compiled
    assert not swap_in(keras.Model(inputs, Keras()(inputs))).compiled


def test_a_loss_that_is_a_function_comes_along():
    def loss(y, z):
        return tf.reduce_mean(tf.square(y - z)) + 7

    model = keras.Sequential([keras.Input((3,)), Keras()])
    model.compile("sgd", loss, metrics=[keras.metrics.MeanSquaredError(), "mae"])
    x = friendly((8, 3), np.float32)
    other = swap_in(model)
    assert other.evaluate(x, x, verbose=0)[0] > 7
    model.evaluate(x, x, verbose=0)
    mine, its = (m.metrics[-1].metrics[0] for m in (model, other))
    assert mine is not its


# Synchronised: what this means over replicas is in test_replicas.py


class Mixed(layers.Layer):
    """A block whose code makes our layer, and which is given others later."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norms = [BatchNormalization(name="own"), Keras(name="theirs")]

    def build(self, shape):
        for norm in self.norms:
            norm.build(shape)

    def call(self, x, training=None):
        for norm in self.norms:
            x = norm(x, training=training)
        return x


def synchronised(model):
    return [
        type(v) is BatchNormalization and v.synchronized
        for v in model._flatten_layers()
        if isinstance(v, Keras)
    ]


def test_a_model_is_synchronised_at_any_depth_and_keeps_its_state():
    inputs = keras.Input((4, 3))
    x = Mixed(name="mixed")(Block(3, name="block")(inputs))
    x = BatchNormalization(bessel=True, momentum=0.9, name="ours")(x)
    x = Keras(epsilon=0.1, synchronized=True, name="theirs")(x)
    model = disturb(keras.Model(inputs, x))
    model.get_layer("block").named["norm"].trainable = False
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    data = friendly((8, 4, 3), np.float32)
    model.fit(data, data, verbose=0)
    other = synchronize(model)
    assert synchronised(other) == [True] * 8
    assert not any(synchronised(model))
    assert_same(values_of(other), values_of(model))
    assert_same(*([v.numpy() for v in m.optimizer.variables] for m in (other, model)))
    assert not other.get_layer("block").named["norm"].trainable
    assert other.get_layer("ours").bessel
    assert other.get_layer("ours").momentum == 0.9
    # the code of the block makes other layers; what was put there is copied all the same
    assert synchronised(synchronize(other)) == [True] * 8
    assert synchronised(swap_in(other)) == [True] * 8


def test_a_model_of_code_is_synchronised_in_place():
    model = Tiny()
    model(friendly((8, 3), np.float32))
    assert synchronize(model, in_place=True) is model
    assert synchronised(model) == [True]


def test_ghost_batches_are_not_synchronised():
    parts = [keras.Input((3,)), BatchNormalization(virtual_batch_size=2, name="ghost")]
    with pytest.raises(ValueError, match=r"'ghost' normalises groups of 2 examples"):
        synchronize(keras.Sequential(parts))


# Files that need Keras alone


ALONE = """
import keras, numpy as np
x = np.load("x.npy")
np.save("y.npy", keras.models.load_model("theirs.keras")(x))
try:
    keras.models.load_model("ours.keras")
except TypeError as error:
    assert "bnlib" in str(error)
else:
    raise SystemExit("a file with our layer opened without bnlib")
"""


def test_a_file_for_those_who_have_no_bnlib(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(Keras()(layers.Dense(4)(inputs))))
    ours, x = swap_in(disturb(model)), friendly((4, 3), np.float32)
    ours.save(tmp_path / "ours.keras")
    swap_out(ours).save(tmp_path / "theirs.keras")
    np.save(tmp_path / "x.npy", x)
    run_without_bnlib(ALONE, tmp_path)
    np.testing.assert_allclose(
        np.load(tmp_path / "y.npy"), ours(x), rtol=1e-5, atol=1e-6
    )


def test_a_file_opens_where_bnlib_is_imported(tmp_path):
    model = swap_in(holding_model())
    model.save(tmp_path / "model.keras")
    known = {"Block": Block}
    again = keras.models.load_model(tmp_path / "model.keras", custom_objects=known)
    x = friendly((2, 4, 3), np.float32)
    theirs = assert_swapped(again, x, Keras)
    np.testing.assert_allclose(theirs(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_swap_draws_nothing_from_the_seeds():
    """What is initialised or shuffled after it is what it would be without it."""
    drawn = []
    for swap in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
        if swap:
            swap_in(model)
        drawn.append(np.asarray(keras.random.normal((2,))))
    np.testing.assert_array_equal(*drawn)
