"""Counting parameters, and folding the layer away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlib import (
    as_affine,
    batch_norm_inference,
    count_parameters,
    fold,
    fold_forward,
)

RNG = np.random.default_rng(0)
MEAN, VARIANCE = (
    RNG.normal(3, 2, 5),
    RNG.uniform(0.1, 4, 5),
)  # an untrained 0 and 1 would prove nothing
GAMMA, BETA = RNG.uniform(0.5, 2, 5), RNG.normal(size=5)


# Counting.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (1024, 1024, 2048)),
        ({"center": False}, (512, 1024, 1536)),
        ({"scale": False}, (512, 1024, 1536)),
        ({"center": False, "scale": False}, (0, 1024, 1024)),
        ({"renorm": True}, (1024, 2560, 3584)),
    ],
)
def test_counts_of_512_channels(options, expected):
    assert count_parameters(512, **options) == expected


def test_the_question_of_the_4096_512_80_model():
    """Stack Overflow asked why a layer of 512 units shows 2,048 parameters."""
    dense, head = 4096 * 512 + 512, 512 * 80 + 80
    norm = count_parameters(512)
    assert (dense, norm.total, head) == (2_097_664, 2_048, 41_040)
    assert dense + norm.total + head == 2_140_752
    assert dense + norm.trainable + head == 2_139_728


@pytest.mark.parametrize("bad", [0, -1, 2.0, "3", True, None])
def test_channels_must_be_a_positive_whole_number(bad):
    with pytest.raises(ValueError, match="positive whole number"):
        count_parameters(bad)


# Two vectors.


@given(st.floats(0, 1))
def test_batch_norm_at_inference_is_an_affine_map(epsilon):
    x = RNG.normal(2, 5, (7, 5))
    multiplier, shift = as_affine(MEAN, VARIANCE, GAMMA, BETA, epsilon=epsilon)
    np.testing.assert_allclose(
        multiplier * x + shift,
        batch_norm_inference(x, MEAN, VARIANCE, GAMMA, BETA, epsilon=epsilon),
        rtol=1e-10,
        atol=1e-10,
    )


def test_without_gamma_and_beta():
    multiplier, shift = as_affine(MEAN, VARIANCE)
    np.testing.assert_allclose(multiplier, 1 / np.sqrt(VARIANCE + 1e-3))
    np.testing.assert_allclose(shift, -MEAN * multiplier)


# Folding: the folded layer alone gives what layer and batch norm gave together.


def correlate(x, kernel):
    """A plain convolution, `(N, H, W, D)` with `(h, w, D, C)`, by loops: the oracle."""
    h, w = kernel.shape[:2]
    out = np.zeros((len(x), x.shape[1] - h + 1, x.shape[2] - w + 1, kernel.shape[-1]))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = np.tensordot(x[:, i : i + h, j : j + w], kernel, 3)
    return out


@pytest.mark.parametrize("bias", [None, RNG.normal(size=5)])
@pytest.mark.parametrize("affine", [(GAMMA, BETA), (None, None)])
def test_dense(bias, affine):
    x, kernel = RNG.normal(size=(7, 3)), RNG.normal(size=(3, 5))
    before = batch_norm_inference(
        x @ kernel + (0 if bias is None else bias), MEAN, VARIANCE, *affine
    )
    assert before.std(axis=0).min() > 0.05, (
        "outputs that do not vary would prove nothing"
    )
    folded_kernel, folded_bias = fold(kernel, bias, MEAN, VARIANCE, *affine)
    np.testing.assert_allclose(
        x @ folded_kernel + folded_bias, before, rtol=1e-12, atol=1e-12
    )


def test_convolution():
    x, kernel, bias = (
        RNG.normal(size=(2, 7, 6, 3)),
        RNG.normal(size=(3, 2, 3, 5)),
        RNG.normal(size=5),
    )
    before = batch_norm_inference(
        correlate(x, kernel) + bias, MEAN, VARIANCE, GAMMA, BETA
    )
    folded_kernel, folded_bias = fold(kernel, bias, MEAN, VARIANCE, GAMMA, BETA)
    np.testing.assert_allclose(
        correlate(x, folded_kernel) + folded_bias, before, rtol=1e-11, atol=1e-11
    )


def test_kernels_of_other_layouts():
    kernel = RNG.normal(size=(3, 2, 4, 5))
    folded, bias = fold(kernel, None, MEAN, VARIANCE, GAMMA, BETA)
    for axis, order in ((0, (3, 0, 1, 2)), (-2, (0, 1, 3, 2)), (1, (0, 3, 1, 2))):
        other, other_bias = fold(
            kernel.transpose(order), None, MEAN, VARIANCE, GAMMA, BETA, axis=axis
        )
        np.testing.assert_array_equal(other, folded.transpose(order))
        np.testing.assert_array_equal(other_bias, bias)


def test_depthwise_kernels_have_two_output_axes():
    kernel = RNG.normal(size=(3, 3, 4, 2))  # 4 channels, each filtered twice: 8 outputs
    mean, variance = RNG.normal(size=8), RNG.uniform(0.5, 2, 8)
    folded, _ = fold(kernel, None, mean, variance, axis=(-2, -1))
    by_hand = kernel.reshape(3, 3, 8) / np.sqrt(variance + 1e-3)
    np.testing.assert_allclose(folded.reshape(3, 3, 8), by_hand, rtol=1e-13)


@pytest.mark.parametrize("bias", [None, RNG.normal(size=4)])
@pytest.mark.parametrize("affine", [(GAMMA, BETA), (None, None)])
def test_forward_into_a_dense_layer(bias, affine):
    x, kernel = RNG.normal(size=(7, 5)), RNG.normal(size=(5, 4))
    after = batch_norm_inference(x, MEAN, VARIANCE, *affine) @ kernel
    after += 0 if bias is None else bias
    kernel, bias = fold_forward(kernel, bias, MEAN, VARIANCE, *affine)
    np.testing.assert_allclose(x @ kernel + bias, after, rtol=1e-11, atol=1e-11)


def test_forward_into_a_convolution():
    x, kernel = RNG.normal(size=(2, 7, 6, 5)), RNG.normal(size=(3, 2, 5, 4))
    after = correlate(batch_norm_inference(x, MEAN, VARIANCE, GAMMA, BETA), kernel)
    kernel, bias = fold_forward(kernel, None, MEAN, VARIANCE, GAMMA, BETA)
    np.testing.assert_allclose(
        correlate(x, kernel) + bias, after, rtol=1e-11, atol=1e-11
    )


def test_forward_into_a_depthwise_convolution():
    x, kernel = RNG.normal(size=(2, 7, 6, 5)), RNG.normal(size=(3, 2, 5, 2))
    normal = batch_norm_inference(x, MEAN, VARIANCE, GAMMA, BETA)
    settings = {"axis": -2, "outputs": (-2, -1)}
    folded, bias = fold_forward(
        kernel, np.ones(10), MEAN, VARIANCE, GAMMA, BETA, **settings
    )
    for c in range(5):
        after = 1 + correlate(normal[..., [c]], kernel[:, :, [c]])
        found = correlate(x[..., [c]], folded[:, :, [c]]) + bias.reshape(5, 2)[c]
        np.testing.assert_allclose(found, after, rtol=1e-11, atol=1e-11)


def test_dtype_is_kept_and_nothing_is_modified():
    kernel = RNG.normal(size=(3, 5)).astype(np.float32)
    before = kernel.copy()
    folded, bias = fold(kernel, np.zeros(5, np.float32), MEAN, VARIANCE)
    assert folded.dtype == bias.dtype == np.float32
    np.testing.assert_array_equal(kernel, before)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: fold(np.ones((3, 4)), None, MEAN, VARIANCE),
            ValueError,
            "4 output channels.*have 5",
        ),
        (lambda: fold(np.ones((5, 3)), None, MEAN, VARIANCE), ValueError, "Check axis"),
        (
            lambda: fold_forward(np.ones((3, 5)), None, MEAN, VARIANCE),
            ValueError,
            "3 input channels.*Check axis",
        ),
        (
            lambda: fold_forward(np.ones((5, 3)), np.ones(4), MEAN, VARIANCE),
            ValueError,
            "bias must have shape",
        ),
        (
            lambda: fold(np.ones((3, 5)), np.ones(4), MEAN, VARIANCE),
            ValueError,
            "bias must have shape",
        ),
        (lambda: fold(np.ones((3, 5)), None, MEAN, -VARIANCE), ValueError, "negative"),
        (
            lambda: fold(np.ones((3, 5)), None, MEAN, VARIANCE, axis=2),
            ValueError,
            "axis",
        ),
        (
            lambda: fold(np.ones((3, 5)) * 1j, None, MEAN, VARIANCE),
            TypeError,
            "kernel must hold real",
        ),
        (lambda: as_affine(MEAN, VARIANCE[:4]), ValueError, "variance must have shape"),
        (
            lambda: as_affine(MEAN, VARIANCE, GAMMA[:4]),
            ValueError,
            "gamma must have shape",
        ),
        (lambda: as_affine(MEAN, VARIANCE, epsilon=-1), ValueError, "at least 0"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
