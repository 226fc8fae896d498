"""Checkers for the chapter on the other norms."""

import numpy as np

from bnlib.book.exercises import NotYet, arrays, checker, close
from bnlib.variants import group_norm, weight_norm_backward

__all__ = ["blind", "direction", "groups"]


@checker
def groups(answer):
    """Check `answer(x, groups)`: group norm without gamma and beta, channels last."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, [1, 2, 3, 5, 1, 2], (3, 4, 5, 6)) + rng.normal(size=(3, 1, 1, 6))
    for number in (1, 2, 3, 6):
        (y,) = arrays([answer(x.copy(), number)], ["y"], x.shape)
        right = group_norm(x, number)
        if close(y, right, 1e-4):
            continue
        if number > 1 and close(y, _mixed(x, number), 1e-4):
            raise NotYet(
                f"One group is right. With {number} the values of an image that are averaged "
                "together are not those of one group."
            )
        if close(y, _strided(x, number), 1e-4):
            raise NotYet(
                f"With {number} groups: the channels of yours lie apart. A group holds "
                "neighbouring channels."
            )
        for axes, words in AVERAGED.items():
            if close(y, _over(x, number, axes), 1e-4):
                raise NotYet(f"With {number} groups: yours average over {words}.")
        raise NotYet(f"With {number} groups the values differ from the library's.")
    return "One group is layer norm, a group for each channel is instance norm."


AVERAGED = {  # axes of (N, H, W, groups, channels of a group)
    (1, 2): "the places, not over the channels of a group",
    (4,): "the channels alone, so that each place has statistics of its own",
    (1, 2, 3, 4): "all channels, whatever the number of groups",
    (0, 1, 2, 4): "the examples too",
}


def _over(x, number, axes):
    """Normalise over some of the axes of the channels cut in groups."""
    cut = x.reshape(*x.shape[:-1], number, -1)
    mean, variance = (f(axis=axes, keepdims=True) for f in (cut.mean, cut.var))
    return ((cut - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)


def _mixed(x, number):
    """Cut an image in groups as if its channels came first."""
    cut = x.reshape(len(x), number, -1)
    mean, variance = (f(axis=-1, keepdims=True) for f in (cut.mean, cut.var))
    return ((cut - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)


def _strided(x, number):
    """Put every so many-th channel in a group."""
    order = np.arange(x.shape[-1]).reshape(-1, number).T.ravel()
    return group_norm(x[..., order], number)[..., np.argsort(order)]


@checker
def direction(answer):
    """Check `answer(grad_kernel, v, g)`: the gradients of v and g in weight norm."""
    rng = np.random.default_rng(1)
    grad, v, g = rng.normal(size=(7, 3)), rng.normal(size=(7, 3)), rng.uniform(1, 2, 3)
    returned = answer(grad.copy(), v.copy(), g.copy())
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise NotYet("Return two arrays: grad_v, grad_g.")
    (grad_v,) = arrays(returned[:1], ["grad_v"], v.shape)
    (grad_g,) = arrays(returned[1:], ["grad_g"], g.shape)
    right_v, right_g = weight_norm_backward(grad, v, g)
    length = np.sqrt((v**2).sum(axis=0))
    if close(grad_g, g):
        raise NotYet("grad_g is g itself so far.")
    if close(grad_g, right_g * length):
        raise NotYet("grad_g: g multiplies v / |v|, not v.")
    if not close(grad_g, right_g):
        raise NotYet(
            "grad_g: a small change of g scales its column of the kernel. By how much does the "
            "loss change?"
        )
    if close(grad_v, g / length * grad):
        raise NotYet("grad_g is right. grad_v: the length depends on v too.")
    if not close(grad_v, right_v):
        along = np.abs((grad_v * v).sum(axis=0)).max()
        if along < 1e-6 * np.abs(grad_v * v).max():
            raise NotYet(
                "grad_g is right, and grad_v is at right angles to v, as it must be. Its length "
                "is not: what did g / |v| do to the gradient?"
            )
        raise NotYet(
            "grad_g is right. grad_v must be at right angles to v; its product with v is "
            f"{along:.2g}."
        )
    return "grad_v is at right angles to v: a step turns v, and makes it longer."


BLIND = {
    "batch": {"all images brighter"},
    "layer": {"image 0 brighter", "all images brighter", "other images replaced"},
    "instance": {
        "image 0 brighter",
        "all images brighter",
        "other images replaced",
        "channel 0 of image 0 brighter",
    },
}

SHARED = {
    "batch": "the same channel of all images",
    "layer": "nothing but itself, all channels",
    "instance": "nothing but itself, channel by channel",
}


@checker
def blind(answer):
    """Check `answer`: for each norm the changes that leave the output for image 0 as it was."""
    if not isinstance(answer, dict) or set(answer) != set(BLIND):
        raise NotYet(f"Give a dict with the keys {', '.join(BLIND)}.")
    for norm, changes in BLIND.items():
        mine = _names(norm, answer[norm])
        if mine - changes:
            raise NotYet(
                f"{norm}: it notices one of yours. Image 0 shares its mean with {SHARED[norm]}; "
                "did all of these move by the same amount?"
            )
        if missing := changes - mine:
            raise NotYet(
                f"{norm}: it is blind to {len(missing)} more. Image 0 shares its mean with "
                f"{SHARED[norm]}. What moves these as one, or leaves them alone?"
            )
    return "What a norm averages over, it cannot see move as one."


def _names(norm, given):
    """Read what was given as a set of changes, all of them known."""
    known = BLIND["instance"]  # it misses them all
    if not isinstance(given, (set, list, tuple)):
        raise NotYet(f"{norm}: give a set of names; got {given!r}.")
    for name in given:
        if name not in sorted(known):
            raise NotYet(f"{norm}: {name!r} is none of the changes of the cell.")
    return set(given)
