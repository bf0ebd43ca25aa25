"""A reader of Caffe's files, a `.caffemodel` or its ONNX export.

Arrays are named by Caffe's layers: `inception_4c/3x3_reduce/weight` and `.../bias`. A `.caffemodel`
is a Protocol Buffers message. The few fields that contain weights are declared here, for Google's
reader, because Caffe itself no longer builds on current systems. The `onnx` package reads `.onnx`.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from models.stored import size

_INSTALL = "install the extra that reads Caffe's files: pip install 'ifv-jax[caffe]'"
# Fields of caffe.proto: name, number, type (of a scalar or a message), repeated. Files were written
# with `layers` until 2014, among them those of the model zoo, and with `layer` since then.
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Shape": [("dim", 1, "INT64", True)],
    "Blob": [
        ("num", 1, "INT32", False),
        ("channels", 2, "INT32", False),
        ("height", 3, "INT32", False),
        ("width", 4, "INT32", False),
        ("data", 5, "FLOAT", True),
        ("shape", 7, "Shape", False),
    ],
    "OldLayer": [("name", 4, "STRING", False), ("blobs", 6, "Blob", True)],
    "Layer": [("name", 1, "STRING", False), ("blobs", 7, "Blob", True)],
    "Net": [("layers", 2, "OldLayer", True), ("layer", 100, "Layer", True)],
}


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of a file.

    Args:
      path: a `.caffemodel` or an `.onnx`.

    Returns:
      The arrays by name; floating point is converted to float32.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: the package that reads the file is not installed.
      ValueError: the file cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a Caffe network at {path}, got no such file")
    return _read_onnx(path) if path.suffix.lower() == ".onnx" else _read_caffemodel(path)


def _read_caffemodel(path: Path) -> dict[str, np.ndarray]:
    net = _net_message()()
    try:
        net.ParseFromString(path.read_bytes())
    except Exception as error:  # DecodeError, whose module differs between versions
        raise _damaged(path, error) from error
    arrays = {}
    for layer in [*net.layers, *net.layer]:
        for part, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            arrays[f"{layer.name}/{part}"] = _array(blob, layer.name, path)
    if not arrays:
        raise _damaged(path, "no layer with weights in it")
    return arrays


def _array(blob: Any, name: str, path: Path) -> np.ndarray:
    data = np.array(blob.data, np.float32)
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:  # always four axes: a bias is (1, 1, 1, n), a matrix (1, 1, m, n)
        shape = (blob.num, blob.channels, blob.height, blob.width)
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
    if min(shape, default=0) < 0 or data.size != size(shape):
        raise _damaged(path, f"{data.size} numbers in {name}, where {shape} are announced")
    return data.reshape(shape)


def _net_message() -> Any:
    """Makes the message class `Net` from `_MESSAGES`."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise ImportError(f"expected the package protobuf, got none; {_INSTALL}") from error
    file = descriptor_pb2.FileDescriptorProto(
        name="ifv_jax_caffe.proto", package="ifv_jax_caffe", syntax="proto2"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated in fields:
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".ifv_jax_caffe.{kind}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ifv_jax_caffe.Net"))


def _read_onnx(path: Path) -> dict[str, np.ndarray]:
    try:
        onnx = importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError(f"expected the package onnx, got none; {_INSTALL}") from error
    try:
        tensors = onnx.load(path).graph.initializer
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}
    except Exception as error:  # DecodeError, and other exceptions for damaged fields
        raise _damaged(path, error) from error
    # The exporter wrote inception_3a/1x1_w_0 and inception_3a/1x1_b_0.
    parts = {"_w_0": "/weight", "_b_0": "/bias"}
    return {
        # Integers are kept; the check of the network refuses them.
        name[:-4] + parts[name[-4:]]: array.astype(np.float32) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
        if name[-4:] in parts
    }


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(
        f"expected a network of Caffe in {path}, got a file that cannot be read ({why}); "
        "fetch it again"
    )
