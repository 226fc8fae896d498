"""Ways to ship a Keras model, each as one function that ships it and reads it back.

A way takes the model, inputs and an empty folder, and gives the outputs that come back, and the
size in bytes of what was written (0 where nothing is). "Shipping a model" shows and runs them;
`benchmarks/shipping.py` stores what they gave, those that need another package included.
"""

import contextlib
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bnlib._extras import needed

with needed("bnlib.book.shipping", "tf"):
    import keras
    import tensorflow as tf

    from bnlib.keras import BatchNormalization

__all__ = [
    "compiled",
    "keras_file",
    "lite",
    "lite_int8",
    "mixed",
    "on_backend",
    "onnx",
    "onnx_operations",
    "operations",
    "saved_model",
    "size",
    "to_lite",
    "weights_file",
]

READER = """
import sys
import keras, numpy as np
file, inputs, outputs = sys.argv[1:]
model = keras.models.load_model(file)
np.save(outputs, model.predict(np.load(inputs), verbose=0))
"""


def size(path: str | os.PathLike[str]) -> int:
    """Count the bytes of a file, or of all files in a folder.

    Args:
        path: of the file or folder.

    Returns:
        The bytes.
    """
    path = Path(path)
    files = [path] if path.is_file() else path.rglob("*")
    return sum(each.stat().st_size for each in files if each.is_file())


def keras_file(model: Any, inputs: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """Save to a `.keras` file, and load it.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    file = folder / "model.keras"
    model.save(file)
    return keras.models.load_model(file).predict(inputs, verbose=0), size(file)


def weights_file(
    model: Any, inputs: np.ndarray, folder: Path
) -> tuple[np.ndarray, int]:
    """Save the weights alone, and load them into a model with other weights.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    file = folder / "model.weights.h5"
    model.save_weights(file)
    other = keras.models.clone_model(model)
    other.load_weights(file)
    return other.predict(inputs, verbose=0), size(file)


def saved_model(model: Any, inputs: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """Export a SavedModel, which TensorFlow loads without Keras or `bnlib`.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    model.export(folder / "saved", verbose=False)
    loaded = tf.saved_model.load(str(folder / "saved"))
    return loaded.serve(inputs).numpy(), size(folder / "saved")


def lite(model: Any, inputs: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """Convert to TFLite, in float32.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    return _through_lite(to_lite(model, folder), inputs)


def lite_int8(
    model: Any, inputs: np.ndarray, folder: Path, examples: np.ndarray
) -> tuple[np.ndarray, int]:
    """Convert to TFLite with weights and activations in 8 bits.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.
        examples: inputs such as it will meet, which set the range of each activation.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    return _through_lite(to_lite(model, folder, examples), inputs)


def to_lite(model: Any, folder: Path, examples: np.ndarray | None = None) -> bytes:
    """Convert to TFLite, in float32, or with examples in 8 bits.

    Args:
        model: the model.
        folder: an empty one.
        examples: as in `lite_int8`.

    Returns:
        The content of the file.
    """
    model.export(folder / "for_lite", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "for_lite"))
    if examples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([each[None]] for each in examples)
    with _quiet():
        return converter.convert()


def _through_lite(flat, inputs):
    with _quiet():
        interpreter = tf.lite.Interpreter(model_content=flat)
    (taken,), (given,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    interpreter.resize_tensor_input(taken["index"], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], inputs)
    interpreter.invoke()
    return interpreter.get_tensor(given["index"]), len(flat)


def operations(model: Any, folder: Path) -> list[str]:
    """List the kinds of operations in the TFLite file of a model, sorted.

    Args:
        model: the model.
        folder: an empty one.

    Returns:
        Their names.
    """
    plain = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    flat = to_lite(model, folder)
    with _quiet():
        interpreter = tf.lite.Interpreter(
            model_content=flat, experimental_op_resolver_type=plain
        )
    return sorted({each["op_name"] for each in interpreter._get_ops_details()})


@contextlib.contextmanager
def _quiet():
    """Keep away what the converter writes to stderr, some of it from C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def onnx(model: Any, inputs: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """Export to ONNX, and run that with onnxruntime; needs tf2onnx and onnxruntime.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    import onnxruntime

    file = folder / "model.onnx"
    model.export(file, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(file)
    (taken,) = session.get_inputs()
    return session.run(None, {taken.name: inputs})[0], size(file)


def onnx_operations(model: Any, folder: Path) -> list[str]:
    """List the kinds of operations in the ONNX file of a model, sorted; needs tf2onnx and onnx.

    Args:
        model: the model.
        folder: an empty one.

    Returns:
        Their names.
    """
    from onnx import load

    model.export(folder / "model.onnx", format="onnx", verbose=False)
    return sorted({node.op_type for node in load(folder / "model.onnx").graph.node})


def on_backend(
    model: Any, inputs: np.ndarray, folder: Path, backend: str
) -> tuple[np.ndarray, int]:
    """Save to a `.keras` file, and run it on another backend of Keras.

    The other process imports `bnlib.keras` only for a model with our layer.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.
        backend: "jax" or "torch", which must be installed.

    Returns:
        The outputs that came back, and the size in bytes.

    Raises:
        RuntimeError: with what the other process said, where it failed.
    """
    ours = any(isinstance(layer, BatchNormalization) for layer in model.layers)
    code = "import bnlib.keras" + READER if ours else READER
    file, given, back = (folder / name for name in ("m.keras", "in.npy", "out.npy"))
    model.save(file)
    np.save(given, inputs)
    done = subprocess.run(
        [sys.executable, "-c", code, file, given, back],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return np.load(back), size(file)


def compiled(model: Any, inputs: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """Run it compiled by XLA; nothing is written.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """
    return tf.function(model, jit_compile=True)(inputs).numpy(), 0


def mixed(model: Any, inputs: np.ndarray, folder: Path) -> tuple[np.ndarray, int]:
    """Run it under the policy "mixed_bfloat16": the same weights, computing in 16 bits.

    Args:
        model: the model.
        inputs: what to run it on.
        folder: an empty one.

    Returns:
        The outputs that came back, and the size in bytes.
    """

    def under_policy(layer):
        config = layer.get_config()
        config["dtype"] = "mixed_bfloat16"
        return layer.__class__.from_config(config)

    other = keras.models.clone_model(model, clone_function=under_policy)
    other.set_weights(model.get_weights())
    return np.asarray(other(inputs), "float32"), 0
