"""tf.contrib.layers.batch_norm: decay, no gamma unless asked for, Bessel's factor by default."""

from collections.abc import Collection, Mapping
from typing import Any

from bnlib.conventions._names import (
    copies,
    known_momentum,
    one_layer,
    read,
    refuse_losses,
)
from bnlib.conventions._params import BNParams

__all__ = ["from_contrib", "to_contrib"]

AXES = {"NHWC": -1, "NCHW": 1}
ARRAYS = ("gamma", "beta", "moving_mean", "moving_variance")
BESIDE = (
    "kernel",
    "bias",
    "weights",
    "biases",
    "depthwise_weights",
    "pointwise_weights",
)
IN_A_CHECKPOINT = "/.ATTRIBUTES/VARIABLE_VALUE"  # what TensorFlow 2 appends to the name


def from_contrib(values: Mapping[str, Any], *, scope: str | None = None) -> BNParams:
    """Read a layer of tf.contrib.layers; for one of tf.layers see `from_keras(version=2)`.

    Args:
        values: the checkpoint's `moving_mean`, `moving_variance` and, where they exist, `beta` and
            `gamma`; the call's `decay` and `epsilon`, which no checkpoint holds; and, if they were
            given, its `data_format` ("NHWC") and `fused` (None, which fuses). The names of
            variables may be TensorFlow's, such as "block1/bn/gamma:0".
        scope: which layer to read, such as "block1/bn", if the values are those of several. The
            scope that all names share is found without it.

    Returns:
        `BNParams`; bessel is True unless `fused` is False.

    Raises:
        ValueError: when a name is missing or unknown, such as those of `zero_debias_moving_mean`,
            or the data format is; when there are several scopes, and none or a wrong one is chosen.

    >>> values = {"beta": [1.0], "moving_mean": [0.0], "moving_variance": [1.0]}
    >>> from_contrib(values | {"decay": 0.999, "epsilon": 1e-3}).gamma is None
    True
    """
    required = ("moving_mean", "moving_variance", "decay", "epsilon")
    optional = ("gamma", "beta", "data_format", "fused")
    if hasattr(values, "items"):
        values = _variables(values)
    values = one_layer("tf.contrib", values, ARRAYS, "moving_mean", "/", "scope", scope)
    v = read("tf.contrib", values, required, optional)
    data_format = v["data_format"] or "NHWC"
    if data_format not in AXES:
        raise ValueError(
            f"data_format must be NHWC or NCHW; got {data_format!r}. For other ranks say where the "
            "channels are: last is NHWC, second is NCHW."
        )
    return BNParams(
        v["moving_mean"],
        v["moving_variance"],
        v["gamma"],
        v["beta"],
        epsilon=v["epsilon"],
        momentum=v["decay"],
        axis=AXES[data_format],
        bessel=v["fused"] is not False,
    )


def to_contrib(params: BNParams, *, lose: Collection[str] = ()) -> dict[str, Any]:
    """Write the numbers of a layer of tf.contrib.layers.

    Args:
        params: `BNParams`.
        lose: what may be lost: "axis", if it is neither -1 nor 1.

    Returns:
        A dict of the checkpoint's arrays and of the call's `decay`, `epsilon`, `data_format` and
        `fused`, which decides about Bessel's factor.

    Raises:
        ValueError: when the axis cannot be held and is not in `lose`; when momentum is None.

    >>> params = BNParams([0.0], [1.0], epsilon=1e-5, momentum=0.9, axis=1)
    >>> [to_contrib(params)[name] for name in ("decay", "data_format", "fused")]
    [0.9, 'NCHW', False]
    """
    if params.axis != 1:
        refuse_losses(params, "tf.contrib", lose, axis=-1)
    arrays = copies(
        gamma=params.gamma,
        beta=params.beta,
        moving_mean=params.moving_mean,
        moving_variance=params.moving_variance,
    )
    return arrays | {
        "decay": known_momentum(params, "tf.contrib"),
        "epsilon": params.epsilon,
        "data_format": "NCHW" if params.axis == 1 else "NHWC",
        "fused": params.bessel,
    }


def _variables(values):
    """Return the values by the names of their variables, without those of the layer before.

    A name is left without ":0", and without what a checkpoint appends to it.
    """
    named = {
        str(n).removesuffix(IN_A_CHECKPOINT).split(":")[0]: v for n, v in values.items()
    }
    debiased = [n for n in named if n.endswith(("moving_mean/biased", "/local_step"))]
    if debiased:
        raise ValueError(
            f"tf.contrib values must be without zero_debias_moving_mean; unknown: {debiased}. It "
            "keeps an average of its own. For inference alone leave these names out."
        )
    return {
        name: value
        for name, value in named.items()
        if not ("/" in name and name.rsplit("/", 1)[1] in BESIDE)
    }
