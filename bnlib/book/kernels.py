"""What TensorFlow does with a function: which kernels run, and how much memory they go through."""

import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bnlib._extras import needed

with needed("bnlib.book.kernels", "tf"):
    import tensorflow as tf


__all__ = ["Traffic", "graph_traffic", "kernels_run", "xla_traffic"]

# These hand on an array, or look at its shape only.
FREE = {
    "Const",
    "Identity",
    "IdentityN",
    "NoOp",
    "Placeholder",
    "Reshape",
    "Shape",
    "Squeeze",
    "StopGradient",
}
FREE_IN_XLA = {"bitcast", "constant", "get-tuple-element", "parameter", "tuple"}


class Traffic(NamedTuple):
    """How often arrays of one size are read and written.

    Attributes:
        reads: by all operations together.
        writes: likewise.
    """

    reads: int
    writes: int


def graph_traffic(function: Callable[..., Any], *arguments: Any) -> Traffic:
    """Count how often the operations of a function read and write arrays as large as the first.

    The function is traced, and nothing runs. Each operation counts as reading each large input
    once, and writing each large output once; what a kernel does inside is not seen.

    Args:
        function: of tensors.
        *arguments: tensors, the first of which says what is large.

    Returns:
        The `Traffic`.

    >>> graph_traffic(lambda x: tf.nn.relu(x) * x, tf.ones([4, 3]))
    Traffic(reads=3, writes=2)
    """
    size = math.prod(arguments[0].shape)
    graph = tf.function(function).get_concrete_function(*arguments).graph
    busy = [op for op in graph.get_operations() if op.type not in FREE]
    reads = sum(t.shape.num_elements() == size for op in busy for t in op.inputs)
    writes = sum(t.shape.num_elements() == size for op in busy for t in op.outputs)
    return Traffic(reads, writes)


def xla_traffic(function: Callable[..., Any], *arguments: Any) -> Traffic:
    """Count the same for what XLA compiles a function to, for the CPU of this machine.

    Args:
        function: of tensors.
        *arguments: tensors, the first of which says what is large.

    Returns:
        The `Traffic`.

    Raises:
        RuntimeError: when XLA's text has another form than the one that is read here.
    """
    compiled = tf.function(function, jit_compile=True)
    compiler = compiled.experimental_get_compiler_ir(*arguments)
    text = compiler(stage="optimized_hlo")
    return _traffic_of_hlo(text, math.prod(arguments[0].shape))


def _traffic_of_hlo(text, size):
    """Read the lines of the entry computation: `%name = f32[2,3]{1,0} kind(%first, %second)`."""
    _, found, entry = text.partition("\nENTRY ")
    line = re.compile(r"%([\w.-]+) = (\(?)\w+\[([\d,]*)\]\S* .*?([\w-]+)\(([^)]*)\)")
    lines = [match for row in entry.splitlines() if (match := line.search(row))]
    if not found or not lines:
        raise RuntimeError(
            "expected XLA's text to have an ENTRY with one line an operation; got another form. "
            "This version of TensorFlow writes it differently: change `_traffic_of_hlo`."
        )
    sizes = {
        name: 0 if several else math.prod(map(int, filter(None, shape.split(","))))
        for name, several, shape, _, _ in (match.groups() for match in lines)
    }
    reads = writes = 0
    for match in lines:
        name, _, _, kind, operands = match.groups()
        if kind not in FREE_IN_XLA:
            writes += sizes[name] == size
            reads += sum(
                sizes.get(o) == size for o in re.findall(r"%([\w.-]+)", operands)
            )
    return Traffic(reads, writes)


def kernels_run(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Run a function under TensorFlow's profiler, and count the kernels that ran, by their names.

    It is run once before, so that tracing and compiling are not seen.

    Args:
        function: of tensors: plain Python, a `tf.function`, or one with `jit_compile=True`, whose
            fused kernels have names that end in "fusion".
        *arguments: what it is called with.

    Returns:
        How often each kernel ran, by name.

    >>> kernels_run(tf.function(tf.nn.relu), tf.ones([4, 3]))["Relu"]
    1
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    function(*arguments)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        try:
            function(*arguments)
        finally:
            tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    names = (
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )
    return Counter(kind for name in names if (kind := _kind(name)))


def _kind(event):
    """Return the kernel that an event of the profiler names, or None.

    `EagerLocalExecute: Mul` is eager, `some/scope:Mul` is of a graph, `add_multiply_fusion` is
    XLA's.
    """
    if event.startswith("end: "):
        return None
    eager = re.fullmatch(r"EagerLocalExecute: (\w+)", event)
    if eager and not eager[1].startswith("_"):
        return eager[1]
    graph = re.fullmatch(r"(?!__inference)[\w./-]+:([A-Z]\w+)", event)
    if graph and "::" not in event:
        return graph[1]
    return "fusion" if re.search(r"fusion(\.\d+)?$", event) else None
