"""What TensorFlow does with a function is counted rightly, on functions whose work is known."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import pytest
import tensorflow as tf

from bnlib.book.kernels import (
    Traffic,
    _traffic_of_hlo,
    graph_traffic,
    kernels_run,
    xla_traffic,
)

X = tf.ones([6, 5, 3])


@pytest.mark.parametrize(
    ("function", "reads", "writes"),
    [
        (lambda x: x, 0, 0),
        (tf.negative, 1, 1),
        (lambda x: x * x, 2, 1),
        (lambda x: tf.reshape(x, [-1]), 0, 0),
        (lambda x: tf.reduce_mean(x, 0), 1, 0),
        (lambda x: tf.reduce_mean(x, 0) + tf.ones([6, 5, 3]), 1, 1),
        (lambda x: tf.nn.relu(tf.stop_gradient(x)), 1, 1),
    ],
)
def test_a_graph(function, reads, writes):
    found = graph_traffic(function, X)
    assert found.writes == writes
    # a constant as large as x is read as well
    assert found.reads in (reads, reads + 1)


def test_two_large_inputs_of_a_graph():
    assert graph_traffic(lambda x, y: x + y, X, 2 * X) == Traffic(2, 1)
    assert graph_traffic(lambda x, y: x + y, X, tf.ones([3])) == Traffic(1, 1)


def test_xla_fuses_a_chain():
    def chain(x):
        return tf.nn.relu(3 * x + 1) * x

    assert sum(graph_traffic(chain, X)) > 3
    assert xla_traffic(chain, X) == Traffic(1, 1)
    assert xla_traffic(lambda x, y: tf.sin(x) + y, X, 2 * X) == Traffic(2, 1)


def test_text_of_another_form_is_refused():
    with pytest.raises(RuntimeError, match="change `_traffic_of_hlo`"):
        _traffic_of_hlo("HloModule elsewhere", 90)


@pytest.mark.parametrize(
    ("make", "kernels"),
    [
        (lambda f: f, {"Exp", "Sum"}),
        (tf.function, {"Exp", "Sum"}),
        (lambda f: tf.function(f, jit_compile=True), {"fusion"}),
    ],
    ids=["eager", "tf.function", "XLA"],
)
def test_kernels(make, kernels):
    ran = kernels_run(make(lambda x: tf.reduce_sum(tf.exp(x), 0)), X)
    assert kernels & set(ran) == kernels
    assert "FusedBatchNormV3" not in ran


def test_both_branches_are_traced_and_one_runs():
    @tf.function
    def either(x):
        return tf.cond(x[0, 0, 0] > 0, lambda: tf.sin(x), lambda: tf.cos(x))

    for x, name, other in [(X, "Sin", "Cos"), (-X, "Cos", "Sin")]:
        ran = kernels_run(either, x)
        assert ran[name] == 1
        assert not ran[other]
