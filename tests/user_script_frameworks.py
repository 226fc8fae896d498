"""The part of a user's program that needs a framework; see user_script.py for the core.

Only its types are checked, for neither TensorFlow nor Keras tells its own: what is theirs is Any.
"""

from typing import Any

import numpy as np

import bnlib
from bnlib import conventions, doctor, replicas, tf_ops
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
    strategy = replicas.mirrored(2)
    step = replicas.train_step(strategy, model, optimizer, loss)
    step(replicas.per_replica(strategy, [[1.0], [2.0]]), None)
    print(replicas.join_workers(timeout=1.5))


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
