"""Write one trained network into the files of six frameworks, for chapter 12.

    python benchmarks/files.py [--only torch ...] [--folder bnlib/book/files]

PyTorch trains the network of the book on the digits. Its weights are then put into a network of
each other framework, which writes its own file: Keras 2 (needs tf_keras), a TensorFlow 1 checkpoint
by slim (needs tf_slim and tf_keras), ONNX, and Caffe, whose files are written field by field. What
each framework answers is compared with PyTorch; Caffe is not run. It takes a minute.
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.progress import track

from bnlib.book.data import digits
from bnlib.conventions import from_torch, to_caffe

FOLDER = Path(__file__).parents[1] / "bnlib/book/files"
CHANNELS, STRIDES = (8, 16, 32), (1, 2, 2)
EPOCHS, BATCH, RATE = 10, 64, 0.5


def images():
    """Return the digits channels first, float32, with pixels from 0 to 1."""
    data = digits()
    x_train, x_test = (
        (x[:, np.newaxis] / 16).astype("float32") for x in (data.x_train, data.x_test)
    )
    return x_train, data.y_train, x_test, data.y_test


def network():
    """Make the book's network in PyTorch, with the names that torchvision's ResNet uses."""
    from torch import nn

    class Digits(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(8)
            self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(16)
            self.conv3 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
            self.bn3 = nn.BatchNorm2d(32)
            self.fc = nn.Linear(32, 10)

        def forward(self, x):
            x = self.bn1(self.conv1(x)).relu()
            x = self.bn2(self.conv2(x)).relu()
            x = self.bn3(self.conv3(x)).relu()
            return self.fc(x.mean((2, 3)))

    return Digits()


def trained(seed=0):
    """Train it; return it in inference mode."""
    import torch

    torch.manual_seed(seed)
    x, y, _, _ = images()
    x, y, model = torch.tensor(x), torch.tensor(y), network()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    order = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        shuffled = order.permutation(len(x))[: len(x) // BATCH * BATCH]
        for batch in shuffled.reshape(-1, BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def safetensors(path, arrays):
    """Write arrays by name: the length of a header, the header in JSON, the numbers."""
    header, place = {}, 0
    kinds = {"float32": "F32", "int64": "I64"}
    for name, a in arrays.items():
        header[name] = {
            "dtype": kinds[str(a.dtype)],
            "shape": list(a.shape),
            "data_offsets": [place, place + a.nbytes],
        }
        place += a.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    numbers = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def read_safetensors(path):
    """Read them back."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    found, kinds = {}, {"F32": "float32", "I64": "int64"}
    for name, entry in json.loads(raw[8:start]).items():
        first, last = entry["data_offsets"]
        numbers = np.frombuffer(
            raw[start + first : start + last], kinds[entry["dtype"]]
        )
        found[name] = numbers.reshape(entry["shape"])
    return found


def write_torch(folder):
    """Train with PyTorch; write its state and, apart, what it answers to the test digits."""
    import torch

    model = trained()
    _, _, x, _ = images()
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    safetensors(folder / "digits.safetensors", state)
    with torch.no_grad():
        answers = model(torch.tensor(x)).numpy()
    safetensors(folder / "answers.safetensors", {"fc": answers})
    return answers


def kernels(state, name):
    """Return a kernel in TensorFlow's order: (H, W, D, C) or (D, C)."""
    a = state[f"{name}.weight"]
    return a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T


def norm_weights(state, name):
    """Return gamma, beta and the statistics in Keras's order."""
    names = ("weight", "bias", "running_mean", "running_var")
    return [state[f"{name}.{each}"] for each in names]


def write_keras2(folder):
    """Put the weights into a Keras 2 model, and let it save itself."""
    import tf_keras as keras

    state, layers = read_safetensors(folder / "digits.safetensors"), []
    model = keras.Sequential([keras.layers.InputLayer((8, 8, 1))])
    for n, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1):
        layers += [
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(
                channels, 3, stride, use_bias=False, name=f"conv2d_{n}"
            ),
            keras.layers.BatchNormalization(
                epsilon=1e-5, momentum=0.9, name=f"batch_normalization_{n}"
            ),
            keras.layers.ReLU(),
        ]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    for layer in layers:
        model.add(layer)
    for n in (1, 2, 3):
        model.get_layer(f"conv2d_{n}").set_weights([kernels(state, f"conv{n}")])
        norm = model.get_layer(f"batch_normalization_{n}")
        norm.set_weights(norm_weights(state, f"bn{n}"))
    model.layers[-1].set_weights([kernels(state, "fc"), state["fc.bias"]])
    model.save(folder / "digits.h5")
    return model.predict(np.moveaxis(images()[2], 1, -1), verbose=0)


def write_slim(folder):
    """Put the weights into a graph of slim, and let TensorFlow 1's Saver write a checkpoint."""
    import tensorflow as tf

    # where TensorFlow 2.21 looks for them, and tf_keras 2.21 no longer has them
    for name in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        inside = importlib.import_module(f"tf_keras.src.legacy_tf_layers{name}")
        sys.modules[f"tf_keras.legacy_tf_layers{name}"] = inside
    import tf_slim as slim

    v1, state = tf.compat.v1, read_safetensors(folder / "digits.safetensors")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 8, 8, 1))
        h = x
        for n, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1):
            h = slim.conv2d(
                tf.pad(h, [[0, 0], [1, 1], [1, 1], [0, 0]]),
                channels,
                3,
                stride,
                "VALID",
                normalizer_fn=slim.batch_norm,
                normalizer_params={
                    "scale": True,
                    "epsilon": 1e-5,
                    "decay": 0.9,
                    "is_training": False,
                },
                scope=f"conv{n}",
            )
        out = slim.fully_connected(
            tf.reduce_mean(h, [1, 2]), 10, activation_fn=None, scope="logits"
        )
        places = {"gamma": "weight", "beta": "bias"}
        places |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        for v in v1.global_variables():
            scope, *inner, leaf = v.op.name.split("/")
            name = scope.replace("logits", "fc")
            if inner:
                value = state[f"{name.replace('conv', 'bn')}.{places[leaf]}"]
            else:
                value = kernels(state, name) if leaf == "weights" else state["fc.bias"]
            v.load(value, session)
        saver = v1.train.Saver()
        saver.save(
            session,
            str(folder / "digits.ckpt"),
            write_meta_graph=False,
            write_state=False,
        )
        return session.run(out, {x: np.moveaxis(images()[2], 1, -1)})


def write_onnx(folder):
    """Write the graph that PyTorch would export, without folding, and run it."""
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    state, nodes, h = read_safetensors(folder / "digits.safetensors"), [], "input"
    for n, stride in enumerate(STRIDES, 1):
        conv = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4}
        nodes.append(
            helper.make_node("Conv", [h, f"conv{n}.weight"], [f"c{n}"], **conv)
        )
        four = ("weight", "bias", "running_mean", "running_var")
        nodes.append(
            helper.make_node(
                "BatchNormalization",
                [f"c{n}", *(f"bn{n}.{each}" for each in four)],
                [f"b{n}"],
                name=f"bn{n}",
                epsilon=1e-5,
                momentum=0.9,
            )
        )
        nodes.append(helper.make_node("Relu", [f"b{n}"], [f"r{n}"]))
        h = f"r{n}"
    nodes.append(helper.make_node("GlobalAveragePool", [h], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    gemm = ["flat", "fc.weight", "fc.bias"]
    nodes.append(helper.make_node("Gemm", gemm, ["output"], transB=1))
    initializers = [
        numpy_helper.from_array(value, name)
        for name, value in state.items()
        if not name.endswith("tracked")
    ]
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("input", float32, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("output", float32, ["N", 10])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 15)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "digits.onnx")
    return ReferenceEvaluator(model).run(None, {"input": images()[2]})[0]


def caffe_network():
    """Return the network as Caffe describes it, without weights."""
    from bnlib.book._caffe import message

    net = message()(name="digits", input=["data"])
    net.input_shape.add(dim=[1, 1, 8, 8])
    bottom = "data"

    def add(name, kind, bottom, top=None, **settings):
        settings |= {"bottom": [bottom], "top": [top or name]}
        return net.layer.add(name=name, type=kind, **settings)

    for n, (channels, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), 1):
        geometry = {"num_output": channels, "kernel_size": [3], "pad": [1]}
        geometry |= {"bias_term": False, "stride": [stride]}
        conv = f"conv{n}"
        add(conv, "Convolution", bottom, convolution_param=geometry)
        norm = add(f"bn{n}", "BatchNorm", conv, conv)
        norm.param.extend([norm.param.add(lr_mult=0)] * 2)
        norm.batch_norm_param.use_global_stats = True
        norm.batch_norm_param.moving_average_fraction = 0.9
        add(f"scale{n}", "Scale", conv, conv, scale_param={"bias_term": True})
        add(f"relu{n}", "ReLU", conv, conv)
        bottom = conv
    pooling = {"pool": 1, "global_pooling": True}
    add("pool", "Pooling", bottom, pooling_param=pooling)
    add("fc", "InnerProduct", "pool", inner_product_param={"num_output": 10})
    return net


def write_caffe(folder):
    """Write the description as text and the weights as binary; nothing of it is run."""
    from google.protobuf import text_format

    state, net = read_safetensors(folder / "digits.safetensors"), caffe_network()
    text = text_format.MessageToString(net)
    (folder / "digits.prototxt").write_text(text)
    for layer in net.layer:
        number = layer.name[-1]
        if layer.type == "Convolution":
            blobs = [state[f"{layer.name}.weight"]]
        elif layer.type == "InnerProduct":
            blobs = [state["fc.weight"], state["fc.bias"]]
        elif layer.type in ("BatchNorm", "Scale"):
            values = {
                name.removeprefix(f"bn{number}."): value
                for name, value in state.items()
                if name.startswith(f"bn{number}.")
            }
            written = to_caffe(from_torch(values, eps=1e-5, momentum=0.1))
            blobs = written[layer.type]
        else:
            continue
        for blob in blobs:
            layer.blobs.add(shape={"dim": blob.shape}, data=blob.reshape(-1).tolist())
    (folder / "digits.caffemodel").write_bytes(net.SerializeToString())


WRITERS = {
    "torch": write_torch,
    "keras2": write_keras2,
    "slim": write_slim,
    "onnx": write_onnx,
    "caffe": write_caffe,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="write here")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    for name in track(options.only, "writing"):
        answers = WRITERS[name](options.folder)
        if answers is not None:
            right = read_safetensors(options.folder / "answers.safetensors")["fc"]
            print(f"{name}: off by {np.abs(answers - right).max():.1e}")


if __name__ == "__main__":
    main()
