"""Time what batch norm costs: a training step, and a prediction, with it and without.

The networks of chapter 13 in NumPy, and the book's convolutional network in Keras, compiled. Both
networks of a pair take turns in one process, so that whatever else the machine does hits them
alike; a prediction is also timed with batch norm folded away (chapter 8).

    python benchmarks/price.py [--rounds 60] [--json bnlib/book/stored/price.json]
"""

import argparse
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import experiments
import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from bnlib import doctor
from bnlib.book import convnet
from bnlib.book.experiments import keep
from bnlib.book.network import dense, softmax_cross_entropy
from bnlib.book.timing import in_turn

STORED = Path(__file__).parents[1] / "bnlib/book/stored/price.json"
DENSE = {
    "NumPy, R2RT's network": ([64, 100, 100, 10], "sigmoid", "raw"),
    "NumPy, the plateau's network": ([64, 100, 100, 100, 10], "sigmoid", "divided"),
    "NumPy, 2 layers of 512": ([64, 512, 512, 10], "relu", "standardised"),
}


def of_numpy(sizes, activation, pixels, rounds):
    """Return the milliseconds of a dense network, with and without batch norm."""
    data, calls = experiments.data_of(pixels), {}
    x, y = data.x_train[:60], data.y_train[:60]
    for norm in (False, True):
        net = dense(sizes, activation, norm=experiments.remember if norm else None)
        calls[f"step {norm}"] = partial(one_step, net, x, y)
        calls[f"prediction {norm}"] = partial(net, data.x_test, training=False)
    return in_turn(calls, rounds, together=5)


def one_step(net, x, y):
    """Do what `train` does in one step, at a rate of almost nothing."""
    _, grad = softmax_cross_entropy(net(x, training=True), y)
    net.backward(grad)
    net.step(1e-9)


def of_keras(rounds):
    """Return the milliseconds of the convolutional network in Keras, compiled."""
    x, y, x_test, _ = map(tf.constant, convnet.as_images())
    x, y, calls = x[:64], y[:64], {}
    for norm in (False, True):
        model = convnet.convolutional(
            norm=keras.layers.BatchNormalization if norm else None
        )
        calls[f"step {norm}"] = keras_step(model, x, y)
        calls[f"prediction {norm}"] = keras_prediction(model, x_test)
        if norm:
            folded, _ = doctor.fold(model)
            calls["prediction folded"] = keras_prediction(folded, x_test)
    return in_turn(calls, rounds, together=3)


def keras_step(model, x, y):
    """Return a compiled training step, to be called without arguments."""
    optimizer = keras.optimizers.SGD(1e-9)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                y, model(x, training=True)
            )
            loss = tf.reduce_mean(losses)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return loss

    return lambda: step().numpy()


def keras_prediction(model, x):
    """Return a compiled prediction, to be called without arguments."""
    predict = tf.function(partial(model, training=False))
    return lambda: predict(x).numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, default=STORED, help="store it here")
    options = parser.parse_args()
    found = {name: of_numpy(*each, options.rounds) for name, each in DENSE.items()}
    found["Keras, the convolutional network"] = of_keras(options.rounds)
    table = Table("network", "what", "without, ms", "with, ms", "ratio")
    for name, times in found.items():
        for what in ("step", "prediction"):
            without, normed = times[f"{what} False"], times[f"{what} True"]
            table.add_row(
                name, what, f"{without:.3f}", f"{normed:.3f}", f"{normed / without:.2f}"
            )
    Console().print(table)
    keep(options.json, __file__, milliseconds=found)


if __name__ == "__main__":
    main()
