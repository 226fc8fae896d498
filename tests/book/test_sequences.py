"""The networks for sequences: their gradients, their statistics, and who sees whom."""

import numpy as np
import pytest
from gradients import assert_gradients

from bnlib import BatchNorm
from bnlib.book import norms
from bnlib.book.network import softmax_cross_entropy
from bnlib.book.sequences import Attention, attentive, recurrent

RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(1, 2, (7, 4, 3)), RNG.integers(0, 10, 7)
MAKERS = {"none": None, "layer": norms.layer, "rms": norms.rms, "tanh": norms.squash}


def loss(logits):
    return softmax_cross_entropy(logits, LABELS)


class Still(BatchNorm):
    """Batch norm that takes no batch in, so that a network can be called twice."""

    def __call__(self, x, *, training, **options):
        return super().__call__(x, training=training, update=False)


@pytest.mark.parametrize("name", [*MAKERS, "batch"])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_attention(name, causal):
    options = {"tokens": 4, "inputs": 3, "width": 6, "causal": causal}
    network = attentive(MAKERS.get(name, Still), **options)
    assert_gradients(network, X.copy(), loss, RNG, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", [*MAKERS, "batch"])
def test_gradients_of_recurrence(name):
    make = MAKERS.get(name, Still)
    network = recurrent(make, steps=4, inputs=3, units=5)
    assert_gradients(network, X.copy(), loss, RNG, rel=1e-4, abs=1e-7)


def test_all_steps_share_gamma_and_beta_and_not_the_statistics():
    network = recurrent(BatchNorm, steps=4, inputs=3, units=5)
    first, *others = network.layers[0].norms
    network(X, training=True)
    assert all(each.gamma is first.gamma for each in others)
    assert not any(
        np.allclose(each.population.mean, first.population.mean) for each in others
    )


def test_exact_statistics_of_each_step_are_those_of_the_whole_batch():
    network = recurrent(BatchNorm, steps=4, inputs=3, units=5)
    expected = network(X, training=True, update=False)
    found = network.layers[0].measure(X)
    np.testing.assert_allclose(network(X, training=False), expected)
    network.layers[0].measure(X, together=True)
    assert not np.allclose(network(X, training=False), expected)
    pooled = network.layers[0].norms[2].population.mean
    np.testing.assert_allclose(pooled, np.mean([each.mean for each in found], axis=0))


def test_a_causal_block_looks_ahead_through_batch_norm_alone():
    later = X.copy()
    later[:, -1] += 1
    for make, sees in ((norms.layer, False), (norms.rms, False), (BatchNorm, True)):
        network = attentive(make, tokens=4, inputs=3, width=6, causal=True)
        one, other = (
            network.outputs(each, training=True)[3][:, 0] for each in (X, later)
        )
        assert np.allclose(one, other) != sees


@pytest.mark.parametrize("changed", range(4))
def test_a_token_sees_itself_and_those_before_it(changed):
    attention = Attention(3, RNG, causal=True)
    other = X.copy()
    other[:, changed] += 1
    one, two = (attention(each, training=True) for each in (X, other))
    same = [np.allclose(one[:, t], two[:, t]) for t in range(4)]
    assert same == [t < changed for t in range(4)]
