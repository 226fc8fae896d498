"""The critic of the page on training in the wild."""

import keras
import numpy as np
import pytest

from bnlib.book import critic


def test_the_penalty_of_a_linear_critic_is_known():
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, dtype="float64")]
    )
    model.layers[0].set_weights([np.array([[3.0], [4.0]]), np.zeros(1)])
    batch = critic.points(np.random.default_rng(0))
    gap, penalty, norm = critic.losses(model, batch)
    assert float(norm) == pytest.approx(5)
    assert float(penalty) == pytest.approx(16)
    line = np.array([3.0, 4.0])
    assert float(gap) == pytest.approx(
        (batch.fake @ line).mean() - (batch.real @ line).mean()
    )
