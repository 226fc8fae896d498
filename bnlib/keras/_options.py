"""The layer's arguments are checked here, when it is made."""

from numbers import Integral

import keras
import tensorflow as tf

from bnlib._checks import as_momentum


def as_average(momentum):
    """Return `momentum` as a float, or None, the plain average."""
    return None if momentum is None else as_momentum(momentum)


def as_axis(axis):
    """Return `axis` as an integer, or a list of integers, each once."""
    named = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    whole = all(isinstance(a, Integral) and not isinstance(a, bool) for a in named)
    if not named or not whole or len(set(named)) < len(named):
        raise ValueError(
            f"axis must be an integer, or a list of different ones; got {axis!r}. "
            "Use -1 for channels last, 1 for channels first."
        )
    return [int(a) for a in named] if isinstance(axis, (list, tuple)) else int(axis)


def within(axis, ndim):
    """Return `axis` as a tuple of axes of an array with `ndim` dimensions, none negative."""
    named = axis if isinstance(axis, list) else [axis]
    for a in named:
        if not -ndim <= a < ndim:
            raise ValueError(
                f"axis must lie in [{-ndim}, {ndim - 1}] for inputs with {ndim} dimensions; "
                f"got {a}. Use -1 for channels last, 1 for channels first."
            )
    return tuple(sorted(a % ndim for a in named))


def as_renorm_clipping(clipping):
    """Return the limits of renorm as a dict; each is a number, or a function of the step."""
    clipping = dict(clipping or {})
    unknown = sorted(set(clipping) - {"rmin", "rmax", "dmax"})
    if unknown:
        raise ValueError(
            f"Received invalid keys for renorm_clipping: {unknown}. "
            'Use rmin, rmax and dmax, as in {"rmax": 3.0, "dmax": 5.0}.'
        )
    limits = {name: _limit(limit) for name, limit in clipping.items()}
    for name, value in limits.items():
        if value is not None and not callable(value) and not value >= 0:
            raise ValueError(
                f"{name} should be non-negative in renorm_clipping; got {value}."
            )
    rmin, rmax = (limits.get(name) for name in ("rmin", "rmax"))
    if isinstance(rmin, float) and isinstance(rmax, float) and rmax < rmin:
        raise ValueError(
            "rmax should be greater than rmin, or equal, in renorm_clipping; "
            f"got rmax={rmax}, rmin={rmin}."
        )
    return limits


def _limit(value):
    return value if value is None or callable(value) else float(value)


def check(layer):
    """Refuse settings that contradict each other, or that are out of range."""
    if layer.momentum is None and layer.zero_debias:
        raise ValueError(
            "zero_debias needs a momentum; got momentum=None, the plain average of all batches, "
            "which has no bias to take out. Leave zero_debias out."
        )
    if layer.fused not in (None, True, False):
        raise ValueError(f"fused must be None, True or False; got {layer.fused!r}.")
    size = layer.virtual_batch_size
    if size is None:
        return
    if not isinstance(size, Integral) or size < 1:
        raise ValueError(
            f"virtual_batch_size must be a positive integer; got {size!r}."
        )
    for name in ("renorm", "synchronized", "fused"):
        if getattr(layer, name):
            raise ValueError(
                f"virtual_batch_size cannot be combined with {name}: it makes batches smaller "
                "than the replica's. Leave one of them out."
            )


def check_groups(layer, x):
    """Return x, a batch of whole groups; where its size is not known yet it is looked at later.

    Raises:
        ValueError: where the size is known, `tf.errors.InvalidArgumentError` where it was not.
    """
    size, examples = layer.virtual_batch_size, x.shape[0]
    asked = (
        f"virtual_batch_size must divide the number of examples in a batch; got {size}"
    )
    remedy = (
        f"Use a multiple of {size} in each batch: choose batch_size so, and leave out the rest, "
        "as tf.data's batch(batch_size, drop_remainder=True) does."
    )
    if examples is not None:
        if examples % size:
            raise ValueError(f"{asked} for {examples} examples. {remedy}")
        return x
    rest = tf.shape(x)[0] % size
    whole = tf.debugging.assert_equal(
        rest, 0, f"{asked} for a batch with a rest. {remedy}"
    )
    with tf.control_dependencies([whole]):
        return tf.identity(x)


def counts(layer):
    """Whether anything depends on the number of batches seen."""
    scheduled = layer.renorm and any(map(callable, layer.renorm_clipping.values()))
    return bool(layer.momentum is None or layer.zero_debias or scheduled)


NEW = ("fused", "virtual_batch_size", "zero_debias", "bessel")


def config_of(layer):
    """Return those arguments that Keras's `get_config` does not know, or not in this form."""
    serialize = keras.saving.serialize_keras_object
    clipping = {name: serialize(v) for name, v in layer.renorm_clipping.items()}
    adjustment = layer.adjustment and serialize(layer.adjustment)
    others = {"renorm_clipping": clipping, "adjustment": adjustment}
    return {name: getattr(layer, name) for name in NEW} | others


def from_config(config):
    """Return the arguments that `config_of` described."""
    revive = keras.saving.deserialize_keras_object
    clipping = config.get("renorm_clipping") or {}
    revived = {n: revive(v) if isinstance(v, dict) else v for n, v in clipping.items()}
    adjustment = config.get("adjustment")
    return config | {
        "renorm_clipping": revived,
        "adjustment": adjustment and revive(adjustment),
    }
