"""The part of a user's program that needs a framework; see user_script.py for the core.

Only its types are checked, for neither TensorFlow nor Keras tells its own: what is theirs is Any.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import bnlib
from bnlib import conformance, conventions, doctor, replicas, tf_ops
from bnlib.conformance import Adapter, Checked, Setting, adapters, check_batch_norm
from bnlib.keras import BatchNormalization, swap_in, swap_out, synchronize


def on_tensors(x: Any) -> Any:
    mean, variance, _ = tf_ops.merge_moments([tf_ops.moments(x, axis=-1, weights=None)])
    tf_ops.sync_moments(tf_ops.moments(x))
    y = tf_ops.scale_and_shift(tf_ops.normalize(x, mean, variance), gamma=mean)
    tf_ops.fused_batch_norm(y, epsilon=1e-5)
    y, mean, variance = tf_ops.batch_norm(x, axis=1)
    return tf_ops.batch_norm_inference(y, mean, variance, epsilon=0)


def on_models(model: Any, optimizer: Any, loss: Any) -> None:
    BatchNormalization(momentum=0.9, bessel=True)
    swap_out(swap_in(model, in_place=True), verify=False)
    synchronize(model, verify=False)
    folded, report = doctor.fold(model, np.ones((2, 3)), verify=True)
    rows: tuple[doctor.Folded, ...] = report.rows
    print(folded, rows[0].into, rows[0].difference)
    strategy = replicas.mirrored(2)
    step = replicas.train_step(strategy, model, optimizer, loss)
    step(replicas.per_replica(strategy, [[1.0], [2.0]]), None)
    print(replicas.join_workers(timeout=1.5))


def large_epsilon(case: doctor.Case) -> Iterator[doctor.Fault]:
    for path, layer in case.norms:
        if layer.epsilon > 0.1 and not case.at_start(layer) and case.calls_of(layer):
            yield doctor.Fault(path, "large", {"epsilon": layer.epsilon})


def audited(model: Any, data: Any) -> list[str]:
    mine = doctor.Rule("info", "MY001", "large", "Less.", "index.html", large_epsilon)
    report = doctor.audit(model, data, batch_size=64, rules=[*doctor.RULES, mine])
    finding: doctor.Finding = report.rows[0]
    print(report.worst, finding.where, finding.message, finding.evidence)
    return [each.code for each in report.at_least("warning")]


def at_the_doctor(model: Any, data: Any) -> None:
    report = doctor.recalibrate(model, data, method="fast", layers=["bn"])
    row: doctor.Recalibrated = report.rows[0]
    print(report.worst, row.path, row.mean_moved)
    callback = doctor.Recalibrate(data, every=5, layers="all")
    print([each.title for each in callback.reports])


def between_frameworks(module: Any, values: dict[str, Any]) -> bnlib.BatchNorm:
    params: conventions.BNParams = conventions.from_torch(module, prefix="bn1")
    params = conventions.from_keras(conventions.to_keras(params, lose=["bessel"]))
    for from_there, to_there in (
        (conventions.from_caffe, conventions.to_caffe),
        (conventions.from_contrib, conventions.to_contrib),
        (conventions.from_flax, conventions.to_flax),
        (conventions.from_mxnet, conventions.to_mxnet),
    ):
        params = from_there(to_there(params))
    params = conventions.from_onnx(conventions.to_onnx(params, opset=15), opset=15)
    values = conventions.to_torch(params, lose={"bessel"})
    row: conventions.Convention = conventions.CONVENTIONS[0]
    wrong: list[str] = conventions.compare({"bn1": params}, {"bn1": params})
    wrong += conventions.explain(params, np.ones((3, 2)), np.ones((3, 2)), rtol=1e-4)
    print(wrong, values, params.inference(np.ones((3, 2))), row.keep)
    print(conventions.variance_factor(32, source=True, target=False))
    return params.layer()


class Mine(Adapter):
    def forward(self, x: Any, training: bool) -> Any:
        return bnlib.batch_norm(x, epsilon=self.setting.epsilon)[0]


def is_it_batch_norm() -> Checked:
    print(len(conformance.names()), Setting(3, axis=1).vectors())
    for maker in (
        adapters.Equinox,
        adapters.Flax,
        adapters.FlaxNNX,
        partial(adapters.Function, function=np.sin),
        adapters.Haiku,
        adapters.Keras,
        adapters.MLX,
        adapters.NumPy,
        adapters.Onnx,
        adapters.Paddle,
        adapters.Sonnet,
        adapters.TensorFlow,
        adapters.Tinygrad,
        adapters.Torch,
    ):
        check_batch_norm(maker, only={"transform"}, skip=(), name="one of ours")
    report = check_batch_norm(Mine)
    return report.at_least("error")[0]
