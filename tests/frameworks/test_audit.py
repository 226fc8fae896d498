"""`audit`: each rule finds its fault and is silent on a near miss; the model is left as it was."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import json
import re
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from samples import friendly

from bnlib import conformance
from bnlib.doctor import RULES, Fault, Rule, audit
from bnlib.keras import BatchNormalization
from bnlib.reports import Report

Keras, layers = keras.layers.BatchNormalization, keras.layers
BOOK = Path(__file__).parents[2] / "book"
X = friendly((256, 3), np.float32)
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def norms_of(model):
    return [v for v in model._flatten_layers() if isinstance(v, Keras)]


def settle(model, x=X):
    """Give a model the statistics of x: all of it as one batch, with momentum 0."""
    kept = [(norm, norm.momentum) for norm in norms_of(model)]
    for norm, _ in kept:
        norm.momentum = 0.0
    model(x, training=True)
    for norm, momentum in kept:
        norm.momentum = momentum
    return model


def sequence(*parts, x=X):
    return settle(keras.Sequential([keras.Input(x.shape[1:]), *parts]), x)


def graph(inputs, outputs, x=X):
    return settle(keras.Model(inputs, outputs), x)


def dense(units=4, **settings):
    return layers.Dense(units, use_bias=False, **settings)


# One function for each rule yields (model, data or None, the layers that have the fault: none for a
# near miss).


def bn001():
    fresh = keras.Sequential([keras.Input((3,)), dense(), Keras(name="n"), dense()])
    yield fresh, None, ["n"]
    touched = keras.models.clone_model(fresh)
    touched.get_layer("n").moving_mean.assign([0, 0, 0, 1e-3])
    yield touched, None, []


def off(deviations, factor):
    model = sequence(Keras(name="n"), dense(), Keras(name="m"))
    norm = model.get_layer("n")
    norm.moving_mean.assign(X.mean(0) + deviations * X.std(0))
    norm.moving_variance.assign(factor * X.var(0))
    return model


def bn002():
    yield off(0.8, 1), X, ["n", "m"]
    yield off(0.1, 1.1), X, []
    yield off(0, 1), X[:64], []
    yield off(0.8, 1), None, []
    yield off(0.3, 1), X[:8], []  # so few examples cannot tell


def bn003():
    model = off(0.9, 3)
    yield model, X, [model.name]
    yield off(0, 1), X, []
    noisy = sequence(dense(16), Keras(), layers.ReLU(), dense(16), Keras(), dense(2))
    yield noisy, X, []
    yield noisy, fours, []  # a large gap, by chance alone


def small_batches(size, steps):
    """Let a layer meet batches of one size, as a training does that moves no weight."""
    model = keras.Sequential([keras.Input((3,)), Keras(momentum=0.95, name="n")])
    rng = np.random.default_rng(1)
    for _ in range(steps):
        model(X[rng.integers(0, len(X), size)], training=True)
    return model


def fours():
    return (X[start : start + 4] for start in range(0, 128, 4))


def bn004():
    yield small_batches(4, 100), fours, ["n"]
    yield off(0, 1), fours, []
    yield small_batches(64, 60), fours, []
    yield by_class(), CLASSES, []
    model = settle(Twice())  # its calls have two distributions
    model.norm.moving_variance.assign(0.75 * np.asarray(model.norm.moving_variance))
    yield model, fours, []


# four classes far apart, one after the other, so that no batch of 32 has two
CLASSES = np.concatenate([X[:64] + 20 * place for place in range(4)])


def by_class():
    """Statistics as batches of one class leave them: the mean is right, the variance is not."""
    model = keras.Sequential([keras.Input((3,)), Keras(name="n")])
    model.get_layer("n").moving_mean.assign(CLASSES.mean(0))
    model.get_layer("n").moving_variance.assign(X[:64].var(0))
    return model


def test_batches_that_are_not_shuffled_hide_no_fault():
    sorted_, shuffled = (
        audit(by_class(), x)
        for x in (CLASSES, np.random.default_rng(0).permutation(CLASSES))
    )
    for report in (sorted_, shuffled):
        assert [row.level for row in report if row.code == "BN002"] == ["error"]
    (note,) = (note for note in sorted_.notes if "not shuffled" in note)
    assert "left out for 'n', where" in note
    assert not any("not shuffled" in note for note in shuffled.notes)


def bn005():
    yield off(0, 1), X[:129], ["n", "m"]
    yield off(0, 1), X[:130], []
    frozen = off(0, 1)
    frozen.trainable = False
    yield frozen, X[:129], []


class Code(keras.Model):
    """A model that is code, with the mode of its own choice."""

    def __init__(self, training):
        super().__init__()
        self.norm, self.head, self.mode = Keras(name="n"), dense(2), training

    def call(self, x, training=None):
        return self.head(
            self.norm(x, training=training if self.mode is None else self.mode)
        )


class Inheriting(keras.Model):
    """Code that tells dropout alone to train: Keras hands that on."""

    def __init__(self):
        super().__init__()
        self.drop, self.norm = layers.Dropout(0.0), Keras(name="n")

    def call(self, x):
        return self.norm(self.drop(x, training=True))


def bn006():
    inputs = keras.Input((3,))
    norm = Keras(name="n")
    model = graph(inputs, norm(inputs, training=True))
    yield model, None, ["n"]
    frozen = keras.models.clone_model(model)
    frozen.trainable = False
    yield frozen, None, []
    inner = keras.Sequential([keras.Input((3,)), Keras(name="n")], name="inner")
    yield graph(inputs, inner(inputs, training=True)), None, ["inner/n"]
    yield graph(inputs, Keras(name="n")(inputs)), None, []
    yield settle(Code(True)), X, ["n"]
    yield settle(Code(None)), X, []
    yield settle(Inheriting()), X, ["n"]


def base_and_head(frozen, trainable=()):
    base = keras.Sequential(
        [keras.Input((3,)), dense(name="a"), Keras(name="n"), dense(name="b")],
        name="base",
    )
    head = [Keras(name="own"), layers.ReLU(), dense(2, name="c")]
    model = settle(keras.Sequential([keras.Input((3,)), base, *head]))
    base.trainable = not frozen
    for name in trainable:
        base.get_layer(name).trainable = True
    return model


def bn007():
    yield base_and_head(True, ["n"]), None, ["base/n"]
    yield base_and_head(True), None, []
    yield base_and_head(False), None, []
    only = base_and_head(False)
    only.get_layer("base").get_layer("n").trainable = False
    yield only, None, ["base/n"]
    inputs = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), Keras(name="n")], name="inner")
    model = graph(inputs, inner(inputs, training=False))
    yield model, None, ["inner/n"]
    inner.trainable = False
    yield model, None, []


def bn008():
    drop = layers.Dropout(0.3, seed=1)
    model = sequence(drop, dense(), layers.ReLU(), Keras(name="n"))
    yield model, None, ["n"]
    yield model, X, ["n"]
    later = sequence(dense(), Keras(), layers.Dropout(0.3, seed=1), dense())
    yield later, X, []
    yield settle(Dropping()), X, ["n"]
    yield sequence(dense(), Keras(), layers.Dropout(0.3, seed=1), dense()), None, []
    yield sequence(layers.Dropout(0.0), Keras()), None, []
    yield sequence(drop, layers.LayerNormalization(), dense(), Keras()), None, []
    inputs = keras.Input((3,))
    depth = layers.Dropout(0.3, noise_shape=(None, 1), seed=1)
    yield graph(inputs, Keras()(inputs + depth(dense(3)(inputs)))), None, []
    after = layers.Dropout(0.3, seed=1)(Keras(name="first")(inputs))
    yield graph(inputs, Keras(name="n")(layers.Add()([after, inputs]))), None, ["n"]


class Dropping(keras.Model):
    """Code with dropout before batch norm, which no graph shows."""

    def __init__(self):
        super().__init__()
        self.drop, self.norm = layers.Dropout(0.3, seed=1), Keras(name="n")

    def call(self, x, training=None):
        return self.norm(self.drop(x, training=training), training=training)


def bn009():
    yield sequence(layers.Dense(4), Keras(name="n")), None, ["n"]
    yield sequence(layers.Dense(4, activation="relu"), Keras()), None, []
    yield sequence(layers.Dense(4), layers.ReLU(), Keras()), None, []
    yield sequence(dense(), Keras()), None, []
    inputs = keras.Input((3,))
    x = layers.Dense(3)(inputs)
    yield graph(inputs, Keras()(x) + x), None, []
    yield graph(inputs, [Keras()(x), x]), None, []
    images = friendly((8, 5, 4, 3), np.float32)
    yield sequence(layers.Conv2D(4, 2), Keras(axis=1), x=images), None, []
    yield sequence(layers.Conv2D(4, 2), Keras(name="n"), x=images), None, ["n"]


def bn010():
    model = sequence(Keras(name="n"), dense())
    model.get_layer("n").gamma.assign([1, 1e-5, 1])
    yield model, None, ["n"]
    near = sequence(Keras(name="n"), dense())
    near.get_layer("n").gamma.assign([1, 0.01, 1])
    yield near, None, []
    x = np.concatenate([X[:, :2], np.full((len(X), 1), 7, np.float32)], axis=1)
    dead = sequence(Keras(name="n"), x=x)
    yield dead, None, ["n"]
    dead.get_layer("n").moving_variance.assign([1, 1, 1])
    yield dead, x, ["n"]
    yield dead, X, []
    yield sequence(Keras(scale=False)), None, []


def bn011():
    one, two = keras.Input((3,)), keras.Input((3,))
    norm, pair = Keras(name="n"), (X, 2 * X)
    yield graph([one, two], norm(one) + norm(two), pair), None, ["n"]
    shared = dense()
    x = Keras(name="a")(shared(one)) + Keras(name="b")(shared(two))
    yield graph([one, two], x, pair), None, []
    again = keras.Model(one, norm(one))  # the layer in another model, once
    yield settle(again), None, []
    inner = keras.Sequential([keras.Input((3,)), Keras(name="n")], name="inner")
    yield graph([one, two], inner(one) + inner(two), pair), None, ["inner/n"]
    twice = settle(Twice())
    yield twice, X, ["n"]


class Twice(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = Keras(name="n")

    def call(self, x, training=None):
        return self.norm(self.norm(x, training=training), training=training)


def bn012():
    x = friendly((16, 5, 3), np.float32)
    timed = sequence(layers.TimeDistributed(Keras(name="n"), name="t"), x=x)
    yield timed, None, ["t/n"]
    yield timed, x, ["t/n"]
    yield sequence(layers.TimeDistributed(dense()), Keras(), x=x), None, []
    block = keras.Sequential([keras.Input((3,)), Keras(name="n")], name="block")
    yield sequence(layers.TimeDistributed(block, name="t"), x=x), None, ["t/block/n"]
    timed = sequence(layers.TimeDistributed(Keras()), x=x)
    timed.trainable = False
    yield timed, None, []


def trained(**settings):
    model = off(0, 1)
    model.compile(keras.optimizers.SGD(0.0, **settings), "mse")
    model.fit(X, np.zeros((len(X), 4)), epochs=1, verbose=0)
    return model


def bn013():
    model = trained(use_ema=True)
    yield model, None, [norm.name for norm in norms_of(model)]
    yield settle(model), X, []
    yield trained(), None, []
    fresh = off(0, 1)
    fresh.compile(keras.optimizers.SGD(use_ema=True), "mse")
    yield fresh, None, []


def bn014():
    model = sequence(Keras(name="n"), dense())
    model.get_layer("n").moving_variance.assign([1e-3, 1e-3, 1])
    yield model, None, ["n"]
    model = sequence(Keras(name="n"), dense())
    model.get_layer("n").moving_variance.assign([1e-3, 0.02, 1])
    yield model, None, []


def bn015():
    for momentum in (0.0, 1.0, 1.5, -0.1, 0.1):
        yield sequence(Keras(momentum=momentum, name="n")), None, ["n"]
    for momentum in (0.999, 0.5):
        yield sequence(Keras(momentum=momentum)), None, []
    yield sequence(BatchNormalization(momentum=1, zero_debias=True)), None, []
    plain = keras.Sequential([keras.Input((3,)), BatchNormalization(momentum=None)])
    yield plain, None, []


def channels_first(axis):
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, data_format="channels_first", use_bias=False)(inputs)
    return keras.Model(inputs, Keras(axis=axis, name="n")(layers.ReLU()(x)))


def bn016():
    yield channels_first(-1), None, ["n"]
    yield channels_first(1), None, []
    images = friendly((8, 5, 4, 3), np.float32)
    yield sequence(layers.Conv2D(4, 2), Keras(axis=1, name="n"), x=images), None, ["n"]
    yield sequence(layers.Conv2D(4, 2), Keras(), x=images), None, []
    parts = layers.Permute((3, 1, 2)), Keras(axis=1)
    yield sequence(layers.Conv2D(4, 2), *parts, x=images), None, []
    flat = layers.Conv2D(4, 2), layers.Flatten(), Keras(axis=1)
    yield sequence(*flat, x=images), None, []


def bn017():
    for value in (np.nan, np.inf, -0.5):
        model = sequence(Keras(name="n"))
        model.get_layer("n").moving_variance.assign([1, value, 1])
        yield model, None, ["n"]
        yield model, X, ["n"]
        assert not layers_of(audit(model, X), "BN002")
    model = sequence(Keras(name="n"))
    model.get_layer("n").moving_variance.assign([1, 1e30, 0])
    yield model, None, []
    for name in ("gamma", "beta"):
        model = sequence(Keras(name="n"), dense())
        getattr(model.get_layer("n"), name).assign([1, np.nan, 1])
        yield model, None, ["n"]
        yield model, X, ["n"]
    model = sequence(dense(name="d"), Keras(name="n"), dense(2, name="last"))
    model.get_layer("last").kernel.assign(np.full((4, 2), np.nan))
    yield model, None, ["last"]
    yield model, X, ["last"]
    fed_nan = keras.Sequential(
        [keras.Input((3,)), logarithm(), Keras(name="n"), dense()]
    )
    yield fed_nan, X, ["n"]
    fed_nan.get_layer("n").moving_mean.assign([np.nan, 0, 0])
    fed_nan.get_layer("n").moving_variance.assign([1, np.nan, -1])
    yield fed_nan, None, ["n"]
    behind = sequence(Keras(name="n"), logarithm())
    yield behind, X, [behind.name]
    yield behind, None, []
    yield sequence(Keras(name="n"), dense(), layers.ReLU()), X, []


def logarithm():
    return layers.Lambda(tf.math.log)  # NaN below 0


CASES = {
    name.upper(): case for name, case in list(vars().items()) if name.startswith("bn0")
}


def layers_of(report, code):
    return [layer for row in report for layer in row.layers if row.code == code]


@pytest.mark.parametrize("code", [rule.code for rule in RULES])
def test_a_rule_finds_its_fault_and_is_silent_on_near_misses(code):
    outcomes = []
    for place, (model, data, expected) in enumerate(CASES[code]()):
        report = audit(model, data)
        assert sorted(layers_of(report, code)) == sorted(expected), (place, str(report))
        outcomes.append(bool(expected))
    assert set(outcomes) == {True, False}, "a rule needs a faulty model and a near miss"


def test_every_rule_has_cases_and_a_page_of_the_book():
    assert list(CASES) == [rule.code for rule in RULES]
    for rule in RULES:
        page = BOOK / rule.link
        assert page.with_suffix(".ipynb").exists(), rule.link
        assert rule.cure.endswith(".")
    assert json.loads(Report("rules", RULES).to_json())["rows"][1]["needs_data"] is True


def test_messages_have_numbers_and_these_are_the_evidence():
    report = audit(off(0.8, 2), X)
    (row, *_) = (row for row in report if row.code == "BN002")
    assert row.level == "error"
    assert row.where == f"{row.layers[0]} and 1 more"
    np.testing.assert_allclose(row.evidence["n"]["deviations"], 0.8, rtol=1e-3)
    np.testing.assert_allclose(row.evidence["n"]["factor"], 2, rtol=1e-3)
    worst = row.evidence[row.layers[0]]
    assert f"{worst['deviations']:.2f} deviations" in row.message
    assert f"factor of {worst['factor']:.2f}" in row.message
    json.loads(report.to_json())


def test_a_mode_that_is_handed_on_is_not_laid_at_the_door_of_batch_norm():
    (row,) = (row for row in audit(settle(Inheriting()), X) if row.code == "BN006")
    assert "to it or to a layer that runs before it" in row.message


def test_the_level_of_unfit_statistics_goes_by_size():
    assert [r.level for r in audit(off(0.4, 1), X) if "n" in r.layers] == ["warning"]


@pytest.mark.parametrize("steps", [8, 600])
def test_unfit_statistics_are_explained_by_the_steps(steps):
    model = off(0.8, 1)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(steps)
    (row, *_) = (row for row in audit(model, X) if row.code == "BN002")
    words = {8: "began at 0 and 1 in this training, 92% of that", 600: "not the start"}[
        steps
    ]
    assert words in row.message
    assert row.evidence["n"]["steps"] == steps


def test_a_shared_rule_of_ones_own():
    def large(case):
        for path, layer in case.norms:
            if layer.epsilon > 0.1:
                yield path, f"epsilon {layer.epsilon}.", {"epsilon": layer.epsilon}

    mine = Rule("warning", "MY001", "large", "Make it less.", "part1/02.html", large)
    model = sequence(Keras(epsilon=0.5, name="n"))
    (row,) = audit(model, rules=[mine])
    assert (row.code, row.layers, row.level) == ("MY001", ("n",), "warning")
    assert row.code in [r.code for r in audit(model, rules=[*RULES, mine])]
    assert Fault("n", "", {}).level is None
    with pytest.raises(TypeError, match=r"rules must be .*Rule; got function\. Wrap"):
        audit(model, rules=[large])


# Models and data of all kinds


def bytes_of(model):
    held = [*model.variables]
    if getattr(model, "optimizer", None):
        held += model.optimizer.variables
    seeds = [s.state for v in model._flatten_layers() for s in v._seed_generators]
    return [v.numpy().tobytes() for v in held + seeds]


def trained_with_dropout():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dropout(0.5, seed=3), dense(), Keras(), dense(2)]
    )
    model.compile(keras.optimizers.Adam(), "mse")
    model.fit(X, X[:, :2], epochs=1, verbose=0)
    return model


class Breaks(layers.Layer):
    """Fails at the n-th call."""

    def __init__(self, at):
        super().__init__()
        self.left = at

    def call(self, x):
        if not tf.is_symbolic_tensor(x):
            self.left -= 1
            if self.left == 0:
                raise RuntimeError("enough")
        return x


@pytest.mark.parametrize("at", [1, 2, 4, 9])
def test_the_model_is_as_it_was_also_when_it_fails_midway(at):
    model = trained_with_dropout()
    model = keras.Sequential([keras.Input((3,)), *model.layers, Breaks(at)])
    model.compile(keras.optimizers.Adam(), "mse")
    model.layers[-1].left = 100
    model.fit(X[:64], X[:64, :2], verbose=0)
    model.layers[-1].left = at
    before = bytes_of(model)
    with pytest.raises(RuntimeError, match="enough"):
        audit(model, X)
    assert bytes_of(model) == before
    assert all("call" not in vars(v) for v in model._flatten_layers())
    assert not tf.config.functions_run_eagerly()


def test_the_model_is_as_it_was_and_goes_on_alike():
    model = trained_with_dropout()
    before, expected = bytes_of(model), model.predict(X, verbose=0)
    report = audit(model, X)
    assert bytes_of(model) == before
    assert {"BN002", "BN003", "BN008"} <= {row.code for row in report}
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
    model.fit(X, X[:, :2], epochs=1, verbose=0)


def two_inputs(named):
    one, two = keras.Input((3,), name="one"), keras.Input((2,), name="two")
    inputs = {"one": one, "two": two} if named else [one, two]
    x = layers.Concatenate()([one, Keras(name="small")(two)])
    return keras.Model(inputs, {"a": Keras(name="n")(x), "b": dense(2)(x)})


@pytest.mark.parametrize("kind", ["dict", "tuple", "dataset", "function", "iterator"])
def test_data_of_any_kind_show_the_same(kind):
    named = kind != "tuple"
    x = {"one": X, "two": X[:, :2] * 3}
    model = two_inputs(named)
    settle(model, x if named else [*x.values()])
    norm = model.get_layer("n")
    norm.moving_mean.assign(np.asarray(norm.moving_mean) + 5)

    def batches():
        for start in range(0, 256, 32):
            yield {k: v[start : start + 32] for k, v in x.items()}, np.zeros(32)

    data = {
        "dict": x,
        "tuple": ([X, X[:, :2] * 3], X),
        "dataset": tf.data.Dataset.from_tensor_slices(x).batch(32),
        "function": batches,
        "iterator": batches(),
    }[kind]
    report = audit(model, data)
    assert layers_of(report, "BN002") == ["n"]
    assert "256 examples" in report.notes[0]
    (row,) = (row for row in report if row.code == "BN002")
    variance = np.concatenate([X.var(0), [1, 1]])  # those of `small` come normalised
    far = np.sqrt(np.mean(25 / (variance + 1e-3)))
    np.testing.assert_allclose(row.evidence["n"]["deviations"], far, rtol=1e-3)


def test_batches_are_let_go():
    held, most = [], 0

    def batches():
        nonlocal most
        for start in range(0, 256, 16):
            batch = X[start : start + 16].copy()
            held.append(weakref.ref(batch))
            yield batch
            del batch
            most = max(most, sum(ref() is not None for ref in held))

    audit(off(0, 1), batches)
    assert most <= 2


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_sums_are_exact_in_any_precision(policy):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            Keras(dtype=policy, name="n"),
            layers.Dense(2, dtype=policy),
        ]
    )
    norm = model.get_layer("n")
    kind = keras.DTypePolicy(policy).compute_dtype
    seen = tf.cast(X, kind).numpy().astype("float64")
    norm.moving_mean.assign(seen.mean(0) + 0.7 * np.sqrt(seen.var(0) + norm.epsilon))
    norm.moving_variance.assign(seen.var(0))
    (row,) = (row for row in audit(model, X, batch_size=7) if row.code == "BN002")
    np.testing.assert_allclose(row.evidence["n"]["deviations"], 0.7, rtol=1e-5)
    np.testing.assert_allclose(row.evidence["n"]["factor"], 1, atol=1e-5)


def test_dropout_is_measured():
    x = np.random.default_rng(0).normal(0, 1, (4096, 8)).astype(np.float32)
    model = sequence(layers.Dropout(0.5, seed=0), Keras(name="n"), x=x)
    (row,) = (r for r in audit(model, x, batch_size=512) if r.code == "BN008")
    # E[x^2] / keep is the variance in training
    np.testing.assert_allclose(row.evidence["n"]["factor"], 2, rtol=0.03)
    assert "2.0" in row.message
    assert "rate 0.5" in row.message


def test_what_takes_one_size_of_batch_is_not_halved():
    norm = BatchNormalization(virtual_batch_size=32, name="n")
    report = audit(keras.Sequential([keras.Input((3,)), norm]), X)
    assert any("does not take half of a batch" in note for note in report.notes)
    assert [row.code for row in report] == ["BN001"]


def test_steps_are_those_of_the_optimizer_also_in_mixed_precision():
    model = keras.Sequential([keras.Input((3,)), Keras(dtype="mixed_float16"), dense()])
    model.compile(keras.optimizers.SGD(), "mse", auto_scale_loss=True)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0))
    model.compile(scaled, "mse")
    model.fit(X[:64], X[:64, :1], verbose=0)
    model.layers[0].moving_mean.assign([0, 0, 0])
    model.layers[0].moving_variance.assign([1, 1, 1])
    (row,) = (r for r in audit(model) if r.code == "BN001")
    assert "2 steps have not moved them" in row.message


def test_masked_steps_are_left_out():
    x = friendly((64, 6, 3), np.float32)
    x[:, 4:] = 0
    model = keras.Sequential([keras.Input((6, 3)), layers.Masking(), Keras(name="n")])
    norm = model.get_layer("n")
    norm.moving_mean.assign(x[:, :4].mean((0, 1)))
    norm.moving_variance.assign(x[:, :4].var((0, 1)))
    assert not layers_of(audit(model, x), "BN002")


def test_layers_of_ours_over_several_axes():
    x = friendly((64, 5, 3), np.float32)
    model = keras.Sequential(
        [keras.Input((5, 3)), BatchNormalization(axis=[1, 2], name="n"), dense()]
    )
    norm = model.get_layer("n")
    norm.moving_mean.assign(x.mean(0))
    norm.moving_variance.assign(x.var(0))
    assert not layers_of(audit(model, x), "BN002")
    norm.moving_mean.assign(x.mean(0) + 1 * x.std(0))
    assert layers_of(audit(model, x), "BN002") == ["n"]


class Several(keras.Model):
    """Code whose call takes several arguments, around a graph."""

    def __init__(self):
        super().__init__()
        self.inner = keras.Sequential(
            [keras.Input((3,)), layers.Dense(4), Keras(name="n")], name="inner"
        )
        self.norm = Keras(name="own")

    def call(self, left, right, training=None):
        return self.norm(self.inner(left + right, training=training), training=training)


def test_models_that_are_code_say_where_it_was_not_looked():
    model = Several()
    model(X, X)
    report = audit(model, {"left": X, "right": X})
    assert layers_of(report, "BN001") == ["inner/n", "own"]
    assert layers_of(report, "BN009") == ["inner/n"]
    (note,) = (n for n in report.notes if "1 of 2 batch norm layers are called" in n)
    assert "(BN009, BN016)" in note  # the others look with data
    (note,) = (n for n in audit(model).notes if "are called by code" in n)
    assert "(BN006, BN008, BN009, BN011, BN016)" in note
    assert not any("called by code" in n for n in audit(off(0, 1)).notes)


class Odd(keras.Model):
    """Without a `training` argument, and with outputs of every kind."""

    def __init__(self):
        super().__init__()
        self.norm = Keras(name="n")

    def call(self, x):
        y = self.norm(x)
        return {"y": [y, y[:, 0]], "sum": tf.reduce_sum(y), "of": (tf.shape(x), x > 0)}


def test_outputs_of_every_kind():
    model = Odd()
    model(X)
    model.norm.moving_mean.assign(X.mean(0) + 2 * X.std(0))
    assert layers_of(audit(model, X), "BN003") == [model.name]
    assert audit(model.norm, X).worst == "error"  # a layer alone is a model, too


def test_outputs_that_hardly_vary_are_said_to():
    model = keras.Sequential([keras.Input((3,)), Keras(name="n"), dense()])
    model.layers[0].moving_variance.assign([1e12] * 3)
    [finding] = [row for row in audit(model, X) if row.code == "BN003"]
    assert "hardly by the moving ones" in finding.message


def test_inputs_that_are_no_numbers_are_said():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Lambda(lambda x: tf.math.log(x)), Keras(), dense()]
    )
    report = audit(model, X)
    assert any("NaN or infinite" in note for note in report.notes)
    assert not layers_of(report, "BN002")
    assert report.worst == "error"


def test_infinite_outputs_may_be_meant():
    masked = layers.Lambda(lambda x: tf.where(x > 0, x, -np.inf))
    (row,) = audit(sequence(Keras(name="n"), masked), X)
    assert (row.code, row.level) == ("BN017", "warning")


def test_bad_input_is_refused():
    model = off(0, 1)
    with pytest.raises(TypeError, match=r"must be a keras\.Model; got int"):
        audit(3)
    with pytest.raises(ValueError, match="must have batch norm layers"):
        audit(keras.Sequential([keras.Input((3,)), dense()]))
    with pytest.raises(ValueError, match="must be built"):
        audit(keras.Sequential([Keras()]))
    with pytest.raises(ValueError, match="must be finite"):
        audit(model, np.full((8, 3), np.nan))
    with pytest.raises(ValueError, match="must hold examples"):
        audit(model, X[:0])
    with pytest.raises(ValueError, match="incompatible"):
        audit(model, X[:, :2])
    with pytest.raises(ValueError, match="which has 1; got 2 arrays"):
        audit(model, [X, X[:, 0]])
    with pytest.raises(ValueError, match=r"got a single .*np\.stack"):
        audit(model, np.array(3.0))
    words = np.full((8, 3), "a")
    for data, shown in ((X[:, :2], r"\(32, 2\) float32"), (words, r"\(8, 3\) \w+")):
        with pytest.raises(
            ValueError, match=f"must be what .* takes; .*{shown}"
        ) as raised:
            audit(model, data)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["ResNet50", "EfficientNetB0", "MobileNetV3Small"])
def test_untouched_models_give_no_false_alarm(name):
    make = getattr(keras.applications, name)
    report = audit(make(weights=None, input_shape=(64, 64, 3)))
    usual = ["BN001", "BN009"] if name == "ResNet50" else ["BN001"]
    assert [row.code for row in report] == usual
    if name == "ResNet50":
        (row,) = (row for row in report if row.code == "BN009")
        assert sum(each["biases"] for each in row.evidence.values()) == 26560


def test_the_page_of_symptoms_names_every_rule_and_no_other():
    page = (BOOK / "symptoms.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    named = {code for row in rows for code in re.findall(r"BN\d+", row)}
    assert named == {rule.code for rule in RULES}
    checks = {
        name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[-2])
    }
    assert checks <= set(conformance.names())
