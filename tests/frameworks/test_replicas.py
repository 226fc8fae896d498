"""Several devices and several processes: each run must be that of one device with the whole batch.

The reference is Keras's own layer in float64 on one device, in a loop of its own. Logical devices
are cut before TensorFlow starts, so these runs have processes of their own, many checks in each.
"""

import json
import time

import numpy as np
import pytest
import tensorflow as tf

from bnlib.book.data import stored
from bnlib.book.workers import run_workers
from bnlib.replicas import join_workers, mirrored, per_replica, train_step

# What all processes share: the data, a model, the reference

COMMON = """
import json, os
import keras, numpy as np, tensorflow as tf
from bnlib.keras import BatchNormalization, synchronize
from bnlib.replicas import join_workers, mirrored, per_replica, train_step

tf.get_logger().setLevel("ERROR")
keras.config.set_floatx("float64")
N, STEPS, RATE = 24, 5, 0.1
rng = np.random.default_rng(0)
x = np.sort(rng.normal([3, -2, 0], [1, 4, 0.5], (STEPS, N, 3)), axis=1)   # parts differ
y = np.sin(x.sum(-1, keepdims=True)) + rng.normal(0, 0.1, (STEPS, N, 1))
KERNELS = [rng.normal(size=shape) for shape in [(3, 5), (5, 1)]]
squares = lambda labels, outputs: tf.reduce_sum((labels - outputs) ** 2, -1)

def model_with(norm):
    model = keras.Sequential([
        keras.Input((3,)), norm(momentum=0.7, name="first"),
        keras.layers.Dense(5, "tanh", kernel_regularizer=keras.regularizers.L2(0.01)),
        norm(momentum=0.7), keras.layers.Dense(1)])
    for layer, kernel in zip(model.layers[1::2], KERNELS):
        layer.kernel.assign(kernel)
    return model

def state(model, copy=0):
    local = tf.distribute.get_strategy().experimental_local_results
    return [local(w.value)[copy].numpy().tolist() for w in model.weights]

def reference(shift=0):
    model = model_with(keras.layers.BatchNormalization)
    for inputs, labels in zip(x + shift, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(squares(labels, model(inputs, training=True)))
            loss += sum(model.losses)
        for w, g in zip(model.trainable_weights, tape.gradient(loss, model.trainable_weights)):
            w.assign_sub(RATE * g)
    return {"weights": [w.numpy().tolist() for w in model.weights], "loss": float(loss)}

def run(strategy, cuts, synchronized, shift=0, layer=BatchNormalization):
    with strategy.scope():
        model = model_with(lambda **s: layer(synchronized=synchronized, **s))
        optimizer = keras.optimizers.SGD(RATE)
    step = train_step(strategy, model, optimizer, squares)
    for inputs, labels in zip(x + shift, y):
        loss = step(*(per_replica(strategy, np.split(a, cuts)) for a in (inputs, labels)))
    local = strategy.experimental_local_results
    copies = [[c.numpy().tolist() for c in local(w.value)] for w in model.weights]
    return {"copies": [list(c) for c in zip(*copies)], "loss": float(loss),
            "read": [w.numpy().tolist() for w in model.weights]}
"""

MIRRORED = (
    COMMON
    + """
size = 2 + 2 * json.loads(os.environ.pop("TF_CONFIG"))["task"]["index"]
strategy = mirrored(size)

def one_pass(parts):
    "Outputs, gradients and statistics of one synchronised layer, for unequal weights of outputs."
    with strategy.scope():
        norm = BatchNormalization(momentum=0.0, synchronized=True)
        norm.build((None, 3))
    @tf.function
    def go(x, w):
        def inner(x, w):
            with tf.GradientTape() as tape:
                tape.watch(x)
                out = norm(x, training=True)
                loss = tf.reduce_sum(w * out)
            return out, tape.gradient(loss, x)
        return strategy.run(inner, (x, w))
    found = go(*(per_replica(strategy, p) for p in parts))
    return [np.concatenate(strategy.experimental_local_results(f)).tolist() for f in found]

weigh = rng.normal(size=(N, 3))
def one_pass_whole(x):
    norm, x = keras.layers.BatchNormalization(momentum=0.0), tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = norm(x, training=True)
        loss = tf.reduce_sum(weigh * out)
    return [out.numpy().tolist(), tape.gradient(loss, x).numpy().tolist()]

def theirs(masked):
    "Two replicas of Keras's synchronised layer: the moving statistics of both."
    parts = [np.array([[1.], [3.], [7.]]), np.array([[100.], [300.], [7.]])]
    masks = [np.array([True, True, not masked])] * 2
    with strategy.scope():
        norm = keras.layers.BatchNormalization(momentum=0.0, synchronized=True)
        norm.build((None, 1))
    @tf.function
    def go(x, m):
        strategy.run(lambda x, m: norm(x, training=True, mask=m if masked else None), (x, m))
    go(per_replica(strategy, parts), per_replica(strategy, masks))
    return [v.numpy().tolist() for v in strategy.experimental_local_results(norm.moving_mean.value)]

def fitted():
    "One epoch by fit, a copy for the replicas, and two more epochs of both."
    alone = model_with(keras.layers.BatchNormalization)
    alone.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    again = lambda model, n: model.fit(
        x[0], y[0], batch_size=8, epochs=n, shuffle=False, verbose=0)
    again(alone, 1)
    with strategy.scope():
        many = synchronize(alone)
        unlike = keras.models.clone_model(alone)
        unlike.set_weights(alone.get_weights())
        unlike.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        for one, other in zip(alone.optimizer.variables, unlike.optimizer.variables):
            other.assign(one)
    for model in (alone, many, unlike):
        again(model, 2)
    return [state(model) for model in (alone, many, unlike)]

class Held(keras.Model):
    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()
        self.built = self.norm.build((None, 3)) is None

    def call(self, x, training=None):
        return self.norm(x, training=training)

def held_inside():
    with strategy.scope():
        model = synchronize(Held(), in_place=True, verify=x[0])
        return bool(model.norm.synchronized)

def held_outside():
    model = Held()
    with strategy.scope():
        synchronize(model, in_place=True, verify=x[0])

def exchanges():
    "How often replica 0 waits for the others in one step of one layer."
    with strategy.scope():
        norm = BatchNormalization(synchronized=True)
        norm.build((None, 3))
    plain, waits = tf.distribute.ReplicaContext.all_reduce, []
    def counted(self, *given, **settings):
        waits.append(int(tf.get_static_value(self.replica_id_in_sync_group)))
        return plain(self, *given, **settings)
    def inner(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = norm(x, training=True)
            forward.append(waits.count(0))
        return tape.gradient(out, x, out ** 2)
    forward = []
    tf.distribute.ReplicaContext.all_reduce = counted
    try:
        tf.function(lambda x: strategy.run(inner, (x,))).get_concrete_function(
            per_replica(strategy, np.split(x[0], size)))
    finally:
        tf.distribute.ReplicaContext.all_reduce = plain
    return [min(forward), waits.count(0)]

def refused(make):
    try:
        make()
    except (ValueError, RuntimeError) as error:
        return str(error)

def outside():
    return train_step(strategy, model_with(BatchNormalization), keras.optimizers.SGD(), squares)

def half_outside():
    with strategy.scope():
        model = model_with(BatchNormalization)
    return train_step(strategy, model, keras.optimizers.SGD(), squares)

cuts = [1, 9, 12]
print(json.dumps({"whole": reference(), **({
    "two": run(strategy, [12], True),
    "alone": run(strategy, [12], False),
    "keras alone": run(strategy, [12], False, layer=keras.layers.BatchNormalization),
    "keras, masked": theirs(True), "keras, not masked": theirs(False),
    "fitted": fitted(), "held": held_inside(), "held outside": refused(held_outside),
    "exchanges": exchanges(),
} if size == 2 else {
    "whole, far": reference(1e6),
    "unequal": run(strategy, cuts, True), "far": run(strategy, cuts, True, 1e6),
    "keras far": run(strategy, cuts, True, 1e6, keras.layers.BatchNormalization),
    "pass": one_pass([np.split(a, cuts) for a in (x[0] + 1e6, weigh)]),
    "pass, whole": one_pass_whole(x[0] + 1e6),
    "five": refused(lambda: mirrored(5)),
    "parts": refused(lambda: per_replica(strategy, [1, 2, 3])),
    "outside": refused(outside), "half outside": refused(half_outside),
})}))
"""
)

WORKERS = (
    COMMON
    + """
strategy = join_workers()
found = {"together": run(strategy, [12], True), "alone": run(strategy, [9], False)}
with strategy.scope():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
try:
    model.fit(x[0], y[0], batch_size=N, verbose=0)
    found["fit"] = "works"
except ValueError as error:
    found["fit"] = str(error)
print(json.dumps({**found, "whole": reference()}))
"""
)


@pytest.fixture(scope="module")
def on_devices():
    two, four = run_workers(["-c", MIRRORED], 2, timeout=240)
    return json.loads(two.splitlines()[-1]) | json.loads(four.splitlines()[-1])


@pytest.fixture(scope="module")
def on_workers():
    texts = run_workers(["-c", WORKERS], 2, timeout=240)
    return [json.loads(text.splitlines()[-1]) for text in texts]


def error(weights, expected):
    """The largest error, relative to the largest entry of its array."""
    pairs = [(np.array(w), np.array(e)) for w, e in zip(weights, expected, strict=True)]
    return max(np.abs(w - e).max() / np.abs(e).max() for w, e in pairs)


# Devices


@pytest.mark.parametrize(
    ("name", "whole", "tolerance"),
    [
        ("two", "whole", 1e-12),
        ("unequal", "whole", 1e-12),
        ("far", "whole, far", 1e-6),  # 1e6 has 1e-10 of the deviation to its last digit
    ],
)
def test_synchronised_devices_are_one_with_the_whole_batch(
    on_devices, name, whole, tolerance
):
    found, expected = on_devices[name], on_devices[whole]
    for copy in found["copies"]:
        assert copy == found["copies"][0]
        assert error(copy, expected["weights"]) < tolerance
    assert found["loss"] == pytest.approx(expected["loss"], rel=tolerance)


def test_outputs_and_input_gradients_are_those_of_the_whole_batch(on_devices):
    assert error(on_devices["pass"], on_devices["pass, whole"]) < 1e-6


def test_unsynchronised_devices_are_something_else(on_devices):
    expected = on_devices["whole"]["weights"]
    assert error(on_devices["alone"]["copies"][0], expected) > 0.05


def test_unsynchronised_statistics_are_averaged_by_ours_and_dropped_by_keras(
    on_devices, still
):
    ours, keras = on_devices["alone"], on_devices["keras alone"]
    for copy in ours["copies"]:
        assert copy == ours["copies"][0]
    first, second = keras["copies"]
    apart = error(first, second) > 0.05 and keras["read"] == first
    still("copies drift apart, and what is read and saved is replica 0's", apart)


def test_keras_loses_synchronisation_with_a_mask_and_digits_with_a_large_mean(
    on_devices, still
):
    """Of Keras 3.15.1; chapter 11 says so."""
    masked = np.allclose(on_devices["keras, masked"], [[2], [200]], rtol=1e-6, atol=0)
    still("a mask undoes the synchronisation", masked)
    np.testing.assert_allclose(on_devices["keras, not masked"], 418 / 6)
    expected = on_devices["whole, far"]["weights"]
    far = error(on_devices["keras far"]["read"], expected)
    ours = error(on_devices["far"]["read"], expected)
    still("digits are lost over replicas at a large mean", far > 100 * ours)


def test_averaged_variances_miss_the_spread_between_replicas():
    parts = np.split(np.sort(np.random.default_rng(0).normal(size=(64, 3)), axis=0), 2)
    averaged = np.mean([p.var(0) for p in parts], axis=0)
    between = np.var([p.mean(0) for p in parts], axis=0)
    pooled = np.concatenate(parts).var(0)
    np.testing.assert_allclose(pooled, averaged + between)
    assert (averaged < 0.5 * pooled).all()


def test_a_synchronised_model_goes_on_as_one_device_would(on_devices):
    """`synchronize` inside the scope, then `fit`: weights, statistics, momentum."""
    alone, many, unlike = on_devices["fitted"]
    assert error(many, alone) < 1e-12
    assert error(unlike, alone) > 1e-3  # the test can fail
    assert on_devices["held"]


def test_replicas_wait_for_each_other_once_forward_and_once_backward(on_devices):
    assert on_devices["exchanges"] == [1, 2]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("held outside", "must be made inside the scope"),
        ("five", "started with 4. Call mirrored(5) before"),
        ("parts", "one for each of 4 replicas; got 3"),
        ("outside", "model must be made"),
        ("half outside", "optimizer must be made"),
    ],
)
def test_wrong_use_of_devices_is_refused(on_devices, name, words):
    assert words in on_devices[name]


@pytest.mark.parametrize("number", [0, -1, 2.0, "2"])
def test_a_wrong_number_of_devices_is_refused(number):
    with pytest.raises(ValueError, match="positive integer"):
        mirrored(number)


def test_one_device_needs_no_strategy_of_its_own():
    strategy = tf.distribute.get_strategy()
    assert per_replica(strategy, [np.ones(3)]).shape == (3,)


# Workers


@pytest.mark.slow  # processes of their own; chapter 11 has such
def test_two_workers_are_one_process_with_the_whole_batch(on_workers):
    first, second = (found["together"] for found in on_workers)
    assert first == second
    for found in on_workers:
        assert error(found["together"]["copies"][0], found["whole"]["weights"]) < 1e-12
        assert found["together"]["loss"] == pytest.approx(found["whole"]["loss"])


@pytest.mark.slow  # processes of their own; chapter 11 has such
def test_unsynchronised_workers_are_something_else(on_workers):
    for found in on_workers:
        assert error(found["alone"]["copies"][0], found["whole"]["weights"]) > 0.05


@pytest.mark.slow  # processes of their own; chapter 11 has such
def test_fit_fails_on_several_workers(on_workers, still):
    """Of Keras 3.15.1, issue 20585; chapter 11 says so."""
    for found in on_workers:
        still("fit fails on several workers", "PerReplica" in found["fit"])


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("shared", [True, False])
def test_a_missing_worker_is_named_in_time(monkeypatch, index, shared):
    code = "import os; print(os.environ['TF_CONFIG'])"
    task = json.loads(run_workers(["-c", code], 2)[index])
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    start, address = time.monotonic(), task["cluster"]["worker"][1 - index]
    if not shared:  # as on Windows
        for module in ("socket", "_socket"):
            monkeypatch.delattr(f"{module}.SO_REUSEPORT")
    with pytest.raises(
        TimeoutError,
        match=f"worker {index} has waited .* worker {1 - index} at {address}",
    ):
        join_workers(timeout=0.5)
    assert time.monotonic() - start < 5


DIES = """
import json, os, sys
import keras, tensorflow as tf
from bnlib.keras import BatchNormalization
from bnlib.replicas import join_workers, train_step

strategy = join_workers(timeout=60)
with strategy.scope():
    layers = [keras.Input((3,)), BatchNormalization(synchronized=True)]
    model, optimizer = keras.Sequential(layers), keras.optimizers.SGD(0.1)
step = train_step(strategy, model, optimizer, keras.losses.mean_squared_error)
for number in range(4):
    if number == 2 and json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 1:
        os._exit(0)  # as if the machine had been switched off
    step(tf.ones((4, 3)), tf.ones((4, 3)))
    print("step", number, "is done", flush=True)
"""


@pytest.mark.slow  # processes of their own; chapter 11 has such
def test_when_a_worker_dies_in_training_the_others_say_so():
    with pytest.raises(RuntimeError, match="worker 0 of 2 ended") as caught:
        run_workers(["-c", DIES], 2)
    assert "UnavailableError" in str(caught.value)
    assert "/job:worker/task:1" in str(caught.value)


@pytest.mark.parametrize("config", [None, "{}"])
def test_a_worker_without_a_cluster_is_refused(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(RuntimeError, match="TF_CONFIG must name a cluster"):
        join_workers(timeout=0.5)


def test_a_part_for_each_replica():
    with pytest.raises(ValueError, match="for each of 1 replicas; got 2"):
        per_replica(tf.distribute.get_strategy(), [1, 2])
    with pytest.raises(AttributeError):
        train_step(tf.distribute.get_strategy(), None, None, None)


@pytest.mark.slow
def test_what_two_processes_of_pytorch_share_comes_again():
    pytest.importorskip("torch", reason="torch is installed beside the lock")
    from benchmarks import torch_replicas

    assert torch_replicas.replicas() == stored("torch_replicas")["ranks"]
