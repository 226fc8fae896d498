"""An adapter for the operator of ONNX."""

import numpy as np

from bnlib.conformance._adapter import Adapter, Setting

OPSET = 15


class Onnx(Adapter):
    """ONNX's BatchNormalization, opset 15: the statistics go in and come out.

    Args:
        setting: what a check asks for.
        runtime: "reference" for the evaluator of the package onnx, or "onnxruntime".
    """

    def __init__(self, setting: Setting, runtime: str = "reference") -> None:
        if runtime not in ("reference", "onnxruntime"):
            raise ValueError(
                f"runtime must be 'reference' or 'onnxruntime'; got {runtime!r}."
            )
        if setting.axis % setting.ndim != 1:
            raise NotImplementedError("channels last is not ONNX's layout")
        self.setting, self.runtime = setting, runtime
        self.wide = "float64" if setting.dtype == "float64" else "float32"
        self.vectors = [v.astype(self.wide) for v in setting.vectors()]
        self.set_state(np.zeros(setting.channels), np.ones(setting.channels))
        self.runs = {}

    def _run(self, x, training):
        """Run the operator in one mode; its model is made when first needed."""
        if training not in self.runs:
            self.runs[training] = _runner(
                self.setting, self.wide, self.runtime, training
            )
        return self.runs[training](x, *self.vectors, *self.moving)

    def forward(self, x, training):
        """Run the operator, and keep the statistics that come out."""
        y, *new = self._run(x, training)
        if training:
            self.moving = new
        return y

    def state(self):
        """Return the statistics."""
        return tuple(np.array(value) for value in self.moving)

    def set_state(self, moving_mean, moving_variance):
        """Replace the statistics."""
        self.moving = [v.astype(self.wide) for v in (moving_mean, moving_variance)]


def _runner(setting, wide, runtime, training):
    """Return a function of x, gamma, beta, mean and variance."""
    from onnx import helper

    kinds = _kind(wide), _kind(setting.dtype)
    names = ["x", "gamma", "beta", "mean", "variance"]
    outputs = ["y", "new_mean", "new_variance"][: 3 if training else 1]
    options = {"epsilon": setting.epsilon, "momentum": setting.momentum}
    node = helper.make_node(
        "BatchNormalization", names, outputs, training_mode=int(training), **options
    )

    def declared(names):
        return [
            helper.make_tensor_value_info(
                name,
                kinds[name in "xy"],
                [None] * setting.ndim if name in "xy" else [setting.channels],
            )
            for name in names
        ]

    graph = helper.make_graph([node], "batch_norm", declared(names), declared(outputs))
    version = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[version], ir_version=8)
    run = _reference(model) if runtime == "reference" else _onnxruntime(model)
    return lambda *arrays: run(dict(zip(names, arrays, strict=True)))


def _kind(dtype):
    from onnx import TensorProto

    return TensorProto.DataType.Value(
        {"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper())
    )


def _reference(model):
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(model)
    return lambda feed: session.run(None, feed)


def _onnxruntime(model):
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(model.SerializeToString())
    except Exception as error:  # it has no kernel for these dtypes
        raise NotImplementedError(str(error)[:80]) from error
    return lambda feed: session.run(None, feed)
