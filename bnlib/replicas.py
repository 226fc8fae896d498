"""Several devices, several processes, one batch: what `tf.distribute` leaves to be written.

Statistics cross in `BatchNormalization(synchronized=True)`, or in `bnlib.tf_ops.sync_moments`.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from bnlib._extras import needed

with needed("bnlib.replicas", "tf"):
    import tensorflow as tf


from bnlib.tf_ops._replicas import all_sum

__all__ = ["join_workers", "mirrored", "per_replica", "train_step"]


def mirrored(number: int) -> Any:
    """Cut the CPU into logical devices, and make a `MirroredStrategy` over so many of them.

    Args:
        number: how many replicas.

    Returns:
        A `tf.distribute.MirroredStrategy`.

    Raises:
        ValueError: when number is not a positive integer.
        RuntimeError: when TensorFlow has started with another number of devices. In one process
            all strategies must be over the same devices, or TensorFlow's exchanges fail.

    Source: `tf.config.set_logical_device_configuration`.
    """
    if not isinstance(number, int) or number < 1:
        raise ValueError(
            f"number must be a positive integer; got {number!r}. Two replicas are mirrored(2)."
        )
    cpu = tf.config.list_physical_devices("CPU")[0]
    cut = [tf.config.LogicalDeviceConfiguration()] * number
    with contextlib.suppress(RuntimeError):  # raised once TensorFlow has started
        tf.config.set_logical_device_configuration(cpu, cut)
    found = len(tf.config.list_logical_devices("CPU"))
    if found != number:
        raise RuntimeError(
            f"TensorFlow must have {number} logical CPU devices; it has started with {found}. "
            f"Call mirrored({number}) before anything else uses TensorFlow."
        )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(number)])


def per_replica(strategy: Any, parts: Sequence[Any]) -> Any:
    """Hand each replica its own part of the batch.

    Args:
        strategy: a `tf.distribute.Strategy`.
        parts: one array per replica of all workers, in the order of the replicas. They may have
            different lengths. A worker uses those of its own replicas alone.

    Returns:
        A value for `strategy.run`.

    Raises:
        ValueError: when there are more or fewer parts than replicas.
    """
    number = strategy.num_replicas_in_sync
    if len(parts) != number:
        raise ValueError(
            f"parts must be one for each of {number} replicas; got {len(parts)}. "
            f"np.array_split(batch, {number}) cuts a batch."
        )
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(parts[context.replica_id_in_sync_group])
    )


def train_step(
    strategy: Any, model: Any, optimizer: Any, loss: Callable[..., Any]
) -> Callable[..., Any]:
    """Make a training step for all replicas, by the mean loss of the whole batch.

        loss = sum over all replicas of (sum over its examples) / (examples on all replicas)

    So parts may be unequal. On several workers `fit` of Keras 3.15.1 fails; this works.

    Args:
        strategy: a `tf.distribute.Strategy`.
        model: a built Keras model, made inside `strategy.scope()`.
        optimizer: a Keras optimizer, made there too.
        loss: function of `(labels, outputs)` that returns one value per example, shape `(N,)`.

    Returns:
        A function of `(inputs, labels)`, each from `per_replica`, that takes one step and returns
        the loss, a scalar tensor.

    Raises:
        ValueError: when model or optimizer was made outside the scope.

    Source: TensorFlow's guide to custom training with `tf.distribute`.
    """
    _check_scope(strategy, model, optimizer)
    variables = model.trainable_variables
    with strategy.scope():
        optimizer.build(variables)

    def on_replica(inputs, labels):
        count = all_sum(tf.shape(labels)[0])
        with tf.GradientTape() as tape:
            losses = loss(labels, model(inputs, training=True))
            value = tf.reduce_sum(losses) / tf.cast(count, losses.dtype)
            if model.losses:  # of regularizers, which every replica computes in full
                value += tf.nn.scale_regularization_loss(tf.add_n(model.losses))
        optimizer.apply(tape.gradient(value, variables), variables)
        return value

    @tf.function
    def step(inputs, labels):
        values = strategy.run(on_replica, (inputs, labels))
        return strategy.reduce("SUM", values, axis=None)

    return step


def _check_scope(strategy, model, optimizer):
    """Refuse variables that are not the strategy's: they would be trained on one replica alone."""
    weights = model.variables if model.built else []
    for name, values in ("model", weights), ("optimizer", [optimizer.iterations]):
        inside = [strategy.extended.variable_created_in_scope(v.value) for v in values]
        if not inside or not all(inside):
            raise ValueError(
                f"{name} must be made, and a model built, inside the scope of the strategy; it "
                "was not. Make both below `with strategy.scope():`, and start a model with Input."
            )


def join_workers(timeout: float = 120) -> Any:
    """Meet the other workers, and make a `MultiWorkerMirroredStrategy` with them.

    TensorFlow's own wait for a missing worker cannot be bounded, and SIGTERM does not end it. So
    the workers first wait for each other's ports, and only then enter TensorFlow. Should that last
    step hang all the same, because a worker has died just then, the process prints where each of
    its threads stands, and ends.

    Args:
        timeout: seconds to wait for the others, and later for any exchange with them.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        RuntimeError: when there is no cluster in the environment variable TF_CONFIG, or this
            process is none of its workers.
        TimeoutError: when a worker did not come. It is named.

    Source: TensorFlow's guide to multi-worker training with Keras.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    me = resolver.task_type, resolver.task_id
    _meet(_cluster(resolver, me), me, timeout)
    faulthandler.dump_traceback_later(timeout, exit=True, file=sys.__stderr__)
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _cluster(resolver, me):
    """Return `{(job, number): address}` of all who train."""
    cluster = {
        (job, place): address
        for job, addresses in resolver.cluster_spec().as_dict().items()
        for place, address in enumerate(addresses)
        if job in ("chief", "worker")
    }
    if me not in cluster:
        raise RuntimeError(
            "TF_CONFIG must name a cluster of workers and which of them this is; got "
            f"{os.environ.get('TF_CONFIG')!r}. bnlib.book.workers.run_workers sets it for you."
        )
    return cluster


def _meet(cluster, me, timeout):
    """Listen at our own address until all others have answered at theirs.

    The port can be shared with the server that TensorFlow will start there, but not on Windows.
    """
    port = int(cluster[me].rpartition(":")[2])
    missing = {who: address for who, address in cluster.items() if who != me}
    deadline = time.monotonic() + timeout
    shared = hasattr(socket, "SO_REUSEPORT")
    with socket.create_server(("", port), reuse_port=shared):
        while missing := {w: a for w, a in missing.items() if not _answers(a)}:
            if time.monotonic() > deadline:
                names = ", ".join(f"{j} {i} at {a}" for (j, i), a in missing.items())
                raise TimeoutError(
                    f"{len(cluster)} workers must meet; {me[0]} {me[1]} has waited {timeout} s for "
                    f"{names}. Start it, or look at why it ended."
                )
            time.sleep(0.1)


def _answers(address):
    """Whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
