"""Checkers for the chapter on axes."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.gradient import batch_norm_backward

__all__ = ["backward", "group", "shares"]

EPSILON = 1e-3


@checker
def shares(answer):
    """Check `answer`: how many values share a mean in (16, 256, 14, 14), channels first, by norm.

    A dict with `batch`, `instance`, `layer` and `group`, for 32 groups; and with `changed`, the
    names of the numbers that half the batch changes.
    """
    n, c, place = 16, 256, 14 * 14
    right = {"batch": n * place, "instance": place}
    right |= {"layer": c * place, "group": c // 32 * place}
    if not isinstance(answer, dict) or set(answer) != {*right, "changed"}:
        raise NotYet(f"Give a dict with the names {', '.join(right)}, changed.")
    if any(value is ... for value in answer.values()):
        raise NotYet("Put an answer where each ... stands.")
    means = {"batch": c, "instance": n * c, "layer": n, "group": n * 32}
    hints = {
        (
            "batch",
            n * c * 14,
        ): "That keeps the last axis; here the channels are second.",
        ("batch", place): "That is one map. The examples are averaged as well.",
        ("instance", n * place): "That is one channel of all examples, batch norm.",
        ("instance", c * place): "That mixes the channels; each has its own mean.",
        ("layer", c): "That is one location. Over the whole example, please.",
        ("layer", place): "That is one map. The channels are averaged as well.",
        ("layer", n * c * place): "That is the whole batch. Each example has its own.",
        ("group", 32 * place): "There are 32 groups; how many channels has each?",
        ("group", n * c // 32 * place): "A group belongs to one example.",
    }
    for norm, expected in right.items():
        found = _count(norm, answer[norm])
        if found == expected:
            continue
        if found == means[norm]:
            raise NotYet(f"{norm}: that is how many means there are.")
        words = "Multiply the sizes of the axes that are averaged."
        raise NotYet(f"{norm}: {hints.get((norm, found), words)}")
    changed = answer["changed"]
    changed = [changed] if isinstance(changed, str) else changed
    if not isinstance(changed, (list, tuple, set)) or not set(changed) <= set(right):
        raise NotYet("changed: give a list of names, such as ['layer', 'group'].")
    for norm in right:
        if norm in changed and norm != "batch":
            raise NotYet(f"changed: is another example behind a mean of {norm} norm?")
    if not changed:
        raise NotYet("changed: one of the four averages over the examples.")
    return "The other three stay within one example."


@checker
def backward(answer):
    """Check `answer(grad_y, x, gamma)`: the gradients of x, gamma and beta, channels last."""
    gamma, worked = np.array([2.0, -1.0, 0.5]), []
    for shape in [(7, 3), (7, 1, 1, 3), (4, 5, 3), (2, 5, 4, 3), (2, 3, 3, 3, 3)]:
        x = _uneven(shape)
        grad_y = np.random.default_rng(1).normal(1, 2, shape)
        mine = _run(answer, shape, grad_y.copy(), x.copy(), gamma.copy())
        if not isinstance(mine, (tuple, list)) or len(mine) != 3:
            raise NotYet("Return 3 arrays: grad_x, grad_gamma, grad_beta.")
        right = batch_norm_backward(grad_y, x, gamma)
        for name, found, expected in zip(
            ("grad_x", "grad_gamma", "grad_beta"), mine, right, strict=True
        ):
            if np.shape(found) != expected.shape:
                raise NotYet(
                    f"For shape {shape}, {name} should have shape {expected.shape}; "
                    f"yours has {np.shape(found)}."
                )
            if close(found, expected):
                continue
            before = f"Right for {' and '.join(map(str, worked))}. " if worked else ""
            sums = f"; {_sums(found, expected)}" if name == "grad_x" else ""
            raise NotYet(f"{before}For shape {shape}, {name} is off{sums}.")
        worked.append(shape)
    return "Dense, 1-D, 2-D and 3-D with the same lines."


@checker
def group(answer):
    """Check `answer(x, gamma, beta, groups)`: group norm, channels last, any rank, epsilon 1e-3."""
    gamma = np.array([2.0, -1.0, 0.5, 1.0, 3.0, -2.0])
    beta = np.array([0.0, 1.0, -4.0, 2.0, 0.5, 3.0])
    for shape in [(5, 6), (4, 5, 6), (3, 5, 2, 6), (2, 3, 2, 5, 6)]:
        for groups in (2, 3, 1, 6):
            x = _uneven(shape)
            returned = _run(answer, shape, x.copy(), gamma.copy(), beta.copy(), groups)
            parts = None if returned is None else (returned,)
            (y,) = arrays(parts, ("y",), shape)
            if not close(y, _grouped(x, groups) * gamma + beta):
                raise NotYet(_what_grouped(y, x, gamma, beta, groups))
    return "Four ranks and four numbers of groups."


def _sums(found, expected):
    """Say what a wrong grad_x sums to in each channel."""
    sums = np.sum(found, axis=tuple(range(expected.ndim - 1)))
    if np.abs(sums).max() < 1e-6 * np.abs(expected).max():
        return "its channels sum to 0, as they must"
    return (
        f"its channels sum to {', '.join(f'{v:.3g}' for v in sums)}, and must sum to 0"
    )


def _what_grouped(y, x, gamma, beta, groups):
    """Say what a wrong group norm does, or for which input it fails."""
    batch = (0, *range(1, x.ndim - 1), x.ndim)
    space = (*range(1, x.ndim - 1), x.ndim)
    known = [
        (_grouped(x, groups), "Gamma and beta are not used, or not per channel."),
        (_grouped(x, groups, batch) * gamma + beta, "A group belongs to one example."),
        (
            _grouped(x, groups, x.ndim) * gamma + beta,
            "That keeps the location. A group is averaged over all places too.",
        ),
        (_grouped(x, groups, space, 0) * gamma + beta, "Nearly: where is epsilon?"),
        (
            _interleaved(x, groups) * gamma + beta,
            "Your groups take every so-many-th channel; neighbours belong together.",
        ),
        (
            _grouped(x, x.shape[-1] // groups) * gamma + beta,
            f"With groups={groups} you make {x.shape[-1] // groups} groups: `groups` is "
            "how many there are, not how many channels each has.",
        ),
        (
            _grouped(x, groups, ddof=1) * gamma + beta,
            "Nearly: the variance divides by the number of values, not by one less.",
        ),
    ]
    for values, words in known:
        if close(y, values):
            return words
    return (
        f"It fails for shape {x.shape} with groups={groups}: which channels make a group, "
        "and which axes are averaged?"
    )


def _grouped(x, groups, axes=None, epsilon=EPSILON, ddof=0):
    split = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim) if axes is None else axes
    mean, variance = (f(axes, keepdims=True) for f in (split.mean, split.var))
    m = split.size // mean.size
    variance = variance * m / max(m - ddof, 1)
    return ((split - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)


def _interleaved(x, groups):
    """Group norm whose groups take every `groups`-th channel."""
    order = np.arange(x.shape[-1]).reshape(-1, groups).T.ravel()
    y = np.empty_like(x)
    y[..., order] = _grouped(x[..., order], groups)
    return y


def _count(norm, value):
    """Read a number, whatever its type: 3136.0 will do."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise NotYet(f"{norm}: give one number; yours is {value!r}.") from None


def _uneven(shape):
    """Draw values whose size grows along every axis: no two averages agree by chance."""
    ramps = zip(np.indices(shape), (1, 2, 3, 5, 7), strict=False)
    growth = 1 + sum(slope * index for index, slope in ramps)
    return 0.01 * growth * np.random.default_rng(0).normal(1, 1, shape)


def _run(answer, shape, *arguments):
    """Call the learner's function, and say for which shape it fails."""
    try:
        return answer(*arguments)
    except Exception as error:
        raise NotYet(
            f"For shape {shape} your code raised {type(error).__name__}: {error}"
        ) from error
