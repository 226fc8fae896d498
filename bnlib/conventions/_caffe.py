"""Caffe: BatchNorm keeps sums and the weight that they are divided by, Scale has gamma and beta."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bnlib.conventions._names import copies, filled, read, refuse_losses
from bnlib.conventions._params import BNParams

__all__ = ["from_caffe", "to_caffe"]

EPS, FRACTION = 1e-5, 0.999  # Caffe's defaults: a prototxt leaves them out


def from_caffe(values: Mapping[str, Any]) -> BNParams:
    """Read Caffe's BatchNorm layer and the Scale layer after it.

        mean = blob 0 / factor        variance = blob 1 / factor        0 and 0 if factor is 0

    A BatchNorm without Scale, as in Caffe's cifar10 example, has no gamma and no beta.

    Args:
        values: `BatchNorm`, its three blobs; `Scale`, where there is one, its blobs: gamma and,
            with `bias_term`, beta; `eps` and `moving_average_fraction`, where the prototxt has
            them.

    Returns:
        `BNParams` with axis 1 and Bessel's factor. A fraction of 1 is the plain average: momentum
        None, and the factor counts the batches. Otherwise what the factor says about how young the
        average is gets lost.

    Raises:
        ValueError: when a blob is missing or a name unknown, or a value is out of range.

    >>> from_caffe({"BatchNorm": [[20.0], [40.0], [10.0]]}).moving_mean
    array([2.])
    """
    settings = ("eps", "moving_average_fraction")
    v = read("Caffe", values, ("BatchNorm",), ("Scale", *settings))
    mean, variance, factor = _blobs("BatchNorm", v["BatchNorm"], (3,))
    affine = [None, None] if v["Scale"] is None else _blobs("Scale", v["Scale"], (1, 2))
    factor = factor.reshape(-1)[0]
    share = 0 if factor == 0 else 1 / factor.astype(float)
    fraction = v["moving_average_fraction"]
    fraction = FRACTION if fraction is None else fraction
    return BNParams(
        (mean * share).astype(mean.dtype),
        (variance * share).astype(variance.dtype),
        *affine,
        epsilon=EPS if v["eps"] is None else v["eps"],
        momentum=None if fraction == 1 else fraction,
        axis=1,
        bessel=True,
        updates=round(float(factor)) if fraction == 1 else 0,
    )


def to_caffe(params: BNParams, *, lose: Collection[str] = ()) -> dict[str, Any]:
    """Write the blobs of Caffe's BatchNorm and Scale layers.

    The factor is 1 / (1 - momentum), at which Caffe's next update is that of an exponential
    average. With the factor 1 the next batch would count for about a half.

    Args:
        params: `BNParams`.
        lose: what may be lost: "axis" (Caffe's is 1), and "gamma", if there is a beta without it;
            and without a warning "bessel" (always True).

    Returns:
        A dict of `BatchNorm`, `eps`, `moving_average_fraction` and, with gamma, `Scale`.

    Raises:
        ValueError: when Caffe cannot hold a setting and it is not in `lose`; when momentum is 1, or
            None before the first batch.

    >>> params = BNParams([2.0], [4.0], epsilon=1e-5, momentum=0.9, axis=1, bessel=True)
    >>> to_caffe(params)["BatchNorm"]
    [array([20.]), array([40.]), array([10.])]
    """
    refuse_losses(params, "Caffe", lose, axis=1, bessel=True)
    factor = _factor(params)
    sums = params.moving_mean * factor, params.moving_variance * factor
    dtype = params.moving_mean.dtype
    written = {
        "BatchNorm": [np.asarray(blob, dtype) for blob in (*sums, [factor])],
        "eps": params.epsilon,
        "moving_average_fraction": 1.0 if params.momentum is None else params.momentum,
    }
    if params.gamma is None and params.beta is None:
        return written
    gamma = filled(params, "gamma", 1, "Caffe's Scale layer", lose)
    return written | {"Scale": list(copies(gamma=gamma, beta=params.beta).values())}


def _factor(params):
    """Return the weight that Caffe's sums are divided by."""
    if params.momentum == 1 or (params.momentum is None and params.updates < 1):
        raise ValueError(
            "Caffe needs a momentum below 1, or None after at least one batch; got "
            f"momentum={params.momentum}, updates={params.updates}. Choose one: "
            "dataclasses.replace(params, momentum=0.999)."
        )
    if params.momentum is None:
        return float(params.updates)
    return round(1 / round(1 - params.momentum, 15), 9)  # 1 / (1 - 0.9) is to be 10


def _blobs(layer, blobs, lengths):
    """Return a layer's blobs as flat arrays: old files store them as (1, C, 1, 1)."""
    blobs = [np.asarray(blob).reshape(-1) for blob in blobs]
    if len(blobs) not in lengths:
        raise ValueError(
            f"{layer} must have {' or '.join(map(str, lengths))} blobs; got {len(blobs)}. "
            "BatchNorm has mean, variance and factor; Scale has gamma and perhaps beta. Forks of "
            "Caffe with other blobs are not read."
        )
    return blobs
