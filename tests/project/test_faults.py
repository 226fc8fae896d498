"""The tests are tested: each planted fault must turn a named test red.

A fault is one small, believable edit of the library. It is made in memory, never in the tree: see
planting.py.
"""

import pytest
from planting import outcome

# How a test says that something is wrong. Any other exception, or one outside of the test's body,
# would be a fault that breaks the code, not one that a test has found; but for these.
RED = {"AssertionError", "Failed"}
BREAKS = {
    "the input is overwritten": "ValueError",  # it is read-only
    "a copy's quiet channels are divided by what they vary": "ValueError",  # fold's
    "the layer forgets its statistics": "TypeError",  # the test takes `moments` away
}

# name: (file, text in it, what the fault makes of it, the test that must catch it)
FAULTS = {
    "half of the seeds make a prediction true": (
        "book/claims/_weighing.py",
        "NEARLY_ALL = 7 / 8",
        "NEARLY_ALL = 4 / 8",
        "test_claims.py::test_verdicts_follow_the_rule",
    ),
    "the ledger states another verdict": (
        "book/claims/_ledger.py",
        'stated=UNTOLD,\n        conditions="In the convolutional',
        'stated=FAILS,\n        conditions="In the convolutional',
        "test_claims.py::test_the_stored_records_bear_out_the_verdict",
    ),
    "the noise is put behind inference too": (
        "book/claims/_base.py",
        "if training and self.noise + self.each:",
        "if self.noise + self.each:",
        "test_claims.py::test_noise_is_new_at_every_call_and_absent_from_inference",
    ),
    "a report's worst row is its first": (
        "reports.py",
        "max((row.level for row in self.rows), key=LEVELS.index, default=",
        "next((row.level for row in self.rows), ",
        "test_reports.py::test_it_is_a_sequence_with_a_worst_row",
    ),
    "rows of the level that is asked for are left out": (
        "reports.py",
        "if LEVELS.index(row.level) >= least)",
        "if LEVELS.index(row.level) > least)",
        "test_reports.py::test_at_least",
    ),
    "NaN is 0 in JSON": (
        "reports.py",
        "not np.isfinite(value):\n        return str(value)",
        "not np.isfinite(value):\n        return 0.0",
        "test_reports.py::test_as_json",
    ),
    "a report in a notebook is markup": (
        "reports.py",
        "<td>{html.escape(c)}</td>",
        "<td>{c}</td>",
        "test_reports.py::test_in_a_notebook_nothing_is_taken_for_markup",
    ),
    "NaN passes in data": (
        "doctor/_data.py",
        "not np.isfinite(values).all()",
        "np.isinf(values).any()",
        "test_doctor.py::test_data_of_no_use",
    ),
    "a last, smaller batch is dropped": (
        "doctor/_data.py",
        "range(0, len(_first(arrays)), self._size)",
        "range(0, len(_first(arrays)) - self._size + 1, self._size)",
        "test_doctor.py::test_batches_of_any_kind",
    ),
    "arrays of several lengths are cut": (
        "doctor/_data.py",
        "if len(sizes) > 1:",
        "if len(sizes) > 9:",
        "test_doctor.py::test_several_inputs",
    ),
    "a dataset without end is walked": (
        "doctor/_data.py",
        "== tf.data.INFINITE_CARDINALITY",
        "== tf.data.UNKNOWN_CARDINALITY",
        "test_doctor.py::test_what_is_no_data",
    ),
    "a command succeeds whatever it found": (
        "cli.py",
        "1 if report.at_least(level) else 0",
        "0",
        "test_cli.py::test_from_a_sick_model_to_one_without_batch_norm",
    ),
    "a command writes over what is there": (
        "cli.py",
        "if out.exists() and not force:",
        "if False:",
        "test_cli.py::test_bad_input",
    ),
    "a file is written in its place": (
        "cli.py",
        "path = folder / out.name",
        "path = out",
        "test_cli.py::test_a_full_disk_leaves_what_was_there",
    ),
    "code in a file is run": (
        "cli.py",
        "safe_mode=not unsafe",
        "safe_mode=False",
        "test_cli.py::test_code_in_a_file_is_not_run_unless_asked_for",
    ),
    "inputs go by their place in the file": (
        "cli.py",
        "[arrays[name] for name in names]",
        "list(arrays.values())",
        "test_cli.py::test_data_for_several_inputs_go_by_name",
    ),
    "a copy's quiet channels are divided by what they vary": (
        "doctor/_evidence.py",
        "np.maximum(variance, variance.mean())",
        "variance",
        "test_fold.py::test_a_deep_model_is_no_false_alarm",
    ),
    "replicas are not compared": (
        "conformance/_memory.py",
        "y = np.concatenate(layer.replicated([x[:4], x[4:]]))",
        "y = layer.forward(x, True)",
        "test_conformance.py::test_a_fault_fails_its_checks_and_no_others",
    ),
    "an error in a check is a pass": (
        "conformance/_run.py",
        "outcome, level = FAILED, check.level",
        'outcome, level = PASSED, "ok"',
        "test_conformance.py::test_an_error_inside_is_a_failure_that_is_told",
    ),
    "nothing offered is a pass": (
        "conformance/_run.py",
        "if not offered:",
        "if False:",
        "test_conformance.py::test_nothing_offered_is_no_pass",
    ),
    "every error of the large means is a warning": (
        "conformance/_checks.py",
        "BAD = 0.1",
        "BAD = 1e9",
        "test_conformance.py::test_levels_follow_the_size_of_the_error",
    ),
    "any momentum will do": (
        "conformance/_memory.py",
        "abs(second - 0.1) < 1e-3",
        "abs(second - 0.5) < 1",
        "test_conformance.py::test_a_fault_fails_its_checks_and_no_others",
    ),
    "a gradient need not be orthogonal": (
        "conformance/_values.py",
        "if worst <= most:",
        "if worst <= 2:",
        "test_conformance.py::test_a_fault_fails_its_checks_and_no_others",
    ),
    "PyTorch's momentum is not translated": (
        "conformance/adapters/_torch.py",
        '"momentum": 1 - setting.momentum',
        '"momentum": setting.momentum',
        "test_conformance.py::test_pytorch_fails_where_the_page_says",
    ),
    "the epsilon of a function is lost": (
        "conformance/adapters/_functions.py",
        "self.epsilon = epsilon",
        "pass",
        "test_conformance.py::test_the_epsilon_of_a_function_is_believed",
    ),
    "momentum is not compared": (
        "conventions/_compare.py",
        'for name in ("epsilon", "momentum"):',
        'for name in ("epsilon",):',
        "test_conventions.py::test_compare_names_the_layer_and_its_wrong_parameter",
    ),
    "a swapped pair is two differences": (
        "conventions/_compare.py",
        "if not found:",
        "if wrong:",
        "test_conventions.py::test_compare_names_the_layer_and_its_wrong_parameter",
    ),
    "any change that mends roughly explains": (
        "conventions/_compare.py",
        "if error <= 3 * best]",
        "if error <= spread]",
        "test_conventions.py::test_explain_finds_the_change_that_mends_the_outputs",
    ),
    "Caffe's default epsilon is Keras's": (
        "book/_caffe.py",
        "eps 3 float =1e-05",
        "eps 3 float =1e-03",
        "test_conventions.py::test_files_are_what_their_makers_write",
    ),
    "one-pass variance": (
        "moments.py",
        "average(centred * centred, batch)",
        "average(x.astype('f4') ** 2, batch) - (rough + residue) ** 2",
        "test_moments.py::test_mean_and_variance_to_1e_6_of_the_exact_value",
    ),
    "Bessel's variance": (
        "moments.py",
        "average(centred * centred, batch)",
        "average(centred * centred, batch) * batch.count / max(batch.count - 1, 1)",
        "test_moments.py::test_against_the_loop",
    ),
    "sums in float32": (
        "_checks.py",
        "return np.promote_types(dtype, np.float64)",
        "return np.promote_types(dtype, np.float32)",
        "test_moments.py::test_mean_and_variance_to_1e_6_of_the_exact_value",
    ),
    "no correction of the mean": (
        "moments.py",
        "centred -= residue",
        "pass",
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
        "between = moments(means, axes=0, weights=counts)",
        "between = moments(means, axes=0)",
        "test_moments.py::test_any_split_merges_to_the_same_moments",
    ),
    "NaN leaks through the mask": (
        "moments.py",
        "np.where(batch.share > 0, batch.x, 0)",
        "batch.x",
        "test_moments.py::test_a_mask_hides_whatever_lies_under_it",
    ),
    "epsilon outside the root": (
        "transform.py",
        "np.sqrt(variance + epsilon)",
        "(np.sqrt(variance) + epsilon)",
        "test_transform.py::test_batch_norm_against_the_loop",
    ),
    "x*inv + shift": (
        "transform.py",
        "x_hat *= inverse",
        "x_hat = batch.x * inverse.astype('f4') - (mean * inverse).astype('f4')",
        "test_transform.py::test_output_is_right_for_every_hard_row",
    ),
    "gamma and beta swapped": (
        "transform.py",
        "return multiply_and_add(x_hat, gamma, beta)",
        "return multiply_and_add(x_hat, beta, gamma)",
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
        "y = batch.x.astype(wide(batch.x.dtype))",
        "y = batch.x",
        "test_transform.py::test_inputs_are_never_modified_and_never_shared",
    ),
    "statistics detached from the gradient": (
        "gradient.py",
        "grad_x = grad_y - (share * grad_beta + x_hat * (share * grad_gamma))",
        "grad_x = grad_y * 1.0",
        "test_gradient.py::test_central_differences_in_random_directions",
    ),
    "the path through the mean is missing": (
        "gradient.py",
        "grad_x = grad_y - (share * grad_beta + x_hat * (share * grad_gamma))",
        "grad_x = grad_y - x_hat * (share * grad_gamma)",
        "test_gradient.py::test_the_gradient_sums_to_zero_over_the_batch",
    ),
    "the path through the variance is missing": (
        "gradient.py",
        "grad_x = grad_y - (share * grad_beta + x_hat * (share * grad_gamma))",
        "grad_x = grad_y - share * grad_beta",
        "test_gradient.py::test_the_gradient_is_orthogonal_to_x_hat_as_epsilon_goes_to_0",
    ),
    "gamma's axes: its sums stand for those of the statistics": (
        "gradient.py",
        "along, level = sums(grad_x_hat, x_hat, batch.where)",
        "along, level = grad_gamma, grad_beta",
        "test_gradient.py::test_central_differences_where_gamma_has_other_axes",
    ),
    "gamma's axes: gamma comes after the sums": (
        "gradient.py",
        "grad_x_hat = grad_y if gamma is None else grad_y * gamma",
        "grad_x_hat, inverse = grad_y, inverse if gamma is None else inverse * gamma",
        "test_gradient.py::test_central_differences_where_gamma_has_other_axes",
    ),
    "the axes averaged over are ignored": (
        "_batch.py",
        "where = features if axes is None else layout(x.shape, axes=axes)",
        "where = features",
        "test_transform.py::test_layer_and_group_norm_against_the_formula",
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
    "a convolution is folded forward without its other places": (
        "parameters.py",
        ".sum(axis=kept.axes)",
        "[(slice(-1, None),) * (kernel.ndim - 2)].sum(axis=kept.axes)",
        "test_parameters.py::test_forward_into_a_convolution",
    ),
    "fast: a doubtful channel is believed": (
        "blocks/_twins.py",
        "    if doubt.any():",
        "    if False:",
        "test_blocks.py::test_doubtful_channels_are_summed_again",
    ),
    "fast: a pilot two deviations off is believed": (
        "blocks/_twins.py",
        "return distance * distance > variance",
        "return distance * distance > 4 * variance",
        "test_blocks.py::test_a_mean_about_as_large_as_the_deviation",
    ),
    "fast: the rest of the mean is dropped": (
        "blocks/_twins.py",
        "shift = low * slope - ",
        "shift = -",
        "test_blocks.py::test_fast_equals_clear",
    ),
    "fast: float32 all the way": (
        "blocks/_numpy.py",
        "RUN = 16",
        "RUN = 4096",
        "test_blocks.py::test_float32_sums_of_two_levels",
    ),
    "fast: long dot products": (
        "blocks/_numpy.py",
        "return self.sum(np.multiply(part, other, out=products))",
        'return np.einsum("eca,eca->ec", part, other).sum(axis=0)',
        "test_blocks.py::test_float32_sums_of_two_levels",
    ),
    "fast: the last narrow rows are forgotten": (
        "blocks/_numpy.py",
        "if body < size else []",
        "if size < body else []",
        "test_blocks.py::test_fast_equals_clear",
    ),
    "fast: a share of blocks is skipped": (
        "blocks/_numpy.py",
        "itertools.pairwise(cuts[1:])",
        "itertools.pairwise(cuts[2:])",
        "test_blocks.py::test_the_number_of_threads_changes_no_bit[many blocks-numpy]",
    ),
    "fast: the gradient forgets the path through the variance": (
        "blocks/_twins.py",
        "slope = multiplier * inverse**2 * product / m",
        "slope = 0 * product",
        "test_blocks.py::test_fast_equals_clear",
    ),
    "known statistics are ignored": (
        "gradient.py",
        "mean, variance = statistics or measure(batch)",
        "mean, variance = measure(batch)",
        "test_gradient.py::test_known_statistics_are_used",
    ),
    "the layer forgets its statistics": (
        "layer.py",
        '"statistics": batch}',
        '"statistics": None}',
        "test_layer.py::test_backward_takes_no_statistics_a_second_time",
    ),
    "fast: the rest of a known mean is dropped": (
        "blocks/_twins.py",
        "product - low * total",
        "product",
        "test_blocks.py::test_known_statistics_in_every_engine",
    ),
    "fast: extremes are not handed back": (
        "blocks/_twins.py",
        "np.fmax.reduce(np.abs(mean))) > high",
        "np.fmax.reduce(np.abs(mean))) > np.inf",
        "test_blocks.py::test_statistics_near_the_ends_of_the_range",
    ),
    "recalibrate: the spread between batches is forgotten": (
        "doctor/recalibrate.py",
        "+ share * (1 - share) * away**2",
        "+ 0 * away**2",
        "test_recalibrate.py::test_exact_is_one_batch_of_all_data",
    ),
    "recalibrate: layers in the order in which they are held": (
        "doctor/recalibrate.py",
        "order = _order(first.calls)",
        "order = list(self._layers)",
        "test_recalibrate.py::test_exact_is_one_batch_of_all_data",
    ),
    "recalibrate: values under a mask count": (
        "doctor/recalibrate.py",
        "    if mask is None:\n        mean, variance",
        "    if True:\n        mean, variance",
        "test_recalibrate.py::test_values_under_a_mask_do_not_count",
    ),
    "recalibrate: only the first call of a shared layer counts": (
        "doctor/recalibrate.py",
        "several = any(calls.count(key) > 1 for calls in first.calls)",
        "several = False",
        "test_recalibrate.py::test_a_shared_layer_pools_its_calls",
    ),
    "recalibrate: frozen layers too": (
        "doctor/recalibrate.py",
        "chosen = [p for p in found if p.layer.trainable]",
        "chosen = found",
        "test_recalibrate.py::test_a_frozen_layer_keeps_its_statistics_unless_it_is_named",
    ),
    "recalibrate: a walk leaves traces": (
        "doctor/recalibrate.py",
        "with undisturbed(self._model):",
        "if undisturbed:",
        "test_recalibrate.py::test_nothing_but_the_statistics_changes",
    ),
    "recalibrate: half of it stays when it is interrupted": (
        "doctor/recalibrate.py",
        "        restore()\n        raise",
        "        raise",
        "test_recalibrate.py::test_an_interruption_on_the_way_leaves_the_model_as_it_was",
    ),
    "recalibrate: renorm's deviation without epsilon": (
        "doctor/recalibrate.py",
        "new += [np.sqrt(variance + layer.epsilon), pool.mean]",
        "new += [np.sqrt(variance), pool.mean]",
        "test_recalibrate.py::test_options_of_our_layer",
    ),
    "recalibrate: a NaN that is gone is called no change": (
        "doctor/recalibrate.py",
        "positive = np.where(ratio > 0, ratio, np.inf)",
        "positive = np.where(ratio > 0, ratio, 1)",
        "test_recalibrate.py::test_statistics_that_are_no_numbers_are_mended",
    ),
    "recalibrate: the callback waits for the end of the epoch": (
        "doctor/recalibrate.py",
        "def on_test_begin(",
        "def on_test_start(",
        "test_recalibrate.py::test_the_callback_before_each_second_validation",
    ),
    "layer norm averages over the examples": (
        "variants/_axes.py",
        "axis=axis, axes=axis, epsilon=epsilon)[0]",
        "axis=axis, epsilon=epsilon)[0]",
        "test_variants.py::test_against_the_loop",
    ),
    "instance norm averages over the examples": (
        "variants/_axes.py",
        "    axes = space(x.shape, axis)\n",
        "    axes = (0, *space(x.shape, axis))\n",
        "test_variants.py::test_against_the_loop",
    ),
    "groups of channels that lie apart": (
        "variants/_axes.py",
        "if a != channel)",
        "if a != members)",
        "test_variants.py::test_groups_are_neighbouring_channels",
    ),
    "ghosts of examples that lie apart": (
        "variants/_batch.py",
        "for a in range(1, len(split)) if a not in channels",
        "for a in range(len(split)) if a != 1 and a not in channels",
        "test_variants.py::test_ghosts_are_neighbours_and_alone",
    ),
    "the gradient of renorm goes through r and d": (
        "variants/_batch.py",
        "    return grad_x, r * along",
        "    grad_x = grad_y * (scale / np.sqrt(batch.variance + epsilon))\n"
        "    return grad_x, r * along",
        "test_variants.py::test_renorm_holds_r_and_d_constant",
    ),
    "the gradient of renorm's gamma forgets d": (
        "variants/_batch.py",
        "r * along + d * grad_beta",
        "r * along",
        "test_variants.py::test_renorm_holds_r_and_d_constant",
    ),
    "r upside down": (
        "variants/_batch.py",
        "r = np.sqrt(batch.variance + epsilon) / moving_sigma",
        "r = moving_sigma / np.sqrt(batch.variance + epsilon)",
        "test_variants.py::test_renorm_wide_open_is_inference",
    ),
    "r has no lower limit": (
        "variants/_batch.py",
        "(1 / rmax if rmax else math.inf)",
        "0.0",
        "test_variants.py::test_the_loop_of_renorm_meets_both_limits_and_neither",
    ),
    "d is limited on one side": (
        "variants/_batch.py",
        "np.clip(d, -dmax, dmax)",
        "np.minimum(d, dmax)",
        "test_variants.py::test_the_loop_of_renorm_meets_both_limits_and_neither",
    ),
    "RMS norm divides by the deviation": (
        "variants/_square.py",
        "variance + mean * mean, epsilon",
        "variance, epsilon",
        "test_variants.py::test_against_the_loop",
    ),
    "epsilon outside of the root": (
        "variants/_square.py",
        "inverse = inverse_deviation(variance + mean * mean, epsilon)",
        "inverse = 1 / (np.sqrt(variance + mean * mean) + epsilon)",
        "test_variants.py::test_against_the_loop",
    ),
    "the root mean square is a constant": (
        "variants/_square.py",
        "(grad_x_hat - x_hat * (along / batch.count)) * inverse",
        "grad_x_hat * inverse",
        "test_variants.py::test_central_differences_in_random_directions",
    ),
    "Bessel's count in the backward pass": (
        "variants/_square.py",
        "along / batch.count",
        "along / (batch.count - 1)",
        "test_variants.py::test_central_differences_in_random_directions",
    ),
    "what the threshold hides gets a gradient": (
        "variants/_square.py",
        "grad_y = np.where(hidden, 0, grad_y)",
        "grad_y = grad_y + 0",
        "test_variants.py::test_the_thresholds_gradient_goes_to_one_of_two",
    ),
    "the slope of tanh is not squared": (
        "variants/_tanh.py",
        "1 - squeezed * squeezed",
        "1 - squeezed",
        "test_variants.py::test_central_differences_in_random_directions",
    ),
    "weight norm takes the length of v for a constant": (
        "variants/_weights.py",
        "grad_kernel - grad_g * direction",
        "grad_kernel",
        "test_variants.py::test_central_differences_in_random_directions",
    ),
    "scaled weights are divided by the fan-in itself": (
        "variants/_weights.py",
        "np.sqrt(fan_in)",
        "fan_in",
        "test_variants.py::test_against_the_loop",
    ),
    "the fan-in does not reach epsilon": (
        "variants/_weights.py",
        "as_epsilon(epsilon) / fan_in",
        "as_epsilon(epsilon)",
        "test_variants.py::test_against_the_loop",
    ),
    "u is not updated": (
        "variants/_weights.py",
        "sigma, u, _ = _power",
        "sigma, *_ = _power",
        "test_variants.py::test_many_steps_at_once_are_one_step_many_times",
    ),
    "the singular value is a constant": (
        "variants/_weights.py",
        "(grad_y - along * outer) / sigma",
        "grad_y / sigma",
        "test_variants.py::test_one_step_of_the_power_iteration_by_hand",
    ),
}


SWAP = "test_swap.py"
AGAINST, OWN, THEIRS = "test_keras_agrees.py", "test_keras.py", "test_keras_faults.py"
A_STEP = f"{AGAINST}::test_steps_of_every_rank_axis_and_dtype"
MODES = f"{AGAINST}::test_training_and_trainable"
LAYER, MEMORY = "keras/layer.py", "keras/population.py"
AUDIT = "test_audit.py"
A_RULE = f"{AUDIT}::test_a_rule_finds_its_fault_and_is_silent_on_near_misses"

# The same for what needs TensorFlow; all are run in one process
TENSOR_FAULTS = {
    "a transposed kernel is folded along its inputs": (
        "doctor/_linear.py",
        'TRANSPOSED = Kernel("kernel", -2)',
        'TRANSPOSED = Kernel("kernel", -1)',
        "test_fold.py::test_into_the_layer_before",
    ),
    "the folded layer forgets its own bias": (
        "doctor/_linear.py",
        "bias = None if bias is None else bias.ravel()",
        "bias = None",
        "test_fold.py::test_into_the_layer_before",
    ),
    "a branch is folded": (
        "doctor/_folding.py",
        "len(self.readers[id(x)]) > 1",
        "len(self.readers[id(x)]) > 9",
        "test_fold.py::test_what_is_left[read by others]",
    ),
    "an output of the model is folded": (
        "doctor/_folding.py",
        "if reason is None and id(x) in self.ends:",
        "if False:",
        "test_fold.py::test_what_is_left[an output]",
    ),
    "a shared layer is folded": (
        "doctor/_folding.py",
        "if self.uses[id(layer)] > 1:",
        "if False:",
        "test_fold.py::test_what_is_left[a shared layer]",
    ),
    "a padded convolution takes in what comes before": (
        "doctor/_linear.py",
        "if padded and set(layer.kernel_size) != {1}:",
        "if False:",
        "test_fold.py::test_what_is_left_of_images[padded]",
    ),
    "training=True of a model around is not seen": (
        "doctor/_folding.py",
        "visit(node.operation, training or _training(node))",
        "visit(node.operation, training)",
        "test_fold.py::test_what_is_left[training=True outside]",
    ),
    "fresh statistics are taken for evidence": (
        "doctor/_evidence.py",
        "if _is_fresh(fold.norm) or not _varies(",
        "if not _varies(",
        "test_fold.py::test_a_wrong_fold_is_found_on_a_fresh_model",
    ),
    "data that do not vary are taken for evidence": (
        "doctor/_evidence.py",
        "return spread > VARIES * np.abs(y).max()",
        "return True",
        "test_fold.py::test_data_that_do_not_vary_are_no_evidence",
    ),
    "keras: Bessel swapped": (
        MEMORY,
        "if self.bessel:",
        "if not self.bessel:",
        f"{OWN}::test_the_population_is_that_of_the_core[settings0-<lambda>-True]",
    ),
    "keras: momentum flipped": (
        MEMORY,
        "if self.updates is None:\n            return 1 - self.momentum",
        "if self.updates is None:\n            return self.momentum",
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
        "if values >= least:",
        "if True:",
        f"{OWN}::test_a_batch_of_nothing_leaves_the_statistics_alone[empty-settings0]",
    ),
    "keras: a masked batch is blended in": (
        MEMORY,
        "tf.cast(values, tf.float64) >= least",
        "tf.cast(values, tf.float64) >= 0",
        f"{OWN}::test_a_batch_of_nothing_leaves_the_statistics_alone[masked-settings0]",
    ),
    "keras: weights are counted as values": (
        "keras/masks.py",
        "seen = tf.reduce_sum(tf.cast(batch.share > 0, tf.float64), batch.where.axes)",
        "seen = tf.cast(count, tf.float64)",
        f"{OWN}::test_masks_of_every_kind[small weights-float32]",
    ),
    "keras: renorm is not clipped": (
        "keras/renorm.py",
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
        "gamma, beta = self.gamma, self.beta",
        "gamma, beta = self.beta, self.gamma",
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
        'canonical_axes("axis", self.axis, len(input_shape))',
        'canonical_axes("axis", -1, len(input_shape))',
        f"{AGAINST}::test_what_is_changed_after_building_is_obeyed",
    ),
    "keras: epsilon ignored": (
        LAYER,
        "epsilon=self.epsilon)",
        "epsilon=1e-3)",
        f"{AGAINST}::test_what_is_changed_after_building_is_obeyed",
    ),
    "keras: gamma and beta in the wrong order": (
        LAYER,
        """        if self.scale:
            self.gamma = self._add_parameter("gamma", shape)
        if self.center:
            self.beta = self._add_parameter("beta", shape)
""",
        """        if self.center:
            self.beta = self._add_parameter("beta", shape)
        if self.scale:
            self.gamma = self._add_parameter("gamma", shape)
""",
        f"{AGAINST}::test_configs_carry_over[everything]",
    ),
    "keras: mean and variance in the wrong order": (
        LAYER,
        """        self.moving_mean = self._add_statistic("moving_mean", shape, first_mean)
        self.moving_variance = self._add_statistic(
            "moving_variance", shape, first_variance
        )
""",
        """        self.moving_variance = self._add_statistic(
            "moving_variance", shape, first_variance
        )
        self.moving_mean = self._add_statistic("moving_mean", shape, first_mean)
""",
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
        "share, count, self.synchronized)",
        "share, count, False)",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "keras: the mean held still in the second derivative": (
        LAYER,
        "            y = self._train(x, mask)\n",
        "            self._train(x, mask)\n"
        "            m, v = tf.nn.moments(x, list(range(x.shape.rank - 1)))\n"
        "            y = tf.nn.batch_normalization(\n"
        "                x, m, v, self.beta, self.gamma, self.epsilon)\n",
        f"{THEIRS}::test_3_15_1_second_derivative_is_wrong",
    ),
    "keras: integers rounded": (
        LAYER,
        'x = as_floating("inputs", inputs)',
        "x = inputs if inputs.dtype.is_floating else tf.cast(inputs, tf.float32)",
        f"{THEIRS}::test_3_15_1_rounds_integers_to_float32",
    ),
    "keras: statistics in float16": (
        LAYER,
        'SIXTEEN_BITS = "float16", "bfloat16"',
        "SIXTEEN_BITS = ()",
        f"{THEIRS}::test_3_15_1_float16_policy_poisons_the_moving_variance",
    ),
    "keras: a regularizer is lost": (
        LAYER,
        'regularizer=getattr(self, f"{name}_regularizer")',
        "regularizer=None",
        f"{AGAINST}::test_regularizers_initializers_and_constraints",
    ),
    "tensors: statistics detached from the gradient": (
        "tf_ops/_float64.py",
        "_share(batch, saved) * (total + centred * slope)",
        "0 * slope",
        f"{A_STEP}[0-float32]",
    ),
    "tensors: the spread between replicas is dropped": (
        "tf_ops/moments.py",
        "variances + tf.square(means - mean)",
        "variances",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "tensors: a replica's row is overwritten by its neighbour": (
        "tf_ops/_replicas.py",
        "[:, tf.newaxis] == place",
        "[:, tf.newaxis] >= place",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "keras: a model is swapped, and not synchronised": (
        "keras/swap.py",
        'layer.get_config() | {"synchronized": True}',
        "layer.get_config()",
        f"{SWAP}::test_a_model_of_code_is_synchronised_in_place",
    ),
    "keras: a block forgets that it was synchronised": (
        "keras/_models.py",
        "norm and one.get_config() != other.get_config()",
        "False",
        f"{SWAP}::test_a_model_is_synchronised_at_any_depth_and_keeps_its_state",
    ),
    "tensors: the gradient stays on its replica": (
        "tf_ops/_float64.py",
        "all_sums(*sums) if batch.synchronized else sums",
        "sums",
        f"{OWN}::test_synchronized_replicas_are_one_batch",
    ),
    "tensors: a mask of Keras is read over the channels": (
        "keras/masks.py",
        "mask[..., tf.newaxis]",
        "tf.ones_like(mask)[..., tf.newaxis]",
        f"{OWN}::test_masks_of_every_kind[over the channels, as Keras makes it-float32]",
    ),
    "audit: a mode wired into the call of a nested model is not seen": (
        "doctor/_graph.py",
        "training_of(node) if training is None else training",
        "training_of(node)",
        f"{A_RULE}[BN006]",
    ),
    "audit: a frozen layer is said to train": (
        "doctor/_static.py",
        "if wired and layer.trainable:",
        "if wired:",
        f"{A_RULE}[BN006]",
    ),
    "audit: who uses the outputs of a graph is forgotten": (
        "doctor/_graph.py",
        "call.uses.append(OUTSIDE)",
        "pass",
        f"{A_RULE}[BN009]",
    ),
    "audit: stochastic depth is taken for dropout": (
        "doctor/_measuring.py",
        "return shape is None or any(",
        "return True or any(",
        f"{A_RULE}[BN008]",
    ),
    "audit: what chance does is called a fault": (
        "doctor/_measured.py",
        "apart**2 - chance**2",
        "apart**2",
        f"{A_RULE}[BN003]",
    ),
    "audit: the variance within batches ignores their size": (
        "doctor/_measuring.py",
        "self._within + moments.count * moments.variance",
        "self._within + moments.variance",
        f"{A_RULE}[BN004]",
    ),
    "audit: the statistics move while they are looked at": (
        "doctor/_measuring.py",
        "stack.enter_context(undisturbed(self._model))",
        "pass",
        f"{AUDIT}::test_messages_have_numbers_and_these_are_the_evidence",
    ),
    "audit: gamma and beta are not looked at": (
        "doctor/_layers.py",
        "held = [(v, False) for v in layer._trainable_variables]",
        "held = []",
        f"{A_RULE}[BN017]",
    ),
    "audit: batches of one class each explain any variance": (
        "doctor/_measured.py",
        "return within < 1 - 2 / case.measured.sizes[0]",
        "return False",
        f"{AUDIT}::test_batches_that_are_not_shuffled_hide_no_fault",
    ),
    "audit: padding is measured": (
        "doctor/_measuring.py",
        "weights = None if mask is None else tf.cast(mask, bool)",
        "weights = None",
        f"{AUDIT}::test_masked_steps_are_left_out",
    ),
}

CONVOLUTION = "test_network.py::test_every_gradient_of_the_convolutional_network"
BOOK_FAULTS = {
    "network: every step of a strided convolution is read": (
        "book/network.py",
        "seen[:, :: self.stride, :: self.stride]",
        "seen[:, : -(-x.shape[1] // self.stride), : -(-x.shape[2] // self.stride)]",
        "test_network.py::test_convolution_is_the_sum_over_the_kernel[2]",
    ),
    "network: a convolution's gradient keeps one place of the kernel": (
        "book/network.py",
        "place += patches[:, :, :, i, j]",
        "place[...] = patches[:, :, :, i, j]",
        f"{CONVOLUTION}[plain]",
    ),
    "network: the average's gradient is not shared out": (
        "book/network.py",
        "grad_y[:, None, None] / (h * w)",
        "grad_y[:, None, None]",
        f"{CONVOLUTION}[batch norm]",
    ),
    "build: a layer that falls short is praised": (
        "book/exercises/build.py",
        "        failed += 1\n",
        "        failed += 0\n",
        "test_build.py::test_a_fault_fails_the_check_that_is_about_it[detached]",
    ),
    "norms: gamma and beta get each other's gradient": (
        "book/norms.py",
        "dict(zip(self.parameters, grads, strict=True))",
        "dict(zip([*self.parameters][::-1], grads, strict=True))",
        "test_norms.py::test_gradients_of_dense_networks[layer]",
    ),
    "norms: ghosts share a gradient": (
        "book/norms.py",
        "ghost_batch_norm_backward(grad_y, self._x, self.size, gamma",
        "ghost_batch_norm_backward(grad_y, self._x, len(self._x), gamma",
        "test_norms.py::test_gradients_of_dense_networks[ghost]",
    ),
    "norms: ghosts remember the whole batch": (
        "book/norms.py",
        "for part in x.reshape(-1, self.size, *x.shape[1:]):",
        "for part in [x]:",
        "test_norms.py::test_ghost_is_batch_norm_of_each_part_and_of_all_in_inference",
    ),
    "norms: renorm's backward knows the next population": (
        "book/norms.py",
        "x, population, options = self._saved",
        "(x, _, options), population = self._saved, self.population",
        "test_norms.py::test_renorm_in_training",
    ),
    "norms: renorm has one momentum": (
        "book/norms.py",
        "old = self.renorm_momentum",
        "old = self.momentum",
        "test_norms.py::test_renorm_has_two_momentums_and_a_schedule",
    ),
    "norms: renorm's schedule stays at its start": (
        "book/norms.py",
        "self._step += 1",
        "self._step += 0",
        "test_norms.py::test_renorm_has_two_momentums_and_a_schedule",
    ),
    "norms: both halves are instance norm": (
        "book/norms.py",
        "self._parts = [instance(self._half), rest]",
        "self._parts = [instance(self._half), instance(channels - self._half)]",
        "test_norms.py::test_halves_are_instance_norm_and_batch_norm",
    ),
    "norms: halves come back in the other order": (
        "book/norms.py",
        "parts = [part.backward(half) for part, half in halves]",
        "parts = [part.backward(half) for part, half in halves][::-1]",
        "test_norms.py::test_gradients_of_convolutional_networks[Halves]",
    ),
    "sequences: no gradient through time": (
        "book/sequences.py",
        'grad_y = grad @ weights["hidden"].T',
        "grad_y = 0 * grad_y",
        "test_sequences.py::test_gradients_of_recurrence[none]",
    ),
    "sequences: gamma learns from the first step alone": (
        "book/sequences.py",
        "grads[name] += value",
        "grads[name] = value",
        "test_sequences.py::test_gradients_of_recurrence[layer]",
    ),
    "sequences: one norm serves all steps": (
        "book/sequences.py",
        "total = self.norms[t](total",
        "total = self.norms[0](total",
        "test_sequences.py::test_exact_statistics_of_each_step_are_those_of_the_whole_batch",
    ),
    "sequences: pooled statistics are the first step's": (
        "book/sequences.py",
        "merge_moments(found)",
        "found[0]",
        "test_sequences.py::test_exact_statistics_of_each_step_are_those_of_the_whole_batch",
    ),
    "sequences: a token sees the next one": (
        "book/sequences.py",
        "np.tri(x.shape[1], dtype=bool)",
        "np.tri(x.shape[1], k=1, dtype=bool)",
        "test_sequences.py::test_a_token_sees_itself_and_those_before_it",
    ),
    "sequences: the way around has no gradient": (
        "book/sequences.py",
        "return grad_y + grad\n",
        "return grad\n",
        "test_sequences.py::test_gradients_of_attention[False-none]",
    ),
    "experiments: records stay in the order of the runs": (
        "book/experiments.py",
        'return sorted(records, key=lambda record: order.index(record["setting"]))',
        "return records",
        "test_experiments.py::test_each_setting_meets_each_seed",
    ),
    "experiments: settings are sorted by name": (
        "book/experiments.py",
        "order = list(settings)",
        "order = sorted(settings)",
        "test_experiments.py::test_each_setting_meets_each_seed",
    ),
    "experiments: seeds stand as they came": (
        "book/experiments.py",
        "{name: sorted(values) for",
        "{name: list(values) for",
        "test_experiments.py::test_measures_are_gathered_pair_by_pair",
    ),
    "experiments: other seeds pass if there are as many": (
        "book/experiments.py",
        "len(set(map(tuple, seeds.values()))) > 1",
        "len(set(map(len, seeds.values()))) > 1",
        "test_experiments.py::test_pairs_are_by_seed_whatever_the_order_of_the_records",
    ),
    "experiments: `import x` escapes the fingerprint": (
        "book/experiments.py",
        "names = [alias.name for alias in node.names]",
        "names = []",
        "test_experiments.py::test_no_way_of_importing_escapes_a_fingerprint[name]",
    ),
    "experiments: `from bnlib.book import x` escapes the fingerprint": (
        "book/experiments.py",
        'names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]',
        "names = [node.module]",
        "test_experiments.py::test_no_way_of_importing_escapes_a_fingerprint[module]",
    ),
    "experiments: modules of modules escape the fingerprint": (
        "book/experiments.py",
        "wanted += _imported(",
        "_imported(",
        "test_experiments.py::test_no_way_of_importing_escapes_a_fingerprint[module]",
    ),
    "experiments: parts of other code are kept": (
        "book/experiments.py",
        'if found.get("fingerprint") != fingerprint(script):',
        "if False:",
        "test_experiments.py::test_parts_stored_by_the_same_code_are_kept",
    ),
    "experiments: a part drops the others": (
        "book/experiments.py",
        "{n: found[n] for n in parts if n in found}",
        "{name: found[name]}",
        "test_experiments.py::test_parts_stored_by_the_same_code_are_kept",
    ),
    "experiments: parts are stored when all have run": (
        "book/experiments.py",
        "        keep(options.json, script, **{",
        "    keep(options.json, script, **{",
        "test_experiments.py::test_a_part_is_stored_before_the_next_one_runs",
    ),
    "style: two of a family look alike": (
        "book/style.py",
        "_MEMBERS[member]",
        "_MEMBERS[max(member, 1)]",
        "test_style.py::test_members_of_a_family_share_a_colour_and_differ_in_grey",
    ),
}

ALL = FAULTS | TENSOR_FAULTS | BOOK_FAULTS


@pytest.mark.parametrize("name", ALL)
def test_planted_fault_is_caught(name):
    *edit, test = ALL[name]
    code, ended, said = outcome([test], edit)
    assert code == 1, f"{test} did not catch {name!r}:\n{said}"
    ((when, exception),) = ended
    assert when == "call", said
    assert exception in (RED if name not in BREAKS else {BREAKS[name]}), said


@pytest.mark.parametrize(
    "faults",
    [FAULTS, TENSOR_FAULTS, BOOK_FAULTS],
    ids=["core", "tensors", "book"],
)
def test_all_is_green_without_a_fault(faults):
    """Else the faults above would be caught by anything."""
    tests = sorted({test for *_, test in faults.values()})
    edit = ("axes.py", "def layout(", "def layout(")  # imported as a fault is
    code, ended, said = outcome(tests, edit)
    assert (code, ended) == (0, []), said


# The planter is tested: what it must not take for a fault that was caught

LAYOUT = "test_axes.py::test_each_rank_and_layout"


def test_a_harmless_edit_is_not_caught():
    edit = ("axes.py", "def layout(", "unused = 3\n\n\ndef layout(")
    assert outcome([LAYOUT], edit)[:2] == (0, [])


def test_an_edit_that_breaks_the_import_is_not_caught():
    code, _, said = outcome([LAYOUT], ("axes.py", "def layout(", "def lay_out("))
    assert code != 1, said
    assert "ImportError" in said


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (("axes.py", "no such text", ""), ValueError, "no longer fits axes.py"),
        (("axes.py", "import", ""), ValueError, "no longer fits axes.py"),  # twice
        (("axes.py", "def layout(", "def layout"), SyntaxError, "axes.py"),
    ],
)
def test_an_edit_that_cannot_be_planted_is_an_error(edit, error, words):
    with pytest.raises(error, match=words):
        outcome([LAYOUT], edit)


def test_a_fault_where_the_test_never_looks_is_an_error():
    edit = (
        "book/network.py",
        "def softmax_cross_entropy(",
        "def softmax_cross_entropy(",
    )
    with pytest.raises(RuntimeError, match=r"never imported book/network\.py"):
        outcome([LAYOUT], edit)


def test_a_fault_is_planted_in_memory_and_nothing_stays():
    from planting import planted

    import bnlib.axes as real

    text = "def layout("
    with planted("axes.py", text, "FAULT = True\n\n\ndef layout(") as loader:
        import bnlib.axes as faulty

        assert loader.used
        assert faulty.FAULT
    import bnlib.axes as again

    assert again is real
    assert not hasattr(again, "FAULT")
