"""Batch norm on a device, beside the time to copy the array there: a bound set by the memory.

The page "Measure your GPU" of the book runs this, and so does `benchmarks/gpu.py`. All candidates
take turns in one process. A step is forward and backward in training mode.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from bnlib._extras import needed
from bnlib.book.timing import in_turn, surroundings

with needed("bnlib.book.gpu", "tf"):
    import keras
    import tensorflow as tf

    from bnlib.keras import BatchNormalization, swap_in

__all__ = [
    "SHAPES",
    "SMALL",
    "accuracy",
    "device",
    "in_copies",
    "report",
    "resnet50",
    "steps",
]

SHAPES = [(32, 112, 112, 64), (256, 56, 56, 64), (256, 14, 14, 256), (65536, 1024)]
SMALL = [(4, 8, 8, 16), (64, 32)]  # to see that the code works
DTYPES = ("float32", "float16", "bfloat16")
MODES = {"eager": None, "tf.function": False, "XLA": True}
POLICIES = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
COPY = "copy of x"


def device() -> str:
    """Name the first GPU that TensorFlow sees.

    Returns:
        "/GPU:0", or "/CPU:0" where there is none.

    >>> device() in ("/GPU:0", "/CPU:0")
    True
    """
    return "/GPU:0" if tf.config.list_physical_devices("GPU") else "/CPU:0"


def steps(
    shapes: Iterable[tuple[int, ...]],
    dtypes: Sequence[str] = DTYPES,
    *,
    rounds: int = 30,
    together: int = 10,
    place: str | None = None,
) -> list[dict[str, Any]]:
    """Time a training step of one batch norm, for each shape, dtype, candidate and mode.

    Candidates are our layer, Keras's, and the fused kernel of TensorFlow with the channels last and
    first; PyTorch's kernel where PyTorch is installed and sees the same kind of device. What a
    device refuses, such as channels first on a CPU, has no record.

    Args:
        shapes: of x, channels last.
        dtypes: of x; the layers keep float32 variables.
        rounds: counted per candidate.
        together: how often each is called in a round. The device is waited for once in a round, so
            that the time to launch a call hides behind the one before.
        place: a TensorFlow device; default `device()`.

    Returns:
        Records with `shape`, `dtype`, `candidate`, `mode`, `ms`, and `copies`: the time over that
        of copying x on the same device. That of the copy has also `GB/s`, read and written.
    """
    place, records = place or device(), []
    for shape in shapes:
        for dtype in dtypes:
            rng = np.random.default_rng(0)
            x, grad_y = (rng.standard_normal(shape, "f4") + 0.5 for _ in range(2))
            with tf.device(place):
                x, grad_y = (tf.cast(tf.constant(v), dtype) for v in (x, grad_y))
            calls = _tensorflow(x, grad_y) | _torch(x, grad_y, place)
            calls = {name: _repeated(*call, together) for name, call in calls.items()}
            times = in_turn(calls, rounds)
            for (name, mode), ms in times.items():
                record = {"shape": list(shape), "dtype": dtype, "candidate": name}
                copies, ms = ms / times[COPY, "tf.function"], ms / together
                record |= {"mode": mode, "ms": ms, "copies": copies}
                if name == COPY:
                    record["GB/s"] = 2 * x.dtype.size * np.prod(shape) / ms / 1e6
                records.append(record)
    return records


def _repeated(call, wait, together):
    """Return a function that calls so often, and then waits for the device."""

    def run():
        for _ in range(together):
            result = call()  # only the last is kept: the memory holds it
        wait()
        return result

    return run


def in_copies(
    records: Iterable[dict[str, Any]],
) -> tuple[list[str], list[list[str]]]:
    """Arrange the records of `steps` as a table, one row for each shape and dtype.

    Args:
        records: what `steps` gives, or a stored file holds.

    Returns:
        Headings and rows. The columns are `GB/s` of the copy, and the copies that each candidate
        takes, with two digits, in the three modes in turn; a dash is what the device refuses.

    >>> copy = {"shape": [8], "dtype": "float32", "candidate": COPY, "copies": 1, "GB/s": 20}
    >>> ours = {"shape": [8], "dtype": "float32", "candidate": "ours", "copies": 4.56}
    >>> in_copies([copy | {"mode": "tf.function"}, ours | {"mode": "XLA"}])[1]
    [['8', 'float32', '20', '- / - / 4.6']]
    """
    rows, names = {}, {}
    for record in records:
        place = "x".join(map(str, record["shape"])), record["dtype"]
        row = rows.setdefault(place, {})
        row[record["candidate"], record["mode"]] = f"{record['copies']:.2g}"
        if record["candidate"] == COPY:
            row["GB/s"] = f"{record['GB/s']:.2g}"
        else:
            names[record["candidate"]] = None
    table = [
        [*place, row["GB/s"]]
        + [" / ".join(row.get((name, mode), "-") for mode in MODES) for name in names]
        for place, row in rows.items()
    ]
    return ["x", "type", "copy, GB/s", *names], table


def _tensorflow(x, grad_y):
    """Return the calls on TensorFlow that this device can run, each with how to wait for it."""
    policy = POLICIES.get(x.dtype.name, x.dtype.name)
    candidates = {
        "ours": _layer(BatchNormalization(dtype=policy), x),
        "Keras": _layer(keras.layers.BatchNormalization(dtype=policy), x),
        "fused kernel": _fused(x, "NHWC"),
        "fused kernel, channels first": _fused(x, "NCHW"),
    }
    copy = tf.function(lambda x: tf.raw_ops.DeepCopy(x=x))
    wait = tf.test.experimental.sync_devices
    calls = {(COPY, "tf.function"): (lambda: copy(x), wait)}
    for name, norm in candidates.items():
        for mode, xla in MODES.items():
            step = _step(norm)
            run = step if xla is None else tf.function(step, jit_compile=xla)
            call = _call(run, *_laid_out(name, x, grad_y))
            try:
                call()
            except (tf.errors.OpError, ValueError):
                continue  # this device has no such kernel
            calls[name, mode] = call, wait
    return calls


def _layer(layer, x):
    layer.build(x.shape)
    return lambda x: layer(x, training=True)


def _fused(x, layout):
    """Return batch norm by the fused kernel, on an array with two axes of places."""
    channels = x.shape[-1]
    scale, offset = tf.ones([channels]), tf.zeros([channels])

    def norm(x):
        kernel = tf.raw_ops.FusedBatchNormV3
        options = {"epsilon": 1e-3, "is_training": True, "data_format": layout}
        none = tf.zeros([0])
        return kernel(
            x=x, scale=scale, offset=offset, mean=none, variance=none, **options
        ).y

    return norm


def _laid_out(name, x, grad_y):
    """Give the fused kernel four axes, and the channels where it wants them."""
    if "fused" not in name:
        return x, grad_y
    if x.shape.rank == 2:
        x, grad_y = (v[:, tf.newaxis, tf.newaxis, :] for v in (x, grad_y))
    if "first" in name:
        x, grad_y = (tf.transpose(v, (0, 3, 1, 2)) for v in (x, grad_y))
    return x, grad_y


def _step(norm):
    def step(x, grad_y):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = norm(x)
        return y, tape.gradient(y, x, grad_y)

    return step


def _call(run, x, grad_y):
    return lambda: run(x, grad_y)


def _torch(x, grad_y, place) -> dict[tuple[str, str], tuple[Callable[[], Any], ...]]:
    """Return a call of PyTorch's kernel, if it is here and sees the same kind of device."""
    try:
        import torch
    except ImportError:
        return {}
    where = "cuda" if "GPU" in place else "cpu"
    if where == "cuda" and not torch.cuda.is_available():
        return {}
    axes = (0, x.shape.rank - 1, *range(1, x.shape.rank - 1))
    x, grad_y = (
        torch.tensor(np.transpose(tf.cast(v, "float32"), axes), device=where).to(
            getattr(torch, v.dtype.name)
        )
        for v in (x, grad_y)
    )
    kind = torch.nn.BatchNorm2d if x.ndim == 4 else torch.nn.BatchNorm1d
    layer = kind(x.shape[1]).to(where)

    def step():
        y = layer(x.requires_grad_())
        return torch.autograd.grad(y, x, grad_y)

    def wait():
        if where == "cuda":
            torch.cuda.synchronize()

    return {("PyTorch, channels first", "eager"): (step, wait)}


def accuracy(
    means: Iterable[float] = (1e2, 1e4, 1e6), *, place: str | None = None
) -> list[dict[str, Any]]:
    """Measure how far each candidate's output is off where the mean is large, in float32.

    Args:
        means: of channels whose deviation is 1.
        place: a TensorFlow device; default `device()`.

    Returns:
        Records with `mean`, `candidate` and `error`, the largest of the output in deviations.
    """
    records = []
    for mean in means:
        noise = np.random.default_rng(0).standard_normal((64, 16, 16, 8))
        x = (mean + noise).astype("float32")
        wide = x.astype("float64")
        middle, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
        exact = (wide - middle) / np.sqrt(variance + 1e-3)
        with tf.device(place or device()):
            x = tf.constant(x)
            candidates = {
                "ours": BatchNormalization(),
                "Keras": keras.layers.BatchNormalization(),
            }
            outputs = {
                name: layer(x, training=True) for name, layer in candidates.items()
            }
            outputs["fused kernel"] = _fused(x, "NHWC")(x)
        for name, y in outputs.items():
            error = float(np.abs(y.numpy() - exact).max())
            records.append({"mean": mean, "candidate": name, "error": error})
    return records


def resnet50(
    *, images: int = 64, size: int = 224, rounds: int = 10, place: str | None = None
) -> list[dict[str, Any]]:
    """Time a training step of ResNet50, with Keras's layers and with ours.

    Args:
        images: in a batch.
        size: of an image, height and width.
        rounds: counted per candidate.
        place: a TensorFlow device; default `device()`.

    Returns:
        Records with `candidate`, `mode` and `ms`; `mode` is "tf.function" or "XLA", which `fit`
        takes by itself on a single GPU.
    """
    rng, calls = np.random.default_rng(0), {}
    with tf.device(place or device()):
        x = tf.constant(rng.standard_normal((images, size, size, 3), "f4"))
        y = tf.constant(rng.integers(0, 10, images))
        for name in ("Keras", "ours"):
            for mode in ("tf.function", "XLA"):
                model = keras.applications.ResNet50(
                    weights=None, input_shape=(size, size, 3), classes=10
                )
                model = swap_in(model, verify=False) if name == "ours" else model
                loss = keras.losses.SparseCategoricalCrossentropy()
                model.compile("sgd", loss, jit_compile=mode == "XLA")
                calls[name, mode] = _training(model, x, y)
        times = in_turn(calls, rounds)
    return [
        {"candidate": name, "mode": mode, "ms": ms}
        for (name, mode), ms in times.items()
    ]


def _training(model, x, y):
    return lambda: model.train_on_batch(x, y)


def report(**measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Put measurements together with where they were made, ready to be stored as JSON.

    Args:
        measured: records by name, as in `report(steps=steps(SHAPES), accuracy=accuracy())`.

    Returns:
        A dict with `surroundings`, which names the GPU, and the records.
    """
    gpus = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    gpu = details.get("device_name", "none")
    return {"surroundings": surroundings() | {"gpu": gpu}, **measured}
