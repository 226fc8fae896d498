"""Each checker accepts a right answer, and tells each likely wrong one apart."""

import numpy as np
import pytest

from bnlib import merge_moments, moments
from bnlib.exercises import moments as on_moments
from bnlib.exercises import transform as on_transform

OVER_IMAGE = (0, 1, 2)
ONE_PASS = lambda x: (x * x).mean(axis=0) - x.mean(axis=0) ** 2  # noqa: E731


def averaged_variances(mean_a, variance_a, n_a, mean_b, variance_b, n_b):
    n = n_a + n_b
    return (n_a * mean_a + n_b * mean_b) / n, (n_a * variance_a + n_b * variance_b) / n


ANSWERS = [
    (on_moments.images, lambda x: moments(x)[:2], "Correct. 60 values"),
    (on_moments.images, lambda x: None, "returns nothing"),
    (on_moments.images, lambda x: x.mean(), "Return 2 arrays"),
    (
        on_moments.images,
        lambda x: (x.mean(0), x.var(0)),
        r"shape (2,); yours has (4, 3, 2)",
    ),
    (
        on_moments.images,
        lambda x: (x.mean(OVER_IMAGE) + 1, x.var(OVER_IMAGE)),
        "mean is off",
    ),
    (
        on_moments.images,
        lambda x: (x.mean(OVER_IMAGE), x.std(OVER_IMAGE)),
        "leave out the root",
    ),
    (
        on_moments.images,
        lambda x: (x.mean(OVER_IMAGE), x.var(OVER_IMAGE, ddof=1)),
        "m - 1",
    ),
    (
        on_moments.images,
        lambda x: (x.mean(OVER_IMAGE), x.mean(OVER_IMAGE)),
        "variance is not",
    ),
    (on_moments.images, lambda x: x.no_such_thing, "raised AttributeError"),
    (on_moments.stable, lambda x: moments(x).variance, "Correct. Right up to"),
    (on_moments.stable, ONE_PASS, "still rounded"),
    (on_moments.stable, lambda x: x.var(axis=0), "still rounded"),
    (on_moments.pool, lambda *parts: _pooled(*parts), "Correct. The same"),
    (on_moments.pool, averaged_variances, "distance between the means"),
    (
        on_moments.pool,
        lambda ma, va, na, mb, vb, nb: ((ma + mb) / 2, va),
        "same weight",
    ),
    (on_moments.pool, lambda ma, va, na, mb, vb, nb: (ma, va), "mean is off"),
    (on_moments.pool, lambda *p: (_pooled(*p)[0], p[1]), "within plus spread between"),
    (on_transform.undo, lambda m, v, e: (np.sqrt(v + e), m), "Correct. The network"),
    (on_transform.undo, lambda m, v, e: (np.sqrt(v), m), "variance + epsilon"),
    (on_transform.undo, lambda m, v, e: (np.sqrt(v + e), -m), "beta is off"),
    (on_transform.undo, lambda m, v, e: (1 / np.sqrt(v + e), m), "undo the division"),
    (on_transform.farthest, [0] * 9 + [1], "Correct. sqrt"),
    (on_transform.farthest, [1] * 10, "All ten are equal"),
    (on_transform.farthest, list(range(10)), "normalises to 1.57"),
    (on_transform.farthest, [0, 1], "yours holds 2"),
    (on_transform.dead_parameters, 512, "Correct. The 512 biases"),
    (on_transform.dead_parameters, 4096 * 512, "kernel"),
    (on_transform.dead_parameters, 1024, "layer before it"),
    (on_transform.dead_parameters, 7, "Which of"),
    (on_transform.dead_parameters, ..., "where the ... stands"),
]


def _pooled(mean_a, variance_a, n_a, mean_b, variance_b, n_b):
    from bnlib import Moments

    return merge_moments(
        [Moments(mean_a, variance_a, n_a), Moments(mean_b, variance_b, n_b)]
    )[:2]


@pytest.mark.parametrize(("check", "answer", "feedback"), ANSWERS)
def test_feedback(check, answer, feedback, capsys):
    assert check(answer) is None
    printed = capsys.readouterr().out
    assert feedback in printed
    assert printed.startswith(
        "Correct." if feedback.startswith("Correct") else "Not yet."
    )


def test_every_checker_has_a_right_and_a_wrong_answer_here():
    for module in (on_moments, on_transform):
        for name in module.__all__:
            verdicts = {
                f.startswith("Correct")
                for check, _, f in ANSWERS
                if check is getattr(module, name)
            }
            assert verdicts == {True, False}, name
