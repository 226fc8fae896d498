"""The tests are tested: each planted fault must turn a named test red.

A fault is one small, believable edit of the library. It is made in a copy, never in the tree.
"""

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
        "LONG = 1 << 12",
        "LONG = 1 << 30",
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
