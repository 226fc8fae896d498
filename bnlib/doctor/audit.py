"""Audit a whole Keras model: which batch norm faults it has, with the numbers and the cure.

Each fault is a `Rule`: a code, a few words, and a function that looks for it. `audit(model,
rules=[*RULES, mine])` adds one of yours; `print(Report("rules", RULES))` lists them.
"""

from collections.abc import Sequence
from typing import Any

from bnlib.doctor import _measured, _measuring, _static
from bnlib.doctor._data import plural
from bnlib.doctor._rules import Case, Fault, Finding, Rule, case_of, not_looked_at
from bnlib.reports import Report

__all__ = ["RULES", "Case", "Fault", "Finding", "Rule", "audit"]

RULES: tuple[Rule, ...] = (
    Rule(
        "error",
        "BN001",
        "statistics still at their initial 0 and 1",
        "Train it, load its statistics, or recalibrate it.",
        "part1/07_layer.html",
        _static.statistics_at_start,
    ),
    Rule(
        "error",
        "BN002",
        "statistics that do not fit the inputs",
        "Recalibrate the model on training data.",
        "part1/06_population.html",
        _measured.unfit_statistics,
        needs_data=True,
    ),
    Rule(
        "warning",
        "BN003",
        "training and inference give other outputs",
        "Recalibrate first; if a gap stays, train with larger batches.",
        "part1/07_layer.html",
        _measured.gap,
        needs_data=True,
    ),
    Rule(
        "info",
        "BN004",
        "variances too small by what small batches lack",
        "Recalibrate, use larger batches, or bnlib's layer with bessel=True.",
        "part1/07_layer.html",
        _measured.small_batches,
        needs_data=True,
    ),
    Rule(
        "warning",
        "BN005",
        "a batch of one example",
        "Leave it out: batch(size, drop_remainder=True), or another batch size.",
        "part1/07_layer.html",
        _measured.batch_of_one,
        needs_data=True,
    ),
    Rule(
        "error",
        "BN006",
        "training=True wired into the call",
        "Leave training out of the call; pass on the argument of your own call.",
        "part2/10_keras.html",
        _static.training_wired,
    ),
    Rule(
        "warning",
        "BN007",
        "trainable and frozen layers mixed",
        "Set trainable = False on the whole base, and compile again.",
        "part2/10_keras.html",
        _static.mixed_flags,
    ),
    Rule(
        "warning",
        "BN008",
        "dropout before batch norm",
        "Put dropout behind the last batch norm layer, or recalibrate after training.",
        "part1/07_layer.html",
        _static.dropout_upstream,
    ),
    Rule(
        "info",
        "BN009",
        "a bias that batch norm makes useless",
        "Use use_bias=False in the layer before.",
        "part1/03_transform.html",
        _static.useless_bias,
    ),
    Rule(
        "info",
        "BN010",
        "constant channels, or gamma near 0",
        "Prune these channels; if they are many, look at what feeds them.",
        "part1/03_transform.html",
        _static.flat_channels,
    ),
    Rule(
        "warning",
        "BN011",
        "one layer called at several places",
        "Give each place a layer of its own, or make one batch of all inputs.",
        "appendix/questions_tf.html",
        _static.shared_layer,
    ),
    Rule(
        "warning",
        "BN012",
        "batch norm inside TimeDistributed",
        "Call the layer on the whole sequence: it takes (N, T, C) as it is.",
        "appendix/questions_tf.html",
        _static.each_step_alone,
    ),
    Rule(
        "warning",
        "BN013",
        "weights averaged, statistics not",
        "Recalibrate once the averaged weights are in place.",
        "part1/06_population.html",
        _static.averaged_weights,
    ),
    Rule(
        "info",
        "BN014",
        "epsilon not small beside the variance",
        "Use a smaller epsilon in training, or scale the inputs.",
        "part1/03_transform.html",
        _static.large_epsilon,
    ),
    Rule(
        "error",
        "BN015",
        "momentum outside (0, 1), or PyTorch's",
        "Keras's momentum weighs the old value: 0.9 to 0.999.",
        "part2/12_conventions.html",
        _static.odd_momentum,
    ),
    Rule(
        "warning",
        "BN016",
        "axis does not match the data format",
        "Use axis=1 for channels first, axis=-1 for channels last.",
        "part1/05_axes.html",
        _static.other_axis,
    ),
    Rule(
        "error",
        "BN017",
        "NaN or infinity in the model",
        "Recalibrate if statistics alone are; else load earlier weights. Find what gave it.",
        "appendix/questions_tf.html",
        _static.no_numbers,
    ),
)


def audit(
    model: Any,
    data: Any = None,
    *,
    batch_size: int = 32,
    rules: Sequence[Rule] = RULES,
) -> Report[Finding]:
    """Look for batch norm faults in a whole model. The model is as it was afterwards.

    Without data, only what is written in the model is looked at. With data the model runs eagerly
    over all of it, a batch at a time: in inference mode, which shows what goes into its layers; and
    with batch norm as in training, for the whole batch and for its halves. What is seen of the
    first batch norm layer is exact; what is seen of a later one depends on the statistics of those
    before it, as they are now: cure, and audit again.

    Args:
        model: a `keras.Model` of any kind, built: Sequential, Functional, nested, or code. Its
            batch norm layers are Keras's, or derived from them, as ours are.
        data: arrays as the model takes them, of any structure, or `(inputs, targets)`; a
            `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, an iterable of batches, or a
            function without arguments that returns one. The targets are not used.
        batch_size: for arrays; take the one of training.
        rules: what to look for; `RULES` is all.

    Returns:
        `bnlib.reports.Report` of findings, one for each rule that found something, and level.

    Raises:
        TypeError: when the model is no Keras model, the data are of no such kind, or a rule is no
            `Rule`.
        ValueError: when the model has no batch norm layer or is not built; when the data are empty
            or endless, or hold NaN or infinity; when a list holds another number of arrays than the
            model has inputs.

    >>> import keras
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(momentum=1)])
    >>> [finding.code for finding in audit(model)]
    ['BN001', 'BN015']
    """
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(
                f"rules must be of bnlib.doctor.audit.Rule; got {type(rule).__name__}. Wrap your "
                "function: Rule(level, code, title, cure, link, check)."
            )
    case = case_of(model)
    if data is not None:
        case.measured = _measuring.measure(case, data, batch_size)
    case.notes[:0] = not_looked_at(case, rules)
    found = [row for rule in rules for row in _findings(rule, case)]
    return Report(f"audit of {model.name!r}", tuple(found), tuple(_notes(case, rules)))


def _findings(rule, case):
    """Yield what one rule found, a row for each level."""
    if rule.needs_data and case.measured is None:
        return
    groups: dict[str, list[Fault]] = {}
    for each in rule.check(case):
        fault = Fault(*each)
        groups.setdefault(fault.level or rule.level, []).append(fault)
    for level, faults in groups.items():
        yield Finding(
            level,
            rule.code,
            rule.title,
            tuple(f.layer for f in faults),
            faults[0].message,
            {f.layer: f.evidence for f in faults},
            rule.cure,
            rule.link,
        )


def _notes(case, rules):
    """Say what was looked at, and what was not."""
    norms = plural("batch norm layer", len(case.norms))
    looked = f"{norms}, {len(rules)} rules"
    waiting = [rule.code for rule in rules if rule.needs_data]
    if case.measured:
        yield f"{looked}, {plural('example', case.measured.examples)}."
    else:
        yield f"{looked}." + (
            f" {', '.join(waiting)} need data, and were left out." if waiting else ""
        )
    yield from case.notes
