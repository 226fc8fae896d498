"""Fine-tuning: what each policy holds, and what new statistics are."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest

from bnlib.book import finetune
from bnlib.book.data import stored
from bnlib.book.network import batches

SHORT = {"marks": (0, 3), "batch": 10}


@pytest.fixture(scope="module")
def trained():
    return finetune.pretrained(0, steps=30)


def norms(model):
    return [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def changed(trained, policy, monkeypatch):
    """Return which kinds of weights a policy has changed in the copy that it trains."""
    copies = []
    copy = finetune._copy

    def kept(model):
        copies.append(copy(model))
        return copies[-1]

    monkeypatch.setattr(finetune, "_copy", kept)
    finetune.fine_tune(trained, policy, finetune.examples("brighter"), **SHORT)
    (found,) = copies
    pairs = zip(trained.weights, found.weights, strict=True)
    moved = {new.path: not np.array_equal(old, new) for old, new in pairs}

    def any_of(*words):
        return any(value for path, value in moved.items() if path.endswith(words))

    return {
        "convolutions": any(v for path, v in moved.items() if "conv_" in path),
        "gamma": any_of("gamma"),
        "statistics": any_of("moving_mean", "moving_variance"),
        "head": any(v for path, v in moved.items() if "head" in path),
    }


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("head only", {"head"}),
        ("batch norm frozen", {"head", "convolutions"}),
        ("training=False", {"head", "convolutions", "gamma"}),
        ("all", {"head", "convolutions", "gamma", "statistics"}),
    ],
)
def test_a_policy_trains_what_it_says(trained, policy, expected, monkeypatch):
    before = trained.get_weights()
    found = changed(trained, policy, monkeypatch)
    assert {name for name, moved in found.items() if moved} == expected
    for old, new in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # the model itself is not touched


def test_a_policy_that_does_not_exist_is_refused(trained):
    with pytest.raises(ValueError, match=r"one of head only.*got 'none'"):
        finetune.fine_tune(trained, "none", finetune.examples("the same"))


def test_new_statistics_are_those_of_the_examples_in_every_layer(trained):
    x = finetune.examples("inverted", 50)[0]
    renewed = finetune.with_new_statistics(trained, x)
    seen, count = x, 0
    for layer in renewed.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            seen = np.asarray(seen)
            np.testing.assert_allclose(
                layer.moving_mean, seen.mean((0, 1, 2)), rtol=1e-9
            )
            variance = seen.var((0, 1, 2))
            np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-9)
            assert layer.momentum == 0.9
            count += 1
        seen = layer(seen)
    assert count == 3
    pairs = zip(trained.trainable_weights, renewed.trainable_weights, strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_freezing_goes_into_models_within_models():
    inner = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()]
    )
    middle = keras.Sequential([keras.Input((3,)), inner])
    outer = keras.Sequential(
        [keras.Input((3,)), middle, keras.layers.BatchNormalization()]
    )
    finetune.freeze_batch_norm(outer)
    assert not inner.layers[1].trainable
    assert not outer.layers[1].trainable
    assert inner.layers[0].trainable


def test_batches_use_every_example_once_in_turn_or_one_class():
    rows = list(itertools.islice(batches(10, 5, np.random.default_rng(0)), 4))
    for pair in (rows[:2], rows[2:]):
        assert sorted(np.concatenate(pair)) == list(range(10))
    y = np.repeat([0, 1, 2], 4)
    drawn = list(finetune._of_one_class(y, 6, 6, 0))
    assert all(len(set(y[rows])) == 1 and len(rows) == 6 for rows in drawn)
    assert sorted(int(y[rows][0]) for rows in drawn) == [0, 0, 1, 1, 2, 2]


def test_the_domains_change_the_images_and_not_the_labels():
    same, brighter, inverted = (
        finetune.examples(d, 20, seed=2) for d in finetune.DOMAINS
    )
    np.testing.assert_allclose(brighter[0], same[0] + 0.5)
    np.testing.assert_allclose(inverted[2], 1 - same[2])
    assert np.array_equal(same[1], inverted[1])


def test_what_is_stored_is_what_the_script_measures():
    path = Path(__file__).parents[2] / "benchmarks/finetune.py"
    text = path.read_text(encoding="utf-8")
    found = stored("finetune")
    for setting, domains in found["accuracy"].items():
        assert f'"{setting}"' in text
        for by_policy in domains.values():
            assert set(by_policy) == {*finetune.POLICIES, "statistics only"}
            for policy in finetune.POLICIES:
                assert np.shape(by_policy[policy]) == (5, len(found["marks"]))
