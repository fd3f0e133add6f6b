"""Tensors of an `.onnx` file, the initializers of its graph; the graph is not run.

ONNX is a message of Protocol Buffers, whose library TFDS needs anyway: the few fields that hold weights are declared
here (onnx.proto, IR version 10), and it skips all others. The package onnx, with a compiler and a checker of graphs,
is not needed.
"""

import math
from functools import cache
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from jaxtyping import Shaped

from cvjax.errors import UserError

FIELD = descriptor_pb2.FieldDescriptorProto
# Message: {field: (number, type, repeated)}; a type is a kind of number, or the name of another message.
MESSAGES = {
    "Tensor": {
        "dims": (1, FIELD.TYPE_INT64, True),
        "data_type": (2, FIELD.TYPE_INT32, False),
        "float_data": (4, FIELD.TYPE_FLOAT, True),
        "int32_data": (5, FIELD.TYPE_INT32, True),
        "int64_data": (7, FIELD.TYPE_INT64, True),
        "name": (8, FIELD.TYPE_STRING, False),
        "raw_data": (9, FIELD.TYPE_BYTES, False),
        "double_data": (10, FIELD.TYPE_DOUBLE, True),
        "uint64_data": (11, FIELD.TYPE_UINT64, True),
        "data_location": (14, FIELD.TYPE_INT32, False),
    },
    "Graph": {"initializer": (5, "Tensor", True)},
    "Model": {"ir_version": (1, FIELD.TYPE_INT64, False), "graph": (7, "Graph", False)},
}
DTYPES = {  # number of the type: NumPy's type, and the field that holds it where raw_data does not
    1: (np.dtype("<f4"), "float_data"),
    2: (np.dtype("u1"), "int32_data"),
    3: (np.dtype("i1"), "int32_data"),
    4: (np.dtype("<u2"), "int32_data"),
    5: (np.dtype("<i2"), "int32_data"),
    6: (np.dtype("<i4"), "int32_data"),
    7: (np.dtype("<i8"), "int64_data"),
    9: (np.dtype("?"), "int32_data"),
    10: (np.dtype("<f2"), "int32_data"),  # as its bits, as are those of the next
    11: (np.dtype("<f8"), "double_data"),
    12: (np.dtype("<u4"), "uint64_data"),
    13: (np.dtype("<u8"), "uint64_data"),
    16: (np.dtype(jnp.bfloat16), "int32_data"),
}
BITS = (10, 16)
EXTERNAL = 1  # a `data_location` outside of the file


def read_onnx(path: Path, content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns {name: array} of the initializers in the content of a file.

    Raises a UserError for a damaged file, one without initializers, or a tensor that lies in another file or has a type
    that NumPy lacks.
    """
    try:
        model = _model_class().FromString(content)
    except message.DecodeError as error:
        raise UserError(f"{path} is damaged, or is not an ONNX file: {error}") from error
    if not model.ir_version or not model.graph.initializer:
        raise UserError(f"{path} is not an ONNX file, or its graph has no initializers.")
    return {tensor.name: _array(path, tensor) for tensor in model.graph.initializer}


def _array(path: Path, tensor: message.Message) -> np.ndarray:
    where = f"{path}: tensor {tensor.name!r}"
    if tensor.data_location == EXTERNAL:
        raise UserError(f"{where} lies in another file, which is not read: save the model as a single file.")
    if tensor.data_type not in DTYPES:
        raise UserError(f"{where} has ONNX's type {tensor.data_type}, which is not read.")
    dtype, field = DTYPES[tensor.data_type]
    if tensor.raw_data:
        numbers = np.frombuffer(tensor.raw_data, np.uint8)
        numbers = numbers.view(dtype) if numbers.size % dtype.itemsize == 0 else numbers[:0]
    else:
        listed = np.array(getattr(tensor, field))
        numbers = listed.astype(np.uint16).view(dtype) if tensor.data_type in BITS else listed.astype(dtype)
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0 or numbers.size != math.prod(shape):
        raise UserError(f"{where} is damaged: {numbers.size} numbers for the shape {shape}.")
    return numbers.reshape(shape)


@cache
def _model_class() -> type[message.Message]:
    """The class of a model, of the messages above."""
    file = descriptor_pb2.FileDescriptorProto(name="cvjax/onnx.proto", package="cvjax.onnx", syntax="proto2")
    for name, fields in MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            if isinstance(kind, str):
                kind = dict(type=FIELD.TYPE_MESSAGE, type_name=f".cvjax.onnx.{kind}")
            else:
                kind = dict(type=kind)
            declared.field.add(name=field, number=number, label=label, **kind)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("cvjax.onnx.Model"))
