"""The tests are tested: each planted fault must turn a named test red.

A fault is one small, believable edit of the library. It is made in a copy, never in the tree.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# name: (file, text in it, what the fault makes of it, the test that must catch it)
FAULTS = {
    "one-pass variance": (
        "moments.py",
        "average((centred - residue) ** 2, where.axes, share)",
        "average(x.astype('f4') ** 2, where.axes, share) - mean**2",
        "test_moments.py::test_mean_and_variance_to_1e_6_of_the_exact_value",
    ),
    "Bessel's variance": (
        "moments.py",
        "variance.reshape(channels), count)",
        "variance.reshape(channels) * count / max(count - 1, 1), count)",
        "test_moments.py::test_against_the_loop",
    ),
    "sums in float32": (
        "_checks.py",
        "return np.result_type(dtype, np.float64)",
        "return np.result_type(dtype, np.float32)",
        "test_moments.py::test_mean_and_variance_to_1e_6_of_the_exact_value",
    ),
    "no correction of the mean": (
        "moments.py",
        "(centred - residue) ** 2",
        "centred ** 2",
        "test_moments.py::test_mean_and_variance_to_1e_6_of_the_exact_value",
    ),
    "wrong axis": (
        "axes.py",
        "if a not in kept),\n        channels",
        "if a != 1),\n        channels",
        "test_axes.py::test_each_rank_and_layout",
    ),
    "variances averaged": (
        "moments.py",
        "within.mean + between.variance",
        "within.mean",
        "test_moments.py::test_averaging_the_variances_would_forget_the_spread_between_parts",
    ),
    "parts weighed alike": (
        "moments.py",
        "between = moments(means, axis=kept, weights=counts)",
        "between = moments(means, axis=kept)",
        "test_moments.py::test_any_split_merges_to_the_same_moments",
    ),
    "NaN leaks through the mask": (
        "moments.py",
        "x = np.where(share > 0, x, 0)",
        "pass",
        "test_moments.py::test_a_mask_hides_whatever_lies_under_it",
    ),
    "epsilon outside the root": (
        "transform.py",
        "1 / np.sqrt(variance.astype(wide(variance.dtype)) + as_epsilon(epsilon))",
        "1 / (np.sqrt(variance.astype(wide(variance.dtype))) + as_epsilon(epsilon))",
        "test_transform.py::test_batch_norm_against_the_loop",
    ),
    "x*inv + shift": (
        "transform.py",
        "(x - mean.astype(wide(x.dtype))) * inverse",
        "x * inverse.astype('f4') - (mean * inverse).astype('f4')",
        "test_transform.py::test_output_is_right_for_every_hard_row",
    ),
    "gamma and beta swapped": (
        "transform.py",
        "scale_and_shift(x_hat, gamma, beta, axis=axis)",
        "scale_and_shift(x_hat, beta, gamma, axis=axis)",
        "test_transform.py::test_batch_norm_against_the_loop",
    ),
    "gamma broadcasts silently": (
        "_checks.py",
        "if array.shape != where.channels:",
        "if False:",
        "test_transform.py::test_bad_input_is_refused",
    ),
    "the input is overwritten": (
        "transform.py",
        "y = x_hat.astype(wide(x_hat.dtype))",
        "y = x_hat",
        "test_transform.py::test_inputs_are_never_modified_and_never_shared",
    ),
    "statistics detached from the gradient": (
        "gradient.py",
        "grad_x = grad_y - share * (grad_beta + x_hat * grad_gamma)",
        "grad_x = grad_y * 1.0",
        "test_gradient.py::test_central_differences_in_random_directions",
    ),
    "the road through the mean is missing": (
        "gradient.py",
        "grad_x = grad_y - share * (grad_beta + x_hat * grad_gamma)",
        "grad_x = grad_y - share * (x_hat * grad_gamma)",
        "test_gradient.py::test_the_gradient_sums_to_zero_over_the_batch",
    ),
    "the road through the variance is missing": (
        "gradient.py",
        "grad_x = grad_y - share * (grad_beta + x_hat * grad_gamma)",
        "grad_x = grad_y - share * grad_beta",
        "test_gradient.py::test_the_gradient_is_orthogonal_to_x_hat_as_epsilon_goes_to_0",
    ),
    "a step of the graph is skipped": (
        "gradient.py",
        "2 * centred * grad_squares",
        "centred * grad_squares",
        "test_gradient.py::test_the_nine_steps_equal_the_closed_form",
    ),
    "the gradient of the mean is dropped": (
        "gradient.py",
        "if grad_mean is not None:",
        "if False:",
        "test_gradient.py::test_weighted_and_through_the_returned_statistics",
    ),
    "momentum flipped": (
        "population.py",
        "return 1 - self.momentum",
        "return self.momentum",
        "test_population.py::test_exponential_is_the_recurrence_of_keras",
    ),
    "Bessel swapped": (
        "population.py",
        "batch.count / (batch.count - 1) if self.bessel else 1",
        "1 if self.bessel else batch.count / max(batch.count - 1, 1)",
        "test_population.py::test_bessel_multiplies_each_batch_by_m_over_m_minus_1",
    ),
    "debiasing forgotten": (
        "population.py",
        "(1 - self.momentum) / (1 - self.momentum**t)",
        "1 - self.momentum",
        "test_population.py::test_debiased_is_the_average_from_zero_divided_by_what_it_has_seen",
    ),
    "a NaN gets into the memory": (
        "_checks.py",
        "if not np.all(np.isfinite(value)):",
        "if False:",
        "test_population.py::test_a_nan_is_refused_and_nothing_is_lost",
    ),
    "the memory is updated at test time": (
        "layer.py",
        "if training and update:",
        "if update:",
        "test_layer.py::test_inference_uses_the_population_and_leaves_it_alone",
    ),
    "update=False updates": (
        "layer.py",
        "if training and update:",
        "if training:",
        "test_layer.py::test_update_false_looks_without_touching",
    ),
    "inference backward in training": (
        "layer.py",
        "        if training:\n            known",
        "        if not training:\n            known",
        "test_layer.py::test_backward_in_the_mode_of_the_forward_pass",
    ),
    "epsilon forgotten in folding": (
        "parameters.py",
        " + as_epsilon(epsilon))",
        ")",
        "test_parameters.py::test_dense",
    ),
    "the bias is not scaled in folding": (
        "parameters.py",
        "(bias * multiplier + shift).astype",
        "(bias + shift).astype",
        "test_parameters.py::test_convolution",
    ),
    "fast: a doubtful channel is believed": (
        "blocks.py",
        "    if doubt.any():",
        "    if False:",
        "test_blocks.py::test_doubtful_channels_are_summed_again",
    ),
    "fast: zero is always the pilot": (
        "blocks.py",
        "not _far(1.3 * mean, variance).any()",
        "True",
        "test_blocks.py::test_float32_sums_of_two_levels",
    ),
    "fast: the rest of the mean is dropped": (
        "blocks.py",
        "+ low * slope",
        "",
        "test_blocks.py::test_fast_equals_clear",
    ),
    "fast: float32 all the way": (
        "_numpy.py",
        "HIGH = 16",
        "HIGH = 4096",
        "test_blocks.py::test_float32_sums_of_two_levels",
    ),
    "fast: long dot products": (
        "_numpy.py",
        "return self.sum(np.multiply(part, other, out=products))",
        'return np.einsum("eca,eca->ec", part, other).sum(axis=0)',
        "test_blocks.py::test_float32_sums_of_two_levels",
    ),
    "fast: the last narrow rows are forgotten": (
        "_numpy.py",
        "if body < size else []",
        "if size < body else []",
        "test_blocks.py::test_fast_equals_clear",
    ),
    "fast: a share of blocks is skipped": (
        "_numpy.py",
        "itertools.pairwise(cuts[1:])",
        "itertools.pairwise(cuts[2:])",
        "test_blocks.py::test_the_number_of_threads_changes_no_bit",
    ),
    "fast: the gradient forgets the road through the variance": (
        "blocks.py",
        "(gamma * inverse**3 * product - ",
        "(0 * product - ",
        "test_blocks.py::test_fast_equals_clear",
    ),
    "known statistics are ignored": (
        "gradient.py",
        "if statistics is None else tuple(statistics[:2])",
        "if True else tuple(statistics[:2])",
        "test_gradient.py::test_known_statistics_are_used",
    ),
    "the layer forgets its statistics": (
        "layer.py",
        '"statistics": batch}',
        '"statistics": None}',
        "test_layer.py::test_backward_takes_no_statistics_a_second_time",
    ),
    "fast: the rest of a known mean is dropped": (
        "blocks.py",
        "product - low * total",
        "product",
        "test_blocks.py::test_known_statistics_in_every_engine",
    ),
    "fast: extremes are not handed back": (
        "blocks.py",
        "np.fmax.reduce(np.abs(mean))) > high",
        "np.fmax.reduce(np.abs(mean))) > np.inf",
        "test_blocks.py::test_statistics_near_the_ends_of_the_range",
    ),
}


AGAINST, OWN, THEIRS = "test_keras_against.py", "test_keras.py", "test_keras_faults.py"
A_STEP = f"{AGAINST}::test_steps_of_every_rank_axis_and_dtype"
MODES = f"{AGAINST}::test_training_and_trainable"
LAYER, MEMORY = "keras/layer.py", "keras/_population.py"

# The same for what needs TensorFlow; all are run in one process
TENSOR_FAULTS = {
    "keras: Bessel swapped": (
        MEMORY,
        "if layer.bessel:",
        "if not layer.bessel:",
        f"{OWN}::test_the_population_is_that_of_the_core[settings0-<lambda>-True]",
    ),
    "keras: momentum flipped": (
        MEMORY,
        "if updates is None:\n            return 1 - momentum",
        "if updates is None:\n            return momentum",
        f"{AGAINST}::test_stateless_calls",
    ),
    "keras: one value is counted": (
        MEMORY,
        "most > 1",
        "most > 0",
        f"{OWN}::test_one_value_leaves_no_trace_of_the_first_variance",
    ),
    "keras: a momentum of float32": (
        MEMORY,
        "if tf.is_tensor(rate):",
        "if True:",
        f"{A_STEP}[0-float64]",
    ),
    "keras: an empty batch is blended in": (
        MEMORY,
        "if count >= least:",
        "if True:",
        f"{OWN}::test_a_batch_of_nothing_leaves_the_statistics_alone[empty-settings0]",
    ),
    "keras: a masked batch is blended in": (
        MEMORY,
        "tf.cast(count, tf.float64) >= least",
        "tf.cast(count, tf.float64) >= 0",
        f"{OWN}::test_a_batch_of_nothing_leaves_the_statistics_alone[masked-settings0]",
    ),
    "keras: weights are counted as values": (
        MEMORY,
        "seen = tf.reduce_sum(tf.cast(share > 0, tf.float64), where.axes)",
        "seen = tf.cast(count, tf.float64)",
        f"{OWN}::test_masks_of_every_kind[small weights-float32]",
    ),
    "keras: renorm is not clipped": (
        MEMORY,
        "d = d if dmax is None else tf.clip_by_value(d, -dmax, dmax)",
        "pass",
        f"{AGAINST}::test_steps_with_renorm[0-float32]",
    ),
    "keras: renorm in 16 bits": (
        LAYER,
        'x = tf.cast(x, keras.backend.result_type(x.dtype, "float32"))',
        "pass",
        f"{AGAINST}::test_steps_with_renorm[0-mixed_float16]",
    ),
    "keras: updated in inference": (
        LAYER,
        "            vectors = ",
        "            self._train(x, mask)\n            vectors = ",
        f"{MODES}[False-True]",
    ),
    "keras: updated when frozen": (
        LAYER,
        "if training and self.trainable:",
        "if training:",
        f"{MODES}[True-False]",
    ),
    "keras: gamma and beta swapped": (
        LAYER,
        "given = (self.gamma, self.beta)",
        "given = (self.beta, self.gamma)",
        f"{A_STEP}[0-float32]",
    ),
    "keras: gamma and beta swapped in inference": (
        LAYER,
        "self.moving_variance, self.gamma, self.beta",
        "self.moving_variance, self.beta, self.gamma",
        f"{A_STEP}[0-float32]",
    ),
    "keras: wrong axis": (
        LAYER,
        "axis = _options.within(self.axis, x.shape.rank)",
        "axis = _options.within(-1, x.shape.rank)",
        f"{AGAINST}::test_what_is_changed_after_building_is_obeyed",
    ),
    "keras: epsilon ignored": (
        LAYER,
        '"epsilon": self.epsilon',
        '"epsilon": 1e-3',
        f"{AGAINST}::test_what_is_changed_after_building_is_obeyed",
    ),
    "keras: gamma and beta in the wrong order": (
        LAYER,
        '(("gamma", self.scale), ("beta", self.center))',
        '(("beta", self.center), ("gamma", self.scale))',
        f"{AGAINST}::test_configs_carry_over[everything]",
    ),
    "keras: mean and variance in the wrong order": (
        LAYER,
        'for name in ("moving_mean", "moving_variance"):',
        'for name in ("moving_variance", "moving_mean"):',
        f"{AGAINST}::test_configs_carry_over[everything]",
    ),
    "keras: mask ignored": (
        LAYER,
        "shares_of_mask(mask, x, where)",
        "shares_of_mask(None, x, where)",
        f"{AGAINST}::test_steps_with_a_mask[0-float32]",
    ),
    "keras: not synchronized": (
        LAYER,
        "synchronized=self.synchronized,",
        "synchronized=False,",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "keras: integers rounded": (
        LAYER,
        'x = as_floating("inputs", inputs)',
        "x = inputs if inputs.dtype.is_floating else tf.cast(inputs, tf.float32)",
        f"{THEIRS}::test_3_15_1_rounds_integers_to_float32",
    ),
    "keras: statistics in float16": (
        "keras/_variables.py",
        'NARROW = ("float16", "bfloat16")',
        "NARROW = ()",
        f"{THEIRS}::test_3_15_1_float16_policy_poisons_the_moving_variance",
    ),
    "keras: a regularizer is lost": (
        "keras/_variables.py",
        'regularizer=getattr(layer, f"{name}_regularizer")',
        "regularizer=None",
        f"{AGAINST}::test_regularizers_initializers_and_constraints",
    ),
    "tensors: statistics detached from the gradient": (
        "tf_ops/_kernels.py",
        "self._share() * (mean_grad + centred * slope)",
        "0 * slope",
        f"{A_STEP}[0-float32]",
    ),
    "tensors: the spread between replicas is dropped": (
        "tf_ops/statistics.py",
        "variances + tf.square(means - mean)",
        "variances",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "tensors: the gradient stays on its replica": (
        "tf_ops/_kernels.py",
        "map(statistics.all_sum, sums) if self.synchronized else sums",
        "sums",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "tensors: a mask of Keras is read over the channels": (
        "tf_ops/_weights.py",
        "mask[..., tf.newaxis]",
        "tf.ones_like(mask)[..., tf.newaxis]",
        f"{OWN}::test_masks_of_every_kind[over the channels, as Keras makes it-float32]",
    ),
}


def run_tests(folder, *tests):
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *(f"tests/{test}" for test in tests),
    ]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def copy(tmp_path):
    for name in ("bnlib", "tests"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", FAULTS)
def test_planted_fault_is_caught(copy, name):
    file, text, fault, test = FAULTS[name]
    path = copy / "bnlib" / file
    source = path.read_text()
    assert source.count(text) == 1, f"the fault no longer fits {file}: {text!r}"
    path.write_text(source.replace(text, fault))
    result = run_tests(copy, test)
    assert result.returncode == 1, (
        f"{test} did not catch {name!r}:\n{result.stdout}{result.stderr}"
    )
    assert "error during collection" not in result.stdout, result.stdout


def test_the_copy_is_green_without_a_fault(copy):
    """Else the faults above would be caught by anything."""
    result = run_tests(copy, *sorted({test for *_, test in FAULTS.values()}))
    assert result.returncode == 0, result.stdout
    probe = "import bnlib; print(bnlib.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    used = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert used.stdout.strip().startswith(str(copy)), "the copy must be what is tested"


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Plant all faults that need TensorFlow, and say what became of each."""
    folder = tmp_path_factory.mktemp("planted")
    for name in ("bnlib", "tests"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    done = subprocess.run(
        [sys.executable, str(folder / "tests/planting.py"), str(folder)],
        input=json.dumps(TENSOR_FAULTS),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_copy_with_tensorflow_is_green_without_a_fault(planted):
    code, said = planted["no fault"]
    assert code == 0, said


@pytest.mark.parametrize("name", TENSOR_FAULTS)
def test_planted_fault_with_tensorflow_is_caught(planted, name):
    code, said = planted[name]
    assert code == 1, f"{TENSOR_FAULTS[name][-1]} did not catch {name!r}:\n{said}"
    assert "1 failed" in said, said
