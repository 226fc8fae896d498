"""The habits of the frameworks, as data: one record each."""

from typing import NamedTuple

__all__ = ["CONVENTIONS", "Convention"]


class Convention(NamedTuple):
    """How one framework does batch norm when it is told nothing.

    Attributes:
        framework: its name, and what tells it apart from its relatives.
        version: the version looked at.
        epsilon: default guard inside the root.
        momentum: default, as the framework writes it; None where there is none.
        weight_of: "old" or "new": which of the two values the momentum is the weight of.
        bessel: whether training feeds the moving variance with m / (m - 1).
        first_batch: "blended" into the initial 0 and 1; "debiased", so that the start leaves no
            trace; or "replaces" it.
        axis: default axis of the channels.
        parameters: where gamma and beta live.
        evidence: "tested" at every run of bnlib's tests, "run" by us once, or "read" in its source
            or documentation.
    """

    framework: str
    version: str
    epsilon: float
    momentum: float | None
    weight_of: str
    bessel: bool
    first_batch: str
    axis: int
    parameters: str
    evidence: str

    @property
    def keep(self) -> float | None:
        """The momentum in Keras's sense, the weight of the old value; None where there is none."""
        if self.momentum is None or self.weight_of == "old":
            return self.momentum
        return round(1 - self.momentum, 15)


# name | version | epsilon | momentum | of | variance | first batch | axis | gamma, beta | evidence
_ROWS = """
Keras 3 | 3.15 | 1e-3 | 0.99 | old | biased | blended | -1 | in the layer | tested
Keras 2, fused (4-D, 5-D) | 2.21 | 1e-3 | 0.99 | old | Bessel | blended | -1 | in the layer | run
Keras 2, otherwise | 2.21 | 1e-3 | 0.99 | old | biased | blended | -1 | in the layer | run
tf.layers, fused (4-D) | 1.x | 1e-3 | 0.99 | old | Bessel | blended | -1 | in the layer | read
tf.contrib.layers | tf_slim | 1e-3 | 0.999 | old | Bessel | blended | -1 | gamma if asked | run
slim, the same | tf_slim | 1e-3 | 0.999 | old | Bessel | blended | -1 | gamma if asked | run
tflearn | not noted | 1e-5 | 0.9 | old | biased | blended | -1 | gamma starts near 1 | read
PyTorch | 2.13 | 1e-5 | 0.1 | new | Bessel | blended | 1 | in the layer: weight, bias | tested
ONNX | opset 15 | 1e-5 | 0.9 | old | biased | blended | 1 | inputs of the node | tested
Caffe | not noted | 1e-5 | 0.999 | old | Bessel | debiased | 1 | in a Scale layer after it | read
Darknet, CPU | not noted | 1e-6 | 0.99 | old | Bessel | blended | 1 | scales, biases | read
Caffe2 | not noted | 1e-5 | 0.9 | old | biased | blended | 1 | inputs of the operator | read
Flax | 0.12 | 1e-5 | 0.99 | old | biased | blended | -1 | in params: scale, bias | run
Haiku | 0.0.17 | 1e-5 | - | old | biased | debiased | -1 | in params: scale, offset | run
Equinox | 0.13 | 1e-5 | 0.99 | old | biased | replaces | 0 | in the layer: weight, bias | run
Sonnet 2 | 2.0 | 1e-5 | 0.999 | old | Bessel | debiased | -1 | in the layer: scale, offset | run
MXNet, nd.BatchNorm | 1.9 | 1e-3 | 0.9 | old | biased | blended | 1 | inputs; gamma fixed at 1 | run
MXNet, gluon | 1.9 | 1e-5 | 0.9 | old | biased | blended | 1 | in the layer | run
Paddle | 3.3 | 1e-5 | 0.9 | old | biased | blended | 1 | in the layer: weight, bias | run
MindSpore | 2.10 | 1e-5 | 0.9 | old | Bessel | blended | 1 | in the layer: gamma, beta | run
MLX | 0.32 | 1e-5 | 0.1 | new | Bessel | blended | -1 | in the layer: weight, bias | run
Chainer | 7.8 | 2e-5 | 0.9 | old | Bessel | blended | 1 | in the link | run
Flux.jl | not noted | 1e-5 | 0.1 | new | Bessel | blended | -2 | in the layer | read
"""


def _record(line):
    """Read one line of the table."""
    name, version, epsilon, momentum, old_or_new, variance, *rest = line.split(" | ")
    first_batch, axis, parameters, evidence = rest
    return Convention(
        name,
        version,
        float(epsilon),
        None if momentum == "-" else float(momentum),
        old_or_new,
        variance == "Bessel",
        first_batch,
        int(axis),
        parameters,
        evidence,
    )


CONVENTIONS = tuple(_record(line) for line in _ROWS.strip().splitlines())
