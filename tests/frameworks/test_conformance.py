"""The checks are checked: what is right passes them all, each planted fault fails its own."""

import json
import os
import subprocess
import sys
import time
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from building import run
from facts import ROOT
from planted_norm import FAULTS, DetachedMean, Reference

import bnlib
from bnlib import conformance, population
from bnlib.book.data import stored
from bnlib.conformance import Adapter, Setting, adapters, check_batch_norm
from bnlib.keras import BatchNormalization
from tools.chapters import read_parts

MEANS = {"mean_1e4", "mean_1e6", "mean_1e8", "constant_channel", "values_of_1e25"}
OURS = partial(adapters.Keras, layer=BatchNormalization)


def failures(maker, **options):
    rows = check_batch_norm(maker, **options)
    return {row.check for row in rows if row.outcome == "failed"}


def offered(maker, **options):
    rows = check_batch_norm(maker, **options)
    return {row.check for row in rows if row.outcome != "not offered"}


# Faults against checks


def test_the_reference_passes_every_check():
    report = check_batch_norm(Reference)
    assert {row.outcome for row in report} == {"passed"}, report
    assert report.worst == "info"


@pytest.mark.parametrize(("faulty", "checks"), FAULTS)
def test_a_fault_fails_its_checks_and_no_others(faulty, checks):
    assert failures(faulty) == checks


def test_every_check_fails_for_some_fault():
    found = set().union(*(checks for _, checks in FAULTS))
    assert found == set(conformance.names())


# bnlib


def test_the_core_passes_in_less_than_two_seconds():
    start = time.perf_counter()
    report = check_batch_norm(adapters.NumPy)
    assert time.perf_counter() - start < 2
    assert report.worst == "info", report
    missing = {row.check for row in report if row.outcome == "not offered"}
    assert missing == {"freezing", "bfloat16", "replicas", "second_derivative"}


@pytest.mark.parametrize("bessel", [False, True])
@pytest.mark.parametrize(
    "estimator", [population.DebiasedExponential, population.Cumulative]
)
def test_the_core_passes_with_any_moving_average(estimator, bessel):
    maker = partial(adapters.NumPy, population=estimator, bessel=bessel)
    assert failures(maker) == set()


@pytest.mark.parametrize("options", [{}, {"bessel": True, "zero_debias": True}])
def test_our_keras_layer_passes_everything(options):
    report = check_batch_norm(partial(OURS, **options), skip={"replicas"})
    assert {row.outcome for row in report} == {"passed"}, report


def test_our_keras_layer_is_one_over_two_replicas():
    """Logical devices are cut before TensorFlow starts."""
    code = """
from functools import partial
from bnlib.conformance import adapters, check_batch_norm
from bnlib.keras import BatchNormalization
from bnlib.replicas import mirrored
ours = partial(adapters.Keras, layer=BatchNormalization)
mirrored(2)
for maker in (ours, partial(ours, synchronized=True)):
    [row] = check_batch_norm(maker, only={"replicas", "masks"}).rows[1:]
    print(row.outcome, row.got, sep=": ")
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    alone, shared = done.stdout.splitlines()
    assert alone == "not offered: replicas share statistics if synchronized=True"
    assert shared.startswith("passed: y off by ")
    [row] = check_batch_norm(OURS, only={"replicas", "masks"}).rows[1:]
    assert row.outcome == "not offered"


def test_our_functions_on_tensors_pass():
    report = check_batch_norm(adapters.TensorFlow)
    assert failures(adapters.TensorFlow) == set(), report
    assert "second_derivative" in offered(adapters.TensorFlow)


def test_our_function_on_arrays_passes():
    maker = partial(adapters.Function, function=bnlib.batch_norm)
    assert failures(maker) == set()
    assert {"epsilon", "gamma_and_beta", "channels_first"} <= offered(maker)


# Others: what the book says of them


def of_the_page(name):
    rows = stored("conformance")["found"][name]
    return {row["check"] for row in rows if row["outcome"] == "failed"}


def test_the_page_is_about_these_checks():
    kept = stored("conformance")
    names = [check["check"] for check in kept["checks"]]
    assert names == list(conformance.names())
    for name, rows in kept["found"].items():
        assert [row["check"] for row in rows] == names
        assert of_the_page(name) == set() or not name.startswith("bnlib")


def test_keras_fails_where_the_page_says():
    found = {"second_derivative", "inference_mean_1e6", "empty_batch"}
    assert failures(adapters.Keras) == MEANS | found
    assert of_the_page("Keras on TensorFlow") == MEANS | found


def test_keras_on_pytorch_fails_where_the_page_says():
    """Keras has one backend a process."""
    code = """
from bnlib.conformance import adapters, check_batch_norm
report = check_batch_norm(adapters.Keras)
print(*(row.check for row in report if row.outcome == "failed"))
"""
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    done = run(sys.executable, "-c", code, env=environment)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert {"float64", "mean_1e6", "mean_1e8", "empty_batch"} <= found
    assert found <= of_the_page("Keras on PyTorch")


def test_two_lines_of_numpy_fail_where_the_page_says():
    from benchmarks.conformance import two_lines

    maker = partial(adapters.Function, function=two_lines)
    assert failures(maker) == of_the_page("two lines of NumPy")


def test_every_failure_of_the_page_is_explained():
    from benchmarks.conformance import reason

    for name, rows in stored("conformance")["found"].items():
        for row in rows:
            if row["outcome"] == "failed":
                assert row["why"] == reason(name, row["check"])
    with pytest.raises(SystemExit, match="PyTorch fails transform: say why in WHY"):
        reason("PyTorch", "transform")


def test_pytorch_fails_where_the_page_says():
    report = check_batch_norm(adapters.Torch)
    rows = {row.check: row for row in report}
    failed = {name for name, row in rows.items() if row.outcome == "failed"}
    assert failed <= MEANS | {"inference_mean_1e6", "mean_1e2"}
    assert {"mean_1e6", "constant_channel"} <= failed
    assert rows["bessel"].got == "m / (m - 1) times the batch variance"
    assert rows["batch_of_one"].got.startswith("refused: ValueError")


def test_the_operator_of_onnx_sums_in_16_bits_in_its_reference():
    assert failures(adapters.Onnx) >= {"float16", "bfloat16", "empty_batch"}
    with pytest.raises(ValueError, match=r"runtime must be .*; got 'C'"):
        adapters.Onnx(Setting(3), runtime="C")


def test_tf_nn_is_wrong_in_the_second_derivative():
    def moments_and_norm(x, gamma, beta, axis, epsilon):
        if axis != -1:
            raise NotImplementedError
        mean, variance = tf.nn.moments(x, range(x.ndim - 1))
        mean, variance, gamma, beta = (
            tf.cast(v, x.dtype) for v in (mean, variance, gamma, beta)
        )
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)

    maker = partial(adapters.TensorFlow, training=moments_and_norm)
    found = failures(maker)
    assert "second_derivative" in found
    assert not {"transform", "gradient_x", "channels_last"} & found


def test_a_module_of_your_own_is_checked():
    class Biased(torch.nn.BatchNorm1d):
        def forward(self, x):
            y = super().forward(x)
            return y + 0.1 if self.training else y

    maker = partial(adapters.Torch, module=Biased)
    assert "transform" in failures(maker, only={"transform", "inference"})


def test_a_keras_layer_of_your_own_is_checked():
    class Frozen(keras.layers.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            trainable, self.trainable = self.trainable, True
            y = super().call(inputs, training=training, mask=mask)
            self.trainable = trainable
            return y

    maker = partial(adapters.Keras, layer=Frozen)
    assert failures(maker, only={"freezing", "transform"}) == {"freezing"}


# A plain function


def test_a_plain_function_of_x_is_enough():
    def rows_alone(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    maker = partial(adapters.Function, function=rows_alone, epsilon=1e-5)
    found = failures(maker)
    assert "channels_last" in found  # it normalises each place for itself
    assert "transform" not in found
    assert not {"epsilon", "gamma_and_beta", "channels_first"} & offered(maker)


def test_the_epsilon_of_a_function_is_believed():
    def standardised(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e4)

    wrong = partial(adapters.Function, function=standardised)
    right = partial(adapters.Function, function=standardised, epsilon=1e4)
    assert failures(wrong, only={"transform"}) == {"transform"}
    assert failures(right, only={"transform"}) == set()


# What is asked of a maker, and of the arguments


class Bare(Adapter):
    """The least that can be checked."""

    def forward(self, x, training):
        if not training:
            raise NotImplementedError("it is for training")
        return bnlib.batch_norm(x, axis=self.setting.axis)[0]


def test_what_is_lacking_is_not_offered_and_no_failure():
    report = check_batch_norm(Bare, only={"transform", "inference", "gradient_x"})
    rows = {row.check: row for row in report}
    assert rows["transform"].outcome == "passed"
    assert rows["gradient_x"].outcome == "not offered"
    assert rows["gradient_x"].level == "info"
    assert report.notes == ("1 of 1 checks passed; 2 not offered.",)


def test_why_it_is_lacking_is_told():
    class Known(Bare):
        def set_state(self, moving_mean, moving_variance):
            pass

    [row] = check_batch_norm(Known, only={"inference", "transform"}).rows[1:]
    assert (row.outcome, row.got) == ("not offered", "it is for training")


def test_nothing_offered_is_no_pass():
    with pytest.raises(ValueError, match="must offer something that is checked"):
        check_batch_norm(Adapter)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": {"transfrom"}}, r"only must hold names of checks; got \{'transfrom'"),
        ({"skip": "transform"}, r"skip must hold names of checks; got 'transform'"),
        ({"only": {"float16"}, "skip": {"float16"}}, r"leave a check to run; got none"),
        ({"only": ()}, r"leave a check to run; got none"),
    ],
)
def test_wrong_names_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        check_batch_norm(Reference, **options)


def test_a_maker_of_something_else_is_refused():
    with pytest.raises(TypeError, match="maker must return an Adapter; got ndarray"):
        check_batch_norm(lambda setting: np.zeros(3))
    for layer in (dict.fromkeys, lambda: None):
        with pytest.raises(TypeError, match="maker must take a Setting"):
            check_batch_norm(layer)


def test_an_error_inside_is_a_failure_that_is_told():
    class Broken(Reference):
        def scale_and_shift(self, x_hat):
            raise RuntimeError("out of order\nand more")

    [row] = check_batch_norm(Broken, only={"transform"})
    assert (row.level, row.outcome) == ("error", "failed")
    assert row.got == "RuntimeError: out of order"


def test_levels_follow_the_size_of_the_error():
    def off_by(error):
        class Off(Reference):
            def write(self, y, x):
                return super().write(y + error, x)

        [row] = check_batch_norm(Off, only={"mean_1e6"})
        return row.level, row.outcome

    assert off_by(5e-4) == ("ok", "passed")
    assert off_by(5e-3) == ("warning", "failed")
    assert off_by(0.5) == ("error", "failed")
    assert off_by(np.nan) == ("error", "failed")


def test_a_report_tells_and_is_data():
    report = check_batch_norm(DetachedMean, name="mine")
    assert report.title == "conformance of mine"
    assert len(report) == len(conformance.names())
    [worst, _] = report.at_least("error")
    text = str(worst)
    for part in (worst.check, worst.expected, worst.got, worst.meaning, worst.link):
        assert part in text
    rows = json.loads(report.to_json())["rows"]
    assert {row["outcome"] for row in rows} == {"passed", "failed"}


def test_every_link_is_a_page_of_the_book():
    pages = {page.page for part in read_parts(ROOT) for page in part.pages}
    assert {row.link for row in check_batch_norm(Reference)} <= pages


def test_warnings_of_a_layer_are_its_own_affair():
    """Here warnings are errors."""
    assert failures(OURS, only={"batch_of_one"}) == set()


# The plugin of pytest, in a project of its own

PROJECT = """
from planted_norm import DetachedMean, Reference

def test_right(bn_conformance):
    assert len(bn_conformance(Reference)) > 30

def test_wrong(bn_conformance):
    bn_conformance(DetachedMean, name="my layer")

def test_known(bn_conformance):
    bn_conformance(DetachedMean, skip={"gradient_x", "gradient_sum"})

def test_strict(bn_conformance):
    bn_conformance(DetachedMean, only={"bessel"}, level="info")
"""


def test_the_fixture_fails_with_a_readable_message(tmp_path):
    (tmp_path / "test_bn.py").write_text(PROJECT)
    (tmp_path / "planted_norm.py").write_text(
        (ROOT / "tests/planted_norm.py").read_text()
    )
    done = run(sys.executable, "-m", "pytest", "-q", "-rf", cwd=tmp_path)
    said = done.stdout
    assert "2 failed, 2 passed" in said, said + done.stderr
    assert "conformance of my layer: 2 of 40 checks" in said
    assert "gradient_sum (error)\n  expected: grad_x sums to 0 over" in said
    assert "  see: part1/04_gradient" in said
    assert "Traceback" not in said


def test_the_plugin_imports_nothing_until_it_is_used(tmp_path):
    """Nor does it need TensorFlow, or NumPy, to be there."""
    code = """
import sys
import pytest
code = pytest.main(["-q", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"])
heavy = {"bnlib", "numpy", "tensorflow", "keras"} & set(sys.modules)
sys.exit(f"{code} {heavy}" if code or heavy else 0)
"""
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_conformance_costs_numpy_and_no_framework():
    code = """
import sys
from bnlib.conformance import adapters, check_batch_norm
check_batch_norm(adapters.NumPy)
found = {"tensorflow", "keras", "torch", "jax", "onnx"} & set(sys.modules)
sys.exit(", ".join(found) or 0)
"""
    done = run(sys.executable, "-c", code, cwd=ROOT)
    assert done.returncode == 0, done.stderr
