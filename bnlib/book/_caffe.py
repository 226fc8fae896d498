"""Just enough of Caffe's file format to read and write a network with batch norm.

Caffe describes a network in a `.prototxt`, which is text, and keeps its weights in a `.caffemodel`,
which is binary. Both are protocol buffers of one kind of message, `NetParameter`. The numbers of
the fields are those of `caffe.proto`; fields that are not listed here are skipped by the reader of
binary files.
"""

import functools
from pathlib import Path
from typing import Any

from bnlib._extras import needed

with needed("bnlib.book._caffe", "tf"):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf import text_format as text

__all__ = ["load", "message"]

# message: its fields, "name number kind", with a * if repeated, and a default behind =
SCHEMA = {
    "BlobShape": "dim 1 int64*",
    "BlobProto": "shape 7 BlobShape, data 5 float*",
    "BatchNormParameter": "use_global_stats 1 bool, "
    "moving_average_fraction 2 float =0.999, eps 3 float =1e-05",
    "ScaleParameter": "bias_term 4 bool",
    "ConvolutionParameter": "num_output 1 uint32, bias_term 2 bool =true, pad 3 uint32*, "
    "kernel_size 4 uint32*, stride 6 uint32*",
    "PoolingParameter": "pool 1 PoolMethod, global_pooling 12 bool",
    "InnerProductParameter": "num_output 1 uint32, bias_term 2 bool =true",
    "ParamSpec": "name 1 string, lr_mult 3 float =1.0, decay_mult 4 float =1.0",
    "LayerParameter": "name 1 string, type 2 string, bottom 3 string*, top 4 string*, "
    "param 6 ParamSpec*, blobs 7 BlobProto*, convolution_param 106 ConvolutionParameter, "
    "inner_product_param 117 InnerProductParameter, pooling_param 121 PoolingParameter, "
    "batch_norm_param 139 BatchNormParameter, scale_param 142 ScaleParameter",
    "NetParameter": "name 1 string, input 3 string*, input_shape 8 BlobShape*, "
    "layer 100 LayerParameter*",
}


@functools.cache
def message() -> Any:
    """Make the class `NetParameter`.

    Returns:
        The class of protobuf messages.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="bnlib_caffe.proto", package="bnlib_caffe", syntax="proto2"
    )
    method = file.enum_type.add(name="PoolMethod")
    for number, name in enumerate(("MAX", "AVE", "STOCHASTIC")):
        method.value.add(name=name, number=number)
    for name, fields in SCHEMA.items():
        made = file.message_type.add(name=name)
        for each in fields.split(", "):
            field, number, kind, *default = each.split(" ")
            repeated, kind = kind.endswith("*"), kind.removesuffix("*")
            new = made.field.add(
                name=field, number=int(number), label=3 if repeated else 1
            )
            if kind in SCHEMA or kind == "PoolMethod":
                new.type = new.TYPE_MESSAGE if kind in SCHEMA else new.TYPE_ENUM
                new.type_name = f".bnlib_caffe.{kind}"
            else:
                new.type = getattr(new, f"TYPE_{kind.upper()}")
                new.options.packed = repeated and kind in ("float", "int64")
            for value in default:
                new.default_value = value.removeprefix("=")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("bnlib_caffe.NetParameter")
    return message_factory.GetMessageClass(found)


def load(path: Any) -> Any:
    """Read a `.prototxt` or a `.caffemodel`.

    Args:
        path: of the file.

    Returns:
        A `NetParameter`; its `layer` lists the layers.
    """
    path = Path(path)
    if path.suffix == ".prototxt":
        return text.Parse(path.read_text(encoding="utf-8"), message()())
    return message().FromString(path.read_bytes())
