"""The rules that need data: each is a function of a `Case` that yields `Fault`s."""

import numpy as np

from bnlib.doctor._layers import statistics
from bnlib.doctor._measuring import FITS
from bnlib.doctor._rules import Fault

# what is further off than this, see FITS, is an error
WRONG = 0.5, 1.6
# a gap of so many deviations: the outputs by the moving statistics hardly have one
BLIND = 100


def unfit_statistics(case):
    """BN002: moving statistics that are not those of the inputs."""
    found = []
    for path, layer in case.norms:
        seen = case.measured.of(layer)
        if not seen.known or case.at_start(layer):
            continue
        lack = _lacks_bessel(case, layer)
        if lack and not _unshuffled(case, lack[1]):
            continue  # BN004 says it
        far, factor = seen.misfit(layer)
        if np.isfinite(far + factor) and not case.measured.fits(layer):
            size = max(far / WRONG[0], np.log(factor) / np.log(WRONG[1]))
            found.append((size, path, layer))
    for size, path, layer in sorted(found, key=lambda f: -f[0]):
        far, factor = case.measured.of(layer).misfit(layer)
        given = " This is given the statistics of the layers before it, as they are."
        yield Fault(
            path,
            f"the moving mean is {far:.2f} deviations from the mean of the inputs, the moving "
            f"variance off by a factor of {factor:.2f}.{_left(case, layer)}"
            f"{'' if layer is case.norms[0].layer else given}",
            {"deviations": far, "factor": factor, "steps": case.steps},
            "error" if size > 1 else "warning",
        )


def _left(case, layer):
    """Say what share of the initial 0 and 1 is left, where that is known."""
    if not case.steps or layer.momentum is None or getattr(layer, "zero_debias", False):
        return ""
    left = float(layer.momentum) ** case.steps
    if left > 0.01:
        return (
            f" If they began at 0 and 1 in this training, {left:.0%} of that is left: "
            f"{layer.momentum:g}^{case.steps}."
        )
    return (
        f" It is not the start, {layer.momentum:g}^{case.steps} is below 1 %: weights or data have "
        "changed since."
    )


def gap(case):
    """BN003: other outputs by the statistics of the batch than by the moving ones."""
    if any(case.at_start(place.layer) for place in case.norms):
        case.notes.append("BN003 was left out: what BN001 names would explain a gap.")
        return
    apart, chance = case.measured.gap.largest()
    fault = np.sqrt(max(apart**2 - chance**2, 0))
    size = case.measured.sizes[0]
    of_it = f"In batches of {size} outputs by the batch and by the moving statistics differ by"
    limit = 0.5 * max(1, chance)
    if fault > limit:
        how = f"{of_it} {apart:.2f} of their deviation; chance makes {chance:.2f}"
        if apart > BLIND:
            how = f"In batches of {size} outputs vary by the batch, and hardly by the moving ones"
        yield Fault(
            case.model.name,
            f"{how}{_other_classes(case.measured.gap)}.",
            {"gap": apart, "chance": chance, "batch": size},
        )
    elif apart > 0.5:
        case.notes.append(
            f"{of_it} {apart:.2f} of their deviation. Chance makes {chance:.2f}, as halves of the "
            f"batches show; the rest, {fault:.2f}, is below the limit of {limit:.2f}."
        )


def _other_classes(gap):
    if not gap.rows:
        return ""
    return f", and {gap.other_class / gap.rows:.0%} of the largest outputs are others"


def small_batches(case):
    """BN004: moving variances that are too small by what a small batch lacks."""
    for path, layer in case.norms:
        lack = _lacks_bessel(case, layer)
        if not lack:
            continue
        moving, within = lack
        if _unshuffled(case, within):
            case.notes.append(
                f"BN004 was left out for {path!r}: within a batch of {case.measured.sizes[0]} the "
                f"variance is {within:.2g} of that of all data, which is too little for chance. "
                "The batches are not shuffled."
            )
        else:
            yield Fault(
                path,
                f"the moving variance is {moving:.2f} of that of the inputs; within a batch of "
                f"{case.measured.sizes[0]} the variance is {within:.2f} of it, as (N-1)/N with "
                f"N = {1 / (1 - within):.1f}.",
                {"moving": moving, "within": within, "batch": case.measured.sizes[0]},
            )


def _lacks_bessel(case, layer):
    """Return (moving, within) as shares of the variance of the inputs, if both lack the same."""
    seen = case.measured.of(layer)
    if not seen.known or case.at_start(layer) or case.measured.batches < 2:
        return None
    if seen.calls > 1:  # each with inputs of its own, which no batch mixes
        return None
    _, variance = statistics(layer)
    there = seen.variance > 1e-3 * layer.epsilon
    if not there.any() or seen.misfit(layer)[0] > FITS[0]:
        return None
    moving = float(np.median(variance[there] / seen.variance[there]))
    within = float(np.median(seen.within[there] / seen.variance[there]))
    # below the first layer it comes twice: the layer before lacks it too, and scales up its outputs
    least = within if layer is case.norms[0].layer else within**2
    alike = least * within**0.5 < moving < within**0.5
    return (moving, within) if within < 0.95 and alike else None


def _unshuffled(case, within):
    """Whether a batch lacks far more variance than one of so many random examples does."""
    return within < 1 - 2 / case.measured.sizes[0]


def batch_of_one(case):
    """BN005: a last batch, or all batches, of one example."""
    first, last = case.measured.sizes[0], case.measured.sizes[-1]
    if last > 1:
        return
    which = (
        f"the last of {case.measured.batches} batches" if first > 1 else "each batch"
    )
    for path, layer in case.norms:
        values = int(case.measured.of(layer).values)
        if not layer.trainable or not values:
            continue
        says = "it gives beta whatever the input, and a variance of 0 enters the moving variance"
        if values > 1:
            says = (
                f"its statistics are those of one example, {values} values per channel"
            )
        yield Fault(
            path,
            f"{which} has one example: in training {says}.",
            {"batch": first, "last": last, "values": values},
            "warning" if values == 1 else "info",
        )
